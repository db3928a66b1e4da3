//! Storing what others proved: verified proofs are committed in batches.

use std::collections::HashSet;

use crate::core::change::{BlockBytes, Change, Origin};
use crate::core::reading::Reading;
use crate::core::shared::{Shared, WriterGuard};
use crate::manifest::Verifier;
use crate::merkle::{self, Head, NodeSource, Overlay, Verified};
use crate::oplog::BitfieldUpdate;
use crate::{Error, ErrorKind, Result};

/// What became of something verified.
pub(crate) enum Committed {
    /// It is stored; if it brought a block, its index and how many bytes it has.
    Stored(Option<(u64, u64)>),
    /// It does not fit the head any more.
    Stale,
    /// It cannot be stored; the others are not touched by that.
    Refused(Error),
}

impl Shared {
    /// Commits what was verified, as one batch, and tells for each what became of it. An error means that not all that fitted is stored.
    ///
    /// Verified against an older head it may have been; whether it still holds is decided here, where nobody else changes the core.
    pub(crate) fn commit_verified(&self, verified: Vec<Verified>) -> Result<Vec<Committed>> {
        let mut writer = self.writer()?;
        let mut outcomes = Vec::with_capacity(verified.len());
        let mut rest = verified.into_iter();
        while rest.len() > 0 {
            self.commit_next(&mut writer, &mut rest, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// Commits the next of `verified`, up to one that cuts the log: a block that follows it may lie where one lies that was cut off, and
    /// must not be written there before the cut is committed.
    fn commit_next(
        &self,
        writer: &mut WriterGuard<'_>,
        verified: &mut std::vec::IntoIter<Verified>,
        outcomes: &mut Vec<Committed>,
    ) -> Result<()> {
        let mut batch = Batch::default();
        {
            // Nobody else changes the core: the caller holds the writer.
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
                        // It leans on a node that went meanwhile.
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
        // Blocks that lie back to back are written as one piece.
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

/// What is to be committed together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    /// Blocks by their place in the file.
    blocks: Vec<(u64, Vec<u8>)>,
    new_blocks: HashSet<u64>,
    /// Whether the last change cuts the log.
    truncates: bool,
}

impl Batch {
    /// Adds what `verified` changes of `tree` and `head`, which are those of now with the batch so far over them. On an error
    /// nothing has changed.
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
            // What is held already is not written again.
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
        self.changes.push(Change { patch: Some(patch), bits, verifier: learnt, origin: Origin::Peer, user_data: None });
        Ok(stored)
    }
}
