//! Index arithmetic of the flat tree: a binary tree whose nodes are numbered in order.
//!
//! ```text
//!           3
//!       1       5           node 2i is block i; an odd node's depth is its count of trailing one bits
//!     0   2   4   6   8
//! ```
//!
//! A log of `n` blocks is covered by its *full roots*, the largest complete subtrees from the left: for 5 blocks, 3
//! and 8.

use crate::codec::MAX_SAFE_INTEGER;
use crate::index::NodeIndex;

impl NodeIndex {
    /// The level of the node above the leaves.
    pub const fn depth(self) -> u32 {
        self.0.trailing_ones()
    }

    /// The node number `offset`, from 0, of level `depth`.
    pub const fn at(depth: u32, offset: u64) -> Self {
        NodeIndex((offset << (depth + 1)) | ((1 << depth) - 1))
    }

    /// The number of the node in its level.
    pub const fn offset(self) -> u64 {
        self.0 >> (self.depth() + 1)
    }

    /// The node right above.
    pub const fn parent(self) -> Self {
        Self::at(self.depth() + 1, self.offset() >> 1)
    }

    /// The other child of the node's parent.
    pub const fn sibling(self) -> Self {
        Self::at(self.depth(), self.offset() ^ 1)
    }

    /// Whether the node is its parent's left child.
    pub const fn is_left(self) -> bool {
        self.offset() & 1 == 0
    }

    /// The two nodes right below; none for a leaf.
    pub const fn children(self) -> Option<(Self, Self)> {
        let depth = self.depth();
        if depth == 0 {
            return None;
        }
        let quarter = 1 << (depth - 1);
        Some((NodeIndex(self.0 - quarter), NodeIndex(self.0 + quarter)))
    }

    /// The leftmost leaf below the node.
    pub const fn left_span(self) -> Self {
        NodeIndex(self.0 + 1 - (1 << self.depth()))
    }

    /// The rightmost leaf below the node.
    pub const fn right_span(self) -> Self {
        NodeIndex(self.0 + (1 << self.depth()) - 1)
    }

    /// The number of blocks that the subtree covers.
    pub const fn leaves(self) -> u64 {
        1 << self.depth()
    }

    /// The first block of the subtree.
    pub const fn first_block(self) -> u64 {
        self.left_span().0 / 2
    }

    /// The block after the last of the subtree.
    pub const fn end_block(self) -> u64 {
        self.first_block() + self.leaves()
    }

    /// Whether `other` is this node or a node of its subtree.
    pub const fn contains(self, other: NodeIndex) -> bool {
        self.left_span().0 <= other.0 && other.0 <= self.right_span().0
    }
}

/// The full roots of a log of `length` blocks, from the left.
pub fn full_roots(length: u64) -> impl Iterator<Item = NodeIndex> + Clone {
    growth(0, length)
}

/// The roots of the subtrees by which a log of `from` blocks grows to `to` blocks, from the left. Each subtree is the
/// largest that can follow those before it. There are none if `to` is not beyond `from`.
pub fn growth(from: u64, to: u64) -> impl Iterator<Item = NodeIndex> + Clone {
    let mut length = from;
    std::iter::from_fn(move || {
        let left = to.checked_sub(length).filter(|&n| n > 0)?;
        let depth = length.trailing_zeros().min(left.ilog2());
        let next = NodeIndex::at(depth, length >> depth);
        length += 1 << depth;
        Some(next)
    })
}

/// The full root of a log of `length` blocks that covers `block`.
pub fn root_of(block: u64, length: u64) -> Option<NodeIndex> {
    if block >= length {
        return None;
    }
    // The root's depth is the highest bit in which the two differ, which is set in `length` and clear in `block`.
    let depth = (block ^ length).ilog2();
    Some(NodeIndex::at(depth, block >> depth))
}

/// The parents that straddle a cut to `length` blocks: nodes before node `2 * length` that also cover blocks from
/// `length` on.
///
/// A cut removes all nodes from `2 * length` on, and replaces these by blank ones.
pub fn straddling(length: u64) -> impl Iterator<Item = NodeIndex> {
    let length = length.min(MAX_SAFE_INTEGER / 2);
    (1..=53)
        .map(move |depth| NodeIndex::at(depth, length.saturating_sub(1) >> depth))
        .filter(move |node| node.0 < 2 * length && node.end_block() > length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_arithmetic_equals_that_of_javascript() {
        assert_eq!(full_roots(10).collect::<Vec<_>>(), [NodeIndex(7), NodeIndex(17)]);
        assert_eq!((NodeIndex(7).left_span(), NodeIndex(7).right_span()), (NodeIndex(0), NodeIndex(14)));
        assert_eq!(NodeIndex(8).parent(), NodeIndex(9));
        assert_eq!(NodeIndex(7).depth(), 3);
    }

    #[test]
    fn parent_sibling_and_children_are_consistent() {
        for i in 0..4096 {
            let node = NodeIndex(i);
            assert_eq!(node.sibling().sibling(), node);
            assert_eq!(node.sibling().parent(), node.parent());
            assert!(node.parent().contains(node));
            let (left, right) = node.parent().children().unwrap();
            assert_eq!(if node.is_left() { left } else { right }, node);
            assert_eq!(NodeIndex::at(node.depth(), node.offset()), node);
        }
    }

    #[test]
    fn full_roots_cover_each_block_once() {
        for length in 0..300 {
            let mut next = 0;
            for root in full_roots(length) {
                assert_eq!(root.first_block(), next);
                for block in next..root.end_block() {
                    assert_eq!(root_of(block, length), Some(root));
                }
                next = root.end_block();
            }
            assert_eq!(next, length);
            assert_eq!(root_of(length, length), None);
        }
    }

    #[test]
    fn growth_covers_all_blocks_between_both_lengths() {
        for from in 0..70 {
            for to in 0..140 {
                let mut length = from;
                for subtree in growth(from, to) {
                    assert_eq!(subtree.first_block(), length);
                    assert!(length == 0 || subtree.depth() <= length.trailing_zeros());
                    length = subtree.end_block();
                    assert!(length <= to);
                }
                assert_eq!(length, from.max(to));
            }
        }
    }

    #[test]
    fn straddling_nodes_cover_blocks_on_both_sides_of_the_cut() {
        for length in 0..130 {
            let told: Vec<_> = straddling(length).collect();
            let all = (0..2 * length)
                .map(NodeIndex)
                .filter(|n| n.first_block() < length && length < n.end_block() && !n.is_leaf());
            let mut told_sorted = told.clone();
            told_sorted.sort();
            assert_eq!(told_sorted, all.collect::<Vec<_>>(), "cut to {length}");
        }
        assert_eq!(straddling(u64::MAX).filter(|n| n.0 > 2 * MAX_SAFE_INTEGER).count(), 0);
    }
}
