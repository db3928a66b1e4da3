//! Reading the frames of a file one after the other.

use std::io;

use super::frame;
use crate::storage::backend::File;

/// The file is read in pieces of this many bytes.
pub(super) const CHUNK: usize = 64 << 10;

/// Reads frames one after the other. Neither the file's length nor a frame's determines how much memory is taken,
/// unless the frame's checksum is right.
pub(super) struct FrameReader<'a> {
    file: &'a dyn File,
    /// The offset of the next frame.
    at: u64,
    end: u64,
    /// A piece of the file, in which the next frame starts at index `start`.
    chunk: Vec<u8>,
    start: usize,
    /// The last message, if it was too long for a piece.
    large: Vec<u8>,
}

impl<'a> FrameReader<'a> {
    /// Reads the frames of `file` in `at..end`.
    pub fn new(file: &'a dyn File, at: u64, end: u64) -> Self {
        FrameReader { file, at, end, chunk: Vec::new(), start: 0, large: Vec::new() }
    }

    /// The offset of the next frame.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next frame; None if it is incomplete, fails its checksum or has another bit.
    pub fn next(&mut self, bit: bool) -> io::Result<Option<(frame::Prefix, &[u8])>> {
        let left = self.end.saturating_sub(self.at);
        let mut prefix = [0; frame::PREFIX];
        if left < frame::PREFIX as u64 || !self.fill(frame::PREFIX)? {
            return Ok(None);
        }
        prefix.copy_from_slice(&self.chunk[self.start..self.start + frame::PREFIX]);
        let prefix = frame::Prefix::decode(prefix);
        let size = frame::PREFIX + prefix.message_len();
        if size as u64 > left || prefix.bit() != bit {
            return Ok(None);
        }
        if size > CHUNK {
            // Memory for a long message is taken only after its checksum has been verified.
            if !self.checks(&prefix)? {
                return Ok(None);
            }
            self.large = zeros(prefix.message_len() as u64)?;
            if self.file.read_at(self.at + frame::PREFIX as u64, &mut self.large)? < self.large.len() {
                return Ok(None);
            }
            self.at += size as u64;
            self.chunk.clear();
            self.start = 0;
            return Ok(Some((prefix, &self.large)));
        }
        if !self.fill(size)? {
            return Ok(None);
        }
        self.large = Vec::new();
        self.at += size as u64;
        self.start += size;
        Ok(frame::decode(&self.chunk[self.start - size..self.start]))
    }

    /// Ensures that the piece holds `n` bytes of the next frame. Returns false at the end of the file.
    fn fill(&mut self, n: usize) -> io::Result<bool> {
        if self.chunk.len() - self.start < n {
            self.chunk.resize(CHUNK, 0);
            let read = self.file.read_at(self.at, &mut self.chunk)?;
            self.chunk.truncate(read);
            self.start = 0;
        }
        Ok(self.chunk.len() - self.start >= n)
    }

    fn checks(&self, prefix: &frame::Prefix) -> io::Result<bool> {
        let mut hasher = prefix.hasher();
        let (mut at, mut left) = (self.at + frame::PREFIX as u64, prefix.message_len());
        let mut piece = vec![0; CHUNK];
        while left > 0 {
            let n = self.file.read_at(at, &mut piece[..left.min(CHUNK)])?;
            if n == 0 {
                return Ok(false);
            }
            hasher.update(&piece[..n]);
            at += n as u64;
            left -= n;
        }
        Ok(hasher.finalize() == prefix.checksum)
    }
}

/// `n` zero bytes, or an error if there is not enough memory.
pub(super) fn zeros(n: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let n = usize::try_from(n).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(n).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(n, 0);
    Ok(bytes)
}
