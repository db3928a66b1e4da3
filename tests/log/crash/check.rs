//! Crashes a scenario at every call to the disk, and checks the disk image that each crash leaves.

use std::collections::HashSet;
use std::sync::Arc;

use hypercore::lowlevel::oplog::Oplog;
use hypercore::{Access, Durability, ErrorKind, Recovery, Storage};

use super::opening;
use super::scenario::{Moment, Scenario, Shown, Step, random_steps, shown, summary};
use crate::common::Random;
use crate::common::powercut::{Call, Cut, Image, Recorder, Replay};

/// Checks disk images, counts them, and skips images that it checked before.
pub struct Checker {
    pub images: u64,
    seen: HashSet<u64>,
    random: Random,
    /// How many random images are made at each call.
    seeds: u64,
    /// Whether to run more steps on some images, and to crash these, too.
    deeper: bool,
    /// The first call at which to crash.
    pub from: usize,
}

impl Checker {
    pub fn new(seed: u64, seeds: u64, deeper: bool) -> Self {
        Checker { images: 0, seen: HashSet::new(), random: Random::new(seed), seeds, deeper, from: 0 }
    }

    /// Crashes `scenario` at every call.
    pub fn check(&mut self, name: &str, scenario: &Scenario) {
        let mut replay = Replay::new(&scenario.base, &scenario.calls);
        loop {
            if replay.position() < self.from {
                replay.step();
                continue;
            }
            let most = [200, 300_000][self.random.below(2) as usize];
            let torn = self.random.below(most) as usize;
            for torn in [None, Some(torn)] {
                self.image(name, scenario, &replay, Cut::Killed { torn });
            }
            if !scenario.may_leave_any_state(replay.position()) {
                for n in 0..replay.pending() {
                    self.image(name, scenario, &replay, Cut::Prefix(n));
                }
                let seeds = if replay.pending() > 0 { self.seeds } else { 0 };
                for _ in 0..seeds {
                    let seed = self.random.next();
                    self.image(name, scenario, &replay, Cut::Seed(seed));
                }
            }
            if !replay.step() {
                return;
            }
        }
    }

    fn image(&mut self, name: &str, scenario: &Scenario, replay: &Replay<'_>, cut: Cut) {
        let position = replay.position();
        let image = replay.image(cut);
        let killed = matches!(cut, Cut::Killed { .. });
        // A torn call did not return.
        let torn = matches!(cut, Cut::Killed { torn: Some(_) });
        let before = if torn { scenario.allowed(position.saturating_sub(1), true) } else { &[] };
        let allowed: Vec<&Moment> = before.iter().chain(scenario.allowed(position, killed)).collect();
        let mut numbers: Vec<u64> = allowed.iter().map(|moment| moment.number as u64).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if !self.seen.insert(digest(&image, &numbers)) {
            return;
        }
        self.images += 1;
        let at =
            || format!("{name}, cut after {position} calls, the last of them {}, {cut:?}", last(scenario, position));
        let disk = Recorder::new(image.clone());
        let durability = [Durability::Flush, Durability::Always, Durability::None][self.random.below(3) as usize];
        let core = match opening(durability).create_if_missing(false).open_in(disk.clone()) {
            Ok(core) => core,
            Err(e) if e.kind() == ErrorKind::StorageEmpty => {
                assert!(allowed.iter().any(|moment| moment.state.is_none()), "{}: the core is gone", at());
                return;
            }
            Err(e) => panic!("{}: {e}", at()),
        };
        let found = Some(shown(&core).unwrap_or_else(|e| panic!("{}: {e}", at())));
        assert!(
            allowed.iter().any(|moment| moment.state == found),
            "{}: found {}, which is none of {:?}",
            at(),
            summary(&found),
            allowed.iter().map(|moment| summary(&moment.state)).collect::<Vec<_>>()
        );
        let audit = core.verify().unwrap();
        assert!(audit.faults.is_empty(), "{}: {:?}", at(), audit.faults);
        let before = found.clone().unwrap_or_default();
        let lost = core.recovery();
        if self.deeper {
            reports_exactly_what_it_gave_up(&image, &before, lost.as_ref(), killed, &at());
        }
        if self.images % 16 == 1 {
            reads_write_nothing(&image, durability, &at());
        }
        let more = Step::Append(vec![b"more"[..].into()]);
        if self.images % 3 > 0 {
            return;
        }
        core.append("more").unwrap();
        let after = before.after(&more);
        let still_lost = |length: u64| lost.clone().filter(|lost| length < lost.from);
        assert_eq!(core.recovery(), still_lost(after.length), "{}", at());
        assert_eq!(core.get(before.length).unwrap(), b"more", "{}", at());
        if self.images % 12 == 0 {
            // After a kill, and after a close.
            let left = disk.image();
            core.close().unwrap();
            for image in [left, disk.image()] {
                let core = opening(Durability::Flush).create_if_missing(false).open_in(Recorder::new(image)).unwrap();
                assert_eq!(shown(&core).unwrap(), after, "{}, and opened again", at());
                assert!(core.verify().unwrap().faults.is_empty(), "{}", at());
                assert_eq!(core.recovery(), still_lost(after.length), "{}, and opened again", at());
                if let Some(lost) = still_lost(after.length) {
                    core.append_batch(vec!["and more"; (lost.from - after.length) as usize]).unwrap();
                    assert_eq!(core.recovery(), None, "{}: it has grown past the loss", at());
                }
            }
        }
        if self.deeper && self.random.below(50) == 0 {
            let steps = random_steps(&mut self.random, before.length, 5);
            let durability = [Durability::Flush, Durability::Always][self.random.below(2) as usize];
            let scenario = Scenario::run(image, found, durability, &steps);
            let mut checker = Checker::new(self.random.next(), 2, false);
            checker.check(&format!("{}, and again in {durability:?} {steps:?}", at()), &scenario);
            self.images += checker.images;
        }
    }
}

