//! One open core, and the locks that guard its parts.
//!
//! [`State`](crate::core::state::State) is what readers see: head, overlays of what is not flushed yet, user data.
//! A thread that holds it reads only memory; files are read without it, as `core/reading.rs` describes. [`Writer`]
//! is what only the thread that changes the core needs: the oplog. A thread that holds the writer lock takes the
//! state lock only for the moment of a change, and reads or syncs files under the writer lock alone.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::core::append_queue::AppendQueue;
use crate::core::durability::Durability;
use crate::core::encryption::EncryptionState;
use crate::core::event_queue::Events;
use crate::core::network::Network;
use crate::core::peers::ExtensionHandler;
use crate::core::state::{closed, storage_path};
use crate::core::state_lock::StateLock;
use crate::core::synced::Synced;
use crate::core::wait_goal::WaitGoal;
use crate::core::waiters::{DownloadEntry, Waiters, Waiting};
use crate::core::writer::{Poison, Writer};
use crate::crypto::keys::{DiscoveryKey, Key};
use crate::storage::backend::Storage;
use crate::sync::{Mutex, MutexGuard, Rank};
use crate::{Error, ErrorKind, Result};

/// One open core, shared by its sessions and connections.
pub(crate) struct Shared {
    pub(crate) key: Key,
    pub(crate) discovery_key: DiscoveryKey,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) durability: Durability,
    pub(crate) read_only: bool,
    /// `None` once the core is closed.
    pub(crate) writer: Mutex<Option<Writer>>,
    /// The failure after which nothing is written any more, if there was one.
    pub(crate) poison: Poison,
    /// How many changes were written, and how many of them are on the disk.
    pub(crate) synced: Synced,
    /// Whether the files as they were found at opening have been synced for the first peer.
    pub(crate) is_synced_for_peers: AtomicBool,
    /// Held by the thread that syncs for peers.
    pub(crate) peer_sync: Mutex<()>,
    /// Held from a state change until the network is notified; this keeps notifications in order.
    pub(crate) notifying: Mutex<()>,
    pub(crate) queue: AppendQueue,
    pub(crate) encryption_state: EncryptionState,
    pub(crate) state: StateLock,
    /// Incremented whenever block bytes may be freed. A reader that sees a new value after its read repeats the read.
    pub(crate) generation: AtomicU64,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) events: Arc<Events>,
    pub(crate) sessions: Sessions,
    pub(crate) network: Arc<OnceLock<Arc<dyn Network>>>,
    /// Downloads that continue whether or not a thread waits for them.
    pub(crate) downloads: Mutex<Vec<Arc<DownloadEntry>>>,
    /// The number of open [`FindingPeers`](crate::core::finding_peers::FindingPeers).
    pub(crate) finders: Mutex<usize>,
    /// Extensions by name, for connections that open later.
    pub(crate) extensions: Mutex<Vec<(String, u64, ExtensionHandler)>>,
}

/// The open sessions by id, each with the flag that says whether it was closed.
pub(crate) struct Sessions {
    next: AtomicU64,
    open: Mutex<Vec<(u64, Arc<AtomicBool>)>>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Sessions { next: AtomicU64::new(1), open: Mutex::new(Rank::Session, Vec::new()) }
    }

    pub(crate) fn add(&self) -> (u64, Arc<AtomicBool>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let closed = Arc::new(AtomicBool::new(false));
        self.open.lock().push((id, closed.clone()));
        (id, closed)
    }

    /// Closes session `id` and removes it from the list. Returns whether it was the last one, or `None` if it
    /// was closed before.
    pub(crate) fn remove(&self, id: u64) -> Option<bool> {
        let mut open = self.open.lock();
        let at = open.iter().position(|(other, _)| *other == id)?;
        open.remove(at).1.store(true, Ordering::SeqCst);
        Some(open.is_empty())
    }

    pub(crate) fn take_all(&self) -> Vec<u64> {
        let mut open = self.open.lock();
        open.drain(..)
            .map(|(id, closed)| {
                closed.store(true, Ordering::SeqCst);
                id
            })
            .collect()
    }
}

