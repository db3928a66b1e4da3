//! `get`, `cat`, `seek` and `has` print exactly the bytes and facts that are stored, and fail where a
//! block is missing.

use std::io::Read;

use crate::support::{Place, Ran, noise, watch};

#[test]
fn get_of_held_block_writes_only_its_bytes() {
    let place = Place::new();
    place.core("log", [&b"first"[..], b"", b"\0\xff\n"]);
    assert_eq!(place.run("get log 0").ok_bytes(), b"first");
    assert_eq!(place.run("get log 1").ok_bytes(), b"");
    assert_eq!(place.run("get log 2").ok_bytes(), b"\0\xff\n");
    let error = place.run("get log 3").fails();
    assert!(error.starts_with("log: ") && error.contains("3 blocks"), "{error}");
    place.open("log").clear(0..1).unwrap();
    let error = place.run("get log 0").fails();
    assert!(error.starts_with("log: ") && error.contains("block 0 is not held"), "{error}");
}

#[test]
fn cat_with_start_and_end_writes_those_blocks() {
    let place = Place::new();
    place.core("log", ["a", "bc", "", "d"]);
    for (options, out) in [
        ("", "abcd"),
        ("--lines", "a\nbc\n\nd\n"),
        ("--start 1", "bcd"),
        ("--end 2", "abc"),
        ("--start 1 --end 2 --lines", "bc\n"),
        ("--start 2 --end 2", ""),
        ("--start 4", ""),
        ("--live --end 3", "abc"),
        ("--read-only", "abcd"),
    ] {
        assert_eq!(place.run(&format!("cat log {options}")).ok(), out, "{options}");
    }
    assert!(place.run("cat log --start 3 --end 2").misused().contains("before"));
    assert!(place.run("cat log --start 5").fails().contains("--start 5"));
    let ran = place.run("cat log --end 9");
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), &b"abcd"[..]));
    assert!(ran.error_line().contains("no block 4"));
}

#[test]
fn cat_with_bytes_writes_that_range() {
    let place = Place::new();
    place.core("log", ["hello ", "", "wor", "ld"]);
    for (range, out) in [
        ("0", "hello world"),
        ("6", "world"),
        ("11", ""),
        ("0:11", "hello world"),
        ("4:4", "o wo"),
        ("6:0", ""),
        ("8:2", "rl"),
        ("11:0", ""),
    ] {
        assert_eq!(place.run(&format!("cat log --bytes {range}")).ok(), out, "{range}");
    }
    assert!(place.run("cat log --bytes 12").fails().contains("12"));
    let ran = place.run("cat log --bytes 9:9");
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), &b"ld"[..]));
    assert!(ran.error_line().contains("18"));
    for options in ["--start 1", "--end 1", "--lines", "--live"] {
        assert!(place.run(&format!("cat log --bytes 0 {options}")).misused().contains("--bytes"), "{options}");
    }
    for range in ["", ":", "1:", ":1", "1:2:3", "1-2"] {
        place.run(&format!("cat log --bytes={range}")).misused();
    }
}

#[test]
fn cat_with_bytes_of_long_log_matches_source_file() {
    let place = Place::new();
    let content = noise(1_000_000);
    place.core("log", content.chunks(999));
    for (offset, length) in [(0, 1_000_000), (1, 999), (998, 2), (999, 999), (500_000, 123_456), (999_999, 1)] {
        let range = place.run(&format!("cat log --bytes {offset}:{length}")).ok_bytes();
        assert!(range == content[offset..offset + length], "{offset}:{length}");
    }
}

#[test]
fn cat_over_hole_writes_blocks_before_it_and_fails() {
    let place = Place::new();
    place.core("log", ["a", "b", "c", "d"]);
    place.open("log").clear(2..3).unwrap();
    for (options, out, hole) in
        [("", "ab", 2), ("--lines", "a\nb\n", 2), ("--start 1", "b", 2), ("--bytes 1", "b", 2), ("--live", "ab", 2)]
    {
        let ran = place.run(&format!("cat log {options}"));
        assert_eq!((ran.code, ran.out.as_slice()), (Some(1), out.as_bytes()), "{options}");
        let error = ran.error_line();
        assert!(error.starts_with("log") && error.contains(&format!("block {hole}")), "{options}: {error}");
    }
    assert_eq!(place.run("cat log --start 3").ok(), "d");
}

