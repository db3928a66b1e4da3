//! A summary of a core: keys, lengths and disk usage.

use crate::core::encryption::Encrypted;
use crate::core::options::InfoOptions;
use crate::core::session::Session;
use crate::crypto::keys::{DiscoveryKey, Key};
use crate::storage::backend::Access;
use crate::{Error, Result};

/// A summary of a core; see [`Hypercore::info`](crate::Hypercore::info).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The core's key.
    pub key: Key,
    /// The discovery key, under which peers find each other.
    pub discovery_key: DiscoveryKey,
    /// How many blocks the log has.
    pub length: u64,
    /// How many blocks are held without a gap from the first.
    pub contiguous_length: u64,
    /// How many bytes the blocks counted by `length` have, without padding.
    pub byte_length: u64,
    /// The fork of the log: 0 at first, and higher after each truncation.
    pub fork: u64,
    /// How many bytes each stored block is longer than its plain text.
    pub padding: u64,
    /// Whether the blocks are encrypted, as far as is known.
    pub encrypted: Encrypted,
    /// Disk usage, if [`InfoOptions::storage`] asked for it.
    pub storage: Option<StorageInfo>,
}

/// Disk usage of a core's files in bytes, as the file system counts it: holes take no space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StorageInfo {
    /// The file `oplog`, the write-ahead log.
    pub oplog: u64,
    /// The file `tree`, the nodes of the Merkle tree.
    pub tree: u64,
    /// The file `data`, the blocks.
    pub blocks: u64,
    /// The file `bitfield`, one bit per held block.
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
