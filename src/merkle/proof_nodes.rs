//! What a proof says about the tree, computed up to a node or to roots that the caller then finds to be trusted or not.

use super::{BlockProof, NodeSource, Proof, UpgradeProof};
use crate::codec::MAX_SAFE_INTEGER;
use crate::flat_tree::growth;
use crate::index::NodeIndex;
use crate::manifest::Prologue;
use crate::node::{Node, Roots};
use crate::{Error, ErrorKind, Result};

/// The most additional nodes an upgrade may have: twice as many as the tree of the longest log has levels.
const MAX_ADDITIONAL: usize = 106;

/// A node of a proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProofNode {
    pub node: Node,
    pub origin: Origin,
}

/// How a node came about, and so what its size is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// It is a root of the own head.
    Held,
    /// It was hashed from a block or from two children: if the hash is right, so is the size.
    Hashed,
    /// The peer told it.
    Told,
}

/// Two siblings of which only the sum of the sizes is certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LoosePair {
    a: Node,
    b: Node,
    sum: u64,
}

/// The nodes that a proof leads to, each below one that still has to be trusted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ProofNodes {
    /// Nodes whose hash and size are right.
    nodes: Vec<Node>,
    /// Nodes whose hash is right.
    loose: Vec<LoosePair>,
}

/// The nodes of a list, to be taken in an order that the tree dictates, and one beside that fits in somewhere.
struct Queue<'a> {
    nodes: std::slice::Iter<'a, Node>,
    extra: Option<ProofNode>,
}

impl Queue<'_> {
    fn is_empty(&self) -> bool {
        self.extra.is_none() && self.nodes.as_slice().is_empty()
    }

    fn take(&mut self, index: NodeIndex) -> Result<ProofNode> {
        if let Some(claim) = self.extra.filter(|claim| claim.node.index == index) {
            self.extra = None;
            return Ok(claim);
        }
        match self.nodes.next() {
            Some(node) if node.index == index => Ok(ProofNode { node: *node, origin: Origin::Told }),
            Some(node) => Err(unfit(format!("the proof has node {} where node {index} is expected", node.index))),
            None => Err(unfit(format!("the proof lacks node {index}"))),
        }
    }
}

impl ProofNodes {
    /// Computes the path of a proof's block, hash and seek up to its top; none where it has none of them.
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

    /// Goes up from `index` until the queue is used up.
    fn climb(&mut self, index: NodeIndex, first: Option<ProofNode>, mut queue: Queue<'_>) -> Result<ProofNode> {
        bounded(index)?;
        let mut top = match first {
            Some(claim) => claim,
            None => queue.take(index)?,
        };
        while !queue.is_empty() {
            bounded(top.node.index.parent())?;
            let sibling = queue.take(top.node.index.sibling())?;
            top = self.join(top, sibling)?;
        }
        Ok(top)
    }

    /// The parent of two claims, which are thereby accounted for.
    fn join(&mut self, a: ProofNode, b: ProofNode) -> Result<ProofNode> {
        let parent = Node::parent(&a.node, &b.node).ok_or_else(|| Error::invalid_proof("sizes of a proof overflow"))?;
        self.account(a, b, parent.size);
        Ok(ProofNode { node: parent, origin: Origin::Hashed })
    }

    fn account(&mut self, a: ProofNode, b: ProofNode, sum: u64) {
        if a.origin == Origin::Told && b.origin == Origin::Told {
            self.loose.push(LoosePair { a: a.node, b: b.node, sum });
        } else {
            self.add(a);
            self.add(b);
        }
    }

    /// Adds a node whose hash and size the caller knows to be right, unless it is held anyway.
    pub fn add(&mut self, claim: ProofNode) {
        if claim.origin != Origin::Held {
            self.nodes.push(claim.node);
        }
    }

    /// Grows `roots` as `upgrade` says. Gives the new roots, and `top` back where it is not below one of them; whether the new
    /// roots are signed is for the caller to check.
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
            Growing { roots: roots.clone(), claims: roots.nodes().iter().map(held).collect(), proof_nodes: self };
        for next in growth(roots.length(), to) {
            grown.push(queue.take(next)?)?;
        }
        // An upgrade that another one has overtaken may still bring additional nodes; its own then remain.
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
        let Growing { roots, claims, proof_nodes } = grown;
        claims.into_iter().for_each(|claim| proof_nodes.add(claim));
        Ok((roots, queue.extra))
    }

    /// A node of the proof_nodes.
    pub fn find(&self, index: NodeIndex) -> Option<&Node> {
        let loose = self.loose.iter().flat_map(|pair| [&pair.a, &pair.b]);
        self.nodes.iter().chain(loose).find(|node| node.index == index)
    }

    /// Adds what `other` holds.
    pub fn extend(&mut self, other: ProofNodes) {
        self.nodes.extend(other.nodes);
        self.loose.extend(other.loose);
    }

    /// The nodes to store in the tree `source`, of whose nodes those that end by `kept` blocks stay.
    ///
    /// A loose pair gives way to what is known better, and gets from it the size that is left.
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
            // What is left for the other; none where the known size contradicts the sum.
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

/// Roots that grow, and how each came about.
struct Growing<'a> {
    roots: Roots,
    claims: Vec<ProofNode>,
    proof_nodes: &'a mut ProofNodes,
}

impl Growing<'_> {
    fn push(&mut self, claim: ProofNode) -> Result<()> {
        let (claims, proof_nodes) = (&mut self.claims, &mut *self.proof_nodes);
        let mut pushed = false;
        self.roots.push(claim.node, |node| {
            if !pushed {
                pushed = true;
                claims.push(claim);
                return;
            }
            if let (Some(right), Some(left)) = (claims.pop(), claims.pop()) {
                proof_nodes.account(left, right, node.size);
            }
            claims.push(ProofNode { node: *node, origin: Origin::Hashed });
        })
    }
}

fn bounded(index: NodeIndex) -> Result<()> {
    if index.0 > MAX_SAFE_INTEGER {
        return Err(unfit(format!("node {index} is past the end of any log")));
    }
    Ok(())
}

/// The proof does not fit what is asked of it or what the log has become; nobody need be at fault.
pub(super) fn unfit(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
