//! The files of a core: what version 10.38.2 leaves opens here, what we leave opens there, and where the format leaves no
//! freedom the files are the same to the byte.

use std::fs;
use std::path::Path;

use hypercore::{
    Appended, Durability, ErrorKind, Fault, GetOptions, Hypercore, Manifest, MultiSignature, OpenOptions,
    PartialSignature, Repair, SignOptions, Signer,
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::js::{Js, bytes, to_hex};
use crate::model::{
    FILES, Model, Op, Seen, assert_sound, assert_sound_to_js, copy_files, key_of, key_pair, random, seed, text,
    truncate,
};

/// A core, as either side would make it.
struct Story {
    /// How JavaScript opens it, beside the directory and the key pair.
    js: Value,
    /// How we do.
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
    both_ways(Story { js: json!({}), ours: plain, ops: vec![] });
}

#[test]
fn one_block_log_has_equal_files() {
    both_ways(Story { js: json!({}), ours: plain, ops: vec![text(&["hello"])] });
}

#[test]
fn log_of_empty_blocks_has_equal_files() {
    both_ways(Story { js: json!({}), ours: plain, ops: vec![text(&["", ""]), truncate(1), text(&[""])] });
}

#[test]
fn log_of_random_block_sizes_has_equal_files() {
    let ops =
        vec![random(1, 3000, 0, 200, 450), random(2, 500, 0, 1, 7), text(&["", "", ""]), random(3, 40, 0, 20_000, 1)];
    both_ways(Story { js: json!({}), ours: plain, ops });
}

/// More than two pages of the bitfield, and holes across a page's edge.
#[test]
fn log_beyond_two_bitfield_pages_has_equal_files() {
    let ops = vec![random(1, 75_000, 0, 3, 25_000), Op::Clear(32_000, 33_000), Op::Clear(65_536, 65_600)];
    let story = Story { js: json!({}), ours: plain, ops };
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let model = Model::of(&story.ops);
    open_in_js(&mut js, &story, dir.path());
    story.ops.iter().for_each(|op| op.by_js(&mut js, "main"));
    js.call("close", json!({}));

    let core = plain().create_if_missing(false).open(dir.path()).unwrap();
    for (index, (block, held)) in model.blocks.iter().zip(&model.held).enumerate() {
        let found = core.get_with(index as u64, GetOptions::new().wait(false)).unwrap();
        assert_eq!(found.as_ref(), Some(block).filter(|_| *held), "block {index}");
    }
    core.close().unwrap();
    both_ways(story);
}

/// More blocks than a segment of the reference's bitfield has bits: both sides append, clear and cut across its end.
#[test]
fn log_beyond_bitfield_segment_is_continued_by_both_sides() {
    const SEGMENT: u64 = 1 << 21;
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let core = plain().key_pair(key_pair(7)).open(dir.path()).unwrap();
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
    both_ways(Story { js: json!({}), ours: plain, ops });
}

#[test]
fn log_truncated_to_zero_has_equal_files() {
    both_ways(Story { js: json!({}), ours: plain, ops: vec![text(&["a", "b", "c"]), truncate(0)] });
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
    both_ways(Story { js: json!({}), ours: plain, ops });
}

#[test]
fn encrypted_log_has_equal_files() {
    let ops =
        vec![text(&["secret", "", "secret"]), random(5, 200, 0, 300, 30), truncate(190), text(&["another secret"])];
    both_ways(Story { js: json!({"encryptionKey": seed(0xee)}), ours: encrypted, ops });
}

#[test]
fn encrypted_manifest_log_has_equal_files() {
    let ops = vec![text(&["secret", "", "secret"]), truncate(2), random(5, 20, 0, 300, 3)];
    let js = json!({"encryptionKey": seed(0xee), "compat": false});
    both_ways(Story { js, ours: || encrypted().compat(false), ops });
}

#[test]
fn single_signer_manifest_log_has_equal_files() {
    let ops = vec![random(6, 60, 0, 40, 9), truncate(55), text(&["more"])];
    both_ways(Story { js: json!({"compat": false}), ours: || plain().compat(false), ops });
}

#[test]
fn version_0_manifest_log_has_equal_files() {
    let manifest = json!({"version": 0, "quorum": 1, "signers": [{"seed": seed(7), "namespace": seed(0xa1)}]});
    let ours = || {
        let signer = Signer { namespace: [0xa1; 32], public_key: key_pair(7).public_key() };
        let mut manifest = Manifest::new(vec![signer]);
        manifest.version = 0;
        plain().manifest(manifest)
    };
    both_ways(Story { js: json!({"manifest": manifest}), ours, ops: vec![random(6, 12, 0, 40, 5), truncate(7)] });
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
    both_ways(Story { js: json!({}), ours: plain, ops });
}

/// A header in the file `header`, at one place and the other in turns.
#[test]
fn log_with_external_header_has_equal_files() {
    let mut ops = vec![text(&["before"])];
    for (byte, size) in [(0x11, 5000), (0x22, 5000), (0x33, 5001), (0x44, 9000)] {
        ops.extend([Op::UserData("big", vec![byte; size]), Op::Flush, text(&["between"])]);
    }
    both_ways(Story { js: json!({}), ours: plain, ops: ops.clone() });

    // With one more flush the other place is the present one.
    ops.push(Op::Flush);
    both_ways(Story { js: json!({}), ours: plain, ops: ops.clone() });

    // A header that is small again goes back to its page here, and stays outside there.
    ops.extend([Op::UserData("big", vec![0x55; 10]), Op::Flush, text(&["after"])]);
    read_both_ways(Story { js: json!({}), ours: plain, ops });
}

/// Two of three sign: in JavaScript, here, and one there and one here.
#[test]
fn quorum_of_two_appends_from_both_sides() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let signers = [json!({"seed": seed(1)}), json!({"seed": seed(2)}), json!({"seed": seed(3), "namespace": seed(9)})];
    let manifest = json!({"version": 1, "quorum": 2, "signers": signers});
    let first = js.call("open", json!({"dir": dir, "manifest": manifest, "seed": seed(1)}));
    let share = |js: &mut Js, by: u8, text: &str| js.call("sign", json!({"seed": seed(by), "text": [text, ""]}));
    let append = |js: &mut Js, proofs: [Value; 2], text: &str| {
        let signature = js.call("assemble", json!({"proofs": proofs}))["signature"].clone();
        js.call("append", json!({"text": [text, ""], "signature": signature}));
        assert_eq!(js.call("verifyHead", json!({}))["valid"], true);
    };

    let proofs = [share(&mut js, 1, "theirs"), share(&mut js, 3, "theirs")];
    append(&mut js, proofs, "theirs");
    let half = share(&mut js, 2, "mixed");
    let left = Seen::by_js(&mut js, "main");
    js.call("close", json!({}));

    let core = plain().create_if_missing(false).open(dir).unwrap();
    assert_eq!(Seen::by_us(&core), left);
    assert_sound(&core);
    let manifest = core.manifest().unwrap();
    assert_eq!((manifest.quorum, manifest.signers.len(), manifest.key()), (2, 3, core.key()));
    assert_eq!(manifest.signers[2].namespace, [9; 32]);

    let blocks = [b"mixed".as_slice(), b""];
    let half = PartialSignature {
        signer: half["signer"].as_u64().unwrap(),
        signature: bytes(&half, "signature").try_into().unwrap(),
        patch: 0,
        nodes: vec![],
    };
    let other = core.sign_append(blocks, &key_pair(3)).unwrap();
    for too_few in [vec![half.clone()], vec![half.clone(), half.clone()]] {
        assert_eq!(append_signed(&core, &blocks, too_few).unwrap_err().kind(), ErrorKind::InvalidSignature);
    }
    append_signed(&core, &blocks, vec![half, other]).unwrap();

    let ours = [b"ours".as_slice(), b""];
    let shares = [3, 1].map(|by| core.sign_append(ours, &key_pair(by)).unwrap()).into();
    append_signed(&core, &ours, shares).unwrap();
    assert_sound(&core);
    let left = Seen::by_us(&core);
    core.close().unwrap();

    let again = js.call("open", json!({"dir": dir, "createIfMissing": false}));
    assert_eq!(again["manifest"], first["manifest"]);
    assert_eq!(Seen::by_js(&mut js, "main"), left);
    assert_sound_to_js(&mut js, "main");
    let proofs = [share(&mut js, 2, "back"), share(&mut js, 3, "back")];
    append(&mut js, proofs, "back");
}

