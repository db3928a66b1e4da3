//! The files of a core: we open what version 10.38.2 leaves and it opens what we leave. Where the format leaves no
//! freedom, the files are equal byte for byte.

use std::fs;
use std::path::Path;

use hypercore::{Durability, ErrorKind, GetOptions, Hypercore, Manifest, OpenOptions, Signer};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::{hex, pair};
use crate::js::Js;
use crate::model::{
    FILES, Model, Op, Seen, assert_sound, assert_sound_to_js, copy_files, key_of, random, seed, text, truncate,
};

/// A core that each side makes by the same operations.
struct Case {
    /// The options of JavaScript, besides the directory and the key pair.
    js: Value,
    /// Our options.
    ours: fn() -> OpenOptions,
    ops: Vec<Op>,
}

fn plain() -> OpenOptions {
    Hypercore::options()
}

fn encrypted() -> OpenOptions {
    Hypercore::options().encryption_key([0xee; 32])
}

#[test]
fn empty_log_has_equal_files() {
    both_ways(Case { js: json!({}), ours: plain, ops: vec![] });
}

#[test]
fn one_block_log_has_equal_files() {
    both_ways(Case { js: json!({}), ours: plain, ops: vec![text(&["hello"])] });
}

#[test]
fn log_of_empty_blocks_has_equal_files() {
    both_ways(Case { js: json!({}), ours: plain, ops: vec![text(&["", ""]), truncate(1), text(&[""])] });
}

#[test]
fn log_of_random_block_sizes_has_equal_files() {
    let ops =
        vec![random(1, 3000, 0, 200, 450), random(2, 500, 0, 1, 7), text(&["", "", ""]), random(3, 40, 0, 20_000, 1)];
    both_ways(Case { js: json!({}), ours: plain, ops });
}

/// More blocks than two pages of the bitfield hold, and a cleared range across the end of a page.
#[test]
fn log_beyond_two_bitfield_pages_has_equal_files() {
    let ops = vec![random(1, 75_000, 0, 3, 25_000), Op::Clear(32_000, 33_000), Op::Clear(65_536, 65_600)];
    let case = Case { js: json!({}), ours: plain, ops };
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let model = Model::of(&case.ops);
    open_in_js(&mut js, &case, dir.path());
    case.ops.iter().for_each(|op| op.by_js(&mut js, "main"));
    js.call("close", json!({}));

    let core = plain().create_if_missing(false).open(dir.path()).unwrap();
    for (index, (block, held)) in model.blocks.iter().zip(&model.held).enumerate() {
        let found = core.get_with(index as u64, GetOptions::new().wait(false)).unwrap();
        assert_eq!(found.as_ref(), Some(block).filter(|_| *held), "block {index}");
    }
    core.close().unwrap();
    both_ways(case);
}

/// More blocks than a segment of the reference's bitfield has bits: both sides append, clear and truncate
/// across its end.
#[test]
fn log_beyond_bitfield_segment_is_continued_by_both_sides() {
    const SEGMENT: u64 = 1 << 21;
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let core = plain().key_pair(pair(7)).open(dir.path()).unwrap();
    let mut model = Model::default();
    let by_us = |core: &Hypercore, model: &mut Model, op: Op| {
        op.by_us(core);
        model.apply(&op);
    };
    by_us(&core, &mut model, random(1, SEGMENT - 20, 0, 0, 1 << 20));
    by_us(&core, &mut model, random(2, 10, 1, 100, 3));
    let left = model.check_by_us(&core);
    core.close().unwrap();

    js.call("open", json!({"dir": dir.path(), "createIfMissing": false}));
    assert_eq!(model.check_by_js(&mut js, "main"), left);
    for op in [random(3, 30, 1, 100, 7), Op::Clear(SEGMENT - 8, SEGMENT + 3), truncate(SEGMENT + 15)] {
        op.by_js(&mut js, "main");
        model.apply(&op);
    }
    let left = model.check_by_js(&mut js, "main");
    js.call("close", json!({}));

    let core = plain().create_if_missing(false).open(dir.path()).unwrap();
    assert_eq!(model.check_by_us(&core), left);
    for op in
        [text(&["ours", ""]), Op::Clear(SEGMENT + 5, SEGMENT + 8), truncate(SEGMENT - 15), random(4, 40, 1, 9, 40)]
    {
        by_us(&core, &mut model, op);
    }
    let left = model.check_by_us(&core);
    core.close().unwrap();

    js.call("open", json!({"dir": dir.path(), "createIfMissing": false}));
    assert_eq!(model.check_by_js(&mut js, "main"), left);
    assert_eq!(js.call("verifyHead", json!({}))["valid"], true);
}

