//! File operations that the standard library lacks: locks of open file descriptions, holes, reserved space, and
//! positional access on every system.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

#[cfg(unix)]
pub use self::unix::*;
#[cfg(windows)]
pub use self::windows::*;

/// Distinguishes a file from others of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileId {
    /// The device and inode numbers; None on systems that have none.
    place: Option<(u64, u64)>,
    born: Option<SystemTime>,
    changed: Option<SystemTime>,
}

/// The id of the file with this metadata.
pub fn file_id(metadata: &Metadata) -> FileId {
    FileId { place: place(metadata), born: metadata.created().ok(), changed: metadata.modified().ok() }
}

impl FileId {
    /// Whether both are ids of one file that was not written in between.
    ///
    /// Equal numbers alone do not show it, since a new file may get the number of a deleted one: the time of creation
    /// must be equal too. File systems without numbers (FAT) give a file another one at each open; there the file is
    /// recognized by its times of creation and modification.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_times = self.born.is_some() && self.changed == other.changed;
        self.born == other.born && ((self.place.is_some() && self.place == other.place) || same_times)
    }
}

#[cfg(unix)]
mod unix {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    // Offsets of the plain calls may have 32 bits with glibc and on Android.
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    use libc::off_t;
    #[cfg(all(target_os = "linux", not(target_env = "gnu")))]
    use libc::{fallocate, lseek, off_t};
    #[cfg(any(target_os = "android", all(target_os = "linux", target_env = "gnu")))]
    use libc::{fallocate64 as fallocate, lseek64 as lseek, off64_t as off_t};

    use super::*;

    /// One positional read, which may return fewer bytes.
    pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buf, offset)
    }

    /// One positional write, which may write fewer bytes.
    pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    /// Device and inode numbers.
    pub fn place(metadata: &Metadata) -> Option<(u64, u64)> {
        Some((metadata.dev(), metadata.ino()))
    }

    /// The disk space that the file occupies, in bytes.
    pub fn disk_usage(metadata: &Metadata) -> u64 {
        // POSIX leaves the unit open; every system that this library supports counts blocks of 512 bytes.
        metadata.blocks().saturating_mul(512)
    }

    /// Blocks until the names in the directory would survive a power cut.
    pub fn sync_dir(dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match File::open(dir)?.sync_all() {
            // Some file systems cannot sync a directory, and offer no other way.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP)) => Ok(()),
            other => other,
        }
    }

    /// Locks the whole file as JavaScript Hypercore does on Linux. The lock belongs to the open file description, so
    /// it also keeps out other opens of the same process, and ends with the last copy of the descriptor.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn lock(file: &File, exclusive: bool) -> io::Result<bool> {
        set_lock(file, if exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as _)
    }

    /// Releases the lock. Closing the file is not enough: a process that is being started may have a copy of the
    /// descriptor.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn unlock(file: &File) {
        let _ = set_lock(file, libc::F_UNLCK as _);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn set_lock(file: &File, kind: libc::c_short) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        const SET_LOCK: libc::c_int = libc::F_OFD_SETLK;
        #[cfg(target_os = "android")]
        const SET_LOCK: libc::c_int = 37;
        // SAFETY: `flock` is a C struct of integers, for which zeros are a value.
        let mut range: libc::flock = unsafe { std::mem::zeroed() };
        // A lock from the start with length 0 covers all bytes, also those that the file gets later.
        range.l_type = kind;
        range.l_whence = libc::SEEK_SET as _;
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and `range` outlives the call.
        held(unsafe { libc::fcntl(file.as_raw_fd(), SET_LOCK, &range) })
    }

    /// Locks the whole file as JavaScript Hypercore does on macOS and the BSDs.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn lock(file: &File, exclusive: bool) -> io::Result<bool> {
        let how = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
        // SAFETY: the descriptor is open for as long as `file` is borrowed.
        held(unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) })
    }

    /// Releases the lock. Closing the file is not enough: a process that is being started may have a copy of the
    /// descriptor.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn unlock(file: &File) {
        // SAFETY: the descriptor is open for as long as `file` is borrowed.
        unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
    }

    fn held(result: libc::c_int) -> io::Result<bool> {
        if result != -1 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            Some(libc::EINVAL | libc::ENOLCK | libc::ENOSYS | libc::ENOTSUP) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, error))
            }
            _ => Err(error),
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"))]
    fn file_offset(n: u64) -> io::Result<off_t> {
        n.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the offset is past the end of any file"))
    }

    /// Makes these bytes a hole if the file system can.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (offset, len) = (file_offset(offset)?, file_offset(len)?);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        loop {
            // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
            if unsafe { fallocate(file.as_raw_fd(), mode, offset, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
                _ => return Err(error),
            }
        }
    }

    /// Reserves disk space for these bytes if the file system can. The file's length does not change.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (offset, len) = (file_offset(offset)?, file_offset(len)?);
        loop {
            // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
            if unsafe { fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV) => return Ok(()),
                _ => return Err(error),
            }
        }
    }

    /// Does nothing: these systems cannot reserve disk space.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn reserve(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// Makes the whole pages among these bytes a hole if the file system can, and writes zeros over the other bytes.
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
        let metadata = file.metadata()?;
        let page = metadata.blksize().max(1);
        let end = offset.saturating_add(len).min(metadata.len());
        if offset >= end {
            return Ok(());
        }
        let (first, last) = (offset.next_multiple_of(page).min(end), end - end % page);
        if first < last {
            let hole = libc::fpunchhole_t {
                fp_flags: 0,
                reserved: 0,
                fp_offset: file_offset(first)?,
                fp_length: file_offset(last - first)?,
            };
            // SAFETY: the descriptor is open for as long as `file` is borrowed, and `hole` outlives the call.
            if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_PUNCHHOLE, &hole) } == -1 {
                let error = io::Error::last_os_error();
                let cannot = matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::EINVAL | libc::ENOTTY));
                return if cannot { Ok(()) } else { Err(error) };
            }
        }
        file.write_all_at(&vec![0; (first - offset) as usize], offset)?;
        let tail = last.max(first);
        file.write_all_at(&vec![0; (end - tail) as usize], tail)
    }

    /// Does nothing: these systems cannot make holes.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios")))]
    pub fn punch(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// The first offset, at or after `offset`, that is in no hole.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
        let Ok(from) = file_offset(offset) else { return Ok(None) };
        // SAFETY: the descriptor is open for as long as `file` is borrowed. Nothing else uses the cursor that this
        // moves.
        let found = unsafe { lseek(file.as_raw_fd(), from, libc::SEEK_DATA) };
        if found >= 0 {
            return Ok(Some(found as u64));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENXIO) => Ok(None),
            Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => Ok(Some(offset)),
            _ => Err(error),
        }
    }

    /// Returns `offset`: these systems do not tell where holes are, or not cheaply.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn next_data(_: &File, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

