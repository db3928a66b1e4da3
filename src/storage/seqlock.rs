//! A change counter (seqlock) by which a reader sees that a file changed while it was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A counter that grows when a change of a file begins and when it ends; all handles of the file share it.
///
/// If a reader sees the same count before and after a read, no change began or ended in between. A change that was
/// under way all that time may have been seen in part.
#[derive(Clone, Default)]
pub struct SequenceCounter(Arc<AtomicU64>);

/// A change of the file, which ends when this is dropped.
pub struct WriteSection<'a>(&'a SequenceCounter);

impl SequenceCounter {
    /// The current count.
    pub fn get(&self) -> u64 {
        // Reads of the file before this call must not move behind it.
        fence(Ordering::Acquire);
        self.0.load(Ordering::SeqCst)
    }

    /// Begins a change of the file.
    pub fn change(&self) -> WriteSection<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        WriteSection(self)
    }
}

impl Drop for WriteSection<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}
