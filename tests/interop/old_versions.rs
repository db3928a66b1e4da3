//! Cores of versions 10.0.0 and 10.4.1, with their older headers and entries: we open and continue them, and then
//! 10.38.2 opens them.

use std::path::Path;

use hypercore::{Hypercore, OpenOptions};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::js::Js;
use crate::model::{Model, Op, Seen, assert_sound, assert_sound_to_js, copy_files, random, seed, text, truncate};

const VERSIONS: [&str; 2] = ["10.0.0", "10.4.1"];

fn op_sequences() -> Vec<Vec<Op>> {
    vec![
        vec![],
        vec![text(&["one"])],
        vec![random(1, 20, 0, 200, 3), text(&["", "hello", "testbed"])],
        // One append is flushed and three are not.
        vec![random(2, 4, 0, 60, 1)],
        vec![random(2, 3000, 0, 60, 500)],
        vec![Op::UserData("kept", vec![1, 2]), Op::UserData("changed", vec![3]), Op::UserData("deleted", vec![4])]
            .into_iter()
            .chain([text(&["between"]), Op::UserData("changed", vec![5]), Op::UserData("deleted", vec![])])
            .collect(),
        vec![random(3, 12, 0, 50, 5), truncate(7), text(&["after", "the", "cut"])],
        vec![
            random(4, 16, 0, 40, 4),
            truncate(14),
            truncate(12),
            text(&["a", "b"]),
            truncate(13),
            truncate(0),
            random(5, 9, 0, 40, 9),
            Op::Truncate { length: 8, fork: Some(11) },
            truncate(5),
            text(&["last"]),
        ],
        vec![random(6, 20, 1, 300, 20), Op::Clear(2, 5), text(&["more"]), Op::Clear(10, 18)],
    ]
}

#[test]
fn old_version_core_opens_and_continues() {
    for version in VERSIONS {
        for ops in op_sequences() {
            continues_on_each_side(version, json!({}), Hypercore::options, &ops);
        }
    }
}

#[test]
fn old_version_encrypted_core_opens_and_continues() {
    for version in VERSIONS {
        let ops = [text(&["secret", "", "secret"]), truncate(2), text(&["another secret"]), random(1, 30, 0, 99, 4)];
        let js = json!({"encryptionKey": seed(0xee)});
        continues_on_each_side(version, js, || Hypercore::options().encryption_key([0xee; 32]), &ops);
    }
}

#[test]
fn old_version_core_of_killed_process_recovers() {
    for version in VERSIONS {
        for at in [
            json!({"file": "oplog", "bytes": 0}),
            json!({"file": "oplog", "bytes": 70}),
            json!({"file": "bitfield"}),
            json!({"file": "tree", "bytes": 20}),
            json!({"file": "oplog", "nth": 2, "bytes": 50}),
            json!({"file": "oplog", "call": "truncate"}),
        ] {
            let (Some(mut old), Some(mut new)) = (Js::core(), Js::core()) else { return };
            let dir = tempdir().unwrap();
            let (killed, copy) = (dir.path().join("killed"), dir.path().join("copy"));
            old.call("open", json!({"dir": killed, "version": version, "seed": seed(7)}));
            for op in [random(8, 10, 0, 60, 10), random(8, 3, 0, 60, 1)] {
                op.by_js(&mut old, "main");
            }
            old.die(json!({"at": at, "then": {"op": "append", "text": ["was", "it", "written?"]}}));
            copy_files(&killed, &copy);

            new.call("open", json!({"dir": copy, "createIfMissing": false}));
            let expected = Seen::by_js(&mut new, "main");
            let core = Hypercore::options().create_if_missing(false).open(&killed).unwrap();
            assert_eq!(Seen::by_us(&core), expected, "{version}, killed at {at}");
            assert_sound(&core);
        }
    }
}

/// The old version writes, we continue, 10.38.2 continues, and we read the result.
fn continues_on_each_side(version: &str, js_options: Value, ours: fn() -> OpenOptions, ops: &[Op]) {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let mut model = Model::of(ops);
    open_in_js(&mut js, version, &js_options, dir.path());
    ops.iter().for_each(|op| op.by_js(&mut js, "main"));
    let left = model.check_by_js(&mut js, "main");
    js.call("close", json!({}));

    let core = ours().create_if_missing(false).open(dir.path()).unwrap();
    assert_eq!(model.check_by_us(&core), left, "{version}");
    assert_sound(&core);
    for op in [text(&["ours"]), truncate(left.length), text(&["ours", "", "again"])] {
        op.by_us(&core);
        model.apply(&op);
    }
    let left = model.check_by_us(&core);
    core.close().unwrap();

    open_in_js(&mut js, "10", &js_options, dir.path());
    assert_eq!(model.check_by_js(&mut js, "main"), left, "{version}");
    assert_sound_to_js(&mut js, "main");
    let more = text(&["the newer", "version's"]);
    more.by_js(&mut js, "main");
    model.apply(&more);
    js.call("close", json!({}));

    let core = ours().create_if_missing(false).open(dir.path()).unwrap();
    model.check_by_us(&core);
    assert_sound(&core);
}

fn open_in_js(js: &mut Js, version: &str, options: &Value, dir: &Path) {
    let mut request = options.clone();
    request["dir"] = json!(dir);
    request["version"] = json!(version);
    request["seed"] = json!(seed(7));
    js.call("open", request);
}
