//! Keys, their text forms, key pairs and Ed25519 signatures.
//!
//! `ed25519-dalek` signs, or `ed25519-compact` without the feature `fast-sign`; the signatures are the same.
//! Verification is implemented here for every build, because it has to accept exactly the signatures that libsodium
//! accepts: a signature that one implementation accepts and another refuses lets a malicious writer split a log's
//! readers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::hash;
use crate::{Error, ErrorKind, Result};

/// The key of a core: a public key, or the hash of a manifest.
///
/// `Display` writes the id, 52 characters of z-base-32. `FromStr` parses an id or 64 hexadecimal digits. With the
/// feature `serde` a key is a string in text formats, written as its id and read in either form, and 32 bytes in binary
/// formats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// The discovery key of a core, a keyed hash of its key, by which peers that know the key find each other.
///
/// Its text forms are those of [`Key`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiscoveryKey([u8; 32]);

/// An Ed25519 signature.
pub type Signature = [u8; 64];

impl Key {
    /// The key with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Key(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id of the core: the key in z-base-32, which has 52 characters.
    pub fn id(&self) -> String {
        z32_encode(&self.0)
    }

    /// The key as 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex_encode(&self.0)
    }

    /// The discovery key, by which peers find each other without revealing this key.
    pub fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey(hash::discovery_key(&self.0))
    }
}

impl DiscoveryKey {
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The discovery key as 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex_encode(&self.0)
    }
}

impl From<[u8; 32]> for Key {
    fn from(bytes: [u8; 32]) -> Self {
        Key(bytes)
    }
}

impl From<[u8; 32]> for DiscoveryKey {
    fn from(bytes: [u8; 32]) -> Self {
        DiscoveryKey(bytes)
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = Error;

    fn try_from(bytes: &[u8]) -> Result<Self> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Key(bytes)),
            Err(_) => Err(Error::bad_argument(format!("a key has 32 bytes, not {}", bytes.len()))),
        }
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map(Key)
    }
}

impl FromStr for DiscoveryKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map(DiscoveryKey)
    }
}

fn parse(text: &str) -> Result<[u8; 32]> {
    let bytes = match text.len() {
        64 => hex_decode(text),
        52 => z32_decode(text),
        _ => None,
    };
    bytes.ok_or_else(|| {
        Error::bad_argument("not a key: give 64 hexadecimal digits or the 52 characters of a z-base-32 id")
    })
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&z32_encode(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl fmt::Display for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&z32_encode(&self.0))
    }
}

impl fmt::Debug for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiscoveryKey({self})")
    }
}

fn hex_encode(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of 64 hexadecimal digits; None if `text` is anything else.
pub fn hex_decode(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(out)
}

const Z32: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// Each character stands for five bits, from the highest bit of the first byte on. The spare bits of the last
/// character are 0.
fn z32_encode(bytes: &[u8; 32]) -> String {
    let mut out = String::with_capacity(52);
    let (mut buffer, mut bits) = (0u32, 0);
    for &byte in bytes {
        buffer = buffer << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(Z32[(buffer >> bits) as usize & 31]));
        }
    }
    out.push(char::from(Z32[(buffer << (5 - bits)) as usize & 31]));
    out
}

fn z32_decode(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let (mut buffer, mut bits, mut at) = (0u32, 0, 0);
    for c in text.bytes() {
        let value = Z32.iter().position(|&z| z == c.to_ascii_lowercase())?;
        buffer = buffer << 5 | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *out.get_mut(at)? = (buffer >> bits) as u8;
            at += 1;
        }
    }
    let spare = buffer & ((1 << bits) - 1);
    (at == 32 && spare == 0).then_some(out)
}

/// An Ed25519 key pair. Dropping the last clone wipes the secret key, and `Debug` does not show it.
#[derive(Clone)]
pub struct KeyPair {
    public: Key,
    // All clones share one allocation, because moving a secret would leave copies that are never wiped.
    secret: Arc<Secret>,
}

struct Secret {
    /// libsodium's layout: seed ‖ public key.
    key: Zeroizing<[u8; 64]>,
    /// The key prepared for signing, which wipes itself. It is kept because deriving the public key again costs as
    /// much as a signature.
    #[cfg(feature = "fast-sign")]
    signing: ed25519_dalek::SigningKey,
}

