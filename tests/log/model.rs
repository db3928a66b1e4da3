//! After random operations, closed and reopened in between, a log has the state of a plain list.

use std::collections::BTreeMap;
use std::path::Path;

use hypercore::lowlevel::node::{Node, Roots};
use hypercore::{Durability, ErrorKind, GetOptions, Hypercore, Memory, SeekOptions};
use quickcheck::{Arbitrary, Gen, QuickCheck};

use crate::common::machine::tries;
use crate::common::{copy_of, kind, pair, watchdog};

#[derive(Clone, Debug)]
enum Op {
    /// Blocks of these sizes.
    Append(Vec<u16>),
    /// The new length in thousandths of the old one, and by how much the fork rises (0: the default).
    Truncate(u16, u8),
    /// Start and end in thousandths of the length.
    Clear(u16, u16),
    UserData(u8, u16),
    Flush,
    /// Closes the files until the next call.
    Release,
    Reopen,
    /// Opens a copy of the files, as after a killed process.
    Kill,
    Snapshot,
    UpdateSnapshots,
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let permille = |g: &mut Gen| u16::arbitrary(g) % 1001;
        match u8::arbitrary(g) % 20 {
            0..=5 => {
                let count = usize::arbitrary(g) % 7;
                let size = |g: &mut Gen| match u8::arbitrary(g) % 8 {
                    0 => 0,
                    1 => 5000,
                    _ => u16::arbitrary(g) % 40,
                };
                Op::Append((0..count).map(|_| size(g)).collect())
            }
            6 => Op::Release,
            7 | 8 => Op::Truncate(permille(g), u8::arbitrary(g) % 3),
            9..=11 => Op::Clear(permille(g), permille(g)),
            12 => Op::UserData(u8::arbitrary(g) % 4, *g.choose(&[0, 1, 50, 6000, 9000]).unwrap()),
            13 => Op::Flush,
            14 | 15 => Op::Reopen,
            16 | 17 => Op::Kill,
            18 => Op::Snapshot,
            _ => Op::UpdateSnapshots,
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match self {
            Op::Append(sizes) => Box::new(sizes.shrink().map(Op::Append)),
            Op::Truncate(to, by) => Box::new((*to, *by).shrink().map(|(to, by)| Op::Truncate(to, by))),
            Op::Clear(from, to) => Box::new((*from, *to).shrink().map(|(from, to)| Op::Clear(from, to))),
            _ => quickcheck::empty_shrinker(),
        }
    }
}

/// How and where the log is stored.
#[derive(Clone, Copy, Debug)]
struct Setting {
    disk: bool,
    encrypted: bool,
    durability: Durability,
    /// How many empty blocks stand before all others, to be near the end of a page of the bitfield.
    base: usize,
}

impl Arbitrary for Setting {
    fn arbitrary(g: &mut Gen) -> Self {
        Setting {
            disk: bool::arbitrary(g),
            encrypted: bool::arbitrary(g),
            durability: *g.choose(&[Durability::None, Durability::Flush, Durability::Always]).unwrap(),
            base: *g.choose(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 32_760]).unwrap(),
        }
    }
}

/// A block, and whether it is held.
type Block = (Vec<u8>, bool);

#[derive(Clone, Default)]
struct Oracle {
    blocks: Vec<Block>,
    fork: u64,
    user_data: BTreeMap<String, Vec<u8>>,
}

struct Shown {
    snapshot: Hypercore,
    blocks: Vec<Vec<u8>>,
    fork: u64,
    /// How many of its blocks the log still has.
    compatible: usize,
}

struct World {
    setting: Setting,
    memory: Memory,
    dir: tempfile::TempDir,
    core: Hypercore,
    oracle: Oracle,
    shown: Vec<Shown>,
    appended: u64,
}

