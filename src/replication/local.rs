//! The core as the replicator sees it.

use crate::error::Error;
use crate::index::NodeIndex;
use crate::merkle::{Head, NodeSource};

/// The core as the machine sees it: a consistent view, held for the length of one call.
///
/// Nodes are read through [`NodeSource`]; one that cannot be read counts as absent here, and the commit that needs it reports why.
pub trait Local: NodeSource {
    /// The head: length, fork, roots.
    fn head(&self) -> &Head;
    /// How many blocks from the first on are held without a hole.
    fn contiguous_length(&self) -> u64;
    /// Whether block `index` is held.
    fn has(&self, index: u64) -> bool;
    /// The first block from `from` on that is not held; past the end of the log nothing is.
    fn first_unset(&self, from: u64) -> u64;
    /// The first block from `from` on that is held.
    fn first_set(&self, from: u64) -> Option<u64>;
    /// The bits of the blocks from `start` on (a multiple of 32), lowest bit first; zeros past the end.
    fn words(&self, start: u64, words: &mut [u32]);
    /// Whether the manifest is known.
    fn has_manifest(&self) -> bool;
    /// Whether the core is a compat core, whose manifest is not offered to peers.
    fn is_compat(&self) -> bool;
}

/// What became of a proof that was to be committed.
#[derive(Clone, Debug)]
pub enum CommitOutcome {
    /// Verified and stored.
    Stored,
    /// Verified, but the head moved before it could be stored: it is asked for again.
    Stale,
    /// It does not verify. Whose fault it is follows from the error's kind and from what happened since it was asked for.
    Rejected(Error),
    /// It was not stored, by a fault of the core. No more is asked for until [`Replicator::resume`].
    Failed,
}

/// What the core did, by whomever: said once for each commit, after it.
#[derive(Clone, Default, Debug)]
pub struct LogChange {
    /// Blocks that are held now, as disjoint ranges from the left.
    pub have: Vec<std::ops::Range<u64>>,
    /// Blocks that are held no more, by clearing or truncating.
    pub dropped: Option<std::ops::Range<u64>>,
    /// Whether length or fork changed.
    pub upgraded: bool,
    /// Where the log was cut, with the length it had.
    pub truncated: Option<std::ops::Range<u64>>,
    /// Whether the manifest has become known.
    pub manifest: bool,
}

/// Whether the node is in the own tree.
pub(super) fn is_held(local: &dyn Local, index: NodeIndex) -> bool {
    let root = local.head().roots.nodes().iter().any(|root| root.index == index);
    root || local.node(index).is_ok_and(|node| node.is_some())
}
