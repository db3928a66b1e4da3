//! The traits through which a core reaches its files.
//!
//! [`Disk`](crate::storage::disk::Disk) keeps the files in a directory, [`Memory`](crate::storage::memory::Memory) in
//! this process. A program can implement [`Storage`] and [`File`] for a storage of its own.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The purpose for which a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading an existing file.
    Read,
    /// Reading and writing an existing file.
    Write,
    /// Reading and writing; a missing file and a missing directory are created.
    Create,
}

/// The place of the files of one core: `oplog`, `tree`, `bitfield`, `data` and, rarely, `header`.
///
/// # Errors
/// The core passes each error on to its user, with the path and the operation. After an error of a method that writes,
/// bytes may have changed, and the core refuses further writes until it is opened again.
pub trait Storage: Send + Sync + 'static {
    /// Opens the file `name`. Returns `Ok(None)` if it is missing and `access` is not [`Access::Create`].
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>>;

    /// Removes the file `name`. Succeeds if the file is missing.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Blocks until the names of all files created so far would survive a power cut.
    fn sync_dir(&self) -> io::Result<()>;

    /// The path of the file `name` in error messages.
    fn path(&self, name: &str) -> PathBuf;

    /// Whether `file`, which [`open`](Storage::open) returned for `name`, is still the file of that name. A removed or
    /// replaced file keeps its bytes and its lock as long as it is open, but no later open of `name` finds it.
    ///
    /// The default implementation returns true, which is right for a storage whose names cannot change while a file
    /// is open.
    fn is_current(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let _ = (name, file);
        Ok(true)
    }
}

/// An open file, read and written at any offset from any thread. Bytes never written read as zeros.
pub trait File: Send + Sync {
    /// The length of the file in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads from `offset` into `buf` and returns the number of bytes read. It is less than `buf.len()` only at the
    /// end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset` and grows the file as needed. After an error, any part of `bytes` may have
    /// been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `len` bytes, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Blocks until all writes so far would survive a power cut.
    fn sync(&self) -> io::Result<()>;

    /// Frees the disk space of `len` bytes from `offset`, which read as zeros from then on. The length of the file
    /// does not change. If the file system has no holes, this does nothing and succeeds.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Reserves disk space for `len` bytes from `offset`, also beyond the end of the file, so that writing them does
    /// not fail for lack of space. The length and the bytes of the file do not change. If the file system cannot
    /// reserve space, this does nothing and succeeds.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// The disk space that the file occupies, in bytes. Holes make it less than the length.
    fn disk_usage(&self) -> io::Result<u64>;

    /// Locks the whole file until this value is dropped, against every other open of it in this or another process. An
    /// exclusive lock admits no other; a shared lock admits other shared ones. Never blocks: returns false if another
    /// lock is in the way.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if the file system has no locks.
    fn lock(&self, exclusive: bool) -> io::Result<bool>;

    /// The first offset, at or after `offset`, where the file may hold anything but zeros; `Ok(None)` if only zeros
    /// follow. Returning `offset` itself is always correct; a later offset lets scans skip holes.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    /// The file of the operating system, if there is one. It is needed for memory maps.
    fn as_std(&self) -> Option<&fs::File> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;
    use crate::storage::testing::{random, storages};

    #[test]
    fn file_after_random_operations_holds_what_they_wrote() {
        let (_dir, storages) = storages();
        for (storage, _) in storages {
            let file = storage.open("data", Access::Create).unwrap().unwrap();
            let mut expected: Vec<u8> = Vec::new();
            let mut random = random(7);
            for step in 0..600 {
                let (at, n) = (random(30_000) as usize, random(12_000) as usize);
                match random(6) {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..n).map(|i| (i + step) as u8 | 1).collect();
                        file.write_at(at as u64, &bytes).unwrap();
                        if n > 0 {
                            expected.resize(expected.len().max(at + n), 0);
                            expected[at..at + n].copy_from_slice(&bytes);
                        }
                    }
                    2 => {
                        file.set_len(at as u64).unwrap();
                        expected.resize(at, 0);
                    }
                    3 => {
                        file.punch(at as u64, n as u64).unwrap();
                        let end = (at + n).min(expected.len());
                        expected[at.min(end)..end].fill(0);
                    }
                    4 => {
                        let data = file.next_data(at as u64).unwrap().unwrap_or(u64::MAX) as usize;
                        let end = data.min(expected.len());
                        assert!(expected[at.min(end)..end].iter().all(|&b| b == 0), "no data is passed over");
                    }
                    _ => {
                        let mut out = vec![9; n];
                        let read = file.read_at(at as u64, &mut out).unwrap();
                        let end = (at + n).min(expected.len());
                        assert_eq!(&out[..read], &expected[at.min(end)..end]);
                    }
                }
                assert_eq!(file.len().unwrap(), expected.len() as u64);
            }
        }
    }

    #[test]
    fn missing_file_is_made_by_create_alone() {
        let (_dir, storages) = storages();
        for (storage, _) in storages {
            assert!(storage.open("tree", Access::Read).unwrap().is_none());
            assert!(storage.open("tree", Access::Write).unwrap().is_none());
            storage.open("tree", Access::Create).unwrap().unwrap().write_at(3, b"x").unwrap();
            storage.sync_dir().unwrap();
            let reading = storage.open("tree", Access::Read).unwrap().unwrap();
            assert_eq!(reading.len().unwrap(), 4);
            assert!(reading.write_at(0, b"y").is_err());
            storage.remove("tree").unwrap();
            storage.remove("tree").unwrap();
            assert!(storage.open("tree", Access::Write).unwrap().is_none());
        }
    }

    #[test]
    fn lock_keeps_out_every_other_open() {
        let (_dir, storages) = storages();
        for (storage, _) in storages {
            let open = |access| storage.open("oplog", access).unwrap().unwrap();
            let (a, b) = (open(Access::Create), open(Access::Write));
            assert!(a.lock(true).unwrap());
            assert!(a.lock(true).unwrap(), "its holder may ask again");
            assert!(!b.lock(true).unwrap());
            assert!(!open(Access::Read).lock(false).unwrap());
            drop(a);
            let (c, d) = (open(Access::Read), open(Access::Read));
            assert!(c.lock(false).unwrap() && d.lock(false).unwrap());
            assert!(!b.lock(true).unwrap());
            drop((c, d));
            assert!(b.lock(true).unwrap());
        }
    }

    #[test]
    fn removed_or_replaced_file_is_not_current() {
        let (_dir, storages) = storages();
        for (storage, _) in storages {
            let open = || storage.open("oplog", Access::Create).unwrap().unwrap();
            let (first, same) = (open(), open());
            let is_current = |file: &Arc<dyn File>| storage.is_current("oplog", &**file).unwrap();
            assert!(is_current(&first) && is_current(&same));
            storage.remove("oplog").unwrap();
            assert!(!is_current(&first) && !is_current(&same));
            let next = open();
            assert!(!is_current(&first) && is_current(&next));
        }
    }

    #[test]
    fn clone_of_memory_shares_its_files() {
        let memory = Memory::new();
        memory.open("data", Access::Create).unwrap().unwrap().write_at(1 << 50, b"far").unwrap();
        let file = memory.clone().open("data", Access::Read).unwrap().unwrap();
        assert_eq!(file.len().unwrap(), (1 << 50) + 3);
        assert_eq!(file.disk_usage().unwrap(), 4096);
    }
}
