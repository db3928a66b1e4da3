//! Lines of a stream, as they come.

use std::io::{self, Read};

use hypercore::MAX_BLOCK_SIZE;

/// So many blocks at the most go into one append.
pub const BATCH_BLOCKS: usize = 8 * 1024;
/// So much is read at once.
const CHUNK: usize = 1024 * 1024;

/// Cuts a stream at its newlines, and hands on whole lines as soon as they are read: the other end of a pipe may write one a day.
pub struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were handed on already.
    taken: usize,
    /// Bytes of the buffer that were read.
    filled: usize,
}

/// What one read brought.
pub enum Part<'a> {
    /// Whole lines, each with its newline; none if the line that was begun goes on.
    Lines(&'a [u8]),
    /// A line longer than any block, so far.
    TooLong,
    /// The end of the stream, after a last line without newline, which may be empty.
    End(&'a [u8]),
}

impl<R: Read> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Self {
        Lines { input, buffer: Vec::new(), taken: 0, filled: 0 }
    }

    /// Reads once.
    pub fn read(&mut self) -> io::Result<Part<'_>> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        if self.filled > MAX_BLOCK_SIZE {
            return Ok(Part::TooLong);
        }
        if self.buffer.len() - self.filled < CHUNK {
            self.buffer.resize(self.filled + CHUNK, 0);
        }
        let n = loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let before = self.filled;
        self.filled += n;
        if n == 0 {
            self.taken = self.filled;
            return Ok(Part::End(&self.buffer[..self.filled]));
        }
        if let Some(newline) = self.buffer[before..self.filled].iter().rposition(|&b| b == b'\n') {
            self.taken = before + newline + 1;
        }
        Ok(Part::Lines(&self.buffer[..self.taken]))
    }
}

/// The lines of `text` without their newlines, as many at a time as go into one append.
pub fn batches(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let mut lines = text.split_inclusive(|&b| b == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    std::iter::from_fn(move || {
        Some(lines.by_ref().take(BATCH_BLOCKS).collect()).filter(|batch: &Vec<_>| !batch.is_empty())
    })
}