impl KeyPair {
    /// A new random key pair.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random(&mut *seed)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key pair derived from `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        #[cfg(feature = "fast-sign")]
        let signing = ed25519_dalek::SigningKey::from_bytes(seed);
        #[cfg(feature = "fast-sign")]
        let public = signing.verifying_key().to_bytes();
        #[cfg(not(feature = "fast-sign"))]
        let public = EdwardsPoint::mul_base_clamped(secret_scalar(seed)).compress().0;
        let mut key = Zeroizing::new([0; 64]);
        key[..32].copy_from_slice(seed);
        key[32..].copy_from_slice(&public);
        let secret = Secret {
            key,
            #[cfg(feature = "fast-sign")]
            signing,
        };
        KeyPair { public: Key(public), secret: Arc::new(secret) }
    }

    /// The key pair of a secret key in libsodium's layout, seed ‖ public key.
    ///
    /// # Errors
    /// [`ErrorKind::BadArgument`] if the two halves do not belong together. A signature made with such a pair reveals
    /// the secret.
    pub fn from_secret_key(secret: &[u8; 64]) -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&secret[..32]);
        let pair = Self::from_seed(&seed);
        if bool::from(pair.secret_key().ct_eq(secret)) {
            Ok(pair)
        } else {
            Err(Error::bad_argument("the secret key does not belong to the public key stored with it"))
        }
    }

    /// The public key.
    pub fn public_key(&self) -> Key {
        self.public
    }

    /// The secret key in libsodium's layout, seed ‖ public key.
    pub fn secret_key(&self) -> &[u8; 64] {
        &self.secret.key
    }

    fn seed(&self) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&self.secret.key[..32]);
        seed
    }

    /// The clamped scalar of the secret key, for the Noise handshake.
    pub(crate) fn scalar(&self) -> Zeroizing<[u8; 32]> {
        let mut scalar = Zeroizing::new(secret_scalar(&self.seed()));
        scalar[0] &= 248;
        scalar[31] &= 127;
        scalar[31] |= 64;
        scalar
    }

    /// Signs `message`.
    #[cfg(feature = "fast-sign")]
    pub fn sign(&self, message: &[u8]) -> Signature {
        use ed25519_dalek::Signer;
        self.secret.signing.sign(message).to_bytes()
    }

    /// Signs `message`.
    #[cfg(not(feature = "fast-sign"))]
    pub fn sign(&self, message: &[u8]) -> Signature {
        *ed25519_compact::SecretKey::new(*self.secret.key).sign(message, None)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.secret_key().ct_eq(other.secret_key()).into()
    }
}

impl Eq for KeyPair {}

fn secret_scalar(seed: &[u8; 32]) -> [u8; 32] {
    let mut expanded = Sha512::digest(seed);
    let mut scalar = [0; 32];
    scalar.copy_from_slice(&expanded[..32]);
    expanded.as_mut_slice().zeroize();
    scalar
}

/// Fills `out` with random bytes from the operating system.
pub fn random(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out)
        .map_err(|e| Error::new(ErrorKind::Io, format!("the operating system gives no random bytes: {e}")))
}

/// Whether `signature` of `message` by `public_key` is valid, exactly as libsodium's `crypto_sign_verify_detached`
/// decides: S is reduced, R and the key are not of small order, the key is canonical, and the equation holds without
/// the cofactor.
pub fn verify(public_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = <&[u8; 64]>::try_from(signature) else { return false };
    let (r, s) = signature.split_at(32);
    let mut wide = [0; 32];
    wide.copy_from_slice(s);
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(wide)) else { return false };
    let Some(key) = CompressedEdwardsY(*public_key).decompress() else { return false };
    if key.is_small_order() || key.compress().0 != *public_key {
        return false;
    }
    let Some(r_point) = CompressedEdwardsY::from_slice(r).ok().and_then(|r| r.decompress()) else { return false };
    if r_point.is_small_order() {
        return false;
    }
    let digest = Sha512::new().chain_update(r).chain_update(public_key).chain_update(message).finalize();
    let mut k = [0; 64];
    k.copy_from_slice(&digest);
    let k = Scalar::from_bytes_mod_order_wide(&k);
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-key, &s).compress().as_bytes() == r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z32_id_round_trips_and_spare_bits_are_refused() {
        let key = Key([0xa7; 32]);
        assert_eq!(key.id().parse::<Key>().unwrap(), key);
        let mut stray = key.id();
        stray.pop();
        stray.push('9');
        assert!(stray.parse::<Key>().is_err());
    }

    #[test]
    fn key_of_non_ascii_text_is_refused() {
        assert!("é".repeat(26).parse::<Key>().is_err());
        assert!("é".repeat(32).parse::<Key>().is_err());
    }

    #[test]
    fn debug_output_does_not_show_secret_key() {
        let pair = KeyPair::from_seed(&[7; 32]);
        assert!(!format!("{pair:?}").contains("0707"));
    }
}
