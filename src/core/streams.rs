//! A log as a stream: blocks as an iterator, bytes as a file, and appending in batches.

use std::io::{self, Read, Seek, SeekFrom};

use crate::core::append::Appended;
use crate::core::download::Downloading;
use crate::core::handle::Hypercore;
use crate::core::limits::check_block;
use crate::core::options::{ByteOptions, GetOptions, ReadOptions};
use crate::download::Download;
use crate::{Error, ErrorKind, Result};

/// Streams.
impl Hypercore {
    /// The blocks one after the other, as an iterator.
    #[doc(alias = "createReadStream")]
    pub fn read_stream(&self, options: ReadOptions) -> Result<ReadStream> {
        ReadStream::open(self.clone(), options)
    }

    /// The bytes of the blocks as one file, to be read and seeked in.
    #[doc(alias = "createByteStream")]
    pub fn byte_stream(&self, options: ByteOptions) -> Result<ByteStream> {
        ByteStream::open(self.clone(), options)
    }

    /// Takes blocks one at a time and appends them in batches.
    #[doc(alias = "createWriteStream")]
    pub fn write_stream(&self) -> WriteStream {
        WriteStream::new(self.clone())
    }
}

/// The blocks of a log one after the other; made by [`Hypercore::read_stream`].
///
/// Each step may wait as [`Hypercore::get`] does. A live stream waits at the end for more, and ends when the core closes.
///
/// ```
/// use hypercore::{Hypercore, ReadOptions};
///
/// let core = Hypercore::in_memory()?;
/// core.append_batch(["a", "b", "c"])?;
/// let blocks: Result<Vec<_>, _> = core.read_stream(ReadOptions::new().start(1))?.collect();
/// assert_eq!(blocks?, [b"b", b"c"]);
/// # Ok::<(), hypercore::Error>(())
/// ```
#[derive(Debug)]
pub struct ReadStream {
    core: Hypercore,
    next: u64,
    /// None follows the log: to its length at that time, or for ever when live.
    end: Option<u64>,
    live: bool,
    done: bool,
}

impl ReadStream {
    pub(crate) fn open(core: Hypercore, options: ReadOptions) -> Result<Self> {
        // A snapshot shows what it shows; only its owner moves it.
        if options.end.is_none() && !core.session.is_snapshot() {
            core.update()?;
        }
        let end = match options.end {
            _ if options.live => None,
            None if options.snapshot => Some(core.len()),
            end => end,
        };
        core.session.check_open()?;
        core.session.check_encryption()?;
        Ok(ReadStream { core, next: options.start, end, live: options.live, done: false })
    }

    fn step(&mut self) -> Result<Option<Vec<u8>>> {
        let end = match self.end {
            _ if self.live => u64::MAX,
            Some(end) => end,
            None => self.core.len(),
        };
        if self.next >= end {
            return Ok(None);
        }
        // What is not here yet has to be waited for, whatever the session does by default.
        let options = if self.live { GetOptions::new().wait(true) } else { GetOptions::new() };
        let block = match self.core.get_with(self.next, options) {
            Err(error) if self.live && error.kind() == ErrorKind::Closed => return Ok(None),
            block => block?,
        };
        let block = block.ok_or_else(|| {
            Error::new(
                ErrorKind::BlockNotAvailable,
                format!("block {} is not here, and this session does not wait", self.next),
            )
        })?;
        self.next += 1;
        Ok(Some(block))
    }
}

impl Iterator for ReadStream {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        // After an error the place in the log is no longer certain.
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

/// The bytes of a log as one file; made by [`Hypercore::byte_stream`].
///
/// Reads as [`Hypercore::get`] does, and has the network bring the blocks ahead.
///
/// ```
/// use std::io::Read;
/// use hypercore::{ByteOptions, Hypercore};
///
/// let core = Hypercore::in_memory()?;
/// core.append_batch(["hello ", "world"])?;
/// let mut text = String::new();
/// core.byte_stream(ByteOptions::new().byte_offset(3).byte_length(5))?.read_to_string(&mut text)?;
/// assert_eq!(text, "lo wo");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ByteStream {
    core: Hypercore,
    /// Where the stream begins in the log, how long it is, and how far it was read.
    start: u64,
    length: u64,
    at: u64,
    prefetch: u64,
    /// The block that is being read: its index, its bytes, how many of them were given out.
    block: Option<(u64, Vec<u8>, usize)>,
    ahead: Option<Downloading>,
}

