//! Pages of 32 768 bits: the unit in which the file `bitfield` is read and written, and in which the blocks of a peer
//! are remembered.

use std::ops::Range;

use byteorder::{ByteOrder, LE};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Bits of a page.
pub const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

/// All bits of a page.
pub const WHOLE: Range<u64> = 0..PAGE_BITS;

const WORDS: usize = PAGE_BYTES / 8;

/// A page: bit `i` is bit `i & 63` of word `i >> 6`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page([u64; WORDS]);

impl Page {
    /// The page without set bits.
    pub const ZEROS: Page = Page([0; WORDS]);

    /// The page with all bits set.
    pub const ONES: Page = Page([u64::MAX; WORDS]);

    /// The page encoded in `bytes`: bit `i` is bit `i & 7` of byte `i >> 3`.
    pub fn from_bytes(bytes: &[u8; PAGE_BYTES]) -> Self {
        let mut words = [0; WORDS];
        LE::read_u64_into(bytes, &mut words);
        Page(words)
    }

    /// The encoding that [`Page::from_bytes`] reads.
    pub fn to_bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        LE::write_u64_into(&self.0, &mut bytes);
        bytes
    }

    /// The bits in words of 64, lowest bit first.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Whether `bit` is set.
    pub fn get(&self, bit: u64) -> bool {
        self.0[(bit >> 6) as usize] >> (bit & 63) & 1 != 0
    }

    /// Sets the bits in `range` to `value` and returns how many of them changed.
    pub fn fill(&mut self, range: &Range<u64>, value: bool) -> u64 {
        let mut changed = 0;
        for at in words(range) {
            let mask = mask(at, range);
            let before = self.0[at];
            if value {
                self.0[at] |= mask
            } else {
                self.0[at] &= !mask
            }
            changed += u64::from((self.0[at] ^ before).count_ones());
        }
        changed
    }

    /// Sets the bits from `from` on that are set in `bits`, lowest bit first, and returns how many of them changed.
    /// `from` must be a multiple of 32.
    pub fn set_words(&mut self, from: u64, bits: &[u32]) -> u64 {
        let mut changed = 0;
        for (at, bits) in (from / 32..).zip(bits) {
            let word = &mut self.0[(at / 2) as usize];
            let before = *word;
            *word |= u64::from(*bits) << (at % 2 * 32);
            changed += u64::from((*word ^ before).count_ones());
        }
        changed
    }

    /// The first bit in `range` that is `value`.
    pub fn first(&self, range: &Range<u64>, value: bool) -> Option<u64> {
        let flip = if value { 0 } else { u64::MAX };
        let at = words(range).find(|&at| self.word(at, range, flip) != 0)?;
        Some(at as u64 * 64 + u64::from(self.word(at, range, flip).trailing_zeros()))
    }

    /// The last bit in `range` that is `value`.
    pub fn last(&self, range: &Range<u64>, value: bool) -> Option<u64> {
        let flip = if value { 0 } else { u64::MAX };
        let at = words(range).rfind(|&at| self.word(at, range, flip) != 0)?;
        Some(at as u64 * 64 + 63 - u64::from(self.word(at, range, flip).leading_zeros()))
    }

    /// The number of set bits in `range`.
    pub fn count(&self, range: &Range<u64>) -> u64 {
        words(range).map(|at| u64::from(self.word(at, range, 0).count_ones())).sum()
    }

    /// Word `at` xor `flip`, with the bits outside of `range` cleared.
    fn word(&self, at: usize, range: &Range<u64>, flip: u64) -> u64 {
        (self.0[at] ^ flip) & mask(at, range)
    }
}

/// The words that the bits of `range` touch.
fn words(range: &Range<u64>) -> Range<usize> {
    (range.start / 64) as usize..range.end.div_ceil(64) as usize
}

/// The bits of word `at` that are in `range`.
fn mask(at: usize, range: &Range<u64>) -> u64 {
    let base = at as u64 * 64;
    let from = range.start.saturating_sub(base).min(64);
    let to = range.end.saturating_sub(base).min(64);
    let below = |n: u64| if n == 64 { u64::MAX } else { (1 << n) - 1 };
    below(to) & !below(from)
}

/// The bits of page `page`, counted from its start, that lie in `start..end`.
pub fn bits_of(page: u64, start: u64, end: u64) -> Range<u64> {
    let base = page * PAGE_BITS;
    start.saturating_sub(base).min(PAGE_BITS)..end.saturating_sub(base).min(PAGE_BITS)
}
