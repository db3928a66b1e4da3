//! The state of an open core, who guards which part of it, and how it is read from the files.
//!
//! [`State`] is what readers see: head, overlays of what is not flushed yet, user data. Whoever holds it looks at
//! memory alone: files are read without it, as `core/reading.rs` tells. [`Writer`] is what only the one who changes
//! the core needs: the oplog. Whoever holds the writer may take the state for the moment of a change; a
//! file is read or synced under the writer alone.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use crate::core::durability::Durability;
use crate::core::durable::{Lag, Synced};
use crate::core::edit::AppendQueue;
use crate::core::encryption::Known;
use crate::core::event_queue::Events;
use crate::core::lost_blocks::Recovery;
use crate::core::network::Network;
use crate::core::peers::ExtensionHandler;
use crate::core::reading::StateLock;
use crate::core::session::Sessions;
use crate::core::waiters::{DownloadEntry, Waiters};
use crate::crypto::keys::{DiscoveryKey, Key};
use crate::index::NodeIndex;
use crate::manifest::Verifier;
use crate::merkle::Head;
use crate::oplog::{Header, Oplog, ReorgHint, StoredKeyPair, TreeHeader};
use crate::storage::backend::{File, Storage};
use crate::storage::bitfield::Bitfield;
use crate::storage::blocks::Blocks;
use crate::storage::tree::Tree;
use crate::sync::{Mutex, MutexGuard};
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
    pub(crate) has_settled_once: AtomicBool,
    /// Held by the thread that syncs for the peers.
    pub(crate) settling: Mutex<()>,
    /// Held from a change of the state until the network was told, so that it hears of changes in their order.
    pub(crate) telling: Mutex<()>,
    pub(crate) queue: AppendQueue,
    pub(crate) encrypted: Known,
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

/// What readers see.
pub(crate) struct State {
    pub(crate) head: Head,
    pub(crate) verifier: Verifier,
    /// How many blocks from the first on are held; none until it was counted.
    pub(crate) contiguous: Option<u64>,
    pub(crate) user_data: Vec<(String, Vec<u8>)>,
    pub(crate) reorgs: Vec<ReorgHint>,
    pub(crate) snapshots: Vec<Weak<SnapshotView>>,
    /// Roots that were damaged in the file and computed anew at opening; the next flush writes them.
    pub(crate) repaired: Vec<NodeIndex>,
    /// What a crash took, until it is made good.
    pub(crate) recovery: Option<Recovery>,
    /// What peers were not told yet, where they see an older head.
    pub(crate) lag: Option<Lag>,
    /// The contiguous length that the header says, where no entry changed it since.
    pub(crate) stored_contiguous: Option<u64>,
    /// None once the core is closed.
    pub(crate) files: Option<Files>,
}

/// The files readers read, with what is not written to them yet.
pub(crate) struct Files {
    pub(crate) tree: Tree,
    pub(crate) bits: Bitfield,
    pub(crate) blocks: Arc<Blocks>,
    /// The file `oplog`, for syncing it without the writer.
    pub(crate) oplog: Arc<dyn File>,
}

/// What a snapshot shows.
#[derive(Debug)]
pub(crate) struct SnapshotView {
    pub(crate) length: u64,
    pub(crate) byte_length: u64,
    pub(crate) fork: u64,
    /// Blocks from here on are no longer those the snapshot was made of.
    pub(crate) compat_length: AtomicU64,
}

/// What only the one who changes the core needs.
pub(crate) struct Writer {
    pub(crate) oplog: Oplog,
    pub(crate) key_pair: Option<StoredKeyPair>,
    /// Whether this core may sign: with the stored key pair, or one given at opening.
    pub(crate) signs: bool,
    /// Bytes of blocks written since the last flush.
    pub(crate) unflushed_bytes: u64,
    /// Whether entries were appended since the last flush. Those that were found at opening do not count: who only
    /// reads, writes nothing on closing either.
    pub(crate) has_unflushed: bool,
    /// Whether something was learnt that only the header can hold.
    pub(crate) header_is_stale: bool,
    /// Whether the last entry was not waited for, and none behind it says that it is on the disk.
    pub(crate) has_unsettled_tail: bool,
    /// What has to be done to the files before anything is added to them; see [`Shared::adopt`].
    pub(crate) adoption: Adoption,
}

/// What has to be done to the files of an earlier session before the first change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Adoption {
    /// To be done: with
    /// `flush`, the entries are flushed first, for some were given up, or cut the log. Blocks that entries dropped (`holes`)
    /// may still take up space.
    Due {
        flush: bool,
        holes: Vec<Range<u64>>,
    },
    Done,
}

impl Writer {
    /// Whether opening found something that is to be made final before anybody else sees the log.
    pub(crate) fn adoption_is_due(&self) -> bool {
        matches!(self.adoption, Adoption::Due { flush: true, .. })
    }
}

/// The first failure after bytes may have moved: from then on the core is read only, until it is opened again.
#[derive(Default)]
pub(crate) struct Poison {
    why: OnceLock<Error>,
    /// Whether a caller was told of it.
    told: AtomicBool,
}

impl Poison {
    pub(crate) fn get(&self) -> Option<&Error> {
        self.why.get()
    }

    /// What closing has to say: a failure that no caller was told of.
    pub(crate) fn take_untold(&self) -> Option<&Error> {
        self.why.get().filter(|_| !self.told.swap(true, Ordering::SeqCst))
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
                self.poison.told.store(true, Ordering::SeqCst);
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
        let _ = self.poison.why.set(error.clone());
    }

    /// As [`Shared::poison`], where the caller gets `error` itself.
    pub(crate) fn poison_and_tell(&self, error: &Error) {
        self.poison(error);
        self.poison.told.store(true, Ordering::SeqCst);
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

    /// Waits until the names of the core's files are on the disk.
    pub(crate) fn sync_dir(&self) -> Result<()> {
        self.storage.sync_dir().map_err(|e| Error::from_io(e, "sync", place(&self.storage)))
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

impl State {
    /// The files, or an error once the core is closed.
    pub(crate) fn files(&self) -> Result<&Files> {
        self.files.as_ref().ok_or_else(closed)
    }

    pub(crate) fn files_mut(&mut self) -> Result<&mut Files> {
        self.files.as_mut().ok_or_else(closed)
    }

    /// The header that says all this.
    pub(crate) fn header(&self, key: Key, key_pair: Option<&StoredKeyPair>) -> Header {
        let head = &self.head;
        // The reference leaves it out until there is a first head, and gives it for one that was cut to nothing.
        let untouched = head.length() == 0 && head.fork == 0;
        Header {
            key,
            manifest: self.verifier.manifest().cloned(),
            key_pair: key_pair.cloned(),
            user_data: self.user_data.clone(),
            tree: TreeHeader {
                fork: head.fork,
                length: head.length(),
                root_hash: if untouched { None } else { Some(head.tree_hash()) },
                signature: head.signature.clone(),
            },
            reorgs: self.reorgs.clone(),
            contiguous_length: self.contiguous.unwrap_or(0),
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the core is closed")
}

/// How error messages call all of `storage`.
pub(crate) fn place(storage: &Arc<dyn Storage>) -> PathBuf {
    // Without the separator that stands at the end of a directory and an empty name.
    storage.path("").components().collect()
}
