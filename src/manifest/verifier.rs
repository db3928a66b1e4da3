//! `Verifier`: checks the signature of a tree, and signs trees. `manifest/quorum.rs` checks signatures of several
//! signers.

use super::multisig::PartialSignature;
use super::{Manifest, Prologue, Signer};
use crate::crypto::hash;
use crate::crypto::keys::{self, Key, KeyPair};
use crate::node::Roots;
use crate::{Error, ErrorKind, Result};

/// The state of a log that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SignableTree<'a> {
    /// The roots, which give the tree hash and the length.
    pub roots: &'a Roots,
    /// The fork.
    pub fork: u64,
}

/// Checks and makes signatures of one core, by its key and, once it is known, its manifest.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: Key,
    manifest: Option<Manifest>,
    compat: bool,
}

impl Verifier {
    /// The verifier of the core `key`. Without a manifest, `compat` says whether the key may be taken for a public key
    /// until a manifest shows that it is a hash.
    ///
    /// # Errors
    /// As for [`Verifier::with_manifest`].
    pub fn new(key: Key, manifest: Option<Manifest>, compat: bool) -> Result<Self> {
        let verifier = Verifier { key, manifest: None, compat };
        match manifest {
            Some(manifest) => verifier.with_manifest(manifest),
            None => Ok(verifier),
        }
    }

    /// This verifier with the manifest.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChecksum`] if the core's key is neither the manifest's hash nor its only signer's key.
    pub fn with_manifest(&self, manifest: Manifest) -> Result<Self> {
        let compat = manifest.is_compat(&self.key);
        if !compat && manifest.key() != self.key {
            return Err(Error::new(
                ErrorKind::InvalidChecksum,
                format!("the manifest is not that of core {}: it hashes to {}", self.key, manifest.key()),
            ));
        }
        Ok(Verifier { key: self.key, manifest: Some(manifest), compat })
    }

    /// The core's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The manifest, if it is known.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Whether the core is a compat core, whose key is the only signer's public key; an assumption until the manifest
    /// is known.
    pub fn is_compat(&self) -> bool {
        self.compat
    }

    /// The prologue of the manifest. Compat and version-0 cores have none.
    pub fn prologue(&self) -> Option<&Prologue> {
        match &self.manifest {
            Some(manifest) if !self.compat && manifest.version != 0 => manifest.prologue.as_ref(),
            _ => None,
        }
    }

    /// The verifier that checks a proof which may carry a manifest. If this verifier has no manifest yet, it takes the
    /// proof's, or else, for a core that may be compat, that of the single signer.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSignature`] if there is no manifest at all; those of [`Verifier::with_manifest`].
    pub fn learn(&self, manifest: Option<&Manifest>) -> Result<Self> {
        match (&self.manifest, manifest) {
            (Some(_), _) => Ok(self.clone()),
            (None, Some(manifest)) => self.with_manifest(manifest.clone()),
            (None, None) if self.compat => self.with_manifest(Manifest::single(self.key)),
            (None, None) => Err(Error::new(
                ErrorKind::InvalidSignature,
                format!(
                    "core {} is known by a manifest's hash; without the manifest no signature can be checked",
                    self.key
                ),
            )),
        }
    }

    /// Checks that `signature` is valid for `tree`, or that `tree` is the prologue on fork 0.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSignature`] if it is not; [`ErrorKind::Decoding`] if it is no encoded [`MultiSignature`]
    /// where the manifest needs one.
    pub fn check(&self, tree: SignableTree<'_>, signature: &[u8]) -> Result<()> {
        let bad = |why: &str| {
            Error::new(
                ErrorKind::InvalidSignature,
                format!("the signature of length {} and fork {} {why}", tree.roots.length(), tree.fork),
            )
        };
        let Some(manifest) = &self.manifest else { return Err(bad("cannot be checked: the manifest is not known")) };
        if let Some(prologue) = self.prologue() {
            if tree.roots.length() <= prologue.length {
                if tree.roots.length() != prologue.length || tree.roots.tree_hash() != prologue.hash {
                    return Err(bad("cannot make the tree valid: the tree is not the manifest's prologue"));
                }
                // On a higher fork this tree says that the blocks after it were truncated, which only signers may say.
                if tree.fork == 0 {
                    return Ok(());
                }
            }
        }
        let good = if self.is_plain(manifest) {
            let signer = &manifest.signers[0];
            keys::verify(signer.public_key.as_bytes(), &self.signable(tree, signer), signature)
        } else {
            self.check_quorum(manifest, tree, signature)?
        };
        if good { Ok(()) } else { Err(bad("is not valid")) }
    }

