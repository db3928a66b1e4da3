//! The pure Merkle log: appending to, truncating, proving, verifying and seeking in a tree of hashes, and following a
//! fork.
//!
//! The functions read nodes from a [`NodeSource`] and return changes as a [`Patch`] on a [`Head`]. None of them
//! touches a file.
//!
//! # Which sizes are certain
//!
//! A parent's hash covers the hashes of its children and the *sum* of their sizes; a leaf's hash covers its own size.
//! So in a valid proof, the size of each node whose hash was computed is certain, and so is that of its sibling: the
//! sum less the other size. A peer can shift bytes between two siblings unnoticed only if the proof lists both of
//! them: the lowest pair of a hash or seek proof, or the last root of an upgrade and its first additional node.
//!
//! A pair of this kind, a *loose pair*, is stored nevertheless, because seeking needs it, under two rules:
//!
//! - It never replaces a held node of the same hash. If one node of the pair is held, the other gets the rest of the
//!   sum.
//! - A later proof below one of the two computes its true size. If that differs from the stored size, the same patch
//!   corrects both nodes.
//!
//! Because of the first rule, a loose pair never changes a proven node. Because of the second, no node is ever stored
//! below a node of wrong size. The whole path of a held block is proven, and so are all nodes whose sizes add up to
//! its offset: reading it always finds the right bytes. A peer can only make a *seek* end at a wrong block, as long
//! as that block is not held.
//!
//! The sizes of a head's roots are signed and so certain, with one exception: if all signers of a manifest that
//! allows patches signed a longer log, the last root and the first node of the patch are a loose pair too. A proof of
//! the first block below that root reveals a wrong size, and is refused.

mod append;
mod conflict;
mod overlay;
mod plan;
mod proof_nodes;
mod prove;
mod reorg;
mod seek;
mod verify;

pub use append::{append, truncate};
pub use conflict::{Conflict, conflict};
pub use overlay::Overlay;
pub use prove::prove;
pub use reorg::Reorg;
pub use seek::{Offsets, Seek, byte_offset, byte_offset_by, byte_range, seek_local};
pub use verify::{TreeChange, Verified, verify};

use crate::codec::MAX_SAFE_INTEGER;
use crate::crypto::hash::Hash;
use crate::index::NodeIndex;
use crate::manifest::{Manifest, SignableTree};
use crate::node::{Node, Roots};
use crate::{Error, ErrorKind, Result};

/// The nodes of a tree, in memory or in a file.
pub trait NodeSource {
    /// The node `index`; `Ok(None)` if it is not held.
    fn node(&self, index: NodeIndex) -> Result<Option<Node>>;

    /// The size of node `index` in bytes; `Ok(None)` if it is not held.
    fn size(&self, index: NodeIndex) -> Result<Option<u64>> {
        Ok(self.node(index)?.map(|node| node.size))
    }

    /// The node `index`, or an error of kind [`ErrorKind::InvalidOperation`] if it is not held.
    fn require(&self, index: NodeIndex) -> Result<Node> {
        self.node(index)?.ok_or_else(|| not_held(index))
    }
}

impl<S: NodeSource + ?Sized> NodeSource for &S {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        (**self).node(index)
    }

    fn size(&self, index: NodeIndex) -> Result<Option<u64>> {
        (**self).size(index)
    }
}

/// The signed state of a log: its roots, its fork, and the signature over both.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The roots, with the length and byte length.
    pub roots: Roots,
    /// The fork, which each truncation raises.
    pub fork: u64,
    /// The signature, in the form that the manifest's verifier checks; empty for an empty log.
    pub signature: Vec<u8>,
}

impl Head {
    /// The number of blocks of the log.
    pub fn length(&self) -> u64 {
        self.roots.length()
    }

    /// The number of bytes of all blocks, as stored.
    pub fn byte_length(&self) -> u64 {
        self.roots.byte_length()
    }

