//! Nodes of the signed tree, and the roots of a log.

use crate::codec::{Reader, Writer};
use crate::crypto::hash::{self, Hash};
use crate::index::NodeIndex;
use crate::{Error, Result};

/// A node of the tree: the size and the hash of the blocks below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// The index in the flat tree.
    pub index: NodeIndex,
    /// The number of bytes of all blocks below, as stored.
    pub size: u64,
    /// The hash: [`hash::leaf`] of a block or [`hash::parent`] of two nodes.
    pub hash: Hash,
}

impl Node {
    /// The fewest bytes that [`Node::encode`] writes.
    pub const MIN_ENCODED: usize = 34;

    /// The leaf of block `block`, whose stored bytes are `bytes`.
    pub fn leaf(block: u64, bytes: &[u8]) -> Self {
        Node { index: NodeIndex::of_block(block), size: bytes.len() as u64, hash: hash::leaf(bytes) }
    }

    /// The parent of two siblings, given in any order. None if the sum of their sizes overflows.
    pub fn parent(a: &Node, b: &Node) -> Option<Self> {
        let (left, right) = if a.index < b.index { (a, b) } else { (b, a) };
        let size = left.size.checked_add(right.size)?;
        Some(Node { index: left.index.parent(), size, hash: hash::parent(size, &left.hash, &right.hash) })
    }

    /// The node that means "absent" in files and oplog entries: size 0 and a hash of zeros.
    pub const fn blank(index: NodeIndex) -> Self {
        Node { index, size: 0, hash: [0; 32] }
    }

    /// Whether this node means "absent".
    pub fn is_blank(&self) -> bool {
        self.size == 0 && self.hash == [0; 32]
    }

    /// Appends index, size and hash to `w`.
    pub fn encode(&self, w: &mut Writer) {
        w.uint(self.index.0).uint(self.size).bytes(&self.hash);
    }

    /// Reads a node that [`Node::encode`] wrote.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Node { index: NodeIndex(r.uint()?), size: r.uint()?, hash: r.fixed()? })
    }
}

/// The roots of a log, from the left, with its length and byte length.
///
/// [`Roots::push`] appends a subtree and merges roots that become siblings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roots {
    nodes: Vec<Node>,
    length: u64,
    byte_length: u64,
}

impl Roots {
    /// The roots `nodes`, which must be the full roots of a log, in order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidProof`](crate::ErrorKind::InvalidProof) if they are not, or are larger than any log.
    pub fn new(nodes: Vec<Node>) -> Result<Self> {
        let mut roots = Roots::default();
        for node in &nodes {
            if node.index.first_block() != roots.length {
                return Err(Error::invalid_proof(format!("node {} is not the next root of the tree", node.index)));
            }
            roots.grow(node)?;
        }
        if nodes.windows(2).any(|pair| pair[0].index.depth() <= pair[1].index.depth()) {
            return Err(Error::invalid_proof("the roots of the tree are not merged"));
        }
        roots.nodes = nodes;
        Ok(roots)
    }

    fn grow(&mut self, node: &Node) -> Result<()> {
        let bounded = |sum: Option<u64>| sum.filter(|&n| n <= crate::codec::MAX_SAFE_INTEGER);
        let too_large = || Error::invalid_proof("the tree is larger than 2^53 bytes or blocks");
        self.byte_length = bounded(self.byte_length.checked_add(node.size)).ok_or_else(too_large)?;
        self.length = bounded((self.length + node.index.leaves()).checked_mul(2)).ok_or_else(too_large)? / 2;
        Ok(())
    }

    /// Appends the subtree `node`, which must start where the log ends, and merges siblings. Calls `made` with `node`
    /// and with each parent that merging makes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidProof`](crate::ErrorKind::InvalidProof) if the node starts elsewhere, or the log would be
    /// larger than 2^53 bytes or blocks.
    pub fn push(&mut self, node: Node, mut made: impl FnMut(&Node)) -> Result<()> {
        if node.index.first_block() != self.length {
            return Err(Error::invalid_proof(format!(
                "node {} does not start at block {}, where the log ends",
                node.index, self.length
            )));
        }
        self.grow(&node)?;
        made(&node);
        let mut top = node;
        while let Some(last) = self.nodes.last() {
            if last.index != top.index.sibling() {
                break;
            }
            // Sizes were bounded by `grow`.
            top = Node::parent(last, &top).ok_or_else(|| Error::invalid_proof("sizes of the tree overflow"))?;
            made(&top);
            self.nodes.pop();
        }
        self.nodes.push(top);
        Ok(())
    }

    /// The roots, from the left.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The number of blocks of the log.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The number of bytes of the log, as stored.
    pub fn byte_length(&self) -> u64 {
        self.byte_length
    }

    /// The hash of the whole tree.
    pub fn tree_hash(&self) -> Hash {
        hash::tree(self.nodes.iter().map(|n| (&n.hash, n.index.0, n.size)))
    }
}