impl ByteStream {
    pub(crate) fn open(core: Hypercore, options: ByteOptions) -> Result<Self> {
        core.session.check_encryption()?;
        let length = match options.byte_length {
            Some(length) => length,
            None => {
                if !core.session.is_snapshot() {
                    core.update()?;
                }
                core.byte_length().saturating_sub(options.byte_offset)
            }
        };
        core.session.check_open()?;
        let prefetch = options.prefetch;
        Ok(ByteStream { core, start: options.byte_offset, length, at: 0, prefetch, block: None, ahead: None })
    }

    /// How many bytes the stream has.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the stream has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn load(&mut self) -> Result<()> {
        let (mut index, mut skip) = match self.block.take() {
            Some((index, bytes, given)) if given < bytes.len() => {
                self.block = Some((index, bytes, given));
                return Ok(());
            }
            Some((index, _, _)) => (index + 1, 0),
            None => self.core.seek(self.start.saturating_add(self.at))?,
        };
        loop {
            self.download_after(index)?;
            let bytes = self.core.get(index)?;
            let given = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            if given < bytes.len() {
                self.block = Some((index, bytes, given));
                return Ok(());
            }
            // An empty block.
            (index, skip) = (index + 1, 0);
        }
    }

    fn download_after(&mut self, index: u64) -> Result<()> {
        if self.prefetch == 0 || self.core.session.shared.network.get().is_none() {
            return Ok(());
        }
        if let Some(ahead) = self.ahead.take() {
            ahead.cancel();
        }
        let range = index + 1..(index + 1).saturating_add(self.prefetch);
        self.ahead = Some(self.core.download(Download::range(range).linear(true))?);
        Ok(())
    }
}

impl Read for ByteStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        if left == 0 || out.is_empty() {
            return Ok(0);
        }
        self.load()?;
        let Some((_, bytes, given)) = &mut self.block else { return Ok(0) };
        let n = out.len().min(bytes.len() - *given).min(usize::try_from(left).unwrap_or(usize::MAX));
        out[..n].copy_from_slice(&bytes[*given..*given + n]);
        *given += n;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for ByteStream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let at =
            at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start of the stream"))?;
        if at != self.at {
            self.block = None;
            self.at = at;
        }
        Ok(at)
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            ahead.cancel();
        }
    }
}

/// Takes blocks one at a time and appends them in batches; made by [`Hypercore::write_stream`].
///
/// What was written is appended when enough has gathered, and by [`WriteStream::flush`]. Dropping the stream flushes too, but cannot
/// report what went wrong.
///
/// ```
/// # use hypercore::Hypercore;
/// let core = Hypercore::in_memory()?;
/// let mut stream = core.write_stream();
/// for line in "one\ntwo\nthree".lines() {
///     stream.write(line)?;
/// }
/// stream.flush()?;
/// assert_eq!(core.len(), 3);
/// # Ok::<(), hypercore::Error>(())
/// ```
#[derive(Debug)]
pub struct WriteStream {
    core: Hypercore,
    batch: Vec<Vec<u8>>,
    bytes: usize,
}

/// A batch is appended when it has so many bytes
const BATCH_BYTES: usize = 1024 * 1024;
/// or so many blocks.
const BATCH_BLOCKS: usize = 1024;

impl WriteStream {
    pub(crate) fn new(core: Hypercore) -> Self {
        WriteStream { core, batch: Vec::new(), bytes: 0 }
    }

    /// Takes one block, and appends the batch if it is full. One that is too large is refused and leaves the others as they were.
    pub fn write(&mut self, block: impl Into<Vec<u8>>) -> Result<()> {
        let block = block.into();
        check_block(&block)?;
        if self.batch.is_empty() {
            // Early: dropping the stream could not report it.
            self.core.session.check_encryption()?;
        }
        self.bytes += block.len();
        self.batch.push(block);
        if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS {
            self.flush()?;
        }
        Ok(())
    }

    /// Appends what has gathered; none if there was nothing. After an error it is still there, to be tried again.
    pub fn flush(&mut self) -> Result<Option<Appended>> {
        if self.batch.is_empty() {
            return Ok(None);
        }
        let appended = self.core.append_batch(&self.batch)?;
        self.batch.clear();
        self.bytes = 0;
        Ok(Some(appended))
    }
}

impl Drop for WriteStream {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