#[test]
fn cat_into_closed_pipe_exits_0_silently() {
    let place = Place::new();
    place.core("log", noise(8 * 1024 * 1024).chunks(65536));
    for line in ["cat log", "cat log --lines", "cat log --bytes 1", "cat log --live"] {
        let _watchdog = watch(line);
        let mut child = place.command(line).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut start = [0; 10];
        pipe.read_exact(&mut start).unwrap();
        drop(pipe);
        let ran = Ran::of(line, child);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn every_command_with_closed_stdout_exits_0_silently() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let place = Place::new();
    place.core("log", ["a", "b", "c"]);
    place.file("file", "text");
    for line in [
        "help",
        "append --help",
        "--version",
        "create other",
        "append log file",
        "get log 0",
        "cat log",
        "cat log --live",
        "info log --map",
        "info log --json",
        "seek log 1",
        "has log 0",
        "clear log 0",
        "truncate log 2",
        "verify log",
        "serve log",
        "demo file",
    ] {
        let (end, other) = UnixStream::pair().unwrap();
        drop(other);
        let ran = Ran::of(line, place.command(line).stdout(OwnedFd::from(end)).spawn().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{line}");
    }
    // The commands did their work although nobody read their output.
    assert_eq!(place.run("cat log --start 1").ok(), "b");
    assert_eq!(place.run("verify other").ok(), "blocks 0\nfaults 0\n");
}

#[cfg(target_os = "linux")]
#[test]
fn output_to_full_device_fails_with_remedy() {
    let place = Place::new();
    place.core("log", ["block"]);
    for line in ["get log 0", "cat log", "info log", "has log 0", "help"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(line, place.command(line).stdout(full).spawn().unwrap());
        let error = ran.error_line();
        assert!(
            error.starts_with("standard output: ") && error.ends_with("make room and try again"),
            "{line}: {error}"
        );
    }
}

#[test]
fn cat_live_at_end_of_log_waits() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let line = "cat log --live --lines";
    let _watchdog = watch(line);
    let mut child = place.command(line).spawn().unwrap();
    let mut shown = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut shown).unwrap();
    assert_eq!(&shown, b"a\nb\n");
    assert!(child.try_wait().unwrap().is_none(), "cat --live ended");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn cat_live_of_core_held_by_writer_writes_its_appends() {
    use std::io::{BufRead, BufReader, Write};
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let line = "serve log --append-lines";
    let _watchdog = watch(line);
    let mut server = place.command(line).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut listening = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut listening).unwrap();
    let line = "cat log --live --lines --start 1 --end 304";
    let mut child = place.command(line).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(shown.next().unwrap(), "b");
    let mut stdin = server.stdin.take().unwrap();
    for round in 0..2 {
        writeln!(stdin, "line {round}").unwrap();
        assert_eq!(shown.next().unwrap(), format!("line {round}"));
    }
    for round in 0..300 {
        writeln!(stdin, "more {round}").unwrap();
    }
    assert!(shown.eq((0..300).map(|round| format!("more {round}"))));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn seek_between_empty_blocks_finds_block_with_byte() {
    let place = Place::new();
    place.core("log", ["", "abc", "", "", "de", ""]);
    for (byte, found) in [(0, "1 0"), (1, "1 1"), (2, "1 2"), (3, "4 0"), (4, "4 1"), (5, "6 0")] {
        assert_eq!(place.run(&format!("seek log {byte}")).ok(), format!("{found}\n"), "byte {byte}");
    }
    let error = place.run("seek log 6").fails();
    assert!(error.starts_with("log: ") && error.contains("5 bytes"), "{error}");
    place.open("log").clear(0..6).unwrap();
    assert_eq!(place.run("seek log 3").ok(), "4 0\n", "the tree nodes are still stored");
    place.run("create none").ok();
    assert_eq!(place.run("seek none 0").ok(), "0 0\n");
}

#[test]
fn has_of_block_or_range_prints_true_or_false() {
    let place = Place::new();
    place.core("log", ["a", "b", "c", "d"]);
    place.open("log").clear(2..3).unwrap();
    for (range, answer) in [
        ("0", "true"),
        ("2", "false"),
        ("3", "true"),
        ("4", "false"),
        ("0 2", "true"),
        ("0 3", "false"),
        ("3 4", "true"),
        ("3 5", "false"),
        ("2 2", "true"),
    ] {
        assert_eq!(place.run(&format!("has log {range}")).ok(), format!("{answer}\n"), "{range}");
    }
    assert!(place.run("has log 3 2").fails().starts_with("log: "));
}

#[test]
fn get_and_cat_of_damaged_block_fail_without_its_bytes() {
    let place = Place::new();
    place.core("log", ["good", "evil", "fine"]);
    place.file("log/data", "goodEvilfine");
    assert_eq!(place.run("get log 0").ok(), "good");
    assert!(place.run("get log 1").fails().contains("block 1"));
    let ran = place.run("cat log");
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), &b"good"[..]));
    assert!(ran.error_line().contains("block 1"));
}
