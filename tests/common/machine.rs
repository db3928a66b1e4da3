//! The machine that runs the tests: whether it is slow, and how it starts programs of the same target.

use std::env;
use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

/// Whether the tests run on a small board or under emulation, where everything takes many times as long. Decided at
/// build time, by the target or by the environment variable `HYPERCORE_EMULATED`.
pub const SLOW: bool = cfg!(target_arch = "arm") || option_env!("HYPERCORE_EMULATED").is_some();

/// A time limit of `seconds` on a fast machine, and six times as long on a slow one.
pub const fn limit(seconds: u64) -> Duration {
    Duration::from_secs(if SLOW { 6 * seconds } else { seconds })
}

/// How many random cases to run: `often` on a fast machine, a 25th of that on a slow one.
pub const fn tries(often: u64) -> u64 {
    if SLOW { often.div_ceil(25) } else { often }
}

/// The step through enumerated cases: 1 on a fast machine, `nth` on a slow one.
pub const fn one_in(nth: usize) -> usize {
    if SLOW { nth } else { 1 }
}

/// The words of `HYPERCORE_RUNNER`, which stand before the path of each program that a test starts.
pub fn runner() -> Vec<String> {
    env::var("HYPERCORE_RUNNER").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// A command that starts a program of the same target as this one.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let mut words = runner().into_iter();
    let Some(first) = words.next() else { return Command::new(path) };
    let mut command = Command::new(first);
    command.args(words).arg(path);
    command
}