impl World {
    fn new(setting: Setting) -> Self {
        let (memory, dir) = (Memory::new(), tempfile::tempdir().unwrap());
        let core = open(setting, &memory, dir.path());
        let mut oracle = Oracle::default();
        if setting.base > 0 {
            core.append_batch(vec![b""; setting.base]).unwrap();
            oracle.blocks = vec![(Vec::new(), true); setting.base];
        }
        World { setting, memory, dir, core, oracle, shown: Vec::new(), appended: 0 }
    }

    /// The index that is `permille` thousandths of the way from the base to the end.
    fn place(&self, permille: u16) -> usize {
        let low = self.setting.base.saturating_sub(6).min(self.oracle.blocks.len());
        low + (self.oracle.blocks.len() - low) * usize::from(permille) / 1000
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Append(sizes) => {
                let blocks: Vec<Vec<u8>> = sizes
                    .iter()
                    .map(|&size| {
                        self.appended += 1;
                        (0..size).map(|i| (self.appended * 31 + u64::from(i)) as u8).collect()
                    })
                    .collect();
                let appended = self.core.append_batch(&blocks).unwrap();
                self.oracle.blocks.extend(blocks.into_iter().map(|block| (block, true)));
                assert_eq!(appended.length, self.oracle.blocks.len() as u64);
                assert_eq!(appended.byte_length, self.oracle.byte_length());
            }
            Op::Truncate(permille, by) => {
                let length = self.place(*permille);
                let fork = match by {
                    0 => self.core.truncate(length as u64).unwrap(),
                    by => self.core.truncate_to(length as u64, self.oracle.fork + u64::from(*by)).unwrap(),
                };
                self.oracle.fork += u64::from(*by).max(1);
                assert_eq!(fork, self.oracle.fork);
                self.oracle.blocks.truncate(length);
                for shown in &mut self.shown {
                    shown.compatible = shown.compatible.min(length);
                }
            }
            Op::Clear(from, to) => {
                let (from, to) = (self.place(*from), self.place(*to));
                let (from, to) = (from.min(to), from.max(to));
                self.core.clear(from as u64..to as u64).unwrap();
                self.oracle.blocks[from..to].iter_mut().for_each(|(_, held)| *held = false);
            }
            Op::UserData(key, size) => {
                let (key, value) = (key.to_string(), vec![key + 1; usize::from(*size)]);
                self.core.set_user_data(&key, &value).unwrap();
                match value.is_empty() {
                    true => drop(self.oracle.user_data.remove(&key)),
                    false => drop(self.oracle.user_data.insert(key, value)),
                }
            }
            Op::Flush => self.core.flush().unwrap(),
            Op::Release => self.core.release_files().unwrap(),
            Op::Reopen => {
                self.shown.clear();
                self.core.close().unwrap();
                self.core = open(self.setting, &self.memory, self.dir.path());
            }
            Op::Kill if self.setting.disk => {
                self.shown.clear();
                let left = copy_of(self.dir.path());
                self.core = open(self.setting, &self.memory, left.path());
                self.dir = left;
            }
            Op::Kill => {}
            Op::Snapshot => {
                let snapshot = self.core.snapshot().unwrap();
                let blocks: Vec<_> = self.oracle.blocks.iter().map(|(block, _)| block.clone()).collect();
                self.shown.push(Shown { snapshot, fork: self.oracle.fork, compatible: blocks.len(), blocks });
            }
            Op::UpdateSnapshots => {
                for shown in &mut self.shown {
                    let same = (shown.blocks.len(), shown.fork) == (self.oracle.blocks.len(), self.oracle.fork);
                    assert_eq!(shown.snapshot.update().unwrap(), !same);
                    shown.blocks = self.oracle.blocks.iter().map(|(block, _)| block.clone()).collect();
                    (shown.fork, shown.compatible) = (self.oracle.fork, shown.blocks.len());
                }
            }
        }
    }

    fn compare(&self) {
        let (core, oracle, setting) = (&self.core, &self.oracle, self.setting);
        let length = oracle.blocks.len();
        assert_eq!((core.len(), core.fork()), (length as u64, oracle.fork));
        assert_eq!(core.byte_length(), oracle.byte_length());
        let contiguous = oracle.blocks.iter().take_while(|(_, held)| *held).count();
        assert_eq!(core.contiguous_length().unwrap(), contiguous as u64);
        let looked_at = setting.base.saturating_sub(8).min(length);
        for (index, (block, held)) in oracle.blocks.iter().enumerate().skip(looked_at) {
            let index = index as u64;
            assert_eq!(core.has(index).unwrap(), *held, "block {index}");
            let got = core.get_with(index, GetOptions::new().wait(false)).unwrap();
            assert_eq!(got.as_ref(), held.then_some(block), "block {index}");
        }
        for (from, to) in [(looked_at, length), (contiguous, length), (looked_at, contiguous.max(looked_at))] {
            let all = oracle.blocks[from..to].iter().all(|(_, held)| *held);
            assert_eq!(core.has_range(from as u64..to as u64).unwrap(), all);
        }
        let mut byte = 0;
        for (index, (block, _)) in oracle.blocks.iter().enumerate().filter(|(_, (block, _))| !block.is_empty()) {
            let last = block.len() as u64 - 1;
            // A seek to the first byte of a block may return an empty block before it.
            if last > 0 {
                let found = core.seek_with(byte + last, SeekOptions::new().wait(false)).unwrap();
                assert_eq!(found, Some((index as u64, last)));
            }
            byte += block.len() as u64;
        }
        for key in ["0", "1", "2", "3"] {
            assert_eq!(core.user_data(key).as_ref(), oracle.user_data.get(key), "{key}");
        }
        if !setting.encrypted && setting.base == 0 {
            assert_eq!(core.tree_hash().unwrap(), oracle.roots().tree_hash());
        }
        for shown in &self.shown {
            let snapshot = &shown.snapshot;
            assert_eq!((snapshot.len(), snapshot.fork()), (shown.blocks.len() as u64, shown.fork));
            for (index, block) in shown.blocks.iter().enumerate().skip(looked_at) {
                let got = snapshot.get_with(index as u64, GetOptions::new().wait(false));
                match got {
                    _ if index >= shown.compatible => assert_eq!(kind(got), ErrorKind::SnapshotNotAvailable),
                    got => assert_eq!(got.unwrap().as_ref(), oracle.blocks[index].1.then_some(block)),
                }
            }
        }
    }

    fn verify(&self) {
        let audit = self.core.verify().unwrap();
        assert_eq!(audit.faults, []);
        assert_eq!(audit.blocks, self.oracle.blocks.iter().filter(|(_, held)| *held).count() as u64);
    }
}

