//! The state of a core as each side sees it, operations that each side can apply, and a model of the expected state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use hypercore::{Hypercore, Key};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::hex;
use crate::common::machine::limit;
use crate::generated_blocks;
use crate::js::{Js, bytes};

/// The deadline of every wait.
pub const LIMIT: Duration = limit(60);

/// The state of a core that a reader can see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub key: String,
    pub length: u64,
    pub byte_length: u64,
    pub fork: u64,
    pub tree_hash: String,
    /// The ranges of held blocks.
    pub held: Vec<(u64, u64)>,
    /// A digest of the blocks of each range; of a long range, one of each end.
    pub digests: Vec<String>,
}

impl Seen {
    pub fn by_us(core: &Hypercore) -> Seen {
        let held = held(core);
        let seen = Seen {
            key: core.key().to_hex(),
            length: core.len(),
            byte_length: core.byte_length(),
            fork: core.fork(),
            tree_hash: hex(&core.tree_hash().unwrap()),
            digests: digested(&held).map(|(start, end)| digest((start..end).map(|i| core.get(i).unwrap()))).collect(),
            held,
        };
        assert_eq!(core.contiguous_length().unwrap(), seen.contiguous());
        seen
    }

    pub fn by_js(js: &mut Js, core: &str) -> Seen {
        Seen::by_js_as(js, core, false)
    }

    /// As [`Seen::by_js`], with the blocks as stored if `raw`.
    pub fn by_js_as(js: &mut Js, core: &str, raw: bool) -> Seen {
        let info = js.call("info", json!({"core": core}));
        let held = held_by_js(js, core);
        let digest = |(start, end): (u64, u64)| {
            let answer = js.call("digest", json!({"core": core, "start": start, "end": end, "raw": raw}));
            answer["sha256"].as_str().unwrap().to_owned()
        };
        Seen {
            key: info["key"].as_str().unwrap().to_owned(),
            length: info["length"].as_u64().unwrap(),
            byte_length: info["byteLength"].as_u64().unwrap(),
            fork: info["fork"].as_u64().unwrap(),
            tree_hash: info["treeHash"].as_str().unwrap().to_owned(),
            digests: digested(&held).map(digest).collect(),
            held,
        }
    }

    pub fn contiguous(&self) -> u64 {
        self.held.first().filter(|range| range.0 == 0).map_or(0, |range| range.1)
    }
}

/// The ranges of blocks to digest.
fn digested(held: &[(u64, u64)]) -> impl Iterator<Item = (u64, u64)> {
    const LONG: u64 = 12_000;
    held.iter().flat_map(|&(start, end)| match end - start {
        0..LONG => vec![(start, end)],
        _ => vec![(start, start + LONG / 4), (end - LONG / 4, end)],
    })
}

pub fn held(core: &Hypercore) -> Vec<(u64, u64)> {
    ranges((0..core.len()).map(|index| core.has(index).unwrap()))
}

pub fn held_by_js(js: &mut Js, core: &str) -> Vec<(u64, u64)> {
    serde_json::from_value(js.call("held", json!({"core": core}))["ranges"].clone()).unwrap()
}

/// The digest of the drivers: over each block's length and content.
pub fn digest<B: AsRef<[u8]>>(blocks: impl IntoIterator<Item = B>) -> String {
    let mut digest = Sha256::new();
    for block in blocks {
        digest.update((block.as_ref().len() as u64).to_le_bytes());
        digest.update(block.as_ref());
    }
    hex(&digest.finalize())
}

/// Verifies all of our core and fails on any fault.
#[track_caller]
pub fn assert_sound(core: &Hypercore) {
    let audit = core.verify().unwrap();
    assert!(audit.faults.is_empty(), "{:?}", audit.faults);
}

