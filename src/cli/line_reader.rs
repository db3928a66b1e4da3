//! Splits a stream into lines as they arrive.

use std::io::{self, Read};

use hypercore::MAX_BLOCK_SIZE;

/// The most blocks of one append.
pub const BATCH_BLOCKS: usize = 8 * 1024;
/// Bytes of one read.
const CHUNK: usize = 1024 * 1024;

/// Splits a stream at its newlines. Returns whole lines as soon as they are read, without waiting for more: a pipe
/// may bring one line a day.
pub struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were returned already.
    taken: usize,
    /// Bytes of the buffer that hold data.
    filled: usize,
}

/// The result of one read.
pub enum Part<'a> {
    /// Whole lines, each with its newline; empty while a line is incomplete.
    Lines(&'a [u8]),
    /// An incomplete line that is longer than any block.
    TooLong,
    /// The end of the stream, with the last line if it has no newline, else empty.
    End(&'a [u8]),
}

impl<R: Read> Lines<R> {
    pub fn new(input: R) -> Self {
        Lines { input, buffer: Vec::new(), taken: 0, filled: 0 }
    }

    /// Reads once. Blocks until data or the end arrives.
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

/// The lines of `text` without their newlines, in batches for one append each.
pub fn batches(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let mut lines = text.split_inclusive(|&b| b == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    std::iter::from_fn(move || {
        Some(lines.by_ref().take(BATCH_BLOCKS).collect()).filter(|batch: &Vec<_>| !batch.is_empty())
    })
}
