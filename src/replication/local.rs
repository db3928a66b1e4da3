//! The core as the replicator reads it, and what the driver reports about it.

use crate::error::Error;
use crate::index::NodeIndex;
use crate::merkle::{Head, NodeSource};

/// A consistent view of the core, valid for one call.
///
/// Nodes are read through [`NodeSource`]. A node that cannot be read counts as absent here; the commit that
/// needs it reports the error.
pub trait Local: NodeSource {
    /// The head: length, fork, roots.
    fn head(&self) -> &Head;
    /// The number of blocks held from block 0 without a gap.
    fn contiguous_length(&self) -> u64;
    /// Whether block `index` is held.
    fn has(&self, index: u64) -> bool;
    /// The first block from `from` on that is not held; no block past the end of the log is.
    fn first_unset(&self, from: u64) -> u64;
    /// The first block from `from` on that is held.
    fn first_set(&self, from: u64) -> Option<u64>;
    /// Copies the bits of the blocks from `start` on (a multiple of 32), lowest bit first, zero past the end.
    fn words(&self, start: u64, words: &mut [u32]);
    /// Whether the manifest is known.
    fn has_manifest(&self) -> bool;
    /// Whether the core is a compat core, whose manifest is not offered to peers.
    fn is_compat(&self) -> bool;
}

/// The outcome of a commit.
#[derive(Clone, Debug)]
pub enum CommitOutcome {
    /// Verified and stored.
    Stored,
    /// Verified, but the head changed before it could be stored. It is requested again.
    Stale,
    /// Invalid. The error's kind, and what happened since the request, tell whether the peer is at fault.
    Rejected(Error),
    /// The core could not store it. Nothing more is requested.
    Failed,
}

/// The changes of one commit, whether it was a local append or came from a peer.
#[derive(Clone, Default, Debug)]
pub struct LogChange {
    /// Blocks that are now held, as disjoint ascending ranges.
    pub have: Vec<std::ops::Range<u64>>,
    /// Blocks that are no longer held, because they were cleared or truncated.
    pub dropped: Option<std::ops::Range<u64>>,
    /// Whether length or fork changed.
    pub upgraded: bool,
    /// The new and the old length, if the log was truncated.
    pub truncated: Option<std::ops::Range<u64>>,
    /// Whether the manifest became known.
    pub manifest: bool,
}

pub(super) fn is_held(local: &dyn Local, index: NodeIndex) -> bool {
    let root = local.head().roots.nodes().iter().any(|root| root.index == index);
    root || local.node(index).is_ok_and(|node| node.is_some())
}
