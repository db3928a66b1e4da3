//! Storage in memory that stops the first write to `data` until it is let go on.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use hypercore::{Access, File, Memory, Storage};

pub struct Gated {
    inner: Memory,
    gate: Arc<Gate>,
}

struct Gate(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl Gated {
    /// The storage, what hears of the first write, and what lets it go on.
    pub fn new() -> (Self, Receiver<()>, Sender<()>) {
        let (tell, told) = channel();
        let (release, held) = channel();
        (Gated { inner: Memory::new(), gate: Arc::new(Gate(Mutex::new(Some((tell, held))))) }, told, release)
    }
}

impl Storage for Gated {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        let Some(inner) = self.inner.open(name, access)? else { return Ok(None) };
        let gate = (name == "data").then(|| self.gate.clone());
        Ok(Some(Arc::new(GatedFile { inner, gate })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.path(name)
    }
}

struct GatedFile {
    inner: Arc<dyn File>,
    gate: Option<Arc<Gate>>,
}

impl File for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let gate = self.gate.as_ref().and_then(|gate| gate.0.lock().unwrap().take());
        if let Some((tell, held)) = gate {
            tell.send(()).unwrap();
            held.recv().unwrap();
        }
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.inner.disk_usage()
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.inner.lock(exclusive)
    }
}
