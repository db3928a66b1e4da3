//! What peers may be told: only what a power cut cannot take back.
//!
//! With
//! [`Durability::Flush`](crate::Durability::Flush) an append returns before it is on the disk. If a peer heard of it and a power cut then took it, the writer would go on from before it and sign a second history, which every replica refuses. So until the blocks and their entry are synced, peers see the head from before ([`State::shown_head`]),
//! and what changed waits in
//! [`Lag`]. A thread of a connection syncs, once for all that was appended meanwhile, and tells the peers then ([`Shared::settle`]):
//! the appending thread waits for none of this, and a core without peers syncs no more often for it.
//!
//! Changes that others signed need no sync before they are passed on: a reader's core cannot contradict them. A
//! writer's core waits for the disk where it takes over a head (`commit`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::network::Changed;
use crate::core::options::Durability;
use crate::core::state::{Shared, State, closed};
use crate::merkle::Head;
use crate::oplog::{EntryRef, Marks};
use crate::{Error, Result};

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

    /// How many entries were written, to be given to [`Synced::is_synced`] after a sync that began later.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// An entry was written.
    pub(crate) fn wrote(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// Everything up to entry number `written` is on the disk.
    pub(crate) fn is_synced(&self, written: u64) {
        self.synced.fetch_max(written, Ordering::SeqCst);
    }

    /// Whether everything written is on the disk.
    pub(crate) fn is_settled(&self) -> bool {
        self.synced.load(Ordering::SeqCst) >= self.written()
    }
}

/// What changed since the head that peers see.
pub(crate) struct Lag {
    /// The head that peers see.
    head: Head,
    /// What they have to be told, in order.
    untold: Vec<Changed>,
    /// What is being synced now.
    settling: Option<Settling>,
}

struct Settling {
    head: Head,
    changes: Vec<Changed>,
}

impl Lag {
    /// Peers see `head`, which was the head before an append.
    pub(crate) fn behind(head: Head) -> Self {
        Lag { head, untold: Vec::new(), settling: None }
    }

    /// Has `changes` told after what waits already.
    pub(crate) fn add(&mut self, changes: &[Changed]) {
        for &change in changes {
            // A log that is appended to while peers do not read makes no long list.
            match change {
                Changed::Head if self.untold.iter().any(|change| matches!(change, Changed::Head)) => {}
                Changed::Blocks { start, length: more, drop: false } => match self.untold.last_mut() {
                    Some(Changed::Blocks { start: first, length, drop: false })
                        if first.checked_add(*length) == Some(start) =>
                    {
                        *length += more;
                    }
                    _ => self.untold.push(change),
                },
                change => self.untold.push(change),
            }
        }
    }

    /// All that peers were not told of.
    pub(crate) fn into_changes(self) -> Vec<Changed> {
        let mut changes = self.settling.map_or_else(Vec::new, |settling| settling.changes);
        changes.extend(self.untold);
        changes
    }
}

impl State {
    /// The head that peers may see.
    pub(crate) fn shown_head(&self) -> &Head {
        self.lag.as_ref().map_or(&self.head, |lag| &lag.head)
    }
}

impl Shared {
    /// Whether an append is kept from peers until it is on the disk: not before the first peer comes, for whom all is
    /// synced once.
    pub(crate) fn hides_unsynced(&self) -> bool {
        self.durability == Durability::Flush && self.has_settled_once.load(Ordering::SeqCst)
    }

