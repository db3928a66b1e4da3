//! Reading frame after frame of a file.

use std::io;

use super::frame;
use crate::storage::backend::File;

/// Entries are read in pieces of this many bytes.
pub(super) const CHUNK: usize = 64 << 10;

/// Reads frames one after the other, whatever the file's length claims.
pub(super) struct FrameReader<'a> {
    file: &'a dyn File,
    /// Where the next frame starts.
    at: u64,
    end: u64,
    /// A piece of the file; what of it is at `at` begins at `start`.
    chunk: Vec<u8>,
    start: usize,
    /// A frame's message that is too long for a piece.
    large: Vec<u8>,
}

impl<'a> FrameReader<'a> {
    /// The frames of `file` from byte `at` on and before `end`.
    pub fn new(file: &'a dyn File, at: u64, end: u64) -> Self {
        FrameReader { file, at, end, chunk: Vec::new(), start: 0, large: Vec::new() }
    }

    /// Where the next frame starts.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next whole frame with this bit.
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
            // No memory is taken for a long message before its checksum is known to be right.
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

    /// Reads until `n` bytes of the next frame are there.
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

/// Memory for `n` bytes, or an error where there is not so much.
pub(super) fn zeros(n: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let n = usize::try_from(n).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(n).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(n, 0);
    Ok(bytes)
}
