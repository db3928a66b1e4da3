//! What tests have to know of the machine they run on: whether it is slow, and how it starts programs like this one.

use std::env;
use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

/// Whether these tests are of a small board, or of a program that is emulated: all takes many times as long there. Known when they are
/// built, by the target or by the environment variable `HYPERCORE_EMULATED`.
pub const SLOW: bool = cfg!(target_arch = "arm") || option_env!("HYPERCORE_EMULATED").is_some();

/// The limit for what takes a busy machine at most so many seconds.
pub const fn limit(seconds: u64) -> Duration {
    Duration::from_secs(if SLOW { 6 * seconds } else { seconds })
}

/// How often to do what is done `often` times where there is time for it: tries of one kind, of which each is a test of its own.
pub const fn tries(often: u64) -> u64 {
    if SLOW { often.div_ceil(25) } else { often }
}

/// The step through what is tried case by case where there is time for it: one case in `nth` elsewhere.
pub const fn one_in(nth: usize) -> usize {
    if SLOW { nth } else { 1 }
}

/// What stands before the path of a program like this one where the system cannot start it itself: the words of `HYPERCORE_RUNNER`.
pub fn runner() -> Vec<String> {
    env::var("HYPERCORE_RUNNER").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Starts a program like this one.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let mut words = runner().into_iter();
    let Some(first) = words.next() else { return Command::new(path) };
    let mut command = Command::new(first);
    command.args(words).arg(path);
    command
}
