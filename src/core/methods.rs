//! The general methods of the handle: open and close, properties, append, get, seek, update. Every other method is
//! in the file of its subject, such as `core/truncate.rs`.

use std::ops::{Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use crate::core::append::Appended;
use crate::core::encryption::Encrypted;
use crate::core::handle::Hypercore;
use crate::core::info::Info;
use crate::core::limits::range_of;
use crate::core::open_options::OpenOptions;
use crate::core::options::{GetOptions, InfoOptions, SeekOptions, SessionOptions, SignOptions, UpdateOptions};
use crate::core::peers::Peer;
use crate::core::recovery_report::Recovery;
use crate::crypto::hash::Hash;
use crate::crypto::keys::{DiscoveryKey, Key, KeyPair};
use crate::manifest::Manifest;
use crate::storage::memory::Memory;
use crate::{Error, ErrorKind, Result};

/// Opening and closing.
impl Hypercore {
    /// Opens the core in the directory `dir`, or creates one with a new key pair.
    ///
    /// The same as [`OpenOptions::open`] with the default options. Blocks until the core's state is read. Does not
    /// wait for a lock that another process holds. Fails as [`OpenOptions::open`] does.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// # let tmp = tempfile::tempdir()?;
    /// # let dir = tmp.path();
    /// let core = Hypercore::open(dir)?;
    /// core.append(b"hello")?;
    /// core.close()?;
    /// assert_eq!(Hypercore::open(dir)?.get(0)?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "new")]
    #[doc(alias = "ready")]
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(dir)
    }

    /// Returns the options to open a core with, all at their defaults.
    pub fn options() -> OpenOptions {
        OpenOptions::default()
    }

    /// Creates a core in memory. Its data is gone when the core is closed.
    #[doc(alias = "random-access-memory")]
    pub fn in_memory() -> Result<Self> {
        Self::options().open_in(Memory::new())
    }

    /// Returns the key of a core with `manifest`, unless it is a compat core; see [`Manifest::key`].
    pub fn key_of(manifest: &Manifest) -> Key {
        manifest.key()
    }

    /// Opens another session on the same core, with its own options. It stays open when this one closes.
    ///
    /// Fails with [`Closed`](ErrorKind::Closed) if this session is closed.
    pub fn session(&self, options: SessionOptions) -> Result<Self> {
        Ok(Hypercore { session: Arc::new(self.session.derive(options)?) })
    }

    /// Opens a session whose length and fork stay as they are now, until [`Hypercore::update`] is called on it.
    ///
    /// If a block of the snapshot is cut from the log later, reading it from the snapshot fails with
    /// [`SnapshotNotAvailable`](ErrorKind::SnapshotNotAvailable).
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// core.append(b"one")?;
    /// let snapshot = core.snapshot()?;
    /// core.append(b"two")?;
    /// assert_eq!((snapshot.len(), core.len()), (1, 2));
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn snapshot(&self) -> Result<Self> {
        self.session(SessionOptions::new().snapshot(true))
    }

    /// Closes this session and all its clones. Closing the last session of a core closes the core.
    ///
    /// Calls of the session that wait end with [`Closed`](ErrorKind::Closed). Closing the core waits for a commit
    /// that is under way, ends the core's replication, syncs its files unless the durability is
    /// [`None`](crate::Durability::None), and releases the lock.
    ///
    /// Closing twice is no error. An error of a write that failed earlier and that no call has reported is
    /// returned here, with kind [`Failed`](ErrorKind::Failed). Dropping the last clone closes too, but cannot
    /// report an error.
    pub fn close(&self) -> Result<()> {
        self.session.close()
    }

    /// Closes every session of the core and deletes its files. Other files in the directory stay.
    ///
    /// Waits as [`Hypercore::close`] does. If the first file cannot be deleted, as in a read-only directory,
    /// all files stay as they are. If a later one cannot be deleted, or the process dies meanwhile, the
    /// remaining files are no longer a core: open them with [`overwrite`](OpenOptions::overwrite) to create a
    /// new core in their place.
    ///
    /// Fails with [`NotWritable`](ErrorKind::NotWritable) on a read-only core.
    pub fn purge(&self) -> Result<()> {
        self.session.purge()
    }
}

/// Properties.
impl Hypercore {
    /// Whether the session is open, so that it can be read.
    pub fn readable(&self) -> bool {
        !self.session.is_closed()
    }

    /// Whether the session can append: it holds a secret key, and neither it nor the core is read-only or closed.
    pub fn writable(&self) -> bool {
        self.session.is_writable()
    }

    /// The core's id: its key in z-base-32, 52 characters.
    pub fn id(&self) -> String {
        self.key().id()
    }