/// Has JavaScript verify all of its core and fails on any fault.
#[track_caller]
pub fn assert_sound_to_js(js: &mut Js, core: &str) {
    assert_eq!(js.call("verifyHead", json!({"core": core}))["valid"], true);
    assert_eq!(js.call("audit", json!({"core": core}))["report"], json!({"tree": 0, "blocks": 0}));
}

/// Waits until `reached`, which is checked after each event of the core.
#[track_caller]
pub fn until(core: &Hypercore, what: &str, reached: impl Fn(&Hypercore) -> bool) {
    let (tell, told) = mpsc::channel();
    let telling = || {
        let tell = tell.clone();
        move || tell.send(()).unwrap_or_default()
    };
    let (append, truncate, download, add, remove) = (telling(), telling(), telling(), telling(), telling());
    let _subscriptions = [
        core.on_append(append),
        core.on_truncate(move |_, _| truncate()),
        core.on_download(move |_| download()),
        core.on_peer_add(move |_| add()),
        core.on_peer_remove(move |_| remove()),
    ];
    while !reached(core) {
        if told.recv_timeout(LIMIT).is_err() {
            panic!("{what}: not within {LIMIT:?}: {core:?}, {:?}", core.peers());
        }
    }
}

pub fn key_of(info: &Value) -> Key {
    Key::new(bytes(info, "key").try_into().unwrap())
}

pub fn seed(byte: u8) -> String {
    hex(&[byte; 32])
}

