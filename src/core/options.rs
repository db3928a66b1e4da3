//! The options of sessions and of single calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::core::waiters::Cancel;
use crate::crypto::keys::KeyPair;

/// Called with a block's index when a `get` has to wait for the network.
pub type OnWait = Arc<dyn Fn(u64) + Send + Sync>;

/// How a session differs from the session that it is made from; see
/// [`Hypercore::session`](crate::Hypercore::session).
#[derive(Clone, Default)]
pub struct SessionOptions {
    pub(crate) sparse: Option<bool>,
    pub(crate) wait: Option<bool>,
    pub(crate) writable: Option<bool>,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) encryption_key: Option<Zeroizing<[u8; 32]>>,
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) snapshot: bool,
}

impl fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOptions")
            .field("sparse", &self.sparse)
            .field("wait", &self.wait)
            .field("writable", &self.writable)
            .field("on_wait", &self.on_wait.is_some())
            .field("timeout", &self.timeout)
            .field("encryption_key", &self.encryption_key.as_ref().map(|_| "hidden"))
            .field("key_pair", &self.key_pair)
            .field("snapshot", &self.snapshot)
            .finish()
    }
}

impl SessionOptions {
    /// Takes every setting from the session that this one is made from.
    pub fn new() -> Self {
        Self::default()
    }

    /// If false, the session's length is the contiguous length. This alone downloads nothing: ask for all blocks with
    /// [`Download::all`](crate::Download::all). True has no effect on a session that is made from one with false.
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = Some(sparse);
        self
    }

    /// If false, `get` and `seek` do not wait unless their own options say so. True has no effect on a session that
    /// is made from one with false.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// If false, the session refuses to append and truncate. True has no effect on a session that is made from
    /// one with false.
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = Some(writable);
        self
    }

    /// Calls `f` with the block's index when a `get` of this session has to wait for the network.
    #[doc(alias = "onwait")]
    pub fn on_wait(mut self, f: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Arc::new(f));
        self
    }

    /// How long `get` and `seek` of this session wait at most, unless the call sets its own timeout. `None` is
    /// without limit. Default: the timeout of the session that this one is made from.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = Some(timeout.into());
        self
    }

    /// Encrypts and decrypts with another key. All blocks of a log have the same key. A session with a wrong key or
    /// without a key can only read blocks as they are stored ([`GetOptions::decrypt`]).
    #[doc(alias = "encryptionKey")]
    pub fn encryption_key(mut self, key: [u8; 32]) -> Self {
        self.encryption_key = Some(Zeroizing::new(key));
        self
    }

    /// Signs with another key pair.
    #[doc(alias = "keyPair")]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// Whether the session's length and fork stay as they are now; default false.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }
}

/// The options of one `get`; see [`Hypercore::get_with`](crate::Hypercore::get_with).
#[derive(Clone, Default)]
pub struct GetOptions {
    pub(crate) wait: Option<bool>,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) raw: bool,
    pub(crate) cancel: Option<Cancel>,
}

impl fmt::Debug for GetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOptions")
            .field("wait", &self.wait)
            .field("on_wait", &self.on_wait.is_some())
            .field("timeout", &self.timeout)
            .field("raw", &self.raw)
            .field("cancel", &self.cancel)
            .finish()
    }
}

impl GetOptions {
    /// Everything as the session says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to wait for a block that is not held. If false, the call returns `None` at once. Default: as
    /// the session says.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Calls `f` with the block's index if this `get` has to wait, before the callback of the session.
    #[doc(alias = "onwait")]
    pub fn on_wait(mut self, f: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Arc::new(f));
        self
    }

    /// How long to wait at most; `None` is without limit. Default: the timeout of the session.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = Some(timeout.into());
        self
    }

    /// If false, an encrypted block is returned as it is stored, with its padding, whatever key the session
    /// has; default true.
    pub fn decrypt(mut self, decrypt: bool) -> Self {
        self.raw = !decrypt;
        self
    }

    /// Lets another thread end the wait through `cancel`.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}

/// The options of one `seek`; see [`Hypercore::seek_with`](crate::Hypercore::seek_with).
#[derive(Clone, Default, Debug)]
pub struct SeekOptions {
    pub(crate) wait: Option<bool>,
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) cancel: Option<Cancel>,
}

