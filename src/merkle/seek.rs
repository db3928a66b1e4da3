//! From blocks to bytes and back: where a block's bytes stand, and which block holds a byte.
//!
//! Bytes of a block are counted as stored. A seek leaves out a padding at the start of each block, which encryption adds;
//! sizes below the padding, which no honest log has, count as nothing.

use std::cmp::Ordering;

use super::{Head, NodeSource};
use crate::flat_tree::{full_roots, root_of};
use crate::index::NodeIndex;
use crate::node::Node;
use crate::{Error, ErrorKind, Result};

/// Where block `block` starts in the bytes of the log; for the block after the last, how many bytes there are.
pub fn byte_offset(source: &(impl NodeSource + ?Sized), head: &Head, block: u64) -> Result<u64> {
    if block == head.length() {
        return Ok(head.byte_length());
    }
    offset_below_root(source, head, block).map(|(offset, _)| offset)
}

/// Where block `block` starts in the bytes of the log, and how many it has.
pub fn byte_range(source: &(impl NodeSource + ?Sized), head: &Head, block: u64) -> Result<(u64, u64)> {
    let (offset, root) = offset_below_root(source, head, block)?;
    let leaf = NodeIndex::of_block(block);
    let size = if root.index == leaf { root.size } else { source.require(leaf)?.size };
    match offset.checked_add(size) {
        Some(end) if end <= head.byte_length() => Ok((offset, size)),
        _ => Err(Error::corrupt(format!("block {block} ends beyond the {} bytes of the log", head.byte_length()))),
    }
}

/// The offset of `block`, and the root above it.
fn offset_below_root<'h>(source: &(impl NodeSource + ?Sized), head: &'h Head, block: u64) -> Result<(u64, &'h Node)> {
    let out_of_bounds =
        || Error::new(ErrorKind::OutOfBounds, format!("block {block} is past the end of a log of {}", head.length()));
    let index = root_of(block, head.length()).ok_or_else(out_of_bounds)?;
    // The bytes of all roots together were bounded when they were put together.
    let mut offset = 0;
    let mut roots = head.roots.nodes().iter();
    let root = loop {
        let root = roots.next().ok_or_else(out_of_bounds)?;
        if root.index == index {
            break root;
        }
        offset += root.size;
    };
    for depth in (0..index.depth()).rev() {
        let subtree = block >> depth;
        if subtree & 1 == 1 {
            let left = source.require(NodeIndex::at(depth, subtree - 1))?;
            offset = offset
                .checked_add(left.size)
                .filter(|&sum| sum <= head.byte_length())
                .ok_or_else(|| Error::corrupt(format!("node {} is larger than the log", left.index)))?;
        }
    }
    Ok((offset, root))
}

/// What the nodes that are held say about a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// The byte is this one of this block. The end of the log counts as the first byte of the block to come, byte 0 always as
    /// the first of block 0. Only when the block is held is it certain.
    Found {
        /// The block.
        block: u64,
        /// The byte's offset in it, without padding.
        offset: u64,
    },
    /// The byte is in one of these blocks; nodes are missing to tell which.
    Within {
        /// The first of them.
        start: u64,
        /// The block after the last of them.
        end: u64,
    },
    /// The log has to grow before it has the byte.
    Beyond,
}

/// Finds the block that holds byte `bytes`, from the nodes that are held.
pub fn seek_local(source: &(impl NodeSource + ?Sized), head: &Head, bytes: u64, padding: u64) -> Result<Seek> {
    if bytes == 0 {
        return Ok(Seek::Found { block: 0, offset: 0 });
    }
    Ok(match walk_roots(source, head, head.length(), bytes, padding)? {
        None => Seek::Beyond,
        Some(Stop::After(node)) => Seek::Found { block: node.end_block(), offset: 0 },
        Some(Stop::In(node, offset)) if node.is_leaf() => Seek::Found { block: node.first_block(), offset },
        Some(Stop::In(node, _)) => Seek::Within { start: node.first_block(), end: node.end_block() },
    })
}

/// The node a proof has to start from to show where byte `bytes` of a log of `length` blocks is; none when it is beyond.
pub(super) fn node_in_log(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    length: u64,
    bytes: u64,
    padding: u64,
) -> Result<Option<NodeIndex>> {
    if bytes == 0 {
        return Ok(full_roots(length).next());
    }
    Ok(walk_roots(source, head, length, bytes, padding)?.map(Stop::node))
}

/// The node a proof has to start from to show where byte `bytes` of the log is in the subtree `top`, where it has to be.
pub(super) fn node_below(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    top: NodeIndex,
    bytes: u64,
    padding: u64,
) -> Result<NodeIndex> {
    let outside = || Error::new(ErrorKind::InvalidOperation, format!("byte {bytes} is not below node {top}"));
    let first = top.first_block();
    let start = byte_offset(source, head, first)?.saturating_sub(padding.saturating_mul(first));
    let rest = bytes.checked_sub(start).ok_or_else(outside)?;
    if rest == 0 {
        return Ok(top);
    }
    if unpadded(&head.require(source, top)?, padding) <= rest {
        return Err(outside());
    }
    walk(source, head, top, rest, padding).map(Stop::node)
}

/// Where a search ended.
enum Stop {
    /// Right behind this subtree.
    After(NodeIndex),
    /// In this block, or in this subtree whose children are not held, so many bytes from its start.
    In(NodeIndex, u64),
}

impl Stop {
    fn node(self) -> NodeIndex {
        match self {
            Stop::After(node) | Stop::In(node, _) => node,
        }
    }
}

fn walk_roots(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    length: u64,
    mut bytes: u64,
    padding: u64,
) -> Result<Option<Stop>> {
    for root in full_roots(length) {
        let size = unpadded(&head.require(source, root)?, padding);
        match bytes.cmp(&size) {
            Ordering::Equal => return Ok(Some(Stop::After(root))),
            Ordering::Less => return walk(source, head, root, bytes, padding).map(Some),
            Ordering::Greater => bytes -= size,
        }
    }
    Ok(None)
}

/// Goes down from `at` to byte `bytes` of it, which is not 0, as far as nodes are held.
fn walk(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    mut at: NodeIndex,
    mut bytes: u64,
    padding: u64,
) -> Result<Stop> {
    while let Some((left, right)) = at.children() {
        let Some(node) = head.node(source, left)? else { break };
        let size = unpadded(&node, padding);
        match bytes.cmp(&size) {
            Ordering::Equal => return Ok(Stop::After(left)),
            Ordering::Less => at = left,
            Ordering::Greater => {
                bytes -= size;
                at = right;
            }
        }
    }
    Ok(Stop::In(at, bytes))
}

fn unpadded(node: &Node, padding: u64) -> u64 {
    node.size.saturating_sub(padding.saturating_mul(node.index.leaves()))
}
