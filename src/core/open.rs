//! Opening a core: the lock, the header, the entries since; or making one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::commit::set_user_data;
use crate::core::edit::AppendQueue;
use crate::core::events::Events;
use crate::core::options::{Durability, MAX_STORED_BLOCK, OpenOptions};
use crate::core::session::{FirstSession, Session, Sessions};
use crate::core::state::{Files, Shared, State, Writer};
use crate::core::wants::{Outcome, Wants};
use crate::core::{Download, Hypercore, Info, InfoOptions, StorageInfo};
use crate::crypto::hash;
use crate::crypto::keys::KeyPair;
use crate::flat_tree::full_roots;
use crate::index::NodeIndex;
use crate::manifest::{Authority, Manifest};
use crate::merkle::{self, Head, NodeSource};
use crate::node::{Node, Roots};
use crate::oplog::{Entry, Header, Oplog, ReorgHint, StoredKeyPair, TreeHeader};
use crate::store::OpenHow;
use crate::store::bitfield::{Bitfield, BitfieldFile};
use crate::store::blocks::Blocks;
use crate::store::map::DEFAULT_LIMIT;
use crate::store::medium::{Access, Medium};
use crate::store::tree::{Tree, TreeFile};
use crate::sync::{Mutex, Rank, RwLock};
use crate::{Error, ErrorKind, Result};

/// The most blocks that one entry may say came: entries with more are not written by anybody.
const MAX_ENTRY_BLOCKS: u64 = 1 << 24;

/// How often reading beside a writer is tried again.
const READ_ONLY_TRIES: usize = 8;

