//! Syncing for peers: peers hear only of what a power cut cannot take back.
//!
//! With [`Durability::Flush`] an append returns before it is on the disk. If a peer heard of it and a power cut
//! then took it, the writer would continue from before it and sign a second history, which every replica refuses.
//! So until the blocks and their entry are synced, peers see the head from before
//! ([`State::announced_head`](crate::core::state::State::announced_head)), and the changes wait in
//! [`Unannounced`]. A connection's thread syncs once for everything that was appended until then, and afterwards
//! tells the peers ([`Shared::sync_for_peers`]). The appending thread waits for none of this, and a core without
//! peers does no additional syncs.
//!
//! Changes that others signed need no sync before they are passed on: a reader's core cannot contradict them. A
//! writer's core waits for the disk where it takes over a head (`core/commit.rs`).

use std::sync::atomic::Ordering;

use crate::core::durability::Durability;
use crate::core::shared::Shared;
use crate::core::state::closed;
use crate::core::synced::Unannounced;
use crate::oplog::{EntryRef, Marks};
use crate::{Error, Result};

impl Shared {
    /// Waits until everything in the files is on the disk, before the first peer sees any of it: an earlier session
    /// may not have waited for that, and what recovery discarded must not come back. Returns at once for later
    /// peers, and with [`Durability::None`], where it does nothing.
    ///
    /// The caller holds no lock.
    pub(crate) fn sync_before_first_peer(&self) -> Result<()> {
        if self.durability == Durability::None || self.is_synced_for_peers.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _one_at_a_time = self.peer_sync.lock();
        // The writer lock keeps others from writing, so the sync covers everything.
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

    /// Waits until everything appended so far is on the disk, and tells the peers. Returns at once if nothing
    /// waits for that.
    ///
    /// The caller holds no lock. An error poisons the core, and peers continue to see what is on the disk.
    pub(crate) fn sync_for_peers(&self) -> Result<()> {
        if !self.has_unannounced() {
            return Ok(());
        }
        let one_at_a_time = self.peer_sync.lock();
        let synced = self.sync_and_announce();
        drop(one_at_a_time);
        // A thread that found the lock taken left its appends for this one to announce.
        if self.has_unannounced() {
            if let Some(network) = self.network.get() {
                network.sync_due();
            }
        }
        synced
    }

    /// As [`Shared::sync_for_peers`], unless another thread is syncing. Returns whether this thread synced and told
    /// the peers. An error poisons the core, so the next change of the core or closing returns it.
    pub(crate) fn sync_for_peers_unless_busy(&self) -> bool {
        if !self.has_unannounced() {
            return false;
        }
        let Some(_one_at_a_time) = self.peer_sync.try_lock() else { return false };
        self.sync_and_announce().is_ok()
    }

    /// Whether changes wait for a sync before peers may hear of them.
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

    /// Shows peers the head that was synced, and tells them of the changes up to it.
    fn announce_synced(&self) {
        let _announcing = self.announcing.lock();
        let Some(changes) = Unannounced::finish_sync(&mut self.state.write().unannounced) else { return };
        if let Some(network) = self.network.get() {
            network.changed(&changes);
        }
    }

    /// Appends a mark that all entries before it are on the disk, so that later damage by the disk is not taken for
    /// what a power cut took. The next entry would say the same, but it may not come for a long time.
    fn append_synced_mark(&self) {
        if self.durability != Durability::Flush || self.read_only || self.poison.get().is_some() {
            return;
        }
        // A thread that holds the writer lock is about to write the next entry, or to flush.
        let Some(mut slot) = self.writer.try_lock() else { return };
        let Some(writer) = slot.as_mut() else { return };
        if writer.has_unmarked_tail && self.synced.is_complete() {
            let mark = EntryRef { marks: Marks { unsynced: None, settled: true }, ..EntryRef::default() };
            // A failure loses only the mark. The mark itself is not on the disk yet.
            self.synced.count_entry();
            writer.has_unmarked_tail =
                writer.oplog.append(&[mark]).is_err() && writer.oplog.cut_failed_append().is_err();
        }
    }
}
