//! A process that changes a core is killed at any moment: the core opens with all acknowledged changes and
//! at most one more.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use hypercore::net::{Role, pipe};
use hypercore::{Durability, Hypercore, Memory, OpenOptions};

use crate::common::machine::{program, tries};
use crate::common::{Random, pair, watchdog};

/// The variable with the orders of a child: `<write|clone> <seed> <durability> <directory>`.
const ORDERS: &str = "HYPERCORE_TEST_CHILD";
/// The length of the log that a child downloads.
const CLONED: u64 = 400;

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Model {
    fork: u64,
    blocks: Vec<Option<Vec<u8>>>,
    user_data: Option<Vec<u8>>,
}

enum Change {
    Append(Vec<Vec<u8>>),
    Truncate(u64),
    Clear(u64),
    UserData(Vec<u8>),
}

/// The changes of a seed. The child makes them; the parent computes the expected state from the same seed.
struct Changes {
    random: Random,
    model: Model,
}

impl Changes {
    fn of(seed: u64) -> Self {
        Changes { random: Random::new(seed), model: Model::default() }
    }

    fn next(&mut self) -> Change {
        let length = self.model.blocks.len() as u64;
        let random = &mut self.random;
        let change = match random.below(20) {
            0 | 1 => Change::Truncate(random.below(length + 1)),
            2 if length > 0 => Change::Clear(random.below(length)),
            3 => {
                let size = 1 + random.below(6000) as usize;
                Change::UserData(random.bytes(size))
            }
            _ => {
                let count = 1 + random.below(3);
                let blocks = (0..count).map(|_| {
                    let size = random.below(3000) as usize;
                    random.bytes(size)
                });
                Change::Append(blocks.collect())
            }
        };
        match &change {
            Change::Append(blocks) => self.model.blocks.extend(blocks.iter().cloned().map(Some)),
            Change::Truncate(length) => {
                self.model.blocks.truncate(*length as usize);
                self.model.fork += 1;
            }
            Change::Clear(index) => self.model.blocks[*index as usize] = None,
            Change::UserData(value) => self.model.user_data = Some(value.clone()),
        }
        change
    }
}

fn opening(durability: &str) -> OpenOptions {
    let durability = match durability {
        "none" => Durability::None,
        "flush" => Durability::Flush,
        _ => Durability::Always,
    };
    Hypercore::options().durability(durability)
}

#[test]
#[ignore = "run by the tests of this module in a process of its own"]
fn helper_process() {
    let orders = env::var(ORDERS).expect("only the tests of this file run this");
    let mut words = orders.splitn(4, ' ');
    let mut word = || words.next().unwrap();
    let (what, seed, options, dir) = (word(), word().parse().unwrap(), opening(word()), word());
    let acknowledge = |what: u64| writeln!(std::io::stdout(), "did {what}").unwrap();
    if what == "clone" {
        let source = source();
        let core = options.key(source.key()).open(dir).unwrap();
        let (here, there) = pipe();
        let _ours = core.replicate(here, Role::Initiator).unwrap();
        let _theirs = source.replicate(there, Role::Responder).unwrap();
        let mut random = Random::new(seed);
        loop {
            let index = random.below(CLONED);
            core.get(index).unwrap();
            acknowledge(index);
        }
    }
    let core = options.key_pair(pair(1)).open(dir).unwrap();
    let mut changes = Changes::of(seed);
    for number in 1.. {
        match changes.next() {
            Change::Append(blocks) => core.append_batch(blocks).map(|_| ()).unwrap(),
            Change::Truncate(length) => core.truncate(length).map(|_| ()).unwrap(),
            Change::Clear(index) => _ = core.clear(index..index + 1).unwrap(),
            Change::UserData(value) => core.set_user_data("a", value).unwrap(),
        }
        acknowledge(number);
    }
}

/// The log that children download.
fn source() -> Hypercore {
    let core = Hypercore::options().key_pair(pair(1)).open_in(Memory::new()).unwrap();
    let mut random = Random::new(11);
    core.append_batch((0..CLONED).map(|i| random.bytes(i as usize * 7 % 1500))).unwrap();
    core
}

