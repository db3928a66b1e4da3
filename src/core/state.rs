//! What readers of an open core see: the head, the overlays of what is not flushed yet, user data.

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
use crate::storage::OpenHow;
use crate::storage::backend::{File, Storage};
use crate::storage::bitfield::{Bitfield, BitfieldFile};
use crate::storage::blocks::Blocks;
use crate::storage::tree::{Tree, TreeFile};
use crate::{Error, ErrorKind, Result};

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
    pub(crate) unannounced: Option<Unannounced>,
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

impl Files {
    pub(crate) fn open(storage: &Arc<dyn Storage>, how: OpenHow, oplog: &Arc<dyn File>) -> Result<Self> {
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

    /// Sets or, with an empty value, deletes user data.
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

    /// Remembers `recovery`, also for the openings to come: the next header holds it.
    pub(crate) fn set_recovery(&mut self, recovery: Option<Recovery>) {
        let value = recovery.as_ref().map_or_else(Vec::new, Recovery::encode);
        self.set_user_data(recovery_report::USER_DATA, &value);
        self.recovery = recovery;
    }

    /// Forgets a loss that was made good meanwhile. Where that cannot be found out now, the report stays.
    pub(crate) fn clear_recovery_if_resolved(&mut self) {
        let (Some(recovery), Some(files)) = (&self.recovery, &self.files) else { return };
        if recovery.is_resolved(self.head.length(), &files.bits).unwrap_or(false) {
            self.set_recovery(None);
        }
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
pub(crate) fn storage_path(storage: &Arc<dyn Storage>) -> PathBuf {
    // Without the separator that stands at the end of a directory and an empty name.
    storage.path("").components().collect()
}
