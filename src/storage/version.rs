//! Telling a reader whether a file changed while it was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Counts how often a file began to change and how often that ended; shared by all handles of it.
///
/// A reader compares it with what it was: if it is the same, nothing of the file changed but what was changing all
/// the time.
#[derive(Clone, Default)]
pub struct Version(Arc<AtomicU64>);

/// The file changes until this is dropped.
pub struct Changing<'a>(&'a Version);

impl Version {
    /// What it is now.
    pub fn get(&self) -> u64 {
        // What was read before must not be read later than this.
        fence(Ordering::Acquire);
        self.0.load(Ordering::SeqCst)
    }

    /// Says that the file begins to change.
    pub fn change(&self) -> Changing<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Changing(self)
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}
