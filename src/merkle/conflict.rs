//! Two logs under one key: proof_nodes that a signer signed what contradicts the own log.

use super::proof_nodes::{ProofNodes, unfit};
use super::verify::check_signed;
use super::{Head, NodeSource, Proof};
use crate::manifest::Verifier;
use crate::node::{Node, Roots};
use crate::{Error, Result};

/// Two signed trees of one fork that differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The fork of both.
    pub fork: u64,
    /// A length that both have, and at which they differ.
    pub length: u64,
    /// A root of that length in the own tree.
    pub local: Node,
    /// The same root in the other tree.
    pub remote: Node,
}

/// Whether `proof`, an upgrade from 0, is of a tree that contradicts the own one; none where it does not, or is out of date.
///
/// Fails when the proof does not hold, and so shows nothing. Roots of an earlier length that are not held are passed over.
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
        return Err(unfit("evidence of a conflict starts at block 0"));
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
        // The hash says it all; the size of a root below a longer signed tree may be anything.
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