    /// The core's key. Anyone who has it can read the log and check that every block was signed.
    pub fn key(&self) -> Key {
        self.session.shared.key
    }

    /// The core's discovery key: peers that know the key find each other under it, and it does not reveal the key.
    #[doc(alias = "discoveryKey")]
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.session.shared.discovery_key
    }

    /// The key pair that signs for this session, or `None` for a reader.
    #[doc(alias = "keyPair")]
    pub fn key_pair(&self) -> Option<KeyPair> {
        self.session.key_pair().cloned()
    }

    /// The key that encrypts this session's blocks, or `None` if the session has no encryption key.
    #[doc(alias = "encryptionKey")]
    pub fn encryption_key(&self) -> Option<[u8; 32]> {
        self.session.encryption_key().copied()
    }

    /// Whether the log's blocks are encrypted, as far as is known without reading any.
    ///
    /// Returns [`Encrypted::Yes`] once this library has created the core with an encryption key, or has appended to it
    /// or read from it with the right one.
    ///
    /// ```
    /// # use hypercore::{Encrypted, Hypercore};
    /// let core = Hypercore::options().encryption_key([9; 32]).open_in(hypercore::Memory::new())?;
    /// assert_eq!(core.is_encrypted(), Encrypted::Yes);
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn is_encrypted(&self) -> Encrypted {
        self.session.is_encrypted()
    }

    /// Checks that this session's encryption key, or the lack of one, fits the log.
    ///
    /// Fails with [`Encryption`](ErrorKind::Encryption) if the key is known not to fit, as [`Hypercore::append`] and
    /// [`Hypercore::seek`] would. Reads at most a few held blocks, and none once a block has proven the key.
    pub fn check_encryption(&self) -> Result<()> {
        self.session.check_open()?;
        self.session.check_encryption()
    }

    /// How many bytes each stored block is longer than its plain text: 8 with encryption, else 0.
    pub fn padding(&self) -> u64 {
        self.session.padding()
    }

    /// How many blocks the log has. A session that is not [sparse](OpenOptions::sparse) counts only the blocks that
    /// are held without a gap from the first.
    #[doc(alias = "length")]
    pub fn len(&self) -> u64 {
        self.session.length()
    }

    /// Whether [`Hypercore::len`] is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the blocks counted by [`Hypercore::len`] have, without padding.
    #[doc(alias = "byteLength")]
    pub fn byte_length(&self) -> u64 {
        self.session.byte_length()
    }

    /// How many blocks are held without a gap from the first.
    ///
    /// The first call after opening counts them in the bitfield; from then on the core keeps the count up to date.
    #[doc(alias = "contiguousLength")]
    pub fn contiguous_length(&self) -> Result<u64> {
        self.session.contiguous_length()
    }

    /// The fork of the log: 0 at first, and higher after each truncation.
    pub fn fork(&self) -> u64 {
        self.session.fork()
    }

    /// The manifest, which names the log's signers. `None` until a reader learns it from the first proof.
    pub fn manifest(&self) -> Option<Manifest> {
        self.session.shared.state.read().verifier.manifest().cloned()
    }

    /// Stores the core's manifest. Does nothing if the manifest is known already.
    ///
    /// Blocks for the commit, as the durability says. Fails with [`InvalidChecksum`](ErrorKind::InvalidChecksum) if
    /// `manifest` does not belong to the core's key.
    pub fn set_manifest(&self, manifest: Manifest) -> Result<()> {
        self.session.set_manifest(manifest)
    }

    /// The peers that replicate this core at present.
    pub fn peers(&self) -> Vec<Peer> {
        self.session.shared.network.get().map_or_else(Vec::new, |network| network.peers())
    }
}

/// Writing.
impl Hypercore {
    /// Appends one block of at most 15 MiB.
    ///
    /// Blocks, reports errors and shares commits with other threads as [`Hypercore::append_batch`] does.
    pub fn append(&self, block: impl AsRef<[u8]>) -> Result<Appended> {
        self.session.append(&[block.as_ref()], SignOptions::default())
    }

