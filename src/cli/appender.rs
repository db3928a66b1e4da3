//! Appends streams, divided into blocks.
//!
//! It reads a batch and appends it before it reads the next one, so memory is bounded for any size of input. Appended
//! batches stay if a later one cannot be read.

use std::io::Read;
use std::path::Path;

use hypercore::{Error, Hypercore, MAX_BLOCK_SIZE};

use super::failure::{Failure, Result};
use super::line_reader::{BATCH_BLOCKS, Lines, Part, batches};
use super::remedy::with_remedy;
use super::terminal::progress::{Progress, Unit};

/// Bytes of a block without an option.
pub const DEFAULT_BLOCK: usize = 64 * 1024;
/// The approximate bytes of one append.
const BATCH_BYTES: usize = 1024 * 1024;
/// Where a block ends.
#[derive(Clone, Copy)]
pub enum Cut {
    /// At each newline, which is not part of the block.
    Lines,
    /// At the end of the input.
    Whole,
    /// After this many bytes.
    Every(usize),
}

/// Appends inputs to a core.
pub struct Appender<'a> {
    core: &'a Hypercore,
    dir: &'a Path,
    cut: Cut,
    /// Bytes read from all inputs.
    read: u64,
    progress: Progress,
    /// Whole files that were read and go into the next append.
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
}

impl<'a> Appender<'a> {
    /// An appender to `core`, which is in `dir`. `total` is the size of all inputs in bytes, if known.
    pub fn new(core: &'a Hypercore, dir: &'a Path, cut: Cut, total: Option<u64>) -> Self {
        let progress = Progress::new("appending", Unit::Bytes, total);
        Appender { core, dir, cut, read: 0, progress, pending: Vec::new(), pending_bytes: 0 }
    }

    /// Appends all of `input`; errors call it `name`. With [`Cut::Whole`] the last files wait for
    /// [`Appender::append_pending`].
    pub fn append_from(&mut self, input: impl Read, name: &Path) -> Result<()> {
        match self.cut {
            Cut::Lines => self.append_lines(input, name),
            Cut::Whole => self.append_whole(input, name),
            Cut::Every(size) => self.append_every(input, name, size),
        }
    }

    fn append_every(&mut self, mut input: impl Read, name: &Path, size: usize) -> Result<()> {
        let batch = size * (BATCH_BYTES / size).clamp(1, BATCH_BLOCKS);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            self.fill(&mut input, name, batch, &mut buffer)?;
            if !buffer.is_empty() {
                self.append_batch(buffer.chunks(size))?;
            }
            if buffer.len() < batch {
                return Ok(());
            }
        }
    }

    fn append_whole(&mut self, mut input: impl Read, name: &Path) -> Result<()> {
        let mut buffer = Vec::new();
        self.fill(&mut input, name, MAX_BLOCK_SIZE + 1, &mut buffer)?;
        if buffer.len() > MAX_BLOCK_SIZE {
            return Err(self.too_big(format!("{}", name.display())));
        }
        self.pending_bytes += buffer.len();
        self.pending.push(buffer);
        if self.pending_bytes >= BATCH_BYTES || self.pending.len() >= BATCH_BLOCKS {
            self.append_pending()
        } else {
            Ok(())
        }
    }

    fn append_lines(&mut self, input: impl Read, name: &Path) -> Result<()> {
        let mut lines = Lines::new(input);
        let mut line = 1;
        loop {
            match lines.read().map_err(|e| self.failed(&Error::from_io(e, "read", name)))? {
                Part::Lines(text) => {
                    line += self.append_split(text, name, line)?;
                    self.count(text.len());
                }
                Part::TooLong => return Err(self.too_big(format!("{}: line {line}", name.display()))),
                // The last line may lack its newline.
                Part::End(rest) => return self.append_split(rest, name, line).map(|_| ()),
            }
        }
    }

    /// Appends the lines of `text` and returns their count. `first` is the number of the first line, for errors.
    fn append_split(&self, text: &[u8], name: &Path, first: u64) -> Result<u64> {
        let mut count = 0;
        for batch in batches(text) {
            let fitting = batch.iter().take_while(|line| line.len() <= MAX_BLOCK_SIZE).count();
            self.append_batch(&batch[..fitting])?;
            count += fitting as u64;
            if fitting < batch.len() {
                return Err(self.too_big(format!("{}: line {}", name.display(), first + count)));
            }
        }
        Ok(count)
    }

    pub fn append_pending(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if pending.is_empty() { Ok(()) } else { self.append_batch(&pending) }
    }

    fn append_batch<B: AsRef<[u8]>>(&self, blocks: impl IntoIterator<Item = B>) -> Result<()> {
        let appended = self.core.append_batch(blocks).map(|_| ());
        appended.map_err(|e| self.failed(&if e.path().is_some() { e } else { e.at(self.dir) }))
    }

    /// Reads `n` bytes to the end of `buffer`, or fewer at the end of the input.
    fn fill(&mut self, input: &mut impl Read, name: &Path, n: usize, buffer: &mut Vec<u8>) -> Result<()> {
        let read =
            input.take(n as u64).read_to_end(buffer).map_err(|e| self.failed(&Error::from_io(e, "read", name)))?;
        self.count(read);
        Ok(())
    }

    fn count(&mut self, n: usize) {
        self.read += n as u64;
        self.progress.at(self.read);
    }

    fn too_big(&self, what: String) -> Failure {
        self.stopped(format!(
            "{what} is larger than the {MAX_BLOCK_SIZE} bytes that fit in a block; --block-size splits it"
        ))
    }

    pub fn failed(&self, error: &Error) -> Failure {
        self.stopped(with_remedy(error))
    }

    /// The failure `why`, with the present length of the log.
    fn stopped(&self, why: String) -> Failure {
        Failure::Failed(format!("{why}; the blocks appended before stay, and the length is {}", self.core.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Returns one part for each read, and checks the length of the log before it.
    struct Parts<'a> {
        core: &'a Hypercore,
        parts: std::vec::IntoIter<(u64, &'a [u8])>,
    }

    impl Read for Parts<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((length, part)) = self.parts.next() else { return Ok(0) };
            assert_eq!(self.core.len(), length, "before {:?}", String::from_utf8_lossy(part));
            out[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    #[test]
    fn append_lines_appends_each_read_before_the_next() {
        let core = Hypercore::in_memory().unwrap();
        let mut appender = Appender::new(&core, Path::new("log"), Cut::Lines, None);
        let parts = vec![(0, &b"one\ntw"[..]), (1, b"o\n"), (2, b"\n\n"), (4, b"la"), (4, b"st")];
        appender.append_from(Parts { core: &core, parts: parts.into_iter() }, Path::new("-")).unwrap();
        let blocks: Vec<Vec<u8>> = (0..core.len()).map(|index| core.get(index).unwrap()).collect();
        assert_eq!(blocks, [&b"one"[..], b"two", b"", b"", b"last"]);
    }
}
