//! A log as a stream: an iterator over blocks, a reader over bytes, and a writer that appends in batches.

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
    /// Returns an iterator over the blocks.
    ///
    /// Without [`ReadOptions::end`], calls [`Hypercore::update`] first, except on a snapshot, and may wait as
    /// it does. Fails with [`Encryption`](ErrorKind::Encryption) if the encryption key is missing or wrong,
    /// and with [`Closed`](ErrorKind::Closed).
    #[doc(alias = "createReadStream")]
    pub fn read_stream(&self, options: ReadOptions) -> Result<ReadStream> {
        ReadStream::open(self.clone(), options)
    }

    /// Returns a [`Read`] and [`Seek`] over the bytes of the blocks, joined.
    ///
    /// Without [`ByteOptions::byte_length`], calls [`Hypercore::update`] first, except on a snapshot, and may
    /// wait as it does. Fails with [`Encryption`](ErrorKind::Encryption) if the encryption key is missing or
    /// wrong, and with [`Closed`](ErrorKind::Closed).
    #[doc(alias = "createByteStream")]
    pub fn byte_stream(&self, options: ByteOptions) -> Result<ByteStream> {
        ByteStream::open(self.clone(), options)
    }

    /// Returns a writer that takes blocks one at a time and appends them in batches.
    #[doc(alias = "createWriteStream")]
    pub fn write_stream(&self) -> WriteStream {
        WriteStream::new(self.clone())
    }
}

/// An iterator over the blocks of a log; made by [`Hypercore::read_stream`].
///
/// Each step may wait as [`Hypercore::get`] does and fails as it does. A live stream waits at the end for more
/// blocks, and ends when the core closes. Every stream ends after its first error.
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
    /// `None` follows the log: up to its length at each step or, if live, without end.
    end: Option<u64>,
    live: bool,
    done: bool,
}

impl ReadStream {
    pub(crate) fn open(core: Hypercore, options: ReadOptions) -> Result<Self> {
        // A snapshot moves only when its owner calls `update`.
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

    fn next_block(&mut self) -> Result<Option<Vec<u8>>> {
        let end = match self.end {
            _ if self.live => u64::MAX,
            Some(end) => end,
            None => self.core.len(),
        };
        if self.next >= end {
            return Ok(None);
        }
        // A live stream waits for its next block even if the session does not wait by default.
        let options = if self.live { GetOptions::new().wait(true) } else { GetOptions::new() };
        let block = match self.core.get_with(self.next, options) {
            Err(error) if self.live && error.kind() == ErrorKind::Closed => return Ok(None),
            block => block?,
        };
        let block = block.ok_or_else(|| {
            Error::new(
                ErrorKind::BlockNotAvailable,
                format!("block {} is not held, and this session does not wait: download it first", self.next),
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
        let block = self.next_block().transpose();
        // After an error the position in the log is no longer certain.
        self.done = !matches!(block, Some(Ok(_)));
        block
    }
}

/// A reader over the bytes of a log; made by [`Hypercore::byte_stream`].
///
/// Reading waits and fails as [`Hypercore::seek`] and [`Hypercore::get`] do. The stream asks the network for the
/// next blocks ahead of reading, see [`ByteOptions::prefetch`].
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
    /// The byte of the log at which the stream begins, the stream's length, and the position in the stream.
    start: u64,
    length: u64,
    at: u64,
    prefetch: u64,
    /// The block that is being read: its index, its bytes, and how many of them were read.
    block: Option<(u64, Vec<u8>, usize)>,
    prefetching: Option<Downloading>,
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
        Ok(ByteStream { core, start: options.byte_offset, length, at: 0, prefetch, block: None, prefetching: None })
    }

    /// The length of the stream in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether [`ByteStream::len`] is 0.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn load_block(&mut self) -> Result<()> {
        let (mut index, mut skip) = match self.block.take() {
            Some((index, bytes, read)) if read < bytes.len() => {
                self.block = Some((index, bytes, read));
                return Ok(());
            }
            Some((index, _, _)) => (index + 1, 0),
            None => self.core.seek(self.start.saturating_add(self.at))?,
        };
        loop {
            self.download_after(index)?;
            let bytes = self.core.get(index)?;
            let read = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            if read < bytes.len() {
                self.block = Some((index, bytes, read));
                return Ok(());
            }
            // The block is empty: go on with the next.
            (index, skip) = (index + 1, 0);
        }
    }

    fn download_after(&mut self, index: u64) -> Result<()> {
        if self.prefetch == 0 || self.core.session.shared.network.get().is_none() {
            return Ok(());
        }
        if let Some(prefetching) = self.prefetching.take() {
            prefetching.cancel();
        }
        let range = index + 1..(index + 1).saturating_add(self.prefetch);
        self.prefetching = Some(self.core.download(Download::range(range).linear(true))?);
        Ok(())
    }
}

impl Read for ByteStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        if left == 0 || out.is_empty() {
            return Ok(0);
        }
        self.load_block()?;
        let Some((_, bytes, read)) = &mut self.block else { return Ok(0) };
        let n = out.len().min(bytes.len() - *read).min(usize::try_from(left).unwrap_or(usize::MAX));
        out[..n].copy_from_slice(&bytes[*read..*read + n]);
        *read += n;
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
        if let Some(prefetching) = self.prefetching.take() {
            prefetching.cancel();
        }
    }
}

/// A writer that takes blocks one at a time and appends them in batches; made by [`Hypercore::write_stream`].
///
/// A batch is appended when it has 1 MiB or 1024 blocks, and by [`WriteStream::flush`]. Dropping the stream flushes
/// too, but cannot report an error.
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

/// A batch is appended when it has this many bytes
const BATCH_BYTES: usize = 1024 * 1024;
/// or this many blocks.
const BATCH_BLOCKS: usize = 1024;

impl WriteStream {
    pub(crate) fn new(core: Hypercore) -> Self {
        WriteStream { core, batch: Vec::new(), bytes: 0 }
    }

    /// Adds one block to the batch, and appends the batch if it is full.
    ///
    /// Waits and fails as [`Hypercore::append_batch`] does. A block that is too large is refused
    /// ([`BadArgument`](ErrorKind::BadArgument)); the batch stays as it was.
    pub fn write(&mut self, block: impl Into<Vec<u8>>) -> Result<()> {
        let block = block.into();
        check_block(&block)?;
        if self.batch.is_empty() {
            // Report a wrong key now: dropping the stream could not report it.
            self.core.session.check_encryption()?;
        }
        self.bytes += block.len();
        self.batch.push(block);
        if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS {
            self.flush()?;
        }
        Ok(())
    }

    /// Appends the batch. Returns `None` if it is empty. After an error the batch is kept, so that the call
    /// can be repeated.
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
