//! Sessions: views of one open core with options of their own. The core closes with its last session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::core::encryption::Encryption;
use crate::core::event_queue::Event;
use crate::core::options::{OnWait, SessionOptions};
use crate::core::state::{Shared, SnapshotView, Writer, closed};
use crate::crypto::block_cipher::PADDING;
use crate::crypto::keys::KeyPair;
use crate::merkle;
use crate::storage::backend::{Access, File};
use crate::sync::{Mutex, Rank, RwLock};
use crate::{Error, ErrorKind, Result};

/// One view of a core.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) sparse: bool,
    pub(crate) wait: bool,
    pub(crate) timeout: Duration,
    pub(crate) on_wait: Option<OnWait>,
    writable: bool,
    key_pair: Option<KeyPair>,
    encryption: Option<Arc<Encryption>>,
    /// What a snapshot shows; replaced by its `update`.
    snapshot: Option<RwLock<Arc<SnapshotView>>>,
    /// Shared with the list of open sessions: closing the core sets it as well.
    closed: Arc<AtomicBool>,
}

/// What the first session of a core is made with.
pub(crate) struct FirstSession {
    pub(crate) sparse: bool,
    pub(crate) wait: bool,
    pub(crate) timeout: Duration,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) writable: bool,
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) encryption_key: Option<Zeroizing<[u8; 32]>>,
}

/// The sessions that are open, by id, each with what says that it no longer is.
pub(crate) struct Sessions {
    next: AtomicU64,
    open: Mutex<Vec<(u64, Arc<AtomicBool>)>>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Sessions { next: AtomicU64::new(1), open: Mutex::new(Rank::Session, Vec::new()) }
    }

    fn add(&self) -> (u64, Arc<AtomicBool>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let closed = Arc::new(AtomicBool::new(false));
        self.open.lock().push((id, closed.clone()));
        (id, closed)
    }

    /// Closes `id` and takes it off the list: whether it was the last, or nothing where it was closed before.
    fn remove(&self, id: u64) -> Option<bool> {
        let mut open = self.open.lock();
        let at = open.iter().position(|(other, _)| *other == id)?;
        open.remove(at).1.store(true, Ordering::SeqCst);
        Some(open.is_empty())
    }

    fn take_all(&self) -> Vec<u64> {
        let mut open = self.open.lock();
        open.drain(..)
            .map(|(id, closed)| {
                closed.store(true, Ordering::SeqCst);
                id
            })
            .collect()
    }
}

impl Session {
    pub(crate) fn first(shared: Arc<Shared>, with: FirstSession) -> Self {
        let encryption = with.encryption_key.map(|key| Encryption::new(key, shared.key.as_bytes()));
        let (id, closed) = shared.sessions.add();
        Session {
            id,
            sparse: with.sparse,
            wait: with.wait,
            timeout: with.timeout,
            on_wait: with.on_wait,
            writable: with.writable,
            key_pair: with.key_pair,
            encryption,
            snapshot: None,
            closed,
            shared,
        }
    }

    /// Another view of the same core.
    pub(crate) fn derive(&self, options: SessionOptions) -> Result<Session> {
        self.check_open()?;
        let shared = self.shared.clone();
        let sparse = self.sparse && options.sparse != Some(false);
        let view = match &self.snapshot {
            _ if !options.snapshot => None,
            // A snapshot of a snapshot shows what that one shows.
            Some(view) => Some(view.read().clone()),
            None => Some(shared.take_view(sparse)?),
        };
        let encryption = match options.encryption_key {
            Some(key) => Some(Encryption::new(key, shared.key.as_bytes())),
            None => self.encryption.clone(),
        };
        let (id, closed) = shared.sessions.add();
        Ok(Session {
            id,
            sparse,
            wait: self.wait && options.wait != Some(false),
            timeout: options.timeout.unwrap_or(self.timeout),
            on_wait: options.on_wait.or_else(|| self.on_wait.clone()),
            writable: self.writable && options.writable != Some(false),
            key_pair: options.key_pair.or_else(|| self.key_pair.clone()),
            encryption,
            snapshot: view.map(|view| RwLock::new(Rank::Events, view)),
            closed,
            shared,
        })
    }

