//! Reading a block as stored: locating it in `data`, and comparing its bytes with the hash of its leaf.

use crate::core::limits::MAX_STORED_BLOCK;
use crate::core::reading::Reading;
use crate::core::shared::Shared;
use crate::crypto::hash;
use crate::index::NodeIndex;
use crate::merkle::{self, NodeSource};
use crate::node::Node;
use crate::{Error, ErrorKind, Result};

impl Shared {
    /// The stored form of block `index`, or `None` if it is not held.
    pub(crate) fn read_block(&self, index: u64) -> Result<Option<Vec<u8>>> {
        loop {
            let reading = self.reading()?;
            let held = reading.has(index);
            if !reading.is_bits_unchanged() {
                continue;
            }
            if !held? {
                return Ok(None);
            }
            let read = self.read_held(&reading, index);
            if self.is_still_valid(&reading) {
                return read.map(Some);
            }
        }
    }

    fn read_held(&self, reading: &Reading, index: u64) -> Result<Vec<u8>> {
        let (offset, leaf) = self.locate(reading, index).map_err(|error| match error.kind() {
            // A held block comes with its leaf and with all nodes that its place is computed from.
            ErrorKind::InvalidOperation => Error::corrupt(format!(
                "block {index} is held, but a node that leads to it is missing ({error}): the file is damaged; \
                 `verify --repair` recomputes the node or drops the block"
            ))
            .at(self.storage.path("tree")),
            _ => error,
        })?;
        let bytes = reading.blocks.read(offset, leaf.size as usize)?;
        if hash::leaf(&bytes) == leaf.hash {
            return Ok(bytes);
        }
        Err(Error::new(
            ErrorKind::InvalidChecksum,
            format!(
                "block {index} (at byte {offset}) is not what was signed: the file is damaged; `verify --repair` \
                 drops it, so that it can be downloaded again"
            ),
        )
        .at(self.storage.path("data")))
    }

    /// The byte offset of block `index`, which is held, and its leaf.
    fn locate(&self, reading: &Reading, index: u64) -> Result<(u64, Node)> {
        // The nodes that a block's offset is computed from have smaller indices than its leaf.
        match reading.read_from_file(NodeIndex::of_block(index), |tree| locate_in(tree, reading, index)) {
            Some(found) => found,
            None => locate_in(&reading.tree(self), reading, index),
        }
    }
}

fn locate_in(tree: &impl NodeSource, reading: &Reading, index: u64) -> Result<(u64, Node)> {
    let offset = merkle::byte_offset_by(tree, &reading.head, index, &reading.tree.offsets)?;
    let leaf = tree.require(NodeIndex::of_block(index))?;
    if leaf.size > MAX_STORED_BLOCK {
        return Err(Error::corrupt(format!(
            "the tree says block {index} has {} bytes, more than a block can have",
            leaf.size
        )));
    }
    Ok((offset, leaf))
}
