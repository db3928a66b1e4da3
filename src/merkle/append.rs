//! The writer's changes of the tree: appending leaves and truncating.

use super::{Head, NodeSource, Patch};
use crate::flat_tree::full_roots;
use crate::node::{Node, Roots};
use crate::{Error, ErrorKind, Result};

/// The change that appends `leaves` to `head`. They follow each other, and the first is that of block `head.length()`.
///
/// The caller signs the new head.
pub fn append(head: &Head, leaves: impl IntoIterator<Item = Node>) -> Result<Patch> {
    let leaves = leaves.into_iter();
    let mut nodes = Vec::with_capacity(nodes_made(head.length(), leaves.size_hint().0));
    let mut roots = head.roots.clone();
    for leaf in leaves {
        roots.push(leaf, |node| nodes.push(*node))?;
    }
    let upgrade = Some(Head { roots, fork: head.fork, signature: Vec::new() });
    Ok(Patch { base_fork: head.fork, base_length: head.length(), ancestors: head.length(), nodes, upgrade })
}

/// How many nodes appending `leaves` blocks adds: a log of `n` blocks has `2n − roots` nodes.
fn nodes_made(length: u64, leaves: usize) -> usize {
    let after = length.saturating_add(leaves as u64);
    (2 * leaves + length.count_ones() as usize).saturating_sub(after.count_ones() as usize)
}

/// The change that truncates `head` to `length` blocks, on `fork`. The caller signs the new head; an empty one needs
/// no signature.
///
/// The new byte length is the sum of the roots' sizes. The last block's size is certain only if that block is held.
///
/// # Errors
/// [`ErrorKind::OutOfBounds`] if the log is shorter; [`ErrorKind::InvalidOperation`] if a root of that length is not
/// held.
pub fn truncate(source: &(impl NodeSource + ?Sized), head: &Head, length: u64, fork: u64) -> Result<Patch> {
    if length > head.length() {
        return Err(Error::new(
            ErrorKind::OutOfBounds,
            format!("cannot cut a log of {} blocks back to {length}", head.length()),
        ));
    }
    let roots = full_roots(length).map(|index| head.require(source, index)).collect::<Result<_>>()?;
    let upgrade = Some(Head { roots: Roots::new(roots)?, fork, signature: Vec::new() });
    Ok(Patch { base_fork: head.fork, base_length: head.length(), ancestors: length, nodes: Vec::new(), upgrade })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn append_adds_as_many_nodes_as_computed() {
        let mut head = Head::default();
        for count in [0, 1, 1, 2, 3, 5, 8, 13, 64] {
            let leaves: Vec<_> = (0..count).map(|i| Node::leaf(head.length() + i, &[7])).collect();
            let patch = append(&head, leaves).unwrap();
            assert_eq!(patch.nodes.len(), nodes_made(head.length(), count as usize));
            head = patch.upgrade.unwrap();
        }
        assert_eq!(head.length(), 97);
    }

    #[test]
    fn append_of_leaf_in_wrong_place_is_refused() {
        assert!(append(&Head::default(), [Node::leaf(1, &[])]).is_err());
        assert!(append(&Head::default(), [Node::leaf(0, &[]), Node::leaf(0, &[])]).is_err());
    }
}
