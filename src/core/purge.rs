//! Purging: the core's files are deleted while its lock is held.

use crate::Result;
use crate::core::session::Session;

impl Session {
    /// Closes every session and deletes the files, the lock still held.
    pub(crate) fn purge(&self) -> Result<()> {
        self.check_open()?;
        let shared = &*self.shared;
        if shared.read_only {
            self.check_writable(true)?;
        }
        shared.close_all(true)
    }
}
