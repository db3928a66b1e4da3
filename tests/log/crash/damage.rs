//! Damage after a power cut: only the damaged blocks are lost, whatever the durability, and only damage that a power
//! cut can cause shortens the log.

use std::ops::Range;

use hypercore::{Durability, ErrorKind, Fault, Hypercore};

use super::scenario::{Scenario, Seen, Shown, Step, describe, random_steps, shown};
use super::{opening, run_scenarios};
use crate::common::machine::tries;
use crate::common::powercut::{Cut, Image, Recorder, Replay, SECTOR};
use crate::common::{Random, pair, patient_watchdog};

/// Damage to an image.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    /// Zeros in less than a sector, which leave of each block in the sector some byte that is not zero.
    Zeros(Range<usize>),
    Sectors(Range<usize>),
    Cut(usize),
    Missing,
    /// A node of the tree is zeroed.
    NodeLost(usize),
    /// A node of the tree has a flipped bit.
    NodeFlipped(usize),
}

impl Damage {
    /// Whether a power cut may cause it in a log that did not wait for syncs.
    fn may_be_a_power_cut(&self) -> bool {
        matches!(self, Damage::Sectors(_) | Damage::Cut(_))
    }

    fn is_in_data(&self) -> bool {
        !matches!(self, Damage::NodeLost(_) | Damage::NodeFlipped(_))
    }

    fn apply(&self, image: &mut Image) {
        match self {
            Damage::Missing => drop(image.remove("data")),
            Damage::Cut(len) => image.get_mut("data").unwrap().truncate(*len),
            Damage::Flip(at, mask) => image.get_mut("data").unwrap()[*at] ^= mask,
            Damage::Zeros(range) | Damage::Sectors(range) => image.get_mut("data").unwrap()[range.clone()].fill(0),
            Damage::NodeLost(node) => image.get_mut("tree").unwrap()[node * 40..node * 40 + 40].fill(0),
            Damage::NodeFlipped(node) => image.get_mut("tree").unwrap()[node * 40 + 13] ^= 0x20,
        }
    }
}

/// The byte range of each block in `data`; None for a missing one.
fn places(found: &Shown, scenario: &Scenario) -> Vec<Option<Range<usize>>> {
    let until = scenario.moments.iter().rposition(|moment| moment.state.as_ref() == Some(found)).unwrap();
    // The size of a cleared block is known from an earlier state.
    let size = |index: usize| {
        let held = |seen: &Seen| Some(seen.as_ref()?.blocks.get(index)?.as_ref()?.len());
        scenario.moments[..=until].iter().rev().find_map(|moment| held(&moment.state)).unwrap()
    };
    let mut at = 0;
    let mut place = |index: usize| {
        let start = at;
        at += size(index);
        found.blocks[index].is_some().then_some(start..at)
    };
    (0..found.blocks.len()).map(&mut place).collect()
}

/// Random damage to the held blocks of `image`; None if it would change nothing.
fn random_damage(random: &mut Random, image: &Image, places: &[Option<Range<usize>>]) -> Option<Damage> {
    let data = image.get("data")?;
    let held: Vec<&Range<usize>> = places.iter().flatten().filter(|place| !place.is_empty()).collect();
    if held.is_empty() || data.is_empty() {
        return None;
    }
    let place = held[random.below(held.len() as u64) as usize];
    let at = place.start + random.below(place.len() as u64) as usize;
    let sector = at / SECTOR * SECTOR;
    let damage = match random.below(8) {
        0 | 1 => Damage::Flip(at, 1 << random.below(8)),
        2 | 3 => {
            let end = (sector + SECTOR).min(place.end);
            Damage::Zeros(at..at + 1 + random.below((end - at) as u64) as usize)
        }
        4 => {
            let end = sector + SECTOR * (1 + random.below(2) as usize);
            Damage::Sectors(sector..end.min(data.len()))
        }
        5 if random.below(2) == 0 => Damage::Missing,
        5 => Damage::Cut(at),
        _ => {
            let tree = image.get("tree")?;
            let nodes: Vec<usize> =
                (0..tree.len() / 40).filter(|n| tree[n * 40..n * 40 + 40].iter().any(|&byte| byte != 0)).collect();
            let node = *nodes.get(random.below(nodes.len() as u64) as usize)?;
            if random.below(2) == 0 { Damage::NodeLost(node) } else { Damage::NodeFlipped(node) }
        }
    };
    let mut damaged = image.clone();
    damage.apply(&mut damaged);
    if damaged == *image {
        return None;
    }
    if matches!(damage, Damage::Flip(..) | Damage::Zeros(_)) {
        // Some byte of each block in the sector must stay other than zero: a sector of zeros looks like a lost write.
        let left = |place: &&Range<usize>| {
            let part = place.start.max(sector)..place.end.min(sector + SECTOR);
            part.is_empty()
                || data[part.clone()] == damaged["data"][part.clone()]
                || damaged["data"][part].iter().any(|&b| b != 0)
        };
        if !held.iter().all(left) {
            return None;
        }
    }
    Some(damage)
}