fn append_signed(core: &Hypercore, blocks: &[&[u8]], shares: Vec<PartialSignature>) -> hypercore::Result<Appended> {
    let signature = MultiSignature::assemble(1, shares).encode(1);
    core.append_with(blocks, SignOptions::new().signature(signature))
}

/// A prologue that one side appends and the other reads and goes on behind.
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

    let core = plain().manifest(manifest_here).key_pair(key_pair(7)).open(place("ours")).unwrap();
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

/// A copy that fetched some blocks of a log and knows the tree around them alone.
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

/// Blocks that a batch wrote behind the log before it was signed: once it is they are of the log, wherever a flush came between; before,
/// they are nobody's.
#[test]
fn unsigned_batch_of_javascript_opens_here() {
    let draft = |blocks: &[&str]| ("draft", json!({"text": blocks}));
    let signed = |blocks: &[&str]| ("draft", json!({"text": blocks, "sign": true}));
    let append = |blocks: &[&str]| ("append", json!({"text": blocks}));
    let flush = || ("flush", json!({}));
    for steps in [
        vec![append(&["a"]), draft(&["b", "c"]), signed(&[])],
        vec![append(&["a"]), draft(&["b", "c"]), flush(), signed(&[])],
        vec![append(&["a"]), draft(&["b"]), flush(), signed(&["c", "d"])],
        vec![append(&["a"]), draft(&["b"]), flush(), draft(&["c"]), signed(&["d", "e"]), append(&["f"])],
        vec![append(&["a"]), draft(&["b"]), signed(&[]), append(&["c"]), append(&["d"])],
        vec![append(&["a"]), draft(&["b", "c"])],
        vec![append(&["a"]), draft(&["b", "c"]), flush()],
        vec![append(&["a"]), draft(&["b", "c", "d"]), flush(), append(&["B"])],
        vec![append(&["a"]), draft(&["b", "c", "d"]), append(&["B"])],
        vec![append(&["a", "b"]), draft(&["c", "d"]), flush(), ("truncate", json!({"length": 1})), append(&["B"])],
        vec![draft(&["a", "b"]), signed(&["c"])],
        vec![draft(&["a", "b"]), flush(), signed(&[])],
    ] {
        let (Some(mut js), Some(mut other)) = (Js::core(), Js::core()) else { return };
        let dir = tempdir().unwrap();
        let (theirs, copy) = (dir.path().join("theirs"), dir.path().join("copy"));
        js.call("open", json!({"dir": theirs, "seed": seed(7)}));
        for (op, request) in &steps {
            js.call(op, request.clone());
        }
        js.call("close", json!({}));
        copy_files(&theirs, &copy);
        other.call("open", json!({"dir": copy, "createIfMissing": false}));
        let left = Seen::by_js(&mut other, "main");

        let core = plain().create_if_missing(false).open(&theirs).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
        assert_eq!(Seen::by_us(&core), left, "{steps:?}");
        // They count drafts among the blocks that are here without a gap.
        let faults = core.verify(Repair::No).unwrap().faults;
        assert!(faults.iter().all(|fault| matches!(fault, Fault::ContiguousLength(_))), "{steps:?}: {faults:?}");
        text(&["from", "", "us"]).by_us(&core);
        let left = Seen::by_us(&core);
        assert_eq!(left.held, [(0, left.length)], "{steps:?}");
        core.flush().unwrap();
        assert_sound(&core);
        core.close().unwrap();
        js.call("open", json!({"dir": theirs, "createIfMissing": false}));
        assert_eq!(Seen::by_js(&mut js, "main"), left, "{steps:?}");
        assert_sound_to_js(&mut js, "main");
    }
}

