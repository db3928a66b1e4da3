//! A node of the signed tree, and the roots that a log of some length has.

use crate::codec::{Reader, Writer};
use crate::crypto::hash::{self, Hash};
use crate::index::NodeIndex;
use crate::{Error, Result};

/// A node of the tree: how many bytes of blocks lie below it, and the hash over them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its place in the flat tree.
    pub index: NodeIndex,
    /// Bytes of all blocks below, as stored.
    pub size: u64,
    /// [`hash::leaf`] or [`hash::parent`].
    pub hash: Hash,
}

impl Node {
    /// The fewest bytes that [`Node::encode`] takes.
    pub const MIN_ENCODED: usize = 34;

    /// The leaf of block `block`, which holds `bytes` as stored.
    pub fn leaf(block: u64, bytes: &[u8]) -> Self {
        Node { index: NodeIndex::of_block(block), size: bytes.len() as u64, hash: hash::leaf(bytes) }
    }

    /// The node right above two siblings, given in any order. None when their sizes cannot be added.
    pub fn parent(a: &Node, b: &Node) -> Option<Self> {
        let (left, right) = if a.index < b.index { (a, b) } else { (b, a) };
        let size = left.size.checked_add(right.size)?;
        Some(Node { index: left.index.parent(), size, hash: hash::parent(size, &left.hash, &right.hash) })
    }

    /// The node that stands for "absent" in files and log entries: no size, a hash of zeros.
    pub const fn blank(index: NodeIndex) -> Self {
        Node { index, size: 0, hash: [0; 32] }
    }

    /// Whether this stands for "absent".
    pub fn is_blank(&self) -> bool {
        self.size == 0 && self.hash == [0; 32]
    }

    /// Index, size, hash.
    pub fn encode(&self, w: &mut Writer) {
        w.uint(self.index.0).uint(self.size).bytes(&self.hash);
    }

    /// What [`Node::encode`] wrote.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Node { index: NodeIndex(r.uint()?), size: r.uint()?, hash: r.fixed()? })
    }
}

/// The roots of a log, from the left, and what they add up to.
///
/// Grows by [`Roots::push`], which merges what has become complete.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roots {
    nodes: Vec<Node>,
    length: u64,
    byte_length: u64,
}

impl Roots {
    /// The roots `nodes`, which must be the full roots of some length in their order.
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

    /// Adds the subtree `node`, which must start where the log ends, and merges complete pairs; `made` sees `node` and each
    /// parent that comes of it.
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

    /// The roots themselves, from the left.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many blocks they cover.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many bytes they cover.
    pub fn byte_length(&self) -> u64 {
        self.byte_length
    }

    /// The hash of the whole tree.
    pub fn tree_hash(&self) -> Hash {
        hash::tree(self.nodes.iter().map(|n| (&n.hash, n.index.0, n.size)))
    }
}
