//! The file `data`: the blocks, back to back, each at the byte offset that the tree gives. A block that is not held
//! is a hole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::backend::{File, Storage};
use crate::storage::lazy_file::{FileOptions, LazyFile};
use crate::storage::tracked;
use crate::{Error, Result};

/// Blocks of up to this many bytes are gathered with their neighbours into one write.
const SMALL: usize = 32 << 10;

/// A gathered write has at most this many bytes.
const GATHER: usize = 256 << 10;

/// Bytes that a disk writes as a whole or not at all.
pub const SECTOR: u64 = 512;

/// Counts the sectors of the file in which `blocks` hold nothing but zeros. Each block comes with its offset and
/// starts where the one before it ends. In a sector that the blocks cover in part, only that part is examined.
pub fn empty_sectors<'a>(blocks: impl IntoIterator<Item = (u64, &'a [u8])>) -> u64 {
    let mut empty = EmptySectors::default();
    blocks.into_iter().for_each(|(offset, bytes)| empty.add(offset, bytes));
    empty.count()
}

/// The count of [`empty_sectors`], block by block.
#[derive(Default)]
pub struct EmptySectors {
    count: u64,
    /// The last sector that was touched, and whether its bytes so far are zeros.
    open: Option<(u64, bool)>,
}

impl EmptySectors {
    /// Adds a block that starts where the one before it ends.
    pub fn add(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let sector = at / SECTOR;
            let (part, rest) = bytes.split_at(((SECTOR - at % SECTOR) as usize).min(bytes.len()));
            let is_empty = part.iter().all(|&byte| byte == 0);
            self.open = match self.open {
                Some((last, was_empty)) if last == sector => Some((sector, was_empty && is_empty)),
                before => {
                    self.count += u64::from(before.is_some_and(|(_, was_empty)| was_empty));
                    Some((sector, is_empty))
                }
            };
            at = at.saturating_add(part.len() as u64);
            bytes = rest;
        }
    }

    /// The number of sectors so far that hold nothing but zeros.
    pub fn count(&self) -> u64 {
        self.count + u64::from(self.open.is_some_and(|(_, was_empty)| was_empty))
    }
}

/// The file `data`.
pub struct Blocks {
    file: LazyFile,
    /// The file has at least this length unless another program shortened it.
    known: AtomicU64,
}

impl Blocks {
    /// Opens the file if it exists; the first write creates it.
    pub fn open(storage: &Arc<dyn Storage>, how: FileOptions) -> Result<Self> {
        let file = LazyFile::open(storage, "data", how.writable)?;
        let known = file.len().map_err(|e| file.error(e, "open"))?;
        Ok(Blocks { file, known: AtomicU64::new(known) })
    }

    /// The same file, closed until its next use. None if this one is not open. The caller drops this one.
    pub fn released(&self) -> Result<Option<Self>> {
        let known = AtomicU64::new(self.known.load(Ordering::Acquire));
        Ok(self.file.released()?.map(|file| Blocks { file, known }))
    }

    /// Opens the file if it is released; see [`LazyFile::reopen`].
    pub fn reopen(&self) -> Result<()> {
        self.file.reopen()
    }

    /// The `size` bytes at `offset`. The caller bounds `size`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the file ends before them.
    pub fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>> {
        // No memory is taken for a large block that is not complete. For a small one, asking for the file's length
        // costs more than it saves.
        if size > SMALL && offset.checked_add(size as u64).is_none_or(|end| self.len().is_ok_and(|len| end > len)) {
            return Err(self.short(offset, size));
        }
        let mut out = vec![0; size];
        self.read_into(offset, &mut out)?;
        Ok(out)
    }

