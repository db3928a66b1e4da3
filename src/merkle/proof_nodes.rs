//! Hashes the nodes of a proof up to a top node or to new roots; the caller compares these with trusted ones.

use super::{BlockProof, NodeSource, Proof, UpgradeProof};
use crate::codec::MAX_SAFE_INTEGER;
use crate::flat_tree::growth;
use crate::index::NodeIndex;
use crate::manifest::Prologue;
use crate::node::{Node, Roots};
use crate::{Error, ErrorKind, Result};

/// The most additional nodes of an upgrade: twice the number of levels in the tree of the longest log.
const MAX_ADDITIONAL: usize = 106;

/// A node of a proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProofNode {
    pub node: Node,
    pub origin: Origin,
}

/// The origin of a node, which decides whether its size is certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// It is a root of this core's head.
    Held,
    /// It was hashed from a block or from two children: if the hash is right, so is the size.
    Hashed,
    /// The proof lists it.
    Told,
}

/// Two siblings that the proof lists, so that only the sum of their sizes is certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LoosePair {
    a: Node,
    b: Node,
    sum: u64,
}

/// The nodes of a proof. They are right if the top node, or the new roots, to which they hash are right.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ProofNodes {
    /// Nodes of which hash and size are certain.
    nodes: Vec<Node>,
    /// Pairs of which only the hashes and the sum of the sizes are certain.
    loose: Vec<LoosePair>,
}

/// The nodes that a proof lists, taken in the order that the tree dictates, and one computed node that takes the place
/// of a listed one.
struct Queue<'a> {
    nodes: std::slice::Iter<'a, Node>,
    extra: Option<ProofNode>,
}

impl Queue<'_> {
    fn is_empty(&self) -> bool {
        self.extra.is_none() && self.nodes.as_slice().is_empty()
    }

    fn take(&mut self, index: NodeIndex) -> Result<ProofNode> {
        if let Some(proof_node) = self.extra.filter(|proof_node| proof_node.node.index == index) {
            self.extra = None;
            return Ok(proof_node);
        }
        match self.nodes.next() {
            Some(node) if node.index == index => Ok(ProofNode { node: *node, origin: Origin::Told }),
            Some(node) => Err(unfit(format!("the proof has node {} where node {index} is expected", node.index))),
            None => Err(unfit(format!("the proof lacks node {index}"))),
        }
    }
}

impl ProofNodes {
    /// Hashes the paths of a proof's block, hash and seek up to their top node. None if it has none of them.
    pub fn path(&mut self, proof: &Proof) -> Result<Option<ProofNode>> {
        let seek = proof.seek.as_ref().map_or(&[][..], |seek| &seek.nodes);
        let seek = match seek.first() {
            Some(node) => Some(self.climb(node.index, None, Queue { nodes: seek.iter(), extra: None })?),
            None => None,
        };
        match (&proof.block, &proof.hash) {
            (Some(_), Some(_)) => Err(unfit("a proof is of a block or of a hash, not of both")),
            (Some(BlockProof { index, value, nodes }), None) => {
                let leaf = NodeIndex(index.saturating_mul(2));
                bounded(leaf)?;
                let leaf = ProofNode { node: Node::leaf(*index, value), origin: Origin::Hashed };
                self.climb(leaf.node.index, Some(leaf), Queue { nodes: nodes.iter(), extra: seek }).map(Some)
            }
            (None, Some(hash)) => {
                self.climb(hash.index, None, Queue { nodes: hash.nodes.iter(), extra: seek }).map(Some)
            }
            (None, None) => Ok(seek),
        }
    }

    /// Hashes the path from `index` up until the queue is empty, and returns its top node.
    fn climb(&mut self, index: NodeIndex, first: Option<ProofNode>, mut queue: Queue<'_>) -> Result<ProofNode> {
        bounded(index)?;
        let mut top = match first {
            Some(proof_node) => proof_node,
            None => queue.take(index)?,
        };
        while !queue.is_empty() {
            bounded(top.node.index.parent())?;
            let sibling = queue.take(top.node.index.sibling())?;
            top = self.join(top, sibling)?;
        }
        Ok(top)
    }

    /// The parent of two siblings, which are added.
    fn join(&mut self, a: ProofNode, b: ProofNode) -> Result<ProofNode> {
        let parent = Node::parent(&a.node, &b.node).ok_or_else(|| Error::invalid_proof("sizes of a proof overflow"))?;
        self.add_pair(a, b, parent.size);
        Ok(ProofNode { node: parent, origin: Origin::Hashed })
    }

    fn add_pair(&mut self, a: ProofNode, b: ProofNode, sum: u64) {
        if a.origin == Origin::Told && b.origin == Origin::Told {
            self.loose.push(LoosePair { a: a.node, b: b.node, sum });
        } else {
            self.add(a);
            self.add(b);
        }
    }

    /// Adds a node of certain size, unless it is a root of the head and so is held already.
    pub fn add(&mut self, proof_node: ProofNode) {
        if proof_node.origin != Origin::Held {
            self.nodes.push(proof_node.node);
        }
    }

