//! Indices of nodes, which are a type of their own so that they are not mistaken for block indices, and a hasher for
//! them.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// The index of a node in the flat tree: block `i` is node `2i`, and odd numbers are parents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeIndex(pub u64);

impl NodeIndex {
    /// The leaf of block `block`.
    pub const fn of_block(block: u64) -> Self {
        NodeIndex(block * 2)
    }

    /// Whether this is the leaf of a block.
    pub const fn is_leaf(self) -> bool {
        self.0 & 1 == 0
    }
}

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Builds [`IndexHasher`]s.
pub type BuildIndexHasher = BuildHasherDefault<IndexHasher>;

/// Hashes an index by one multiplication. The standard hasher costs more than the rest of a lookup.
///
/// It does not resist keys that a peer chooses to collide. Tables that use it hold requested nodes only, or stay small
/// between two flushes.
#[derive(Default)]
pub struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, n: u64) {
        let product = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The table uses the low bits, which in a product depend on the low bits of the factors alone: mix in high
        // bits.
        self.0 = product ^ (product >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }
}
