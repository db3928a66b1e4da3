//! `verify` finds damaged blocks and nodes, and with --repair leaves a core without faults.

use crate::support::Place;

#[test]
fn verify_of_sound_core_finds_no_faults() {
    let place = Place::new();
    place.core("log", ["a", "b", "c"]);
    assert_eq!(place.run("verify log").ok(), "blocks 3\nfaults 0\n");
    place.open("log").clear(1..2).unwrap();
    let before = place.contents("log");
    assert_eq!(place.run("verify log").ok(), "blocks 2\nfaults 0\n");
    assert_eq!(place.contents("log"), before);
    assert_eq!(place.run("verify log --repair").ok(), "blocks 2\nfaults 0\n");
    place.run("create none").ok();
    assert_eq!(place.run("verify none").ok(), "blocks 0\nfaults 0\n");
}

#[test]
fn verify_repair_of_damaged_blocks_drops_them() {
    let place = Place::new();
    place.core("log", ["aa", "bb", "cc", "dd"]);
    place.file("log/data", "aaXbccYd");
    let before = place.contents("log");
    let ran = place.run("verify log");
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), &b"blocks 4\nfaults 2\n"[..]));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.err);
    for (line, block) in lines.iter().zip(["block 1", "block 3"]) {
        assert!(line.starts_with("error: log: ") && line.contains(block) && line.contains("--repair"), "{line}");
    }
    assert_eq!(place.contents("log"), before);

    let ran = place.run("verify log --repair");
    assert_eq!((ran.code, ran.out.as_slice()), (Some(0), &b"blocks 2\nfaults 2\n"[..]));
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("repaired: log: ")).count(), 2, "{}", ran.err);
    assert_eq!(place.run("verify log").ok(), "blocks 2\nfaults 0\n");
    assert_eq!(place.run("has log 0").ok(), "true\n");
    assert_eq!(place.run("has log 1").ok(), "false\n");
    assert_eq!(place.run("get log 2").ok(), "cc");
}

#[test]
fn verify_repair_of_damaged_tree_recomputes_it() {
    let place = Place::new();
    let blocks: Vec<String> = (0..8).map(|i| format!("block {i}")).collect();
    place.core("log", &blocks);
    // Before a flush the nodes are only in `oplog`.
    place.open("log").flush().unwrap();
    let mut tree = std::fs::read(place.path("log/tree")).unwrap();
    tree[40 * 3 + 20] ^= 1;
    place.file("log/tree", tree);
    let ran = place.run("verify log");
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), &b"blocks 8\nfaults 1\n"[..]), "{}", ran.err);
    assert!(ran.err.contains("node "), "{}", ran.err);
    assert_eq!(place.run("verify log --repair").code, Some(0));
    assert_eq!(place.run("verify log").ok(), "blocks 8\nfaults 0\n");
    assert_eq!(place.run("cat log").ok(), blocks.concat());
}
