//! Opening a core: the lock, the header, the entries since; or making one.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::core::append_queue::AppendQueue;
use crate::core::durability::Durability;
use crate::core::encryption::{self, Known};
use crate::core::event_queue::Events;
use crate::core::handle::Hypercore;
use crate::core::open_options::OpenOptions;
use crate::core::recovery::{Recovered, recover};
use crate::core::session::{FirstSession, Session};
use crate::core::shared::{Sessions, Shared};
use crate::core::state::{Files, State, place};
use crate::core::state_lock::StateLock;
use crate::core::synced::Synced;
use crate::core::waiters::Waiters;
use crate::core::writer::{Adoption, Poison, Writer};
use crate::crypto::keys::KeyPair;
use crate::download::Download;
use crate::manifest::{Manifest, Verifier};
use crate::merkle::Head;
use crate::oplog::{Header, Oplog, StoredKeyPair, TreeHeader};
use crate::storage::OpenHow;
use crate::storage::backend::{Access, Disk, File, Storage};
use crate::storage::bitfield::{Bitfield, BitfieldFile};
use crate::storage::blocks::Blocks;
use crate::storage::mmap::DEFAULT_LIMIT;
use crate::storage::tracked::TrackedFile;
use crate::storage::tree::{Tree, TreeFile};
use crate::sync::{Mutex, Rank};
use crate::{Error, ErrorKind, Result};

/// How often reading beside a writer is tried again.
const READ_ONLY_TRIES: usize = 8;

/// How often opening begins anew because another process removed `oplog` before it was locked.
const LOCK_TRIES: usize = 64;

impl Hypercore {
    pub(crate) fn open_with(storage: Arc<dyn Storage>, options: OpenOptions) -> Result<Self> {
        options.user_data.iter().try_for_each(|(key, _)| encryption::check_user_data_key(key))?;
        let mut opened = open_shared(storage.clone(), &options);
        // Beside a writer the files are read one after the other while it changes them: what does not fit together may the next time.
        for _ in 0..READ_ONLY_TRIES {
            match &opened {
                Err(error) if options.read_only && error.kind() == ErrorKind::Corrupt => {
                    opened = open_shared(storage.clone(), &options);
                }
                _ => break,
            }
        }
        let (shared, stored_pair) = opened?;
        // As in the reference, the core that is there is written with its own key pair when another is given that is no signer of it.
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
        core.session.mark_at_opening();
        for (key, value) in &options.user_data {
            core.set_user_data(key, value)?;
        }
        if !options.sparse {
            // It follows the log until the session closes.
            drop(core.download(Download::all())?);
        }
        Ok(core)
    }
}

impl OpenOptions {
    /// Opens the core in the directory `dir`, or makes one. Blocks until its state is read.
    ///
    /// Errors:
    /// [`Locked`](crate::ErrorKind::Locked) while another process has it open, [`Corrupt`](crate::ErrorKind::Corrupt)
    /// when its log of changes is unreadable,
    /// [`StorageEmpty`](crate::ErrorKind::StorageEmpty) and [`StorageConflict`](crate::ErrorKind::StorageConflict) as
    /// the options say.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Hypercore> {
        self.open_in(Disk::new(dir.as_ref()))
    }

    /// Opens the core in storage of your own.
    #[doc(alias = "storage")]
    pub fn open_in(self, storage: impl Storage) -> Result<Hypercore> {
        Hypercore::open_with(Arc::new(storage), self)
    }
}

