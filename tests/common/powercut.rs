//! A simulated disk that records each call, and the files that it may have after a power cut.
//!
//! A sync of a file makes its bytes durable, a sync of the directory its name. Each other call may have reached the
//! disk or not, in any order: a write in sectors of 512 bytes, each whole or not at all, or, except for `data`, torn
//! at any byte. If two writes to the same bytes reached the disk, the later one wins.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hypercore::{Access, File, Storage};

use super::random::Random;

pub const SECTOR: usize = 512;
const EIO: i32 = 5;

/// The files of one core, by name.
pub type Image = BTreeMap<String, Vec<u8>>;

/// One call.
#[derive(Clone, Debug)]
pub enum Call {
    Create(String),
    Remove(String),
    Write { name: String, offset: usize, bytes: Arc<[u8]> },
    SetLen { name: String, len: usize },
    Punch { name: String, offset: usize, len: usize },
    Sync(String),
    SyncDir,
}

/// The kind of a call that is to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Open,
    Len,
    Read,
    Write,
    SetLen,
    Sync,
    Punch,
    SyncDir,
    Remove,
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// How many calls of the kind succeed before.
    pub after: u64,
    /// The error number of the operating system.
    pub errno: i32,
    /// Whether all later calls of the kind fail, too.
    pub stays: bool,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<String, Arc<Mutex<Vec<u8>>>>,
    calls: Option<Vec<Call>>,
    fault: Option<Fault>,
    /// How many calls of the kind of the fault were made.
    seen: u64,
    /// After this many recorded calls the process is dead, and no call has an effect.
    dead_from: Option<usize>,
    /// The files whose calls failed.
    failed: Vec<String>,
    on_sync: Option<Arc<dyn Fn() + Send + Sync>>,
    syncs: u64,
}

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    locks: Arc<Mutex<BTreeMap<String, u64>>>,
}

struct Handle {
    id: u64,
    name: String,
    bytes: Arc<Mutex<Vec<u8>>>,
    disk: Recorder,
}

impl Inner {
    fn is_dead(&self) -> bool {
        self.dead_from.is_some_and(|from| self.calls.as_ref().is_some_and(|calls| calls.len() >= from))
    }
}

impl Recorder {
    /// A disk with these files.
    pub fn new(image: Image) -> Self {
        let disk = Recorder::default();
        let files = image.into_iter().map(|(name, bytes)| (name, Arc::new(Mutex::new(bytes)))).collect();
        disk.inner.lock().unwrap().files = files;
        disk
    }

    /// A disk with these files that records the calls.
    pub fn recording(image: Image) -> Self {
        let disk = Recorder::new(image);
        disk.inner.lock().unwrap().calls = Some(Vec::new());
        disk
    }

    /// The files on the disk.
    pub fn image(&self) -> Image {
        let inner = self.inner.lock().unwrap();
        inner.files.iter().map(|(name, bytes)| (name.clone(), bytes.lock().unwrap().clone())).collect()
    }

    /// How many calls were recorded so far.
    pub fn position(&self) -> usize {
        self.inner.lock().unwrap().calls.as_ref().map_or(0, Vec::len)
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.lock().unwrap().calls.clone().unwrap_or_default()
    }

    /// Drops all locks, as the end of their process does.
    pub fn unlock(&self) {
        self.locks.lock().unwrap().clear();
    }

    /// Lets calls fail from now on; None: no call fails.
    pub fn fail(&self, fault: Option<Fault>) {
        let mut inner = self.inner.lock().unwrap();
        (inner.fault, inner.seen) = (fault, 0);
        inner.failed.clear();
    }

    /// Kills the process after this many more calls: its later calls do not reach the disk. None: another
    /// process goes on.
    pub fn die_after(&self, calls: Option<usize>) {
        let position = self.position();
        self.inner.lock().unwrap().dead_from = calls.map(|calls| position + calls);
    }

    /// Whether the process was killed.
    pub fn is_dead(&self) -> bool {
        self.inner.lock().unwrap().is_dead()
    }

    /// Calls `f` in each sync of a file from now on, and counts the syncs from zero.
    pub fn on_sync(&self, f: impl Fn() + Send + Sync + 'static) {
        let mut inner = self.inner.lock().unwrap();
        inner.on_sync = Some(Arc::new(f));
        inner.syncs = 0;
    }

    /// How many syncs of files there were.
    pub fn syncs(&self) -> u64 {
        self.inner.lock().unwrap().syncs
    }

    /// The files whose calls failed.
    pub fn failed(&self) -> Vec<String> {
        self.inner.lock().unwrap().failed.clone()
    }

