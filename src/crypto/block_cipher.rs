//! Block encryption: XSalsa20 under a key per core, with the fork blinded into an eight-byte padding.
//!
//! A stored block is `padding (8) ‖ ciphertext`. The padding is the fork as u64, xored with XSalsa20(blinding key, nonce =
//! index ‖ zeros); the ciphertext XSalsa20(block key, nonce = index ‖ padding ‖ zeros).

use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::crypto::hash;
use crate::{Error, Result};

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

    /// The plain text of the stored block `index`.
    pub fn decrypt(&self, index: u64, mut stored: Vec<u8>) -> Result<Vec<u8>> {
        if stored.len() < PADDING {
            return Err(Error::decoding(format!(
                "block {index} is shorter than an encrypted block's padding: it was not encrypted"
            )));
        }
        let (padding, text) = stored.split_at_mut(PADDING);
        xor(&self.block_key, &nonce(index, padding), text);
        stored.drain(..PADDING);
        Ok(stored)
    }
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
