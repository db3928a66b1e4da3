//! Hashes, keys, signatures and block encryption.

pub mod block_cipher;
pub mod hash;
pub mod keys;
#[cfg(feature = "serde")]
mod serde_keys;
