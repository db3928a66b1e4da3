//! What many stories need: a watchdog, a directory that goes away, blocks of all sizes, a storage that counts and stops.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::{fs, thread};

use hypercore::{Access, ErrorKind, File, KeyPair, Memory, Result, Storage};

use crate::machine::limit;
use crate::watchdog::Watchdog;

/// A watchdog over the test that calls this.
pub fn watchdog() -> Watchdog {
    Watchdog::new(thread::current().name().unwrap_or("a test"), limit(180))
}

/// A watchdog over a test of minutes: it has work for all processors, which others may have as well.
pub fn patient_watchdog() -> Watchdog {
    Watchdog::new(thread::current().name().unwrap_or("a test"), limit(1200))
}

/// A key pair that is the same in every run.
pub fn pair(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// The kind of the error that `result` has to be.
#[track_caller]
pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("this should have been refused").kind()
}

/// A generator of numbers that are the same in every run: xorshift64*.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// All files of a directory with their bytes.
pub fn files_of(dir: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// A gate that stops whoever passes while it is shut.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    waiting: usize,
}

impl Gate {
    pub fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    /// Returns when somebody stands before the gate.
    pub fn wait_for_somebody(&self) {
        self.wait_for(1);
    }

    /// Returns when so many stand before the gate.
    pub fn wait_for(&self, count: usize) {
        let mut state = self.state.lock().unwrap();
        while state.waiting < count {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        while state.shut {
            state = self.changed.wait(state).unwrap();
        }
        state.waiting -= 1;
    }
}

/// Storage in memory that counts what is done to it and lets no sync pass while the gate is shut, and no read of one
/// of its files.
#[derive(Clone, Default)]
pub struct Watched {
    inner: Memory,
    pub seen: Arc<Seen>,
}

/// What [`Watched`] counts.
#[derive(Default)]
pub struct Seen {
    pub syncs: AtomicU64,
    pub writes: AtomicU64,
    pub punched: AtomicU64,
    pub gate: Gate,
    /// Stops who reads the file of this name.
    pub slow: Mutex<&'static str>,
    pub reads: Gate,
    /// For each file how long each open of it was the last time it was looked at.
    pub opened: Mutex<HashMap<String, u64>>,
}

struct WatchedFile {
    name: String,
    inner: Arc<dyn File>,
    seen: Arc<Seen>,
}

impl Watched {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn syncs(&self) -> u64 {
        self.seen.syncs.load(Ordering::SeqCst)
    }
}

impl Storage for Watched {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        let Some(inner) = self.inner.open(name, access)? else { return Ok(None) };
        *self.seen.opened.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        Ok(Some(Arc::new(WatchedFile { name: name.to_owned(), inner, seen: self.seen.clone() })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("watched").join(name)
    }
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if *self.seen.slow.lock().unwrap() == self.name {
            self.seen.reads.pass();
        }
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seen.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.seen.syncs.fetch_add(1, Ordering::SeqCst);
        self.seen.gate.pass();
        self.inner.sync()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.seen.punched.fetch_add(len, Ordering::SeqCst);
        self.inner.punch(offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.inner.disk_usage()
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.inner.lock(exclusive)
    }
}
