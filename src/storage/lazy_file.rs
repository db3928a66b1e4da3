//! A file that is made when it is first written: a core that was only opened leaves nothing but its `oplog`.
//!
//! One that is released is closed, and opened again when it is next used: as the file it was, or not at all. It is never made anew
//! nor cut then, for what is missing of it is missing from the core.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::storage::backend::{Access, File, Storage};
use crate::storage::os;
use crate::sync::{Mutex, Rank};
use crate::{Error, Result};

/// How the files of a core are opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenHow {
    /// Whether they may be written, and made where missing.
    pub writable: bool,
    /// Whether they may be mapped into memory: only while the core is locked, for a file cut short by somebody else
    /// kills the process that reads it through a map.
    pub mappable: bool,
    /// How many bytes of the core's files may be mapped at a time: three quarters of them of the tree, a quarter of the bitfield.
    pub map_limit: usize,
}

/// One file of a core; missing, it reads as an empty one until it is written.
pub struct LazyFile {
    storage: Arc<dyn Storage>,
    name: &'static str,
    writable: bool,
    file: OnceLock<Arc<dyn File>>,
    /// What the file was when it was released.
    was: Option<Was>,
    /// Held while the file is made or opened again.
    making: Mutex<()>,
    /// Whether we made the file and its name is not yet known to be durable.
    nameless: AtomicBool,
}

/// What tells a file from another one of its name.
struct Was {
    /// Where the operating system knows the file.
    identity: Option<os::Identity>,
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
            was: None,
            making: Mutex::new(Rank::FileOpen, ()),
            nameless: AtomicBool::new(false),
        })
    }

    /// The same file, not open until it is used; none where this one is not open itself, and can stay what it is.
    ///
    /// This one is to be dropped, and must not be changed any more.
    pub fn released(&self) -> Result<Option<Self>> {
        let Some(file) = self.file.get() else { return Ok(None) };
        let was = was(&**file).map_err(|e| self.error(e, "measure"))?;
        Ok(Some(LazyFile {
            storage: self.storage.clone(),
            name: self.name,
            writable: self.writable,
            file: OnceLock::new(),
            was: Some(was),
            making: Mutex::new(Rank::FileOpen, ()),
            nameless: AtomicBool::new(self.nameless.load(Ordering::Acquire)),
        }))
    }

    /// Opens the file again, if it was released.
    pub fn reopen(&self) -> Result<()> {
        self.there().map(|_| ()).map_err(|e| self.error(e, "open"))
    }

    /// How error messages call it.
    pub fn path(&self) -> PathBuf {
        self.storage.path(self.name)
    }

    /// An error while doing `what` to it.
    pub fn error(&self, source: io::Error, what: &str) -> Error {
        Error::from_io(source, what, self.path())
    }

    /// Whether there is a file.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(self.there()?.is_some())
    }

    /// Makes the file, should it be missing.
    pub fn make(&self) -> io::Result<()> {
        self.made().map(|_| ())
    }

    /// Waits until the file's name is on the disk, if this made the file.
    pub fn sync_name(&self) -> io::Result<()> {
        if self.nameless.load(Ordering::Acquire) {
            self.storage.sync_dir()?;
            self.nameless.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The file, if there is one.
    fn there(&self) -> io::Result<Option<&Arc<dyn File>>> {
        match (self.file.get(), &self.was) {
            (None, Some(was)) => self.opened_again(was).map(Some),
            (file, _) => Ok(file),
        }
    }

    fn opened_again(&self, was: &Was) -> io::Result<&Arc<dyn File>> {
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
        if let (Some(identity), Some(std)) = (&was.identity, file.as_std()) {
            if !os::identity(&std.metadata()?).is_same(identity) {
                return Err(other(io::ErrorKind::InvalidData, "was replaced by another"));
            }
        }
        let len = file.len()?;
        // Beside a writer, who reads only does not know how long the file is.
        if self.writable && len != was.len {
            let what = format!("of {} bytes came to have {len}", was.len);
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

/// What an existing file is opened for.
fn existing(writable: bool) -> Access {
    if writable { Access::Write } else { Access::Read }
}

fn was(file: &dyn File) -> io::Result<Was> {
    let identity = match file.as_std() {
        Some(std) => Some(os::identity(&std.metadata()?)),
        None => None,
    };
    Ok(Was { identity, len: file.len()? })
}
