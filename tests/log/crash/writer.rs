//! Power cuts and kills of a writer.

use hypercore::Durability;

use super::check::Judge;
use super::run_stories;
use super::scenario::{NAMES, Step, Story, random_blocks, random_steps, told};
use crate::common::machine::tries;
use crate::common::powercut::Image;
use crate::common::{Random, patient_watchdog};

/// Runs the story of this number, crashes it at every call, and returns the number of disk images.
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

#[test]
fn power_cut_or_kill_at_any_call_leaves_state_before_or_after() {
    let _watchdog = patient_watchdog();
    run_stories(0, tries(280_000), |number| story(number, 10));
}

#[test]
#[ignore = "a soak: minutes to hours; HYPERCORE_SOAK says how many images, 5 million unless told"]
fn soak() {
    let images = std::env::var("HYPERCORE_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000_000);
    let first = std::env::var("HYPERCORE_SOAK_FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    run_stories(first, images, |number| story(number, 25));
}

/// Kills a process at each call of a step in turn. Another process opens the core, appends and closes it, with a
/// power cut at each of its calls. Returns the number of disk images.
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
        let mut judge = Judge::new(number, seeds, true);
        judge.from = position;
        judge.judge(&format!("death {number} in {durability:?} {}", told(&steps)), &story);
        images += judge.images;
        if !was_killed {
            break;
        }
    }
    images
}

#[test]
fn power_cut_after_kill_and_reopen_leaves_state_before_or_after() {
    let _watchdog = patient_watchdog();
    run_stories(0, tries(60_000), |number| deaths(number, 6));
}
