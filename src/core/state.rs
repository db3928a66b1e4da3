//! The state of an open core that readers see: the head, the overlays of what is not flushed yet, and user data.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use crate::core::recovery_report::{self, Recovery};
use crate::core::synced::Unannounced;
use crate::crypto::keys::Key;
use crate::index::NodeIndex;
use crate::manifest::Verifier;
use crate::merkle::Head;
use crate::oplog::{Header, ReorgHint, StoredKeyPair, TreeHeader};
use crate::storage::FileOptions;
use crate::storage::backend::{File, Storage};
use crate::storage::bitfield::{Bitfield, BitfieldFile};
use crate::storage::blocks::Blocks;
use crate::storage::tree::{Tree, TreeFile};
use crate::{Error, ErrorKind, Result};

/// The state behind the lock of `core/state_lock.rs`.
pub(crate) struct State {
    pub(crate) head: Head,
    pub(crate) verifier: Verifier,
    /// How many blocks from the first on are held without a gap. `None` until they were counted.
    pub(crate) contiguous: Option<u64>,
    pub(crate) user_data: Vec<(String, Vec<u8>)>,
    pub(crate) reorgs: Vec<ReorgHint>,
    pub(crate) snapshots: Vec<Weak<SnapshotView>>,
    /// Roots that were damaged in the file and recomputed at opening. The next flush writes them.
    pub(crate) repaired: Vec<NodeIndex>,
    /// The blocks that a crash took, until the loss is made good.
    pub(crate) recovery: Option<Recovery>,
    /// The changes that are not announced yet, if peers see an older head.
    pub(crate) unannounced: Option<Unannounced>,
    /// The contiguous length in the header, if no entry changed it since.
    pub(crate) stored_contiguous: Option<u64>,
    /// `None` once the core is closed.
    pub(crate) files: Option<Files>,
}

/// The files that readers read, with the changes that are not yet written to them.
pub(crate) struct Files {
    pub(crate) tree: Tree,
    pub(crate) bits: Bitfield,
    pub(crate) blocks: Arc<Blocks>,
    /// The file `oplog`, for syncing it without the writer lock.
    pub(crate) oplog: Arc<dyn File>,
}

/// The length, size and fork that a snapshot shows.
#[derive(Debug)]
pub(crate) struct SnapshotView {
    pub(crate) length: u64,
    pub(crate) byte_length: u64,
    pub(crate) fork: u64,
    /// Blocks from here on may differ from those that the snapshot was made of.
    pub(crate) compat_length: AtomicU64,
}

impl Files {
    pub(crate) fn open(storage: &Arc<dyn Storage>, how: FileOptions, oplog: &Arc<dyn File>) -> Result<Self> {
        Ok(Files {
            oplog: oplog.clone(),
            tree: Tree::new(Arc::new(TreeFile::open(storage, how)?)),
            bits: Bitfield::new(Arc::new(BitfieldFile::open(storage, how)?)),
            blocks: Arc::new(Blocks::open(storage, how)?),
        })
    }
}

impl State {
    /// The head that peers may see.
    pub(crate) fn announced_head(&self) -> &Head {
        self.unannounced.as_ref().map_or(&self.head, Unannounced::head)
    }

    /// The files, or an error once the core is closed.
    pub(crate) fn files(&self) -> Result<&Files> {
        self.files.as_ref().ok_or_else(closed)
    }

    pub(crate) fn files_mut(&mut self) -> Result<&mut Files> {
        self.files.as_mut().ok_or_else(closed)
    }

    /// Sets user data, or deletes it if `value` is empty.
    pub(crate) fn set_user_data(&mut self, key: &str, value: &[u8]) {
        let list = &mut self.user_data;
        let at = list.iter().position(|(k, _)| k == key);
        match (at, value.is_empty()) {
            (Some(at), true) => {
                list.remove(at);
            }
            (Some(at), false) => list[at].1 = value.to_vec(),
            (None, true) => {}
            (None, false) => list.push((key.to_owned(), value.to_vec())),
        }
    }

    /// Sets the recovery report, and stores it in the user data so that the next header keeps it
    /// for later sessions.
    pub(crate) fn set_recovery(&mut self, recovery: Option<Recovery>) {
        let value = recovery.as_ref().map_or_else(Vec::new, Recovery::encode);
        self.set_user_data(recovery_report::USER_DATA, &value);
        self.recovery = recovery;
    }

    /// Clears the recovery report if the loss was made good. The report stays if that cannot be determined now.
    pub(crate) fn clear_recovery_if_resolved(&mut self) {
        let (Some(recovery), Some(files)) = (&self.recovery, &self.files) else { return };
        if recovery.is_resolved(self.head.length(), &files.bits).unwrap_or(false) {
            self.set_recovery(None);
        }
    }

    /// The header for this state.
    pub(crate) fn header(&self, key: Key, key_pair: Option<&StoredKeyPair>) -> Header {
        let head = &self.head;
        // JavaScript Hypercore leaves the hash out until there is a first head, and writes it for a log
        // truncated to nothing.
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

/// The name of the whole storage in error messages.
pub(crate) fn storage_path(storage: &Arc<dyn Storage>) -> PathBuf {
    // `components` drops the separator that `path("")` leaves at the end of a directory.
    storage.path("").components().collect()
}
