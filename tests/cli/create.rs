//! `create` prints the key of the new core, and replaces an existing core only with --overwrite.

use hypercore::{Hypercore, KeyPair};

use crate::support::{Place, SEED};

#[test]
fn create_of_new_core_prints_key_and_id() {
    let place = Place::new();
    let out = place.run("create some/new/log").ok();
    let core = Hypercore::open(place.path("some/new/log")).unwrap();
    assert_eq!(out, format!("key {}\nid {}\n", core.key().to_hex(), core.id()));
    assert!(core.writable());
    assert_ne!(out, place.run("create other").ok(), "two cores with one key");
}

/// A file called `data` need not belong to a core.
#[test]
fn create_over_foreign_data_file_changes_nothing() {
    let place = Place::new();
    std::fs::create_dir(place.path("mine")).unwrap();
    place.file("mine/data", "years of work");
    let before = place.contents("mine");
    let clone = format!("clone {} mine --from 127.0.0.1:1", "ab".repeat(32));
    for line in ["create mine", "append mine", &clone] {
        let error = place.run(line).fails();
        assert!(error.starts_with("mine/data: ") && error.contains("overwrite"), "{line}: {error}");
        assert_eq!(place.contents("mine"), before, "{line}");
    }
    place.run("create mine --overwrite").ok();
    assert_eq!(place.run("info mine --json").ok().matches("\"length\":0").count(), 1);
}

#[test]
fn create_with_seed_derives_key_pair() {
    let place = Place::new();
    let key = KeyPair::from_seed(&SEED).public_key();
    let out = place.run(&format!("create log --seed {}", "07".repeat(32))).ok();
    assert_eq!(out, format!("key {}\nid {}\n", key.to_hex(), key.id()));
    assert!(Hypercore::open(place.path("log")).unwrap().writable());
}

#[test]
fn create_with_key_in_hex_or_id_is_read_only() {
    let place = Place::new();
    let key = KeyPair::from_seed(&SEED).public_key();
    for (dir, form) in [("hex", key.to_hex()), ("id", key.id())] {
        assert_eq!(
            place.run(&format!("create {dir} --key {form}")).ok(),
            format!("key {}\nid {}\n", key.to_hex(), key.id())
        );
        let error = place.run_with(&format!("append {dir}"), b"block").fails();
        assert!(error.contains(dir), "{error}");
        assert!(!Hypercore::open(place.path(dir)).unwrap().writable());
    }
}

#[test]
fn create_with_malformed_key_or_seed_creates_nothing() {
    let place = Place::new();
    for option in ["--key xyz", "--key=", "--seed 0707", "--key 0"] {
        place.run(&format!("create log {option}")).misused();
    }
    let key = "0".repeat(64);
    assert!(place.run(&format!("create log --key {key} --seed {key}")).misused().contains("exclude"));
    assert_eq!(place.contents("."), []);
}

#[test]
fn create_over_existing_core_requires_overwrite() {
    let place = Place::new();
    place.core("log", ["precious"]);
    let before = place.contents("log");
    for options in ["", "--seed 0707070707070707070707070707070707070707070707070707070707070707"] {
        let error = place.run(&format!("create log {options}")).fails();
        assert!(error.starts_with("log: ") && error.contains("--overwrite"), "{error}");
        assert_eq!(place.contents("log"), before);
    }
    let out = place.run("create log --overwrite").ok();
    let core = Hypercore::open(place.path("log")).unwrap();
    assert_eq!(out, format!("key {}\nid {}\n", core.key().to_hex(), core.id()));
    assert_ne!(core.key(), KeyPair::from_seed(&SEED).public_key());
    assert!(core.is_empty());
}

#[test]
fn create_overwrite_of_unopenable_core_succeeds() {
    let place = Place::new();
    place.core("log", ["block"]);
    place.file("log/oplog", [0xff; 8192]);
    assert!(place.run("create log").fails().contains("oplog"));
    place.run("create log --overwrite").ok();
    assert_eq!(place.run_with("append log --lines", b"new\n").ok(), "length 1\nbyte-length 3\n");
}