    /// Appends up to 2^20 blocks of at most 15 MiB each, all under one signature. Either all are appended, one after
    /// the other, or none.
    ///
    /// Blocks for the commit, as the durability says, and never for the network. Appends from several threads at once
    /// are committed together. There is no deadline. When the core closes, an append that has not begun fails with
    /// [`Closed`](ErrorKind::Closed), and one that has begun is completed.
    ///
    /// # Errors
    /// * [`NotWritable`](ErrorKind::NotWritable) without a secret key, or if the session or core is read-only.
    /// * [`BadArgument`](ErrorKind::BadArgument) for a block or batch that is too large.
    /// * [`Encryption`](ErrorKind::Encryption) if the session's encryption key is missing or wrong.
    /// * [`InvalidOperation`](ErrorKind::InvalidOperation) if the blocks do not complete the manifest's prologue:
    ///   append it in one batch.
    /// * [`Io`](ErrorKind::Io) if a write fails, as on a full disk; nothing is appended.
    /// * [`Failed`](ErrorKind::Failed) after an earlier write failed, until the core is opened again.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// let appended = core.append_batch(["a", "bc"])?;
    /// assert_eq!((appended.index, appended.length, appended.byte_length), (0, 2, 3));
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn append_batch<B: AsRef<[u8]>>(&self, blocks: impl IntoIterator<Item = B>) -> Result<Appended> {
        self.append_with(blocks, SignOptions::default())
    }

    /// Like [`Hypercore::append_batch`], with another key pair or a finished signature.
    ///
    /// Fails with [`InvalidSignature`](ErrorKind::InvalidSignature) if [`SignOptions::signature`] does not sign
    /// this log with these blocks appended.
    pub fn append_with<B: AsRef<[u8]>>(
        &self,
        blocks: impl IntoIterator<Item = B>,
        options: SignOptions,
    ) -> Result<Appended> {
        let blocks: Vec<B> = blocks.into_iter().collect();
        let views: Vec<&[u8]> = blocks.iter().map(AsRef::as_ref).collect();
        self.session.append(&views, options)
    }

    /// The blocks that a crash took: opening the core discarded them or found them missing. `None` if nothing is
    /// missing.
    ///
    /// The report is kept over openings until the missing blocks are held again or cut from the log, the log has
    /// grown back to its earlier length, or [`repair`](Hypercore::repair) accepts the loss.
    ///
    /// Opening a core discards nothing in its files. The first change of the core, or its first peer, changes the
    /// files to match the report.
    pub fn recovery(&self) -> Option<Recovery> {
        self.session.shared.state.read().recovery.clone()
    }

    /// Flushes: writes what is only in the oplog to `tree` and `bitfield`.
    ///
    /// Blocks until it is written and, unless the durability is [`None`](crate::Durability::None), synced. Without
    /// a flush nothing is lost: opening the core replays the oplog.
    pub fn flush(&self) -> Result<()> {
        self.session.check_open()?;
        let mut writer = self.session.shared.writer()?;
        self.session.shared.flush_now(&mut writer)
    }
}

/// Reading.
impl Hypercore {
    /// Returns block `index`, decrypted.
    ///
    /// If the block is not held, waits until a peer sends it or the log grows past it. The wait ends early when the
    /// session's timeout passes or the session closes. Every block is compared with its signed hash: damage on the
    /// disk is an error, never other data.
    ///
    /// # Errors
    /// * [`BlockNotAvailable`](ErrorKind::BlockNotAvailable) if the block is not held and the session
    ///   does not wait.
    /// * [`Timeout`](ErrorKind::Timeout) after the session's timeout, [`Closed`](ErrorKind::Closed) when
    ///   the session closes.
    /// * [`SnapshotNotAvailable`](ErrorKind::SnapshotNotAvailable) if the block is cut from the log meanwhile: the
    ///   call never returns the block that replaces it.
    /// * [`Encryption`](ErrorKind::Encryption) if the encryption key is missing or wrong.
    /// * [`InvalidChecksum`](ErrorKind::InvalidChecksum) or [`Corrupt`](ErrorKind::Corrupt) if the stored block or
    ///   its place in the tree is damaged: [`verify`](Hypercore::verify) shows the damage,
    ///   [`repair`](Hypercore::repair) drops the block.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// core.append(b"hello")?;
    /// assert_eq!(core.get(0)?, b"hello");
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn get(&self, index: u64) -> Result<Vec<u8>> {
        let block = self.get_with(index, GetOptions::default())?;
        block.ok_or_else(|| {
            Error::new(
                ErrorKind::BlockNotAvailable,
                format!("block {index} is not held, and this session does not wait: download it first"),
            )
        })
    }

    /// Like [`Hypercore::get`], with options. Returns `None` if the block is not held and the options or the
    /// session say not to wait.
    ///
    /// [`GetOptions::cancel`] ends the wait from another thread, with [`Cancelled`](ErrorKind::Cancelled).
    pub fn get_with(&self, index: u64, options: GetOptions) -> Result<Option<Vec<u8>>> {
        self.session.get(index, &options)
    }

    /// Whether block `index` is held.
    pub fn has(&self, index: u64) -> Result<bool> {
        Ok(index < u64::MAX && self.session.has(index, index.saturating_add(1))?)
    }

