//! `Change`: one atomic change of a core (nodes, head, held blocks, user data, manifest), as
//! [`Shared::commit`](crate::core::shared::Shared::commit) takes it.

use crate::manifest::Verifier;
use crate::merkle::Patch;
use crate::oplog::{BitfieldUpdate, EntryRef, Marks, TreeUpgrade};

/// One change of a core. It takes effect as a whole or not at all.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Changes of the tree and the head.
    pub(crate) patch: Option<Patch>,
    /// The range of blocks that becomes held or is dropped.
    pub(crate) bits: Option<BitfieldUpdate>,
    /// User data to set, as key and value; an empty value deletes the key.
    pub(crate) user_data: Option<(String, Vec<u8>)>,
    /// A verifier with a manifest that a proof brought and that was checked against the key.
    pub(crate) verifier: Option<Verifier>,
    pub(crate) origin: Origin,
}

/// The origin of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Origin {
    /// This core. The change is announced to peers only when a power cut cannot erase it.
    #[default]
    Local,
    /// A proof that other signers signed.
    Peer,
}

/// Block values that a commit writes to `data` back to back, from `offset` on.
pub(crate) struct BlockBytes<'a> {
    pub(crate) offset: u64,
    pub(crate) blocks: &'a [&'a [u8]],
}

impl<'a> BlockBytes<'a> {
    /// Each block with its byte offset.
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
    /// Whether the patch removes blocks from the log, or moves the log to another fork without removing any.
    pub(crate) fn truncates(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|head| self.ancestors < self.base_length || head.fork != self.base_fork)
    }
}
