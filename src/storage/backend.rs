//! The one seam to the outside: where a core's files are kept.
//!
//! [`Disk`](crate::storage::disk::Disk) keeps them in a directory, [`Memory`](crate::storage::memory::Memory) in this process. A program can bring
//! its own by implementing [`Storage`] and [`File`].

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading what exists.
    Read,
    /// Reading and writing what exists.
    Write,
    /// Reading and writing; file and directory are made where they are missing.
    Create,
}

/// A place that holds the files of one core: `oplog`, `tree`, `bitfield`, `data` and, rarely, `header`.
///
/// # Errors
/// What a method returns reaches the user with the path and what was being done. An error of a writing method after
/// which bytes may have moved makes the core refuse further writes until it is opened again.
pub trait Storage: Send + Sync + 'static {
    /// Opens the file `name`; None where it is missing and `access` does not say to make it.
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>>;

    /// Removes the file `name`; one that is missing is fine.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when the names of files made so far would survive a power cut.
    fn sync_dir(&self) -> io::Result<()>;

    /// How error messages call the file `name`.
    fn path(&self, name: &str) -> PathBuf;

    /// Whether `file`, which [`open`](Storage::open) returned for `name`, is still the one called `name`. A file that
    /// was removed, or replaced by another one, keeps its bytes and its lock for as long as it is open, and no later
    /// open of `name` finds them.
    ///
    /// A storage whose names cannot change while a file is open keeps the answer given here, which is yes.
    fn is_current(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let _ = (name, file);
        Ok(true)
    }
}

/// An open file, read and written at any offset from any thread. Bytes never written read as zeros.
pub trait File: Send + Sync {
    /// How many bytes the file has.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` with the bytes from `offset` on and says how many there were; fewer than asked for only at the end
    /// of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file as needed. After an error any part of them may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `len` bytes, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when all that was written would survive a power cut.
    fn sync(&self) -> io::Result<()>;

    /// Gives the space of these bytes back; they read as zeros from then on. Where the file system cannot do so this
    /// does nothing and succeeds. The file's length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Reserves disk space for these bytes, also beyond the end of the file, whose length and bytes stay. A write
    /// there does not fail for want of space then. Where the file system cannot do so this does nothing and succeeds.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// How many bytes the file takes up, which holes make fewer than its length.
    fn disk_usage(&self) -> io::Result<u64>;

    /// Locks the whole file until it is dropped, against every other open of it, here or in another process: alone, or
    /// together with others that do not ask to be alone. Never waits; false where somebody else's lock is in the way.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system has no locks.
    fn lock(&self, exclusive: bool) -> io::Result<bool>;

    /// The first offset from `offset` on where the file may hold anything but zeros; None where only zeros follow. An
    /// answer of `offset` itself is always right, a later one lets scans pass over holes.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    /// The file as the operating system knows it, which lets it be mapped into memory.
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
    fn a_file_is_what_was_done_to_it() {
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
    fn a_missing_file_is_made_only_when_that_is_asked_for() {
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
    fn a_lock_is_held_against_every_other_open() {
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
    fn clones_of_a_memory_share_their_files() {
        let memory = Memory::new();
        memory.open("data", Access::Create).unwrap().unwrap().write_at(1 << 50, b"far").unwrap();
        let file = memory.clone().open("data", Access::Read).unwrap().unwrap();
        assert_eq!(file.len().unwrap(), (1 << 50) + 3);
        assert_eq!(file.disk_usage().unwrap(), 4096);
    }
}
