//! Conflicts: a proof that the signers signed another log under the same key.

use super::proof_nodes::{ProofNodes, unfit};
use super::verify::check_signed;
use super::{Head, NodeSource, Proof};
use crate::manifest::Verifier;
use crate::node::{Node, Roots};
use crate::{Error, Result};

/// Two different signed trees of one fork.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The fork of both.
    pub fork: u64,
    /// A length at which both trees exist and differ.
    pub length: u64,
    /// A root of this core's tree at that length.
    pub local: Node,
    /// The same root in the peer's tree.
    pub remote: Node,
}

/// The conflict of this core's tree with the tree that `proof`, an upgrade from 0, proves. None if there is none, or
/// if the proof is of another fork or a longer log.
///
/// Roots of an earlier length that are not held are not compared.
///
/// # Errors
/// The proof is not valid, and so proves no conflict.
pub fn conflict(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    proof: &Proof,
    verifier: &Verifier,
) -> Result<Option<Conflict>> {
    let Some(upgrade) = &proof.upgrade else { return Ok(None) };
    if proof.fork != head.fork || upgrade.length > head.length() {
        return Ok(None);
    }
    if upgrade.start != 0 {
        return Err(unfit("the proof of a conflict starts at block 0"));
    }
    let signers = verifier.learn(proof.manifest.as_ref())?;
    let mut proof_nodes = ProofNodes::default();
    let top = proof_nodes.path(proof)?;
    let (roots, rest) = proof_nodes.grow(&Roots::default(), upgrade, top, signers.prologue())?;
    if rest.is_some() {
        return Err(Error::invalid_proof("the proof of a tree has a block beside it"));
    }
    check_signed(&Head { roots, fork: proof.fork, signature: upgrade.signature.clone() }, verifier, signers)?;
    for remote in crate::flat_tree::full_roots(upgrade.length).filter_map(|index| proof_nodes.find(index)) {
        // Only the hashes are compared: the size of a root below a longer signed tree is not certain.
        match head.node(source, remote.index)? {
            Some(local) if local.hash != remote.hash => {
                let (fork, length) = (proof.fork, upgrade.length);
                return Ok(Some(Conflict { fork, length, local, remote: *remote }));
            }
            _ => {}
        }
    }
    Ok(None)
}
