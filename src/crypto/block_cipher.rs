//! Block encryption: XSalsa20 under a key per core, with the fork blinded into an eight-byte padding.
//!
//! A stored block is `padding (8) ‖ ciphertext`. The padding is the fork as u64, xored with XSalsa20(blinding key, nonce =
//! index ‖ zeros); the ciphertext XSalsa20(block key, nonce = index ‖ padding ‖ zeros).

use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::crypto::hash;
use crate::{Error, ErrorKind, Result};

/// How many bytes a stored block is longer than its plain text.
pub const PADDING: usize = 8;

/// Encrypts and decrypts the blocks of one core. Keys are wiped on drop.
#[derive(Clone)]
pub struct BlockCipher {
    block_key: Zeroizing<[u8; 32]>,
    blinding_key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for BlockCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockCipher(..)")
    }
}

impl BlockCipher {
    /// The cipher of the core `core_key` under `encryption_key`; `compat` says how its block key is derived.
    pub fn new(encryption_key: &[u8; 32], core_key: &[u8; 32], compat: bool) -> Self {
        let block_key = if compat {
            hash::keyed_hash(core_key, &[encryption_key])
        } else {
            hash::hash(&[&hash::namespaces().block_encryption, core_key, encryption_key])
        };
        BlockCipher { blinding_key: Zeroizing::new(hash::hash(&[&block_key])), block_key: Zeroizing::new(block_key) }
    }

    /// The stored form of `plain` as block `index` of fork `fork`.
    pub fn encrypt(&self, index: u64, fork: u64, plain: &[u8]) -> Vec<u8> {
        let mut stored = Vec::with_capacity(PADDING + plain.len());
        stored.extend_from_slice(&fork.to_le_bytes());
        stored.extend_from_slice(plain);
        let (padding, text) = stored.split_at_mut(PADDING);
        xor(&self.blinding_key, &nonce(index, &[0; PADDING]), padding);
        xor(&self.block_key, &nonce(index, padding), text);
        stored
    }

    /// Whether block `index`, of which `stored` is all or the beginning, was encrypted with this key in a fork up to
    /// `max_fork`. The padding of a block that was not is random: once in 2^64 divided by `max_fork` it fits all the
    /// same.
    pub fn fits(&self, index: u64, max_fork: u64, stored: &[u8]) -> bool {
        let Some(padding) = stored.first_chunk::<PADDING>() else { return false };
        let mut fork = *padding;
        xor(&self.blinding_key, &nonce(index, &[0; PADDING]), &mut fork);
        u64::from_le_bytes(fork) <= max_fork
    }

    /// The plain text of the stored block `index` of a log whose fork is now `max_fork`. An error of kind
    /// [`Encryption`](ErrorKind::Encryption) if this is not the key that the block was encrypted with.
    pub fn decrypt(&self, index: u64, max_fork: u64, mut stored: Vec<u8>) -> Result<Vec<u8>> {
        if !self.fits(index, max_fork, &stored) {
            return Err(wrong_key(index));
        }
        let (padding, text) = stored.split_at_mut(PADDING);
        xor(&self.block_key, &nonce(index, padding), text);
        stored.drain(..PADDING);
        Ok(stored)
    }
}

/// The error of a key that block `index` speaks against.
pub(crate) fn wrong_key(index: u64) -> Error {
    Error::new(
        ErrorKind::Encryption,
        format!(
            "block {index} was not encrypted with this key: give the key that it was encrypted with, or none if the \
             log is plain"
        ),
    )
}

fn nonce(index: u64, padding: &[u8]) -> [u8; 24] {
    let mut out = [0; 24];
    out[..8].copy_from_slice(&index.to_le_bytes());
    out[8..16].copy_from_slice(padding);
    out
}

fn xor(key: &[u8; 32], nonce: &[u8; 24], text: &mut [u8]) {
    XSalsa20::new(key.into(), nonce.into()).apply_keystream(text);
}
