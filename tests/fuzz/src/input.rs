//! Takes an input apart.

use crate::MAX_SAFE_INTEGER;

/// The rest of an input. A read past its end returns zeros and empty slices.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }

    /// Three bytes, little-endian.
    pub fn u24(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u8()) << 16
    }

    /// A number that is small in half of all cases and near a power of two in the others, up to 2^53 - 1.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..128 => u64::from(small),
            power => ((1 << (power % 54)) + u64::from(self.u8())).saturating_sub(128).min(MAX_SAFE_INTEGER),
        }
    }

    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many bytes as the two before them say.
    pub fn part(&mut self) -> &'a [u8] {
        let n = self.u16();
        self.take(n.into())
    }
}

/// `bytes` as [`Input::part`] reads them.
pub fn part(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}