    /// Fills `out` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the file ends before them.
    pub fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match self.file.read_at(offset, out) {
            Ok(n) if n == out.len() => Ok(()),
            Ok(_) => Err(self.short(offset, out.len())),
            Err(e) => Err(self.file.error(e, "read")),
        }
    }

    /// Reads from `offset` into `out` and returns the number of bytes read: fewer at the end of the file.
    pub fn read_up_to(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, out).map_err(|e| self.file.error(e, "read"))
    }

    fn short(&self, offset: u64, size: usize) -> Error {
        Error::corrupt(format!(
            "the file is missing or was cut: it ends before the {size} bytes at {offset} of a block; put it back from \
             a copy, or run `verify --repair`, which drops the missing blocks so that they are downloaded again"
        ))
        .at(self.file.path())
    }

    /// Writes `blocks` back to back from `offset` on. No two of the writes share a sector, so that a power cut leaves
    /// in each sector either all bytes of the blocks or zeros, which [`empty_sectors`] counts.
    ///
    /// # Errors
    /// Also if another program shortened the file.
    pub fn write<B: AsRef<[u8]>>(&self, offset: u64, blocks: &[B]) -> Result<()> {
        tracked::check(&self.file, self.known.load(Ordering::Acquire)).map_err(|e| self.file.error(e, "write"))?;
        let mut at = offset;
        let mut gathered = Vec::new();
        for (i, block) in blocks.iter().enumerate() {
            let mut block = block.as_ref();
            let is_last = i + 1 == blocks.len();
            let is_alone = block.len() > SMALL || (gathered.is_empty() && is_last);
            if is_alone || gathered.len() + block.len() > GATHER {
                let end = at.saturating_add(gathered.len() as u64);
                let head = if gathered.is_empty() { 0 } else { (SECTOR - end % SECTOR) % SECTOR };
                let (head, rest) = block.split_at((head as usize).min(block.len()));
                gathered.extend_from_slice(head);
                at = self.write_part(at, &gathered)?;
                gathered.clear();
                block = rest;
            }
            if is_alone {
                let end = at.saturating_add(block.len() as u64);
                let tail = if is_last { 0 } else { end % SECTOR };
                let (body, tail) = block.split_at(block.len().saturating_sub(tail as usize));
                at = self.write_part(at, body)?;
                block = tail;
            }
            gathered.extend_from_slice(block);
        }
        if self.write_part(at, &gathered)? == offset && !blocks.is_empty() {
            // JavaScript cannot read blocks without the file, not even empty ones.
            self.file.make().map_err(|e| self.file.error(e, "create"))?;
        }
        Ok(())
    }

    fn write_part(&self, at: u64, bytes: &[u8]) -> Result<u64> {
        if bytes.is_empty() {
            return Ok(at);
        }
        let written = match at.checked_add(bytes.len() as u64) {
            Some(end) => self.file.write_at(at, bytes).map(|()| {
                self.known.fetch_max(end, Ordering::AcqRel);
                end
            }),
            None => Err(io::ErrorKind::FileTooLarge.into()),
        };
        written.map_err(|e| self.file.error(e, "write"))
    }

    /// Frees the disk space of these bytes if the file system can.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.file.punch(offset, len).map_err(|e| self.file.error(e, "free blocks in"))
    }

    /// Cuts the file to `len` bytes, or grows it with zeros.
    pub fn set_len(&self, len: u64) -> Result<()> {
        let known = self.known.load(Ordering::Acquire).min(len);
        let cut = tracked::check(&self.file, known).and_then(|()| self.file.set_len(len));
        cut.map_err(|e| self.file.error(e, "cut"))?;
        self.known.store(len, Ordering::Release);
        Ok(())
    }

    /// The length of the file in bytes.
    pub fn len(&self) -> Result<u64> {
        self.file.len().map_err(|e| self.file.error(e, "measure"))
    }

    /// Whether the file exists.
    pub fn exists(&self) -> Result<bool> {
        self.file.exists().map_err(|e| self.file.error(e, "open"))
    }

    /// Blocks until all writes so far would survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|e| self.file.error(e, "sync"))
    }

    /// Blocks until the file's name would survive a power cut.
    pub fn sync_name(&self) -> Result<()> {
        self.file.sync_name().map_err(|e| self.file.error(e, "sync"))
    }

    /// The disk space that the file occupies, in bytes.
    pub fn disk_usage(&self) -> Result<u64> {
        self.file.disk_usage().map_err(|e| self.file.error(e, "measure"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::storage::backend::Access;
    use crate::storage::testing::storages;

    #[test]
    fn read_of_written_blocks_of_any_size_returns_them() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let blocks = Blocks::open(&storage, how).unwrap();
            let sizes = [0, 1, 10, 40_000, 3, 200_000, 32 << 10, 32 << 10, 32 << 10, 0, 9];
            let values: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, &n)| vec![i as u8; n]).collect();
            blocks.write(5, &values).unwrap();
            blocks.write(5 + sizes.iter().sum::<usize>() as u64, &vec![[7_u8; 100]; 9000]).unwrap();
            let mut at = 5;
            for value in &values {
                assert_eq!(blocks.read(at, value.len()).unwrap(), *value);
                at += value.len() as u64;
            }
            assert_eq!(blocks.read(at, 900_000).unwrap(), vec![7; 900_000]);
            assert_eq!(blocks.len().unwrap(), at + 900_000);
            blocks.sync().unwrap();
        }
    }

    #[test]
    fn sector_of_zeros_shared_by_blocks_counts_once() {
        let zeros = [0; 4000];
        let whole = |offset: u64, n: usize| empty_sectors([(offset, &zeros[..n])]);
        assert_eq!(
            (whole(0, 0), whole(0, 1), whole(0, 512), whole(0, 513), whole(511, 2), whole(100, 1000)),
            (0, 1, 1, 2, 2, 3)
        );
        // The size of the blocks does not matter.
        for size in [1, 7, 100, 512, 900] {
            let blocks = zeros.chunks(size).enumerate().map(|(i, block)| (33 + (i * size) as u64, block));
            assert_eq!(empty_sectors(blocks), whole(33, 4000));
        }
        let mut bytes = zeros;
        bytes[600] = 1;
        assert_eq!(empty_sectors([(0, &bytes[..])]), whole(0, 4000) - 1);
        assert_eq!(empty_sectors([(0, &bytes[..550]), (550, &bytes[550..])]), whole(0, 4000) - 1);
    }

    #[test]
    fn write_of_empty_blocks_creates_the_file() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let blocks = Blocks::open(&storage, how).unwrap();
            blocks.write::<&[u8]>(0, &[]).unwrap();
            assert!(storage.open("data", Access::Read).unwrap().is_none());
            blocks.write(0, &[b"", b""]).unwrap();
            assert_eq!(storage.open("data", Access::Read).unwrap().unwrap().len().unwrap(), 0);
            assert_eq!(blocks.read(0, 0).unwrap(), b"");
        }
    }

    #[test]
    fn read_past_the_end_is_an_error_and_takes_no_memory() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let blocks = Blocks::open(&storage, how).unwrap();
            assert_eq!(blocks.read(0, 10).unwrap_err().kind(), ErrorKind::Corrupt);
            assert!(storage.open("data", Access::Read).unwrap().is_none(), "reading makes no file");
            blocks.write(0, &[b"0123456789"]).unwrap();
            for (offset, size) in [(5, 6), (10, 1), (0, usize::MAX >> 1), (u64::MAX, 100)] {
                assert!(blocks.read(offset, size).is_err());
            }
        }
    }

    #[test]
    fn punch_frees_space_and_leaves_zeros() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let blocks = Blocks::open(&storage, how).unwrap();
            blocks.write(0, &[vec![1; 1 << 20]]).unwrap();
            let before = blocks.disk_usage().unwrap();
            blocks.punch(100, 900_000).unwrap();
            assert!(blocks.disk_usage().unwrap() < before / 2);
            assert_eq!(blocks.read(0, 100).unwrap(), [1; 100]);
            assert_eq!(blocks.read(100, 900_000).unwrap(), vec![0; 900_000]);
            assert_eq!(blocks.read(900_100, 100).unwrap(), [1; 100]);
        }
    }
}