    /// Whether all blocks of `range` are held. Fails with [`BadArgument`](ErrorKind::BadArgument) if the range ends
    /// before it starts.
    pub fn has_range(&self, range: impl RangeBounds<u64>) -> Result<bool> {
        let range = range_of(range, || self.len())?;
        self.session.has(range.start, range.end)
    }

    /// Returns the first run of held blocks at or after `from`: up to the next block that is not held. `None` if no
    /// block from there on is held.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// core.append_batch(["a", "b", "c", "d"])?;
    /// core.clear(1..2)?;
    /// assert_eq!(core.held_from(0)?, Some(0..1));
    /// assert_eq!(core.held_from(1)?, Some(2..4));
    /// assert_eq!(core.held_from(4)?, None);
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn held_from(&self, from: u64) -> Result<Option<Range<u64>>> {
        self.session.held_from(from)
    }

    /// During a search for peers ([`Hypercore::finding_peers`]), asks the peers for a longer head. Returns true if the
    /// head changed; for a snapshot, true if it now shows another state.
    ///
    /// Waits until a peer has answered, the search ends, or the session closes ([`Closed`](ErrorKind::Closed)); there
    /// is no timeout. Returns at once if no search is under way, and on a writer, whose own log is the longest. A
    /// reader also takes the longer head of a connected peer without this call.
    pub fn update(&self) -> Result<bool> {
        self.update_with(UpdateOptions::default())
    }

    /// Like [`Hypercore::update`], with options for waiting, timeout and cancellation.
    ///
    /// Adds the errors [`Timeout`](ErrorKind::Timeout) and [`Cancelled`](ErrorKind::Cancelled).
    pub fn update_with(&self, options: UpdateOptions) -> Result<bool> {
        self.session.update(&options)
    }

    /// Returns the index of the block that holds byte `byte`, and the byte's offset in that block. For the end of
    /// the log: its length and 0.
    ///
    /// `byte` counts plain text, without padding. If the tree nodes that locate it are not held, or the log does not
    /// reach that byte, waits until a peer sends the nodes or the log grows. The wait ends early when the session's
    /// timeout passes ([`Timeout`](ErrorKind::Timeout)) or the session closes ([`Closed`](ErrorKind::Closed)).
    /// Fails with [`BlockNotAvailable`](ErrorKind::BlockNotAvailable) if the session does not wait, and with
    /// [`Encryption`](ErrorKind::Encryption) if the encryption key, which decides the padding, is missing or wrong.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// core.append_batch(["abc", "de"])?;
    /// assert_eq!(core.seek(4)?, (1, 1));
    /// assert_eq!(core.seek(5)?, (2, 0));
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn seek(&self, byte: u64) -> Result<(u64, u64)> {
        let found = self.seek_with(byte, SeekOptions::default())?;
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::BlockNotAvailable,
                format!("the tree nodes that locate byte {byte} are not held, and this session does not wait"),
            )
        })
    }

    /// Like [`Hypercore::seek`], with options. Returns `None` if the answer is not held and the options or the
    /// session say not to wait.
    pub fn seek_with(&self, byte: u64, options: SeekOptions) -> Result<Option<(u64, u64)>> {
        self.session.seek(byte, &options)
    }

    /// The hash over the roots of the tree, which is signed together with length and fork.
    #[doc(alias = "treeHash")]
    pub fn tree_hash(&self) -> Result<Hash> {
        self.session.tree_hash(None)
    }

    /// The tree hash that the log had at `length` blocks.
    ///
    /// Fails with [`OutOfBounds`](ErrorKind::OutOfBounds) if the log is shorter, with
    /// [`InvalidOperation`](ErrorKind::InvalidOperation) if a reader does not hold the nodes, and with
    /// [`SnapshotNotAvailable`](ErrorKind::SnapshotNotAvailable) if those blocks are not, or no longer, part
    /// of a snapshot.
    pub fn tree_hash_at(&self, length: u64) -> Result<Hash> {
        self.session.tree_hash(Some(length))
    }

    /// Returns keys, length, fork and, if [`InfoOptions::storage`] asks for it, the disk usage of each file.
    pub fn info(&self, options: InfoOptions) -> Result<Info> {
        self.session.info(options)
    }
}

impl std::fmt::Debug for Hypercore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hypercore")
            .field("key", &self.session.shared.key)
            .field("length", &self.session.length())
            .field("fork", &self.session.fork())
            .field("writable", &self.session.is_writable())
            .field("closed", &self.session.is_closed())
            .finish_non_exhaustive()
    }
}
