//! `info` prints the properties of a core as JSON, as text and as a map of held blocks.

use serde_json::Value;

use crate::support::{Place, noise};

fn json(place: &Place, line: &str) -> Value {
    let out = place.run(line).ok();
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn info_json_has_all_documented_keys() {
    let place = Place::new();
    place.core("log", ["abc", "de", "f"]);
    place.open("log").clear(1..2).unwrap();
    place.open("log").truncate(2).unwrap();
    let core = place.open("log");
    let (key, id, discovery_key) = (core.key().to_hex(), core.id(), core.discovery_key().to_hex());
    let tree_hash: String = core.tree_hash().unwrap().iter().map(|b| format!("{b:02x}")).collect();
    drop(core);

    let info = json(&place, "info log --json");
    let names: Vec<&String> = info.as_object().unwrap().keys().collect();
    let mut expected = [
        "key",
        "id",
        "discoveryKey",
        "length",
        "lost",
        "byteLength",
        "contiguousLength",
        "fork",
        "padding",
        "encrypted",
        "writable",
        "treeHash",
        "storage",
    ];
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(info["key"], key);
    assert_eq!(info["id"], id);
    assert_eq!(info["discoveryKey"], discovery_key);
    assert_eq!(info["treeHash"], tree_hash);
    let numbers =
        ["length", "byteLength", "contiguousLength", "fork", "padding"].map(|name| info[name].as_u64().unwrap());
    assert_eq!(numbers, [2, 5, 1, 1, 0]);
    assert_eq!((&info["writable"], &info["encrypted"]), (&true.into(), &Value::Null));
    assert_eq!(json(&place, "info log --json --read-only")["writable"], false);
}

#[cfg(unix)]
#[test]
fn info_storage_equals_allocated_bytes() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    place.core("log", noise(3_000_000).chunks(65536));
    place.open("log").clear(5..30).unwrap();
    place.open("log").flush().unwrap();
    let storage = json(&place, "info log --json")["storage"].clone();
    assert_eq!(storage.as_object().unwrap().len(), 4);
    for (name, file) in [("oplog", "oplog"), ("tree", "tree"), ("blocks", "data"), ("bitfield", "bitfield")] {
        let used = std::fs::metadata(place.path("log").join(file)).map_or(0, |metadata| metadata.blocks() * 512);
        assert_eq!(storage[name].as_u64(), Some(used), "{name}");
    }
}

#[test]
fn info_of_empty_reader_prints_key_and_zero_length() {
    let place = Place::new();
    let key = "ab".repeat(32);
    place.run(&format!("create log --key {key}")).ok();
    let info = json(&place, "info log --json");
    assert_eq!((&info["key"], &info["writable"], &info["length"]), (&key.into(), &false.into(), &0.into()));
    let text = place.run("info log --map").ok();
    assert!(text.contains("the log is empty"), "{text}");
}

#[test]
fn info_text_shows_same_values_as_json() {
    let place = Place::new();
    place.core("log", ["abc", "de"]);
    let info = json(&place, "info log --json");
    let text = place.run("info log").ok();
    for name in ["key", "id", "discoveryKey", "treeHash"] {
        assert!(text.contains(info[name].as_str().unwrap()), "{name} is not in {text}");
    }
    assert!(text.contains("byte length    5"), "{text}");
}

#[test]
fn info_map_fits_columns_and_shows_holes() {
    let place = Place::new();
    place.core("log", (0..1000).map(|i| i.to_string()));
    let core = place.open("log");
    core.clear(0..1).unwrap();
    core.clear(500..600).unwrap();
    core.close().unwrap();
    for (columns, locale, held, none) in
        [("40", "C", '#', '.'), ("80", "de_DE.UTF-8", '█', '·'), ("33", "C.utf8", '█', '·')]
    {
        let mut command = place.command("info log --map");
        let child = command.env("COLUMNS", columns).env("LC_ALL", locale).spawn().unwrap();
        let out = crate::support::Ran::of("info log --map", child).ok();
        assert!(out.contains("899 of 1000 blocks, 89.9 %"), "{out}");
        assert!(out.contains("2: 0 500:600"), "{out}");
        let map: Vec<&str> = out.lines().skip_while(|line| !line.starts_with("map ")).skip(1).collect();
        let width: usize = columns.parse().unwrap();
        assert!((1..=16).contains(&map.len()) && map.iter().all(|line| line.chars().count() <= width), "{out}");
        let cells: String = map.iter().map(|line| line.trim_start().split_once("  ").unwrap().1).collect();
        assert!(cells.contains(held) && cells.contains(none), "{out}");
        assert_ne!(cells.chars().next(), Some(held), "block 0 is not held: {out}");
        assert_eq!(cells.chars().last(), Some(held), "{out}");
    }
    assert!(place.run("info log --map --json").misused().contains("exclude"));
}
