//! The header of the oplog: what the core was when the log of changes was last cut.
//!
//! ```text
//! version 1   1 ‖ flags (2 manifest, 4 key pair) ‖ key 32 ‖ [manifest] ‖ [key pair] ‖ user data ‖ tree ‖ hints
//! external    1 ‖ flags 1 ‖ start ‖ length                 the header, which is too long, stands there in the file `header`
//! version 0   0 ‖ types ‖ user data ‖ tree ‖ key pair ‖ hints            of early Hypercore 10; only read
//!
//! key pair    buffer public key ‖ buffer secret key        the secret key empty where it is not held
//! user data   count ‖ (string key ‖ buffer value)…
//! tree        fork ‖ length ‖ buffer tree hash ‖ buffer signature
//! hints       count ‖ (from ‖ to ‖ ancestors)… ‖ [contiguous length]
//! types       string "blake2b" ‖ string "raw" ‖ string "ed25519"
//! ```

use std::fmt;

use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::crypto::hash::Hash;
use crate::crypto::keys::Key;
use crate::manifest::Manifest;
use crate::{Error, Result};

/// What the core was when the log of changes was last cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The core's key.
    pub key: Key,
    /// Who may sign, where that is known.
    pub manifest: Option<Manifest>,
    /// The key pair of the core's writer, where it was opened with one.
    pub key_pair: Option<StoredKeyPair>,
    /// Keys and values that the user keeps with the core.
    pub user_data: Vec<(String, Vec<u8>)>,
    /// The log.
    pub tree: TreeHeader,
    /// The latest times the log was cut back.
    pub reorgs: Vec<ReorgHint>,
    /// Up to where every block is held; it can be too high, and 0 can stand for "not known".
    pub contiguous_length: u64,
}

/// A key pair as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKeyPair {
    /// The public key.
    pub public_key: Key,
    /// The secret key in libsodium's layout, where it is held.
    pub secret_key: Option<Zeroizing<[u8; 64]>>,
}

/// The log a header speaks of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TreeHeader {
    /// How often it was cut back.
    pub fork: u64,
    /// How many blocks it has.
    pub length: u64,
    /// The hash of the tree; none for an empty log.
    pub root_hash: Option<Hash>,
    /// The signature over it; empty for an empty log.
    pub signature: Vec<u8>,
}

/// A time the log was cut back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReorgHint {
    /// The fork before.
    pub from: u64,
    /// The fork after.
    pub to: u64,
    /// Up to where both are the same.
    pub ancestors: u64,
}

/// What a slot of the oplog holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The header itself.
    Inline(Box<Header>),
    /// Its place in the file `header`.
    External(External),
}

/// A place in the file `header`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct External {
    /// The first byte.
    pub start: u64,
    /// How many.
    pub length: u64,
}

impl fmt::Debug for StoredKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.secret_key.as_ref().map(|_| "..");
        f.debug_struct("StoredKeyPair").field("public_key", &self.public_key).field("secret_key", &secret).finish()
    }
}

impl Slot {
    /// Reads a slot, or the file `header`.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match r.uint()? {
            0 => Header::decode_v0(r).map(Box::new).map(Slot::Inline),
            1 => {
                let flags = r.uint()?;
                if flags & 1 != 0 {
                    return Ok(Slot::External(External { start: r.uint()?, length: r.uint()? }));
                }
                Header::decode_v1(r, flags).map(Box::new).map(Slot::Inline)
            }
            version => Err(Error::decoding(format!("the header is of version {version}, which is newer than 1"))),
        }
    }
}

impl External {
    /// Writes the slot that says where the header is.
    pub fn encode(&self, w: &mut Writer) {
        w.uint(1).uint(1).uint(self.start).uint(self.length);
    }
}

