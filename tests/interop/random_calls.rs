//! The same random calls on both sides, each answer compared: appends, truncations, clears, reads, seeks and
//! properties of a core, its sessions and its snapshots, before and after reopening.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hypercore::{
    ByteOptions, ErrorKind, GetOptions, Hypercore, OpenOptions, ReadOptions, Result, SeekOptions, SessionOptions,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

use crate::common::{Random, hex, pair};
use crate::generated_blocks;
use crate::js::Js;
use crate::model::{assert_sound, assert_sound_to_js, digest, seed};

const STEPS: usize = 400;

/// The maximum number of open sessions and snapshots, besides the first.
const OTHERS: usize = 4;

#[test]
fn calls_on_plain_log_give_equal_answers() {
    for chosen in [11, 12] {
        answers_agree(chosen, json!({}), Hypercore::options);
    }
}

#[test]
fn calls_on_encrypted_log_give_equal_answers() {
    answers_agree(13, json!({"encryptionKey": seed(0xee)}), || Hypercore::options().encryption_key([0xee; 32]));
}

#[test]
fn calls_on_manifest_log_give_equal_answers() {
    answers_agree(14, json!({"compat": false}), || Hypercore::options().compat(false));
}

/// The length of a non-sparse core counts only contiguous blocks.
#[test]
fn calls_on_non_sparse_log_give_equal_answers() {
    answers_agree(15, json!({"sparse": false}), || Hypercore::options().sparse(false));
}