    fn check(&self, kind: Kind, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        if inner.is_dead() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let Some(fault) = inner.fault.filter(|fault| fault.kind == kind) else { return Ok(()) };
        inner.seen += 1;
        if inner.seen == fault.after + 1 || (fault.stays && inner.seen > fault.after) {
            inner.failed.push(name.to_owned());
            return Err(io::Error::from_raw_os_error(fault.errno));
        }
        Ok(())
    }

    fn record(&self, call: impl FnOnce() -> Call) {
        if let Some(calls) = &mut self.inner.lock().unwrap().calls {
            calls.push(call());
        }
    }
}

impl Storage for Recorder {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        self.check(Kind::Open, name)?;
        let found = self.inner.lock().unwrap().files.get(name).cloned();
        let bytes = match found {
            Some(bytes) => bytes,
            None if access != Access::Create => return Ok(None),
            None => {
                self.record(|| Call::Create(name.to_owned()));
                self.inner.lock().unwrap().files.entry(name.to_owned()).or_default().clone()
            }
        };
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Arc::new(Handle { id, name: name.to_owned(), bytes, disk: self.clone() })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.is_dead() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.check(Kind::Remove, name)?;
        self.inner.lock().unwrap().files.remove(name);
        self.record(|| Call::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.check(Kind::SyncDir, "")?;
        self.record(|| Call::SyncDir);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("disk").join(name)
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        self.disk.check(Kind::Len, &self.name)?;
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.check(Kind::Read, &self.name)?;
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = buf.len().min(bytes.len() - start);
        buf[..n].copy_from_slice(&bytes[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fails = self.disk.check(Kind::Write, &self.name);
        // A write that fails has written half of its bytes.
        let bytes = match fails {
            Err(_) if self.disk.is_dead() => return fails,
            Err(_) => &bytes[..bytes.len() / 2],
            Ok(()) => bytes,
        };
        let call = Call::Write { name: self.name.clone(), offset: offset as usize, bytes: bytes.into() };
        carry_out(&mut self.bytes.lock().unwrap(), &call);
        self.disk.record(|| call);
        fails
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check(Kind::SetLen, &self.name)?;
        let call = Call::SetLen { name: self.name.clone(), len: len as usize };
        carry_out(&mut self.bytes.lock().unwrap(), &call);
        self.disk.record(|| call);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.check(Kind::Sync, &self.name)?;
        let on_sync = {
            let mut inner = self.disk.inner.lock().unwrap();
            inner.syncs += 1;
            inner.on_sync.clone()
        };
        on_sync.iter().for_each(|f| f());
        self.disk.record(|| Call::Sync(self.name.clone()));
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.check(Kind::Punch, &self.name)?;
        let call = Call::Punch { name: self.name.clone(), offset: offset as usize, len: len as usize };
        carry_out(&mut self.bytes.lock().unwrap(), &call);
        self.disk.record(|| call);
        Ok(())
    }

    fn disk_usage(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn lock(&self, _: bool) -> io::Result<bool> {
        let mut locks = self.disk.locks.lock().unwrap();
        Ok(*locks.entry(self.name.clone()).or_insert(self.id) == self.id)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut locks = self.disk.locks.lock().unwrap();
        if locks.get(&self.name) == Some(&self.id) {
            locks.remove(&self.name);
        }
    }
}

/// Applies `call` to the bytes of a file.
fn carry_out(file: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Write { offset, bytes, .. } if !bytes.is_empty() => {
            let end = offset + bytes.len();
            file.resize(file.len().max(end), 0);
            file[*offset..end].copy_from_slice(bytes);
        }
        Call::SetLen { len, .. } => file.resize(*len, 0),
        Call::Punch { offset, len, .. } => {
            let end = (offset + len).min(file.len());
            if *offset < end {
                file[*offset..end].fill(0);
            }
        }
        _ => {}
    }
}

fn name_of(call: &Call) -> &str {
    match call {
        Call::Create(name) | Call::Remove(name) | Call::Sync(name) => name,
        Call::Write { name, .. } | Call::SetLen { name, .. } | Call::Punch { name, .. } => name,
        Call::SyncDir => "",
    }
}

/// A crash: what happens to the calls since the last sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// The process was killed: all calls happened, the last write up to `torn` bytes.
    Killed { torn: Option<usize> },
    /// A power cut: the first calls happened.
    Prefix(usize),
    /// A power cut: each call happened, or not, or in part, by this seed.
    Seed(u64),
}

/// Replays the recorded calls one by one, and makes the image of a crash after each.
pub struct Replay<'a> {
    calls: &'a [Call],
    next: usize,
    /// The synced bytes of files, and whether the name of each is synced.
    safe: Image,
    named: BTreeMap<String, bool>,
    /// The calls that are not synced, by number.
    pending: Vec<usize>,
}

