//! Cores written by JavaScript Hypercore, of version 10.38.2 and of older ones, open with the same state
//! and can be changed.

use std::fs;
use std::path::{Path, PathBuf};

use hypercore::{ErrorKind, GetOptions, Hypercore, KeyPair};
use serde_json::Value;

use crate::common::{copy_of, files_of, hex, kind, unhex};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// Each core of a folder: its name, a copy of its files, and its expected state.
fn cores(folder_name: &str) -> Vec<(String, tempfile::TempDir, Value)> {
    let at = folder(folder_name);
    let expected: Value = serde_json::from_slice(&fs::read(at.join("expected.json")).unwrap()).unwrap();
    let cores = expected.as_object().unwrap();
    let copies = cores
        .iter()
        .map(|(name, expected)| (format!("{folder_name}/{name}"), copy_of(&at.join(name)), expected.clone()));
    copies.collect()
}

fn fixed(value: &Value) -> Option<[u8; 32]> {
    value.as_str().map(|text| unhex(text).try_into().unwrap())
}

fn open(dir: &Path, expected: &Value, read_only: bool) -> Hypercore {
    let mut options = Hypercore::options().create_if_missing(false).read_only(read_only);
    if let Some(key) = fixed(&expected["encryptionKey"]) {
        options = options.encryption_key(key);
    }
    options.open(dir).unwrap()
}

/// Compares the whole state with the one that the reference reported.
#[track_caller]
fn compare(name: &str, core: &Hypercore, expected: &Value) {
    let number = |field: &str| expected[field].as_u64().unwrap();
    assert_eq!(core.key().to_hex(), expected["key"], "{name}");
    assert_eq!(core.discovery_key().to_hex(), expected["discoveryKey"], "{name}");
    let shown = (core.len(), core.byte_length(), core.fork());
    assert_eq!(shown, (number("length"), number("byteLength"), number("fork")), "{name}");
    assert_eq!(hex(&core.tree_hash().unwrap()), expected["treeHash"], "{name}");
    let held: Vec<(u64, u64)> = expected["held"]
        .as_array()
        .unwrap()
        .iter()
        .map(|range| (range[0].as_u64().unwrap(), range[1].as_u64().unwrap()))
        .collect();
    let blocks = expected["blocks"].as_array().unwrap();
    assert!(blocks.is_empty() || blocks.len() as u64 == core.len(), "{name}");
    for index in 0..core.len() {
        let here = held.iter().any(|&(start, end)| (start..end).contains(&index));
        assert_eq!(core.has(index).unwrap(), here, "{name}: block {index}");
        let block = core.get_with(index, GetOptions::new().wait(false)).unwrap();
        assert_eq!(
            block.map(|b| hex(&b)).map_or(Value::Null, Value::String),
            blocks[index as usize],
            "{name}: {index}"
        );
    }
    // The contiguous length that the reference stores may be too high after a clear; ours is counted.
    let contiguous = held.first().filter(|(start, _)| *start == 0).map_or(0, |(_, end)| *end);
    assert_eq!(core.contiguous_length().unwrap(), contiguous, "{name}");
    for (key, value) in expected["userData"].as_object().unwrap() {
        assert_eq!(core.user_data(key).map(|v| hex(&v)), value.as_str().map(str::to_owned), "{name}: {key}");
    }
    if let Some(manifest) = expected["manifest"].as_object() {
        let ours = core.manifest().unwrap();
        assert_eq!(u64::from(ours.version), manifest["version"].as_u64().unwrap(), "{name}");
        assert_eq!(ours.allow_patch, manifest["allowPatch"].as_bool().unwrap(), "{name}");
        assert_eq!(ours.quorum, manifest["quorum"].as_u64().unwrap(), "{name}");
        let signers: Vec<_> = ours.signers.iter().map(|s| (s.public_key.to_hex(), hex(&s.namespace))).collect();
        let theirs: Vec<_> = manifest["signers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| (s["publicKey"].as_str().unwrap().to_owned(), s["namespace"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(signers, theirs, "{name}");
        let prologue = ours.prologue.map(|p| (hex(&p.hash), p.length));
        let theirs = manifest["prologue"]
            .as_object()
            .map(|p| (p["hash"].as_str().unwrap().to_owned(), p["length"].as_u64().unwrap()));
        assert_eq!(prologue, theirs, "{name}");
    }
    assert_eq!(core.verify().unwrap().faults, [], "{name}");
    let seed = fixed(&expected["seed"]).filter(|_| expected["writable"] == true);
    assert_eq!(core.key_pair(), seed.map(|seed| KeyPair::from_seed(&seed)), "{name}");
}

fn each(folder_name: &str, at_least: usize) {
    let cores = cores(folder_name);
    assert!(cores.len() >= at_least);
    for (name, copy, expected) in cores {
        let before = files_of(copy.path());
        let core = open(copy.path(), &expected, true);
        compare(&name, &core, &expected);
        assert_eq!(kind(core.append("x")), ErrorKind::NotWritable);
        core.close().unwrap();
        assert!(files_of(copy.path()) == before, "{name}: reading changed the files");

        let core = open(copy.path(), &expected, false);
        compare(&name, &core, &expected);
        assert_eq!(core.writable(), expected["writable"].as_bool().unwrap(), "{name}");
        core.close().unwrap();
        let core = open(copy.path(), &expected, false);
        compare(&name, &core, &expected);
        go_on(&name, &core, &expected);
        core.close().unwrap();
    }
}

/// Appends, truncates and clears.
fn go_on(name: &str, core: &Hypercore, expected: &Value) {
    if !core.writable() || expected["manifest"]["quorum"].as_u64().unwrap_or(1) > 1 {
        return;
    }
    let (length, fork) = (core.len(), core.fork());
    core.append_batch(["more", "", "and more"]).unwrap();
    assert_eq!(core.get(length + 2).unwrap(), b"and more", "{name}");
    assert_eq!(core.verify().unwrap().faults, [], "{name}");
    core.clear(length..length + 1).unwrap();
    core.truncate(length + 2).unwrap();
    core.append("again").unwrap();
    assert_eq!((core.len(), core.fork()), (length + 3, fork + 1), "{name}");
    assert_eq!(core.get(length + 2).unwrap(), b"again", "{name}");
    for index in 0..length {
        let block = core.get_with(index, GetOptions::new().wait(false)).unwrap();
        let theirs = &expected["blocks"][index as usize];
        assert_eq!(block.map(|b| hex(&b)).map_or(Value::Null, Value::String), *theirs, "{name}: {index}");
    }
    assert_eq!(core.verify().unwrap().faults, [], "{name}");
}

#[test]
fn core_of_version_10_opens_with_same_state() {
    each("js10", 20);
}

#[test]
fn core_of_older_version_opens_with_same_state() {
    each("old", 8);
}
