//! Node indices, which must not be mistaken for block indices.

use std::fmt;

/// The index of a node in the flat tree: block `i` is node `2i`, its parents are the odd numbers between.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeIndex(pub u64);

impl NodeIndex {
    /// The leaf of block `block`.
    pub const fn of_block(block: u64) -> Self {
        NodeIndex(block * 2)
    }

    /// Whether this is a block's leaf.
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
