//! Cosigning: partial signatures for a log that needs several signers.

use std::sync::Arc;

use crate::core::append::Part;
use crate::core::handle::Hypercore;
use crate::core::leaf_hashes::hash_leaves;
use crate::core::session::Session;
use crate::crypto::keys::KeyPair;
use crate::manifest::{MultiSignature, PartialSignature, SignableTree};
use crate::merkle::{self, Request, UpgradeRequest};
use crate::{Error, ErrorKind, Result};

/// Signing by several signers.
impl Hypercore {
    /// Signs the log as it will be with `blocks` appended, as one of several signers. Returns that
    /// signer's partial signature.
    ///
    /// [`Manifest::assemble`](crate::Manifest::assemble) combines the partial signatures for
    /// [`SignOptions::signature`](crate::SignOptions::signature); its page has an example. Appends nothing. Blocks
    /// while another thread changes the core. Fails with [`NotWritable`](ErrorKind::NotWritable) if `key_pair` is
    /// none of the manifest's signers.
    pub fn sign_append<B: AsRef<[u8]>>(
        &self,
        blocks: impl IntoIterator<Item = B>,
        key_pair: &KeyPair,
    ) -> Result<PartialSignature> {
        let blocks: Vec<B> = blocks.into_iter().collect();
        let views: Vec<&[u8]> = blocks.iter().map(AsRef::as_ref).collect();
        self.session.sign_append(&views, key_pair)
    }

    /// Returns this core's own signature as the partial signature of signer number `signer` of another core with
    /// the same blocks, for its first `from` blocks.
    ///
    /// If this log is longer than `from`, the result includes the nodes that connect the two lengths. Only a manifest
    /// with [`allow_patch`](crate::Manifest::allow_patch) accepts it. Fails with
    /// [`OutOfBounds`](ErrorKind::OutOfBounds) if this log is shorter than `from`, and with
    /// [`InvalidOperation`](ErrorKind::InvalidOperation) if it is not signed yet.
    ///
    /// A signer with a copy of a log that needs several signers may append to the copy alone. The result is a draft
    /// that no reader accepts; the draft's signature is the signer's partial signature.
    #[doc(alias = "partialSignature")]
    pub fn partial_signature(&self, signer: u64, from: u64) -> Result<PartialSignature> {
        self.session.partial_signature(signer, from)
    }
}

impl Session {
    /// See [`Hypercore::sign_append`].
    pub(crate) fn sign_append(&self, blocks: &[&[u8]], key_pair: &KeyPair) -> Result<PartialSignature> {
        let _writer = self.shared.writer()?;
        self.check_encryption()?;
        let encryption = self.encryption().map(Arc::as_ref);
        let leaves = if encryption.is_some() { Vec::new() } else { hash_leaves(blocks) };
        let prepared = self.shared.prepare_append(&[Part { blocks: blocks.to_vec(), leaves: &leaves, encryption }])?;
        let verifier = self.shared.state.read().verifier.clone();
        verifier.sign_partial(SignableTree { roots: &prepared.roots, fork: prepared.fork }, key_pair)
    }

    /// See [`Hypercore::partial_signature`].
    pub(crate) fn partial_signature(&self, signer: u64, from: u64) -> Result<PartialSignature> {
        let shared = &*self.shared;
        let reading = shared.reading()?;
        let head = &reading.head;
        let length = head.length();
        if from > length {
            return Err(Error::new(
                ErrorKind::OutOfBounds,
                format!("the log has {length} blocks; its signature does not cover {from}"),
            ));
        }
        let stored = head.signature.as_slice();
        let version = shared.state.read().verifier.manifest().map_or(1, |manifest| manifest.version);
        let signature = match <[u8; 64]>::try_from(stored) {
            Ok(signature) => signature,
            Err(_) => *MultiSignature::decode(version, stored)?.first().ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "the log is not signed yet: append to it first")
            })?,
        };
        let nodes = if from == length {
            Vec::new()
        } else {
            let upgrade = Some(UpgradeRequest { start: from, length: length - from });
            let request = Request { upgrade, ..Request::default() };
            // If the log is truncated meanwhile, the nodes may no longer fit; verification then rejects them
            // with this signature.
            let proof = merkle::prove(&reading.tree(shared), head, None, &request)?;
            proof.upgrade.map(|u| u.nodes).unwrap_or_default()
        };
        Ok(PartialSignature { signer, signature, patch: length - from, nodes })
    }
}
