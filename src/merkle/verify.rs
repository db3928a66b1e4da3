//! Verifying proofs: hashing them up to a node under this core's head, or to a new, signed head.

use super::proof_nodes::{Origin, ProofNode, ProofNodes, unfit};
use super::seek::byte_offset;
use super::{Head, NodeSource, Patch, Proof};
use crate::crypto::hash;
use crate::index::NodeIndex;
use crate::manifest::{Manifest, Verifier};
use crate::node::Node;
use crate::{Error, ErrorKind, Result};

/// A change of the log that a peer has proven. Only [`verify`] and [`super::Reorg`] make one.
///
/// It was verified against one head; [`Verified::fits`] tells whether it still applies to the current one.
/// [`Verified::settle`] decides at the commit which nodes it stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    pub(super) base_fork: u64,
    pub(super) base_length: u64,
    pub(super) ancestors: u64,
    pub(super) proof_nodes: ProofNodes,
    pub(super) upgrade: Option<Head>,
    pub(super) block: Option<(u64, Vec<u8>)>,
    pub(super) manifest: Option<Manifest>,
}

/// The change that a [`Verified`] makes when it is committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeChange {
    /// The change of the tree.
    pub patch: Patch,
    /// The index and the stored bytes of the block that came with it.
    pub block: Option<(u64, Vec<u8>)>,
    /// The manifest, if it was not known before.
    pub manifest: Option<Manifest>,
}

/// Verifies `proof` against `head` and, if it has a longer head, that one's signature by `verifier`.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] if the proof does not fit, for example because the log has changed since the
/// request. Any other kind means that the peer has another tree or sent a forged proof.
pub fn verify(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    mut proof: Proof,
    verifier: &Verifier,
) -> Result<Verified> {
    if proof.fork != head.fork {
        return Err(unfit(format!("a proof of fork {} does not fit a log of fork {}", proof.fork, head.fork)));
    }
    let mut proof_nodes = ProofNodes::default();
    let mut top = proof_nodes.path(&proof)?;
    let mut grown = None;
    if let Some(upgrade) = proof.upgrade.take() {
        let signers = verifier.learn(proof.manifest.as_ref())?;
        let (roots, rest) = proof_nodes.grow(&head.roots, &upgrade, top, signers.prologue())?;
        top = rest;
        if roots.length() > head.length() {
            grown = Some((Head { roots, fork: head.fork, signature: upgrade.signature }, signers));
        }
    }
    if let Some(top) = top {
        connect(source, head, top, &mut proof_nodes)?;
    }
    let (upgrade, manifest) = match grown {
        Some((grown, signers)) => {
            let manifest = check_signed(&grown, verifier, signers)?;
            (Some(grown), manifest)
        }
        None => (None, named_by_key(proof.manifest, verifier)?),
    };
    Ok(Verified {
        base_fork: head.fork,
        base_length: head.length(),
        ancestors: head.length(),
        proof_nodes,
        upgrade,
        block: proof.block.map(|block| (block.index, block.value)),
        manifest,
    })
}

/// Compares `top` with the same node under `head`, and corrects the size of the held node and of its sibling.
fn connect(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    top: ProofNode,
    proof_nodes: &mut ProofNodes,
) -> Result<()> {
    let ProofNode { node, origin } = top;
    let held = head.require(source, node.index)?;
    let differs = |what| {
        Error::new(
            ErrorKind::InvalidChecksum,
            format!("the proof leads to another {what} at node {} than the tree has", node.index),
        )
    };
    if held.hash != node.hash {
        return Err(differs("hash"));
    }
    // A node that the proof lists adds nothing to the held one.
    if held.size == node.size || origin == Origin::Told {
        return Ok(());
    }
    // The held node's size is wrong: it came in a loose pair, of which only the sum is certain, because the parent's
    // hash covers it. So its sibling's size is the sum minus the corrected size.
    if head.root(node.index).is_some() {
        return Err(differs("size"));
    }
    proof_nodes.add(top);
    let Some(sibling) = head.node(source, node.index.sibling())? else { return Ok(()) };
    let parent = head.require(source, node.index.parent())?;
    let (left, right) = if node.index.is_left() { (&node, &sibling) } else { (&sibling, &node) };
    match parent.size.checked_sub(node.size) {
        Some(size) if hash::parent(parent.size, &left.hash, &right.hash) == parent.hash => {
            proof_nodes.add(ProofNode { node: Node { size, ..sibling }, origin: Origin::Hashed });
            Ok(())
        }
        _ => Err(Error::corrupt(format!("node {} of the tree is not the parent of its children", parent.index))),
    }
}

