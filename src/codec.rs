//! The encoding of npm `compact-encoding`: little-endian, with integers of one to nine bytes.
//!
//! A `uint` below 253 is one byte; a larger one is a marker (253, 254 or 255) and a u16, u32 or u64. A buffer or
//! string is its length as `uint`, then its bytes. An array is its count, then its items. [`Reader`] checks each
//! count against the rest of the input before it takes memory.

use byteorder::{ByteOrder, LE};

use crate::{Error, Result};

/// The largest integer that JavaScript represents exactly, and the largest that [`Reader::uint`] accepts.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Reads values from the front of a byte slice. Each method fails with
/// [`ErrorKind::Decoding`](crate::ErrorKind::Decoding) if the slice is too short.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Reader { rest: input }
    }

    /// The number of bytes that are left.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(n) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(Error::decoding(format!("the input ends {} bytes short", n - self.rest.len()))),
        }
    }

    /// All bytes that are left.
    pub fn raw(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// `N` raw bytes: `fixed32`, `fixed64`.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(LE::read_u32(self.bytes(4)?))
    }

    /// Eight bytes, little-endian, of any value.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(LE::read_u64(self.bytes(8)?))
    }

    /// An integer in compact form, at most [`MAX_SAFE_INTEGER`].
    pub fn uint(&mut self) -> Result<u64> {
        let value = match self.u8()? {
            253 => LE::read_u16(self.bytes(2)?).into(),
            254 => self.u32()?.into(),
            255 => self.u64()?,
            small => small.into(),
        };
        if value > MAX_SAFE_INTEGER {
            return Err(Error::decoding(format!("integer {value} is larger than 2^53-1")));
        }
        Ok(value)
    }

    /// A length-prefixed buffer. Where "none" and "empty" differ, an empty buffer means "none".
    pub fn buffer(&mut self) -> Result<&'a [u8]> {
        let n = self.uint()?;
        self.bytes(usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// A length-prefixed UTF-8 string.
    pub fn string(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.buffer()?).map_err(|_| Error::decoding("a string is not UTF-8"))
    }

    /// A count of items that each take at least `min_size` bytes. A count that does not fit the rest of the input is
    /// an error.
    pub fn count(&mut self, min_size: usize) -> Result<usize> {
        let n = self.uint()?;
        match usize::try_from(n) {
            Ok(n) if n <= self.rest.len() / min_size.max(1) => Ok(n),
            _ => Err(Error::decoding(format!("a count of {n} items does not fit the {} bytes left", self.rest.len()))),
        }
    }

    /// A count, then that many items of at least `min_size` bytes, read by `item`.
    pub fn array<T>(&mut self, min_size: usize, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let n = self.count(min_size)?;
        // An item may be larger in memory than encoded: reserve memory for a bounded number, and grow by those read.
        let mut out = Vec::with_capacity(n.min(1024));
        for _ in 0..n {
            out.push(item(self)?);
        }
        Ok(out)
    }
}

/// Appends values to a byte vector.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that appends to `out`.
    pub fn append_to(out: Vec<u8>) -> Self {
        Writer { out }
    }

    /// The written bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }

    /// The bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.out
    }

    /// The number of bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether no bytes were written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Bytes without a length: `raw`, `fixed32`, `fixed64`.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// An integer in compact form.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        match value {
            0..=252 => self.u8(value as u8),
            253..=0xffff => self.u8(253).bytes(&(value as u16).to_le_bytes()),
            0x1_0000..=0xffff_ffff => self.u8(254).u32(value as u32),
            _ => self.u8(255).u64(value),
        }
    }

    /// A length-prefixed buffer. An empty buffer means "none".
    pub fn buffer(&mut self, bytes: &[u8]) -> &mut Self {
        self.uint(bytes.len() as u64).bytes(bytes)
    }

    /// A length-prefixed string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.buffer(text.as_bytes())
    }

    /// The length of the bytes that `write` writes, then these bytes. `about` estimates that length: if it is encoded
    /// in as many bytes as the real one, no bytes have to be moved.
    pub fn sized(&mut self, about: usize, write: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.out.len();
        let reserved = uint_len(about as u64);
        self.out.resize(start + reserved, 0);
        write(self);
        let size = self.out.len() - start - reserved;
        let mut prefix = Writer::new();
        prefix.uint(size as u64);
        self.out.splice(start..start + reserved, prefix.out);
        self
    }

    /// Removes all bytes after the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// A count, then each item, written by `item`.
    pub fn array<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.uint(items.len() as u64);
        for value in items {
            item(self, value);
        }
        self
    }
}

/// The number of bytes that [`Writer::uint`] writes for `value`.
pub fn uint_len(value: u64) -> usize {
    match value {
        0..=252 => 1,
        253..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_beyond_the_input_is_refused_before_memory_is_taken() {
        let mut w = Writer::new();
        w.uint(1 << 50).bytes(&[0; 64]);
        let bytes = w.into_vec();
        assert!(Reader::new(&bytes).array(1, |r| r.u8()).is_err());
        assert!(Reader::new(&bytes).buffer().is_err());
    }

    #[test]
    fn integer_above_max_safe_integer_is_refused() {
        let mut w = Writer::new();
        w.uint(MAX_SAFE_INTEGER).uint(MAX_SAFE_INTEGER + 1);
        let bytes = w.into_vec();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.uint().unwrap(), MAX_SAFE_INTEGER);
        assert!(r.uint().is_err());
    }

    #[test]
    fn sized_with_wrong_estimate_writes_the_right_length() {
        for size in [0, 1, 252, 253, 65535, 65536] {
            for about in [0, 252, 253, 70_000] {
                let payload = vec![7; size];
                let mut w = Writer::new();
                w.u8(1).sized(about, |w| _ = w.bytes(&payload)).u8(2);
                let mut expected = Writer::new();
                expected.u8(1).buffer(&payload).u8(2);
                assert_eq!(w.as_slice(), expected.as_slice(), "{size} bytes, guessed {about}");
            }
        }
    }

    #[test]
    fn uint_len_equals_the_length_that_uint_writes() {
        for value in [0, 252, 253, 65535, 65536, u32::MAX as u64, 1 << 32, MAX_SAFE_INTEGER] {
            let mut w = Writer::new();
            w.uint(value);
            assert_eq!(w.len(), uint_len(value));
        }
    }
}