impl Hypercore {
    pub(crate) fn open_with(medium: Arc<dyn Medium>, options: OpenOptions) -> Result<Self> {
        let mut opened = open_shared(medium.clone(), &options);
        // Beside a writer the files are read one after the other while it changes them: what does not fit together may the next time.
        for _ in 0..READ_ONLY_TRIES {
            match &opened {
                Err(error) if options.read_only && error.kind() == ErrorKind::Corrupt => {
                    opened = open_shared(medium.clone(), &options);
                }
                _ => break,
            }
        }
        let (shared, stored_pair) = opened?;
        let first = FirstSession {
            sparse: options.sparse,
            wait: options.wait,
            timeout: options.timeout,
            on_wait: options.on_wait,
            writable: options.writable,
            key_pair: options.key_pair.or(stored_pair),
            encryption_key: options.encryption_key,
        };
        let core = Hypercore { session: Arc::new(Session::first(Arc::new(shared), first)) };
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

fn open_shared(medium: Arc<dyn Medium>, options: &OpenOptions) -> Result<(Shared, Option<KeyPair>)> {
    let read_only = options.read_only;
    if read_only && options.overwrite {
        return Err(Error::bad_argument("a core cannot be both read-only and overwritten"));
    }
    let path = medium.path("oplog");
    let open = |access| medium.open("oplog", access).map_err(|e| Error::from_io(e, "open", &path));
    let existing = open(if read_only { Access::Read } else { Access::Write })?;
    let file = match existing {
        Some(file) => file,
        None if read_only || !options.create_if_missing => return Err(no_core(&medium)),
        None => open(Access::Create)?.ok_or_else(|| no_core(&medium))?,
    };
    if options.lock && !read_only {
        match file.lock(true) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Error::new(
                    ErrorKind::Locked,
                    "another process, or another handle of this one, has this core open and locked: close it there (`fuser` and `lsof` name the process), or open read-only",
                )
                .at(&path));
            }
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                return Err(Error::new(
                    ErrorKind::Locked,
                    "this file system knows no locks: open with `lock(false)` if no other process can open this core",
                )
                .at(&path));
            }
            Err(e) => return Err(Error::from_io(e, "lock", &path)),
        }
    }
    // Maps are safe only where no other process can cut the files.
    let mappable = options.lock && !read_only;
    let (mut oplog, recovered) = match Oplog::open(&medium, file.clone(), read_only) {
        // What was damaged is given up with the rest.
        Err(e) if options.overwrite && e.kind() == ErrorKind::Corrupt => {
            file.set_len(0).map_err(|e| Error::from_io(e, "cut", &path))?;
            Oplog::open(&medium, file, read_only)?
        }
        opened => opened?,
    };
    let fresh = recovered.is_none() || options.overwrite;
    if recovered.is_none() && (read_only || !options.create_if_missing) {
        return Err(no_core(&medium));
    }
    let how = OpenHow { writable: !read_only, mappable, map_limit: options.map_limit.unwrap_or(DEFAULT_LIMIT) };
    let files = || {
        Ok::<_, Error>(Files {
            tree: Tree::new(Arc::new(TreeFile::open(&medium, how)?)),
            bits: Bitfield::new(Arc::new(BitfieldFile::open(&medium, how)?)),
            blocks: Arc::new(Blocks::open(&medium, how)?),
        })
    };
    let sync = options.durability != Durability::None && !read_only;
    let (header, state, is_whole) = match recovered {
        Some(recovered) if !options.overwrite => {
            let (state, is_whole) = restore(&medium, files()?, &recovered.header, &recovered.entries, options)?;
            (recovered.header, state, is_whole)
        }
        _ => {
            let (header, authority) = new_core(options)?;
            oplog.flush(&header, sync)?;
            let mut files = files()?;
            // The old core ended with the header that was just written; what it left is nobody's.
            files.tree.file().clear()?;
            files.bits.file().clear()?;
            files.blocks.set_len(0)?;
            if sync {
                medium.sync_dir().map_err(|e| Error::from_io(e, "sync", medium.path("")))?;
            }
            files.bits.forget(&[]);
            let state = State {
                head: Head::default(),
                authority,
                contiguous: Some(0),
                user_data: Vec::new(),
                reorgs: Vec::new(),
                snapshots: Vec::new(),
                files: Some(files),
            };
            (header, state, true)
        }
    };
    let stored_pair = match header.key_pair.as_ref().and_then(|pair| pair.secret_key.as_ref()) {
        Some(secret) => Some(
            KeyPair::from_secret_key(secret)
                .map_err(|e| Error::corrupt(format!("the header is damaged: {e}")).at(&path))?,
        ),
        None => None,
    };
    let has_learnt = !fresh && header.manifest.is_none() && state.authority.manifest().is_some();
    // What was given up must not come back when entries follow it.
    let header_is_stale = has_learnt || !is_whole;
    let shared = Shared {
        key: header.key,
        discovery_key: header.key.discovery_key(),
        medium,
        durability: options.durability,
        read_only,
        writer: Mutex::new(
            Rank::Writer,
            Some(Writer {
                oplog,
                key_pair: header.key_pair,
                latch: None,
                unflushed_bytes: 0,
                has_unflushed: false,
                header_is_stale,
            }),
        ),
        queue: AppendQueue::new(),
        state: RwLock::new(Rank::State, state),
        generation: AtomicU64::new(0),
        wants: Arc::new(Wants::new()),
        events: Arc::new(Events::new()),
        sessions: Sessions::new(),
        network: OnceLock::new(),
        downloads: Mutex::new(Rank::Session, Vec::new()),
        finders: Mutex::new(Rank::Queue, 0),
        extensions: Mutex::new(Rank::Session, Vec::new()),
    };
    if header_is_stale && !read_only {
        let mut writer = shared.writer()?;
        shared.flush_or_latch(&mut writer)?;
    }
    Ok((shared, stored_pair))
}

fn no_core(medium: &Arc<dyn Medium>) -> Error {
    Error::new(ErrorKind::StorageEmpty, "no core is stored here").at(medium.path(""))
}

/// The header of a new core, by the rules of the reference.
fn new_core(options: &OpenOptions) -> Result<(Header, Authority)> {
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
    let authority = Authority::new(key, manifest.clone(), compat)?;
    let header = Header {
        key,
        manifest,
        key_pair: key_pair.as_ref().map(|pair| StoredKeyPair {
            public_key: pair.public_key(),
            secret_key: Some(Zeroizing::new(*pair.secret_key())),
        }),
        user_data: Vec::new(),
        tree: TreeHeader::default(),
        reorgs: Vec::new(),
        contiguous_length: 0,
    };
    Ok((header, authority))
}

