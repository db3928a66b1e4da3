//! Hashes, keys, signatures and block encryption: the pure vocabulary of the log.

pub mod block_cipher;
pub mod hash;
pub mod keys;