/// Killed at each step of an append: we find what JavaScript finds, and go on.
#[test]
fn append_killed_in_javascript_recovers_here() {
    for at in [
        json!({"file": "data", "bytes": 5}),
        json!({"file": "oplog", "bytes": 0}),
        json!({"file": "oplog", "bytes": 3}),
        json!({"file": "oplog", "bytes": 70}),
        json!({"file": "bitfield"}),
        json!({"file": "bitfield", "bytes": 1000}),
        json!({"file": "tree"}),
        json!({"file": "tree", "bytes": 20}),
        json!({"file": "oplog", "nth": 2}),
        json!({"file": "oplog", "nth": 2, "bytes": 50}),
        json!({"file": "oplog", "call": "truncate"}),
    ] {
        recovered(&at, json!({"op": "append", "text": ["was", "it", "written?"]}));
    }
}

#[test]
fn truncation_killed_in_javascript_recovers_here() {
    for at in [
        json!({"file": "oplog", "bytes": 20}),
        json!({"file": "bitfield"}),
        json!({"file": "tree", "call": "truncate"}),
        json!({"file": "oplog", "nth": 2, "bytes": 50}),
        json!({"file": "oplog", "call": "truncate"}),
    ] {
        recovered(&at, json!({"op": "truncate", "length": 4}));
    }
}