    /// Waits until what is in the files is on the disk, before the first peer sees any of it: an earlier session may
    /// not have waited, and what recovery gave up must not come back. Returns at once for the peers to come. With
    /// [`Durability::None`] it does nothing.
    ///
    /// Called with no lock held.
    pub(crate) fn settle_before_peers(&self) -> Result<()> {
        if self.durability == Durability::None || self.has_settled_once.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _one_at_a_time = self.settling.lock();
        // Nothing is written meanwhile, so that all there is was synced.
        let mut slot = self.writer.lock();
        let writer = slot.as_mut().ok_or_else(closed)?;
        if self.has_settled_once.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.poison.get().is_some() {
            return Err(self.poisoned());
        }
        let mut sync = || {
            if writer.adoption_is_due() && !self.read_only {
                self.adopt(writer)?;
            }
            let (tree, bits, blocks) = {
                let state = self.state.read();
                let files = state.files()?;
                (files.tree.file().clone(), files.bits.file().clone(), files.blocks.clone())
            };
            let written = self.synced.written();
            blocks.sync()?;
            tree.sync()?;
            bits.sync()?;
            writer.oplog.sync_all()?;
            self.sync_dir()?;
            self.synced.is_synced(written);
            Ok(())
        };
        sync().inspect_err(|error| self.poison(error))?;
        self.has_settled_once.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until what was appended so far is on the disk, and tells the peers. Returns at once where nothing waits
    /// for that.
    ///
    /// Called with no lock held. An error poisons the core, which goes on showing peers what is on the disk.
    pub(crate) fn settle(&self) -> Result<()> {
        if !self.is_unsettled() {
            return Ok(());
        }
        let one_at_a_time = self.settling.lock();
        let settled = self.settle_now();
        drop(one_at_a_time);
        // Who came meanwhile with an append found us at it, and left it.
        if self.is_unsettled() {
            if let Some(network) = self.network.get() {
                network.unsettled();
            }
        }
        settled
    }

    /// As [`Shared::settle`], unless another thread is at it; whether it told anything. What goes wrong, the next
    /// change of the core says, or its closing.
    pub(crate) fn settle_unless_busy(&self) -> bool {
        if !self.is_unsettled() {
            return false;
        }
        let Some(_one_at_a_time) = self.settling.try_lock() else { return false };
        self.settle_now().is_ok()
    }

    /// Whether something waits for the disk before peers may be told of it.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.state.read().lag.is_some() && self.poison.get().is_none()
    }

    fn settle_now(&self) -> Result<()> {
        let (written, blocks, oplog) = {
            let mut state = self.state.write();
            let files = state.files()?;
            let (blocks, oplog) = (files.blocks.clone(), files.oplog.clone());
            let head = state.head.clone();
            let Some(lag) = &mut state.lag else { return Ok(()) };
            lag.settling = Some(Settling { head, changes: std::mem::take(&mut lag.untold) });
            (self.synced.written(), blocks, oplog)
        };
        let synced = blocks.sync().and_then(|()| {
            let failed = |e| Error::from_io(e, "sync", self.storage.path("oplog"));
            oplog.sync().map_err(failed)
        });
        synced.inspect_err(|error| self.poison(error))?;
        self.synced.is_synced(written);
        self.publish();
        self.mark_settled();
        Ok(())
    }

    /// Shows peers what was being settled, and tells them.
    fn publish(&self) {
        let _telling = self.telling.lock();
        let changes = {
            let mut state = self.state.write();
            // None where a change that waited for the disk itself told them meanwhile.
            let Some(settling) = state.lag.as_mut().and_then(|lag| lag.settling.take()) else { return };
            match &mut state.lag {
                Some(lag) if !lag.untold.is_empty() => lag.head = settling.head,
                _ => state.lag = None,
            }
            settling.changes
        };
        if let Some(network) = self.network.get() {
            network.changed(&changes);
        }
    }

    /// Notes behind the entries that all of them are on the disk: damage that a disk does later is not to be taken for
    /// what a power cut took. The next entry would say the same, but there may be none for long.
    fn mark_settled(&self) {
        if self.durability != Durability::Flush || self.read_only || self.poison.get().is_some() {
            return;
        }
        // A writer that is busy writes the next entry, or flushes.
        let Some(mut slot) = self.writer.try_lock() else { return };
        let Some(writer) = slot.as_mut() else { return };
        if writer.has_unsettled_tail && self.synced.is_settled() {
            let mark = EntryRef { marks: Marks { unsynced: None, settled: true }, ..EntryRef::default() };
            // Without the mark nothing is lost but the note. It is not on the disk itself.
            self.synced.wrote();
            writer.has_unsettled_tail = writer.oplog.append(&[mark]).is_err() && writer.oplog.take_back().is_err();
        }
    }
}
