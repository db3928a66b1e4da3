//! The methods of the handle, but for those whose subject has a file of its own.

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
use crate::{Error, Result};

/// Opening and closing.
impl Hypercore {
    /// Opens the core in the directory `dir`, or makes one with a new key pair. Blocks until its state is read.
    ///
    /// The same as [`Hypercore::options`] with nothing set; errors as for [`OpenOptions::open`].
    #[doc(alias = "new")]
    #[doc(alias = "ready")]
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(dir)
    }

    /// How to open a core, to be filled in.
    pub fn options() -> OpenOptions {
        OpenOptions::default()
    }

    /// A new core in memory, gone when it is closed.
    #[doc(alias = "random-access-memory")]
    pub fn in_memory() -> Result<Self> {
        Self::options().open_in(Memory::new())
    }

    /// The key that a core of `manifest` has; see [`Manifest::key`] for cores that are not compat.
    pub fn key_of(manifest: &Manifest) -> Key {
        manifest.key()
    }

    /// Another session on the same core, with options of its own; it stays open when this one closes.
    pub fn session(&self, options: SessionOptions) -> Result<Self> {
        Ok(Hypercore { session: Arc::new(self.session.derive(options)?) })
    }

    /// A session whose length and fork stay as they are now, until its [`Hypercore::update`]. A block that is cut from the log
    /// meanwhile is an error there, of kind [`SnapshotNotAvailable`](crate::ErrorKind::SnapshotNotAvailable).
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

    /// Closes this session and all its clones; the core with the last session.
    ///
    /// Waiting calls of the session end with [`Closed`](crate::ErrorKind::Closed). Closing the core ends its replication, syncs its
    /// files unless the durability is `None`, and gives up the lock. Closing twice is no error. Dropping the last clone does
    /// the same, but cannot report what went wrong.
    pub fn close(&self) -> Result<()> {
        self.session.close()
    }

    /// Closes every session of the core and deletes its files; other files in the directory stay. The log is gone.
    ///
    /// Waits as [`Hypercore::close`] does. Where not even the first file can be deleted, as in a directory that may
    /// only be read, the files stay as they are. Where a later one cannot, or the process dies meanwhile, what is left
    /// is no core: open it with [`overwrite`](OpenOptions::overwrite) to make a new one in its place.
    pub fn purge(&self) -> Result<()> {
        self.session.purge()
    }
}

/// Properties.
impl Hypercore {
    /// Whether the session can be read: false once it is closed.
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

    /// The core's key: whoever has it can read the log, and check that every block was signed.
    pub fn key(&self) -> Key {
        self.session.shared.key
    }

    /// The name under which peers that know the key find each other.
    #[doc(alias = "discoveryKey")]
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.session.shared.discovery_key
    }

    /// The key pair that signs for this session, if it has one.
    #[doc(alias = "keyPair")]
    pub fn key_pair(&self) -> Option<KeyPair> {
        self.session.key_pair().cloned()
    }

    /// The key that blocks are encrypted with, if any.
    #[doc(alias = "encryptionKey")]
    pub fn encryption_key(&self) -> Option<[u8; 32]> {
        self.session.encryption_key().copied()
    }

    /// Whether the log's blocks are encrypted, as far as is known without reading any.
    ///
    /// [`Encrypted::Yes`] from the first time on that this library made the core, appended to it or read from it with
    /// the right key.
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

    /// Fails with [`Encryption`](crate::ErrorKind::Encryption) if this session's encryption key, or that it has none,
    /// is known not to fit the log: as [`Hypercore::append`] and [`Hypercore::seek`] would. May read up to a few held
    /// blocks, and none once the key was shown to be right.
    pub fn check_encryption(&self) -> Result<()> {
        self.session.check_open()?;
        self.session.check_encryption()
    }

    /// How many bytes each stored block is longer than its plain text: 8 with encryption, else 0.
    pub fn padding(&self) -> u64 {
        self.session.padding()
    }

    /// How many blocks the log has; for a session that is not sparse, how many of them are here without a gap.
    #[doc(alias = "length")]
    pub fn len(&self) -> u64 {
        self.session.length()
    }

    /// Whether the log has no blocks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the log's blocks have, without padding.
    #[doc(alias = "byteLength")]
    pub fn byte_length(&self) -> u64 {
        self.session.byte_length()
    }

    /// How many blocks from the first on are here without a gap. Counted afresh after opening, and followed from then on.
    #[doc(alias = "contiguousLength")]
    pub fn contiguous_length(&self) -> Result<u64> {
        self.session.contiguous_length()
    }

    /// The fork of the log: 0 at first, and higher after each cut.
    pub fn fork(&self) -> u64 {
        self.session.fork()
    }

    /// Who may sign the log, as far as known: a reader learns it from the first proof.
    pub fn manifest(&self) -> Option<Manifest> {
        self.session.shared.state.read().verifier.manifest().cloned()
    }

    /// Stores a manifest, which has to be the key's; without effect where one is known.
    pub fn set_manifest(&self, manifest: Manifest) -> Result<()> {
        self.session.set_manifest(manifest)
    }

    /// Who replicates the core with us now.
    pub fn peers(&self) -> Vec<Peer> {
        self.session.shared.network.get().map_or_else(Vec::new, |network| network.peers())
    }
}

/// Writing.
impl Hypercore {
    /// Appends one block, of 15 MiB at the most; gives the log's new length. Blocks for the commit, as the durability says.
    pub fn append(&self, block: impl AsRef<[u8]>) -> Result<Appended> {
        self.session.append(&[block.as_ref()], SignOptions::default())
    }