    /// Whether this session shows a fixed state.
    pub(crate) fn is_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// What the snapshot shows, where this is one.
    pub(crate) fn view(&self) -> Option<Arc<SnapshotView>> {
        self.snapshot.as_ref().map(|view| view.read().clone())
    }

    /// Moves a snapshot to the present state; true if that changed what it shows.
    pub(crate) fn refresh_view(&self) -> Result<bool> {
        let Some(slot) = &self.snapshot else { return Ok(false) };
        let view = self.shared.take_view(self.sparse)?;
        let old = std::mem::replace(&mut *slot.write(), view.clone());
        Ok((old.length, old.fork) != (view.length, view.fork))
    }

    /// Whether `close` was called on this session or its core.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable && !self.shared.read_only && self.key_pair.is_some() && !self.is_closed()
    }

    pub(crate) fn key_pair(&self) -> Option<&KeyPair> {
        self.key_pair.as_ref()
    }

    pub(crate) fn encryption_key(&self) -> Option<&[u8; 32]> {
        self.encryption.as_ref().map(|e| e.key())
    }

    pub(crate) fn padding(&self) -> u64 {
        if self.encryption.is_some() { PADDING as u64 } else { 0 }
    }

    pub(crate) fn encryption(&self) -> Option<&Arc<Encryption>> {
        self.encryption.as_ref()
    }

    /// The key pair that signs: `given`, or the session's.
    pub(crate) fn signing_key_pair(&self, given: Option<&KeyPair>) -> Result<KeyPair> {
        let pair = given.or(self.key_pair.as_ref());
        self.check_writable(pair.is_some())?;
        pair.cloned().ok_or_else(closed)
    }

    pub(crate) fn check_writable(&self, can_sign: bool) -> Result<()> {
        self.check_open()?;
        let why = if self.shared.read_only {
            "the core was opened read-only"
        } else if !self.writable {
            "the session is not writable"
        } else if !can_sign {
            "the core has no secret key here: only the holder of the key pair can write"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::NotWritable, why).at(self.shared.storage.path("oplog")))
    }

    /// Closes the session, and the core with the last one. Closing twice is no error.
    pub(crate) fn close(&self) -> Result<()> {
        let Some(last) = self.shared.sessions.remove(self.id) else { return Ok(()) };
        self.shared.waiters.close_session(self.id, &closed());
        self.shared.forget_ended_downloads();
        let done = if last { self.shared.shut(false) } else { Ok(()) };
        self.shared.events.push(Event::Close(self.id));
        self.shared.deliver();
        done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Who wants to know of an error calls `close`.
        let _ = self.close();
    }
}

impl Shared {
    pub(crate) fn take_view(&self, sparse: bool) -> Result<Arc<SnapshotView>> {
        loop {
            let part = if sparse { None } else { Some(self.contiguous_part()?) };
            let mut state = self.state.write();
            state.files()?;
            let (length, byte_length) = match part {
                // Blocks were given up since, which may be some of these.
                Some((generation, ..)) if generation != self.generation() => continue,
                Some((_, length, bytes)) => (length, bytes),
                None => (state.head.length(), state.head.byte_length()),
            };
            let fork = state.head.fork;
            let view = Arc::new(SnapshotView { length, byte_length, fork, compat_length: AtomicU64::new(length) });
            state.snapshots.retain(|s| s.strong_count() > 0);
            state.snapshots.push(Arc::downgrade(&view));
            return Ok(view);
        }
    }

    /// The blocks that are held without a gap: the generation in which they are, how many, and how many bytes.
    pub(crate) fn contiguous_part(&self) -> Result<(u64, u64, u64)> {
        loop {
            let generation = self.generation();
            let length = self.contiguous_length()?;
            let bytes = self.read_tree(|reading, tree| merkle::byte_offset(tree, &reading.head, length));
            if generation == self.generation() {
                return Ok((generation, length, bytes?));
            }
        }
    }

