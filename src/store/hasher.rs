//! A hasher for indices: one multiplication, where the standard one costs more than the lookup it serves.
//!
//! Not for keys that a stranger picks freely and in number: tables keyed with it stay small between two flushes.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`IndexHasher`]s.
pub type BuildIndexHasher = BuildHasherDefault<IndexHasher>;

/// Hashes one `u64`.
#[derive(Default)]
pub struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, n: u64) {
        let product = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The table takes its slot from the low bits, which a multiplication leaves to the low bits alone.
        self.0 = product ^ (product >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }
}