fn recovered(at: &Value, then: Value) {
    let (Some(mut js), Some(mut other)) = (Js::core(), Js::core()) else { return };
    let dir = tempdir().unwrap();
    let (killed, copy) = (dir.path().join("killed"), dir.path().join("copy"));
    js.call("open", json!({"dir": killed, "seed": seed(7)}));
    // The first append is flushed, the next three are not, and what follows is.
    for op in [random(8, 10, 0, 60, 10), random(8, 3, 0, 60, 1)] {
        op.by_js(&mut js, "main");
    }
    js.die(json!({"at": at, "then": &then}));
    copy_files(&killed, &copy);

    // The reference cannot open what it leaves between cutting the tree and writing the header. What was asked for is in the
    // log of changes by then.
    let found = other.try_call("open", json!({"dir": copy, "createIfMissing": false}));
    let core = plain().create_if_missing(false).open(&killed).unwrap();
    match found {
        Ok(_) => assert_eq!(Seen::by_us(&core), Seen::by_js(&mut other, "main"), "killed at {at}"),
        Err(_) => {
            assert_eq!((then["op"].as_str(), core.len(), core.fork()), (Some("truncate"), 4, 1), "killed at {at}")
        }
    }
    let _ = other.try_call("close", json!({}));

    assert_sound(&core);
    text(&["and", "on"]).by_us(&core);
    let left = Seen::by_us(&core);
    core.close().unwrap();
    other.call("open", json!({"dir": killed, "createIfMissing": false}));
    assert_eq!(Seen::by_js(&mut other, "main"), left, "killed at {at}");
    assert_sound_to_js(&mut other, "main");
}

/// What is in our files at any moment is what JavaScript finds if we are killed then.
#[test]
fn files_after_every_operation_open_in_javascript() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let core = plain().key_pair(key_pair(7)).open(dir.path().join("core")).unwrap();
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