    /// Closes every session; with `remove` the files go before the lock does.
    pub(crate) fn close_all(&self, remove: bool) -> Result<()> {
        let ids = self.sessions.take_all();
        let done = self.shut(remove);
        for id in ids {
            self.events.push(Event::Close(id));
        }
        self.deliver();
        done
    }

    /// Ends the core: waiters wake, conversations end, what is to be synced is, files and lock are given up.
    fn shut(&self, remove: bool) -> Result<()> {
        self.waiters.close(&closed());
        if let Some(network) = self.network.get() {
            // Peers hear of what was appended last, too.
            let _ = self.settle();
            network.close();
        }
        self.forget_ended_downloads();
        // A handler may hold a handle of the core, and so the core this list.
        let extensions = std::mem::take(&mut *self.extensions.lock());
        drop(extensions);
        // A thread that syncs for the peers has the files until it is done.
        let _settling = self.settling.lock();
        let mut slot = self.writer.lock();
        let flushed = match slot.as_mut() {
            Some(writer) if !remove => self.flush_for_closing(writer),
            _ => Ok(()),
        };
        let (writer, files) = (slot.take(), self.state.write().files.take());
        let (Some(writer), Some(files)) = (writer, files) else { return Ok(()) };
        if remove {
            drop(files);
            self.remove_files(writer.oplog.file())?;
        }
        flushed
    }

    /// Deletes the files of a core that nobody reads any more, while `oplog` holds its lock.
    ///
    /// `oplog` goes last, and the lock with it: an opener that finds no such name makes a new core, of which nothing
    /// may be deleted here. It is cut as soon as another file is gone, so that what is left of a purge that is stopped
    /// there is no core. Before that nothing has changed: where names cannot be removed, the core stays as it is.
    fn remove_files(&self, oplog: &Arc<dyn File>) -> Result<()> {
        let failed = |what, name| move |e| Error::from_io(e, what, self.storage.path(name));
        if !self.storage.is_current("oplog", &**oplog).map_err(failed("look for", "oplog"))? {
            let why = "the file was deleted or replaced while the core was open; delete the others by hand";
            return Err(Error::new(ErrorKind::StorageConflict, why).at(self.storage.path("oplog")));
        }
        let mut is_cut = false;
        for name in ["tree", "bitfield", "data", "header"] {
            let access = if name == "header" { Access::Write } else { Access::Read };
            let Some(file) = self.storage.open(name, access).map_err(failed("open", name))? else { continue };
            if name == "header" {
                // It holds the secret key, and may have another name.
                let len = file.len().map_err(failed("read", name))?;
                let zeros = vec![0; 64 << 10];
                for at in (0..len).step_by(zeros.len()) {
                    let n = zeros.len().min((len - at) as usize);
                    file.write_at(at, &zeros[..n]).map_err(failed("wipe", name))?;
                }
            }
            drop(file);
            self.storage.remove(name).map_err(failed("delete", name))?;
            if !is_cut {
                oplog.set_len(0).map_err(failed("cut", "oplog"))?;
                is_cut = true;
            }
        }
        self.storage.remove("oplog").map_err(failed("delete", "oplog"))
    }

    /// Leaves everything in its place, and synced unless the durability is `None`, so that nothing is to be replayed when the core is
    /// opened again. An error too where an earlier write failed and no caller was told.
    fn flush_for_closing(&self, writer: &mut Writer) -> Result<()> {
        if self.poison.get().is_some() {
            return match self.poison.take_untold() {
                Some(_) => Err(self.poisoned()),
                None => Ok(()),
            };
        }
        let has_news = writer.has_unflushed || !self.encrypted.is_stored();
        if self.read_only || !has_news {
            return Ok(());
        }
        self.flush(writer)
    }
}
