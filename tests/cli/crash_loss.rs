//! Every command reports blocks that a crash destroyed, until they are replaced; reading commands change nothing.

use std::fs;
use std::path::Path;

use hypercore::{Durability, Hypercore};

use crate::support::{Place, noise};

/// Makes the core `log` of four blocks. A power cut destroyed the bytes of the last one.
fn with_a_lost_block(place: &Place, durability: Durability) {
    let core = Hypercore::options().durability(durability).open(place.path("open")).unwrap();
    core.append_batch(["one", "two", "three"]).unwrap();
    core.flush().unwrap();
    core.append(noise(600)).unwrap();
    // The files that a kill would leave now, without the bytes that never reached the disk.
    fs::create_dir(place.path("log")).unwrap();
    for name in ["oplog", "tree", "bitfield", "data"] {
        fs::copy(place.path("open").join(name), place.path("log").join(name)).unwrap();
    }
    cut(&place.path("log/data"), 11);
}

fn cut(file: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(len).unwrap();
}

const WARNING: &str = "warning: log: 1 blocks written before a crash are lost: the log was 4 long and is now 3\n";

#[test]
fn lost_entry_is_reported_until_log_grows_past_it() {
    let place = Place::new();
    with_a_lost_block(&place, Durability::Flush);
    let before = place.contents("log");
    for line in ["get log 0", "info log", "has log 0", "seek log 4", "cat log --lines"] {
        let ran = place.run(line);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), WARNING), "{line}");
    }
    let info = place.run("info log --json");
    assert!(String::from_utf8(info.out).unwrap().contains(r#""lost":{"from":4,"to":3,"blocks":1}"#));
    let verified = place.run("verify log");
    assert_eq!((verified.code, verified.out.as_slice()), (Some(1), &b"blocks 3\nfaults 1\n"[..]));
    let fault = verified.err.strip_prefix(WARNING).unwrap();
    assert!(fault.starts_with("error: log: 1 blocks ") && fault.contains("--repair"), "{fault}");
    assert_eq!(place.contents("log"), before, "reading changes no file");

    let appended = place.run_with("append log --lines", b"four\n");
    assert_eq!((appended.code, appended.err.as_str()), (Some(0), WARNING));
    assert_eq!(appended.out, b"length 4\nbyte-length 15\n");
    assert_eq!(place.run("verify log").ok(), "blocks 4\nfaults 0\n");
    assert!(place.run("info log --json").ok().contains(r#""lost":null"#));
    assert_eq!(place.run("cat log --lines").ok(), "one\ntwo\nthree\nfour\n");
}

#[test]
fn verify_repair_of_lost_entry_accepts_loss() {
    let place = Place::new();
    with_a_lost_block(&place, Durability::Flush);
    let repaired = place.run("verify log --repair");
    assert_eq!((repaired.code, repaired.out.as_slice()), (Some(0), &b"blocks 3\nfaults 1\n"[..]));
    assert!(repaired.err.contains("accepted: log: 1 blocks "), "{}", repaired.err);
    assert_eq!(place.run("verify log").ok(), "blocks 3\nfaults 0\n");
}

#[test]
fn lost_block_under_durability_none_keeps_length() {
    let place = Place::new();
    with_a_lost_block(&place, Durability::None);
    let ran = place.run("verify log");
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), &b"blocks 3\nfaults 1\n"[..]));
    assert!(
        ran.err.contains("1 blocks that were held are missing")
            && ran.err.contains("its length of 4")
            && ran.err.contains("truncate"),
        "{}",
        ran.err
    );
    assert_eq!(place.run("has log 3").out, b"false\n");
    // The next block goes behind the lost one, which peers may have. The loss stays a fault until it is held again.
    assert_eq!(place.run_with("append log --lines", b"five\n").out, b"length 5\nbyte-length 615\n");
    assert_eq!(place.run("verify log").code, Some(1));
    assert_eq!(place.run("truncate log 3").out, b"length 3\nfork 1\n");
    assert_eq!(place.run("verify log").ok(), "blocks 3\nfaults 0\n");
}

#[test]
fn missing_data_file_keeps_length() {
    let place = Place::new();
    place.core("log", ["one", "two"]);
    let blocks = fs::read(place.path("log/data")).unwrap();
    fs::remove_file(place.path("log/data")).unwrap();
    assert!(place.run("info log").ok().contains("length         2\n"));
    assert!(place.run("get log 0").fails().contains("data"));
    assert_eq!(place.run("verify log").code, Some(1));
    place.file("log/data", blocks);
    assert_eq!(place.run("cat log --lines").ok(), "one\ntwo\n");
    assert_eq!(place.run("verify log").ok(), "blocks 2\nfaults 0\n");
}