pub fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in FILES {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

pub const FILES: [&str; 5] = ["oplog", "header", "tree", "bitfield", "data"];

/// An operation that either side can apply to a core.
#[derive(Clone, Debug)]
pub enum Op {
    Append(Vec<Vec<u8>>),
    /// As the drivers' `random`, from the current length on.
    Random {
        seed: u32,
        count: u64,
        min: u32,
        max: u32,
        batch: u64,
    },
    Truncate {
        length: u64,
        fork: Option<u64>,
    },
    Clear(u64, u64),
    /// An empty value deletes the key.
    UserData(&'static str, Vec<u8>),
    Flush,
}

pub fn text(blocks: &[&str]) -> Op {
    Op::Append(blocks.iter().map(|block| block.as_bytes().to_vec()).collect())
}

pub fn random(seed: u32, count: u64, min: u32, max: u32, batch: u64) -> Op {
    Op::Random { seed, count, min, max, batch }
}

pub fn truncate(length: u64) -> Op {
    Op::Truncate { length, fork: None }
}

impl Op {
    #[track_caller]
    pub fn by_js(&self, js: &mut Js, core: &str) {
        let (op, request) = match self {
            Op::Append(blocks) => ("append", json!({"blocks": blocks.iter().map(|b| hex(b)).collect::<Vec<_>>()})),
            Op::Random { seed, count, min, max, batch } => {
                let random = json!({"seed": seed, "count": count, "min": min, "max": max});
                ("append", json!({"random": random, "batch": batch}))
            }
            Op::Truncate { length, fork: None } => ("truncate", json!({"length": length})),
            Op::Truncate { length, fork } => ("truncate", json!({"length": length, "fork": fork})),
            Op::Clear(start, end) => ("clear", json!({"start": start, "end": end})),
            Op::UserData(key, value) if value.is_empty() => ("setUserData", json!({"key": key, "value": null})),
            Op::UserData(key, value) => ("setUserData", json!({"key": key, "value": hex(value)})),
            Op::Flush => ("flush", json!({})),
        };
        let mut request = request;
        request["core"] = json!(core);
        js.call(op, request);
    }

    pub fn by_us(&self, core: &Hypercore) {
        self.by_us_then(core, || ());
    }

    /// Applies the operation and calls `done` wherever JavaScript may flush.
    pub fn by_us_then(&self, core: &Hypercore, mut done: impl FnMut()) {
        match self {
            Op::Random { batch, .. } => {
                for blocks in self.blocks(core.len()).chunks(*batch as usize) {
                    core.append_batch(blocks).unwrap();
                    done();
                }
                return;
            }
            Op::Append(blocks) => drop(core.append_batch(blocks).unwrap()),
            Op::Truncate { length, fork: None } => drop(core.truncate(*length).unwrap()),
            Op::Truncate { length, fork: Some(fork) } => drop(core.truncate_to(*length, *fork).unwrap()),
            Op::Clear(start, end) => _ = core.clear(*start..*end).unwrap(),
            Op::UserData(key, value) => core.set_user_data(key, value).unwrap(),
            Op::Flush => core.flush().unwrap(),
        }
        if !matches!(self, Op::Truncate { .. } | Op::Flush) {
            done();
        }
    }

    /// The blocks that the operation appends to a log of `length` blocks.
    fn blocks(&self, length: u64) -> Vec<Vec<u8>> {
        match self {
            Op::Append(blocks) => blocks.clone(),
            &Op::Random { seed, count, min, max, .. } => {
                (length..length + count).map(|index| generated_blocks::sized_block(seed, index, min, max)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The expected state of a core.
#[derive(Clone, Default, Debug)]
pub struct Model {
    pub blocks: Vec<Vec<u8>>,
    pub held: Vec<bool>,
    pub fork: u64,
    pub user_data: BTreeMap<&'static str, Vec<u8>>,
}

impl Model {
    pub fn of(ops: &[Op]) -> Model {
        let mut model = Model::default();
        ops.iter().for_each(|op| model.apply(op));
        model
    }

    pub fn apply(&mut self, op: &Op) {
        self.blocks.extend(op.blocks(self.blocks.len() as u64));
        self.held.resize(self.blocks.len(), true);
        match op {
            Op::Truncate { length, fork } => {
                self.blocks.truncate(*length as usize);
                self.held.truncate(*length as usize);
                self.fork = fork.unwrap_or(self.fork + 1);
            }
            Op::Clear(start, end) => self.held[*start as usize..*end as usize].fill(false),
            Op::UserData(key, value) => drop(self.user_data.insert(key, value.clone())),
            _ => {}
        }
    }

    #[track_caller]
    pub fn check(&self, seen: &Seen) {
        let held = ranges(self.held.iter().copied());
        let digests = digested(&held).map(|(start, end)| digest(&self.blocks[start as usize..end as usize])).collect();
        let expected = Seen {
            key: seen.key.clone(),
            length: self.blocks.len() as u64,
            byte_length: self.blocks.iter().map(|block| block.len() as u64).sum(),
            fork: self.fork,
            tree_hash: seen.tree_hash.clone(),
            held,
            digests,
        };
        assert_eq!(*seen, expected);
    }

    #[track_caller]
    pub fn check_by_us(&self, core: &Hypercore) -> Seen {
        let seen = Seen::by_us(core);
        self.check(&seen);
        for (key, value) in &self.user_data {
            assert_eq!(core.user_data(key), Some(value.clone()).filter(|value| !value.is_empty()), "{key}");
        }
        seen
    }

    #[track_caller]
    pub fn check_by_js(&self, js: &mut Js, core: &str) -> Seen {
        let seen = Seen::by_js(js, core);
        self.check(&seen);
        let held = self.user_data.iter().filter(|(_, value)| !value.is_empty());
        let expected: BTreeMap<&str, String> = held.map(|(&key, value)| (key, hex(value))).collect();
        let mut values = js.call("userData", json!({"core": core}))["values"].take();
        // Our own entries are not part of the model.
        values.as_object_mut().unwrap().retain(|name, _| !name.starts_with("hypercore-blocking/"));
        assert_eq!(values, json!(expected));
        seen
    }
}

fn ranges(bits: impl IntoIterator<Item = bool>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (index, _) in bits.into_iter().enumerate().filter(|(_, set)| *set) {
        let index = index as u64;
        match ranges.last_mut() {
            Some(last) if last.1 == index => last.1 += 1,
            _ => ranges.push((index, index + 1)),
        }
    }
    ranges
}