/// Checks the core of a damaged image against `found`, the state of the sound one.
fn check_damaged(scenario: &Scenario, position: usize, image: &Image, found: &Shown, damage: &Damage, at: &str) {
    let mut damaged = image.clone();
    damage.apply(&mut damaged);
    let disk = Recorder::new(damaged);
    let open = || opening(Durability::Flush).create_if_missing(false).open_in(disk.clone());
    let core = match open() {
        Ok(core) => core,
        // A lost root cannot be rebuilt if blocks below it are missing; or if it is that of the last block, and
        // `data` has bytes after the log, so that the size of the block is unknown.
        Err(error) if !damage.is_in_data() && error.kind() == ErrorKind::Corrupt => {
            let is_of_tree = error.path().is_some_and(|path| path.ends_with("tree"));
            let has_holes = found.blocks.iter().any(Option::is_none);
            let end: usize = found.blocks.iter().flatten().map(|block| block.len()).sum();
            let is_followed = matches!(damage, Damage::NodeLost(_)) && image["data"].len() > end;
            assert!(is_of_tree && (has_holes || is_followed), "{at}: {error}");
            return;
        }
        Err(error) => panic!("{at}: {error}"),
    };
    let (length, fork) = (core.len(), core.fork());
    if (length, fork) != (found.length, found.fork) {
        assert!(damage.may_be_a_power_cut(), "{at}: length {length} of fork {fork}");
        let is_kept = |seen: &Seen| seen.as_ref().is_some_and(|seen| (seen.length, seen.fork) == (length, fork));
        let mut allowed = scenario.allowed(position, false).iter();
        assert!(allowed.any(|moment| is_kept(&moment.state)), "{at}: length {length} of fork {fork} is not safe");
        let lost = core.recovery().unwrap_or_else(|| panic!("{at}: no loss is reported"));
        assert_eq!((lost.from, lost.to), (found.length, length), "{at}");
        assert!(found.length > length && lost.missing.is_empty(), "{at}: {lost:?}");
    } else {
        assert_eq!(core.recovery(), None, "{at}");
    }
    // Each block is the right one or an error.
    let mut bad = Vec::new();
    for index in 0..length {
        let was = &found.blocks[index as usize];
        assert_eq!(core.has(index).unwrap(), was.is_some(), "{at}: block {index}");
        let Some(was) = was else { continue };
        match core.get(index) {
            Ok(block) => assert!(*block == **was, "{at}: block {index} has other data"),
            Err(error) => {
                let kinds = [ErrorKind::InvalidChecksum, ErrorKind::Corrupt];
                assert!(kinds.contains(&error.kind()), "{at}: block {index}: {error:?}");
                bad.push(index);
            }
        }
    }
    let audit = core.verify().unwrap();
    if damage.is_in_data() {
        let faults: Vec<Fault> = bad.iter().map(|&index| Fault::Block(index)).collect();
        assert_eq!(audit.faults, faults, "{at}");
    } else {
        assert!(audit.faults.iter().all(Fault::is_repairable), "{at}: {:?}", audit.faults);
    }
    assert_eq!(core.repair().unwrap().faults, audit.faults, "{at}");
    assert_eq!(core.verify().unwrap().faults, [], "{at}, repaired");
    for index in 0..length {
        let was = &found.blocks[index as usize];
        let is_held = core.has(index).unwrap();
        if damage.is_in_data() {
            assert_eq!(is_held, was.is_some() && !bad.contains(&index), "{at}, repaired: block {index}");
        }
        assert!(!is_held || core.get(index).unwrap()[..] == was.as_ref().unwrap()[..], "{at}, repaired: block {index}");
    }
    core.append("it goes on").unwrap();
    core.close().unwrap();
    let core = open().unwrap();
    assert_eq!((core.len(), core.fork()), (length + 1, fork), "{at}, grown");
    assert_eq!(core.get(length).unwrap(), b"it goes on", "{at}, grown");
    assert_eq!(core.verify().unwrap().faults, [], "{at}, grown");
}

