//! The power goes, or the process is killed, at every call to the disk: what is found is the state before or after an operation, never a
//! third, and not an older one than was promised; it verifies, and the log goes on from there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{mem, thread};

use hypercore::lowlevel::oplog::Oplog;
use hypercore::net::{Role, pipe};
use hypercore::{Access, Download, Durability, ErrorKind, Hypercore, OpenOptions, Recovery, Repair, Result, Storage};

use crate::common::machine::{limit, tries};
use crate::common::powercut::{Call, Cut, Image, Recorder, Replay, SECTOR};
use crate::common::{Random, pair, patient_watchdog};

/// A block, which many states share.
pub type Block = Arc<[u8]>;

/// What a core shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    pub length: u64,
    pub fork: u64,
    pub blocks: Vec<Option<Block>>,
    pub user_data: BTreeMap<String, Vec<u8>>,
}

/// None: there is no core.
pub type Seen = Option<Shown>;

/// After an operation.
#[derive(Clone, Debug)]
pub struct Moment {
    /// How many calls there were when it returned.
    pub position: usize,
    pub state: Seen,
    /// States that are the same have the same number.
    number: usize,
    /// Whether it promised to survive a power cut.
    pub kept: bool,
    /// Whether nothing is promised but to survive the end of the process.
    lawless: bool,
}

/// What was done to a core, and what the disk saw of it.
pub struct Story {
    pub base: Image,
    pub calls: Vec<Call>,
    pub moments: Vec<Moment>,
    /// How many calls there were when a process last died within a step, and whether it died before the end of it.
    pub died: Option<(usize, bool)>,
}

