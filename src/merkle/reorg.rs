//! Following a peer to another fork: finding the blocks that both logs share, and the change that leads to the fork.
//!
//! A peer on a higher fork first proves its roots by a signed upgrade from 0. The logs part below the leftmost root
//! that this core's tree does not have. Each further proof of a node below it shows that node's children, and the
//! search continues in the leftmost child that differs, until that is a leaf or starts past the end of this core's
//! log.

use super::proof_nodes::{ProofNodes, unfit};
use super::verify::{Verified, check_signed};
use super::{Head, NodeRequest, NodeSource, Proof};
use crate::index::NodeIndex;
use crate::manifest::{Manifest, Verifier};
use crate::node::{Node, Roots};
use crate::{Error, ErrorKind, Result};

/// A search for the shared blocks, which takes proofs and asks for more of them.
///
/// It is valid for the head on which it was started; the caller drops it when the head changes.
#[derive(Clone, Debug)]
pub struct Reorg {
    base: Head,
    head: Head,
    manifest: Option<Manifest>,
    proof_nodes: ProofNodes,
    /// The leftmost subtree of the new log that is known to differ; none if the old log contains the whole new log.
    parting: Option<Node>,
}

/// The proof that a [`Reorg`] needs next: of the leaf of any of these blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The first block.
    pub start: u64,
    /// The block after the last.
    pub end: u64,
    /// How many levels the path has to lead up.
    pub nodes: u64,
}

impl Wanted {
    /// The request for the leaf of `block`, as [`Request::hash`](super::Request::hash).
    pub fn request(&self, block: u64) -> NodeRequest {
        NodeRequest { index: NodeIndex::of_block(block).0, nodes: self.nodes }
    }
}

impl Reorg {
    /// Starts with `proof`, an upgrade from 0 of a log on a higher fork.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidOperation`] if the fork is not higher or the upgrade is missing; other kinds if the proof
    /// is not valid.
    pub fn start(source: &(impl NodeSource + ?Sized), head: &Head, proof: &Proof, verifier: &Verifier) -> Result<Self> {
        if proof.fork <= head.fork {
            return Err(unfit(format!("fork {} is not above this log's fork {}", proof.fork, head.fork)));
        }
        let Some(upgrade) = &proof.upgrade else { return Err(unfit("the proof of a fork lacks its upgrade")) };
        let signers = verifier.learn(proof.manifest.as_ref())?;
        let mut proof_nodes = ProofNodes::default();
        let top = proof_nodes.path(proof)?;
        let (roots, rest) = proof_nodes.grow(&Roots::default(), upgrade, top, signers.prologue())?;
        if rest.is_some() {
            return Err(Error::invalid_proof("the proof of a fork has a block that is not below its roots"));
        }
        let new = Head { roots, fork: proof.fork, signature: upgrade.signature.clone() };
        let manifest = check_signed(&new, verifier, signers)?;
        let mut parting = None;
        for root in new.roots.nodes() {
            if !shared(source, head, root)? {
                parting = Some(*root);
                break;
            }
        }
        let mut reorg = Reorg { base: head.clone(), head: new, manifest, proof_nodes, parting };
        reorg.descend(source)?;
        Ok(reorg)
    }

    /// The fork to which it leads.
    pub fn fork(&self) -> u64 {
        self.head.fork
    }

    /// The proof that it needs next; none when it is finished.
    pub fn wanted(&self) -> Option<Wanted> {
        let parting = self.open()?;
        Some(Wanted {
            start: parting.first_block(),
            end: parting.end_block().min(self.base.length()),
            nodes: parting.depth().into(),
        })
    }

    /// Whether it needs no more proofs.
    pub fn is_finished(&self) -> bool {
        self.open().is_none()
    }

    /// Takes the answer to a request. Returns false if the search does not advance, for example because the answer to
    /// another request came first.
    ///
    /// # Errors
    /// The proof is not valid, or is of another tree.
    pub fn update(&mut self, source: &(impl NodeSource + ?Sized), proof: &Proof) -> Result<bool> {
        let Some(parting) = self.parting.filter(|_| !self.is_finished()) else { return Ok(false) };
        if proof.fork != self.head.fork {
            return Err(unfit(format!("a proof of fork {} does not lead to fork {}", proof.fork, self.head.fork)));
        }
        let mut proof_nodes = ProofNodes::default();
        let Some(top) = proof_nodes.path(proof)? else { return Ok(false) };
        if top.node.index != parting.index {
            return Ok(false);
        }
        if top.node.hash != parting.hash {
            return Err(Error::new(
                ErrorKind::InvalidChecksum,
                format!("the proof leads to another hash at node {} than the fork has", parting.index),
            ));
        }
        if parting.index.children().is_none_or(|(left, _)| proof_nodes.find(left).is_none()) {
            return Ok(false);
        }
        proof_nodes.add(top);
        self.proof_nodes.extend(proof_nodes);
        self.descend(source)?;
        Ok(true)
    }

    /// The change that leads to the new fork; none if the search is not finished.
    pub fn finish(self) -> Option<Verified> {
        if !self.is_finished() {
            return None;
        }
        let shared = self.parting.map_or(self.head.length(), |node| node.index.first_block());
        Some(Verified {
            base_fork: self.base.fork,
            base_length: self.base.length(),
            ancestors: shared.min(self.base.length()),
            proof_nodes: self.proof_nodes,
            upgrade: Some(self.head),
            block: None,
            manifest: self.manifest,
        })
    }

    /// The subtree in which the search continues.
    fn open(&self) -> Option<NodeIndex> {
        let index = self.parting?.index;
        (!index.is_leaf() && index.first_block() < self.base.length()).then_some(index)
    }

    /// Follows the leftmost difference down as far as the proofs so far reach.
    fn descend(&mut self, source: &(impl NodeSource + ?Sized)) -> Result<()> {
        while let Some((left, right)) = self.open().and_then(NodeIndex::children) {
            let (Some(&left), Some(&right)) = (self.proof_nodes.find(left), self.proof_nodes.find(right)) else {
                break;
            };
            self.parting = Some(if shared(source, &self.base, &left)? { right } else { left });
        }
        Ok(())
    }
}

/// Whether the log under `head` contains the subtree of `node`.
fn shared(source: &(impl NodeSource + ?Sized), head: &Head, node: &Node) -> Result<bool> {
    Ok(head.node(source, node.index)?.is_some_and(|held| held.hash == node.hash))
}
