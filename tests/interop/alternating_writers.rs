//! One directory that JavaScript and we write in turns: each side continues what the other left, and a model knows
//! the expected content.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use hypercore::net::{Connection, ConnectionOptions, Role};
use hypercore::{Durability, Fault, Hypercore, OpenOptions};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::watchdog::Watchdog;
use crate::common::{Random, pair};
use crate::js::Js;
use crate::model::{Model, Op, Seen, assert_sound, assert_sound_to_js, key_of, random, seed, truncate, until};

const TURNS: usize = 32;

#[test]
fn plain_log_is_continued_by_both_sides() {
    for seed in [1, 2] {
        in_turns(seed, json!({}), Hypercore::options);
    }
}

#[test]
fn encrypted_log_is_continued_by_both_sides() {
    let js = json!({"encryptionKey": seed(0xee)});
    in_turns(3, js, || Hypercore::options().encryption_key([0xee; 32]));
}

#[test]
fn manifest_log_is_continued_by_both_sides() {
    in_turns(4, json!({"compat": false}), || Hypercore::options().compat(false));
}

fn in_turns(chosen: u32, js_options: Value, ours: fn() -> OpenOptions) {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let mut rng = Random::new(chosen.into());
    let mut model = Model::default();
    let mut left = None;

    for turn in 0..TURNS {
        let what = format!("seed {chosen}, turn {turn}");
        let theirs = rng.below(2) == 0;
        let ops: Vec<Op> = {
            let mut ahead = model.clone();
            let count = rng.below(5);
            (0..count).map(|_| random_op(&mut rng, &mut ahead)).collect()
        };
        // Printed only when the test fails.
        println!("{what}: {} {ops:?}", if theirs { "they" } else { "we" });

        if theirs {
            open_in_js(&mut js, &js_options, dir.path());
            let found = model.check_by_js(&mut js, "main");
            assert_eq!(*left.get_or_insert(found.clone()), found, "{what}");
            for op in &ops {
                op.by_js(&mut js, "main");
                model.apply(op);
            }
            left = Some(model.check_by_js(&mut js, "main"));
            assert_sound_to_js(&mut js, "main");
            js = handed_on(js, &mut rng);
        } else {
            let durability = [Durability::None, Durability::Flush, Durability::Always][rng.below(3) as usize];
            let core = ours().key_pair(pair(7)).durability(durability).open(dir.path()).unwrap();
            let found = model.check_by_us(&core);
            assert_eq!(*left.get_or_insert(found.clone()), found, "{what}");
            for op in &ops {
                op.by_us(&core);
                model.apply(op);
            }
            left = Some(model.check_by_us(&core));
            // After a clear that it finds in the oplog, JavaScript may store a contiguous length that is too large.
            let mut faults = core.verify().unwrap().faults;
            faults.retain(|fault| !matches!(fault, Fault::ContiguousLength(_)));
            assert_eq!(faults, [], "{what}");
            core.close().unwrap();
        }
    }
}

/// A sparse copy: in its turn each side follows the writer, which forks now and then, downloads some blocks
/// and clears one.
#[test]
fn sparse_copy_is_continued_by_both_sides() {
    for (seed, options) in [(21, json!({})), (22, json!({"compat": false}))] {
        copied_in_turns(seed, options);
    }
}

