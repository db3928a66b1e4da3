//! How a core is opened, and what each call may be told.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::core::Hypercore;
use crate::core::waiters::Cancel;
use crate::crypto::keys::{Key, KeyPair};
use crate::manifest::Manifest;
use crate::storage::backend::Storage;
use crate::storage::disk::Disk;
use crate::{Error, Result};

/// Called with a block's index when a `get` has to wait for the network.
pub type OnWait = Arc<dyn Fn(u64) + Send + Sync>;

/// What has reached the disk when a call returns.
///
/// # Promises
///
/// 1. *A killed process loses nothing*, in any of the three: what a call returned is in the hands of the operating
///    system, and the next open finds it, with at most the one change more that was being made.
/// 2. *Each change whole or not at all.* What is found is the state before or after a change; a batch is one change.
///    With `Flush` and `Always` this holds after a power cut too.
/// 3. `Flush`: what was there when [`flush`](crate::Hypercore::flush),
///    [`truncate`](crate::Hypercore::truncate), a [`clear`](crate::Hypercore::clear) that dropped something, or
///    [`close`](crate::Hypercore::close) after a change returned survives a power cut, and so does everything that a
///    peer has heard of. Of changes since, the latest may be lost, from some point on all of them.
/// 4. `Always`: what any call returned survives a power cut, and readers and peers see no change before it would.
///    Appends by several threads share their syncs.
/// 5. *Peers hear only what a power cut cannot take back*, with `Flush` and `Always`. With `Flush`, a connection's
///    thread syncs what was appended before it tells the peers; the append does not wait for that. So a log that goes
///    on after a power cut never signs a second history that a peer would refuse.
/// 6. *Damage never shortens a log.* An entry is given up only where a power cut explains what is missing (whole
///    sectors of zeros, or bytes beyond the end of
///    `data`) and the durability that it was written with allowed that: with `Flush`, what came after the last sync.
///    Everything else that is missing or wrong is a damaged block: the log keeps its length, reading the block is an
///    error, [`verify`](crate::Hypercore::verify) names it and with `Repair::Yes` drops just that. Damage to the log
///    of changes itself is an error of opening that names `oplog`: nothing is dropped to get past it.
/// 7. *Where others may have seen a lost block, the log keeps its length*: after `None`, or where another
///    implementation wrote it. The block counts as not held, to be fetched from a peer.
/// 8. *Nothing is given up in silence.* [`recovery`](crate::Hypercore::recovery) tells what was lost, until it is made
///    good. Opening and looking change no file; the first change does, or the first peer.
/// 9. *An error means that nothing has changed, and success that everything has* (but for a clear whose space cannot
///    be given back, see there, and a sync that failed, after which the next open may find the change). Where the disk
///    fails after a change was made, the call succeeds, further writes are refused, and the next of them or
///    [`close`](crate::Hypercore::close) says why. A full disk refuses the change and nothing else: with room again,
///    by a clear for one, the log goes on.
/// 10. What is found verifies, and the log goes on from there, also in another implementation.
///
/// # What they assume
///
/// * 1 only that the operating system goes on running.
/// * The others, that a sync returns when the disk has what it was given, and a sync of a directory when it has the
///   names in it: a disk that lies about its cache breaks them.
/// * That a write that is cut short changes no bytes but its own, and that the disk writes each sector of 512 bytes
///   whole or not at all.
/// * That bytes never written read as zeros, as on every journaling file system.
/// * `Flush` and `Always` take over what an earlier session wrote without waiting for it (`None`, or another
///   implementation) before the first peer sees it, and with their first flush. Until then a power cut may still harm
///   that.
///
/// # What they do not promise
///
/// * After a sync that *failed* the system may drop what it could not write and report success from then on. The core
///   refuses to write until it is opened again; [`verify`](crate::Hypercore::verify) then tells what is missing.
/// * `None`: blocks and heads that a power cut took may have been given to peers before. A writer whose header was
///   lost goes on from an older length and signs a second history, which such peers refuse as a conflict.
/// * No durability replaces a copy: a disk that forgets what it had is told of by `verify`, not undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// No file is ever synced, as in the reference. A power cut may lose anything the operating system had not
    /// written. Closing flushes, without syncs.
    None,
    /// Files are synced when the log of changes is flushed (every 256 KiB of changes or 16 MiB of blocks), after
    /// truncating, before space is given back, and on closing. A power cut loses at most what came after; what is
    /// found afterwards is a state the core once had.
    #[default]
    Flush,
    /// Synced before the call returns. Appends by several threads share their syncs.
    Always,
}

/// How to open a core; made by [`Hypercore::options`].
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
    pub(crate) timeout: Duration,
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
            timeout: Duration::ZERO,
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

    /// The longest that `get` and `seek` wait, unless told otherwise; zero, the default, is without limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
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

/// What a session does differently from the one it comes from; see [`Hypercore::session`].
#[derive(Clone, Default)]
pub struct SessionOptions {
    pub(crate) sparse: Option<bool>,
    pub(crate) wait: Option<bool>,
    pub(crate) writable: Option<bool>,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) encryption_key: Option<Zeroizing<[u8; 32]>>,
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) snapshot: bool,
}

impl SessionOptions {
    /// Everything as in the session it comes from.
    pub fn new() -> Self {
        Self::default()
    }

