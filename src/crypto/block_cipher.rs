//! Block encryption: XSalsa20 under a key per core, with an eight-byte padding that contains the fork, encrypted.
//!
//! A stored block is `padding (8) ‖ ciphertext`. The padding is the fork as u64, xored with XSalsa20(blinding key,
//! nonce = index ‖ zeros); the ciphertext XSalsa20(block key, nonce = index ‖ padding ‖ zeros).

use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::crypto::hash;
use crate::{Error, ErrorKind, Result};

/// The number of bytes by which a stored block is longer than its plain text.
pub const PADDING: usize = 8;

/// Encrypts and decrypts the blocks of one core. Dropping it wipes the keys.
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
    /// The cipher of the core `core_key` under `encryption_key`. A compat core derives its block key in another way
    /// than other cores.
    pub fn new(encryption_key: &[u8; 32], core_key: &[u8; 32], compat: bool) -> Self {
        let block_key = if compat {
            hash::keyed_hash(core_key, &[encryption_key])
        } else {
            hash::hash(&[&hash::namespaces().block_encryption, core_key, encryption_key])
        };
        BlockCipher { blinding_key: Zeroizing::new(hash::hash(&[&block_key])), block_key: Zeroizing::new(block_key) }
    }

    /// Encrypts `plain` as block `index` of fork `fork`, and returns the stored form.
    pub fn encrypt(&self, index: u64, fork: u64, plain: &[u8]) -> Vec<u8> {
        let mut stored = Vec::with_capacity(PADDING + plain.len());
        stored.extend_from_slice(&fork.to_le_bytes());
        stored.extend_from_slice(plain);
        let (padding, text) = stored.split_at_mut(PADDING);
        xor(&self.blinding_key, &nonce(index, &[0; PADDING]), padding);
        xor(&self.block_key, &nonce(index, padding), text);
        stored
    }

    /// Whether block `index` was encrypted with this key in a fork up to `max_fork`. `stored` is the block or the
    /// start of it. Decrypting the padding of any other block gives a random number, which passes once in 2^64 /
    /// `max_fork` blocks.
    pub fn fits(&self, index: u64, max_fork: u64, stored: &[u8]) -> bool {
        let Some(padding) = stored.first_chunk::<PADDING>() else { return false };
        let mut fork = *padding;
        xor(&self.blinding_key, &nonce(index, &[0; PADDING]), &mut fork);
        u64::from_le_bytes(fork) <= max_fork
    }

    /// Decrypts the stored block `index` of a log whose current fork is `max_fork`.
    ///
    /// # Errors
    /// [`ErrorKind::Encryption`] if the block was not encrypted with this key.
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

/// The error of decrypting block `index` with a wrong key.
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
