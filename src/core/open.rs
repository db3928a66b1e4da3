//! Opening a core: taking its lock, and reading what is stored (`core/recovery.rs`) or making a core
//! (`core/create.rs`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use crate::core::append_queue::AppendQueue;
use crate::core::create::create;
use crate::core::durability::Durability;
use crate::core::encryption::{self, EncryptionState};
use crate::core::event_queue::Events;
use crate::core::handle::Hypercore;
use crate::core::lock::{no_core, open_oplog, refuse_existing_files};
use crate::core::open_options::OpenOptions;
use crate::core::recovery::{Recovered, recover};
use crate::core::session::{FirstSession, Session};
use crate::core::shared::{Sessions, Shared};
use crate::core::state::Files;
use crate::core::state_lock::StateLock;
use crate::core::synced::Synced;
use crate::core::waiters::Waiters;
use crate::core::writer::{Poison, Writer};
use crate::crypto::keys::KeyPair;
use crate::download::Download;
use crate::logging;
use crate::oplog::{self, Header, Oplog};
use crate::storage::FileOptions;
use crate::storage::backend::{File, Storage};
use crate::storage::disk::Disk;
use crate::storage::mmap::DEFAULT_LIMIT;
use crate::storage::tracked::TrackedFile;
use crate::sync::{Mutex, Rank};
use crate::{Error, ErrorKind, Result};

/// How often a read-only open is tried again beside a writer.
const READ_ONLY_TRIES: usize = 8;

impl Hypercore {
    pub(crate) fn open_with(storage: Arc<dyn Storage>, options: OpenOptions) -> Result<Self> {
        options.user_data.iter().try_for_each(|(key, _)| encryption::check_user_data_key(key))?;
        let mut opened = open_shared(storage.clone(), &options);
        // A read-only open reads the files one after the other while a writer may change them. If they do not fit
        // together, they may the next time.
        for _ in 0..READ_ONLY_TRIES {
            match &opened {
                Err(error) if options.read_only && error.kind() == ErrorKind::Corrupt => {
                    opened = open_shared(storage.clone(), &options);
                }
                _ => break,
            }
        }
        let (shared, stored_pair) = opened?;
        // As in JavaScript Hypercore, a stored core keeps its own key pair if the given one is not of a signer.
        let signs = |pair: &KeyPair| {
            let state = shared.state.read();
            state.verifier.manifest().is_none_or(|m| m.signers.iter().any(|s| s.public_key == pair.public_key()))
        };
        let key_pair = options.key_pair.filter(signs).or(stored_pair);
        let first = FirstSession {
            sparse: options.sparse,
            wait: options.wait,
            timeout: options.timeout,
            on_wait: options.on_wait,
            writable: options.writable,
            key_pair,
            encryption_key: options.encryption_key,
        };
        let core = Hypercore { session: Arc::new(Session::first(Arc::new(shared), first)) };
        if let Some(recovery) = core.recovery() {
            logging::event!(warn, "{}: {recovery}", core.session.shared.storage.path("oplog").display());
        }
        core.session.store_marker_at_open();
        for (key, value) in &options.user_data {
            core.set_user_data(key, value)?;
        }
        if !options.sparse {
            // This download follows the log until the session closes.
            drop(core.download(Download::all())?);
        }
        Ok(core)
    }
}

impl OpenOptions {
    /// Opens the core in the directory `dir`, or makes one. Blocks until its state is read from the disk.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) while another process has the core open,
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if its write-ahead log is unreadable, and
    /// [`StorageEmpty`](crate::ErrorKind::StorageEmpty) or [`StorageConflict`](crate::ErrorKind::StorageConflict)
    /// as the options say.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Hypercore> {
        self.open_in(Disk::new(dir.as_ref()))
    }

    /// Opens the core in a [`Storage`] of your own, or makes one. Blocks and fails as [`open`](Self::open) does.
    #[doc(alias = "storage")]
    pub fn open_in(self, storage: impl Storage) -> Result<Hypercore> {
        Hypercore::open_with(Arc::new(storage), self)
    }
}

