//! Proofs for a peer's requests.

use crate::Result;
use crate::core::reading::{Reading, TreeView};
use crate::core::shared::Shared;
use crate::merkle::{self, Proof, Request};

impl Shared {
    /// Returns the proof for a peer's `request`, or `None` if its block is not held or not known to be on the disk.
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
        // Repairs replace only nodes that lead to no held block, so a block's proof needs no stable read.
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