impl<'a> Replay<'a> {
    /// A replay before the first of `calls`, on a disk with the synced files `image`.
    pub fn new(image: &Image, calls: &'a [Call]) -> Self {
        let named = image.keys().map(|name| (name.clone(), true)).collect();
        Replay { calls, next: 0, safe: image.clone(), named, pending: Vec::new() }
    }

    /// How many calls were replayed.
    pub fn position(&self) -> usize {
        self.next
    }

    /// How many of them a power cut could lose.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Replays the next call; false if there is none.
    pub fn step(&mut self) -> bool {
        let Some(call) = self.calls.get(self.next) else { return false };
        match call {
            Call::Create(name) => {
                self.named.entry(name.clone()).or_insert(false);
                self.safe.entry(name.clone()).or_default();
            }
            Call::SyncDir => {
                self.named.values_mut().for_each(|safe| *safe = true);
                let removed: Vec<usize> =
                    self.pending.iter().copied().filter(|&at| matches!(self.calls[at], Call::Remove(_))).collect();
                for at in removed {
                    self.safe.remove(name_of(&self.calls[at]));
                    self.named.remove(name_of(&self.calls[at]));
                    self.pending.retain(|&p| p != at);
                }
            }
            Call::Sync(name) => {
                let calls = self.calls;
                let file = self.safe.entry(name.clone()).or_default();
                self.pending.retain(|&at| {
                    let mine = name_of(&calls[at]) == name && !matches!(calls[at], Call::Remove(_));
                    if mine {
                        carry_out(file, &calls[at]);
                    }
                    !mine
                });
            }
            _ => self.pending.push(self.next),
        }
        self.next += 1;
        true
    }

    /// The files after the crash.
    pub fn image(&self, cut: Cut) -> Image {
        let mut image = self.safe.clone();
        let mut random = Random::new(match cut {
            Cut::Seed(seed) => seed,
            _ => 0,
        });
        let whole = !matches!(cut, Cut::Seed(_));
        // Some disks lose nearly all calls, some nearly none.
        let odds = 1 + random.below(7);
        for (i, &at) in self.pending.iter().enumerate() {
            let call = &self.calls[at];
            let file = image.entry(name_of(call).to_owned()).or_default();
            match (cut, call) {
                (Cut::Prefix(n), _) if i >= n => {}
                (Cut::Killed { torn: Some(n) }, Call::Write { name, offset, bytes }) if at + 1 == self.next => {
                    let bytes = bytes[..n.min(bytes.len())].into();
                    carry_out(file, &Call::Write { name: name.clone(), offset: *offset, bytes });
                }
                (_, Call::Remove(name)) => {
                    if whole || random.below(8) < odds {
                        image.remove(name);
                    }
                }
                (Cut::Seed(_), Call::Write { name, offset, bytes }) => {
                    // Blocks have no checksum that would reveal a half-written sector, so sectors of `data` are whole.
                    let whole_sectors = name == "data";
                    partly(file, *offset, bytes, whole_sectors, odds, &mut random);
                }
                (Cut::Seed(_), _) if random.below(8) >= odds => {}
                _ => carry_out(file, call),
            }
        }
        if !whole {
            // A file whose name is not synced may be lost with all its bytes.
            for (name, _) in self.named.iter().filter(|&(_, &safe)| !safe) {
                if random.below(8) >= odds {
                    image.remove(name);
                }
            }
        }
        image
    }
}

/// Writes part of `bytes`: all, none, random sectors, or the part before or after a random byte (or sector).
fn partly(file: &mut Vec<u8>, offset: usize, bytes: &Arc<[u8]>, whole_sectors: bool, odds: u64, random: &mut Random) {
    let tear = |at: usize| match whole_sectors {
        true => ((offset + at).next_multiple_of(SECTOR) - offset).min(bytes.len()),
        false => at,
    };
    let mut write = |from: usize, to: usize| {
        let part = Call::Write { name: String::new(), offset: offset + from, bytes: bytes[from..to].into() };
        carry_out(file, &part);
    };
    match random.below(6) {
        0 | 1 => write(0, bytes.len()),
        2 => {}
        3 => write(0, tear(random.below(bytes.len() as u64 + 1) as usize)),
        4 => {
            // The bytes before the tear are old, those after it new.
            let from = tear(random.below(bytes.len() as u64 + 1) as usize);
            write(from, bytes.len());
        }
        _ => {
            let mut from = 0;
            while from < bytes.len() {
                let to = ((offset + from) / SECTOR + 1) * SECTOR - offset;
                let to = to.min(bytes.len());
                if random.below(8) < odds {
                    write(from, to);
                }
                from = to;
            }
        }
    }
}
