//! A file that is made when it is first written: a core that was only opened leaves nothing but its `oplog`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::store::medium::{Access, File, Medium};
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
    medium: Arc<dyn Medium>,
    name: &'static str,
    writable: bool,
    file: OnceLock<Arc<dyn File>>,
    /// Held while the file is made.
    making: Mutex<()>,
    /// Whether we made the file and its name is not yet known to be durable.
    nameless: AtomicBool,
}

impl LazyFile {
    /// Opens `name` if it exists.
    pub fn open(medium: &Arc<dyn Medium>, name: &'static str, writable: bool) -> Result<Self> {
        let access = if writable { Access::Write } else { Access::Read };
        let file = medium.open(name, access).map_err(|e| Error::from_io(e, "open", medium.path(name)))?;
        Ok(LazyFile {
            medium: medium.clone(),
            name,
            writable,
            file: file.map(OnceLock::from).unwrap_or_default(),
            making: Mutex::new(Rank::Making, ()),
            nameless: AtomicBool::new(false),
        })
    }

    /// How error messages call it.
    pub fn path(&self) -> PathBuf {
        self.medium.path(self.name)
    }

    /// An error while doing `what` to it.
    pub fn error(&self, source: io::Error, what: &str) -> Error {
        Error::from_io(source, what, self.path())
    }

    /// Makes the file, should it be missing.
    pub fn make(&self) -> io::Result<()> {
        self.made().map(|_| ())
    }

    fn made(&self) -> io::Result<&Arc<dyn File>> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the core was opened read-only"));
        }
        let _making = self.making.lock();
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = self.medium.open(self.name, Access::Create)?.ok_or(io::ErrorKind::NotFound)?;
        self.nameless.store(true, Ordering::Release);
        Ok(self.file.get_or_init(|| file))
    }
}

impl File for LazyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.get().map_or(Ok(0), |f| f.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.get().map_or(Ok(0), |f| f.read_at(offset, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.made()?.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.file.get() {
            None if len == 0 => Ok(()),
            _ => self.made()?.set_len(len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let Some(file) = self.file.get() else { return Ok(()) };
        file.sync()?;
        if self.nameless.load(Ordering::Acquire) {
            self.medium.sync_dir()?;
            self.nameless.store(false, Ordering::Release);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.get().map_or(Ok(()), |f| f.punch(offset, len))
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.file.get().map_or(Ok(0), |f| f.disk_usage())
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.made()?.lock(exclusive)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.get().map_or(Ok(None), |f| f.next_data(offset))
    }

    fn as_std(&self) -> Option<&fs::File> {
        self.file.get().and_then(|f| f.as_std())
    }
}
