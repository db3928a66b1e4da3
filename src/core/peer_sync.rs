//! Syncing for peers: only changes that a power cut cannot erase are announced to peers.
//!
//! With [`Durability::Flush`] an append returns before it is on the disk. If a peer knew of an append that a power cut
//! then erased, the writer would append again from the earlier length and sign a conflicting log, which every replica
//! refuses. So until the blocks and their entry are synced, peers see the head from before
//! ([`State::announced_head`](crate::core::state::State::announced_head)), and the changes wait in
//! [`Unannounced`]. A connection's thread syncs once for everything that was appended until then, and afterwards
//! tells the peers ([`Shared::sync_for_peers`]). The appending thread waits for none of this, and a core without
//! peers does no additional syncs.
//!
//! Changes that others signed need no sync before they are passed on: a reader's core cannot contradict them. A
//! writer's core waits for the disk where it stores a head that a peer sent (`core/commit.rs`).

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
        synced.inspect(|()| self.wake_for_changes_during_sync())
    }

    /// As [`Shared::sync_for_peers`], unless another thread is syncing. Returns whether this thread synced and told
    /// the peers. An error poisons the core, so the next change of the core or closing returns it.
    pub(crate) fn sync_for_peers_unless_busy(&self) -> bool {
        if !self.has_unannounced() {
            return false;
        }
        let Some(one_at_a_time) = self.peer_sync.try_lock() else { return false };
        let synced = self.sync_and_announce();
        drop(one_at_a_time);
        synced.inspect(|()| self.wake_for_changes_during_sync()).is_ok()
    }

    /// Wakes the connections' threads if the core changed during a sync: they found the lock taken and went to sleep,
    /// and the thread that synced may be about to block on a slow peer. Called without the lock, and after a
    /// successful sync only: after a failed one, each thread that wakes would fail and wake the others.
    fn wake_for_changes_during_sync(&self) {
        if self.has_unannounced() {
            if let Some(network) = self.network.get() {
                network.sync_due();
            }
        }
    }

    /// Whether changes wait for a sync before they may be announced to peers.
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
        let _notifying = self.notifying.lock();
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::core::handle::Hypercore;
    use crate::core::network::testing::RecordingNetwork;
    use crate::storage::backend::{Access, File, Storage};
    use crate::storage::memory::Memory;

    type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

    /// Storage in memory that runs a hook during the next sync of `oplog`.
    struct HookedStorage(Memory, Hook);

    struct HookedFile(Arc<dyn File>, Option<Hook>);

    impl Storage for HookedStorage {
        fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
            let hook = (name == "oplog").then(|| self.1.clone());
            let file = self.0.open(name, access)?;
            Ok(file.map(|file| Arc::new(HookedFile(file, hook)) as Arc<dyn File>))
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync_dir(&self) -> io::Result<()> {
            self.0.sync_dir()
        }
        fn path(&self, name: &str) -> PathBuf {
            self.0.path(name)
        }
    }

    impl File for HookedFile {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, bytes)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync(&self) -> io::Result<()> {
            let hook = self.1.as_ref().and_then(|hook| hook.lock().unwrap().take());
            hook.into_iter().for_each(|hook| hook());
            self.0.sync()
        }
        fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.punch(offset, len)
        }
        fn disk_usage(&self) -> io::Result<u64> {
            self.0.disk_usage()
        }
        fn lock(&self, exclusive: bool) -> io::Result<bool> {
            self.0.lock(exclusive)
        }
    }

    #[test]
    fn append_during_sync_wakes_the_connections_after_it() {
        for unless_busy in [false, true] {
            let hook = Hook::default();
            let storage = HookedStorage(Memory::new(), hook.clone());
            let core = Hypercore::options().durability(Durability::Flush).open_in(storage).unwrap();
            let shared = &core.session.shared;
            let network = Arc::new(RecordingNetwork::default());
            assert!(shared.network.set(network.clone()).is_ok());
            shared.sync_before_first_peer().unwrap();
            let due = || network.syncs_due.load(Ordering::SeqCst);

            core.append("first").unwrap();
            assert_eq!(due(), 1);
            let again = core.clone();
            *hook.lock().unwrap() = Some(Box::new(move || _ = again.append("second").unwrap()));
            let sync = || match unless_busy {
                true => assert!(shared.sync_for_peers_unless_busy()),
                false => shared.sync_for_peers().unwrap(),
            };
            sync();
            assert!(shared.has_unannounced());
            assert_eq!(due(), 3, "one for the second append, one after the sync");
            sync();
            assert!(!shared.has_unannounced());
            assert_eq!(due(), 3);
        }
    }
}
