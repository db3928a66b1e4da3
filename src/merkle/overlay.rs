//! A tree with changes that are not stored yet.

use std::collections::HashMap;

use super::verify::Verified;
use super::{NodeSource, Patch};
use crate::Result;
use crate::flat_tree::straddling;
use crate::index::{BuildIndexHasher, NodeIndex};
use crate::node::Node;

/// A source of nodes overlaid by patches, so that the next proof can be verified against the nodes of earlier ones.
#[derive(Clone, Debug)]
pub struct Overlay<S> {
    base: S,
    nodes: HashMap<NodeIndex, Node, BuildIndexHasher>,
    /// Nodes from this one on are not read from the base.
    cut: NodeIndex,
}

impl<S: NodeSource> Overlay<S> {
    /// An overlay of `base` without patches.
    pub fn new(base: S) -> Self {
        Overlay { base, nodes: HashMap::default(), cut: NodeIndex(u64::MAX) }
    }

    /// Adds `patch` to the overlay.
    pub fn apply(&mut self, patch: &Patch) {
        if patch.ancestors < patch.base_length {
            let cut = NodeIndex::of_block(patch.ancestors);
            self.cut = self.cut.min(cut);
            self.nodes.retain(|index, _| *index < cut);
            self.nodes.extend(straddling(patch.ancestors).map(|index| (index, Node::blank(index))));
        }
        self.nodes.extend(patch.nodes.iter().map(|node| (node.index, *node)));
    }
}

impl<S: NodeSource> Overlay<S> {
    /// Adds the nodes that `verified` stores if it is the next change of this tree.
    pub fn expect(&mut self, verified: &Verified) -> Result<()> {
        let nodes = verified.nodes(&*self)?;
        self.nodes.extend(nodes.iter().map(|node| (node.index, *node)));
        Ok(())
    }
}

impl<S: NodeSource> NodeSource for Overlay<S> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match self.nodes.get(&index) {
            Some(node) => Ok(Some(*node).filter(|n| !n.is_blank())),
            None if index < self.cut => self.base.node(index),
            None => Ok(None),
        }
    }
}
