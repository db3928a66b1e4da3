//! Power cuts and kills of a writer.

use hypercore::Durability;

use super::check::Checker;
use super::run_scenarios;
use super::scenario::{NAMES, Scenario, Step, describe, random_blocks, random_steps};
use crate::common::machine::tries;
use crate::common::powercut::Image;
use crate::common::{Random, patient_watchdog};

/// Runs the scenario of this number, crashes it at every call, and returns the number of disk images.
fn scenario(number: u64, seeds: u64) -> u64 {
    let mut random = Random::new(number + 1);
    let durability = [Durability::Flush, Durability::Always, Durability::None][random.below(5).min(2) as usize];
    let count = 4 + random.below(9) as usize;
    let steps = random_steps(&mut random, 0, count);
    let scenario = Scenario::run(Image::new(), None, durability, &steps);
    let mut checker = Checker::new(number, seeds, true);
    checker.check(&format!("scenario {number} in {durability:?} {}", describe(&steps)), &scenario);
    checker.images
}

#[test]
fn power_cut_or_kill_at_any_call_leaves_state_before_or_after() {
    let _watchdog = patient_watchdog();
    run_scenarios(0, tries(280_000), |number| scenario(number, 10));
}

#[test]
#[ignore = "a soak: minutes to hours; HYPERCORE_SOAK sets the number of images, 5 million by default"]
fn many_power_cuts_or_kills_leave_state_before_or_after() {
    let images = std::env::var("HYPERCORE_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000_000);
    let first = std::env::var("HYPERCORE_SOAK_FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    run_scenarios(first, images, |number| scenario(number, 25));
}

/// Kills a process at each call of a step in turn. Another process opens the core, appends and closes it, with a
/// power cut at each of its calls. Returns the number of disk images.
fn kill_at_each_call(number: u64, seeds: u64) -> u64 {
    let mut random = Random::new(number + 31);
    let is_plain =
        |step: &Step| !matches!(step, Step::KillDuring(..) | Step::Kill(_) | Step::Reopen(_) | Step::Overwrite);
    let durability = [Durability::Flush, Durability::Flush, Durability::Always][number as usize % 3];
    let mut before = vec![Step::Append(random_blocks(&mut random))];
    let mut length = before[0..1].iter().map(|step| if let Step::Append(b) = step { b.len() as u64 } else { 0 }).sum();
    for step in random_steps(&mut random, length, 3).into_iter().filter(is_plain) {
        match &step {
            Step::Append(blocks) => length += blocks.len() as u64,
            Step::Truncate(to) => length = *to.min(&length),
            Step::Clear(_, to) if *to > length => continue,
            _ => {}
        }
        let step = if let Step::Truncate(to) = step { Step::Truncate(to.min(length)) } else { step };
        before.push(step);
    }
    let killed_step = match random.below(8) {
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
        steps.push(Step::KillDuring(Box::new(killed_step.clone()), calls, with));
        steps.extend([Step::Append(random_blocks(&mut random)), Step::Flush, Step::Append(random_blocks(&mut random))]);
        let scenario = Scenario::run(Image::new(), None, durability, &steps);
        let (position, was_killed) = scenario.died.unwrap();
        let mut checker = Checker::new(number, seeds, true);
        checker.from = position;
        checker.check(&format!("kill {number} in {durability:?} {}", describe(&steps)), &scenario);
        images += checker.images;
        if !was_killed {
            break;
        }
    }
    images
}

#[test]
fn power_cut_after_kill_and_reopen_leaves_state_before_or_after() {
    let _watchdog = patient_watchdog();
    run_scenarios(0, tries(60_000), |number| kill_at_each_call(number, 6));
}