    /// Whether the log needs the signatures of several signers. Only then are there drafts; see
    /// [`Verifier::is_draft`].
    pub fn needs_several(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| !self.is_plain(manifest) && manifest.quorum > 1)
    }

    /// Whether `tree` is a draft: a log that needs several signers, and `signature` is that of one of them.
    pub fn is_draft(&self, tree: SignableTree<'_>, signature: &[u8]) -> bool {
        let signers =
            self.manifest.as_ref().filter(|_| self.needs_several()).map_or(&[][..], |manifest| &manifest.signers);
        signers.iter().any(|signer| keys::verify(signer.public_key.as_bytes(), &self.signable(tree, signer), signature))
    }

    /// Whether a stored signature is the single signer's 64 bytes and not an encoded [`MultiSignature`].
    fn is_plain(&self, manifest: &Manifest) -> bool {
        self.compat || (manifest.version == 0 && !manifest.allow_patch && manifest.signers.len() == 1)
    }

    /// The signature of `tree` by `key_pair`, as the log stores it.
    ///
    /// # Errors
    /// [`ErrorKind::NotWritable`] if the manifest is unknown or does not name `key_pair`.
    pub fn sign(&self, tree: SignableTree<'_>, key_pair: &KeyPair) -> Result<Vec<u8>> {
        let Some(manifest) = &self.manifest else {
            return Err(Error::new(
                ErrorKind::NotWritable,
                "the core's manifest is not known, so no key pair can sign for it: open the core with its manifest",
            ));
        };
        let share = self.sign_partial(tree, key_pair)?;
        // If several have to sign, the partial signature alone makes a draft: this signer's own copy of the log, which
        // peers do not accept.
        if self.is_plain(manifest) || manifest.quorum > 1 {
            return Ok(share.signature.to_vec());
        }
        Ok(manifest.assemble(vec![share]))
    }

    /// The partial signature of `tree` by `key_pair`, for [`Manifest::assemble`].
    ///
    /// # Errors
    /// [`ErrorKind::NotWritable`] if the manifest is unknown or does not name `key_pair`.
    pub fn sign_partial(&self, tree: SignableTree<'_>, key_pair: &KeyPair) -> Result<PartialSignature> {
        let signers = self.manifest.as_ref().map_or(&[][..], |m| &m.signers);
        let Some(at) = signers.iter().position(|s| s.public_key == key_pair.public_key()) else {
            return Err(Error::new(
                ErrorKind::NotWritable,
                format!("the key pair {} is none of the signers of core {}", key_pair.public_key(), self.key),
            ));
        };
        let signature = key_pair.sign(&self.signable(tree, &signers[at]));
        Ok(PartialSignature { signer: at as u64, signature, patch: 0, nodes: Vec::new() })
    }

    /// The bytes that `signer` signs for `tree`.
    pub(super) fn signable(&self, tree: SignableTree<'_>, signer: &Signer) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        out.extend_from_slice(&hash::namespaces().tree);
        if !self.compat {
            let v0 = self.manifest.as_ref().is_some_and(|m| m.version == 0);
            out.extend_from_slice(if v0 { &signer.namespace } else { self.key.as_bytes() });
        }
        out.extend_from_slice(&tree.roots.tree_hash());
        out.extend_from_slice(&tree.roots.length().to_le_bytes());
        out.extend_from_slice(&tree.fork.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::MultiSignature;
    use crate::node::Node;

    fn tree(blocks: u64) -> (Roots, Vec<Node>) {
        let (mut roots, mut nodes) = (Roots::default(), Vec::new());
        for i in 0..blocks {
            roots.push(Node::leaf(i, &i.to_le_bytes()), |n| nodes.push(*n)).unwrap();
        }
        (roots, nodes)
    }

    fn pairs(n: u8) -> Vec<KeyPair> {
        (1..=n).map(|i| KeyPair::from_seed(&[i; 32])).collect()
    }

    fn manifest(pairs: &[KeyPair], version: u8) -> Manifest {
        let mut manifest = Manifest::new(pairs.iter().map(|p| Signer::new(p.public_key())).collect());
        manifest.version = version;
        manifest
    }

    #[test]
    fn signature_of_fewer_distinct_signers_than_the_quorum_is_refused() {
        for version in [0, 1] {
            let pairs = pairs(3);
            let manifest = manifest(&pairs, version);
            let verifier = Verifier::new(manifest.key(), Some(manifest), false).unwrap();
            let (roots, _) = tree(5);
            let tree = SignableTree { roots: &roots, fork: 2 };
            let share = |i: usize| verifier.sign_partial(tree, &pairs[i]).unwrap();
            let check = |shares| verifier.check(tree, &MultiSignature::assemble(version, shares).encode(version));
            assert!(check(vec![share(0), share(2)]).is_ok());
            assert!(check(vec![share(1)]).is_err());
            assert!(check(vec![share(1), share(1)]).is_err());
            let good = MultiSignature::assemble(version, vec![share(0), share(2)]).encode(version);
            assert!(verifier.check(SignableTree { fork: 3, ..tree }, &good).is_err());
        }
    }

    #[test]
    fn signature_over_longer_log_counts_with_the_nodes_of_its_patch() {
        for version in [0, 1] {
            let pairs = pairs(2);
            let manifest = manifest(&pairs, version).with_allow_patch(true);
            let verifier = Verifier::new(manifest.key(), Some(manifest), false).unwrap();
            let (short, _) = tree(5);
            for longer_by in 1..40 {
                let (long, nodes) = tree(5 + longer_by);
                let mut theirs = verifier.sign_partial(SignableTree { roots: &long, fork: 0 }, &pairs[1]).unwrap();
                theirs.patch = longer_by;
                theirs.nodes = nodes;
                let ours = verifier.sign_partial(SignableTree { roots: &short, fork: 0 }, &pairs[0]).unwrap();
                let mut signature = MultiSignature::assemble(version, vec![ours, theirs]);
                let tree = SignableTree { roots: &short, fork: 0 };
                assert!(verifier.check(tree, &signature.encode(version)).is_ok());
                let right = signature.nodes.clone();
                signature.nodes.iter_mut().for_each(|n| n.hash[0] ^= 1);
                assert!(verifier.check(tree, &signature.encode(version)).is_err());
                // The later of two nodes counts, as in JavaScript.
                signature.nodes.extend(right);
                assert!(verifier.check(tree, &signature.encode(version)).is_ok());
                signature.nodes.reverse();
                assert!(verifier.check(tree, &signature.encode(version)).is_err());
            }
        }
    }

    #[test]
    fn prologue_with_its_hash_needs_no_signature() {
        let pairs = pairs(1);
        let (roots, _) = tree(4);
        let manifest = manifest(&pairs, 1).with_prologue(roots.tree_hash(), 4);
        let verifier = Verifier::new(manifest.key(), Some(manifest), false).unwrap();
        assert!(verifier.check(SignableTree { roots: &roots, fork: 0 }, &[]).is_ok());
        let (shorter, _) = tree(3);
        assert!(verifier.check(SignableTree { roots: &shorter, fork: 0 }, &[]).is_err());
        let (longer, _) = tree(5);
        assert!(verifier.check(SignableTree { roots: &longer, fork: 0 }, &[]).is_err());
        let signature = verifier.sign(SignableTree { roots: &longer, fork: 0 }, &pairs[0]).unwrap();
        assert!(verifier.check(SignableTree { roots: &longer, fork: 0 }, &signature).is_ok());
    }

    #[test]
    fn manifest_of_another_key_is_refused() {
        let manifest = manifest(&pairs(2), 1);
        assert!(Verifier::new(Key::new([1; 32]), Some(manifest), false).is_err());
    }
}