impl Header {
    /// Writes the header's encoding, which holds the secret key.
    pub fn encode(&self, w: &mut Writer) {
        let flags = u64::from(self.manifest.is_some()) << 1 | u64::from(self.key_pair.is_some()) << 2;
        w.uint(1).uint(flags).bytes(self.key.as_bytes());
        if let Some(manifest) = &self.manifest {
            manifest.encode(w);
        }
        if let Some(pair) = &self.key_pair {
            w.buffer(pair.public_key.as_bytes()).buffer(pair.secret_key.as_ref().map_or(&[], |secret| &secret[..]));
        }
        w.array(&self.user_data, |w, (key, value)| {
            w.string(key).buffer(value);
        });
        w.uint(self.tree.fork).uint(self.tree.length);
        w.buffer(self.tree.root_hash.as_ref().map_or(&[], |hash| &hash[..])).buffer(&self.tree.signature);
        w.array(&self.reorgs, |w, hint| {
            w.uint(hint.from).uint(hint.to).uint(hint.ancestors);
        });
        w.uint(self.contiguous_length);
    }

    /// At least how many bytes the encoding takes.
    pub(super) fn size_hint(&self) -> usize {
        1024 + self.user_data.iter().map(|(key, value)| key.len() + value.len() + 18).sum::<usize>()
            + self.manifest.as_ref().map_or(0, |m| m.signers.len() * 65)
            + self.tree.signature.len()
            + self.reorgs.len() * 27
    }

    fn decode_v1(r: &mut Reader<'_>, flags: u64) -> Result<Self> {
        let key = Key::new(r.fixed()?);
        let manifest = if flags & 2 != 0 { Some(Manifest::decode(r)?) } else { None };
        let key_pair = if flags & 4 != 0 { StoredKeyPair::decode(r)? } else { None };
        let user_data = decode_user_data(r)?;
        let tree = TreeHeader::decode(r)?;
        let (reorgs, contiguous_length) = decode_hints(r)?;
        Ok(Header { key, manifest, key_pair, user_data, tree, reorgs, contiguous_length })
    }

    fn decode_v0(r: &mut Reader<'_>) -> Result<Self> {
        let types = [r.string()?, r.string()?, r.string()?];
        if types[0] != "blake2b" || types[2] != "ed25519" {
            return Err(Error::decoding(format!(
                "the core's tree and signer are {:?}, not blake2b and ed25519",
                types
            )));
        }
        let user_data = decode_user_data(r)?;
        let tree = TreeHeader::decode(r)?;
        let pair = StoredKeyPair::decode(r)?.ok_or_else(|| Error::decoding("the core has no public key"))?;
        let (reorgs, contiguous_length) = decode_hints(r)?;
        let mut manifest = Manifest::single(pair.public_key);
        manifest.version = 0;
        let (key, key_pair) = (pair.public_key, pair.secret_key.is_some().then_some(pair));
        Ok(Header { key, manifest: Some(manifest), key_pair, user_data, tree, reorgs, contiguous_length })
    }
}

impl StoredKeyPair {
    /// A key pair without a public key is none.
    fn decode(r: &mut Reader<'_>) -> Result<Option<Self>> {
        let (public, secret) = (r.buffer()?, r.buffer()?);
        if public.is_empty() {
            return Ok(None);
        }
        let public_key = Key::try_from(public).map_err(|e| Error::decoding(e.to_string()))?;
        let secret_key = match secret.len() {
            0 => None,
            64 => {
                let mut key = Zeroizing::new([0; 64]);
                key.copy_from_slice(secret);
                Some(key)
            }
            n => return Err(Error::decoding(format!("a secret key has 64 bytes, not {n}"))),
        };
        Ok(Some(StoredKeyPair { public_key, secret_key }))
    }
}

impl TreeHeader {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let (fork, length, hash) = (r.uint()?, r.uint()?, r.buffer()?);
        let root_hash = match hash.len() {
            0 => None,
            n => Some(hash.try_into().map_err(|_| Error::decoding(format!("a tree hash has 32 bytes, not {n}")))?),
        };
        Ok(TreeHeader { fork, length, root_hash, signature: r.buffer()?.to_vec() })
    }
}

fn decode_user_data(r: &mut Reader<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    r.array(2, |r| Ok((r.string()?.to_owned(), r.buffer()?.to_vec())))
}

fn decode_hints(r: &mut Reader<'_>) -> Result<(Vec<ReorgHint>, u64)> {
    let reorgs = r.array(3, |r| Ok(ReorgHint { from: r.uint()?, to: r.uint()?, ancestors: r.uint()? }))?;
    let contiguous_length = if r.is_empty() { 0 } else { r.uint()? };
    Ok((reorgs, contiguous_length))
}
