//! How far the log is on the disk, and what waits for that before peers are told; `core/peer_sync.rs` says why.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::network::Changed;
use crate::merkle::Head;

/// How far the entries of the oplog, and the blocks they bring, are known to be on the disk.
#[derive(Debug)]
pub(crate) struct Synced {
    written: AtomicU64,
    synced: AtomicU64,
}

impl Synced {
    /// Of files that an earlier session may not have synced.
    pub(crate) fn unknown() -> Self {
        Synced { written: AtomicU64::new(1), synced: AtomicU64::new(0) }
    }

    /// How many entries were written, to be given to [`Synced::mark_synced`] after a sync that began later.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// An entry was written.
    pub(crate) fn count_entry(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// Everything up to entry number `written` is on the disk.
    pub(crate) fn mark_synced(&self, written: u64) {
        self.synced.fetch_max(written, Ordering::SeqCst);
    }

    /// Whether everything written is on the disk.
    pub(crate) fn is_complete(&self) -> bool {
        self.synced.load(Ordering::SeqCst) >= self.written()
    }
}

/// What changed since the head that peers see.
pub(crate) struct Unannounced {
    /// The head that peers see.
    head: Head,
    /// What they have to be told, in order.
    changes: Vec<Changed>,
    /// What is being synced now.
    syncing: Option<Syncing>,
}

struct Syncing {
    head: Head,
    changes: Vec<Changed>,
}

impl Unannounced {
    /// Peers see `head`, which was the head before an append.
    pub(crate) fn since(head: Head) -> Self {
        Unannounced { head, changes: Vec::new(), syncing: None }
    }

    /// Has `changes` told after what waits already.
    pub(crate) fn add(&mut self, changes: &[Changed]) {
        for &change in changes {
            // A log that is appended to while peers do not read makes no long list.
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

    /// A sync begins of all that was written up to `head`.
    pub(crate) fn begin_sync(&mut self, head: Head) {
        self.syncing = Some(Syncing { head, changes: std::mem::take(&mut self.changes) });
    }

    /// The sync that began is done: shows peers the head up to which it went. Gives what they have to be told of it;
    /// none where a change that waited for the disk itself told them meanwhile.
    pub(crate) fn finish_sync(slot: &mut Option<Unannounced>) -> Option<Vec<Changed>> {
        let synced = slot.as_mut().and_then(|waiting| waiting.syncing.take())?;
        match slot {
            Some(waiting) if !waiting.changes.is_empty() => waiting.head = synced.head,
            _ => *slot = None,
        }
        Some(synced.changes)
    }

    /// All that peers were not told of.
    pub(crate) fn into_changes(self) -> Vec<Changed> {
        let mut changes = self.syncing.map_or_else(Vec::new, |syncing| syncing.changes);
        changes.extend(self.changes);
        changes
    }
}
