//! Storing blocks and nodes that peers proved: verified proofs are committed in batches.

use std::collections::HashSet;

use crate::core::change::{BlockBytes, Change, Origin};
use crate::core::reading::Reading;
use crate::core::shared::{Shared, WriterGuard};
use crate::manifest::Verifier;
use crate::merkle::{self, Head, NodeSource, Overlay, Verified};
use crate::oplog::BitfieldUpdate;
use crate::{Error, ErrorKind, Result};

/// The outcome of one verified proof.
pub(crate) enum Committed {
    /// The proof is stored. If it brought a block: the block's index and its size in bytes.
    Stored(Option<(u64, u64)>),
    /// The proof does not fit the head any more.
    Stale,
    /// The proof cannot be stored. The other proofs of the batch are not affected.
    Refused(Error),
}

impl Shared {
    /// Commits verified proofs in as few batches as possible, and returns the outcome of each, in their order. An
    /// error means that not all proofs that fit are stored.
    ///
    /// A proof may have been verified against an older head. This decides, under the writer lock, whether
    /// it still holds.
    pub(crate) fn commit_verified(&self, verified: Vec<Verified>) -> Result<Vec<Committed>> {
        let mut writer = self.writer()?;
        let mut outcomes = Vec::with_capacity(verified.len());
        let mut rest = verified.into_iter();
        while rest.len() > 0 {
            self.commit_next(&mut writer, &mut rest, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// Commits the next proofs of `verified`, up to and including one that truncates the log. A later block may occupy
    /// the same bytes as a truncated one. It must be written only after the truncation is committed.
    fn commit_next(
        &self,
        writer: &mut WriterGuard<'_>,
        verified: &mut std::vec::IntoIter<Verified>,
        outcomes: &mut Vec<Committed>,
    ) -> Result<()> {
        let mut batch = Batch::default();
        {
            // The caller holds the writer lock, so the core cannot change here.
            let reading = self.reading()?;
            let verifier = self.state.read().verifier.clone();
            let mut tree = Overlay::new(reading.tree(self));
            let mut head = reading.head.clone();
            for verified in verified {
                outcomes.push(if !verified.fits(&head) {
                    Committed::Stale
                } else {
                    match batch.add(verified, &reading, &verifier, &mut tree, &mut head) {
                        Ok(stored) => Committed::Stored(stored),
                        // A node that the proof depends on was removed since it was verified.
                        Err(error) if error.kind() == ErrorKind::InvalidOperation => Committed::Stale,
                        Err(error) => Committed::Refused(error),
                    }
                });
                if batch.truncates {
                    break;
                }
            }
        }
        let Batch { changes, blocks, .. } = batch;
        if changes.is_empty() {
            return Ok(());
        }
        // Blocks that are adjacent in the file are written as one piece.
        let values: Vec<&[u8]> = blocks.iter().map(|(_, value)| value.as_slice()).collect();
        let mut data = Vec::new();
        let mut rest = &values[..];
        for run in blocks.chunk_by(|(a, value), (b, _)| a.checked_add(value.len() as u64) == Some(*b)) {
            let (blocks, after) = rest.split_at(run.len());
            data.push(BlockBytes { offset: run[0].0, blocks });
            rest = after;
        }
        self.commit(writer, &data, changes)
    }
}

/// The changes that are committed together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    /// Byte offset in `data` and value of each new block.
    blocks: Vec<(u64, Vec<u8>)>,
    new_blocks: HashSet<u64>,
    /// Whether the last change truncates the log.
    truncates: bool,
}

impl Batch {
    /// Adds the change that `verified` makes. `tree` and `head` are the current ones with the batch so far applied,
    /// and are moved past this change. Returns the index and size of the block that the proof brings, if any.
    /// Nothing has changed after an error.
    fn add<S: NodeSource>(
        &mut self,
        verified: Verified,
        reading: &Reading,
        verifier: &Verifier,
        tree: &mut Overlay<S>,
        head: &mut Head,
    ) -> Result<Option<(u64, u64)>> {
        let change = verified.settle(&*tree)?;
        let offset = change.block_offset(&*tree, head)?;
        let merkle::TreeChange { mut patch, block, manifest } = change;
        let learnt = match manifest {
            Some(manifest) => Some(verifier.with_manifest(manifest)?),
            None => None,
        };
        let cut = patch.upgrade.is_some() && patch.ancestors < patch.base_length;
        let dropped =
            BitfieldUpdate { drop: true, start: patch.ancestors, length: patch.base_length - patch.ancestors };
        let (mut bits, mut stored) = (cut.then_some(dropped), None);
        if let (Some((index, value)), Some(offset)) = (block, offset) {
            let held = reading.has(index)? && !(cut && index >= dropped.start);
            if !held && cut {
                return Err(Error::invalid_proof("a proof of a fork brings a block"));
            }
            stored = Some((index, value.len() as u64));
            // A block that is held already is not written again.
            if !held && self.new_blocks.insert(index) {
                bits = Some(BitfieldUpdate { drop: false, start: index, length: 1 });
                self.blocks.push((offset, value));
            }
        }
        patch.nodes.sort_unstable_by_key(|node| node.index);
        tree.apply(&patch);
        if let Some(upgrade) = &patch.upgrade {
            *head = upgrade.clone();
        }
        self.truncates = cut;
        let origin = Origin::Peer;
        self.changes.push(Change { patch: Some(patch), bits, verifier: learnt, origin, user_data: None });
        Ok(stored)
    }
}
