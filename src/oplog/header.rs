//! The header of the oplog: the state of the core at the last flush.
//!
//! ```text
//! version 1   1 ‖ flags (2 manifest, 4 key pair) ‖ key 32 ‖ [manifest] ‖ [key pair] ‖ user data ‖ tree ‖ hints
//! external    1 ‖ flags 1 ‖ start ‖ length       the place in the file `header` of a header too long for a slot
//! version 0   0 ‖ types ‖ user data ‖ tree ‖ key pair ‖ hints            of early Hypercore 10; read, never written
//!
//! key pair    buffer public key ‖ buffer secret key        the secret key is empty if it is not held
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

/// The state of the core at the last flush.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The core's key.
    pub key: Key,
    /// The manifest, if it is known.
    pub manifest: Option<Manifest>,
    /// The key pair of the core's writer, if the core was opened with one.
    pub key_pair: Option<StoredKeyPair>,
    /// Keys and values that the user stores with the core.
    pub user_data: Vec<(String, Vec<u8>)>,
    /// The log.
    pub tree: TreeHeader,
    /// The latest truncations.
    pub reorgs: Vec<ReorgHint>,
    /// How many blocks from the first on are held. The number may be too high, and 0 may mean that it is unknown.
    pub contiguous_length: u64,
}

/// A key pair in its stored form.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKeyPair {
    /// The public key.
    pub public_key: Key,
    /// The secret key in libsodium's layout, if it is held.
    ///
    /// It is boxed because moving it would leave copies that are never wiped.
    pub secret_key: Option<Box<Zeroizing<[u8; 64]>>>,
}

/// The state of the log in a header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TreeHeader {
    /// The fork, which each truncation raises.
    pub fork: u64,
    /// The number of blocks.
    pub length: u64,
    /// The hash of the tree; none for an empty log.
    pub root_hash: Option<Hash>,
    /// The signature; empty for an empty log.
    pub signature: Vec<u8>,
}

/// A truncation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReorgHint {
    /// The fork before it.
    pub from: u64,
    /// The fork after it.
    pub to: u64,
    /// How many blocks both forks share.
    pub ancestors: u64,
}

/// The content of a slot of the oplog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A header.
    Inline(Box<Header>),
    /// The place of a header in the file `header`.
    External(ExternalHeader),
}

/// A place in the file `header`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExternalHeader {
    /// The offset of its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl fmt::Debug for StoredKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.secret_key.as_ref().map(|_| "..");
        f.debug_struct("StoredKeyPair").field("public_key", &self.public_key).field("secret_key", &secret).finish()
    }
}

impl Slot {
    /// Reads the content of a slot, or of the file `header`.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match r.uint()? {
            0 => Header::decode_v0(r).map(Box::new).map(Slot::Inline),
            1 => {
                let flags = r.uint()?;
                if flags & 1 != 0 {
                    return Ok(Slot::External(ExternalHeader { start: r.uint()?, length: r.uint()? }));
                }
                Header::decode_v1(r, flags).map(Box::new).map(Slot::Inline)
            }
            version => Err(Error::decoding(format!(
                "the header has version {version}, which is unknown: open the core with a newer version of this program"
            ))),
        }
    }
}

impl ExternalHeader {
    /// Appends the encoding of a slot with this place to `w`.
    pub fn encode(&self, w: &mut Writer) {
        w.uint(1).uint(1).uint(self.start).uint(self.length);
    }
}

impl Header {
    /// Appends the header's encoding, which contains the secret key, to `w`.
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