#[cfg(windows)]
mod windows {
    use std::ffi::c_void;
    use std::os::windows::fs::FileExt;
    use std::os::windows::io::{AsRawHandle, RawHandle};

    use super::*;

    /// One positional read, which may return fewer bytes.
    pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buf, offset)
    }

    /// One positional write, which may write fewer bytes.
    pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(bytes, offset)
    }

    /// None: Windows gives the numbers only to a further open of the file.
    pub fn place(_: &Metadata) -> Option<(u64, u64)> {
        None
    }

    /// The length of the file, since its metadata does not tell the disk space.
    pub fn disk_usage(metadata: &Metadata) -> u64 {
        metadata.len()
    }

    /// Does nothing: syncing a file makes its name durable as well.
    pub fn sync_dir(_: &Path) -> io::Result<()> {
        Ok(())
    }

    #[repr(C)]
    struct Overlapped {
        internal: usize,
        internal_high: usize,
        offset: u32,
        offset_high: u32,
        event: *mut c_void,
    }

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn LockFileEx(
            file: RawHandle,
            flags: u32,
            reserved: u32,
            low: u32,
            high: u32,
            overlapped: *mut Overlapped,
        ) -> i32;
    }

    /// Does nothing: closing the file releases the lock, since no other process has the handle.
    pub fn unlock(_: &File) {}

    /// Locks every byte a file can have, as JavaScript Hypercore does on Windows.
    pub fn lock(file: &File, exclusive: bool) -> io::Result<bool> {
        const FAIL_IMMEDIATELY: u32 = 1;
        const EXCLUSIVE: u32 = 2;
        const LOCK_VIOLATION: i32 = 33;
        const IO_PENDING: i32 = 997;
        const NOT_SUPPORTED: i32 = 50;
        const INVALID_FUNCTION: i32 = 1;
        let flags = FAIL_IMMEDIATELY | if exclusive { EXCLUSIVE } else { 0 };
        let mut from =
            Overlapped { internal: 0, internal_high: 0, offset: 0, offset_high: 0, event: std::ptr::null_mut() };
        // SAFETY: the handle is open for as long as `file` is borrowed. It was not opened for overlapped use, so the
        // system does not use `from` after the call returns.
        if unsafe { LockFileEx(file.as_raw_handle(), flags, 0, u32::MAX, u32::MAX, &mut from) } != 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(LOCK_VIOLATION | IO_PENDING) => Ok(false),
            Some(NOT_SUPPORTED | INVALID_FUNCTION) => Err(io::Error::new(io::ErrorKind::Unsupported, error)),
            _ => Err(error),
        }
    }

    /// Does nothing: holes are not supported here.
    pub fn punch(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing: disk space cannot be reserved here.
    pub fn reserve(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// Returns `offset`: holes are not supported here.
    pub fn next_data(_: &File, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn identity_of_another_file_with_same_name_or_number_differs() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let file = FileId { place: Some((1, 2)), born: at(5), changed: at(7) };
        let numbered = FileId { born: None, ..file.clone() };
        let unnumbered = FileId { place: None, ..file.clone() };
        for same in [&file, &numbered, &unnumbered] {
            assert!(same.is_same(same));
            // A modification time that a late sync changes does not matter where there are numbers.
            assert!(same.place.is_none() || FileId { changed: at(8), ..same.clone() }.is_same(same));
        }
        assert!(FileId { place: Some((1, 3)), ..file.clone() }.is_same(&file), "a file system without numbers");
        for other in [
            FileId { born: at(6), ..file.clone() },
            FileId { place: Some((1, 3)), changed: at(8), ..file.clone() },
            FileId { place: Some((9, 2)), born: at(6), ..file.clone() },
        ] {
            assert!(!other.is_same(&file), "{other:?}");
        }
        assert!(!FileId { place: Some((1, 3)), ..numbered.clone() }.is_same(&numbered));
        assert!(!FileId { changed: at(8), ..unnumbered.clone() }.is_same(&unnumbered));
        assert!(!FileId { place: None, ..numbered }.is_same(&FileId { place: None, born: None, changed: at(7) }));
    }
}
