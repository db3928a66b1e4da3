//! A power cut or a kill at every call to the disk: the next open finds the state before or after an operation, and
//! none older than the durability promised; it verifies, and the log can be appended to.

mod announced;
mod check;
mod damage;
mod reader;
mod scenario;
mod writer;

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
