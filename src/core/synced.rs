//! How far the log is on the disk, and the changes that are not announced to peers until they are synced.
//! `core/peer_sync.rs` gives the reasons.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::network::Changed;
use crate::merkle::Head;

/// How many entries of the oplog were written, and how many of them are known to be on the disk, with their blocks.
#[derive(Debug)]
pub(crate) struct Synced {
    written: AtomicU64,
    synced: AtomicU64,
}

impl Synced {
    /// For files that an earlier session may not have synced.
    pub(crate) fn unknown() -> Self {
        Synced { written: AtomicU64::new(1), synced: AtomicU64::new(0) }
    }

    /// The number of entries written. The caller reads it before a sync and passes it to [`Synced::mark_synced`]
    /// after.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Counts one more written entry.
    pub(crate) fn count_entry(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that entries up to number `written` are on the disk.
    pub(crate) fn mark_synced(&self, written: u64) {
        self.synced.fetch_max(written, Ordering::SeqCst);
    }

    /// Whether everything written is on the disk.
    pub(crate) fn is_complete(&self) -> bool {
        self.synced.load(Ordering::SeqCst) >= self.written()
    }
}

/// The changes since the head that peers see.
pub(crate) struct Unannounced {
    head: Head,
    /// The changes to announce to peers, in order, except for those in `syncing`.
    changes: Vec<Changed>,
    /// The head and the changes that are being synced now.
    syncing: Option<Syncing>,
}

struct Syncing {
    head: Head,
    changes: Vec<Changed>,
}

impl Unannounced {
    /// Peers continue to see `head`, which was the head before an append.
    pub(crate) fn since(head: Head) -> Self {
        Unannounced { head, changes: Vec::new(), syncing: None }
    }

    /// Adds `changes` after those that wait already.
    pub(crate) fn add(&mut self, changes: &[Changed]) {
        for &change in changes {
            // Changes are joined, so that the list stays short if peers do not read while the log is appended to.
            match change {
                Changed::Head if self.changes.iter().any(|change| matches!(change, Changed::Head)) => {}
                Changed::Blocks { start, length: more, drop: false } => match self.changes.last_mut() {
                    Some(Changed::Blocks { start: first, length, drop: false })
                        if first.checked_add(*length) == Some(start) =>
                    {
                        *length += more;
                    }
                    _ => self.changes.push(change),
                },
                change => self.changes.push(change),
            }
        }
    }

    /// The head that peers see.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Begins a sync of everything that was written up to `head`.
    pub(crate) fn begin_sync(&mut self, head: Head) {
        self.syncing = Some(Syncing { head, changes: std::mem::take(&mut self.changes) });
    }

    /// Ends the sync that was begun: peers see the head that it covers. Returns the changes that they have to hear
    /// of; `None` if a change that waited for the disk itself told them meanwhile.
    pub(crate) fn finish_sync(slot: &mut Option<Unannounced>) -> Option<Vec<Changed>> {
        let synced = slot.as_mut().and_then(|waiting| waiting.syncing.take())?;
        match slot {
            Some(waiting) if !waiting.changes.is_empty() => waiting.head = synced.head,
            _ => *slot = None,
        }
        Some(synced.changes)
    }

    /// All changes that are not announced yet, in order.
    pub(crate) fn into_changes(self) -> Vec<Changed> {
        let mut changes = self.syncing.map_or_else(Vec::new, |syncing| syncing.changes);
        changes.extend(self.changes);
        changes
    }
}
