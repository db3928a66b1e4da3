//! Signatures by several signers, in the form in which a log stores them.

use crate::Result;
use crate::codec::{Reader, Writer};
use crate::crypto::keys::Signature;
use crate::node::Node;

/// The signatures of several signers over one tree, in the form in which a log stores them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MultiSignature {
    pub(super) proofs: Vec<ProofOfSigner>,
    pub(super) nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProofOfSigner {
    pub(super) signer: u64,
    pub(super) signature: Signature,
    /// How many blocks longer than the log the tree is that this signer signed.
    pub(super) patch: u64,
    /// Version 0 also stores where a patch ends, as JavaScript counts it, and which nodes it takes. No reader uses
    /// either.
    patch_start: u64,
    patch_nodes: Vec<u64>,
}

/// The signature of one signer, to be assembled into a [`MultiSignature`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartialSignature {
    /// The signer's place in the manifest.
    pub signer: u64,
    /// The Ed25519 signature.
    pub signature: Signature,
    /// How many blocks longer than the log the signed tree is; 0 if the log itself was signed.
    pub patch: u64,
    /// The nodes that connect the log to the longer signed tree: those of an upgrade proof.
    pub nodes: Vec<Node>,
}

impl ProofOfSigner {
    fn of(signer: u64, signature: Signature) -> Self {
        ProofOfSigner { signer, signature, patch: 0, patch_start: 0, patch_nodes: Vec::new() }
    }
}

impl MultiSignature {
    /// Assembles partial signatures for a manifest of `version`. A node that several of them carry is stored once.
    pub fn assemble(version: u8, shares: Vec<PartialSignature>) -> Self {
        let mut out = MultiSignature::default();
        for share in shares {
            let patch_start = share.nodes.last().map_or(0, |n| n.index.end_block());
            let mut patch_nodes = Vec::new();
            for node in share.nodes {
                let known = |n: &Node| if version == 0 { *n == node } else { n.index == node.index };
                let at = out.nodes.iter().position(known).unwrap_or_else(|| {
                    out.nodes.push(node);
                    out.nodes.len() - 1
                });
                patch_nodes.push(at as u64);
            }
            let PartialSignature { signer, signature, patch, .. } = share;
            out.proofs.push(ProofOfSigner { signer, signature, patch, patch_start, patch_nodes });
        }
        out
    }

    /// The encoding, which a log stores as its signature.
    pub fn encode(&self, version: u8) -> Vec<u8> {
        let mut w = Writer::new();
        if version == 0 {
            w.array(&self.proofs, |w, p| {
                w.uint(u64::from(p.patch != 0)).uint(p.signer).bytes(&p.signature);
                if p.patch != 0 {
                    w.uint(p.patch_start).uint(p.patch).array(&p.patch_nodes, |w, &at| {
                        w.uint(at);
                    });
                }
            });
        } else {
            w.array(&self.proofs, |w, p| {
                w.uint(p.signer).bytes(&p.signature).uint(p.patch);
            });
        }
        w.array(&self.nodes, |w, n| n.encode(w));
        w.into_vec()
    }

    /// Reads a signature that [`MultiSignature::encode`] wrote for the same `version`.
    pub fn decode(version: u8, bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let proofs = if version == 0 {
            r.array(66, |r| {
                let patched = r.uint()? & 1 != 0;
                let mut proof = ProofOfSigner::of(r.uint()?, r.fixed()?);
                if patched {
                    proof.patch_start = r.uint()?;
                    proof.patch = r.uint()?;
                    proof.patch_nodes = r.array(1, |r| r.uint())?;
                }
                Ok(proof)
            })?
        } else {
            r.array(66, |r| {
                let mut proof = ProofOfSigner::of(r.uint()?, r.fixed()?);
                proof.patch = r.uint()?;
                Ok(proof)
            })?
        };
        Ok(MultiSignature { proofs, nodes: r.array(Node::MIN_ENCODED, Node::decode)? })
    }

    /// The first signer's signature; none if there is no signer.
    pub fn first(&self) -> Option<&Signature> {
        self.proofs.first().map(|p| &p.signature)
    }
}