/// The state that header and entries describe, and whether all entries could stand.
fn restore(
    medium: &Arc<dyn Medium>,
    files: Files,
    header: &Header,
    entries: &[Entry],
    options: &OpenOptions,
) -> Result<(State, bool)> {
    let tree_path = medium.path("tree");
    if let Some(key) = options.key.filter(|key| *key != header.key) {
        return Err(Error::new(
            ErrorKind::StorageConflict,
            format!("the core {} is stored here, not {key}: give that key, or another directory", header.key),
        )
        .at(medium.path("")));
    }
    // Without a manifest the key is taken for a public key until a proof shows otherwise.
    let guess = options.compat != Some(false) && options.manifest.is_none();
    let mut authority = Authority::new(header.key, header.manifest.clone(), guess)
        .map_err(|e| Error::corrupt(format!("the header is damaged: {e}")).at(medium.path("oplog")))?;
    if let Some(manifest) = &options.manifest {
        authority = Authority::new(header.key, Some(manifest.clone()), false).map_err(|_| {
            Error::new(
                ErrorKind::StorageConflict,
                format!("the core {} is stored here, which is not of the manifest given", header.key),
            )
        })?;
        if let Some(stored) = &header.manifest {
            authority = Authority::new(header.key, Some(stored.clone()), false)?;
        }
    }
    let mut state = State {
        head: Head { roots: Roots::default(), fork: header.tree.fork, signature: header.tree.signature.clone() },
        authority,
        contiguous: None,
        user_data: header.user_data.clone(),
        reorgs: header.reorgs.clone(),
        snapshots: Vec::new(),
        files: Some(files),
    };
    let mut length = header.tree.length;
    let lossless = options.durability == Durability::None;
    let sound = if lossless { entries.len() } else { sound_entries(state.files()?, length, entries)? };
    for entry in &entries[..sound] {
        length = replay(&mut state, length, entry)?;
    }
    // Only now: a flush that did not come to its end may have taken from the tree what earlier lengths need.
    state.head.roots = stored_roots(&state.files()?.tree, length).map_err(|e| e.at(&tree_path))?;
    let moved = entries[..sound].iter().any(|entry| entry.upgrade.is_some());
    if !moved && length > 0 && header.tree.root_hash.is_some_and(|stored| stored != state.head.tree_hash()) {
        return Err(Error::corrupt(
            "the roots of the tree are not those that the header names: the file is damaged; restore it from a copy, or download the core anew",
        )
        .at(&tree_path));
    }
    Ok((state, sound == entries.len()))
}

fn stored_roots(source: &dyn NodeSource, length: u64) -> Result<Roots> {
    if length > MAX_SAFE_INTEGER / 2 {
        return Err(Error::corrupt(format!("the header says the log has {length} blocks, more than any log")));
    }
    let mut nodes = Vec::new();
    for index in full_roots(length) {
        let node = source.node(index)?;
        nodes.push(node.ok_or_else(|| {
            Error::corrupt(format!(
                "node {index}, a root of the log of {length} blocks, is missing: the file was cut or is damaged"
            ))
        })?);
    }
    Roots::new(nodes)
}

/// Applies an entry of the oplog to a log of `length` blocks and says how many it has then. The head's roots are left to whoever
/// knows the last length.
fn replay(state: &mut State, length: u64, entry: &Entry) -> Result<u64> {
    let bad = |what: &str| Error::corrupt(format!("an entry of the log of changes {what}"));
    if let Some((key, value)) = &entry.user_data {
        set_user_data(&mut state.user_data, key.clone(), value.clone());
    }
    let mut new_length = length;
    if let Some(upgrade) = &entry.upgrade {
        if upgrade.ancestors > length.min(upgrade.length) || length.max(upgrade.length) > MAX_SAFE_INTEGER / 2 {
            return Err(bad("moves the log to a length that does not fit"));
        }
        state.move_files(length, upgrade.ancestors, upgrade.length)?;
        if upgrade.fork != state.head.fork && length > 0 {
            let (from, to) = (state.head.fork, upgrade.fork);
            state.add_reorg_hint(ReorgHint { from, to, ancestors: upgrade.ancestors });
        }
        state.head.fork = upgrade.fork;
        state.head.signature = upgrade.signature.clone();
        new_length = upgrade.length;
    }
    state.files_mut()?.tree.put(&entry.nodes);
    if let Some(bits) = entry.bitfield {
        if !bits.drop && bits.length > MAX_ENTRY_BLOCKS {
            return Err(bad("says that more blocks came than can"));
        }
        state.apply_bits(bits)?;
    }
    Ok(new_length)
}