    /// The part of the head that the signature covers.
    pub fn tree(&self) -> SignableTree<'_> {
        SignableTree { roots: &self.roots, fork: self.fork }
    }

    /// The hash of the whole tree.
    pub fn tree_hash(&self) -> Hash {
        self.roots.tree_hash()
    }

    /// The node `index` of this head's tree: a root, or a node below one, which is read from `source`.
    fn node(&self, source: &(impl NodeSource + ?Sized), index: NodeIndex) -> Result<Option<Node>> {
        if index.0 > MAX_SAFE_INTEGER || index.end_block() > self.length() {
            return Ok(None);
        }
        match self.root(index) {
            Some(root) => Ok(Some(*root)),
            None => source.node(index),
        }
    }

    /// [`Head::node`], or an error if the node is not held.
    fn require(&self, source: &(impl NodeSource + ?Sized), index: NodeIndex) -> Result<Node> {
        self.node(source, index)?.ok_or_else(|| not_held(index))
    }

    fn root(&self, index: NodeIndex) -> Option<&Node> {
        self.roots.nodes().iter().find(|root| root.index == index)
    }
}

/// A change of the tree: the nodes to store, and the new head, if the head changes.
///
/// It applies only to the head of `base_fork` and `base_length`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Patch {
    /// The fork of the head that it changes.
    pub base_fork: u64,
    /// The length of the head that it changes.
    pub base_length: u64,
    /// How many blocks the old and the new log share; less than `base_length` if the log is truncated.
    pub ancestors: u64,
    /// Nodes to store.
    pub nodes: Vec<Node>,
    /// The new head; none if only nodes below the old head are added.
    pub upgrade: Option<Head>,
}

/// A request to a peer for data and its proof, or a peer's request to this core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// A block, with the nodes that prove it.
    pub block: Option<NodeRequest>,
    /// A node, with the nodes that prove it; not together with a block.
    pub hash: Option<NodeRequest>,
    /// The path to the block that holds a byte.
    pub seek: Option<SeekRequest>,
    /// A longer head.
    pub upgrade: Option<UpgradeRequest>,
}

/// A requested block or node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRequest {
    /// The index of the block in the log, or of the node in the tree.
    pub index: u64,
    /// How many levels above it the first ancestor stands that the requester trusts.
    pub nodes: u64,
}

/// A requested byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeekRequest {
    /// Its offset in the log, without padding.
    pub bytes: u64,
    /// The bytes of padding of each block.
    pub padding: u64,
}

/// A requested head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpgradeRequest {
    /// The length of the requester's log.
    pub start: u64,
    /// How many blocks beyond it are requested.
    pub length: u64,
}

/// The answer to a [`Request`]: data, and the nodes that connect it to a node that the requester trusts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// The fork of the proven log.
    pub fork: u64,
    /// The block.
    pub block: Option<BlockProof>,
    /// The node.
    pub hash: Option<HashProof>,
    /// The path to the block that holds a byte.
    pub seek: Option<SeekProof>,
    /// The longer head.
    pub upgrade: Option<UpgradeProof>,
    /// The manifest, for a requester that does not have it.
    pub manifest: Option<Manifest>,
}

/// A block and its path up the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockProof {
    /// The block's index.
    pub index: u64,
    /// The block as stored. `prove` leaves it empty, and its caller fills it in.
    pub value: Vec<u8>,
    /// The siblings of the nodes on the path up.
    pub nodes: Vec<Node>,
}

/// A node and its path up the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashProof {
    /// The node's index.
    pub index: NodeIndex,
    /// The node itself, then the siblings of the nodes on the path up.
    pub nodes: Vec<Node>,
}

/// The path from a byte's block up the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeekProof {
    /// The requested byte.
    pub bytes: u64,
    /// The node over it, then the siblings of the nodes on the path up.
    pub nodes: Vec<Node>,
}

/// A longer head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpgradeProof {
    /// The length from which it starts.
    pub start: u64,
    /// How many blocks it adds.
    pub length: u64,
    /// The roots of the added subtrees.
    pub nodes: Vec<Node>,
    /// The roots of the subtrees from `start + length` to the signed length.
    pub additional_nodes: Vec<Node>,
    /// The signature at the signed length.
    pub signature: Vec<u8>,
}

fn not_held(index: NodeIndex) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("node {index} of the tree is not held"))
}