/// As [`read_both_ways`], and both sides write the same files.
#[track_caller]
fn both_ways(story: Story) {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let (theirs, ours, as_left) = (dir.path().join("theirs"), dir.path().join("ours"), dir.path().join("as-left"));
    open_in_js(&mut js, &story, &theirs);
    story.ops.iter().for_each(|op| op.by_js(&mut js, "main"));
    js.call("close", json!({}));
    written_in_step(&story, &ours, &as_left);
    let stored = js.call("open", json!({"dir": theirs, "createIfMissing": false}))["byteLength"].clone();
    // The oplog of an encrypted log holds the fingerprint of its key.
    let is_encrypted = !story.js["encryptionKey"].is_null();
    let names: Vec<&str> = FILES.into_iter().filter(|&name| !(is_encrypted && name == "oplog")).collect();
    assert_same_files(&theirs, &as_left, &names, stored.as_u64().unwrap() as usize);
    read_both_ways(story);
}

/// A core of JavaScript is read here, one of ours there; and each goes on where the other ended.
#[track_caller]
fn read_both_ways(story: Story) {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    let mut model = Model::of(&story.ops);

    open_in_js(&mut js, &story, &theirs);
    story.ops.iter().for_each(|op| op.by_js(&mut js, "main"));
    let left = model.check_by_js(&mut js, "main");
    let info = js.call("info", json!({}));
    js.call("close", json!({}));

    let core = (story.ours)().key_pair(key_pair(7)).open(&ours).unwrap();
    story.ops.iter().for_each(|op| op.by_us(&core));
    assert_eq!(model.check_by_us(&core), left);
    core.close().unwrap();

    // What they left, read here and continued.
    let core = (story.ours)().create_if_missing(false).open(&theirs).unwrap();
    assert_eq!(model.check_by_us(&core), left);
    assert_eq!((core.key(), core.padding()), (key_of(&info), info["padding"].as_u64().unwrap()));
    assert_eq!(to_hex(core.discovery_key().as_bytes()), info["discoveryKey"]);
    assert_eq!(core.id(), info["id"]);
    assert!(core.writable());
    assert_sound(&core);
    let more = text(&["from", "", "us"]);
    more.by_us(&core);
    core.close().unwrap();

    // What we left, read there and continued.
    let mut continued = model.clone();
    continued.apply(&more);
    open_in_js(&mut js, &story, &theirs);
    let seen = continued.check_by_js(&mut js, "main");
    assert_eq!(js.call("info", json!({}))["contiguousLength"], seen.contiguous());
    assert_sound_to_js(&mut js, "main");
    js.call("close", json!({}));

    open_in_js(&mut js, &story, &ours);
    assert_eq!(model.check_by_js(&mut js, "main"), left);
    assert_sound_to_js(&mut js, "main");
    let more = text(&["from", "", "them"]);
    more.by_js(&mut js, "main");
    model.apply(&more);
    let left = model.check_by_js(&mut js, "main");
    js.call("close", json!({}));

    let core = (story.ours)().create_if_missing(false).open(&ours).unwrap();
    assert_eq!(model.check_by_us(&core), left);
    assert_sound(&core);
}

fn open_in_js(js: &mut Js, story: &Story, dir: &Path) {
    let mut request = story.js.clone();
    request["dir"] = json!(dir);
    request["seed"] = json!(seed(7));
    js.call("open", request);
}

/// Writes the story, flushing when JavaScript does: after the first change, after every fourth, and when the entries take
/// 64 KiB. The files are copied before the core closes, which flushes once more.
fn written_in_step(story: &Story, dir: &Path, copy: &Path) {
    let core = (story.ours)().key_pair(key_pair(7)).durability(Durability::None).open(dir).unwrap();
    let mut to_flush = 1;
    for op in &story.ops {
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

/// Of the blocks, the first `stored` bytes: what stands behind them was cut from the log, and whoever cuts it may leave it there.
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
