//! A change of a core, as it is given to a commit.

use crate::manifest::Verifier;
use crate::merkle::Patch;
use crate::oplog::{BitfieldUpdate, EntryRef, Marks, TreeUpgrade};

/// One change: all of it happens or none.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// What happens to the tree.
    pub(crate) patch: Option<Patch>,
    /// Which blocks come or go.
    pub(crate) bits: Option<BitfieldUpdate>,
    /// A key to set; an empty value deletes it.
    pub(crate) user_data: Option<(String, Vec<u8>)>,
    /// A manifest that was learnt and checked.
    pub(crate) verifier: Option<Verifier>,
    /// Who made it.
    pub(crate) origin: Origin,
}

/// Who made a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Origin {
    /// This core: peers may hear of it only when a power cut cannot take it back.
    #[default]
    Local,
    /// Others, who signed it.
    Peer,
}

/// Bytes to write to `data` at an offset, for the change of this number.
pub(crate) struct BlockBytes<'a> {
    pub(crate) offset: u64,
    pub(crate) blocks: &'a [&'a [u8]],
}

impl<'a> BlockBytes<'a> {
    /// Each block with its offset.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let mut at = self.offset;
        self.blocks.iter().map(move |block| {
            let offset = at;
            at = at.saturating_add(block.len() as u64);
            (offset, *block)
        })
    }
}

impl Change {
    pub(crate) fn is_header_only(&self) -> bool {
        self.patch.is_none() && self.bits.is_none() && self.user_data.is_none()
    }

    pub(crate) fn tree_upgrade(&self) -> Option<TreeUpgrade> {
        let patch = self.patch.as_ref()?;
        let head = patch.upgrade.as_ref()?;
        Some(TreeUpgrade {
            fork: head.fork,
            ancestors: patch.ancestors,
            length: head.length(),
            signature: head.signature.clone(),
        })
    }

    pub(crate) fn entry<'a>(&'a self, upgrade: Option<&'a TreeUpgrade>) -> EntryRef<'a> {
        EntryRef {
            user_data: self.user_data.as_ref().map(|(key, value)| (key.as_str(), value.as_slice())),
            nodes: self.patch.as_ref().map_or(&[], |p| &p.nodes),
            upgrade,
            bitfield: self.bits,
            marks: Marks::default(),
        }
    }
}

impl Patch {
    /// Whether it takes blocks off the log, or none but moves it to another fork all the same.
    pub(crate) fn truncates(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|head| self.ancestors < self.base_length || head.fork != self.base_fork)
    }
}
