//! The pure Merkle log: what appending, proving, verifying, seeking and forking do to a tree of hashes.
//!
//! Nodes come from a [`NodeSource`]; what changes comes out as a [`Patch`] on a [`Head`]. Nothing here touches a file.
//!
//! # What a stored size is worth
//!
//! A parent's hash covers its children's hashes and the *sum* of their sizes, and a leaf's hash its own size. So in a proof
//! that holds, each node whose hash was computed has the size it says, and so has the sibling of one: sum less the other.
//! Only where both children of a node were merely told (the lowest pair of a hash or seek proof, the last root of an
//! upgrade beside its first additional node) can a peer shift bytes from one to the other unseen.
//!
//! Such a *loose pair* is stored nevertheless, because seeking cannot do without, under two rules:
//!
//! - It never replaces a node that is held with the same hash; where one of the two is held, the other gets the rest.
//! - A later proof below one of the two computes its true size. Where that differs from the stored one, the pair is put
//!   right in the same patch.
//!
//! By the first, a node that was proven is not spoiled; by the second, below a node of a wrong size nothing was ever stored.
//! A block that is held has its whole path proven, and so do all nodes that its offset is summed up from: reading it cannot
//! go wrong. What a peer can achieve is that a *seek* ends at a wrong block, as long as this block is not held.
//!
//! The sizes of a head's roots are signed and so beyond doubt, but for one case: where all signers of a manifest that allows
//! patches signed a longer log, the last root and the first node of the patch are a loose pair too. A wrong size there shows
//! with the first block below that root, which is then refused.

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

/// Where the nodes of a tree are read from.
pub trait NodeSource {
    /// The node `index`, or none where it is not held.
    fn node(&self, index: NodeIndex) -> Result<Option<Node>>;

    /// How many bytes the blocks under node `index` have, or none where it is not held.
    fn size(&self, index: NodeIndex) -> Result<Option<u64>> {
        Ok(self.node(index)?.map(|node| node.size))
    }

    /// The node `index`, whose absence is an error.
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
    /// The roots; they know length and byte length.
    pub roots: Roots,
    /// How often the log was cut back.
    pub fork: u64,
    /// As the manifest's verifier checks it; empty for an empty log.
    pub signature: Vec<u8>,
}

impl Head {
    /// How many blocks the log has.
    pub fn length(&self) -> u64 {
        self.roots.length()
    }

    /// How many bytes they hold, as stored.
    pub fn byte_length(&self) -> u64 {
        self.roots.byte_length()
    }

    /// What is signed of it.
    pub fn tree(&self) -> SignableTree<'_> {
        SignableTree { roots: &self.roots, fork: self.fork }
    }

    /// The hash of the whole tree.
    pub fn tree_hash(&self) -> Hash {
        self.roots.tree_hash()
    }

    /// The node `index` as far as this head vouches for it: its roots, and what `source` holds below them.
    fn node(&self, source: &(impl NodeSource + ?Sized), index: NodeIndex) -> Result<Option<Node>> {
        if index.0 > MAX_SAFE_INTEGER || index.end_block() > self.length() {
            return Ok(None);
        }
        match self.root(index) {
            Some(root) => Ok(Some(*root)),
            None => source.node(index),
        }
    }

    /// The node `index`, whose absence is an error.
    fn require(&self, source: &(impl NodeSource + ?Sized), index: NodeIndex) -> Result<Node> {
        self.node(source, index)?.ok_or_else(|| not_held(index))
    }

    fn root(&self, index: NodeIndex) -> Option<&Node> {
        self.roots.nodes().iter().find(|root| root.index == index)
    }
}
/// A change of the tree: the nodes to store, and where the log moves, the head it moves to.
///
/// It is made on the head of `base_fork` and `base_length` and fits no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Patch {
    /// The fork it was made on.
    pub base_fork: u64,
    /// The length it was made on.
    pub base_length: u64,
    /// The length up to which the old log and the new are the same; below `base_length` where the log is cut.
    pub ancestors: u64,
    /// Nodes to store.
    pub nodes: Vec<Node>,
    /// The head the log moves to; none where only nodes below the old head are added.
    pub upgrade: Option<Head>,
}

/// What is asked of a peer, or of the own tree on a peer's behalf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// A block, with the nodes that prove it.
    pub block: Option<NodeRequest>,
    /// A node, with the nodes that prove it; not together with a block.
    pub hash: Option<NodeRequest>,
    /// The block that holds a byte.
    pub seek: Option<SeekRequest>,
    /// A longer head.
    pub upgrade: Option<UpgradeRequest>,
}

/// A block or node that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRequest {
    /// For a block its index in the log, for a hash its index in the tree.
    pub index: u64,
    /// How many levels up the asker already trusts an ancestor.
    pub nodes: u64,
}

/// A byte that is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeekRequest {
    /// Its offset in the log, without padding.
    pub bytes: u64,
    /// How many bytes of padding each block has.
    pub padding: u64,
}

/// A head that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpgradeRequest {
    /// The length the asker has.
    pub start: u64,
    /// How many blocks the peer is known to have beyond it.
    pub length: u64,
}

/// The answer to a [`Request`]: data, and the nodes that connect it to what the asker trusts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// The fork it is about.
    pub fork: u64,
    /// The block.
    pub block: Option<BlockProof>,
    /// The node.
    pub hash: Option<HashProof>,
    /// The path to the block that holds a byte.
    pub seek: Option<SeekProof>,
    /// The longer head.
    pub upgrade: Option<UpgradeProof>,
    /// Who may sign.
    pub manifest: Option<Manifest>,
}

/// A block and its path up the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockProof {
    /// The block's index.
    pub index: u64,
    /// The block as stored. A prover of the tree leaves it empty for the holder of the data to fill in.
    pub value: Vec<u8>,
    /// The siblings on the way up.
    pub nodes: Vec<Node>,
}

/// A node and its path up the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashProof {
    /// The node's index.
    pub index: NodeIndex,
    /// The node itself, then the siblings on the way up.
    pub nodes: Vec<Node>,
}

/// The path from a byte's block up the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeekProof {
    /// The byte that was asked for.
    pub bytes: u64,
    /// The node that holds it, then the siblings on the way up.
    pub nodes: Vec<Node>,
}

/// A longer head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpgradeProof {
    /// The length it starts from.
    pub start: u64,
    /// How many blocks it adds.
    pub length: u64,
    /// The subtrees it adds.
    pub nodes: Vec<Node>,
    /// The subtrees beyond `start + length`, up to the length that is signed.
    pub additional_nodes: Vec<Node>,
    /// The signature over the whole.
    pub signature: Vec<u8>,
}

fn not_held(index: NodeIndex) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("node {index} of the tree is not held"))
}
