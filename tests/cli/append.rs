//! `append` cuts files and standard input into the blocks that its options ask for, and changes no byte.

use hypercore::{Hypercore, MAX_BLOCK_SIZE};

use crate::machine::SLOW;
use crate::support::{Place, noise};

fn blocks(place: &Place, name: &str) -> Vec<Vec<u8>> {
    let core = Hypercore::open(place.path(name)).unwrap();
    (0..core.len()).map(|index| core.get(index).unwrap()).collect()
}

#[test]
fn append_of_stdin_cuts_64_kib_blocks_and_creates_core() {
    let place = Place::new();
    let input = noise(150_000);
    assert_eq!(place.run_with("append log", &input).ok(), "length 3\nbyte-length 150000\n");
    assert_eq!(blocks(&place, "log"), input.chunks(65536).collect::<Vec<_>>());
    assert_eq!(place.run_with("append log -", b"more").ok(), "length 4\nbyte-length 150004\n");
    assert_eq!(place.run_with("append log", b"").ok(), "length 4\nbyte-length 150004\n");
}

#[test]
fn append_of_files_starts_block_per_file() {
    let place = Place::new();
    place.file("a", "12345");
    place.file("b", "67");
    place.file("none", "");
    assert_eq!(place.run("append log a none b --block-size 2").ok(), "length 4\nbyte-length 7\n");
    assert_eq!(blocks(&place, "log"), [&b"12"[..], b"34", b"5", b"67"]);
    assert_eq!(place.run_with("append log b - a --block-size=5", b"stdin").ok(), "length 7\nbyte-length 19\n");
    assert_eq!(blocks(&place, "log")[4..], [&b"67"[..], b"stdin", b"12345"]);
}

#[test]
fn append_lines_drops_only_newlines() {
    let place = Place::new();
    place.file("a", b"one\n\ntwo\r\n\xff\0\nlast without");
    place.file("b", "first of b\n");
    assert_eq!(place.run("append log a b --lines").ok(), "length 6\nbyte-length 31\n");
    assert_eq!(blocks(&place, "log"), [&b"one"[..], b"", b"two\r", b"\xff\0", b"last without", b"first of b"]);
}

#[test]
fn append_lines_longer_than_buffer_keeps_every_line() {
    let place = Place::new();
    let mut text = Vec::new();
    for i in 0..20_000 {
        text.extend_from_slice(format!("{i}\n").as_bytes());
    }
    text.extend(noise(3_000_000).iter().map(|b| b | 0x80));
    text.extend_from_slice(b"\nend");
    place.run_with("append log --lines", &text).ok();
    let expected: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    assert!(blocks(&place, "log") == expected);
}

#[test]
fn append_whole_makes_one_block_per_file() {
    let place = Place::new();
    place.file("a", "one\ntwo\n");
    place.file("none", "");
    place.file("big", noise(200_000));
    assert_eq!(place.run("append log a none big --whole").ok(), "length 3\nbyte-length 200008\n");
    assert_eq!(blocks(&place, "log"), [b"one\ntwo\n".to_vec(), vec![], noise(200_000)]);
    assert_eq!(place.run_with("append log --whole", b"piped").ok(), "length 4\nbyte-length 200013\n");
}

#[test]
fn append_of_oversized_block_fails_and_keeps_earlier_blocks() {
    let place = Place::new();
    place.file("a", "ok");
    place.file("big", vec![b'x'; MAX_BLOCK_SIZE + 1]);
    place.file("fits", vec![b'x'; MAX_BLOCK_SIZE]);
    let error = place.run("append log a big --whole").fails();
    assert!(error.starts_with("big") && error.contains("15728640"), "{error}");
    assert_eq!(place.run("append whole fits --whole").ok(), "length 1\nbyte-length 15728640\n");

    let mut text = b"first\nsecond\n".to_vec();
    text.extend(vec![b'x'; MAX_BLOCK_SIZE + 1]);
    text.extend_from_slice(b"\nfourth\n");
    place.file("text", &text);
    let error = place.run("append lines text --lines").fails();
    assert!(error.starts_with("text: line 3 ") && error.contains("length is 2"), "{error}");
    assert_eq!(blocks(&place, "lines"), [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn append_with_invalid_block_size_is_usage_error() {
    let place = Place::new();
    for size in [0, MAX_BLOCK_SIZE + 1] {
        assert!(place.run(&format!("append log --block-size {size}")).misused().contains(&size.to_string()));
    }
    for both in ["--lines --whole", "--lines --block-size 5", "--whole --block-size 5"] {
        assert!(place.run(&format!("append log {both}")).misused().contains("exclude"), "{both}");
    }
    assert!(place.run("append log - -").misused().contains("twice"));
    assert_eq!(place.contents("."), []);
}

#[test]
fn append_of_unreadable_file_names_it_and_appends_nothing() {
    let place = Place::new();
    place.file("a", "ok");
    std::fs::create_dir(place.path("folder")).unwrap();
    for (name, way_out) in [("absent", "check the name"), ("folder", "name the files in it"), ("a/b", "another name")] {
        let error = place.run(&format!("append log a {name}")).fails();
        assert!(error.starts_with(name) && error.ends_with(way_out), "{error}");
    }
    assert!(!place.path("log").exists());
}

/// Appending a file of the core to the core would not end before the disk is full.
#[test]
fn append_of_own_core_file_is_refused() {
    let place = Place::new();
    place.core("log", ["block"]);
    let before = place.contents("log");
    for name in ["oplog", "tree", "data", "bitfield"] {
        let error = place.run(&format!("append log ./log/../log/{name}")).fails();
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(place.contents("log"), before);
}

#[test]
fn append_then_cat_of_large_file_returns_same_bytes() {
    let place = Place::new();
    let content = noise(if SLOW { 5 } else { 40 } * 1024 * 1024 + 17);
    place.file("big", &content);
    for (log, options) in [
        ("default", ""),
        ("odd", "--block-size 100003"),
        ("durable", "--durability always"),
        ("fast", "--durability=none"),
    ] {
        let out = place.run(&format!("append {log} big {options}")).ok();
        assert!(out.ends_with(&format!("\nbyte-length {}\n", content.len())), "{out}");
        assert!(place.run(&format!("cat {log}")).ok_bytes() == content, "{log}");
    }
}

#[test]
fn append_with_key_stores_only_encrypted_blocks() {
    let place = Place::new();
    let key = format!("--encryption-key {}", "ab".repeat(32));
    place.run(&format!("create log {key}")).ok();
    assert_eq!(
        place.run_with(&format!("append log --lines {key}"), b"secret\nwords\n").ok(),
        "length 2\nbyte-length 11\n"
    );
    assert_eq!(place.run(&format!("cat log --lines {key}")).ok(), "secret\nwords\n");
    assert_eq!(place.run(&format!("get log 1 {key}")).ok(), "words");
    assert_eq!(place.run(&format!("cat log --bytes 3:5 {key}")).ok(), "retwo");
    assert_eq!(place.run(&format!("seek log 6 {key}")).ok(), "1 0\n");
    assert!(place.run(&format!("info log --json {key}")).ok().contains("\"padding\":8,"));
    for line in ["seek log 6", "get log 0", "cat log"] {
        assert!(place.run(line).fails().contains("encrypted"), "{line}");
    }
    let data = std::fs::read(place.path("log").join("data")).unwrap();
    assert_eq!(data.len(), 8 + 6 + 8 + 5);
    assert!(!data.windows(6).any(|bytes| bytes == b"secret"));
}
