//! Frames: a length of three bytes, little-endian, then that many bytes.
//!
//! A socket is read into the buffer of a [`Decoder`]. It accepts fragments of any size and returns whole frames
//! in place, to be decrypted there. An announced length takes no memory: the buffer grows with the bytes that
//! have arrived, and shrinks again when no more large frames follow.

use std::fmt;
use std::ops::Range;

use crate::{Error, Result};

/// The bytes of the length.
pub const PREFIX: usize = 3;

/// The most bytes in a frame.
pub const MAX: usize = (1 << 24) - 1;

/// The size of the buffer while frames are small.
const SMALL: usize = 64 << 10;

/// The largest buffer that is kept without limit of time.
const MAX_KEPT: usize = 256 << 10;

/// A larger buffer is replaced when it has run empty this often without a frame that needed it. Keep-alives
/// count, so an idle connection does not hold on to memory.
const MAX_IDLE_FILLS: u32 = 8;

/// The least space offered for the next read.
const MIN_SPACE: usize = 16 << 10;

/// The length in front of a frame of `len` bytes, which is at most [`MAX`].
pub fn prefix(len: usize) -> [u8; PREFIX] {
    debug_assert!(len <= MAX);
    let [a, b, c, ..] = len.to_le_bytes();
    [a, b, c]
}

/// Splits a stream of bytes into frames.
pub struct Decoder {
    /// Outside of `start..end` are zeros or old bytes.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    max: usize,
    /// How often the buffer has run empty since a frame filled a quarter of it.
    idle_fills: u32,
}

impl Decoder {
    /// A decoder that refuses frames of more than `max` bytes.
    pub fn new(max: usize) -> Self {
        Decoder { buffer: Vec::new(), start: 0, end: 0, max, idle_fills: 0 }
    }

    /// Changes the limit for the following frames.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Where to put the next bytes of the stream; never empty. Take all whole frames first.
    pub fn space(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.buffer[self.end..]
    }

    /// The first `n` bytes of [`space`](Self::space) have been filled.
    pub fn filled(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.buffer.len());
    }

    /// Copies `bytes` in as the next of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.filled(now.len());
            bytes = later;
        }
    }

    /// The next whole frame, in place; none until more bytes arrive.
    pub fn next_frame(&mut self) -> Result<Option<&mut [u8]>> {
        Ok(self.next_range()?.map(|range| self.frame(range)))
    }

    /// Where the next whole frame is. It stays there until the next call of [`space`](Self::space).
    pub(super) fn next_range(&mut self) -> Result<Option<Range<usize>>> {
        let Some(len) = self.announced() else { return Ok(None) };
        if len > self.max {
            return Err(Error::protocol(format!(
                "the peer sends a frame of {len} bytes; the limit is {} bytes",
                self.max
            )));
        }
        if self.end - self.start - PREFIX < len {
            return Ok(None);
        }
        if len > self.buffer.len() / 4 {
            self.idle_fills = 0;
        }
        let from = self.start + PREFIX;
        self.start = from + len;
        Ok(Some(from..from + len))
    }

    pub(super) fn frame(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.buffer[range]
    }

    /// Whether the stream is between two frames, where it may end.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The size of the buffer in bytes.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    fn announced(&self) -> Option<usize> {
        match self.buffer[self.start..self.end] {
            [a, b, c, ..] => Some(u32::from_le_bytes([a, b, c, 0]) as usize),
            _ => None,
        }
    }

    /// A frame is moved to the front at most once, and a few times more while the buffer grows by factors of four.
    fn make_room(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            self.idle_fills = self.idle_fills.saturating_add(1);
            if self.buffer.is_empty() || self.buffer.len() > MAX_KEPT && self.idle_fills > MAX_IDLE_FILLS {
                self.buffer = vec![0; SMALL];
            }
        }
        if self.buffer.len() - self.end >= MIN_SPACE {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() - self.end >= MIN_SPACE {
            return;
        }
        let needed = PREFIX + self.announced().unwrap_or(0).min(self.max);
        let size = if self.end < needed { needed.min(self.end * 4) } else { self.end * 2 }.max(self.end + MIN_SPACE);
        let mut larger = vec![0; size];
        larger[..self.end].copy_from_slice(&self.buffer[..self.end]);
        self.buffer = larger;
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("buffered", &(self.end - self.start))
            .field("capacity", &self.buffer.len())
            .field("max", &self.max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_of_any_size_yield_whole_frames() {
        let frames: Vec<Vec<u8>> = [0, 1, 2, 300, 70_000, 0, 5].map(|n| vec![n as u8; n]).into();
        let stream: Vec<u8> = frames.iter().flat_map(|f| [&prefix(f.len())[..], f].concat()).collect();
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let mut decoder = Decoder::new(MAX);
            let mut seen = Vec::new();
            for part in stream.chunks(step) {
                decoder.feed(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            assert_eq!(seen, frames, "in fragments of {step}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn announced_length_takes_no_memory_and_large_frame_is_released() {
        let mut decoder = Decoder::new(MAX);
        decoder.feed(&prefix(MAX));
        decoder.space();
        assert_eq!(decoder.capacity(), SMALL);
        let mut arrived = 0;
        while arrived < MAX {
            assert!(decoder.next_frame().unwrap().is_none());
            let n = decoder.space().len().min(MAX - arrived);
            decoder.filled(n);
            arrived += n;
            assert!(decoder.capacity() <= SMALL.max(arrived * 4), "{} for {arrived}", decoder.capacity());
        }
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), MAX);
        for _ in 0..MAX_IDLE_FILLS {
            decoder.feed(&prefix(0));
            assert!(decoder.next_frame().unwrap().is_some());
        }
        decoder.space();
        assert_eq!(decoder.capacity(), SMALL);
    }

    #[test]
    fn frame_over_limit_is_refused_at_its_length() {
        let mut decoder = Decoder::new(10);
        decoder.feed(&prefix(10));
        decoder.feed(&[0; 10]);
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), 10);
        decoder.feed(&prefix(11));
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn space_is_never_below_minimum() {
        let mut decoder = Decoder::new(MAX);
        for _ in 0..100 {
            let n = decoder.space().len();
            assert!(n >= MIN_SPACE);
            decoder.feed(&prefix(50_000));
            decoder.feed(&[1; 40_000]);
            decoder.feed(&[1; 10_000]);
        }
        assert_eq!(std::iter::from_fn(|| decoder.next_frame().unwrap().map(|f| f.len())).count(), 100);
    }
}
