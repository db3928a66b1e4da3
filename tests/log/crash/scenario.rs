//! Scenarios: the steps of a core, the calls that its disk recorded, and the states that may be found after a crash.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use hypercore::{Durability, Hypercore, Result};

use super::opening;
use crate::common::Random;
use crate::common::powercut::{Call, Image, Recorder, SECTOR};

/// A block. Many states share it.
pub type Block = Arc<[u8]>;

/// The visible state of a core.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    pub length: u64,
    pub fork: u64,
    pub blocks: Vec<Option<Block>>,
    pub user_data: BTreeMap<String, Vec<u8>>,
}

/// A state; None: no core exists.
pub type Seen = Option<Shown>;

/// The moment after an operation.
#[derive(Clone, Debug)]
pub struct Moment {
    /// How many calls the disk had recorded when it returned.
    pub position: usize,
    pub state: Seen,
    /// Equal states have equal numbers.
    pub number: usize,
    /// Whether the state was promised to survive a power cut.
    pub promised: bool,
    /// Whether the state is promised to survive a kill only.
    unpromised: bool,
}

/// The recorded calls of some steps, and the states between the steps.
pub struct Scenario {
    pub base: Image,
    pub calls: Vec<Call>,
    pub moments: Vec<Moment>,
    /// How many calls the disk had recorded when a process last died within a step, and whether it died
    /// before its end.
    pub died: Option<(usize, bool)>,
}

#[derive(Clone, Debug)]
pub enum Step {
    Append(Vec<Block>),
    Truncate(u64),
    Clear(u64, u64),
    UserData(&'static str, Vec<u8>),
    Flush,
    /// The files are closed until the next call.
    Release,
    /// The core is closed, and opened with this durability.
    Reopen(Durability),
    /// The process is killed, and another one opens the core.
    Kill(Durability),
    /// A new log overwrites the old one.
    Overwrite,
    /// The process is killed after this many calls of the step, and another one opens the core.
    KillDuring(Box<Step>, usize, Durability),
}

pub const NAMES: [&str; 2] = ["a", "b"];

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
    pub fn after(&self, step: &Step) -> Shown {
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
            Step::KillDuring(step, ..) => return self.after(step),
            Step::Overwrite => next = Shown::default(),
        }
        next.length = next.blocks.len() as u64;
        next
    }
}

impl Scenario {
    /// Runs `steps` on a core with the files `base`, which has the state `start`.
    pub fn run(base: Image, start: Seen, mut durability: Durability, steps: &[Step]) -> Scenario {
        let disk = Recorder::recording(base.clone());
        let mut unpromised = durability == Durability::None;
        let mut moments: Vec<Moment> = Vec::new();
        let mut core = opening(durability).open_in(disk.clone()).unwrap();
        let mut state = start.clone().unwrap_or_default();
        let mut note = |position: usize, state: Seen, promised: bool, unpromised: bool| {
            let number = moments.iter().find(|m| m.state == state).map_or(moments.len(), |moment| moment.number);
            moments.push(Moment { position, state, number, promised: promised && !unpromised, unpromised });
        };
        note(0, start.clone(), true, false);
        let mut died = None;
        let mut note_now = |state: &Shown, promised: bool, unpromised: bool| {
            note(disk.position(), Some(state.clone()), promised, unpromised);
        };
        note_now(&state, start.is_none(), unpromised);
        for step in steps {
            let mut next = state.after(step);
            let always = durability == Durability::Always;
            let promised = match step {
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
                Step::KillDuring(step, calls, with) => {
                    disk.die_after(Some(*calls));
                    // The result does not matter: the process is dead.
                    let _ = match &**step {
                        Step::Append(blocks) => core.append_batch(blocks).map(|_| ()),
                        Step::Truncate(length) => core.truncate(*length).map(|_| ()),
                        Step::Clear(from, to) => core.clear(*from..*to).map(|_| ()),
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
                        summary(&Some(found))
                    );
                    next = found;
                    false
                }
            };
            // Changes without a promise are promised by the next flush, or by the next change that waits for its sync.
            let flushes = matches!(step, Step::Truncate(_) | Step::Flush | Step::Overwrite);
            unpromised = durability == Durability::None || (unpromised && !(promised && (always || flushes)));
            state = next;
            note_now(&state, promised, unpromised);
        }
        core.close().unwrap();
        note_now(&state, false, unpromised);
        Scenario { base, calls: disk.calls(), moments, died }
    }

    /// The states that may be found after a crash at `position` calls: a kill, or else a power cut.
    pub fn allowed(&self, position: usize, killed: bool) -> &[Moment] {
        let last = self.moments.iter().rposition(|moment| moment.position <= position).unwrap_or(0);
        let first = if killed { last } else { self.moments[..=last].iter().rposition(|m| m.promised).unwrap_or(0) };
        &self.moments[first..(last + 2).min(self.moments.len())]
    }

    /// Whether a power cut after `position` calls may leave any state: a change without a promise followed
    /// the last promised one.
    pub fn may_leave_any_state(&self, position: usize) -> bool {
        let until = self.moments.iter().position(|m| m.position > position).map_or(self.moments.len(), |next| next + 1);
        let first = self.moments[..until].iter().rposition(|m| m.promised && m.position <= position).unwrap_or(0);
        self.moments[first..until].iter().any(|moment| moment.unpromised)
    }
}

/// Random blocks: mostly small ones, some empty, some of zeros or with runs of zeros, and a few of many sectors.
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
            // Zeros between two random bytes.
            for _ in 0..1 + random.below(3) {
                let (from, to) = (random.below(size as u64 + 1) as usize, random.below(size as u64 + 1) as usize);
                block[from.min(to)..from.max(to)].fill(0);
            }
        }
        2 => {
            // Zeros in random sectors.
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

/// Random steps that are valid for a log of `length` blocks.
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
            // The state after the death is known only after the open. A truncate to nothing makes the later steps
            // valid for either.
            Step::Append(_)
            | Step::Truncate(_)
            | Step::Clear(..)
            | Step::Flush
            | Step::UserData(..)
            | Step::Reopen(_)
                if random.below(12) == 0 =>
            {
                let dies = Step::KillDuring(Box::new(step), random.below(14) as usize, durability);
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

pub fn describe(steps: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Append(blocks) => format!("append {:?}", blocks.iter().map(|block| block.len()).collect::<Vec<_>>()),
        Step::UserData(name, value) => format!("{name}={}", value.len()),
        Step::KillDuring(step, calls, with) => {
            format!("die after {calls} calls of {}, {with:?}", describe(&[(**step).clone()]))
        }
        other => format!("{other:?}"),
    };
    steps.iter().map(step).collect::<Vec<_>>().join("; ")
}

pub fn summary(seen: &Seen) -> String {
    let Some(shown) = seen else { return "no core".into() };
    let sizes: Vec<String> = shown
        .blocks
        .iter()
        .map(|b| b.as_ref().map_or("-".into(), |b| format!("{}:{:02x?}", b.len(), b.first())))
        .collect();
    let values: Vec<String> = shown.user_data.iter().map(|(name, value)| format!("{name}={}", value.len())).collect();
    format!("length {} fork {} {sizes:?} {values:?}", shown.length, shown.fork)
}