impl Shared {
    /// Locks the writer. Fails once the core is closed, after a write failed, and for a core that was opened
    /// read-only. Blocks while another thread changes the core.
    pub(crate) fn writer(&self) -> Result<WriterGuard<'_>> {
        self.check_writer(self.writer.lock())
    }

    pub(crate) fn check_writer<'a>(&'a self, guard: MutexGuard<'a, Option<Writer>>) -> Result<WriterGuard<'a>> {
        match guard.as_ref() {
            None => Err(closed()),
            Some(_) if self.poison.get().is_some() => {
                self.poison.set_reported();
                Err(self.poisoned())
            }
            Some(_) if self.read_only => {
                Err(Error::new(ErrorKind::NotWritable, "the core was opened read-only").at(self.storage.path("oplog")))
            }
            Some(_) => Ok(WriterGuard { guard, shared: self, unwinding: thread::panicking() }),
        }
    }

    /// Refuses all writes from now on because of `error`, which no call returns now. The next call that writes, or
    /// closing, returns it.
    pub(crate) fn poison(&self, error: &Error) {
        self.poison.set(error);
    }

    /// As [`Shared::poison`], for a caller that returns `error` itself.
    pub(crate) fn poison_and_report(&self, error: &Error) {
        self.poison(error);
        self.poison.set_reported();
    }

    /// The error of every write after a failed one.
    pub(crate) fn poisoned(&self) -> Error {
        let why = self.poison.get().map_or_else(String::new, Error::to_string);
        Error::new(
            ErrorKind::Failed,
            format!(
                "an earlier write failed ({why}); no acknowledged change was lost: open the core again to continue"
            ),
        )
        .at(self.storage.path("oplog"))
    }

    /// Returns the result of a sync. A failed sync poisons the core, because the operating system may have dropped
    /// what it could not write.
    pub(crate) fn check_sync(&self, done: Result<()>) -> Result<()> {
        done.inspect_err(|error| self.poison(error))
    }

    /// Poisons the core because of `error`, which the caller returns. It does not if only disk space was missing
    /// and nothing of the change is left: the caller can make room, for example with a clear, and go on.
    pub(crate) fn poison_unless_full(&self, writer: &Writer, error: &Error) {
        if !self.is_clean_out_of_space(writer, error) {
            self.poison_and_report(error);
        }
    }

    pub(crate) fn is_clean_out_of_space(&self, writer: &Writer, error: &Error) -> bool {
        is_out_of_space(error) && self.poison.get().is_none() && writer.oplog.is_good()
    }

    /// Waits until the names of the core's files are on the disk.
    pub(crate) fn sync_dir(&self) -> Result<()> {
        self.storage.sync_dir().map_err(|e| Error::from_io(e, "sync", storage_path(&self.storage)))
    }

    /// Asks the network to fetch what `waiting` waits for, if there is a network. One that is added later asks for
    /// it by itself.
    pub(crate) fn ask(&self, waiting: &Waiting, want: &WaitGoal) {
        if let Some(network) = self.network.get() {
            network.wait_for(waiting.id(), want);
        }
    }

    /// Runs the callbacks of the events that are queued. The caller holds no lock.
    pub(crate) fn deliver(&self) {
        self.events.deliver();
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

/// The writer lock of a core that is open and not poisoned. A panic while it is held poisons the core, because a
/// change may be half done.
pub(crate) struct WriterGuard<'a> {
    guard: MutexGuard<'a, Option<Writer>>,
    shared: &'a Shared,
    /// Whether the thread was already unwinding when it took the lock.
    unwinding: bool,
}

impl Drop for WriterGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.unwinding {
            self.shared.poison(&Error::new(ErrorKind::Failed, "a thread panicked while it changed the core"));
        }
    }
}

impl std::ops::Deref for WriterGuard<'_> {
    type Target = Writer;
    fn deref(&self) -> &Writer {
        match self.guard.as_ref() {
            Some(writer) => writer,
            None => unreachable!("a writer guard exists only for an open core"),
        }
    }
}

impl std::ops::DerefMut for WriterGuard<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        match self.guard.as_mut() {
            Some(writer) => writer,
            None => unreachable!("a writer guard exists only for an open core"),
        }
    }
}

/// Whether `error` says that there is no room: on the disk, under a quota, or under a limit of the process.
pub(crate) fn is_out_of_space(error: &Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    error.io_error().is_some_and(|e| matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}
