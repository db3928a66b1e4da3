//! What peers may be told: only what a power cut cannot take back.
//!
//! With
//! [`Durability::Flush`](crate::Durability::Flush) an append returns before it is on the disk. If a peer heard of it and a power cut then took it, the writer would go on from before it and sign a second history, which every replica refuses. So until the blocks and their entry are synced, peers see the head from before ([`State::announced_head`](crate::core::state::State::announced_head)),
//! and what changed waits in
//! [`Unannounced`]. A thread of a connection syncs, once for all that was appended meanwhile, and tells the peers then ([`Shared::sync_for_peers`]):
//! the appending thread waits for none of this, and a core without peers syncs no more often for it.
//!
//! Changes that others signed need no sync before they are passed on: a reader's core cannot contradict them. A
//! writer's core waits for the disk where it takes over a head (`commit`).

use std::sync::atomic::Ordering;

use crate::core::durability::Durability;
use crate::core::shared::Shared;
use crate::core::state::closed;
use crate::core::synced::Unannounced;
use crate::oplog::{EntryRef, Marks};
use crate::{Error, Result};

impl Shared {
    /// Waits until what is in the files is on the disk, before the first peer sees any of it: an earlier session may
    /// not have waited, and what recovery gave up must not come back. Returns at once for the peers to come. With
    /// [`Durability::None`] it does nothing.
    ///
    /// Called with no lock held.
    pub(crate) fn sync_before_first_peer(&self) -> Result<()> {
        if self.durability == Durability::None || self.is_synced_for_peers.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _one_at_a_time = self.peer_sync.lock();
        // Nothing is written meanwhile, so that all there is was synced.
        let mut slot = self.writer.lock();
        let writer = slot.as_mut().ok_or_else(closed)?;
        if self.is_synced_for_peers.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.poison.get().is_some() {
            return Err(self.poisoned());
        }
        let mut sync = || {
            if writer.has_unflushed_recovery() && !self.read_only {
                self.prepare_files(writer)?;
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
            self.synced.mark_synced(written);
            Ok(())
        };
        sync().inspect_err(|error| self.poison(error))?;
        self.is_synced_for_peers.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until what was appended so far is on the disk, and tells the peers. Returns at once where nothing waits
    /// for that.
    ///
    /// Called with no lock held. An error poisons the core, which goes on showing peers what is on the disk.
    pub(crate) fn sync_for_peers(&self) -> Result<()> {
        if !self.has_unannounced() {
            return Ok(());
        }
        let one_at_a_time = self.peer_sync.lock();
        let synced = self.sync_and_announce();
        drop(one_at_a_time);
        // Who came meanwhile with an append found us at it, and left it.
        if self.has_unannounced() {
            if let Some(network) = self.network.get() {
                network.sync_due();
            }
        }
        synced
    }

    /// As [`Shared::sync_for_peers`], unless another thread is at it; whether it told anything. What goes wrong, the next
    /// change of the core says, or its closing.
    pub(crate) fn sync_for_peers_unless_busy(&self) -> bool {
        if !self.has_unannounced() {
            return false;
        }
        let Some(_one_at_a_time) = self.peer_sync.try_lock() else { return false };
        self.sync_and_announce().is_ok()
    }

    /// Whether something waits for the disk before peers may be told of it.
    pub(crate) fn has_unannounced(&self) -> bool {
        self.state.read().unannounced.is_some() && self.poison.get().is_none()
    }

    fn sync_and_announce(&self) -> Result<()> {
        let (written, blocks, oplog) = {
            let mut state = self.state.write();
            let files = state.files()?;
            let (blocks, oplog) = (files.blocks.clone(), files.oplog.clone());
            let head = state.head.clone();
            let Some(waiting) = &mut state.unannounced else { return Ok(()) };
            waiting.begin_sync(head);
            (self.synced.written(), blocks, oplog)
        };
        let synced = blocks.sync().and_then(|()| {
            let failed = |e| Error::from_io(e, "sync", self.storage.path("oplog"));
            oplog.sync().map_err(failed)
        });
        synced.inspect_err(|error| self.poison(error))?;
        self.synced.mark_synced(written);
        self.announce_synced();
        self.append_synced_mark();
        Ok(())
    }

    /// Shows peers what was being synced, and tells them.
    fn announce_synced(&self) {
        let _announcing = self.announcing.lock();
        let Some(changes) = Unannounced::finish_sync(&mut self.state.write().unannounced) else { return };
        if let Some(network) = self.network.get() {
            network.changed(&changes);
        }
    }

    /// Notes behind the entries that all of them are on the disk: damage that a disk does later is not to be taken for
    /// what a power cut took. The next entry would say the same, but there may be none for long.
    fn append_synced_mark(&self) {
        if self.durability != Durability::Flush || self.read_only || self.poison.get().is_some() {
            return;
        }
        // A writer that is busy writes the next entry, or flushes.
        let Some(mut slot) = self.writer.try_lock() else { return };
        let Some(writer) = slot.as_mut() else { return };
        if writer.has_unmarked_tail && self.synced.is_complete() {
            let mark = EntryRef { marks: Marks { unsynced: None, settled: true }, ..EntryRef::default() };
            // Without the mark nothing is lost but the note. It is not on the disk itself.
            self.synced.count_entry();
            writer.has_unmarked_tail =
                writer.oplog.append(&[mark], false).is_err() && writer.oplog.cut_failed_append().is_err();
        }
    }
}
