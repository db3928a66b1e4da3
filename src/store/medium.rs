//! The one seam to the outside: where a core's files are kept.
//!
//! [`Disk`] keeps them in a directory, [`Memory`](crate::store::memory::Memory) in this process. A program can bring its own
//! by implementing [`Medium`] and [`File`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::os;

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
pub trait Medium: Send + Sync + 'static {
    /// Opens the file `name`; None where it is missing and `access` does not say to make it.
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>>;

    /// Removes the file `name`; one that is missing is fine.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when the names of files made so far would survive a power cut.
    fn sync_dir(&self) -> io::Result<()>;

    /// How error messages call the file `name`.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file, read and written at any offset from any thread. Bytes never written read as zeros.
pub trait File: Send + Sync {
    /// How many bytes the file has.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` with the bytes from `offset` on and says how many there were; fewer than asked for only at the end of
    /// the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file as needed. After an error any part of them may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `len` bytes, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when all that was written would survive a power cut.
    fn sync(&self) -> io::Result<()>;

    /// Gives the space of these bytes back; they read as zeros from then on. Where the file system cannot do so this does
    /// nothing and succeeds. The file's length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

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

/// A directory as a [`Medium`].
///
/// `oplog` and `header` hold the secret key, so they are made readable by their owner alone; the other files follow the
/// process's mask.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// Directories in which a name was made that [`Medium::sync_dir`] has yet to make durable, next to `dir` itself.
    unsynced: Mutex<Vec<PathBuf>>,
}

impl Disk {
    /// The directory `dir`, which is made with the first file.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Disk { dir: dir.into(), unsynced: Mutex::default() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_dir(&self) -> io::Result<()> {
        let missing = self.dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists());
        let parents: Vec<PathBuf> = missing.filter_map(|d| d.parent().map(Path::to_owned)).collect();
        fs::create_dir_all(&self.dir)?;
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).extend(parents);
        Ok(())
    }
}

impl Medium for Disk {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(access != Access::Read).create(access == Access::Create);
        if matches!(name, "oplog" | "header") {
            owner_only(&mut options);
        }
        if access == Access::Create {
            self.make_dir()?;
        }
        let file = match options.open(self.path(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && access != Access::Create => return Ok(None),
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Some(Arc::new(DiskFile { file })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        os::sync_dir(&self.dir)?;
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(dir) = unsynced.last() {
            os::sync_dir(dir)?;
            unsynced.pop();
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[cfg(unix)]
fn owner_only(options: &mut fs::OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn owner_only(_: &mut fs::OpenOptions) {}

struct DiskFile {
    file: fs::File,
}

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match os::read_at(&self.file, &mut buf[done..], at(offset, done)?) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match os::write_at(&self.file, &bytes[done..], at(offset, done)?) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        os::punch(&self.file, offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        Ok(os::disk_usage(&self.file.metadata()?))
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        os::lock(&self.file, exclusive)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        os::next_data(&self.file, offset)
    }

    fn as_std(&self) -> Option<&fs::File> {
        Some(&self.file)
    }
}

/// An offset past which the operating system is not to be asked: it would take it for a negative one.
fn at(offset: u64, done: usize) -> io::Result<u64> {
    match offset.checked_add(done as u64) {
        Some(at) if at <= i64::MAX as u64 => Ok(at),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the offset is past the end of any file")),
    }
}