fn answers_agree(chosen: u32, js_options: Value, ours: fn() -> OpenOptions) {
    let Some(js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let options = ours().key_pair(pair(7));
    let main = options.clone().open(dir.path().join("ours")).unwrap();
    let mut pair = Pair { js, js_options, options, dir, ours: BTreeMap::new(), main, made: 0, sizes: Vec::new() };
    pair.open_in_js();
    let mut rng = Random::new(chosen.into());
    for step in 0..STEPS {
        let (core, op, request) = pair.draw(&mut rng);
        // Printed only when the test fails.
        println!("seed {chosen}, step {step}: {core} {op} {request}");
        let theirs = pair.by_js(&core, op, &request);
        let ours = pair.by_us(&core, op, &request);
        assert_eq!(ours, theirs, "ours and theirs, seed {chosen}, step {step}: {core} {op} {request}");
    }
    assert_sound(&pair.main);
    assert_sound_to_js(&mut pair.js, "main");
}

/// A core of ours and one of JavaScript that get the same calls.
struct Pair {
    js: Js,
    js_options: Value,
    options: OpenOptions,
    dir: TempDir,
    main: Hypercore,
    /// Sessions and snapshots by their names in JavaScript, and whether each is a snapshot.
    ours: BTreeMap<String, (Hypercore, bool)>,
    made: usize,
    /// The stored sizes of all blocks of the current log.
    sizes: Vec<usize>,
}

impl Pair {
    fn place(&self, side: &str) -> PathBuf {
        self.dir.path().join(side)
    }

    fn open_in_js(&mut self) {
        let mut request = self.js_options.clone();
        request["dir"] = json!(self.place("theirs"));
        request["seed"] = json!(seed(7));
        self.js.call("open", request);
    }

    /// Draws the next call: the session, the operation and its arguments.
    fn draw(&self, rng: &mut Random) -> (String, &'static str, Value) {
        let others: Vec<&String> = self.ours.keys().collect();
        let core = match rng.below(3) {
            0 if !others.is_empty() => others[rng.below(others.len() as u64) as usize].clone(),
            _ => "main".to_owned(),
        };
        let (session, is_snapshot) = self.session(&core);
        let length = self.sizes.len() as u64;
        let some_block = |rng: &mut Random| rng.below(length + 3);
        let some_range = |rng: &mut Random| {
            let start = rng.below(length + 2);
            (start, start + rng.below(length + 3 - start))
        };
        let (op, request) = match rng.below(30) {
            0..=3 => ("append", {
                let (count, max) = (1 + rng.below(12), [0, 3, 60, 9000][rng.below(4) as usize]);
                let min = rng.below(2).min(max);
                json!({"random": {"seed": rng.below(1 << 20), "count": count, "first": 0, "min": min, "max": max}})
            }),
            4 => ("truncate", {
                let to = if rng.below(4) == 0 { rng.below(length + 2) } else { length - rng.below(length.min(6) + 1) };
                match rng.below(4) {
                    0 => json!({"length": to, "fork": self.main.fork() + 1 + rng.below(3)}),
                    _ => json!({"length": to}),
                }
            }),
            5..=6 => {
                let (start, end) = some_range(rng);
                let end = end.min(start + 1 + rng.below(8));
                let sizes = self.sizes.get(start as usize..end.min(length) as usize).unwrap_or_default();
                // The reference fails on clearing blocks without bytes.
                match start < end.min(length) && sizes.iter().all(|&size| size == 0) {
                    true => ("properties", json!({})),
                    false => ("clear", json!({"start": start, "end": end})),
                }
            }
            7..=12 => ("get", json!({"index": some_block(rng), "hash": true})),
            13..=14 => ("has", json!({"start": some_block(rng)})),
            15..=16 => ("has", {
                let (start, end) = some_range(rng);
                json!({"start": start, "end": end})
            }),
            17..=19 => ("seek", json!({"bytes": rng.below(self.main.byte_length() + 3)})),
            // Beyond the end the reference may find truncated nodes.
            20 if !is_snapshot => ("treeHash", json!({"length": rng.below(length + 1)})),
            20..=22 => ("properties", json!({})),
            23 => ("setUserData", {
                let value = [json!(null), json!("00"), json!("ff".repeat(300))][rng.below(3) as usize].clone();
                let key = ["one", "two"][rng.below(2) as usize];
                json!({"key": key, "value": value})
            }),
            24 => ("userData", json!({})),
            // In version 10 a snapshot of a snapshot shows the current log; in version 11 and here, the same
            // as the snapshot.
            25 if self.ours.len() < OTHERS && !is_snapshot => ("session", {
                let mut request = json!({"as": format!("session-{}", self.made)});
                if rng.below(3) > 0 {
                    request["snapshot"] = json!(true);
                }
                request
            }),
            25..=26 if core != "main" => ("close", json!({})),
            27 if is_snapshot => ("update", json!({})),
            27 if self.ours.is_empty() && rng.below(2) == 0 => ("reopen", json!({})),
            28 => ("flush", json!({})),
            _ => {
                let (start, end) = some_range(rng);
                let end = end.min(session.len());
                // A byte stream of the reference fails on blocks without bytes.
                let all_full = self.sizes.iter().all(|&size| size > session.padding() as usize);
                let all_here = start < end && session.has_range(start..end).unwrap();
                match rng.below(2) {
                    // A stream over absent blocks would wait for them.
                    0 if all_here && !is_snapshot => ("read", json!({"start": start, "end": end})),
                    1 if !is_snapshot && all_full && session.byte_length() > 0 && session.has_range(..).unwrap() => {
                        ("bytes", {
                            let offset = rng.below(session.byte_length());
                            json!({"byteOffset": offset, "byteLength": 1 + rng.below(session.byte_length() - offset)})
                        })
                    }
                    _ => ("properties", json!({})),
                }
            }
        };
        (core, op, request)
    }

    fn session(&self, core: &str) -> (Hypercore, bool) {
        self.ours.get(core).cloned().unwrap_or_else(|| (self.main.clone(), false))
    }

    fn by_js(&mut self, core: &str, op: &'static str, request: &Value) -> Value {
        if op == "reopen" {
            // The flush keeps the clears out of the oplog, from which the reference may count cleared
            // blocks as contiguous.
            self.js.call("flush", json!({}));
            self.js.call("close", json!({}));
            self.open_in_js();
            return json!(null);
        }
        let mut request = request.clone();
        request["core"] = json!(core);
        let answer = match self.js.try_call(op, request) {
            Ok(answer) => answer,
            Err(refusal) => return json!({"refused": refusal.code.filter(|code| code == "SNAPSHOT_NOT_AVAILABLE")}),
        };
        let pick = |names: &[&str]| Value::Object(names.iter().map(|&n| (n.to_owned(), answer[n].clone())).collect());
        match op {
            "append" => pick(&["length", "byteLength"]),
            "truncate" => pick(&["length", "byteLength", "fork"]),
            "get" => pick(&["size", "sha256"]),
            "has" => pick(&["has"]),
            "seek" => pick(&["index", "offset"]),
            "treeHash" => pick(&["hash"]),
            "userData" => pick(&["values"]),
            "update" => pick(&["updated"]),
            "read" | "bytes" => pick(&["bytes", "sha256"]),
            "properties" => pick(&["key", "id", "length", "byteLength", "contiguousLength", "padding", "writable"]),
            _ => json!(null),
        }
    }

    fn by_us(&mut self, core: &str, op: &'static str, request: &Value) -> Value {
        let done = self.try_by_us(core, op, request);
        done.unwrap_or_else(|error| {
            let snapshot = error.kind() == ErrorKind::SnapshotNotAvailable;
            json!({"refused": snapshot.then_some("SNAPSHOT_NOT_AVAILABLE")})
        })
    }

    fn try_by_us(&mut self, core: &str, op: &'static str, request: &Value) -> Result<Value> {
        let (session, is_snapshot) = self.session(core);
        let n = |name: &str| request[name].as_u64().unwrap();
        let range = || n("start")..request["end"].as_u64().unwrap_or(n("start") + 1);
        Ok(match op {
            "append" => {
                let random = &request["random"];
                let n = |name: &str| random[name].as_u64().unwrap();
                let block = |i| generated_blocks::sized_block(n("seed") as u32, i, n("min") as u32, n("max") as u32);
                let blocks: Vec<Vec<u8>> = (0..n("count")).map(block).collect();
                session.append_batch(&blocks)?;
                self.sizes.extend(blocks.iter().map(|block| block.len() + session.padding() as usize));
                json!({"length": session.len(), "byteLength": self.byte_length(&session, is_snapshot)})
            }
            "truncate" => {
                match request["fork"].as_u64() {
                    Some(fork) => session.truncate_to(n("length"), fork)?,
                    None => session.truncate(n("length"))?,
                };
                self.sizes.truncate(n("length") as usize);
                let fork = self.main.fork();
                json!({"length": session.len(), "byteLength": self.byte_length(&session, is_snapshot), "fork": fork})
            }
            "clear" => {
                session.clear(range())?;
                json!(null)
            }
            "get" => {
                let block = session.get_with(n("index"), GetOptions::new().wait(false))?;
                json!({"size": block.as_ref().map(Vec::len), "sha256": block.map(|block| hex(&Sha256::digest(&block)))})
            }
            "has" => json!({"has": session.has_range(range())?}),
            "seek" => {
                let found = session.seek_with(n("bytes"), SeekOptions::new().wait(false))?;
                json!({"index": found.map(|found| found.0), "offset": found.map(|found| found.1)})
            }
            "treeHash" => json!({"hash": hex(&session.tree_hash_at(n("length"))?)}),
            "properties" => self.told(&session, is_snapshot),
            "setUserData" => {
                let value = request["value"].as_str().map_or_else(Vec::new, crate::common::unhex);
                session.set_user_data(request["key"].as_str().unwrap(), value)?;
                json!(null)
            }
            "userData" => {
                let values = ["one", "two"].iter().filter_map(|key| Some((key, hex(&session.user_data(key)?))));
                json!({"values": values.collect::<BTreeMap<_, _>>()})
            }
            "session" => {
                let snapshot = request["snapshot"] == true;
                let made = session.session(SessionOptions::new().snapshot(snapshot))?;
                self.made += 1;
                self.ours.insert(request["as"].as_str().unwrap().to_owned(), (made, snapshot));
                json!(null)
            }
            "close" => {
                session.close()?;
                self.ours.remove(core);
                json!(null)
            }
            "update" => json!({"updated": session.update()?}),
            "reopen" => {
                self.main.close()?;
                self.main = self.options.clone().open(self.place("ours"))?;
                json!(null)
            }
            "flush" => {
                session.flush()?;
                json!(null)
            }
            "read" => {
                let blocks: Vec<Vec<u8>> =
                    session.read_stream(ReadOptions::new().start(n("start")).end(n("end")))?.collect::<Result<_>>()?;
                json!({"bytes": blocks.iter().map(Vec::len).sum::<usize>(), "sha256": digest(&blocks)})
            }
            "bytes" => {
                let options = ByteOptions::new().byte_offset(n("byteOffset")).byte_length(n("byteLength"));
                let mut all = Vec::new();
                std::io::Read::read_to_end(&mut session.byte_stream(options)?, &mut all).unwrap();
                json!({"bytes": all.len(), "sha256": hex(&Sha256::digest(&all))})
            }
            _ => unreachable!("no call of that name"),
        })
    }

    fn told(&self, session: &Hypercore, is_snapshot: bool) -> Value {
        json!({
            "key": session.key().to_hex(),
            "id": session.id(),
            "length": session.len(),
            "byteLength": self.byte_length(session, is_snapshot),
            "contiguousLength": session.contiguous_length().unwrap(),
            "padding": session.padding(),
            "writable": session.writable(),
        })
    }

    /// The byte length of the reference: always 0 for a non-sparse core, and with the padding for a snapshot.
    fn byte_length(&self, session: &Hypercore, is_snapshot: bool) -> u64 {
        match self.js_options["sparse"] == false {
            true => 0,
            false if is_snapshot => session.byte_length() + session.len() * session.padding(),
            false => session.byte_length(),
        }
    }
}
