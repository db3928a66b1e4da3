//! The power goes, or the process is killed, at every call to the disk: what is found is the state before or after an operation, never a
//! third, and not an older one than was promised; it verifies, and the log goes on from there.

mod announced;
mod check;
mod damage;
mod reader;
mod scenario;
mod writer;

use hypercore::{Durability, ErrorKind, Hypercore, OpenOptions};

use crate::common::pair;

/// How the writer's core is opened.
pub fn opening(durability: Durability) -> OpenOptions {
    Hypercore::options().durability(durability).key_pair(pair(1))
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