/// Takes the lock and reads or makes the core. Returns it with the key pair that it stores.
fn open_shared(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<(Shared, Option<KeyPair>)> {
    let read_only = options.read_only;
    if read_only && options.overwrite {
        return Err(Error::bad_argument("a core cannot be both read-only and overwritten: choose one of the two"));
    }
    let file = open_oplog(&storage, options)?;
    let (mut oplog, found) = read_oplog(&storage, file, options)?;
    // Maps are safe only if no other process can shorten the files.
    let mappable = options.lock && !read_only;
    let how = FileOptions { writable: !read_only, mappable, map_limit: options.map_limit.unwrap_or(DEFAULT_LIMIT) };
    let (header, recovered, is_new) = match found {
        Some(found) if !options.overwrite => {
            let recovered = recover(&storage, &Files::open(&storage, how, oplog.file())?, &found, options)?;
            (found.header, recovered, false)
        }
        _ => {
            let sync = options.durability != Durability::None && !read_only;
            let (header, made) = create(&storage, &mut oplog, how, sync, options)?;
            (header, made, true)
        }
    };
    let stored_pair = stored_key_pair(&header, &storage)?;
    let has_new_manifest = !is_new && header.manifest.is_none() && recovered.state.verifier.manifest().is_some();
    let shared = new_shared(storage, options, oplog, header, recovered, has_new_manifest);
    if has_new_manifest && !read_only {
        let mut writer = shared.writer()?;
        // Opening does not discard what a crash took; the first change does.
        if !writer.has_unflushed_recovery() {
            shared.flush_now(&mut writer)?;
        }
    }
    Ok((shared, stored_pair))
}

/// Reads the header and the entries of the file `oplog`. `None` if no core is stored there and one may be made.
fn read_oplog(
    storage: &Arc<dyn Storage>,
    file: Arc<dyn File>,
    options: &OpenOptions,
) -> Result<(Oplog, Option<oplog::OpenedOplog>)> {
    let path = storage.path("oplog");
    let read_only = options.read_only;
    let file = if read_only { file } else { TrackedFile::of(file).map_err(|e| Error::from_io(e, "read", &path))? };
    let (oplog, found) = match Oplog::open(storage, file.clone()) {
        // Overwriting discards the damaged file with the rest.
        Err(e) if options.overwrite && e.kind() == ErrorKind::Corrupt => {
            file.set_len(0).map_err(|e| Error::from_io(e, "cut", &path))?;
            Oplog::open(storage, file)?
        }
        opened => opened?,
    };
    if found.is_none() {
        if read_only || !options.create_if_missing {
            return Err(no_core(storage));
        }
        refuse_existing_files(storage, options)?;
    }
    Ok((oplog, found))
}

fn stored_key_pair(header: &Header, storage: &Arc<dyn Storage>) -> Result<Option<KeyPair>> {
    let secret = header.key_pair.as_ref().and_then(|pair| pair.secret_key.as_ref());
    secret
        .map(|secret| KeyPair::from_secret_key(secret))
        .transpose()
        .map_err(|e| Error::corrupt(format!("the header is damaged: {e}")).at(storage.path("oplog")))
}

/// The open core. With `has_new_manifest` its header has to be written, because the options gave a manifest
/// that it lacks.
fn new_shared(
    storage: Arc<dyn Storage>,
    options: &OpenOptions,
    oplog: Oplog,
    header: Header,
    recovered: Recovered,
    has_new_manifest: bool,
) -> Shared {
    let Recovered { state, preparation } = recovered;
    Shared {
        key: header.key,
        discovery_key: header.key.discovery_key(),
        storage,
        durability: options.durability,
        read_only: options.read_only,
        writer: Mutex::new(
            Rank::Writer,
            Some(Writer {
                oplog,
                signs: options.key_pair.is_some() || header.key_pair.is_some(),
                key_pair: header.key_pair,
                unflushed_bytes: 0,
                has_unflushed: false,
                header_is_stale: has_new_manifest,
                has_unmarked_tail: false,
                preparation,
            }),
        ),
        poison: Poison::default(),
        synced: Synced::unknown(),
        is_synced_for_peers: AtomicBool::new(false),
        peer_sync: Mutex::new(Rank::PeerSync, ()),
        notifying: Mutex::new(Rank::Notifying, ()),
        queue: AppendQueue::new(),
        encryption_state: EncryptionState::of(&state.user_data),
        state: StateLock::new(state),
        generation: AtomicU64::new(0),
        waiters: Arc::new(Waiters::new()),
        events: Arc::new(Events::new(options.callback_stack_size)),
        sessions: Sessions::new(),
        network: Arc::new(OnceLock::new()),
        downloads: Mutex::new(Rank::Session, Vec::new()),
        finders: Mutex::new(Rank::Queue, 0),
        extensions: Mutex::new(Rank::Session, Vec::new()),
    }
}