fn open_shared(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<(Shared, Option<KeyPair>)> {
    let read_only = options.read_only;
    if read_only && options.overwrite {
        return Err(Error::bad_argument("a core cannot be both read-only and overwritten"));
    }
    let path = storage.path("oplog");
    let file = open_oplog(&storage, options)?;
    let file = if read_only { file } else { TrackedFile::of(file).map_err(|e| Error::from_io(e, "read", &path))? };
    // Maps are safe only where no other process can cut the files.
    let mappable = options.lock && !read_only;
    let (mut oplog, recovered) = match Oplog::open(&storage, file.clone()) {
        // What was damaged is given up with the rest.
        Err(e) if options.overwrite && e.kind() == ErrorKind::Corrupt => {
            file.set_len(0).map_err(|e| Error::from_io(e, "cut", &path))?;
            Oplog::open(&storage, file)?
        }
        opened => opened?,
    };
    let fresh = recovered.is_none() || options.overwrite;
    if recovered.is_none() && (read_only || !options.create_if_missing) {
        return Err(no_core(&storage));
    }
    if recovered.is_none() {
        refuse_others_files(&storage, options)?;
    }
    let how = OpenHow { writable: !read_only, mappable, map_limit: options.map_limit.unwrap_or(DEFAULT_LIMIT) };
    let oplog_file = oplog.file().clone();
    let files = || {
        Ok::<_, Error>(Files {
            oplog: oplog_file.clone(),
            tree: Tree::new(Arc::new(TreeFile::open(&storage, how)?)),
            bits: Bitfield::new(Arc::new(BitfieldFile::open(&storage, how)?)),
            blocks: Arc::new(Blocks::open(&storage, how)?),
        })
    };
    let sync = options.durability != Durability::None && !read_only;
    let (header, recovered_state) = match recovered {
        Some(recovered) if !options.overwrite => {
            let state = recover(&storage, &files()?, &recovered, options)?;
            (recovered.header, state)
        }
        _ => {
            let (header, verifier) = new_core(options)?;
            oplog.flush(&header, sync)?;
            let mut files = files()?;
            // The old core ended with the header that was just written; what it left is nobody's.
            files.tree.file().clear()?;
            files.bits.file().clear()?;
            files.blocks.set_len(0)?;
            if sync {
                // Before a block is written over an old one's bytes.
                files.blocks.sync()?;
                files.tree.file().sync()?;
                files.bits.file().sync()?;
                storage.sync_dir().map_err(|e| Error::from_io(e, "sync", place(&storage)))?;
            }
            if options.overwrite {
                // Only now: beside a header that cannot be read, what the files held would look like what that header told of.
                oplog.wipe_former(sync)?;
            }
            files.bits.forget(&[]);
            let state = State {
                head: Head::default(),
                verifier,
                contiguous: Some(0),
                user_data: header.user_data.clone(),
                reorgs: Vec::new(),
                snapshots: Vec::new(),
                repaired: Vec::new(),
                recovery: None,
                lag: None,
                stored_contiguous: None,
                files: Some(files),
            };
            (header, Recovered { state, adoption: Adoption::Due { flush: false, holes: Vec::new() } })
        }
    };
    let stored_pair = match header.key_pair.as_ref().and_then(|pair| pair.secret_key.as_ref()) {
        Some(secret) => Some(
            KeyPair::from_secret_key(secret)
                .map_err(|e| Error::corrupt(format!("the header is damaged: {e}")).at(&path))?,
        ),
        None => None,
    };
    let Recovered { state, adoption } = recovered_state;
    let has_learnt = !fresh && header.manifest.is_none() && state.verifier.manifest().is_some();
    let shared = Shared {
        key: header.key,
        discovery_key: header.key.discovery_key(),
        storage,
        durability: options.durability,
        read_only,
        writer: Mutex::new(
            Rank::Writer,
            Some(Writer {
                oplog,
                signs: options.key_pair.is_some() || header.key_pair.is_some(),
                key_pair: header.key_pair,
                unflushed_bytes: 0,
                has_unflushed: false,
                header_is_stale: has_learnt,
                has_unsettled_tail: false,
                adoption,
            }),
        ),
        poison: Poison::default(),
        synced: Synced::unknown(),
        has_settled_once: AtomicBool::new(false),
        settling: Mutex::new(Rank::Settling, ()),
        telling: Mutex::new(Rank::Telling, ()),
        queue: AppendQueue::new(),
        encrypted: Known::of(&state.user_data),
        state: StateLock::new(state),
        generation: AtomicU64::new(0),
        waiters: Arc::new(Waiters::new()),
        events: Arc::new(Events::new(options.callback_stack_size)),
        sessions: Sessions::new(),
        network: Arc::new(OnceLock::new()),
        downloads: Mutex::new(Rank::Session, Vec::new()),
        finders: Mutex::new(Rank::Queue, 0),
        extensions: Mutex::new(Rank::Session, Vec::new()),
    };
    if has_learnt && !read_only {
        let mut writer = shared.writer()?;
        // What a crash took is given up with the first change, not by looking.
        if !writer.adoption_is_due() {
            shared.flush_now(&mut writer)?;
        }
    }
    Ok((shared, stored_pair))
}

/// Opens the file `oplog`, or makes it, and takes its lock where the options ask for one.
///
/// Between opening and locking, another process may have removed the file, or even made the next one: a lock on a file
/// without a name keeps nobody out. So the name is looked at once more under the lock. From then on it stays: only the
/// lock's holder removes the file, after all others of the core.
fn open_oplog(storage: &Arc<dyn Storage>, options: &OpenOptions) -> Result<Arc<dyn File>> {
    let path = storage.path("oplog");
    let open = |access| storage.open("oplog", access).map_err(|e| Error::from_io(e, "open", &path));
    let mut conflict = None;
    for _ in 0..LOCK_TRIES {
        let file = match open(if options.read_only { Access::Read } else { Access::Write })? {
            Some(file) => file,
            None if options.read_only || !options.create_if_missing => return Err(no_core(storage)),
            None => match refuse_others_files(storage, options) {
                Ok(()) => open(Access::Create)?.ok_or_else(|| no_core(storage))?,
                // They may be of a core that was made just now, whose `oplog` is there by now.
                Err(error) if error.kind() == ErrorKind::StorageConflict => {
                    conflict = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        if options.read_only || !options.lock {
            return Ok(file);
        }
        lock(&*file, &path)?;
        if storage.is_current("oplog", &*file).map_err(|e| Error::from_io(e, "look for", &path))? {
            return Ok(file);
        }
        conflict = None;
    }
    Err(conflict.unwrap_or_else(|| {
        let why = "other processes deleted the file each time before it was locked: end them, or try again";
        Error::new(ErrorKind::Locked, why).at(&path)
    }))
}

/// Locks `oplog` for us alone.
fn lock(file: &dyn File, path: &Path) -> Result<()> {
    let why = match file.lock(true) {
        Ok(true) => return Ok(()),
        Ok(false) => {
            "another process, or another handle of this one, has this core open and locked: close it there (`fuser` \
             and `lsof` name the process), or open read-only"
        }
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            "this file system knows no locks: open with `lock(false)` if no other process can open this core"
        }
        Err(e) => return Err(Error::from_io(e, "lock", path)),
    };
    Err(Error::new(ErrorKind::Locked, why).at(path))
}

fn no_core(storage: &Arc<dyn Storage>) -> Error {
    Error::new(ErrorKind::StorageEmpty, "no core is stored here").at(place(storage))
}

/// Fails where a new core would be written over files with bytes that are of no core, or of one that lost its `oplog`.
fn refuse_others_files(storage: &Arc<dyn Storage>, options: &OpenOptions) -> Result<()> {
    for name in ["tree", "bitfield", "data", "header"] {
        let path = storage.path(name);
        let found = storage.open(name, Access::Read).map_err(|e| Error::from_io(e, "open", &path))?;
        let len = found.map_or(Ok(0), |file| file.len()).map_err(|e| Error::from_io(e, "read", &path))?;
        if len > 0 && !options.overwrite {
            return Err(Error::new(
                ErrorKind::StorageConflict,
                "a new core would be written over this file, and no `oplog` beside it says that it is a core's: put that file back, \
                 take another directory, or `overwrite`, which destroys it (a purge that was cut short is finished by another)",
            )
            .at(path));
        }
    }
    Ok(())
}

/// The header of a new core, by the rules of the reference.
fn new_core(options: &OpenOptions) -> Result<(Header, Verifier)> {
    let compat = options.compat == Some(true) || (options.compat != Some(false) && options.manifest.is_none());
    let key_pair = match (&options.key_pair, options.key) {
        (Some(pair), _) => Some(pair.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(KeyPair::generate()?),
    };
    if let (true, Some(key), Some(pair)) = (compat, options.key, &key_pair) {
        if pair.public_key() != key {
            return Err(Error::bad_argument(format!(
                "the key pair {} is not that of the core {key}; give the manifest that names it, or `compat(false)`",
                pair.public_key()
            )));
        }
    }
    let public_key = key_pair.as_ref().map(KeyPair::public_key);
    let by_default = options.compat == Some(true) || options.key.is_none() || public_key == options.key;
    let manifest = match (&options.manifest, options.key.or(public_key)) {
        (Some(manifest), _) => Some(manifest.clone()),
        (None, Some(signer)) if by_default => Some(Manifest::single(signer)),
        _ => None,
    };
    let key = match (options.key, &manifest) {
        (Some(key), _) => key,
        (None, Some(manifest)) => match manifest.signers.as_slice() {
            [signer] if compat => signer.public_key,
            _ if compat => return Err(Error::bad_argument("a compat core has exactly one signer")),
            _ => manifest.key(),
        },
        (None, None) => unreachable!("without a key the manifest is by default the key pair's"),
    };
    let verifier = Verifier::new(key, manifest.clone(), compat)?;
    let header = Header {
        key,
        manifest,
        key_pair: key_pair.as_ref().map(|pair| {
            let mut secret_key = Box::new(Zeroizing::new([0; 64]));
            secret_key.copy_from_slice(pair.secret_key());
            StoredKeyPair { public_key: pair.public_key(), secret_key: Some(secret_key) }
        }),
        user_data: encryption::user_data_of_new_core(options.encryption_key.as_deref(), key, key_pair.as_ref()),
        tree: TreeHeader::default(),
        reorgs: Vec::new(),
        contiguous_length: 0,
    };
    Ok((header, verifier))
}