/// How many of the entries can stand: after a power cut, entries may be on the disk whose blocks never came to be in `data`. What
/// follows the first such entry cannot stand without it.
///
/// Only blocks count that are still held after the last entry: the bytes of what was cleared are gone, those of what was cut may
/// be another block's. A block that is there but is not the one that was signed is damage, which this must not hide.
fn sound_entries(files: &Files, mut length: u64, entries: &[Entry]) -> Result<usize> {
    let mut nodes: HashMap<NodeIndex, Node> = HashMap::new();
    // Each block that the entries bring to stay, and which of them brings it.
    let mut brought: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        nodes.extend(entry.nodes.iter().map(|n| (n.index, *n)));
        if let Some(upgrade) = &entry.upgrade {
            drop(brought.split_off(&upgrade.ancestors));
            length = upgrade.length;
        }
        match entry.bitfield {
            Some(bits) if bits.drop => {
                let end = bits.start.saturating_add(bits.length);
                let gone: Vec<u64> = brought.range(bits.start..end).map(|(&block, _)| block).collect();
                for block in gone {
                    brought.remove(&block);
                }
            }
            // Blocks that come with their leaves, which bounds how many there are.
            Some(bits) if bits.length <= entry.nodes.len() as u64 => {
                brought.extend((bits.start..bits.start.saturating_add(bits.length)).map(|block| (block, at)));
            }
            _ => {}
        }
    }
    let source = Overlaid { nodes: &nodes, below: &files.tree };
    // What does not fit together is told of when the entries are carried out.
    let Ok(roots) = stored_roots(&source, length) else { return Ok(entries.len()) };
    let head = Head { roots, ..Head::default() };
    let mut sound = entries.len();
    let mut end = None;
    for (&block, &at) in &brought {
        let Some(leaf) = nodes.get(&NodeIndex::of_block(block)) else { continue };
        let offset = match end {
            Some((last, offset)) if last + 1 == block => offset,
            _ => match merkle::byte_offset(&source, &head, block) {
                Ok(offset) => offset,
                Err(_) => continue,
            },
        };
        end = Some((block, offset.saturating_add(leaf.size)));
        if at < sound && never_came(&files.blocks, offset, leaf) {
            sound = at;
        }
    }
    Ok(sound)
}

/// Whether the bytes of a block are missing in the way that bytes are missing which were never written out.
fn never_came(blocks: &Blocks, offset: u64, leaf: &Node) -> bool {
    match blocks.read(offset, leaf.size.min(MAX_STORED_BLOCK) as usize) {
        Ok(bytes) => bytes.iter().all(|&byte| byte == 0) && hash::leaf(&bytes) != leaf.hash,
        Err(error) => error.kind() == ErrorKind::Corrupt,
    }
}

struct Overlaid<'a> {
    nodes: &'a HashMap<NodeIndex, Node>,
    below: &'a Tree,
}

impl NodeSource for Overlaid<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match self.nodes.get(&index) {
            Some(node) => Ok(Some(*node)),
            None => self.below.node(index),
        }
    }
}

impl Shared {
    /// Follows how many are looking for peers; with the last, without a network, updates that wait for a peer end.
    pub(crate) fn change_finders(&self, change: impl FnOnce(usize) -> usize) {
        let mut finders = self.finders.lock();
        *finders = change(*finders);
        let now = *finders;
        drop(finders);
        match self.network.get() {
            Some(network) => network.set_finding_peers(now),
            None if now == 0 => self.wants.wake_upgrades(&Outcome::Changed),
            None => {}
        }
    }
}

impl Session {
    pub(crate) fn info(&self, options: InfoOptions) -> Result<Info> {
        self.check_open()?;
        let shared = &*self.shared;
        let storage = match options.storage {
            false => None,
            true => {
                let (tree, bits, blocks) = {
                    let state = shared.state.read();
                    let files = state.files()?;
                    (files.tree.file().clone(), files.bits.file().clone(), files.blocks.clone())
                };
                let oplog = match shared.medium.open("oplog", Access::Read) {
                    Ok(Some(file)) => file.disk_usage(),
                    Ok(None) => Ok(0),
                    Err(e) => Err(e),
                };
                Some(StorageInfo {
                    oplog: oplog.map_err(|e| Error::from_io(e, "stat", shared.medium.path("oplog")))?,
                    tree: tree.disk_usage()?,
                    blocks: blocks.disk_usage()?,
                    bitfield: bits.disk_usage()?,
                })
            }
        };
        Ok(Info {
            key: shared.key,
            discovery_key: shared.discovery_key,
            length: self.length(),
            contiguous_length: self.contiguous_length()?,
            byte_length: self.byte_length(),
            fork: self.fork(),
            padding: self.padding(),
            storage,
        })
    }

    /// Closes every session and deletes the files, the lock still held.
    pub(crate) fn purge(&self) -> Result<()> {
        self.check_open()?;
        let shared = &*self.shared;
        if shared.read_only {
            self.check_writable(true)?;
        }
        shared.close_all(true)
    }
}