/// Checks the signature of `head` by `signers`. Returns their manifest if `verifier` does not have it.
pub(super) fn check_signed(head: &Head, verifier: &Verifier, signers: Verifier) -> Result<Option<Manifest>> {
    signers.check(head.tree(), &head.signature)?;
    Ok(match (verifier.manifest(), signers.manifest()) {
        (Some(_), _) => None,
        // A compat core's key vouches only for the signer's key, and the rest of the manifest may be forged.
        (None, Some(_)) if signers.is_compat() => Some(Manifest::single(*signers.key())),
        (None, manifest) => manifest.cloned(),
    })
}

/// A manifest that came without a signature, and so must hash to the core's key. None if it is known already.
fn named_by_key(manifest: Option<Manifest>, verifier: &Verifier) -> Result<Option<Manifest>> {
    match manifest {
        Some(manifest) if verifier.manifest().is_none() => {
            if manifest.key() == *verifier.key() {
                return Ok(Some(manifest));
            }
            Err(Error::new(
                ErrorKind::InvalidChecksum,
                format!("a manifest was sent that is not that of core {}", verifier.key()),
            ))
        }
        _ => Ok(None),
    }
}

impl Verified {
    /// Whether the change applies to `head`. A change of the head applies only to the head against which it was
    /// verified; a change that only adds nodes applies also to a head that has grown since.
    pub fn fits(&self, head: &Head) -> bool {
        let length = match self.upgrade {
            Some(_) => self.base_length == head.length(),
            None => self.base_length <= head.length(),
        };
        length && self.base_fork == head.fork
    }

    /// How many blocks from the first on stay the same.
    pub fn ancestors(&self) -> u64 {
        self.ancestors
    }

    /// The nodes that [`Verified::settle`] would store now.
    pub(super) fn nodes(&self, source: &(impl NodeSource + ?Sized)) -> Result<Vec<Node>> {
        self.proof_nodes.clone().settle(source, self.ancestors)
    }

    /// The change to store. `source` is the current tree, which must not change until the change is committed.
    pub fn settle(self, source: &(impl NodeSource + ?Sized)) -> Result<TreeChange> {
        Ok(TreeChange {
            patch: Patch {
                base_fork: self.base_fork,
                base_length: self.base_length,
                ancestors: self.ancestors,
                nodes: self.proof_nodes.settle(source, self.ancestors)?,
                upgrade: self.upgrade,
            },
            block: self.block,
            manifest: self.manifest,
        })
    }
}

impl TreeChange {
    /// The byte offset of the block in the log. `source` and `head` are those before the change.
    pub fn block_offset(&self, source: &(impl NodeSource + ?Sized), head: &Head) -> Result<Option<u64>> {
        let Some((index, _)) = &self.block else { return Ok(None) };
        let patched = Patched { nodes: &self.patch.nodes, base: source };
        byte_offset(&patched, self.patch.upgrade.as_ref().unwrap_or(head), *index).map(Some)
    }
}

/// A tree overlaid by the nodes of a patch.
struct Patched<'a, S: ?Sized> {
    nodes: &'a [Node],
    base: &'a S,
}

impl<S: NodeSource + ?Sized> NodeSource for Patched<'_, S> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match self.nodes.iter().find(|node| node.index == index) {
            Some(node) => Ok(Some(*node)),
            None => self.base.node(index),
        }
    }
}
