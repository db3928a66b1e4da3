//! A file that its first write creates: a core that was opened and never written leaves nothing but its `oplog`.
//!
//! Releasing closes the file, and its next use opens it again. That fails if another file has taken its place, or if
//! its length has changed: a released file is never created or shortened again, since its bytes would be missing from
//! the core.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::storage::backend::{Access, File, Storage};
use crate::storage::os;
use crate::sync::{Mutex, Rank};
use crate::{Error, Result};

/// The options with which the files of a core are opened.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// Whether the files may be written, and created if missing.
    pub writable: bool,
    /// Whether the files may be mapped into memory. That is allowed only while the core is locked: if another process
    /// shortens a file, reading it through a map kills this process.
    pub mappable: bool,
    /// How many bytes of the core's files may be mapped at a time: three quarters for the tree, a quarter for the
    /// bitfield.
    pub map_limit: usize,
}

/// One file of a core. A missing file reads as an empty one until it is written.
pub struct LazyFile {
    storage: Arc<dyn Storage>,
    name: &'static str,
    writable: bool,
    file: OnceLock<Arc<dyn File>>,
    /// The state of the file when it was released.
    released: Option<ReleasedFile>,
    /// Held while the file is created or opened again.
    making: Mutex<()>,
    /// Whether this value created the file and has not yet synced its name.
    nameless: AtomicBool,
}

/// The state of a released file, to recognize it when it is opened again.
struct ReleasedFile {
    /// None if the file is not one of the operating system.
    id: Option<os::FileId>,
    len: u64,
}

impl LazyFile {
    /// Opens `name` if it exists.
    pub fn open(storage: &Arc<dyn Storage>, name: &'static str, writable: bool) -> Result<Self> {
        let file = storage.open(name, existing(writable)).map_err(|e| Error::from_io(e, "open", storage.path(name)))?;
        Ok(LazyFile {
            storage: storage.clone(),
            name,
            writable,
            file: file.map(OnceLock::from).unwrap_or_default(),
            released: None,
            making: Mutex::new(Rank::FileOpen, ()),
            nameless: AtomicBool::new(false),
        })
    }

    /// A released copy of this file, opened again on use; `None` if the file is not open.
    ///
    /// The caller must not change the file through this value any more, and drops it.
    pub fn released(&self) -> Result<Option<Self>> {
        let Some(file) = self.file.get() else { return Ok(None) };
        let released = measure(&**file).map_err(|e| self.error(e, "measure"))?;
        Ok(Some(LazyFile {
            storage: self.storage.clone(),
            name: self.name,
            writable: self.writable,
            file: OnceLock::new(),
            released: Some(released),
            making: Mutex::new(Rank::FileOpen, ()),
            nameless: AtomicBool::new(self.nameless.load(Ordering::Acquire)),
        }))
    }

    /// Opens the file if it is released.
    ///
    /// # Errors
    /// The file was removed, replaced, or has another length than when it was released.
    pub fn reopen(&self) -> Result<()> {
        self.there().map(|_| ()).map_err(|e| self.error(e, "open"))
    }

    /// The path in error messages.
    pub fn path(&self) -> PathBuf {
        self.storage.path(self.name)
    }

    /// The error of the operation `what` on this file.
    pub fn error(&self, source: io::Error, what: &str) -> Error {
        Error::from_io(source, what, self.path())
    }

    /// Whether the file exists.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(self.there()?.is_some())
    }

    /// Creates the file if it is missing.
    pub fn make(&self) -> io::Result<()> {
        self.made().map(|_| ())
    }

    /// If this value created the file, blocks until its name would survive a power cut.
    pub fn sync_name(&self) -> io::Result<()> {
        if self.nameless.load(Ordering::Acquire) {
            self.storage.sync_dir()?;
            self.nameless.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The file, if it exists; opened again if it is released.
    fn there(&self) -> io::Result<Option<&Arc<dyn File>>> {
        match (self.file.get(), &self.released) {
            (None, Some(released)) => self.opened_again(released).map(Some),
            (file, _) => Ok(file),
        }
    }

    fn opened_again(&self, released: &ReleasedFile) -> io::Result<&Arc<dyn File>> {
        let _making = self.making.lock();
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let other = |kind, what: &str| {
            let why = format!("the file {what} while the core had released it; put it back, or open the core again");
            io::Error::new(kind, why)
        };
        let Some(file) = self.storage.open(self.name, existing(self.writable))? else {
            return Err(other(io::ErrorKind::NotFound, "was removed"));
        };
        if let (Some(id), Some(std)) = (&released.id, file.as_std()) {
            if !os::file_id(&std.metadata()?).is_same(id) {
                return Err(other(io::ErrorKind::InvalidData, "was replaced by another"));
            }
        }
        let len = file.len()?;
        // A read-only core does not know the length: a writer in another process may have changed it.
        if self.writable && len != released.len {
            let what = format!("of {} bytes came to have {len}", released.len);
            return Err(other(io::ErrorKind::InvalidData, &what));
        }
        Ok(self.file.get_or_init(|| file))
    }

    fn made(&self) -> io::Result<&Arc<dyn File>> {
        if let Some(file) = self.there()? {
            return Ok(file);
        }
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the core was opened read-only"));
        }
        let _making = self.making.lock();
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = self.storage.open(self.name, Access::Create)?.ok_or(io::ErrorKind::NotFound)?;
        self.nameless.store(true, Ordering::Release);
        Ok(self.file.get_or_init(|| file))
    }
}

impl File for LazyFile {
    fn len(&self) -> io::Result<u64> {
        self.there()?.map_or(Ok(0), |f| f.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.there()?.map_or(Ok(0), |f| f.read_at(offset, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.made()?.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.there()? {
            None if len == 0 => Ok(()),
            _ => self.made()?.set_len(len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let Some(file) = self.there()? else { return Ok(()) };
        file.sync()?;
        self.sync_name()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.there()?.map_or(Ok(()), |f| f.punch(offset, len))
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.there()?.map_or(Ok(0), |f| f.disk_usage())
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.made()?.lock(exclusive)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.there()?.map_or(Ok(None), |f| f.next_data(offset))
    }

    fn as_std(&self) -> Option<&fs::File> {
        self.file.get().and_then(|f| f.as_std())
    }
}

fn existing(writable: bool) -> Access {
    if writable { Access::Write } else { Access::Read }
}

fn measure(file: &dyn File) -> io::Result<ReleasedFile> {
    let id = match file.as_std() {
        Some(std) => Some(os::file_id(&std.metadata()?)),
        None => None,
    };
    Ok(ReleasedFile { id, len: file.len()? })
}