#[derive(Clone, Debug)]
pub enum Step {
    Append(Vec<Block>),
    Truncate(u64),
    Clear(u64, u64),
    UserData(&'static str, Vec<u8>),
    Flush,
    /// The files are closed until they are used.
    Release,
    /// Close, and open with this durability.
    Reopen(Durability),
    /// The process is killed, and another opens the core.
    Kill(Durability),
    /// Begin a new log over the old.
    Overwrite,
    /// The process is killed after so many calls of this step, and another opens the core.
    Die(Box<Step>, usize, Durability),
}

const NAMES: [&str; 2] = ["a", "b"];

pub fn shown(core: &Hypercore) -> Result<Shown> {
    let block = |index| if core.has(index)? { core.get(index).map(|block| Some(block.into())) } else { Ok(None) };
    let value = |name: &str| Some((name.to_owned(), core.user_data(name)?));
    Ok(Shown {
        length: core.len(),
        fork: core.fork(),
        blocks: (0..core.len()).map(block).collect::<Result<_>>()?,
        user_data: NAMES.iter().filter_map(|name| value(name)).collect(),
    })
}

impl Shown {
    fn after(&self, step: &Step) -> Shown {
        let mut next = self.clone();
        match step {
            Step::Append(blocks) => next.blocks.extend(blocks.iter().cloned().map(Some)),
            Step::Truncate(length) => {
                next.blocks.truncate(*length as usize);
                next.fork += 1;
            }
            Step::Clear(from, to) => next.blocks[*from as usize..*to as usize].fill(None),
            Step::UserData(name, value) if value.is_empty() => {
                next.user_data.remove(*name);
            }
            Step::UserData(name, value) => {
                next.user_data.insert((*name).to_owned(), value.clone());
            }
            Step::Flush | Step::Release | Step::Reopen(_) | Step::Kill(_) => {}
            Step::Die(step, ..) => return self.after(step),
            Step::Overwrite => next = Shown::default(),
        }
        next.length = next.blocks.len() as u64;
        next
    }
}

/// How the writer's core is opened.
pub fn opening(durability: Durability) -> OpenOptions {
    Hypercore::options().durability(durability).key_pair(pair(1))
}

impl Story {
    /// Carries out `steps` on what `base` holds.
    pub fn tell(base: Image, start: Seen, mut durability: Durability, steps: &[Step]) -> Story {
        let disk = Recorder::recording(base.clone());
        let mut lawless = durability == Durability::None;
        let mut moments: Vec<Moment> = Vec::new();
        let mut core = opening(durability).open_in(disk.clone()).unwrap();
        let mut state = start.clone().unwrap_or_default();
        let mut note = |position: usize, state: Seen, kept: bool, lawless: bool| {
            let number = moments.iter().find(|m| m.state == state).map_or(moments.len(), |moment| moment.number);
            moments.push(Moment { position, state, number, kept: kept && !lawless, lawless });
        };
        note(0, start.clone(), true, false);
        let mut died = None;
        let mut note_now = |state: &Shown, kept: bool, lawless: bool| {
            note(disk.position(), Some(state.clone()), kept, lawless);
        };
        note_now(&state, start.is_none(), lawless);
        for step in steps {
            let mut next = state.after(step);
            let always = durability == Durability::Always;
            let kept = match step {
                Step::Append(blocks) => {
                    core.append_batch(blocks).unwrap();
                    always && !blocks.is_empty()
                }
                Step::Truncate(length) => {
                    core.truncate(*length).unwrap();
                    true
                }
                Step::Clear(from, to) => {
                    core.clear(*from..*to).unwrap();
                    next != state
                }
                Step::UserData(name, value) => {
                    core.set_user_data(name, value).unwrap();
                    always && next != state
                }
                Step::Flush => {
                    core.flush().unwrap();
                    true
                }
                Step::Release => {
                    core.release_files().unwrap();
                    false
                }
                Step::Reopen(with) => {
                    core.close().unwrap();
                    durability = *with;
                    core = opening(durability).open_in(disk.clone()).unwrap();
                    false
                }
                Step::Kill(with) => {
                    mem::forget(core);
                    disk.unlock();
                    durability = *with;
                    core = opening(durability).open_in(disk.clone()).unwrap();
                    false
                }
                Step::Overwrite => {
                    core.close().unwrap();
                    core = opening(durability).overwrite(true).open_in(disk.clone()).unwrap();
                    true
                }
                Step::Die(step, calls, with) => {
                    disk.die_after(Some(*calls));
                    // Whether it says that it failed is of no matter to a process that is no more.
                    let _ = match &**step {
                        Step::Append(blocks) => core.append_batch(blocks).map(|_| ()),
                        Step::Truncate(length) => core.truncate(*length).map(|_| ()),
                        Step::Clear(from, to) => core.clear(*from..*to),
                        Step::UserData(name, value) => core.set_user_data(name, value),
                        Step::Flush => core.flush(),
                        Step::Overwrite => {
                            mem::forget(core.clone());
                            disk.unlock();
                            opening(durability).overwrite(true).open_in(disk.clone()).map(mem::forget)
                        }
                        _ => core.close(),
                    };
                    mem::forget(core);
                    died = Some((disk.position(), disk.is_dead()));
                    disk.die_after(None);
                    disk.unlock();
                    durability = *with;
                    core = opening(durability).open_in(disk.clone()).unwrap();
                    let found = shown(&core).unwrap();
                    assert!(
                        found == state || found == next,
                        "{step:?}, killed after {calls} calls: {}",
                        brief(&Some(found))
                    );
                    next = found;
                    false
                }
            };
            // What was done without any promise is under one from the next flush on, or the next change that is waited for.
            let flushes = matches!(step, Step::Truncate(_) | Step::Flush | Step::Overwrite);
            lawless = durability == Durability::None || (lawless && !(kept && (always || flushes)));
            state = next;
            note_now(&state, kept, lawless);
        }
        core.close().unwrap();
        note_now(&state, false, lawless);
        Story { base, calls: disk.calls(), moments, died }
    }

    /// The states that may be found when the power goes after so many calls.
    pub fn allowed(&self, position: usize, killed: bool) -> &[Moment] {
        let last = self.moments.iter().rposition(|moment| moment.position <= position).unwrap_or(0);
        let first = if killed { last } else { self.moments[..=last].iter().rposition(|m| m.kept).unwrap_or(0) };
        &self.moments[first..(last + 2).min(self.moments.len())]
    }

    /// Whether a power cut after so many calls could find anything at all: since the last promise something was done without one.
    pub fn is_lawless(&self, position: usize) -> bool {
        let until = self.moments.iter().position(|m| m.position > position).map_or(self.moments.len(), |next| next + 1);
        let first = self.moments[..until].iter().rposition(|m| m.kept && m.position <= position).unwrap_or(0);
        self.moments[first..until].iter().any(|moment| moment.lawless)
    }
}

/// Counts images, and leaves out those that were seen before.
struct Judge {
    images: u64,
    seen: HashSet<u64>,
    random: Random,
    /// How many seeded images are made at each call.
    seeds: u64,
    /// Whether what goes on from an image is cut as well.
    deeper: bool,
    /// The first call that it is cut at.
    from: usize,
}

impl Judge {
    fn new(seed: u64, seeds: u64, deeper: bool) -> Self {
        Judge { images: 0, seen: HashSet::new(), random: Random::new(seed), seeds, deeper, from: 0 }
    }

