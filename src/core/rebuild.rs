//! Recomputing nodes of the tree from what is below them: other nodes, or blocks.

use crate::core::limits::MAX_STORED_BLOCK;
use crate::core::state::Files;
use crate::crypto::hash;
use crate::flat_tree::full_roots;
use crate::index::NodeIndex;
use crate::merkle::NodeSource;
use crate::node::{Node, Roots};
use crate::storage::bitfield::Bitfield;
use crate::storage::blocks::Blocks;
use crate::{ErrorKind, Result};

/// The most combinations of roots that are tried. Each may take the check of a signature.
const MAX_TRIALS: usize = 256;

/// The node `index`, or `None` where it is missing or its bytes cannot be a node.
pub(crate) fn held_node(tree: &impl NodeSource, index: NodeIndex) -> Result<Option<Node>> {
    match tree.node(index) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        other => other,
    }
}

/// The `size` bytes of `data` at `offset`, or `None` where the file ends before them.
pub(crate) fn held_bytes(blocks: &Blocks, offset: u64, size: u64) -> Result<Option<Vec<u8>>> {
    match blocks.read(offset, usize::try_from(size).unwrap_or(usize::MAX)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// The node `index`, computed from the blocks below it. They begin at `offset` and have `size` bytes in all, if
/// that is known. `None` if one of the blocks is not held, or if the sizes in the leaves cannot be right.
pub(crate) fn from_blocks(
    (tree, bits, blocks): (&impl NodeSource, &Bitfield, &Blocks),
    index: NodeIndex,
    offset: u64,
    size: Option<u64>,
) -> Result<Option<Node>> {
    let (first, end) = (index.first_block(), index.end_block());
    let mut roots = Roots::default();
    let mut at = offset;
    // `Roots` counts from block 0. The leaves are computed as if they began there, which changes no hash.
    for block in first..end {
        let held = bits.get(block)?;
        let left = size.map(|size| offset.saturating_add(size).saturating_sub(at));
        let leaf = match (end - first, size) {
            (1, Some(size)) => Some(size),
            _ => held_node(tree, NodeIndex::of_block(block))?.map(|n| n.size),
        };
        let Some(bytes) = leaf.filter(|&n| held && n <= MAX_STORED_BLOCK && left.is_none_or(|l| n <= l)) else {
            return Ok(None);
        };
        let Some(stored) = held_bytes(blocks, at, bytes)? else { return Ok(None) };
        let leaf = Node { index: NodeIndex::of_block(block - first), size: bytes, hash: hash::leaf(&stored) };
        if roots.push(leaf, |_| ()).is_err() {
            return Ok(None);
        }
        at = at.saturating_add(bytes);
    }
    let [top] = roots.nodes() else { return Ok(None) };
    Ok(Some(Node { index, ..*top }))
}

/// The roots of a log of `length` blocks for which `is_right` is true. Each root may be the stored one, the one
/// computed from its two children, or the one computed from the blocks.
pub(crate) fn roots(files: &Files, length: u64, is_right: impl Fn(&Roots) -> bool) -> Result<Option<Roots>> {
    let mut choices: Vec<Vec<Node>> = Vec::new();
    let mut offset = 0_u64;
    for index in full_roots(length) {
        let mut nodes = Vec::new();
        let stored = held_node(&files.tree, index)?;
        let computed = match index.children() {
            Some((left, right)) => match (held_node(&files.tree, left)?, held_node(&files.tree, right)?) {
                (Some(left), Some(right)) => Node::parent(&left, &right),
                _ => None,
            },
            None => None,
        };
        // A leaf's size is the stored one, or the last block ends where the file does; stray bytes may
        // follow the log.
        let stored_size = stored.map(|node| node.size);
        let sizes = match index.is_leaf() {
            true => [stored_size, files.blocks.len()?.checked_sub(offset)],
            false => [computed.map(|node| node.size).or(stored_size), None],
        };
        let mut of_blocks = [None, None];
        // A stored node that agrees with its children is not worth reading all blocks for.
        if stored.is_none() || stored != computed {
            for (node, size) in of_blocks.iter_mut().zip(sizes) {
                if size.is_some() || !index.is_leaf() {
                    *node = from_blocks((&files.tree, &files.bits, &files.blocks), index, offset, size)?;
                }
            }
        }
        for node in [stored, computed].into_iter().chain(of_blocks).flatten() {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        let Some(likely) = nodes.last() else { return Ok(None) };
        offset = offset.saturating_add(likely.size);
        choices.push(nodes);
    }
    let mut picks = vec![0; choices.len()];
    for _ in 0..MAX_TRIALS {
        let nodes = choices.iter().zip(&picks).map(|(nodes, &pick)| nodes[pick]).collect();
        if let Some(roots) = Roots::new(nodes).ok().filter(&is_right) {
            return Ok(Some(roots));
        }
        // Count to the next combination, as if each pick were a digit.
        let Some(at) = (0..picks.len()).find(|&at| picks[at] + 1 < choices[at].len()) else { return Ok(None) };
        picks[at] += 1;
        picks[..at].fill(0);
    }
    Ok(None)
}
