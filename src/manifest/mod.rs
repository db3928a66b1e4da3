//! Manifests: the signers of a log, and the check that they signed a tree.
//!
//! A manifest lists signers and a quorum, and may carry a prologue: a length and tree hash up to which the log needs
//! no signature. A core's key is the hash of its manifest, or, for a *compat* core, the public key of its only
//! signer.
//!
//! ```text
//! v1: uint 1, uint flags (1 allow patch, 2 prologue), uint hash type 0, uint quorum, array of signers,
//!     [prologue: hash 32, uint length]
//! v0: uint 0, uint hash type 0, uint type, then
//!     type 0: prologue hash 32; type 1: one signer; type 2: uint flags, uint quorum, array of signers
//! signer: uint signature type 0, namespace 32, public key 32
//! signed: compat   TREE ‖ tree hash ‖ u64 length ‖ u64 fork
//!         v1       TREE ‖ manifest hash ‖ tree hash ‖ u64 length ‖ u64 fork
//!         v0       TREE ‖ signer's namespace ‖ tree hash ‖ u64 length ‖ u64 fork
//! ```
//!
//! A version-1 core wraps every signature as a [`MultiSignature`], also with a single signer.

mod multisig;
mod quorum;
mod verifier;

pub use multisig::{MultiSignature, PartialSignature};
pub use verifier::{SignableTree, Verifier};

use crate::codec::{Reader, Writer};
use crate::crypto::hash::{self, Hash};
use crate::crypto::keys::Key;
use crate::{Error, Result};

/// The most signers that a decoded manifest may name.
const MAX_SIGNERS: usize = 1024;

/// The signers of a log, the quorum of them that has to sign, and a prologue that needs no signature.
///
/// ```
/// use hypercore::{KeyPair, Manifest, Signer};
///
/// let (alice, bob) = (KeyPair::generate()?, KeyPair::generate()?);
/// let manifest = Manifest::new(vec![Signer::new(alice.public_key()), Signer::new(bob.public_key())]).with_quorum(2);
/// println!("the core's key is {}", manifest.key());
/// # Ok::<(), hypercore::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The version of the encoding: 0 or 1; new manifests are version 1.
    pub version: u8,
    /// Whether a signature over a longer log counts, given the nodes that connect this log to it.
    pub allow_patch: bool,
    /// How many signers have to sign.
    pub quorum: u64,
    /// The public keys that may sign. A [`PartialSignature`] names its signer by the place in this list.
    pub signers: Vec<Signer>,
    /// The beginning of the log that needs no signature.
    pub prologue: Option<Prologue>,
}

/// A public key that may sign a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signer {
    /// Separates the uses of one key: a version-0 manifest's signatures cover it.
    pub namespace: Hash,
    /// The Ed25519 public key.
    pub public_key: Key,
}

/// The beginning of a log that every copy has. Its hash makes it valid without a signature; a log that was truncated
/// to it, and so is on a higher fork, is signed like any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prologue {
    /// The tree hash at `length`.
    pub hash: Hash,
    /// How many blocks it covers.
    pub length: u64,
}

impl Signer {
    /// A signer in the default namespace.
    pub fn new(public_key: Key) -> Self {
        Signer { namespace: hash::namespaces().default_namespace, public_key }
    }

    fn encode(&self, w: &mut Writer) {
        w.uint(0).bytes(&self.namespace).bytes(self.public_key.as_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match r.uint()? {
            0 => Ok(Signer { namespace: r.fixed()?, public_key: Key::new(r.fixed()?) }),
            other => Err(Error::decoding(format!("signature type {other} of a signer is unknown"))),
        }
    }
}

impl Manifest {
    /// A version-1 manifest of these signers, with a quorum of more than half of them.
    pub fn new(signers: Vec<Signer>) -> Self {
        let quorum = if signers.is_empty() { 0 } else { signers.len() as u64 / 2 + 1 };
        Manifest { version: 1, allow_patch: false, quorum, signers, prologue: None }
    }

    /// The manifest of a core that is created with a key pair and no manifest.
    pub fn single(public_key: Key) -> Self {
        Self::new(vec![Signer::new(public_key)])
    }

    /// Sets how many of the signers have to sign.
    pub fn with_quorum(mut self, quorum: u64) -> Self {
        self.quorum = quorum;
        self
    }

    /// Sets whether a signature over a longer log counts; see [`Manifest::allow_patch`].
    pub fn with_allow_patch(mut self, allow: bool) -> Self {
        self.allow_patch = allow;
        self
    }

    /// Sets the prologue: the first `length` blocks, whose tree hash is `hash`.
    pub fn with_prologue(mut self, hash: Hash, length: u64) -> Self {
        self.prologue = Some(Prologue { hash, length });
        self
    }

