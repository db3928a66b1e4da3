//! Reads a held block, or says why there is none; and the error for a byte past the end.

use std::path::Path;

use hypercore::{GetOptions, Hypercore};

use super::failure::{Failure, Result, about};
use super::terminal::units::plural;

/// Reads block `index`; fails if it is not held or past the end.
pub fn block(core: &Hypercore, dir: &Path, index: u64) -> Result<Vec<u8>> {
    let length = core.len();
    if index >= length {
        return Err(Failure::Failed(format!(
            "{}: there is no block {index}: the log has {}",
            dir.display(),
            plural(length, "block")
        )));
    }
    let block = core.get_with(index, GetOptions::new().wait(false)).map_err(|e| about(dir, e))?;
    block.ok_or_else(|| {
        Failure::Failed(format!(
            "{}: block {index} is not held; `hypercore clone` brings it from a peer",
            dir.display()
        ))
    })
}

/// The failure for a byte offset past the end of the log.
pub fn past_end(core: &Hypercore, dir: &Path, byte: u64) -> Failure {
    Failure::Failed(format!(
        "{}: byte {byte} is past the end of the log, which has {} bytes",
        dir.display(),
        core.byte_length()
    ))
}