    /// Extends `roots` by the nodes of `upgrade`. Returns the new roots, whose signature the caller checks, and `top`
    /// if the upgrade did not use it.
    pub fn grow(
        &mut self,
        roots: &Roots,
        upgrade: &UpgradeProof,
        top: Option<ProofNode>,
        prologue: Option<&Prologue>,
    ) -> Result<(Roots, Option<ProofNode>)> {
        let UpgradeProof { start, length, .. } = *upgrade;
        let to = start.checked_add(length).filter(|&to| to <= MAX_SAFE_INTEGER / 2);
        let to = to.ok_or_else(|| unfit("the upgrade is longer than any log"))?;
        if to == 0 || to < roots.length() {
            return Err(unfit(format!("an upgrade to {to} blocks does not fit a log of {}", roots.length())));
        }
        if let Some(prologue) = prologue {
            if start < prologue.length && (start != 0 || length < prologue.length) {
                return Err(Error::invalid_proof("the upgrade shows only a part of the manifest's prologue"));
            }
        }
        let mut queue = Queue { nodes: upgrade.nodes.iter(), extra: top };
        let held = |&node: &Node| ProofNode { node, origin: Origin::Held };
        let mut grown =
            Growing { roots: roots.clone(), tops: roots.nodes().iter().map(held).collect(), proof_nodes: self };
        for next in growth(roots.length(), to) {
            grown.push(queue.take(next)?)?;
        }
        // If the log has reached the end of the upgrade meanwhile, its nodes stay unused, but its additional nodes may
        // still extend the log.
        if to > roots.length() && !queue.nodes.as_slice().is_empty() {
            return Err(unfit("the upgrade has more nodes than it needs"));
        }
        if let Some(prologue) = prologue {
            if to == prologue.length && grown.roots.tree_hash() != prologue.hash {
                return Err(Error::invalid_proof("the upgrade is not the manifest's prologue"));
            }
        }
        if upgrade.additional_nodes.len() > MAX_ADDITIONAL {
            return Err(Error::invalid_proof("the upgrade has more additional nodes than any log needs"));
        }
        for &node in &upgrade.additional_nodes {
            bounded(node.index)?;
            grown.push(ProofNode { node, origin: Origin::Told })?;
        }
        let Growing { roots, tops, proof_nodes } = grown;
        tops.into_iter().for_each(|proof_node| proof_nodes.add(proof_node));
        Ok((roots, queue.extra))
    }

    /// The node `index`, if the proof has it.
    pub fn find(&self, index: NodeIndex) -> Option<&Node> {
        let loose = self.loose.iter().flat_map(|pair| [&pair.a, &pair.b]);
        self.nodes.iter().chain(loose).find(|node| node.index == index)
    }

    /// Adds all nodes of `other`.
    pub fn extend(&mut self, other: ProofNodes) {
        self.nodes.extend(other.nodes);
        self.loose.extend(other.loose);
    }

    /// The nodes to add to the tree `source`, whose nodes over the first `kept` blocks stay.
    ///
    /// If the size of one node of a loose pair is known from this proof or the tree, the other gets the rest of the
    /// sum.
    pub fn settle(self, source: &(impl NodeSource + ?Sized), kept: u64) -> Result<Vec<Node>> {
        let ProofNodes { mut nodes, loose } = self;
        for LoosePair { a, b, sum } in loose {
            let certain = |node: &Node| nodes.iter().find(|n| n.index == node.index && n.hash == node.hash).copied();
            let held = |node: &Node| -> Result<Option<Node>> {
                if node.index.end_block() > kept {
                    return Ok(None);
                }
                Ok(source.node(node.index)?.filter(|n| n.hash == node.hash))
            };
            // The other node with the rest of the sum; none if the known size is larger than the sum.
            let rest = |known: Node, other: Node| Some(Node { size: sum.checked_sub(known.size)?, ..other });
            match (certain(&a), certain(&b)) {
                (Some(_), Some(_)) => {}
                (Some(known), None) => nodes.extend(rest(known, b)),
                (None, Some(known)) => nodes.extend(rest(known, a)),
                (None, None) => match (held(&a)?, held(&b)?) {
                    (Some(_), Some(_)) => {}
                    (Some(known), None) if known.size <= sum => nodes.extend(rest(known, b)),
                    (None, Some(known)) if known.size <= sum => nodes.extend(rest(known, a)),
                    _ => nodes.extend([a, b]),
                },
            }
        }
        Ok(nodes)
    }
}

/// Growing roots, with the origin of each.
struct Growing<'a> {
    roots: Roots,
    tops: Vec<ProofNode>,
    proof_nodes: &'a mut ProofNodes,
}

impl Growing<'_> {
    fn push(&mut self, proof_node: ProofNode) -> Result<()> {
        let (tops, proof_nodes) = (&mut self.tops, &mut *self.proof_nodes);
        let mut pushed = false;
        self.roots.push(proof_node.node, |node| {
            if !pushed {
                pushed = true;
                tops.push(proof_node);
                return;
            }
            if let (Some(right), Some(left)) = (tops.pop(), tops.pop()) {
                proof_nodes.add_pair(left, right, node.size);
            }
            tops.push(ProofNode { node: *node, origin: Origin::Hashed });
        })
    }
}

fn bounded(index: NodeIndex) -> Result<()> {
    if index.0 > MAX_SAFE_INTEGER {
        return Err(unfit(format!("node {index} is past the end of any log")));
    }
    Ok(())
}

/// The error of a proof that does not fit the request or the current log. The peer need not be at fault.
pub(super) fn unfit(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