/// Kills a child some time after its `after`th acknowledgement, and returns all that it acknowledged.
fn kill(what: &str, seed: u64, durability: &str, dir: &Path, after: u64, delay: u64) -> Vec<u64> {
    let mut command = program(env::current_exe().unwrap());
    command.args(["process_kill::helper_process", "--exact", "--ignored", "--nocapture"]);
    command.env(ORDERS, format!("{what} {seed} {durability} {}", dir.display()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut child = Reaped(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut did = Vec::new();
    while (did.len() as u64) < after {
        let line = lines.next().expect("the child ended before it was killed").unwrap();
        did.extend(line.strip_prefix("did ").map(|n| n.parse::<u64>().unwrap()));
    }
    (0..delay).for_each(|_| std::hint::spin_loop());
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    for line in lines {
        did.extend(line.unwrap().strip_prefix("did ").and_then(|n| n.parse::<u64>().ok()));
    }
    did
}

/// A child that is killed if the test fails.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn writer_is_killed(number: u64) {
    let mut random = Random::new(number + 500);
    let durability = ["none", "flush", "always"][number as usize % 3];
    let dir = tempfile::tempdir().unwrap();
    let (after, delay) = (random.below(120), random.below(200_000));
    let did = kill("write", number, durability, dir.path(), after, delay);
    let mut changes = Changes::of(number);
    for _ in 0..did.len() {
        changes.next();
    }
    let before = changes.model.clone();
    changes.next();
    let allowed = [before, changes.model];
    let at = format!("child {number}, {durability}, killed after {} changes", did.len());
    let core = match opening(durability).create_if_missing(!did.is_empty()).open(dir.path()) {
        Ok(core) => core,
        Err(e) if did.is_empty() && e.kind() == hypercore::ErrorKind::StorageEmpty => return,
        Err(e) => panic!("{at}: {e}"),
    };
    let block = |index| core.has(index).unwrap().then(|| core.get(index).unwrap());
    let found =
        Model { fork: core.fork(), blocks: (0..core.len()).map(block).collect(), user_data: core.user_data("a") };
    assert!(allowed.contains(&found), "{at}: length {} fork {}", found.blocks.len(), found.fork);
    assert_eq!(core.verify().unwrap().faults, [], "{at}");
    core.append("more").unwrap();
    core.close().unwrap();
}

fn cloner_is_killed(number: u64) {
    let mut random = Random::new(number + 900);
    let durability = ["none", "flush", "always"][number as usize % 3];
    let dir = tempfile::tempdir().unwrap();
    let (after, delay) = (1 + random.below(150), random.below(200_000));
    let did: BTreeSet<u64> = kill("clone", number, durability, dir.path(), after, delay).into_iter().collect();
    let at = format!("cloner {number}, {durability}, killed after {} blocks", did.len());
    let source = source();
    let core = opening(durability).timeout(Duration::from_secs(60)).create_if_missing(false).open(dir.path()).unwrap();
    for index in 0..core.len() {
        let held = core.has(index).unwrap();
        assert!(held || !did.contains(&index), "{at}: block {index} is gone");
        if held {
            assert_eq!(core.get(index).unwrap(), source.get(index).unwrap(), "{at}");
        }
    }
    assert!(did.last().is_none_or(|&last| last < core.len()), "{at}: length {}", core.len());
    assert_eq!(core.verify().unwrap().faults, [], "{at}");
    let (here, there) = pipe();
    let _ours = core.replicate(here, Role::Initiator).unwrap();
    let _theirs = source.replicate(there, Role::Responder).unwrap();
    let index = number % CLONED;
    assert_eq!(core.get(index).unwrap(), source.get(index).unwrap(), "{at}");
}

#[test]
fn killed_writer_loses_no_acknowledged_change() {
    let _watchdog = watchdog();
    (0..tries(45)).for_each(writer_is_killed);
}

#[test]
fn killed_reader_keeps_acknowledged_blocks() {
    let _watchdog = watchdog();
    (0..tries(15)).for_each(cloner_is_killed);
}

#[test]
#[ignore = "a soak: a thousand processes"]
fn many_kills_lose_no_acknowledged_change() {
    (1000..1800).for_each(writer_is_killed);
    (1000..1200).for_each(cloner_is_killed);
}
