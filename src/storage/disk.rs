//! A directory as storage.

use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::storage::backend::{Access, File, Storage};
use crate::storage::os;
use crate::sync::{Mutex, Rank};

/// A [`Storage`] in a directory.
///
/// `oplog` and `header` hold the secret key and are created with access for their owner alone. The other files are
/// created with the process's file mode mask.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// Parent directories in which a directory was created since the last [`Storage::sync_dir`].
    unsynced: Mutex<Vec<PathBuf>>,
}

impl Disk {
    /// Storage in `dir`. Creating the first file creates the directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Disk { dir: dir.into(), unsynced: Mutex::new(Rank::Storage, Vec::new()) }
    }

    /// The path of the directory, as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_dir(&self) -> io::Result<()> {
        let missing = self.dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists());
        let parents: Vec<PathBuf> = missing.filter_map(|d| d.parent().map(Path::to_owned)).collect();
        fs::create_dir_all(&self.dir)?;
        self.unsynced.lock().extend(parents);
        Ok(())
    }
}

impl Storage for Disk {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(access != Access::Read).create(access == Access::Create);
        if matches!(name, "oplog" | "header") {
            owner_only(&mut options);
        }
        if access == Access::Create {
            self.make_dir()?;
        }
        let path = self.path(name);
        // Opening a pipe for reading would block until another process opens it for writing.
        if access == Access::Read && fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(not_regular());
        }
        let file = match options.open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && access != Access::Create => return Ok(None),
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        Ok(Some(Arc::new(DiskFile { file, locked: AtomicBool::new(false) })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        os::sync_dir(&self.dir)?;
        let mut unsynced = self.unsynced.lock();
        while let Some(dir) = unsynced.last() {
            os::sync_dir(dir)?;
            unsynced.pop();
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn is_current(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let Some(file) = file.as_std() else { return Ok(true) };
        match fs::metadata(self.path(name)) {
            // Where the system gives no file numbers, an open file's name cannot change.
            Ok(named) => Ok(os::place(&file.metadata()?).is_none_or(|place| os::place(&named) == Some(place))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
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
    locked: AtomicBool,
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        if *self.locked.get_mut() {
            os::unlock(&self.file);
        }
    }
}

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        // Seeking takes a fraction of the time of reading all metadata, and each write needs the length. Nothing else
        // uses the cursor.
        (&self.file).seek(SeekFrom::End(0))
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

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        os::reserve(&self.file, offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        Ok(os::disk_usage(&self.file.metadata()?))
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        let locked = os::lock(&self.file, exclusive)?;
        self.locked.fetch_or(locked, Ordering::Relaxed);
        Ok(locked)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        os::next_data(&self.file, offset)
    }

    fn as_std(&self) -> Option<&fs::File> {
        Some(&self.file)
    }
}

/// The offset `offset + done`, if the operating system does not take it for a negative one.
fn at(offset: u64, done: usize) -> io::Result<u64> {
    match offset.checked_add(done as u64) {
        Some(at) if at <= i64::MAX as u64 => Ok(at),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the offset is past the end of any file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A process that another thread is starting has a copy of the descriptor for a moment.
    #[test]
    fn lock_with_copied_descriptor_ends_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());
        let first = disk.open("oplog", Access::Create).unwrap().unwrap();
        assert!(first.lock(true).unwrap());
        let copy = first.as_std().unwrap().try_clone().unwrap();
        let second = disk.open("oplog", Access::Write).unwrap().unwrap();
        assert!(!second.lock(true).unwrap());
        drop(first);
        assert!(second.lock(true).unwrap());
        drop(copy);
        assert!(!disk.open("oplog", Access::Write).unwrap().unwrap().lock(true).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn file_with_secret_key_is_readable_by_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path().join("a/b"));
        for name in ["oplog", "header"] {
            disk.open(name, Access::Create).unwrap();
            assert_eq!(fs::metadata(disk.path(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        disk.sync_dir().unwrap();
    }

    #[test]
    fn directory_in_place_of_file_and_offset_past_any_end_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("oplog")).unwrap();
        let disk = Disk::new(dir.path());
        for access in [Access::Read, Access::Write, Access::Create] {
            assert!(disk.open("oplog", access).is_err());
        }
        let file = disk.open("data", Access::Create).unwrap().unwrap();
        assert!(file.write_at(u64::MAX - 1, b"xyz").is_err());
        assert!(file.read_at(u64::MAX - 1, &mut [0; 9]).is_err());
    }
}
