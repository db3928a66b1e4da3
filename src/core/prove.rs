//! Proving to a peer what it asks for.

use crate::Result;
use crate::core::reading::{Reading, TreeView};
use crate::core::shared::Shared;
use crate::merkle::{self, Proof, Request};

impl Shared {
    /// The answer to a peer's `request`; none where a block of it is not held, or not known to be on the disk.
    pub(crate) fn prove(&self, request: &Request) -> Result<Option<Proof>> {
        let value = match &request.block {
            Some(block) if block.index >= self.state.read().announced_head().length() => return Ok(None),
            Some(block) => match self.read_block(block.index)? {
                Some(value) => Some(value),
                None => return Ok(None),
            },
            None => None,
        };
        let prove = |reading: &Reading, tree: &TreeView<'_>| {
            merkle::prove(tree, reading.announced_head(), reading.prologue.as_ref(), request)
        };
        // What proves a held block is not put right any more.
        let mut proof = match (request.hash, request.seek) {
            (None, None) => self.read_tree(prove)?,
            _ => self.read_stable(prove)?,
        };
        match (&mut proof.block, value) {
            (Some(block), Some(value)) => block.value = value,
            (None, None) => {}
            _ => return Ok(None),
        }
        Ok(Some(proof))
    }
}