    /// An upper bound of the length of the encoding with its frame.
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
    /// None if the public key is empty.
    fn decode(r: &mut Reader<'_>) -> Result<Option<Self>> {
        let (public, secret) = (r.buffer()?, r.buffer()?);
        if public.is_empty() {
            return Ok(None);
        }
        let public_key = Key::try_from(public).map_err(|e| Error::decoding(e.to_string()))?;
        let secret_key = match secret.len() {
            0 => None,
            64 => {
                let mut key = Box::new(Zeroizing::new([0; 64]));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::KeyPair;

    // Slot 1 of a core that npm hypercore 10.4.1 wrote: ten blocks on fork 1, and user data.
    const V0: &str = "00\
        07626c616b653262037261770765643235353139010568656c6c6f05776f726c64010a2047f877ee3111a4e1ec27f577735c710f\
        b99cdd0286b6df139b2e414b1bd94fee408b26647ad37aafe347c2fa1688905a7720e8c2d29ed3da901006f0913ee6fd0b027afb\
        2b7aab856621cbce6d3879ea4b2365a8e4ff33e638090fed3e0c31de0d202f8bdcb06c51b7a8573508e1a17ad031eed84ae9a953\
        789f9f33d4fe0ea56eec40952470d699ef3a15f56c0008070985484fb13694ca1954341ab9747d2ed280272f8bdcb06c51b7a857\
        3508e1a17ad031eed84ae9a953789f9f33d4fe0ea56eec010001070a";

    pub fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Slot> {
        Slot::decode(&mut Reader::new(bytes))
    }

    fn inline(bytes: &[u8]) -> Header {
        match decode(bytes).unwrap() {
            Slot::Inline(header) => *header,
            Slot::External(_) => panic!("the header is inline"),
        }
    }

    fn encode(header: &Header) -> Vec<u8> {
        let mut w = Writer::new();
        header.encode(&mut w);
        w.into_vec()
    }

    #[test]
    fn header_of_javascript_decodes_and_encodes_to_the_same_bytes() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/vectors.json")).unwrap();
        let bytes = hex(vectors["oplog"]["header"].as_str().unwrap());
        let header = inline(&bytes);
        let pair = KeyPair::from_seed(&[7; 32]);
        assert_eq!(header.key, pair.public_key());
        assert_eq!(header.manifest, Some(Manifest::single(pair.public_key())));
        assert_eq!(header.key_pair.as_ref().unwrap().secret_key.as_deref().map(|key| &**key), Some(pair.secret_key()));
        assert_eq!(header.user_data, [("k".to_owned(), b"v".to_vec())]);
        assert_eq!((header.tree.fork, header.tree.length, header.tree.signature.len()), (0, 5, 64));
        assert_eq!(header.reorgs, [ReorgHint { from: 0, to: 1, ancestors: 2 }]);
        assert_eq!(header.contiguous_length, 5);
        assert_eq!(encode(&header), bytes);
        assert!(header.size_hint() >= bytes.len());
        for n in 0..bytes.len() {
            // Without its last byte the header lacks the contiguous length, as the oldest headers do.
            assert_eq!(decode(&bytes[..n]).is_ok(), n == bytes.len() - 1);
        }
    }

    #[test]
    fn header_of_early_hypercore_10_decodes() {
        let header = inline(&hex(V0));
        let manifest = header.manifest.clone().unwrap();
        assert_eq!((manifest.version, manifest.quorum, manifest.is_compat(&header.key)), (0, 1, true));
        let pair = header.key_pair.clone().unwrap();
        assert_eq!(KeyPair::from_secret_key(&pair.secret_key.unwrap()).unwrap().public_key(), header.key);
        assert_eq!(header.user_data, [("hello".to_owned(), b"world".to_vec())]);
        assert_eq!((header.tree.fork, header.tree.length), (1, 10));
        assert_eq!(header.reorgs, [ReorgHint { from: 0, to: 1, ancestors: 7 }]);
        assert_eq!(header.contiguous_length, 10);
        assert_eq!(inline(&encode(&header)), header);
        let mut other = hex(V0);
        other[2] = b'B';
        assert!(decode(&other).is_err());
    }

    #[test]
    fn malformed_key_is_refused_and_missing_key_is_none() {
        let public_key = Key::new([3; 32]);
        let mut header = inline(&hex(V0));
        header.key_pair = Some(StoredKeyPair { public_key, secret_key: None });
        assert_eq!(inline(&encode(&header)), header);
        header.key_pair = None;
        header.manifest = None;
        assert_eq!(inline(&encode(&header)), header);
        let mut w = Writer::new();
        w.uint(1).uint(4).bytes(&[1; 32]).buffer(&[2; 32]).buffer(&[3; 63]);
        assert!(decode(w.as_slice()).is_err());
        let mut w = Writer::new();
        w.uint(2).uint(0).bytes(&[0; 500]);
        assert!(decode(w.as_slice()).is_err());
    }

    #[test]
    fn debug_output_does_not_show_secret_key() {
        let header = inline(&hex(V0));
        let secret = header.key_pair.as_ref().unwrap().secret_key.clone().unwrap();
        assert!(!format!("{header:?}").contains(&format!("{}, {}, {}", secret[0], secret[1], secret[2])));
    }
}
