//! Detects that another program shortened a file that this process has written. This process alone changes a core's
//! files and tracks their lengths, so a file that is shorter than its tracked length was shortened by another
//! program. A read of the lost bytes, or a write after them, is then an error and does not yield zeros or leave a
//! hole.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::backend::File;

/// Fails if `file` has fewer than `known` bytes.
pub fn check(file: &dyn File, known: u64) -> io::Result<()> {
    match file.len()? {
        len if len < known => Err(was_cut(known, len)),
        _ => Ok(()),
    }
}

/// The error for a file that had `known` bytes and has `len` now.
pub fn was_cut(known: u64, len: u64) -> io::Error {
    let what = format!(
        "the file had {known} bytes and has {len} now: another program cut it; stop that program, put the file back \
         from a copy, or open the core again and run `verify` to see which blocks are lost"
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A file whose writes fail if another program shortened it.
///
/// For one writer at a time: comparing the tracked length with the file's is not atomic with the write.
pub struct TrackedFile {
    file: Arc<dyn File>,
    known: AtomicU64,
}

impl TrackedFile {
    /// Tracks the length of `file` if it is a file of the operating system; another one is returned as it is.
    pub fn of(file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        if file.as_std().is_none() {
            return Ok(file);
        }
        let known = AtomicU64::new(file.len()?);
        Ok(Arc::new(TrackedFile { file, known }))
    }
}

impl File for TrackedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        check(&*self.file, self.known.load(Ordering::Acquire))?;
        self.file.write_at(offset, bytes)?;
        if !bytes.is_empty() {
            self.known.fetch_max(offset.saturating_add(bytes.len() as u64), Ordering::AcqRel);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // If another program shortened the file, but not below the new length, nothing that is kept was lost.
        check(&*self.file, self.known.load(Ordering::Acquire).min(len))?;
        self.file.set_len(len)?;
        self.known.store(len, Ordering::Release);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.file.disk_usage()
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.file.lock(exclusive)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }

    fn as_std(&self) -> Option<&fs::File> {
        self.file.as_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::{Access, Storage};
    use crate::storage::disk::Disk;

    #[test]
    fn write_after_foreign_cut_fails_and_leaves_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());
        let file = TrackedFile::of(disk.open("oplog", Access::Create).unwrap().unwrap()).unwrap();
        file.write_at(0, &[1; 100]).unwrap();
        file.set_len(80).unwrap();
        file.write_at(80, &[2; 20]).unwrap();
        let other = fs::OpenOptions::new().write(true).open(disk.path("oplog")).unwrap();
        other.set_len(50).unwrap();
        let error = file.write_at(100, &[3; 10]).unwrap_err().to_string();
        assert!(error.contains("had 100 bytes and has 50 now") && error.contains("another program cut it"), "{error}");
        assert!(file.set_len(60).is_err());
        assert_eq!(file.len().unwrap(), 50);
        file.set_len(50).unwrap();
        file.write_at(50, &[4; 10]).unwrap();
        assert_eq!(file.len().unwrap(), 60);
    }
}