    /// Appends blocks, 2^20 of them at the most: all, in one piece and under one signature, or none. Blocks for the commit, as the
    /// durability says, and never for the network.
    ///
    /// Errors: [`NotWritable`](crate::ErrorKind::NotWritable) without a secret key,
    /// [`BadArgument`](crate::ErrorKind::BadArgument) for a block that is too large,
    /// [`Encryption`](crate::ErrorKind::Encryption) for a session whose key is missing or wrong,
    /// [`Failed`](crate::ErrorKind::Failed) after a write that went wrong, until the core is opened again.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// let appended = core.append_batch(["a", "bc"])?;
    /// assert_eq!((appended.length, appended.byte_length), (2, 3));
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn append_batch<B: AsRef<[u8]>>(&self, blocks: impl IntoIterator<Item = B>) -> Result<Appended> {
        self.append_with(blocks, SignOptions::default())
    }

    /// As [`Hypercore::append_batch`], signed otherwise than by the session's key pair.
    pub fn append_with<B: AsRef<[u8]>>(
        &self,
        blocks: impl IntoIterator<Item = B>,
        options: SignOptions,
    ) -> Result<Appended> {
        let blocks: Vec<B> = blocks.into_iter().collect();
        let views: Vec<&[u8]> = blocks.iter().map(AsRef::as_ref).collect();
        self.session.append(&views, options)
    }

    /// What opening the core gave up, or found missing, because a crash took its blocks; none where nothing is missing. The report is kept
    /// over openings until the missing blocks are held again or cut from the log, the log has grown to the length that it had, or
    /// [`repair`](Hypercore::repair) accepts the loss.
    ///
    /// The files are changed by what recovery found only with the first change of the core, or before its first peer: opening a core
    /// to look at it gives nothing up on the disk.
    pub fn recovery(&self) -> Option<Recovery> {
        self.session.shared.state.read().recovery.clone()
    }

    /// Writes what is only in the log of changes to its places now. Nothing is lost without: opening does the same.
    pub fn flush(&self) -> Result<()> {
        self.session.check_open()?;
        let mut writer = self.session.shared.writer()?;
        self.session.shared.flush_now(&mut writer)
    }
}

/// Reading.
impl Hypercore {
    /// Block `index`, decrypted. Waits for it where it is not here: until a peer brings it or the log grows over it, the session's
    /// timeout passes, or the session closes. If the block is cut from the log meanwhile, that is an error of kind
    /// [`SnapshotNotAvailable`](crate::ErrorKind::SnapshotNotAvailable): nobody gets another block in its place.
    ///
    /// Every block is compared with its signed hash: damage on the disk is an error, never other data. So is a
    /// missing or wrong encryption key, of kind [`Encryption`](crate::ErrorKind::Encryption).
    pub fn get(&self, index: u64) -> Result<Vec<u8>> {
        let block = self.get_with(index, GetOptions::default())?;
        block.ok_or_else(|| {
            Error::new(
                crate::ErrorKind::BlockNotAvailable,
                format!("block {index} is not here, and this session does not wait"),
            )
        })
    }

    /// As [`Hypercore::get`], told how to wait; none where the block is not here and is not to be waited for.
    pub fn get_with(&self, index: u64, options: GetOptions) -> Result<Option<Vec<u8>>> {
        self.session.get(index, &options)
    }

    /// Whether block `index` is here.
    pub fn has(&self, index: u64) -> Result<bool> {
        Ok(index < u64::MAX && self.session.has(index, index.saturating_add(1))?)
    }

    /// Whether all blocks of the range are here.
    pub fn has_range(&self, range: impl RangeBounds<u64>) -> Result<bool> {
        let range = range_of(range, || self.len())?;
        self.session.has(range.start, range.end)
    }

    /// The first blocks at or after `from` that are here, up to the next one that is not; none where no more are here.
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

    /// Asks the peers for a longer head; true if there was one, or for a snapshot if it shows something else now.
    ///
    /// Returns at once while nobody looks for peers ([`Hypercore::finding_peers`]); for a writer, whose own log is the longest,
    /// always. While somebody does, waits until a peer answers or the search ends, or the session closes. The longer head of a peer
    /// that is connected is taken also without this.
    pub fn update(&self) -> Result<bool> {
        self.update_with(UpdateOptions::default())
    }

    /// As [`Hypercore::update`], told when to wait.
    pub fn update_with(&self, options: UpdateOptions) -> Result<bool> {
        self.session.update(&options)
    }

    /// The block that holds byte `byte`, and the byte's place in it; for the end of the log its length and 0. Waits for the nodes of
    /// the tree that tell, where they are not here: until a peer brings them, the session's timeout passes, or the session closes.
    pub fn seek(&self, byte: u64) -> Result<(u64, u64)> {
        let found = self.seek_with(byte, SeekOptions::default())?;
        found.ok_or_else(|| {
            Error::new(
                crate::ErrorKind::BlockNotAvailable,
                format!("which block holds byte {byte} is not known here, and this session does not wait"),
            )
        })
    }

    /// As [`Hypercore::seek`], told how to wait; none where the answer is not here and is not to be waited for.
    pub fn seek_with(&self, byte: u64, options: SeekOptions) -> Result<Option<(u64, u64)>> {
        self.session.seek(byte, &options)
    }

    /// The hash over the whole tree: what is signed, with length and fork.
    #[doc(alias = "treeHash")]
    pub fn tree_hash(&self) -> Result<Hash> {
        self.session.tree_hash(None)
    }

    /// The tree hash that the log had at `length` blocks.
    pub fn tree_hash_at(&self, length: u64) -> Result<Hash> {
        self.session.tree_hash(Some(length))
    }

    /// Length, keys and, if asked for, the disk use of each file.
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
