//! Snapshots: the state of a session whose length and fork stay as they were.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::Result;
use crate::core::shared::Shared;
use crate::core::state::SnapshotView;
use crate::merkle;

impl Shared {
    pub(crate) fn take_view(&self, sparse: bool) -> Result<Arc<SnapshotView>> {
        loop {
            let part = if sparse { None } else { Some(self.contiguous_part()?) };
            let mut state = self.state.write();
            state.files()?;
            let (length, byte_length) = match part {
                // Blocks were freed since, maybe some of these: count again.
                Some((generation, ..)) if generation != self.generation() => continue,
                Some((_, length, bytes)) => (length, bytes),
                None => (state.head.length(), state.head.byte_length()),
            };
            let fork = state.head.fork;
            let view = Arc::new(SnapshotView { length, byte_length, fork, compat_length: AtomicU64::new(length) });
            state.snapshots.retain(|s| s.strong_count() > 0);
            state.snapshots.push(Arc::downgrade(&view));
            return Ok(view);
        }
    }

    /// Counts the blocks that are held without a gap. Returns the generation of the count, the blocks
    /// and their bytes.
    pub(crate) fn contiguous_part(&self) -> Result<(u64, u64, u64)> {
        loop {
            let generation = self.generation();
            let length = self.contiguous_length()?;
            let bytes = self.read_tree(|reading, tree| merkle::byte_offset(tree, &reading.head, length));
            if generation == self.generation() {
                return Ok((generation, length, bytes?));
            }
        }
    }
}