    /// The hash of the manifest's encoding, prefixed by the manifest namespace.
    pub fn hash(&self) -> Hash {
        let mut w = Writer::new();
        self.encode(&mut w);
        hash::hash(&[&hash::namespaces().manifest, w.as_slice()])
    }

    /// The key of a core with this manifest. A compat core's key is its signer's public key instead.
    pub fn key(&self) -> Key {
        Key::new(self.hash())
    }

    /// Assembles the signers' partial signatures into the signature that a log of this manifest stores and
    /// [`SignOptions::signature`](crate::SignOptions::signature) takes. Pass as many as the quorum demands, of
    /// distinct signers, in any order.
    ///
    /// ```
    /// use hypercore::{Hypercore, KeyPair, Manifest, Memory, SignOptions, Signer};
    ///
    /// let pairs = [KeyPair::generate()?, KeyPair::generate()?];
    /// let manifest = Manifest::new(pairs.iter().map(|p| Signer::new(p.public_key())).collect());
    /// let core = Hypercore::options().manifest(manifest.clone()).open_in(Memory::new())?;
    /// let shares = pairs.iter().map(|pair| core.sign_append(["hello"], pair)).collect::<Result<_, _>>()?;
    /// core.append_with(["hello"], SignOptions::new().signature(manifest.assemble(shares)))?;
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn assemble(&self, shares: Vec<PartialSignature>) -> Vec<u8> {
        MultiSignature::assemble(self.version, shares).encode(self.version)
    }

    /// Whether `key` is the public key of this manifest's only signer, which makes the core a compat core.
    pub fn is_compat(&self, key: &Key) -> bool {
        matches!(self.signers.as_slice(), [signer] if signer.public_key == *key)
    }

    /// Appends the manifest's encoding to `w`.
    pub fn encode(&self, w: &mut Writer) {
        let signers = |w: &mut Writer, signers: &[Signer]| {
            w.array(signers, |w, s| s.encode(w));
        };
        if self.version == 0 {
            w.uint(0).uint(0);
            match (&self.prologue, self.signers.as_slice()) {
                (Some(prologue), []) => {
                    w.uint(0).bytes(&prologue.hash);
                }
                (_, [signer]) if self.quorum == 1 && !self.allow_patch => signer.encode(w.uint(1)),
                _ => signers(w.uint(2).uint(self.allow_patch.into()).uint(self.quorum), &self.signers),
            }
            return;
        }
        let flags = u64::from(self.allow_patch) | u64::from(self.prologue.is_some()) << 1;
        signers(w.uint(1).uint(flags).uint(0).uint(self.quorum), &self.signers);
        if let Some(prologue) = &self.prologue {
            w.bytes(&prologue.hash).uint(prologue.length);
        }
    }

    /// Reads a manifest that [`Manifest::encode`] wrote. Versions 2 and 3, which Hypercore 11 can write, are an error.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let signers = |r: &mut Reader<'_>| {
            let signers = r.array(65, Signer::decode)?;
            if signers.len() > MAX_SIGNERS {
                return Err(Error::decoding(format!(
                    "a manifest names {} signers; {MAX_SIGNERS} are allowed",
                    signers.len()
                )));
            }
            Ok(signers)
        };
        let hash_type = |r: &mut Reader<'_>| match r.uint()? {
            0 => Ok(()),
            other => Err(Error::decoding(format!("hash type {other} of a manifest is unknown"))),
        };
        match r.uint()? {
            0 => {
                hash_type(r)?;
                let empty = Manifest { version: 0, allow_patch: false, quorum: 0, signers: vec![], prologue: None };
                match r.uint()? {
                    0 => Ok(Manifest { prologue: Some(Prologue { hash: r.fixed()?, length: 0 }), ..empty }),
                    1 => Ok(Manifest { quorum: 1, signers: vec![Signer::decode(r)?], ..empty }),
                    2 => {
                        let allow_patch = r.uint()? & 1 != 0;
                        Ok(Manifest { allow_patch, quorum: r.uint()?, signers: signers(r)?, ..empty })
                    }
                    other => Err(Error::decoding(format!("manifest type {other} is unknown"))),
                }
            }
            1 => {
                let flags = r.uint()?;
                hash_type(r)?;
                let quorum = r.uint()?;
                let signers = signers(r)?;
                let prologue = match flags & 2 {
                    0 => None,
                    _ => Some(Prologue { hash: r.fixed()?, length: r.uint()? }),
                };
                Ok(Manifest { version: 1, allow_patch: flags & 1 != 0, quorum, signers, prologue })
            }
            other => Err(Error::decoding(format!("manifest version {other} is unknown"))),
        }
    }
}