impl SeekOptions {
    /// Everything as the session says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to wait for tree nodes that are not held. If false, the call returns `None` at once. Default: as
    /// the session says.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// How long to wait at most; `None` is without limit. Default: the timeout of the session.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = Some(timeout.into());
        self
    }

    /// Lets another thread end the wait through `cancel`.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}

/// The options of one `update`; see [`Hypercore::update_with`](crate::Hypercore::update_with).
#[derive(Clone, Default, Debug)]
pub struct UpdateOptions {
    pub(crate) wait: Option<bool>,
    pub(crate) force: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: Option<Cancel>,
}

impl UpdateOptions {
    /// Waits only during a search for peers, and without limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to ask the peers and wait for an answer. Default: true during a search for peers
    /// ([`finding_peers`](crate::Hypercore::finding_peers)), else false.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Whether to ask the peers also if this session can write; default false.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// How long to wait at most; `None`, the default, is without limit.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Lets another thread end the wait through `cancel`.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}

/// How one append or truncation is signed; see [`Hypercore::append_with`](crate::Hypercore::append_with) and
/// [`Hypercore::truncate_with`](crate::Hypercore::truncate_with).
#[derive(Clone, Default, Debug)]
pub struct SignOptions {
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) signature: Option<Vec<u8>>,
    pub(crate) fork: Option<u64>,
}

impl SignOptions {
    /// Signs with the session's key pair.
    pub fn new() -> Self {
        Self::default()
    }

    /// Signs with another key pair.
    #[doc(alias = "keyPair")]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// Uses a finished signature, such as one assembled from several signers' partial signatures. It is checked
    /// before anything is written.
    pub fn signature(mut self, signature: impl Into<Vec<u8>>) -> Self {
        self.signature = Some(signature.into());
        self
    }

    /// The new fork of a truncation, above the present one. Default: the present fork plus one.
    #[doc(alias = "forkId")]
    pub fn fork(mut self, fork: u64) -> Self {
        self.fork = Some(fork);
        self
    }
}

/// The range of a block stream; see [`Hypercore::read_stream`](crate::Hypercore::read_stream).
#[derive(Clone, Debug)]
pub struct ReadOptions {
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
    pub(crate) live: bool,
    pub(crate) snapshot: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { start: 0, end: None, live: false, snapshot: true }
    }
}

impl ReadOptions {
    /// The whole log as it is when the stream is opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first block; default 0.
    pub fn start(mut self, start: u64) -> Self {
        self.start = start;
        self
    }

    /// The block after the last; default: the length of the log.
    pub fn end(mut self, end: u64) -> Self {
        self.end = Some(end);
        self
    }

    /// Whether to wait at the end for more blocks, until the core closes; default false. A live
    /// stream ignores [`ReadOptions::end`].
    pub fn live(mut self, live: bool) -> Self {
        self.live = live;
        self
    }

    /// Whether a stream without [`ReadOptions::end`] ends at the log's length at opening; default true. If false,
    /// it ends at the length at the time of each step. A live stream ignores it.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }
}

/// The range of a byte stream; see [`Hypercore::byte_stream`](crate::Hypercore::byte_stream).
#[derive(Clone, Debug)]
pub struct ByteOptions {
    pub(crate) byte_offset: u64,
    pub(crate) byte_length: Option<u64>,
    pub(crate) prefetch: u64,
}

impl Default for ByteOptions {
    fn default() -> Self {
        ByteOptions { byte_offset: 0, byte_length: None, prefetch: 32 }
    }
}

impl ByteOptions {
    /// All bytes of the log as it is when the stream is opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first byte; default 0.
    #[doc(alias = "byteOffset")]
    pub fn byte_offset(mut self, offset: u64) -> Self {
        self.byte_offset = offset;
        self
    }

    /// How many bytes; default: to the end of the log.
    #[doc(alias = "byteLength")]
    pub fn byte_length(mut self, length: u64) -> Self {
        self.byte_length = Some(length);
        self
    }

    /// How many blocks to request from the network ahead of reading; default 32.
    pub fn prefetch(mut self, blocks: u64) -> Self {
        self.prefetch = blocks;
        self
    }
}

/// The options of `info`; see [`Hypercore::info`](crate::Hypercore::info).
#[derive(Clone, Copy, Default, Debug)]
pub struct InfoOptions {
    pub(crate) storage: bool,
}

impl InfoOptions {
    /// Without disk usage.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to ask the file system for the disk usage of each file; default false.
    pub fn storage(mut self, storage: bool) -> Self {
        self.storage = storage;
        self
    }
}