#[test]
fn forked_log_has_equal_files() {
    let ops = vec![
        random(2, 300, 1, 60, 70),
        truncate(255),
        truncate(170),
        text(&["a", "b", "c"]),
        truncate(171),
        truncate(0),
        random(3, 120, 1, 60, 50),
        Op::Truncate { length: 90, fork: Some(20) },
        truncate(81),
        text(&["last", ""]),
    ];
    both_ways(Case { js: json!({}), ours: plain, ops });
}

#[test]
fn log_truncated_to_zero_has_equal_files() {
    both_ways(Case { js: json!({}), ours: plain, ops: vec![text(&["a", "b", "c"]), truncate(0)] });
}

#[test]
fn cleared_log_has_equal_files() {
    let ops = vec![
        random(4, 400, 1, 5000, 100),
        Op::Clear(0, 3),
        Op::Clear(100, 220),
        random(4, 3, 1, 500, 1),
        Op::Clear(399, 401),
    ];
    both_ways(Case { js: json!({}), ours: plain, ops });
}

#[test]
fn encrypted_log_has_equal_files() {
    let ops =
        vec![text(&["secret", "", "secret"]), random(5, 200, 0, 300, 30), truncate(190), text(&["another secret"])];
    both_ways(Case { js: json!({"encryptionKey": seed(0xee)}), ours: encrypted, ops });
}

#[test]
fn encrypted_manifest_log_has_equal_files() {
    let ops = vec![text(&["secret", "", "secret"]), truncate(2), random(5, 20, 0, 300, 3)];
    let js = json!({"encryptionKey": seed(0xee), "compat": false});
    both_ways(Case { js, ours: || encrypted().compat(false), ops });
}

#[test]
fn single_signer_manifest_log_has_equal_files() {
    let ops = vec![random(6, 60, 0, 40, 9), truncate(55), text(&["more"])];
    both_ways(Case { js: json!({"compat": false}), ours: || plain().compat(false), ops });
}

#[test]
fn version_0_manifest_log_has_equal_files() {
    let manifest = json!({"version": 0, "quorum": 1, "signers": [{"seed": seed(7), "namespace": seed(0xa1)}]});
    let ours = || {
        let signer = Signer { namespace: [0xa1; 32], public_key: pair(7).public_key() };
        let mut manifest = Manifest::new(vec![signer]);
        manifest.version = 0;
        plain().manifest(manifest)
    };
    both_ways(Case { js: json!({"manifest": manifest}), ours, ops: vec![random(6, 12, 0, 40, 5), truncate(7)] });
}

#[test]
fn user_data_log_has_equal_files() {
    let ops = vec![
        Op::UserData("kept", vec![1, 2]),
        Op::UserData("changed", vec![3]),
        Op::UserData("deleted", vec![4]),
        Op::UserData("long", vec![0xff; 300]),
        text(&["between"]),
        Op::UserData("changed", vec![5]),
        Op::UserData("deleted", vec![]),
    ];
    both_ways(Case { js: json!({}), ours: plain, ops });
}

/// A header in the file `header`, whose two places alternate.
#[test]
fn log_with_external_header_has_equal_files() {
    let mut ops = vec![text(&["before"])];
    for (byte, size) in [(0x11, 5000), (0x22, 5000), (0x33, 5001), (0x44, 9000)] {
        ops.extend([Op::UserData("big", vec![byte; size]), Op::Flush, text(&["between"])]);
    }
    both_ways(Case { js: json!({}), ours: plain, ops: ops.clone() });

    // One more flush makes the other place the current one.
    ops.push(Op::Flush);
    both_ways(Case { js: json!({}), ours: plain, ops: ops.clone() });

    // A header that shrinks again returns to its slot here, and stays in its file in JavaScript.
    ops.extend([Op::UserData("big", vec![0x55; 10]), Op::Flush, text(&["after"])]);
    read_both_ways(Case { js: json!({}), ours: plain, ops });
}