    /// Cuts `story` at every call.
    fn judge(&mut self, name: &str, story: &Story) {
        let mut replay = Replay::new(&story.base, &story.calls);
        loop {
            if replay.position() < self.from {
                replay.step();
                continue;
            }
            let most = [200, 300_000][self.random.below(2) as usize];
            let torn = self.random.below(most) as usize;
            for torn in [None, Some(torn)] {
                self.image(name, story, &replay, Cut::Killed { torn });
            }
            if !story.is_lawless(replay.position()) {
                for n in 0..replay.pending() {
                    self.image(name, story, &replay, Cut::Prefix(n));
                }
                let seeds = if replay.pending() > 0 { self.seeds } else { 0 };
                for _ in 0..seeds {
                    let seed = self.random.next();
                    self.image(name, story, &replay, Cut::Seed(seed));
                }
            }
            if !replay.step() {
                return;
            }
        }
    }

    fn image(&mut self, name: &str, story: &Story, replay: &Replay<'_>, cut: Cut) {
        let position = replay.position();
        let image = replay.image(cut);
        let killed = matches!(cut, Cut::Killed { .. });
        // A torn call is one that did not return.
        let torn = matches!(cut, Cut::Killed { torn: Some(_) });
        let before = if torn { story.allowed(position.saturating_sub(1), true) } else { &[] };
        let allowed: Vec<&Moment> = before.iter().chain(story.allowed(position, killed)).collect();
        let mut numbers: Vec<u64> = allowed.iter().map(|moment| moment.number as u64).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if !self.seen.insert(digest(&image, &numbers)) {
            return;
        }
        self.images += 1;
        let at = || format!("{name}, cut after {position} calls, the last of them {}, {cut:?}", last(story, position));
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
            brief(&found),
            allowed.iter().map(|moment| brief(&moment.state)).collect::<Vec<_>>()
        );
        let audit = core.verify(Repair::No).unwrap();
        assert!(audit.faults.is_empty(), "{}: {:?}", at(), audit.faults);
        let before = found.clone().unwrap_or_default();
        let lost = core.recovery();
        if self.deeper {
            reports_what_it_gave_up(&image, &before, lost.as_ref(), killed, &at());
        }
        if self.images % 16 == 1 {
            looking_writes_nothing(&image, durability, &at());
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
            // Killed at once, or closed.
            let left = disk.image();
            core.close().unwrap();
            for image in [left, disk.image()] {
                let core = opening(Durability::Flush).create_if_missing(false).open_in(Recorder::new(image)).unwrap();
                assert_eq!(shown(&core).unwrap(), after, "{}, and opened again", at());
                assert!(core.verify(Repair::No).unwrap().faults.is_empty(), "{}", at());
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
            let story = Story::tell(image, found, durability, &steps);
            let mut judge = Judge::new(self.random.next(), 2, false);
            judge.judge(&format!("{}, and again in {durability:?} {steps:?}", at()), &story);
            self.images += judge.images;
        }
    }
}

/// What is the same for the same files and numbers, and nearly always for no others.
fn digest(image: &Image, numbers: &[u64]) -> u64 {
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

/// How long the log is that the oplog speaks of, whether or not its blocks are there.
pub fn claimed_length(image: &Image) -> u64 {
    let storage: Arc<dyn Storage> = Arc::new(Recorder::new(image.clone()));
    let file = storage.open("oplog", Access::Read).unwrap().unwrap();
    let (_, recovered) = Oplog::open(&storage, file).unwrap();
    let recovered = recovered.unwrap();
    let moved = recovered.entries.iter().rev().find_map(|entry| entry.upgrade.as_ref());
    let whole = moved.map_or(recovered.header.tree.length, |to| to.length);
    // An entry may be lost that others follow on.
    recovered.lost_length.map_or(whole, |lost| lost.max(whole))
}

/// What opening a core of a first story gave up is said, and nothing else.
fn reports_what_it_gave_up(image: &Image, found: &Shown, lost: Option<&Recovery>, killed: bool, at: &str) {
    let claimed = claimed_length(image);
    assert!(!killed || claimed == found.length, "{at}: given up without a power cut");
    match lost {
        None => assert_eq!(claimed, found.length, "{at}: blocks are gone in silence"),
        Some(lost) => {
            assert!(claimed > found.length, "{at}: nothing is lost, yet it says {lost}");
            assert_eq!((lost.from, lost.to), (claimed, found.length), "{at}");
            assert!(lost.missing.is_empty() && lost.blocks > 0, "{at}: {lost:?}");
        }
    }
}

/// Opening, looking and closing leaves every file as it was.
fn looking_writes_nothing(image: &Image, durability: Durability, at: &str) {
    let disk = Recorder::recording(image.clone());
    let core = opening(durability).create_if_missing(false).open_in(disk.clone()).unwrap();
    shown(&core).unwrap();
    core.close().unwrap();
    assert!(disk.calls().is_empty(), "{at}: looking made the calls {:?}", disk.calls());
    assert!(disk.image() == *image, "{at}: looking changed the files");
}

fn last(story: &Story, position: usize) -> String {
    match position.checked_sub(1).map(|at| &story.calls[at]) {
        None => "none".into(),
        Some(Call::Write { name, offset, bytes }) => format!("a write of {} bytes at {offset} of {name}", bytes.len()),
        Some(call) => format!("{call:?}"),
    }
}

pub fn brief(seen: &Seen) -> String {
    let Some(shown) = seen else { return "no core".into() };
    let sizes: Vec<String> = shown
        .blocks
        .iter()
        .map(|b| b.as_ref().map_or("-".into(), |b| format!("{}:{:02x?}", b.len(), b.first())))
        .collect();
    let values: Vec<String> = shown.user_data.iter().map(|(name, value)| format!("{name}={}", value.len())).collect();
    format!("length {} fork {} {sizes:?} {values:?}", shown.length, shown.fork)
}

/// Blocks of all kinds: small ones mostly, empty ones, zeros, runs of zeros, and now and then one of many sectors.
pub fn random_blocks(random: &mut Random) -> Vec<Block> {
    (0..1 + random.below(4)).map(|_| random_block(random).into()).collect()
}

fn random_block(random: &mut Random) -> Vec<u8> {
    let size = match random.below(240) {
        0 => random.below(256 << 10),
        1..=3 => random.below(48 << 10),
        4..=34 => 0,
        35..=64 => 400 + random.below(1500),
        65..=90 => 1,
        _ => random.below(60),
    } as usize;
    let mut block = random.bytes(size);
    match random.below(12) {
        0 => block.fill(0),
        1 => {
            // From one byte to another, or sectors.
            for _ in 0..1 + random.below(3) {
                let (from, to) = (random.below(size as u64 + 1) as usize, random.below(size as u64 + 1) as usize);
                block[from.min(to)..from.max(to)].fill(0);
            }
        }
        2 => {
            for sector in block.chunks_mut(SECTOR) {
                if random.below(2) == 0 {
                    sector.fill(0);
                }
            }
        }
        _ => {}
    }
    block
}

/// Steps that fit a log of `length` blocks.
pub fn random_steps(random: &mut Random, mut length: u64, count: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..count {
        let durability = [Durability::Flush, Durability::Always, Durability::None][random.below(5).min(2) as usize % 3];
        let step = match random.below(20) {
            0..8 => Step::Append(random_blocks(random)),
            8..10 => Step::Truncate(random.below(length + 1)),
            10..13 if length > 0 => {
                let from = random.below(length);
                Step::Clear(from, from + 1 + random.below(length - from))
            }
            13..15 => {
                let size = [0, 3, 40, 5000, 3900 + random.below(200) as usize, 20_000][random.below(6) as usize];
                Step::UserData(NAMES[random.below(2) as usize], random.bytes(size))
            }
            15 if random.below(2) == 0 => Step::Release,
            15 => Step::Flush,
            16 | 17 => Step::Reopen(durability),
            18 => Step::Kill(durability),
            19 if random.below(4) == 0 => Step::Overwrite,
            _ => Step::Append(random_blocks(random)),
        };
        let step = match &step {
            // Which state is left then is known only when it is opened: cut to nothing, what follows fits either.
            Step::Append(_)
            | Step::Truncate(_)
            | Step::Clear(..)
            | Step::Flush
            | Step::UserData(..)
            | Step::Reopen(_)
                if random.below(12) == 0 =>
            {
                let dies = Step::Die(Box::new(step), random.below(14) as usize, durability);
                steps.extend([dies, Step::Truncate(0)]);
                length = 0;
                continue;
            }
            _ => step,
        };
        match &step {
            Step::Append(blocks) => length += blocks.len() as u64,
            Step::Truncate(to) => length = *to,
            Step::Overwrite => length = 0,
            _ => {}
        }
        steps.push(step);
    }
    steps
}

/// The story of this number, cut everywhere; how many images that made.
fn story(number: u64, seeds: u64) -> u64 {
    let mut random = Random::new(number + 1);
    let durability = [Durability::Flush, Durability::Always, Durability::None][random.below(5).min(2) as usize];
    let count = 4 + random.below(9) as usize;
    let steps = random_steps(&mut random, 0, count);
    let story = Story::tell(Image::new(), None, durability, &steps);
    let mut judge = Judge::new(number, seeds, true);
    judge.judge(&format!("story {number} in {durability:?} {}", told(&steps)), &story);
    judge.images
}

pub fn told(steps: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Append(blocks) => format!("append {:?}", blocks.iter().map(|block| block.len()).collect::<Vec<_>>()),
        Step::UserData(name, value) => format!("{name}={}", value.len()),
        Step::Die(step, calls, with) => format!("die after {calls} calls of {}, {with:?}", told(&[(**step).clone()])),
        other => format!("{other:?}"),
    };
    steps.iter().map(step).collect::<Vec<_>>().join("; ")
}

/// Stories from number `first` on, until they made so many images.
fn stories(first: u64, images: u64, seeds: u64) {
    let (next, made) = (AtomicU64::new(first), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while made.load(Ordering::Relaxed) < images {
                    made.fetch_add(story(next.fetch_add(1, Ordering::Relaxed), seeds), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(made.load(Ordering::Relaxed) >= images);
    eprintln!("{} images of {} stories", made.into_inner(), next.into_inner() - first);
}

#[test]
fn whatever_was_being_done_the_state_is_the_one_before_or_after() {
    let _watchdog = patient_watchdog();
    stories(0, tries(280_000), 10);
}

#[test]
#[ignore = "a soak: minutes to hours; HYPERCORE_SOAK says how many images, 5 million unless told"]
fn soak() {
    let images = std::env::var("HYPERCORE_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000_000);
    let first = std::env::var("HYPERCORE_SOAK_FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    stories(first, images, 25);
}

/// A process is killed at every call of a step, another opens the core, goes on and closes it, and the power goes at
/// every call of that.
fn deaths(number: u64, seeds: u64) -> u64 {
    let mut random = Random::new(number + 31);
    let lawful = |step: &Step| !matches!(step, Step::Die(..) | Step::Kill(_) | Step::Reopen(_) | Step::Overwrite);
    let durability = [Durability::Flush, Durability::Flush, Durability::Always][number as usize % 3];
    let mut before = vec![Step::Append(random_blocks(&mut random))];
    let mut length = before[0..1].iter().map(|step| if let Step::Append(b) = step { b.len() as u64 } else { 0 }).sum();
    for step in random_steps(&mut random, length, 3).into_iter().filter(lawful) {
        match &step {
            Step::Append(blocks) => length += blocks.len() as u64,
            Step::Truncate(to) => length = *to.min(&length),
            Step::Clear(_, to) if *to > length => continue,
            _ => {}
        }
        let step = if let Step::Truncate(to) = step { Step::Truncate(to.min(length)) } else { step };
        before.push(step);
    }
    let dying = match random.below(8) {
        0 | 1 => Step::Append(random_blocks(&mut random)),
        2..=4 => Step::Truncate(random.below(length + 1)),
        5 if length > 0 => Step::Clear(random.below(length), length),
        5 | 6 => Step::UserData(NAMES[0], random.bytes(5000)),
        _ => Step::Reopen(durability),
    };
    let mut images = 0;
    for calls in 0.. {
        let with = [Durability::Flush, Durability::Always][random.below(2) as usize];
        let mut steps = before.clone();
        steps.push(Step::Die(Box::new(dying.clone()), calls, with));
        steps.extend([Step::Append(random_blocks(&mut random)), Step::Flush, Step::Append(random_blocks(&mut random))]);
        let story = Story::tell(Image::new(), None, durability, &steps);
        let (position, was_killed) = story.died.unwrap();
        let mut judge = Judge { from: position, ..Judge::new(number, seeds, true) };
        judge.judge(&format!("death {number} in {durability:?} {}", told(&steps)), &story);
        images += judge.images;
        if !was_killed {
            break;
        }
    }
    images
}

#[test]
fn whatever_a_process_was_killed_in_a_power_cut_in_the_next_opening_finds_before_or_after() {
    let _watchdog = patient_watchdog();
    let (next, made) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while made.load(Ordering::Relaxed) < tries(60_000) {
                    made.fetch_add(deaths(next.fetch_add(1, Ordering::Relaxed), 6), Ordering::Relaxed);
                }
            });
        }
    });
    eprintln!("{} images of {} deaths", made.into_inner(), next.into_inner());
}

/// What a log held at each fork.
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

/// Block `index` of the fork that the source is on, however often the reader has to follow it there.
pub fn fetch(core: &Hypercore, index: u64) -> Vec<u8> {
    loop {
        match core.get(index) {
            Err(e) if e.kind() == ErrorKind::SnapshotNotAvailable => {}
            got => return got.unwrap(),
        }
    }
}

/// A reader's story: what it takes over from a writer, block by block, over a fork.
fn reader_story(number: u64, seeds: u64) -> u64 {
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
    let mut kept = vec![disk.position()];
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
                // The fork is followed when a block of it has come.
                fetch(&reader, length / 2 + 3);
            }
            2 => {
                let came = reader.download(Download::range(0..length.min(6))).unwrap().wait_timeout(limit(60));
                // Early where the fork is left meanwhile; but end it must.
                let stands = came.is_err_and(|error| error.kind() == ErrorKind::Timeout);
                assert!(!stands, "reader {number}: a download stands still");
            }
            3 if reader.len() > 2 => reader.clear(0..2).unwrap(),
            4 => {
                reader.flush().unwrap();
                kept.push(disk.position());
            }
            _ => {
                fetch(&reader, random.below(length));
            }
        }
        if durability == Durability::Always {
            kept.push(disk.position());
        }
    }
    ours.close();
    reader.close().unwrap();
    let calls = disk.calls();

    // Every state there was is one that the process leaves when it is killed after some call.
    let read_only = |image: Image| open_reader(image).map(|core| shown(&core).unwrap());
    let base = Image::new();
    let mut replay = Replay::new(&base, &calls);
    let mut states: Vec<Vec<Seen>> = Vec::new();
    loop {
        // Proofs that came together are written together, and are changes of their own.
        let ends = calls[..replay.position()].last().map_or(Vec::new(), ends_of_entries);
        let mut here: Vec<Seen> =
            ends.iter().map(|&end| read_only(replay.image(Cut::Killed { torn: Some(end) }))).collect();
        here.push(read_only(replay.image(Cut::Killed { torn: None })));
        for shown in here.iter().flatten() {
            let blocks = source.forks.get(&shown.fork).cloned().unwrap_or_default();
            assert!(shown.length as usize <= blocks.len(), "reader {number}: a length that never was");
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
        let first = kept.iter().rev().find(|&&kept| kept <= position).copied().unwrap_or(0);
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
            assert!(states[first..=position].concat().contains(&found), "{}: found {}", at(), brief(&found));
            let audit = core.verify(Repair::No).unwrap();
            assert!(audit.faults.is_empty(), "{}: {:?}", at(), audit.faults);
            let held = &found.as_ref().unwrap().blocks;
            let missing = (0..source.core.len()).find(|&index| held.get(index as usize).is_none_or(Option::is_none));
            if let (0, Some(missing)) = (images % 64, missing) {
                // What was lost comes again.
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

/// Where the entries end that a call writes.
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
fn a_reader_holds_what_it_once_held() {
    let _watchdog = patient_watchdog();
    let next = AtomicU64::new(0);
    let made = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while made.load(Ordering::Relaxed) < tries(20_000) {
                    made.fetch_add(reader_story(next.fetch_add(1, Ordering::Relaxed), 10), Ordering::Relaxed);
                }
            });
        }
    });
    eprintln!("{} images of {} readers", made.into_inner(), next.into_inner());
}