/// A hash of the files and numbers.
pub fn digest(image: &Image, numbers: &[u64]) -> u64 {
    let mut sum = 0x9e37_79b9_7f4a_7c15_u64;
    let mut add = |word: u64| sum = (sum.rotate_left(29) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut add_bytes = |bytes: &[u8]| {
        add(bytes.len() as u64);
        let words = bytes.chunks_exact(8);
        words.remainder().iter().for_each(|&byte| add(byte.into()));
        words.for_each(|word| add(u64::from_le_bytes(word.try_into().unwrap())));
    };
    for (name, bytes) in image {
        add_bytes(name.as_bytes());
        add_bytes(bytes);
    }
    numbers.iter().for_each(|number| add_bytes(&number.to_le_bytes()));
    sum ^ sum >> 32
}

/// The length of the log by its oplog, whether or not its blocks are there.
pub fn claimed_length(image: &Image) -> u64 {
    let storage: Arc<dyn Storage> = Arc::new(Recorder::new(image.clone()));
    let file = storage.open("oplog", Access::Read).unwrap().unwrap();
    let (_, recovered) = Oplog::open(&storage, file).unwrap();
    let recovered = recovered.unwrap();
    let moved = recovered.entries.iter().rev().find_map(|entry| entry.upgrade.as_ref());
    let whole = moved.map_or(recovered.header.tree.length, |to| to.length);
    // Entries after a lost one are dropped, but count.
    recovered.lost_length.map_or(whole, |lost| lost.max(whole))
}

/// Checks that the open of a core reported exactly the blocks that it gave up.
fn reports_exactly_what_it_gave_up(image: &Image, found: &Shown, lost: Option<&Recovery>, killed: bool, at: &str) {
    let claimed = claimed_length(image);
    assert!(!killed || claimed == found.length, "{at}: given up without a power cut");
    match lost {
        None => assert_eq!(claimed, found.length, "{at}: blocks are lost without a report"),
        Some(lost) => {
            assert!(claimed > found.length, "{at}: nothing is lost, yet it says {lost}");
            assert_eq!((lost.from, lost.to), (claimed, found.length), "{at}");
            assert!(lost.missing.is_empty() && lost.blocks > 0, "{at}: {lost:?}");
        }
    }
}

/// Checks that open, reads and close write nothing.
fn reads_write_nothing(image: &Image, durability: Durability, at: &str) {
    let disk = Recorder::recording(image.clone());
    let core = opening(durability).create_if_missing(false).open_in(disk.clone()).unwrap();
    shown(&core).unwrap();
    core.close().unwrap();
    assert!(disk.calls().is_empty(), "{at}: reads made the calls {:?}", disk.calls());
    assert!(disk.image() == *image, "{at}: reads changed the files");
}

fn last(scenario: &Scenario, position: usize) -> String {
    match position.checked_sub(1).map(|at| &scenario.calls[at]) {
        None => "none".into(),
        Some(Call::Write { name, offset, bytes }) => format!("a write of {} bytes at {offset} of {name}", bytes.len()),
        Some(call) => format!("{call:?}"),
    }
}