/// One side appends a prologue, and the other continues after it.
#[test]
fn log_with_prologue_is_continued_by_both_sides() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let prologue = ["these", "five", "blocks", "come", "first"];
    js.call("open", json!({"core": "source", "dir": place("source")}));
    let hash = {
        js.call("append", json!({"core": "source", "text": prologue}));
        js.call("info", json!({"core": "source"}))["treeHash"].clone()
    };

    let manifest =
        json!({"version": 1, "quorum": 1, "signers": [{"seed": seed(7)}], "prologue": {"hash": hash, "length": 5}});
    js.call("open", json!({"dir": place("theirs"), "manifest": manifest, "seed": seed(7)}));
    js.call("copyPrologue", json!({"from": "source"}));
    let bare = Seen::by_js(&mut js, "main");
    js.call("close", json!({}));

    let core = plain().create_if_missing(false).open(place("theirs")).unwrap();
    assert_eq!(Seen::by_us(&core), bare);
    assert_sound(&core);
    let manifest_here = core.manifest().unwrap();
    assert_eq!(core.truncate(4).unwrap_err().kind(), ErrorKind::InvalidOperation);
    core.append(b"signed").unwrap();
    let left = Seen::by_us(&core);
    core.close().unwrap();
    js.call("open", json!({"dir": place("theirs"), "createIfMissing": false}));
    assert_eq!(Seen::by_js(&mut js, "main"), left);
    assert_sound_to_js(&mut js, "main");
    js.call("append", json!({"text": ["more"]}));
    js.call("close", json!({}));

    let core = plain().manifest(manifest_here).key_pair(pair(7)).open(place("ours")).unwrap();
    core.append_batch(prologue).unwrap();
    let left = Seen::by_us(&core);
    assert_eq!(left, bare);
    core.append_batch(["signed", "more"]).unwrap();
    core.close().unwrap();
    js.call("open", json!({"dir": place("ours"), "createIfMissing": false}));
    let ours = Seen::by_js(&mut js, "main");
    assert_sound_to_js(&mut js, "main");
    js.call("open", json!({"core": "theirs", "dir": place("theirs")}));
    assert_eq!(ours, Seen::by_js(&mut js, "theirs"));
}

/// A copy that holds some blocks of a log and only the tree nodes that prove them.
#[test]
fn sparse_copy_of_javascript_opens_here() {
    let Some(mut js) = Js::replicate() else { return };
    let dir = tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let key = js.call("open", json!({"core": "writer", "dir": place("writer")}))["key"].clone();
    random(7, 300, 0, 80, 300).by_js(&mut js, "writer");
    js.call("open", json!({"dir": place("copy"), "key": key, "eagerUpgrade": false}));
    let port = js.call("listen", json!({"cores": ["writer"]}))["port"].clone();
    let conn = js.call("connect", json!({"port": port}))["conn"].clone();
    js.call("update", json!({"wait": true}));
    for index in [3, 4, 299, 120] {
        js.call("get", json!({"index": index, "wait": true}));
    }
    js.call("disconnect", json!({"conn": conn}));
    let left = Seen::by_js(&mut js, "main");
    assert_eq!(left.held, [(3, 5), (120, 121), (299, 300)]);
    js.call("close", json!({}));

    let core = plain().create_if_missing(false).open(place("copy")).unwrap();
    assert_eq!(Seen::by_us(&core), left);
    assert_sound(&core);
    assert!(!core.writable());
    assert_eq!(core.get_with(5, GetOptions::new().wait(false)).unwrap(), None);
    core.clear(3..4).unwrap();
    let left = Seen::by_us(&core);
    core.close().unwrap();

    js.call("open", json!({"dir": place("copy"), "eagerUpgrade": false}));
    assert_eq!(Seen::by_js(&mut js, "main"), left);
    let conn = js.call("connect", json!({"port": port}))["conn"].clone();
    js.call("digest", json!({"wait": true}));
    js.call("disconnect", json!({"conn": conn}));
    assert_eq!(Seen::by_js(&mut js, "main"), Seen::by_js(&mut js, "writer"));
}

/// A kill after any of these operations leaves files in which JavaScript finds the expected state.
#[test]
fn files_after_every_operation_open_in_javascript() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let core = plain().key_pair(pair(7)).open(dir.path().join("core")).unwrap();
    let mut model = Model::default();
    let ops = [
        text(&["first"]),
        random(9, 20, 0, 50, 3),
        Op::UserData("name", b"value".to_vec()),
        truncate(11),
        text(&["again", ""]),
        Op::Clear(2, 5),
        Op::Flush,
        random(9, 5, 1, 50, 1),
        truncate(12),
        Op::UserData("big", vec![1; 6000]),
        text(&["behind a big header to come"]),
        Op::Flush,
        text(&["and behind it"]),
    ];
    for (moment, op) in ops.iter().enumerate() {
        op.by_us(&core);
        model.apply(op);
        let copy = dir.path().join(moment.to_string());
        copy_files(&dir.path().join("core"), &copy);
        js.call("open", json!({"dir": copy, "createIfMissing": false}));
        let seen = model.check_by_js(&mut js, "main");
        assert_eq!(seen, Seen::by_us(&core), "after {op:?}");
        assert_sound_to_js(&mut js, "main");
        js.call("close", json!({}));
    }
}