    /// If false, the session downloads everything and its length counts what is contiguous. Cannot make a session
    /// sparse that comes from one that is not.
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = Some(sparse);
        self
    }

    /// If false, `get` and `seek` do not wait by default.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// If false, the session refuses to append and truncate.
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = Some(writable);
        self
    }

    /// Called when a `get` of this session has to wait.
    #[doc(alias = "onwait")]
    pub fn on_wait(mut self, f: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Arc::new(f));
        self
    }

    /// Default timeout of this session; zero is without limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Encrypts and decrypts with another key. All blocks of a log have one key: a session with another one, like one
    /// without, can read stored blocks alone.
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

    /// Whether length and fork stay as they are now.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }
}

/// What one `get` does differently; see [`Hypercore::get_with`].
#[derive(Clone, Default)]
pub struct GetOptions {
    pub(crate) wait: Option<bool>,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) raw: bool,
    pub(crate) cancel: Option<Cancel>,
}

impl GetOptions {
    /// As the session does by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to wait for a block that is not here; false gives none at once.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Called if this `get` has to wait.
    #[doc(alias = "onwait")]
    pub fn on_wait(mut self, f: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Arc::new(f));
        self
    }

    /// The longest to wait; zero is without limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// If false, an encrypted block comes as it is stored, padding included, whatever key the session has; default
    /// true.
    pub fn decrypt(mut self, decrypt: bool) -> Self {
        self.raw = !decrypt;
        self
    }

    /// Another thread can end the wait through `cancel`.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}

/// What one `seek` does differently; see [`Hypercore::seek_with`].
#[derive(Clone, Default)]
pub struct SeekOptions {
    pub(crate) wait: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: Option<Cancel>,
}

impl SeekOptions {
    /// As the session does by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to ask the network where the tree is not here; false gives none at once.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// The longest to wait; zero is without limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Another thread can end the wait through `cancel`.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}

/// What one `update` does differently; see [`Hypercore::update_with`].
#[derive(Clone, Default)]
pub struct UpdateOptions {
    pub(crate) wait: Option<bool>,
    pub(crate) force: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: Option<Cancel>,
}

impl UpdateOptions {
    /// Waits only while peers are being looked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to ask the peers and wait for them; default while peers are being looked for.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Whether a writer asks its peers too; default false.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// The longest to wait; zero, the default, is without limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Another thread can end the wait through `cancel`.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}

/// Who signs one append or truncation; see [`Hypercore::append_with`] and [`Hypercore::truncate_with`].
#[derive(Clone, Default, Debug)]
pub struct SignOptions {
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) signature: Option<Vec<u8>>,
    pub(crate) fork: Option<u64>,
}

impl SignOptions {
    /// The session's key pair signs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another key pair signs.
    #[doc(alias = "keyPair")]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// The signature is at hand, as one assembled of several signers' shares is. It is checked before anything is
    /// written.
    pub fn signature(mut self, signature: impl Into<Vec<u8>>) -> Self {
        self.signature = Some(signature.into());
        self
    }

    /// The new fork of a truncation, above the present one; default the present one and one.
    #[doc(alias = "forkId")]
    pub fn fork(mut self, fork: u64) -> Self {
        self.fork = Some(fork);
        self
    }
}

/// What a block stream reads; see [`Hypercore::read_stream`].
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

    /// The block before which to end; default the log's length.
    pub fn end(mut self, end: u64) -> Self {
        self.end = Some(end);
        self
    }

    /// Whether to wait for blocks to come at the end, until the core closes; default false.
    pub fn live(mut self, live: bool) -> Self {
        self.live = live;
        self
    }

    /// Whether the end is fixed at opening; default true, except when live.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }
}

/// What a byte stream reads; see [`Hypercore::byte_stream`].
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

    /// How many bytes; default to the end.
    #[doc(alias = "byteLength")]
    pub fn byte_length(mut self, length: u64) -> Self {
        self.byte_length = Some(length);
        self
    }

    /// How many blocks are asked of the network ahead of reading; default 32.
    pub fn prefetch(mut self, blocks: u64) -> Self {
        self.prefetch = blocks;
        self
    }
}

/// What `info` looks up beyond what is in memory; see [`Hypercore::info`].
#[derive(Clone, Copy, Default, Debug)]
pub struct InfoOptions {
    pub(crate) storage: bool,
}

impl InfoOptions {
    /// Only what is in memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to ask the file system for the disk use of each file; default false.
    pub fn storage(mut self, storage: bool) -> Self {
        self.storage = storage;
        self
    }
}

/// The largest block that can be appended: 15 MiB, so that it fits one frame of the wire.
#[doc(alias = "MAX_SUGGESTED_BLOCK_SIZE")]
pub const MAX_BLOCK_SIZE: usize = 15 * 1024 * 1024;

/// The largest block as stored: with room for the padding of encryption, and for what others may have let through.
pub(crate) const MAX_STORED_BLOCK: u64 = 16 * 1024 * 1024;

pub(crate) fn check_block(block: &[u8]) -> Result<()> {
    if block.len() > MAX_BLOCK_SIZE {
        return Err(Error::bad_argument(format!(
            "a block of {} bytes is larger than the {MAX_BLOCK_SIZE} that fit one message of the wire: split it",
            block.len()
        )));
    }
    Ok(())
}

pub(crate) fn check_range(range: &Range<u64>) -> Result<()> {
    if range.start > range.end {
        return Err(Error::bad_argument(format!("the range {}..{} ends before it starts", range.start, range.end)));
    }
    if range.end > crate::codec::MAX_SAFE_INTEGER / 2 {
        return Err(Error::bad_argument(format!("block {} is beyond any log", range.end)));
    }
    Ok(())
}
