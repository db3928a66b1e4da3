//! The options to open a core with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::core::durability::Durability;
use crate::core::options::OnWait;
use crate::crypto::keys::{Key, KeyPair};
use crate::manifest::Manifest;

/// The options to open a core with; made by [`Hypercore::options`](crate::Hypercore::options).
///
/// ```
/// use hypercore::{Durability, Hypercore};
///
/// # let tmp = tempfile::tempdir()?;
/// # let dir = tmp.path();
/// let core = Hypercore::options().durability(Durability::Always).open(dir)?;
/// core.append(b"kept")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct OpenOptions {
    pub(crate) key: Option<Key>,
    pub(crate) create_if_missing: bool,
    pub(crate) overwrite: bool,
    pub(crate) sparse: bool,
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) encryption_key: Option<Zeroizing<[u8; 32]>>,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) wait: bool,
    pub(crate) writable: bool,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) compat: Option<bool>,
    pub(crate) durability: Durability,
    pub(crate) lock: bool,
    pub(crate) read_only: bool,
    pub(crate) map_limit: Option<usize>,
    pub(crate) callback_stack_size: usize,
    pub(crate) user_data: Vec<(String, Vec<u8>)>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            key: None,
            create_if_missing: true,
            overwrite: false,
            sparse: true,
            key_pair: None,
            encryption_key: None,
            on_wait: None,
            timeout: None,
            wait: true,
            writable: true,
            manifest: None,
            compat: None,
            durability: Durability::default(),
            lock: true,
            read_only: false,
            map_limit: None,
            callback_stack_size: 512 * 1024,
            user_data: Vec::new(),
        }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("key", &self.key)
            .field("create_if_missing", &self.create_if_missing)
            .field("overwrite", &self.overwrite)
            .field("sparse", &self.sparse)
            .field("key_pair", &self.key_pair)
            .field("encryption_key", &self.encryption_key.as_ref().map(|_| "hidden"))
            .field("on_wait", &self.on_wait.is_some())
            .field("timeout", &self.timeout)
            .field("wait", &self.wait)
            .field("writable", &self.writable)
            .field("manifest", &self.manifest)
            .field("compat", &self.compat)
            .field("durability", &self.durability)
            .field("lock", &self.lock)
            .field("read_only", &self.read_only)
            .field("map_limit", &self.map_limit)
            .field("callback_stack_size", &self.callback_stack_size)
            .field("user_data", &self.user_data.iter().map(|(key, _)| key).collect::<Vec<_>>())
            .finish()
    }
}

impl OpenOptions {
    /// The core's key. A new core is created as a reader of that key's log. An existing core must have this key, or
    /// opening fails with [`StorageConflict`](crate::ErrorKind::StorageConflict).
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Whether to create a core if there is none; default true. If false, opening an empty place
    /// fails with [`StorageEmpty`](crate::ErrorKind::StorageEmpty).
    ///
    /// If there are files with the names of a core's files but no `oplog`, they stay as they are and opening
    /// fails with [`StorageConflict`](crate::ErrorKind::StorageConflict), unless [`overwrite`](Self::overwrite)
    /// is set.
    #[doc(alias = "createIfMissing")]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// Whether to create a new core in place of an existing one; default false. The data of the existing core is
    /// lost, and so is every file with the name of a core's file.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Whether to download only the blocks that calls ask for; default true. If false, all blocks are downloaded,
    /// and the length counts only the blocks that are held without a gap from the first.
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// The key pair to sign with. Default: a random one for a new core, the stored one for an existing core. An
    /// existing core ignores a key pair that is not that of one of its signers.
    #[doc(alias = "keyPair")]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// Encrypts blocks on append and decrypts them on get. The key is not stored: give it at each opening.
    ///
    /// Opening with a wrong key succeeds; reading and appending then fail with
    /// [`Encryption`](crate::ErrorKind::Encryption). If the core does not record yet that it is encrypted, opening
    /// checks the key with a few held blocks. If they prove the key, opening stores a fingerprint of it, by which
    /// an open without the key can tell that the log is encrypted.
    #[doc(alias = "encryptionKey")]
    pub fn encryption_key(mut self, key: [u8; 32]) -> Self {
        self.encryption_key = Some(Zeroizing::new(key));
        self
    }

    /// Calls `f` with the block's index when a `get` has to wait for the network.
    #[doc(alias = "onwait")]
    pub fn on_wait(mut self, f: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Arc::new(f));
        self
    }

    /// How long `get` and `seek` wait at most, unless the session or the call sets its own timeout. `None`, the
    /// default, is without limit.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Whether `get` and `seek` wait for blocks and nodes that are not held, unless the session or the call says
    /// otherwise; default true.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = wait;
        self
    }

    /// If false, appending and truncating are refused; default true.
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// The manifest of a core with several signers or a prologue: it names the keys that may sign.
    pub fn manifest(mut self, manifest: Manifest) -> Self {
        self.manifest = Some(manifest);
        self
    }

    /// Whether a new core's key is its public key (true, the default without a manifest) or the hash of
    /// its manifest (false).
    pub fn compat(mut self, compat: bool) -> Self {
        self.compat = Some(compat);
        self
    }

    /// Sets when changes are synced to the disk; default [`Durability::Flush`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether to lock the core against other processes; default true. Without the lock nothing prevents
    /// another process from writing at the same time and destroying the core. Use false only for file
    /// systems without locks.
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// Opens without writing anything and without a lock, also while another process writes; default false. Shows
    /// the core as it was after the last change before opening. If the writing process cuts or clears a block later,
    /// reading the block is an error, and never returns other data.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How many bytes of the core's files may be mapped into memory at once; default 128 MiB, 4 MiB
    /// on 32-bit machines.
    ///
    /// Three quarters are for the file `tree` and one quarter is for `bitfield`. The map that was unused for the
    /// longest time makes room for a new one. With a limit below 256 KiB nothing of `bitfield` is mapped, and below
    /// 86 KiB nothing at all: the library then reads with system calls, which is slower.
    ///
    /// **Use 0 for disks that fail**, and for files that another program may cut. Nothing is mapped then, and each
    /// failure is an error that names the file. With maps, the process can die of the signal SIGBUS if a file is cut
    /// or the disk fails while that part is mapped (see [the
    /// guide](crate::guide::storage_and_durability#when-a-file-is-cut-or-a-read-fails)). Without maps a `get` of a
    /// small block at random takes almost four times as long in a log of 100,000 blocks (4.7 µs, not 1.2 µs, by `cargo
    /// bench --bench read`), and one and a half times as long in one of 2,000,000 blocks, which is never mapped as a
    /// whole.
    pub fn map_limit(mut self, bytes: usize) -> Self {
        self.map_limit = Some(bytes);
        self
    }

    /// The stack size, in bytes, of the thread that runs the callbacks of changes that a connection makes; default
    /// 512 KiB. A core has at most one such thread, which ends when no event is left. Raise the size for callbacks
    /// that need more.
    pub fn callback_stack_size(mut self, bytes: usize) -> Self {
        self.callback_stack_size = bytes;
        self
    }

    /// User data to set at opening; see [`set_user_data`](crate::Hypercore::set_user_data). Opening fails with
    /// [`BadArgument`](crate::ErrorKind::BadArgument) for names that begin with `hypercore-blocking/`.
    #[doc(alias = "userData")]
    pub fn user_data(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.user_data.push((key.into(), value.into()));
        self
    }
}