/// As [`read_both_ways`]; also fails unless both sides write the same files.
#[track_caller]
fn both_ways(case: Case) {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let (theirs, ours, as_left) = (dir.path().join("theirs"), dir.path().join("ours"), dir.path().join("as-left"));
    open_in_js(&mut js, &case, &theirs);
    case.ops.iter().for_each(|op| op.by_js(&mut js, "main"));
    js.call("close", json!({}));
    written_in_step(&case, &ours, &as_left);
    let stored = js.call("open", json!({"dir": theirs, "createIfMissing": false}))["byteLength"].clone();
    // Our oplog of an encrypted log contains the fingerprint of its key, which JavaScript does not write.
    let is_encrypted = !case.js["encryptionKey"].is_null();
    let names: Vec<&str> = FILES.into_iter().filter(|&name| !(is_encrypted && name == "oplog")).collect();
    assert_same_files(&theirs, &as_left, &names, stored.as_u64().unwrap() as usize);
    read_both_ways(case);
}

/// We open and continue the core of JavaScript, JavaScript opens and continues ours, and each finds what
/// the other appended.
#[track_caller]
fn read_both_ways(case: Case) {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    let mut model = Model::of(&case.ops);

    open_in_js(&mut js, &case, &theirs);
    case.ops.iter().for_each(|op| op.by_js(&mut js, "main"));
    let left = model.check_by_js(&mut js, "main");
    let info = js.call("info", json!({}));
    js.call("close", json!({}));

    let core = (case.ours)().key_pair(pair(7)).open(&ours).unwrap();
    case.ops.iter().for_each(|op| op.by_us(&core));
    assert_eq!(model.check_by_us(&core), left);
    core.close().unwrap();

    // We open and continue the core of JavaScript.
    let core = (case.ours)().create_if_missing(false).open(&theirs).unwrap();
    assert_eq!(model.check_by_us(&core), left);
    assert_eq!((core.key(), core.padding()), (key_of(&info), info["padding"].as_u64().unwrap()));
    assert_eq!(hex(core.discovery_key().as_bytes()), info["discoveryKey"]);
    assert_eq!(core.id(), info["id"]);
    assert!(core.writable());
    assert_sound(&core);
    let more = text(&["from", "", "us"]);
    more.by_us(&core);
    core.close().unwrap();

    // JavaScript opens and continues ours.
    let mut continued = model.clone();
    continued.apply(&more);
    open_in_js(&mut js, &case, &theirs);
    let seen = continued.check_by_js(&mut js, "main");
    assert_eq!(js.call("info", json!({}))["contiguousLength"], seen.contiguous());
    assert_sound_to_js(&mut js, "main");
    js.call("close", json!({}));

    open_in_js(&mut js, &case, &ours);
    assert_eq!(model.check_by_js(&mut js, "main"), left);
    assert_sound_to_js(&mut js, "main");
    let more = text(&["from", "", "them"]);
    more.by_js(&mut js, "main");
    model.apply(&more);
    let left = model.check_by_js(&mut js, "main");
    js.call("close", json!({}));

    let core = (case.ours)().create_if_missing(false).open(&ours).unwrap();
    assert_eq!(model.check_by_us(&core), left);
    assert_sound(&core);
}

fn open_in_js(js: &mut Js, case: &Case, dir: &Path) {
    let mut request = case.js.clone();
    request["dir"] = json!(dir);
    request["seed"] = json!(seed(7));
    js.call("open", request);
}

/// Applies the operations and flushes when JavaScript does: after the first, after every fourth, and when the entries
/// take 64 KiB. Copies the files before the core closes, because closing flushes.
fn written_in_step(case: &Case, dir: &Path, copy: &Path) {
    let core = (case.ours)().key_pair(pair(7)).durability(Durability::None).open(dir).unwrap();
    let mut to_flush = 1;
    for op in &case.ops {
        op.by_us_then(&core, || {
            to_flush -= 1;
            let flushed = fs::metadata(dir.join("oplog")).unwrap().len() <= 8192;
            if to_flush == 0 && !flushed {
                core.flush().unwrap();
            }
            if to_flush == 0 || flushed {
                to_flush = 4;
            }
        });
        if matches!(op, Op::Flush) {
            to_flush = 4;
        }
    }
    copy_files(dir, copy);
    core.close().unwrap();
}

/// Compares only the first `stored` bytes of the blocks: bytes behind them were truncated, and a side may leave them.
#[track_caller]
fn assert_same_files(theirs: &Path, ours: &Path, names: &[&str], stored: usize) {
    for &name in names {
        let read = |dir: &Path| {
            let mut bytes = fs::read(dir.join(name)).unwrap_or_default();
            bytes.truncate(if name == "data" { stored } else { bytes.len() });
            bytes
        };
        let (theirs, ours) = (read(theirs), read(ours));
        let differing: Vec<usize> = (0..theirs.len().min(ours.len())).filter(|&at| theirs[at] != ours[at]).collect();
        assert!(
            theirs == ours,
            "{name}: {} bytes of theirs, {} of ours, different at {:?}",
            theirs.len(),
            ours.len(),
            differing.iter().take(20).map(|&at| (at, theirs[at], ours[at])).collect::<Vec<_>>()
        );
    }
}
