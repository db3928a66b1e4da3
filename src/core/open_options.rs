//! How a core is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::core::durability::Durability;
use crate::core::options::OnWait;
use crate::crypto::keys::{Key, KeyPair};
use crate::manifest::Manifest;

/// How to open a core; made by [`Hypercore::options`](crate::Hypercore::options).
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
    /// The core's key: a new core is made as a reader of that key's log, an existing one must have it.
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Whether a core is made where there is none; default true. If false, opening an empty place is an error.
    ///
    /// Files of the names of a core's that are there without an `oplog` are not touched: opening is an error of kind
    /// [`StorageConflict`](crate::ErrorKind::StorageConflict), unless [`overwrite`](Self::overwrite) gives them up.
    #[doc(alias = "createIfMissing")]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// Whether to start anew over an existing core, whose data is lost, as are files of the names of a core's; default
    /// false.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Whether only what is asked for is downloaded; default true. If false everything is, and the length counts only
    /// the blocks that are here without a gap.
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// The key pair that signs; default for a new core a random one, for an existing one what is stored. For an
    /// existing core one that is no signer of it counts for nothing.
    #[doc(alias = "keyPair")]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// Encrypts blocks on append and decrypts them on get. The key is not stored: give it at each opening.
    ///
    /// Opening with a wrong key is no error; reading and appending are, of kind
    /// [`Encryption`](crate::ErrorKind::Encryption). Where the core does not say yet that it is encrypted, opening
    /// looks at a few blocks that are here, and if they prove the key stores a fingerprint of it, by which an open
    /// without the key is told.
    #[doc(alias = "encryptionKey")]
    pub fn encryption_key(mut self, key: [u8; 32]) -> Self {
        self.encryption_key = Some(Zeroizing::new(key));
        self
    }

    /// Called with the index when a `get` has to wait for the network.
    #[doc(alias = "onwait")]
    pub fn on_wait(mut self, f: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Arc::new(f));
        self
    }

    /// How long `get` and `seek` wait for a block at most, where the call and the session set no timeout of their own; `None`, the
    /// default, is without limit.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Whether `get` and `seek` wait for what is not here, unless told otherwise; default true.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = wait;
        self
    }

    /// If false, appending and truncating are refused; default true.
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// Who may sign, for cores of several signers or with a prologue.
    pub fn manifest(mut self, manifest: Manifest) -> Self {
        self.manifest = Some(manifest);
        self
    }

    /// Whether a new core's key is its public key (true, the default without a manifest) or its manifest's hash.
    pub fn compat(mut self, compat: bool) -> Self {
        self.compat = Some(compat);
        self
    }

    /// What has reached the disk when a call returns; default [`Durability::Flush`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether to lock the core against other processes; default true. Without the lock nothing keeps another process
    /// from writing at the same time and destroying the core: only for file systems that know no locks.
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// Opens without writing anything and without a lock, also beside a process that writes: shows the core as it was
    /// at the last change before opening. Reading a block that the writer cuts or clears meanwhile is an error, not
    /// other data.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How many bytes of the core's files may be mapped into memory at once; default 128 MiB, 4 MiB on 32-bit
    /// machines. Three quarters of them are the `tree`'s and one is the `bitfield`'s, and what was not read for the
    /// longest time makes room. Below 256 KiB nothing of the `bitfield` is mapped, below 86 KiB nothing at all: files
    /// are read as files then, which is slower.
    ///
    /// **0 is for disks that fail**, and for files that another program may cut: nothing is ever mapped, so that each
    /// failure is an error that names the file. With maps the process can die of a signal, SIGBUS, where a file is cut
    /// or the disk fails while a place of it is mapped (see [the
    /// guide](crate::guide::storage_and_durability#when-something-fails)). Without maps a `get` of a small block at
    /// random takes almost four times as long in a log of 100,000 blocks (4.7 µs, not 1.2 µs, by `cargo bench --bench
    /// read`), and one and a half times in one of 2,000,000, of which not all is mapped anyway.
    pub fn map_limit(mut self, bytes: usize) -> Self {
        self.map_limit = Some(bytes);
        self
    }

    /// The stack of the thread that runs callbacks where none of the caller's can (what a peer sent is told on one,
    /// which ends when there is nothing more to tell); default 512 KiB. One core has one such thread at the most.
    /// Raise it for callbacks that need more.
    pub fn callback_stack_size(mut self, bytes: usize) -> Self {
        self.callback_stack_size = bytes;
        self
    }

    /// User data to set at opening. Names that begin with `hypercore-blocking/` are refused as
    /// [`BadArgument`](crate::ErrorKind::BadArgument).
    #[doc(alias = "userData")]
    pub fn user_data(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.user_data.push((key.into(), value.into()));
        self
    }
}
