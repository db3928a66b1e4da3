//! What the writer does to the tree: grow it by leaves, or cut it back.

use super::{Head, NodeSource, Patch};
use crate::flat_tree::full_roots;
use crate::node::{Node, Roots};
use crate::{Error, ErrorKind, Result};

/// The change that appends `leaves` to `head`: hashed already, the first of them that of block `head.length()`.
///
/// The new head is not signed yet.
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

/// How many nodes appending `leaves` blocks makes: a log of `n` blocks has `2n` less one for each of its roots.
fn nodes_made(length: u64, leaves: usize) -> usize {
    let after = length.saturating_add(leaves as u64);
    (2 * leaves + length.count_ones() as usize).saturating_sub(after.count_ones() as usize)
}

/// The change that cuts `head` back to `length` blocks, on `fork`. The new head is not signed yet; an empty one needs no
/// signature.
///
/// The size of the last block is what the tree says: hold the block to be sure of it.
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
    fn the_count_of_nodes_is_known_beforehand() {
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
    fn a_leaf_in_the_wrong_place_is_refused() {
        assert!(append(&Head::default(), [Node::leaf(1, &[])]).is_err());
        assert!(append(&Head::default(), [Node::leaf(0, &[]), Node::leaf(0, &[])]).is_err());
    }
}
