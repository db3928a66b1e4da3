//! Taking in what others proved: the remote half of what `edit` is for local changes.

use std::collections::HashSet;

use crate::core::commit::{BlockBytes, Change};
use crate::core::state::{Shared, WriterGuard};
use crate::merkle::{self, Overlay, Verified};
use crate::oplog::BitfieldUpdate;
use crate::{Error, Result};

/// A block that was stored: its index, and how many bytes it has.
pub(crate) type Stored = (u64, u64);

impl Shared {
    /// Commits what was verified, as one batch. For each: none where it does not fit the head any more, else what was stored of a block.
    ///
    /// Verified against an older head it may have been; whether it still holds is decided here, where nobody else changes the core.
    pub(crate) fn commit_verified(&self, verified: Vec<Verified>) -> Result<Vec<Option<Option<Stored>>>> {
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
        outcomes: &mut Vec<Option<Option<Stored>>>,
    ) -> Result<()> {
        let mut changes = Vec::with_capacity(verified.len());
        let mut blocks: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut taken = HashSet::new();
        {
            let state = self.state.read();
            let files = state.files()?;
            let mut tree = Overlay::new(&files.tree);
            let mut head = state.head.clone();
            for verified in verified {
                if !verified.fits(&head) {
                    outcomes.push(None);
                    continue;
                }
                let change = match verified.settle(&tree) {
                    Ok(change) => change,
                    // It leans on a node that went meanwhile.
                    Err(error) if error.kind() == crate::ErrorKind::InvalidOperation => {
                        outcomes.push(None);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let offset = change.block_offset(&tree, &head)?;
                let merkle::Change { mut patch, block, manifest } = change;
                let cut = patch.upgrade.is_some() && patch.ancestors < patch.base_length;
                let dropped =
                    BitfieldUpdate { drop: true, start: patch.ancestors, length: patch.base_length - patch.ancestors };
                patch.nodes.sort_unstable_by_key(|node| node.index);
                tree.apply(&patch);
                if let Some(upgrade) = &patch.upgrade {
                    head = upgrade.clone();
                }
                let authority = match manifest {
                    Some(manifest) => Some(state.authority.with_manifest(manifest)?),
                    None => None,
                };
                let (mut bits, mut stored) = (cut.then_some(dropped), None);
                if let (Some((index, value)), Some(offset)) = (block, offset) {
                    let held = state.has(index)? && !(cut && index >= dropped.start);
                    if !held && cut {
                        return Err(Error::invalid_proof("a proof of a fork brings a block"));
                    }
                    stored = Some((index, value.len() as u64));
                    // What is held already is not written again.
                    if !held && taken.insert(index) {
                        bits = Some(BitfieldUpdate { drop: false, start: index, length: 1 });
                        blocks.push((offset, value));
                    }
                }
                outcomes.push(Some(stored));
                changes.push(Change { patch: Some(patch), bits, authority, ..Change::default() });
                if cut {
                    break;
                }
            }
        }
        let views: Vec<[&[u8]; 1]> = blocks.iter().map(|(_, value)| [value.as_slice()]).collect();
        let data: Vec<BlockBytes<'_>> =
            blocks.iter().zip(&views).map(|((offset, _), view)| BlockBytes { offset: *offset, blocks: view }).collect();
        self.commit(writer, &data, changes)
    }
}
