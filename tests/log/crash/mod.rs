//! A power cut or a kill at every call to the disk: the next open finds the state before or after an operation, and
//! none older than the durability promised; it verifies, and the log can be appended to.

mod announced;
mod check;
mod damage;
mod reader;
mod scenario;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use hypercore::{Durability, ErrorKind, Hypercore, OpenOptions};

use crate::common::pair;

/// The options of the writer's core.
pub fn opening(durability: Durability) -> OpenOptions {
    Hypercore::options().durability(durability).key_pair(pair(1))
}

/// Block `index` of the latest fork. The get is repeated each time that the reader follows the writer to another fork.
pub fn fetch(core: &Hypercore, index: u64) -> Vec<u8> {
    loop {
        match core.get(index) {
            Err(e) if e.kind() == ErrorKind::SnapshotNotAvailable => {}
            got => return got.unwrap(),
        }
    }
}

/// Runs the scenarios from number `first` on, on all processors, until they made `images` disk images. `scenario`
/// returns how many images it made.
fn run_scenarios(first: u64, images: u64, scenario: impl Fn(u64) -> u64 + Sync) {
    let (next, made) = (AtomicU64::new(first), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while made.load(Ordering::Relaxed) < images {
                    made.fetch_add(scenario(next.fetch_add(1, Ordering::Relaxed)), Ordering::Relaxed);
                }
            });
        }
    });
    eprintln!("{} images of {} scenarios", made.into_inner(), next.into_inner() - first);
}
