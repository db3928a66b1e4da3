//! A wrapper of storage and files that counts the calls and lets a test hook into each of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::{fs, io};

use hypercore::{Access, File, Memory, Storage};

/// A call to a storage or to one of its files, before it is passed on.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Open(Access),
    Remove,
    SyncDir,
    Len,
    Read { offset: u64, len: usize },
    Write { offset: u64, bytes: &'a [u8] },
    SetLen(u64),
    Sync,
    Punch { offset: u64, len: u64 },
    Reserve { offset: u64, len: u64 },
    DiskUsage,
    Lock { exclusive: bool },
    AsStd,
}

/// A [`Call`] without its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CallKind {
    Open,
    Remove,
    SyncDir,
    Len,
    Read,
    Write,
    SetLen,
    Sync,
    Punch,
    Reserve,
    DiskUsage,
    Lock,
    AsStd,
}

impl Call<'_> {
    pub fn kind(&self) -> CallKind {
        match self {
            Call::Open(_) => CallKind::Open,
            Call::Remove => CallKind::Remove,
            Call::SyncDir => CallKind::SyncDir,
            Call::Len => CallKind::Len,
            Call::Read { .. } => CallKind::Read,
            Call::Write { .. } => CallKind::Write,
            Call::SetLen(_) => CallKind::SetLen,
            Call::Sync => CallKind::Sync,
            Call::Punch { .. } => CallKind::Punch,
            Call::Reserve { .. } => CallKind::Reserve,
            Call::DiskUsage => CallKind::DiskUsage,
            Call::Lock { .. } => CallKind::Lock,
            Call::AsStd => CallKind::AsStd,
        }
    }
}

type Hook = dyn Fn(&str, Call) -> io::Result<()> + Send + Sync;
type StdFile = dyn Fn(&str) -> Option<fs::File> + Send + Sync;

/// Passes every call on to another storage, after it counted the call and ran the hook. Clones share all of it.
///
/// The hook is given the name of the file (empty for [`Call::SyncDir`]) and the call. An error that it returns is the
/// call's result, and the call is not passed on. A hook that blocks holds up the caller and nobody else.
#[derive(Clone)]
pub struct Hooked {
    inner: Arc<dyn Storage>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    hook: Mutex<Option<Arc<Hook>>>,
    std_file: Mutex<Option<Arc<StdFile>>>,
    counts: Mutex<HashMap<String, HashMap<CallKind, u64>>>,
}

struct HookedFile {
    name: String,
    inner: Arc<dyn File>,
    /// The answer of [`File::as_std`], in place of the inner file's.
    std_file: Option<fs::File>,
    shared: Arc<Shared>,
}

impl Default for Hooked {
    fn default() -> Self {
        Hooked::new(Memory::new())
    }
}

impl Hooked {
    pub fn new(inner: impl Storage) -> Self {
        Hooked { inner: Arc::new(inner), shared: Arc::default() }
    }

    /// Storage in memory.
    pub fn memory() -> Self {
        Hooked::default()
    }

    /// Runs `hook` before each call from now on, in place of the hook before.
    pub fn set_hook(&self, hook: impl Fn(&str, Call) -> io::Result<()> + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub fn clear_hook(&self) {
        *self.shared.hook.lock().unwrap() = None;
    }

    /// Lets each call of these through a gate, which is open at first. It takes the place of the hook before.
    pub fn gate(&self, is_gated: impl Fn(&str, Call) -> bool + Send + Sync + 'static) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        let passing = gate.clone();
        self.set_hook(move |name, call| {
            if is_gated(name, call) {
                passing.pass();
            }
            Ok(())
        });
        gate
    }

    /// Lets each of these calls fail as if the disk were full. It takes the place of the hook before.
    pub fn fail_full(&self, fails: impl Fn(&str, Call) -> bool + Send + Sync + 'static) {
        self.set_hook(
            move |name, call| {
                if fails(name, call) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            },
        );
    }

    /// Lets [`File::as_std`] of files opened from now on answer what `open` returns for their names.
    pub fn set_std_file(&self, open: impl Fn(&str) -> Option<fs::File> + Send + Sync + 'static) {
        *self.shared.std_file.lock().unwrap() = Some(Arc::new(open));
    }

    /// How many calls of this kind there were, to all files.
    pub fn count(&self, kind: CallKind) -> u64 {
        self.shared.counts.lock().unwrap().values().filter_map(|counts| counts.get(&kind)).sum()
    }

    /// How many syncs of files there were.
    pub fn syncs(&self) -> u64 {
        self.count(CallKind::Sync)
    }

    /// How many calls of this kind there were to the file `name`.
    pub fn count_of(&self, name: &str, kind: CallKind) -> u64 {
        let counts = self.shared.counts.lock().unwrap();
        counts.get(name).and_then(|counts| counts.get(&kind)).copied().unwrap_or(0)
    }
}

impl Shared {
    fn call(&self, name: &str, call: Call) -> io::Result<()> {
        {
            let mut counts = self.counts.lock().unwrap();
            if !counts.contains_key(name) {
                counts.insert(name.to_owned(), HashMap::new());
            }
            *counts.get_mut(name).unwrap().entry(call.kind()).or_default() += 1;
        }
        // Not under the lock: a hook may block, and a test replaces it meanwhile.
        let hook = self.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(name, call))
    }
}

impl Storage for Hooked {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        self.shared.call(name, Call::Open(access))?;
        let Some(inner) = self.inner.open(name, access)? else { return Ok(None) };
        let std_file = self.shared.std_file.lock().unwrap().as_ref().and_then(|open| open(name));
        Ok(Some(Arc::new(HookedFile { name: name.to_owned(), inner, std_file, shared: self.shared.clone() })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.shared.call(name, Call::Remove)?;
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.shared.call("", Call::SyncDir)?;
        self.inner.sync_dir()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.path(name)
    }
}

impl HookedFile {
    fn call(&self, call: Call) -> io::Result<()> {
        self.shared.call(&self.name, call)
    }
}

impl File for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.call(Call::Len)?;
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.call(Call::Read { offset, len: buf.len() })?;
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(Call::Write { offset, bytes })?;
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Call::SetLen(len))?;
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.call(Call::Sync)?;
        self.inner.sync()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(Call::Punch { offset, len })?;
        self.inner.punch(offset, len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(Call::Reserve { offset, len })?;
        self.inner.reserve(offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.call(Call::DiskUsage)?;
        self.inner.disk_usage()
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.call(Call::Lock { exclusive })?;
        self.inner.lock(exclusive)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(offset)
    }

    fn as_std(&self) -> Option<&fs::File> {
        self.call(Call::AsStd).ok()?;
        // A map would read past the hook, so the inner file is not shown.
        self.std_file.as_ref()
    }
}

/// A gate that holds up every thread that passes while it is shut. A new one is open.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_shut: bool,
    waiting: usize,
}

impl Gate {
    pub fn shut(&self) {
        self.state.lock().unwrap().is_shut = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().is_shut = false;
        self.changed.notify_all();
    }

    /// Blocks until at least `count` threads wait at the gate.
    pub fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.waiting < count).unwrap());
    }

    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.is_shut).unwrap();
        state.waiting -= 1;
    }
}