fn copied_in_turns(chosen: u32, writer: Value) {
    let _watchdog = Watchdog::new("sparse_copy_is_continued_by_both_sides", Duration::from_secs(240));
    let Some(mut js) = Js::replicate() else { return };
    let dir = tempdir().unwrap();
    let place = dir.path().join("copy");
    let mut rng = Random::new(chosen.into());
    let mut open = writer;
    open["core"] = json!("writer");
    open["dir"] = json!(dir.path().join("writer"));
    let key = key_of(&js.call("open", open));
    random(chosen, 50, 0, 200, 10).by_js(&mut js, "writer");
    let port = js.call("listen", json!({"cores": ["writer"]}))["port"].as_u64().unwrap() as u16;
    let mut left = None;

    for turn in 0..16 {
        let what = format!("seed {chosen}, turn {turn}");
        let (length, fork) = {
            let length = js.call("info", json!({"core": "writer"}))["length"].as_u64().unwrap();
            match rng.below(4) {
                0 => truncate(length - rng.below(length.min(30))).by_js(&mut js, "writer"),
                1 => (),
                _ => random(rng.next() as u32, 1 + rng.below(30), 0, 200, 5).by_js(&mut js, "writer"),
            }
            let info = js.call("info", json!({"core": "writer"}));
            (info["length"].as_u64().unwrap(), info["fork"].as_u64().unwrap())
        };
        let fetched: Vec<u64> = (0..rng.below(8)).map(|_| rng.below(length)).collect();
        let dropped = rng.below(length);
        let theirs = turn > 0 && rng.below(2) == 0;
        // Printed only when the test fails.
        println!("{what}: {} {length} {fork} {fetched:?} {dropped}", if theirs { "they" } else { "we" });

        if theirs {
            js.call("open", json!({"core": "copy", "dir": place, "createIfMissing": false}));
            assert_eq!(Some(Seen::by_js(&mut js, "copy")), left, "{what}");
            let conn = js.call("connect", json!({"port": port, "cores": ["copy"]}))["conn"].clone();
            js.call("until", json!({"core": "copy", "length": length, "fork": fork}));
            for index in &fetched {
                js.call("get", json!({"core": "copy", "index": index, "wait": true}));
            }
            js.call("disconnect", json!({"conn": conn}));
            // The reference fails on clearing blocks without bytes.
            let _ = js.try_call("clear", json!({"core": "copy", "start": dropped}));
            left = Some(Seen::by_js(&mut js, "copy"));
            assert_sound_to_js(&mut js, "copy");
            js.call("close", json!({"core": "copy"}));
        } else {
            let core = Hypercore::options().key(key).open(&place).unwrap();
            if let Some(left) = left {
                assert_eq!(Seen::by_us(&core), left, "{what}");
            }
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            let connection = Connection::open(stream, Role::Initiator, ConnectionOptions::new()).unwrap();
            core.replicate_on(&connection).unwrap();
            until(&core, &what, |core| (core.len(), core.fork()) == (length, fork));
            for &index in &fetched {
                core.get(index).unwrap();
            }
            connection.close();
            core.clear(dropped..dropped + 1).unwrap();
            left = Some(Seen::by_us(&core));
            assert_sound(&core);
            core.close().unwrap();
        }
    }
}

fn open_in_js(js: &mut Js, options: &Value, dir: &Path) {
    let mut request = options.clone();
    request["dir"] = json!(dir);
    request["seed"] = json!(seed(7));
    js.call("open", request);
}

/// Closes the core or, in one of five cases, kills its process.
fn handed_on(mut js: Js, rng: &mut Random) -> Js {
    if rng.below(5) == 0 {
        js.die(json!({}));
        return Js::core().expect("there was one before");
    }
    js.call("close", json!({}));
    js
}

/// A random operation that is valid for the model, which it is applied to.
fn random_op(rng: &mut Random, model: &mut Model) -> Op {
    let length = model.blocks.len() as u64;
    let op = match rng.below(12) {
        0..=4 => random(rng.next() as u32, 1 + rng.below(40), 0, 300, 1 + rng.below(20)),
        5 => random(rng.next() as u32, 1 + rng.below(400), 0, 3, 100),
        6 if length > 0 => {
            let fork = (rng.below(3) == 0).then(|| model.fork + 1 + rng.below(4));
            Op::Truncate { length: length - rng.below(length.min(60) + 1), fork }
        }
        7 if length > 0 && rng.below(4) == 0 => Op::Truncate { length: rng.below(length), fork: None },
        8 | 9 if length > 0 => {
            let start = rng.below(length);
            let end = start + 1 + rng.below(length - start);
            // The reference fails on clearing blocks without bytes.
            match model.blocks[start as usize..end as usize].iter().all(Vec::is_empty) {
                true => Op::Flush,
                false => Op::Clear(start, end),
            }
        }
        10 => Op::Flush,
        _ => {
            let key = ["one", "two", "three"][rng.below(3) as usize];
            let size = [0, 1, 20, 5000][rng.below(4) as usize];
            Op::UserData(key, vec![rng.below(256) as u8; size])
        }
    };
    model.apply(&op);
    op
}