/// Runs the scenario of this number, crashes it at every call, and damages each image in several ways. Returns the
/// number of damaged images.
fn scenario(number: u64) -> u64 {
    let mut random = Random::new(number + 90_000);
    let durability = [Durability::Flush, Durability::Always][number as usize % 2];
    // A scenario has one durability, so that the synced states are known.
    let stays =
        |step: &Step| !matches!(step, Step::Reopen(_) | Step::KillDuring(..) | Step::Overwrite | Step::UserData(..));
    let mut steps: Vec<Step> = random_steps(&mut random, 0, 8).into_iter().take_while(stays).collect();
    for step in &mut steps {
        if let Step::Kill(with) = step {
            *with = durability;
        }
    }
    let scenario = Scenario::run(Image::new(), None, durability, &steps);
    let mut replay = Replay::new(&scenario.base, &scenario.calls);
    let mut images = 0;
    loop {
        for killed in [true, false] {
            let cut = if killed { Cut::Killed { torn: None } } else { Cut::Seed(random.next()) };
            let (position, image) = (replay.position(), replay.image(cut));
            let Ok(core) = opening(durability).create_if_missing(false).open_in(Recorder::new(image.clone())) else {
                continue;
            };
            let found = shown(&core).unwrap();
            let (places, lost) = (places(&found, &scenario), core.recovery());
            drop(core);
            // Other tests check images from which the open gave up blocks.
            if lost.is_some() {
                continue;
            }
            for _ in 0..6 {
                let Some(damage) = random_damage(&mut random, &image, &places) else { continue };
                images += 1;
                let at = format!(
                    "damage {number} in {durability:?} {}, cut after {position} calls, {cut:?}, {damage:?}",
                    describe(&steps)
                );
                check_damaged(&scenario, position, &image, &found, &damage, &at);
                // With `Always` no block is ever given up.
                if durability == Durability::Always {
                    let mut damaged = image.clone();
                    damage.apply(&mut damaged);
                    let core = opening(durability).create_if_missing(false).open_in(Recorder::new(damaged));
                    assert!(core.is_err() || core.unwrap().len() == found.length, "{at}: an entry is gone");
                }
            }
        }
        if !replay.step() {
            return images;
        }
    }
}

#[test]
fn damage_after_power_cut_loses_only_damaged_blocks() {
    let _watchdog = patient_watchdog();
    run_scenarios(0, tries(20_000), scenario);
}

#[test]
fn flipped_bit_in_data_or_tree_keeps_length() {
    let _watchdog = patient_watchdog();
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        for flushes in [false, true] {
            let disk = Recorder::new(Image::new());
            let core = Hypercore::options().key_pair(pair(1)).durability(durability).open_in(disk.clone()).unwrap();
            core.append_batch([&[7; 700][..], &[1, 3], &[0; 30], &[0xff; 20]]).unwrap();
            if flushes {
                core.flush().unwrap();
                core.append_batch([&[9; 40][..], &[6; 600]]).unwrap();
            }
            let (image, length) = (disk.image(), core.len());
            for name in ["data", "tree"] {
                for at in 0..image.get(name).map_or(0, Vec::len) {
                    let mut image = image.clone();
                    image.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
                    let core =
                        opening(Durability::Flush).create_if_missing(false).open_in(Recorder::new(image)).unwrap();
                    assert_eq!((core.len(), core.recovery()), (length, None), "{durability:?}, byte {at} of {name}");
                }
            }
        }
    }
}
