//! The byte offset of a block, and the block that holds a byte.
//!
//! Sizes are those of the stored blocks. A seek leaves out the padding that encryption adds at the start of each
//! block. A size below the padding, which no honest log has, counts as 0.

use std::cmp::Ordering;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::{Head, NodeSource};
use crate::flat_tree::{full_roots, root_of};
use crate::index::NodeIndex;
use crate::node::Node;
use crate::{Error, ErrorKind, Result};

/// The byte offset of block `block` in the log; for the block after the last, the byte length.
pub fn byte_offset(source: &(impl NodeSource + ?Sized), head: &Head, block: u64) -> Result<u64> {
    if block == head.length() {
        return Ok(head.byte_length());
    }
    offset_below_root(source, head, block, None).map(|(offset, _)| offset)
}

/// [`byte_offset`] of a block of the log. The offset of the subtree above it is taken from `offsets` if it is cached
/// there.
pub fn byte_offset_by(source: &(impl NodeSource + ?Sized), head: &Head, block: u64, offsets: &Offsets) -> Result<u64> {
    offset_below_root(source, head, block, offsets.known(head.length())).map(|(offset, _)| offset)
}

/// How many lookups happen before any offset is cached: most open cores are hardly read.
const REMEMBER_AFTER: u8 = 16;

/// The cache has at most one offset more than this.
const REMEMBERED: u64 = 1024;

/// A cache of the byte offsets of the subtrees of one height, which lookups fill: about a thousand, evenly over the
/// log.
///
/// It belongs to one state of a tree; each change of a node starts a new cache.
#[derive(Debug, Default)]
pub struct Offsets {
    asked: AtomicU8,
    known: OnceLock<Known>,
}

#[derive(Debug)]
struct Known {
    depth: u32,
    /// For each subtree its offset plus one; 0 if it is not known.
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

/// The byte offset and the size of block `block`.
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
    // The sum of all roots' sizes does not overflow: `Roots` bounds it.
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

/// The result of a seek in the held nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// The byte is in this block. The end of the log counts as the first byte of the next block, and byte 0 as the
    /// first byte of block 0. The result is certain only if the block is held.
    Found {
        /// The block.
        block: u64,
        /// The byte's offset in it, without padding.
        offset: u64,
    },
    /// The byte is in one of these blocks; the nodes that tell which are not held.
    Within {
        /// The first block.
        start: u64,
        /// The block after the last.
        end: u64,
    },
    /// The log is shorter.
    Beyond,
}

/// Finds the block that holds byte `bytes` in the held nodes.
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

/// The lowest node over byte `bytes` of a log of `length` blocks, from which a proof of its place starts. None if the
/// log is shorter.
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

/// The lowest node over byte `bytes` of the log in the subtree `top`, from which a proof of its place starts.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] if the byte is not in that subtree.
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

/// The place where a search ended.
enum Stop {
    /// At the end of this subtree.
    After(NodeIndex),
    /// In this block, or in this subtree whose children are not held, at this offset from its start.
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

/// Descends from `at` to byte `bytes` of it, which is not 0, as far as nodes are held.
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
    fn cached_offset_equals_that_of_the_tree_and_saves_reads() {
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
            // The remaining reads are those below the subtrees of cached offset.
            assert!(nodes.1.get() as u64 <= if length < REMEMBERED { 0 } else { 2 * length }, "{length}");
            assert!(byte_offset_by(&nodes, &head, length, &offsets).is_err());
        }
    }
}
