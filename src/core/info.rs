//! What a core tells of itself at a glance.

use crate::core::encryption::Encrypted;
use crate::core::options::InfoOptions;
use crate::core::session::Session;
use crate::crypto::keys::{DiscoveryKey, Key};
use crate::storage::backend::Access;
use crate::{Error, Result};

/// What is to be known of a core at a glance; see [`Hypercore::info`](crate::Hypercore::info).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The core's key.
    pub key: Key,
    /// The name under which peers find each other.
    pub discovery_key: DiscoveryKey,
    /// How many blocks the log has.
    pub length: u64,
    /// How many of them are here without a gap.
    pub contiguous_length: u64,
    /// How many bytes they have, without padding.
    pub byte_length: u64,
    /// The fork of the log: 0 at first, and higher after each cut.
    pub fork: u64,
    /// Bytes by which each stored block is longer.
    pub padding: u64,
    /// Whether the blocks are encrypted, as far as is known.
    pub encrypted: Encrypted,
    /// Disk use, if it was asked for.
    pub storage: Option<StorageInfo>,
}

/// Disk use of a core's files in bytes, as the file system counts it (holes take nothing).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StorageInfo {
    /// The log of changes.
    pub oplog: u64,
    /// The nodes of the tree.
    pub tree: u64,
    /// The blocks.
    pub blocks: u64,
    /// The bitfield.
    pub bitfield: u64,
}

impl Session {
    pub(crate) fn info(&self, options: InfoOptions) -> Result<Info> {
        self.check_open()?;
        let shared = &*self.shared;
        let storage = match options.storage {
            false => None,
            true => {
                let (tree, bits, blocks) = {
                    let state = shared.state.read();
                    let files = state.files()?;
                    (files.tree.file().clone(), files.bits.file().clone(), files.blocks.clone())
                };
                let oplog = match shared.storage.open("oplog", Access::Read) {
                    Ok(Some(file)) => file.disk_usage(),
                    Ok(None) => Ok(0),
                    Err(e) => Err(e),
                };
                Some(StorageInfo {
                    oplog: oplog.map_err(|e| Error::from_io(e, "stat", shared.storage.path("oplog")))?,
                    tree: tree.disk_usage()?,
                    blocks: blocks.disk_usage()?,
                    bitfield: bits.disk_usage()?,
                })
            }
        };
        Ok(Info {
            key: shared.key,
            discovery_key: shared.discovery_key,
            length: self.length(),
            contiguous_length: self.contiguous_length()?,
            byte_length: self.byte_length(),
            fork: self.fork(),
            padding: self.padding(),
            encrypted: self.is_encrypted(),
            storage,
        })
    }
}
