//! What the tree proves: nodes that hash, step by step, up to the signed roots of the log, and where the blocks below
//! them lie.
//!
//! A node of the file `tree` may be damaged. Where a wrong size would cost data, in giving space back, cutting `data`
//! or signing, only these count.

use crate::Result;
use crate::core::rebuild::held_node;
use crate::flat_tree::root_of;
use crate::index::NodeIndex;
use crate::merkle::{Head, NodeSource};
use crate::node::Node;
use crate::storage::bitfield::Bitfield;

/// Where `block` lies in `data`, and its leaf; none where a node on the way down to it is missing or damaged.
pub(crate) fn place(tree: &impl NodeSource, head: &Head, block: u64) -> Result<Option<(u64, Node)>> {
    node(tree, head, NodeIndex::of_block(block))
}

/// Where the blocks under `index` begin in `data`, and the node; none where it is not below the roots of the log, or a
/// node on the way down to it is missing or damaged.
pub(crate) fn node(tree: &impl NodeSource, head: &Head, index: NodeIndex) -> Result<Option<(u64, Node)>> {
    let block = index.first_block();
    let Some(top) = root_of(block, head.length()) else { return Ok(None) };
    let roots = head.roots.nodes();
    let Some(at) = roots.iter().position(|root| root.index == top) else { return Ok(None) };
    let mut offset: u64 = roots[..at].iter().map(|root| root.size).sum();
    let mut node = roots[at];
    while node.index != index {
        let Some((left, right)) = node.index.children() else { return Ok(None) };
        let (Some(left), Some(right)) = (held_node(tree, left)?, held_node(tree, right)?) else { return Ok(None) };
        if Node::parent(&left, &right) != Some(node) {
            return Ok(None);
        }
        node = if block < left.index.end_block() {
            left
        } else {
            offset = offset.saturating_add(left.size);
            right
        };
    }
    Ok(Some((offset, node)))
}

/// Where the last block that is held below `end` ends in `data`: zero where none is, none where the tree does not
/// prove it.
pub(crate) fn end_of_held(tree: &impl NodeSource, head: &Head, bits: &Bitfield, end: u64) -> Result<Option<u64>> {
    match bits.last_set_before(end.min(head.length()))? {
        Some(last) => Ok(place(tree, head, last)?.map(|(offset, leaf)| offset.saturating_add(leaf.size))),
        None => Ok(Some(0)),
    }
}
