//! Blocks that both sides generate from a few numbers, so that large contents need not travel through a pipe.
//!
//! `lib/random.js` is the same line for line; change both together.

/// The content of block `index`: xorshift32 words in little-endian order, the last one cut to size.
pub fn block(seed: u32, index: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 3);
    let mut x = start(seed, index);
    while bytes.len() < size {
        x = next(x);
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The size of block `index`, in `min..=max`.
pub fn block_size(seed: u32, index: u64, min: u32, max: u32) -> usize {
    let mut x = start(seed ^ 0x5bd1_e995, index);
    for _ in 0..3 {
        x = next(x);
    }
    (min + x % (max - min + 1)) as usize
}

/// Block `index` of the drivers' `{"seed": seed, "min": min, "max": max}`.
pub fn sized_block(seed: u32, index: u64, min: u32, max: u32) -> Vec<u8> {
    block(seed, index, block_size(seed, index, min, max))
}

fn start(seed: u32, index: u64) -> u32 {
    // The drivers use 32-bit arithmetic.
    let index = (index as u32).wrapping_add(1);
    let x = seed.wrapping_mul(0x9e37_79b1) ^ index.wrapping_mul(0x85eb_ca6b);
    if x == 0 { 1 } else { x }
}

fn next(mut x: u32) -> u32 {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    x
}
