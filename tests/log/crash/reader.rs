//! Power cuts of a reader that downloads a log over a fork.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use hypercore::net::{Role, pipe};
use hypercore::{Download, Durability, ErrorKind, Hypercore};

use super::check::digest;
use super::scenario::{Seen, shown, summary};
use super::{fetch, run_scenarios};
use crate::common::machine::{limit, tries};
use crate::common::powercut::{Call, Cut, Image, Recorder, Replay};
use crate::common::{Random, pair, patient_watchdog};

/// A writer, and the blocks of its log at each fork.
struct Source {
    core: Hypercore,
    forks: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Source {
    fn append(&mut self, random: &mut Random, count: usize) {
        let blocks: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                let size = 1 + random.below(900) as usize;
                random.bytes(size)
            })
            .collect();
        self.core.append_batch(&blocks).unwrap();
        self.forks.entry(self.core.fork()).or_default().extend(blocks);
    }

    fn truncate(&mut self, length: u64) {
        let mut blocks = self.forks[&self.core.fork()].clone();
        blocks.truncate(length as usize);
        self.forks.insert(self.core.truncate(length).unwrap(), blocks);
    }
}

/// Runs the scenario of this number: a reader downloads blocks of a log that is appended to and truncated. Returns
/// the number of disk images.
fn reader_scenario(number: u64, seeds: u64) -> u64 {
    let mut random = Random::new(number + 77);
    let mut source = Source {
        core: Hypercore::options().key_pair(pair(1)).open_in(hypercore::Memory::new()).unwrap(),
        forks: BTreeMap::new(),
    };
    source.append(&mut random, 9);
    let durability = if number % 2 == 0 { Durability::Flush } else { Durability::Always };
    let disk = Recorder::recording(Image::new());
    let open = |disk: Recorder| {
        let options = Hypercore::options().key(pair(1).public_key()).durability(durability);
        options.timeout(Duration::from_secs(20)).create_if_missing(disk.position() == 0).open_in(disk)
    };
    let reader = open(disk.clone()).unwrap();
    let mut promised = vec![disk.position()];
    let (here, there) = pipe();
    let ours = reader.replicate(here, Role::Initiator).unwrap();
    let _theirs = source.core.replicate(there, Role::Responder).unwrap();
    for _ in 0..7 {
        let length = source.core.len();
        match random.below(7) {
            0 => {
                source.append(&mut random, 3);
                fetch(&reader, length + 1);
            }
            1 if length > 2 => {
                source.truncate(length / 2);
                source.append(&mut random, 4);
                // The reader follows the fork once a block of it has arrived.
                fetch(&reader, length / 2 + 3);
            }
            2 => {
                let came = reader.download(Download::range(0..length.min(6))).unwrap().wait_timeout(limit(60));
                // A change of fork may end the download early, but it must end.
                let does_not_end = came.is_err_and(|error| error.kind() == ErrorKind::Timeout);
                assert!(!does_not_end, "reader {number}: a download does not end");
            }
            3 if reader.len() > 2 => _ = reader.clear(0..2).unwrap(),
            4 => {
                reader.flush().unwrap();
                promised.push(disk.position());
            }
            _ => {
                fetch(&reader, random.below(length));
            }
        }
        if durability == Durability::Always {
            promised.push(disk.position());
        }
    }
    ours.close();
    reader.close().unwrap();
    let calls = disk.calls();

    // The states of the reader are those that a kill after each call leaves.
    let read_only = |image: Image| open_reader(image).map(|core| shown(&core).unwrap());
    let base = Image::new();
    let mut replay = Replay::new(&base, &calls);
    let mut states: Vec<Vec<Seen>> = Vec::new();
    loop {
        // Proofs that arrive together are written by one call, but each is an entry of its own.
        let ends = calls[..replay.position()].last().map_or(Vec::new(), ends_of_entries);
        let mut here: Vec<Seen> =
            ends.iter().map(|&end| read_only(replay.image(Cut::Killed { torn: Some(end) }))).collect();
        here.push(read_only(replay.image(Cut::Killed { torn: None })));
        for shown in here.iter().flatten() {
            let blocks = source.forks.get(&shown.fork).cloned().unwrap_or_default();
            assert!(shown.length as usize <= blocks.len(), "reader {number}: the log never had this length");
            let all = shown
                .blocks
                .iter()
                .zip(&blocks)
                .all(|(held, block)| held.as_ref().is_none_or(|held| **held == **block));
            assert!(all, "reader {number}: a block of another fork");
        }
        states.push(here);
        if !replay.step() {
            break;
        }
    }
    let mut images = 0;
    let mut seen = HashSet::new();
    let mut replay = Replay::new(&base, &calls);
    loop {
        let position = replay.position();
        let first = promised.iter().rev().find(|&&promised| promised <= position).copied().unwrap_or(0);
        let cuts = (0..replay.pending())
            .map(Cut::Prefix)
            .chain((0..seeds).map(|_| Cut::Seed(random.next())))
            .collect::<Vec<_>>();
        for cut in cuts {
            let image = replay.image(cut);
            if !seen.insert(digest(&image, &[first as u64])) {
                continue;
            }
            images += 1;
            let at = || format!("reader {number} in {durability:?}, cut after {position} calls, {cut:?}");
            let Some(core) = open_reader(image) else {
                assert!(states[first..=position].concat().contains(&None), "{}: the core is gone", at());
                continue;
            };
            let found = Some(shown(&core).unwrap_or_else(|e| panic!("{}: {e}", at())));
            assert!(states[first..=position].concat().contains(&found), "{}: found {}", at(), summary(&found));
            let audit = core.verify().unwrap();
            assert!(audit.faults.is_empty(), "{}: {:?}", at(), audit.faults);
            let held = &found.as_ref().unwrap().blocks;
            let missing = (0..source.core.len()).find(|&index| held.get(index as usize).is_none_or(Option::is_none));
            if let (0, Some(missing)) = (images % 64, missing) {
                // A lost block can be downloaded again.
                let (here, there) = pipe();
                let ours = core.replicate(here, Role::Initiator).unwrap();
                let _theirs = source.core.replicate(there, Role::Responder).unwrap();
                let block = fetch(&core, missing);
                ours.close();
                assert_eq!(block, source.forks[&source.core.fork()][missing as usize], "{}", at());
            }
        }
        if !replay.step() {
            return images;
        }
    }
}

/// The ends of the oplog entries that a call writes.
fn ends_of_entries(call: &Call) -> Vec<usize> {
    let mut ends = Vec::new();
    if let Call::Write { name, offset: 8192.., bytes } = call {
        let mut at = 0;
        while name == "oplog" && at < bytes.len() {
            let word = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
            at += 8 + (word >> 2) as usize;
            ends.push(at);
        }
    }
    ends
}

fn open_reader(image: Image) -> Option<Hypercore> {
    let options = Hypercore::options().create_if_missing(false).timeout(Duration::from_secs(20));
    match options.open_in(Recorder::new(image)) {
        Ok(core) => Some(core),
        Err(e) if e.kind() == ErrorKind::StorageEmpty => None,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn power_cut_of_reader_leaves_one_of_its_earlier_states() {
    let _watchdog = patient_watchdog();
    run_scenarios(0, tries(20_000), |number| reader_scenario(number, 10));
}
