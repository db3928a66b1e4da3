//! Checks a signature that several signers made together: the quorum, and patches for signatures of longer logs.

use std::collections::HashMap;

use super::Manifest;
use super::multisig::MultiSignature;
use super::verifier::{SignableTree, Verifier};
use crate::crypto::keys;
use crate::flat_tree::growth;
use crate::index::NodeIndex;
use crate::node::{Node, Roots};
use crate::{Error, Result};

impl Verifier {
    /// Whether `signature` holds partial signatures of `tree` by as many distinct signers as `manifest` requires.
    /// Only the first `quorum` ones are checked, and all of them must be valid.
    pub(super) fn check_quorum(&self, manifest: &Manifest, tree: SignableTree<'_>, signature: &[u8]) -> Result<bool> {
        if manifest.quorum == 0 || signature.is_empty() {
            return Ok(false);
        }
        let multi = MultiSignature::decode(manifest.version, signature)?;
        let quorum = match usize::try_from(manifest.quorum) {
            Ok(quorum) if quorum <= multi.proofs.len() => quorum,
            _ => return Ok(false),
        };
        // If two nodes have one index, the later counts, as in JavaScript.
        let patch: HashMap<NodeIndex, &Node> = multi.nodes.iter().map(|node| (node.index, node)).collect();
        let mut tried = vec![false; manifest.signers.len()];
        for proof in &multi.proofs[..quorum] {
            let signer = usize::try_from(proof.signer).ok().filter(|&i| i < tried.len() && !tried[i]);
            let Some(signer) = signer else { return Ok(false) };
            tried[signer] = true;
            let signer = &manifest.signers[signer];
            let longer;
            let roots = if proof.patch != 0 && manifest.allow_patch {
                let Ok(roots) = extend(tree.roots, proof.patch, &patch) else { return Ok(false) };
                longer = roots;
                &longer
            } else {
                tree.roots
            };
            let message = self.signable(SignableTree { roots, ..tree }, signer);
            if !keys::verify(signer.public_key.as_bytes(), &message, &proof.signature) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// `roots` extended by `by` blocks, whose subtrees are taken from `nodes`.
fn extend(roots: &Roots, by: u64, nodes: &HashMap<NodeIndex, &Node>) -> Result<Roots> {
    let missing = |index: NodeIndex| Error::invalid_proof(format!("the patch of a signature lacks node {index}"));
    let find = |index: NodeIndex| nodes.get(&index).map(|&&node| node).ok_or_else(|| missing(index));
    let length = roots.length().checked_add(by).filter(|&n| n <= crate::codec::MAX_SAFE_INTEGER / 2);
    let length = length.ok_or_else(|| Error::invalid_proof("the patch of a signature is longer than any log"))?;
    let mut grown = roots.clone();
    for next in growth(roots.length(), length) {
        grown.push(find(next)?, |_| ())?;
    }
    Ok(grown)
}
