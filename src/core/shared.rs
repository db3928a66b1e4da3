//! One open core, and who guards which part of it.
//!
//! [`State`](crate::core::state::State) is what readers see: head, overlays of what is not flushed yet, user data. Whoever holds it looks at
//! memory alone: files are read without it, as `core/reading.rs` tells. [`Writer`] is what only the one who changes
//! the core needs: the oplog. Whoever holds the writer may take the state for the moment of a change; a
//! file is read or synced under the writer alone.

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
use crate::core::request::WaitFor;
use crate::core::state::{closed, storage_path};
use crate::core::state_lock::StateLock;
use crate::core::synced::Synced;
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
    /// None once the core is closed.
    pub(crate) writer: Mutex<Option<Writer>>,
    /// Why nothing is written any more, once something failed.
    pub(crate) poison: Poison,
    /// How far changes are on the disk.
    pub(crate) synced: Synced,
    /// Whether the files as they were found were synced for the peers.
    pub(crate) is_synced_for_peers: AtomicBool,
    /// Held by the thread that syncs for the peers.
    pub(crate) peer_sync: Mutex<()>,
    /// Held from a change of the state until the network was told, so that it hears of changes in their order.
    pub(crate) announcing: Mutex<()>,
    pub(crate) queue: AppendQueue,
    pub(crate) encryption_state: EncryptionState,
    pub(crate) state: StateLock,
    /// Grows each time a block's bytes may be given up: a reader that finds it grown after reading has to look again.
    pub(crate) generation: AtomicU64,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) events: Arc<Events>,
    pub(crate) sessions: Sessions,
    pub(crate) network: Arc<OnceLock<Arc<dyn Network>>>,
    /// Downloads that go on whether or not somebody waits for them.
    pub(crate) downloads: Mutex<Vec<Arc<DownloadEntry>>>,
    /// How many are looking for peers.
    pub(crate) finders: Mutex<usize>,
    /// Extensions by name, for conversations that begin later.
    pub(crate) extensions: Mutex<Vec<(String, u64, ExtensionHandler)>>,
}

/// The sessions that are open, by id, each with what says that it no longer is.
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

    /// Closes `id` and takes it off the list: whether it was the last, or nothing where it was closed before.
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
    /// Takes the writer; an error once the core is closed or a write failed.
    pub(crate) fn writer(&self) -> Result<WriterGuard<'_>> {
        self.check_writer(self.writer.lock())
    }

    pub(crate) fn check_writer<'a>(&'a self, guard: MutexGuard<'a, Option<Writer>>) -> Result<WriterGuard<'a>> {
        match guard.as_ref() {
            None => Err(closed()),
            Some(_) if self.poison.get().is_some() => {
                self.poison.is_reported();
                Err(self.poisoned())
            }
            Some(_) if self.read_only => {
                Err(Error::new(ErrorKind::NotWritable, "the core was opened read-only").at(self.storage.path("oplog")))
            }
            Some(_) => Ok(WriterGuard { guard, shared: self, unwinding: thread::panicking() }),
        }
    }

    /// Stops all writing because of `error`, of which no caller is told now: the next that writes or closes is.
    pub(crate) fn poison(&self, error: &Error) {
        self.poison.set(error);
    }

    /// As [`Shared::poison`], where the caller gets `error` itself.
    pub(crate) fn poison_and_report(&self, error: &Error) {
        self.poison(error);
        self.poison.is_reported();
    }

    /// What a caller is told who wants to write after a failure.
    pub(crate) fn poisoned(&self) -> Error {
        let why = self.poison.get().map_or_else(String::new, Error::to_string);
        Error::new(
            ErrorKind::Failed,
            format!("an earlier write failed ({why}); nothing was lost that a call acknowledged: open the core again to go on"),
        )
        .at(self.storage.path("oplog"))
    }

    /// What a sync returned. After one that failed the system may have dropped what it could not write: nothing is
    /// written any more.
    pub(crate) fn check_sync(&self, done: Result<()>) -> Result<()> {
        done.inspect_err(|error| self.poison(error))
    }

    /// Poisons the core for `error`, of which the caller is told, unless there was just no room and nothing of the
    /// change is left: room can be made, by a clear for one.
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

    /// Has the network bring what `waiting` waits for, if there is one. One that comes later asks by itself.
    pub(crate) fn ask(&self, waiting: &Waiting, want: &WaitFor) {
        if let Some(network) = self.network.get() {
            network.wait_for(waiting.id(), want);
        }
    }

    /// Tells the events so far, with no lock held.
    pub(crate) fn deliver(&self) {
        self.events.deliver();
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

/// The writer of a core that is open and sound. A panic under it poisons the core: half of a change may have been
/// made.
pub(crate) struct WriterGuard<'a> {
    guard: MutexGuard<'a, Option<Writer>>,
    shared: &'a Shared,
    /// Whether the thread was unwinding already when it took the writer.
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
            None => unreachable!("a writer guard is only made of an open core"),
        }
    }
}

impl std::ops::DerefMut for WriterGuard<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        match self.guard.as_mut() {
            Some(writer) => writer,
            None => unreachable!("a writer guard is only made of an open core"),
        }
    }
}

/// Whether `error` says that there is no room: on the disk, under a quota, or under a limit of the process.
pub(crate) fn is_out_of_space(error: &Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    error.io_error().is_some_and(|e| matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}
