//! Files of JavaScript with an unsigned batch, or killed in the middle of a write: we find what JavaScript
//! finds, and continue.

use hypercore::{Fault, Hypercore};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::js::Js;
use crate::model::{Seen, assert_sound, assert_sound_to_js, copy_files, random, seed, text};

/// A batch writes its blocks behind the log before it is signed. They belong to the log once it is signed, whenever a
/// flush comes between, and not before.
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

        let core =
            Hypercore::options().create_if_missing(false).open(&theirs).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
        assert_eq!(Seen::by_us(&core), left, "{steps:?}");
        // JavaScript counts the blocks of unsigned batches as contiguous.
        let faults = core.verify().unwrap().faults;
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

/// Killed at each step of an append: we find what JavaScript finds, and continue.
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
    // The first append is flushed, the next three are not, and the following operation is.
    for op in [random(8, 10, 0, 60, 10), random(8, 3, 0, 60, 1)] {
        op.by_js(&mut js, "main");
    }
    js.die(json!({"at": at, "then": &then}));
    copy_files(&killed, &copy);

    // The reference cannot open the files that it leaves between truncating the tree and writing the header. The
    // operation is in the oplog by then.
    let found = other.try_call("open", json!({"dir": copy, "createIfMissing": false}));
    let core = Hypercore::options().create_if_missing(false).open(&killed).unwrap();
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
