//! From blocks to bytes and back: where a block's bytes stand, and which block holds a byte.
//!
//! Bytes of a block are counted as stored. A seek leaves out a padding at the start of each block, which encryption adds;
//! sizes below the padding, which no honest log has, count as nothing.

use std::cmp::Ordering;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

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
    offset_below_root(source, head, block, None).map(|(offset, _)| offset)
}

/// As [`byte_offset`] of a block of the log, with the upper part of the way down the tree taken from `offsets` where it is known.
pub fn byte_offset_by(source: &(impl NodeSource + ?Sized), head: &Head, block: u64, offsets: &Offsets) -> Result<u64> {
    offset_below_root(source, head, block, offsets.known(head.length())).map(|(offset, _)| offset)
}

/// So many offsets are asked for before any is remembered: most cores that are open are hardly read.
const REMEMBER_AFTER: u8 = 16;

/// At most so many are remembered.
const REMEMBERED: u64 = 1024;

/// Where the subtrees of one height begin, as far as somebody asked: up to a thousand of them, evenly over the log.
///
/// True of one tree: whoever changes a node of it begins with new ones.
#[derive(Debug, Default)]
pub struct Offsets {
    asked: AtomicU8,
    known: OnceLock<Known>,
}

#[derive(Debug)]
struct Known {
    depth: u32,
    /// One more than the offset of each; zero where it is not known.
    starts: Box<[AtomicU64]>,
}

impl Offsets {
    fn known(&self, length: u64) -> Option<&Known> {
        if let Some(known) = self.known.get() {
            return Some(known);
        }
        if self.asked.fetch_add(1, Relaxed) < REMEMBER_AFTER {
            return None;
        }
        Some(self.known.get_or_init(|| {
            let depth = (length / REMEMBERED).checked_ilog2().map_or(0, |log| log + 1);
            let count = (length >> depth).min(REMEMBERED) + 1;
            Known { depth, starts: (0..count).map(|_| AtomicU64::new(0)).collect() }
        }))
    }
}

/// Where block `block` starts in the bytes of the log, and how many it has.
pub fn byte_range(source: &(impl NodeSource + ?Sized), head: &Head, block: u64) -> Result<(u64, u64)> {
    let (offset, root) = offset_below_root(source, head, block, None)?;
    let leaf = NodeIndex::of_block(block);
    let size = if root.index == leaf { root.size } else { source.require(leaf)?.size };
    match offset.checked_add(size) {
        Some(end) if end <= head.byte_length() => Ok((offset, size)),
        _ => Err(Error::corrupt(format!("block {block} ends beyond the {} bytes of the log", head.byte_length()))),
    }
}

/// The offset of `block`, and the root above it.
fn offset_below_root<'h>(
    source: &(impl NodeSource + ?Sized),
    head: &'h Head,
    block: u64,
    known: Option<&Known>,
) -> Result<(u64, &'h Node)> {
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
    let mut top = index.depth();
    let known = known.filter(|known| known.depth < top);
    let known = known.and_then(|known| Some((known.depth, known.starts.get((block >> known.depth) as usize)?)));
    if let Some((depth, start)) = known {
        if let Some(start) = start.load(Relaxed).checked_sub(1) {
            (top, offset) = (depth, start);
        }
    }
    for depth in (0..top).rev() {
        let subtree = block >> depth;
        if subtree & 1 == 1 {
            let left = NodeIndex::at(depth, subtree - 1);
            let size = source.size(left)?.ok_or_else(|| super::not_held(left))?;
            offset = offset
                .checked_add(size)
                .filter(|&sum| sum <= head.byte_length())
                .ok_or_else(|| Error::corrupt(format!("node {left} is larger than the log")))?;
        }
        match known {
            Some((known, start)) if known == depth => start.store(offset + 1, Relaxed),
            _ => {}
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;

    use super::*;
    use crate::merkle::append;

    struct Nodes(HashMap<NodeIndex, Node>, Cell<usize>);

    impl NodeSource for Nodes {
        fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
            self.1.set(self.1.get() + 1);
            Ok(self.0.get(&index).copied())
        }
    }

    #[test]
    fn offsets_that_are_remembered_are_those_that_the_tree_says_and_spare_reading_it() {
        for length in [1, 2, 37, 1023, 1024, 1025, 4100] {
            let leaves = (0..length).map(|i| Node::leaf(i, &vec![7; (i * 31 % 5) as usize]));
            let patch = append(&Head::default(), leaves).unwrap();
            let nodes = Nodes(patch.nodes.iter().map(|n| (n.index, *n)).collect(), Cell::new(0));
            let head = patch.upgrade.unwrap();
            let offsets = Offsets::default();
            for _ in 0..2 + u64::from(REMEMBER_AFTER) / length {
                for block in 0..length {
                    let told = byte_offset_by(&nodes, &head, block, &offsets).unwrap();
                    assert_eq!(told, byte_offset(&nodes, &head, block).unwrap(), "block {block} of {length}");
                }
            }
            nodes.1.set(0);
            assert!((0..length).all(|block| byte_offset_by(&nodes, &head, block, &offsets).is_ok()));
            // What is left is the way down from the subtrees whose place is known.
            assert!(nodes.1.get() as u64 <= if length < REMEMBERED { 0 } else { 2 * length }, "{length}");
            assert!(byte_offset_by(&nodes, &head, length, &offsets).is_err());
        }
    }
}
