//! Trusted nodes: nodes of the tree that hash, step by step, up to the signed roots, and the byte offsets in `data` of
//! the blocks below them.
//!
//! A node in the file `tree` may be damaged. Where a wrong size would destroy data (when space is given back, when
//! `data` is shortened and when a head is signed), only trusted nodes count.

use crate::Result;
use crate::core::rebuild::held_node;
use crate::flat_tree::root_of;
use crate::index::NodeIndex;
use crate::merkle::{Head, NodeSource};
use crate::node::Node;
use crate::storage::bitfield::Bitfield;

/// The byte offset of `block` in `data`, and its leaf. `None` if a node on the way down to it is missing or damaged.
pub(crate) fn leaf(tree: &impl NodeSource, head: &Head, block: u64) -> Result<Option<(u64, Node)>> {
    node(tree, head, NodeIndex::of_block(block))
}

/// The byte offset in `data` of the first block under `index`, and the node. `None` if the node is not below the
/// roots of the log, or if a node on the way down to it is missing or damaged.
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

/// The byte offset in `data` at which the last held block below `end` ends. Zero if no block is held there, `None`
/// if the tree does not prove it.
pub(crate) fn end_of_held(tree: &impl NodeSource, head: &Head, bits: &Bitfield, end: u64) -> Result<Option<u64>> {
    match bits.last_set_before(end.min(head.length()))? {
        Some(last) => Ok(leaf(tree, head, last)?.map(|(offset, leaf)| offset.saturating_add(leaf.size))),
        None => Ok(Some(0)),
    }
}
