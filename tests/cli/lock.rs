//! Commands on a core that another process has open fail, name the lock and change nothing.

use crate::support::{Place, Ran, watch};

#[test]
fn every_command_on_locked_core_fails_and_changes_nothing() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    place.file("input", "new");
    let held = place.open("log");
    let before = place.contents("log");
    let clone = format!("clone {} log --from 127.0.0.1:1", held.key());
    for line in [
        clone.as_str(),
        "serve log",
        "append log input",
        "append log input --lines",
        "get log 0",
        "cat log",
        "info log",
        "info log --json",
        "seek log 0",
        "has log 0",
        "truncate log 0",
        "clear log 0",
        "verify log",
        "verify log --repair",
        "purge log",
        "create log",
        "create log --overwrite",
    ] {
        let error = place.run(line).fails();
        assert!(error.contains("lock") && error.starts_with("log"), "{line}: {error}");
        assert_eq!(place.contents("log"), before, "{line}");
    }
    drop(held);
    assert_eq!(place.run("cat log").ok(), "ab");
}

#[test]
fn read_only_commands_on_core_held_by_writer_succeed() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let held = place.open("log");
    let before = place.contents("log");
    for (line, out) in [
        ("get log 0 --read-only", "a"),
        ("cat log --read-only", "ab"),
        ("seek log 1 --read-only", "1 0\n"),
        ("has log 0 2 --read-only", "true\n"),
        ("verify log --read-only", "blocks 2\nfaults 0\n"),
    ] {
        assert_eq!(place.run(line).ok(), out, "{line}");
    }
    assert_eq!(place.contents("log"), before);
    assert!(place.run("verify log --repair --read-only").misused().contains("exclude"));
    assert!(place.run("truncate log 0 --read-only").misused().contains("--read-only"));
    drop(held);
}

/// `serve` takes the lock before it reads its input. The lock ends with the process, also when it is killed.
#[test]
fn serve_waiting_for_input_holds_lock() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let line = "serve log --append-lines";
    let _watchdog = watch(line);
    let mut child = place.command(line).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut shown = [0; 10];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut shown).unwrap();
    assert_eq!(&shown, b"listening ");
    assert!(place.run_with("append log", b"c").fails().contains("lock"));
    child.kill().unwrap();
    let ran = Ran::of(line, child);
    assert_eq!(ran.code, None);
    assert_eq!(place.run_with("append log", b"c").ok(), "length 3\nbyte-length 3\n");
}