impl Oracle {
    fn byte_length(&self) -> u64 {
        self.blocks.iter().map(|(block, _)| block.len() as u64).sum()
    }

    fn roots(&self) -> Roots {
        let mut roots = Roots::default();
        for (index, (block, _)) in self.blocks.iter().enumerate() {
            roots.push(Node::leaf(index as u64, block), |_| ()).unwrap();
        }
        roots
    }
}

fn open(setting: Setting, memory: &Memory, dir: &Path) -> Hypercore {
    let mut options = Hypercore::options().key_pair(pair(1)).durability(setting.durability).map_limit(256 << 10);
    if setting.encrypted {
        options = options.encryption_key([5; 32]);
    }
    match setting.disk {
        true => options.open(dir).unwrap(),
        false => options.open_in(memory.clone()).unwrap(),
    }
}

fn holds(setting: Setting, ops: Vec<Op>) -> bool {
    let mut world = World::new(setting);
    for op in &ops {
        world.step(op);
        world.compare();
        if setting.base == 0 {
            world.verify();
        }
    }
    world.verify();
    world.step(&Op::Kill);
    world.compare();
    world.verify();
    true
}

#[test]
fn log_after_random_operations_equals_list() {
    let _watchdog = watchdog();
    QuickCheck::new().rng(Gen::new(40)).tests(tries(150)).quickcheck(holds as fn(Setting, Vec<Op>) -> bool);
}
