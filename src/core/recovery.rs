//! What the files of a core say its state is: the header, the entries since, and which of these can stand.
//!
//! # Entries that stand for blocks that are not there
//!
//! Where the disk is not waited for at each change ([`Durability::Flush`](crate::Durability)), a power cut may leave an entry in `oplog` but
//! not, or not all of, the bytes that were written to `data` before it. From the first such entry on, all entries are given up: what
//! is left is a state the core once had. What a call made durable is never among them, for then its bytes are on the disk too.
//!
//! A block that is damaged must not shorten the log like this. What was lost in a power cut can be told from it, because
//! **bytes of `data` are zeros before they are written**: past the end, by [`Shared::adopt`](crate::core::state::Shared), which cuts off what
//! a crash left there, and by the flush that follows each truncation at once, which cuts `data` and waits for it; in holes, because
//! they were never written or, after a clear, held the same bytes. So
//!
//! * an entry is *unsound* if a block it brings fails its hash and has a sector (512 bytes of the file, as far as the block reaches)
//!   that begins or ends with a zero byte, or ends beyond the file: a sector that was lost is zeros, and a torn one is zeros from or up
//!   to where it tore;
//! * any other block that fails its hash is damaged: the entry stands, reading the block is an error, `verify` names it.
//!
//! Only blocks count that are held after the last entry. What an entry cleared or cut off may be gone from `data`, and that entry
//! with all before it was synced before the first byte went.
//!
//! # Drafts
//!
//! A batch of the reference may put blocks behind the log before they are signed: entries that bring blocks and nodes and do not
//! move the log. A later entry takes them in. It moves the log over them and brings only what follows them, so that what they are is in
//! the entries before it or, after a flush, in the files alone, beyond what the header tells of. Only where an entry does that
//! does anything count that the files hold there. Drafts that were never signed are no part of the log.
//!
//! # Roots
//!
//! Entries are carried out by lengths alone, and the roots looked for at the end: a flush that a crash stopped may have cut or
//! overwritten those of the lengths before. They should be what the header's hash, or the last entry's signature, is over. A
//! root that is not is computed anew from what is below it, and `verify` tells of it. Where that leads to nothing the core does not
//! open, unless only the signature speaks against it, which in a draft is not that of all signers yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::commit::set_user_data;
use crate::core::options::{MAX_STORED_BLOCK, OpenOptions};
use crate::core::recompute::{self, held_node};
use crate::core::state::{Files, State, place};
use crate::crypto::hash;
use crate::flat_tree::full_roots;
use crate::index::NodeIndex;
use crate::manifest::Authority;
use crate::merkle::{self, Head};
use crate::node::{Node, Roots};
use crate::oplog::{Entry, Header, ReorgHint};
use crate::store::bitfield::Bitfield;
use crate::store::blocks::Blocks;
use crate::store::medium::Medium;
use crate::store::tree::Tree;
use crate::{Error, ErrorKind, Result};

/// The most blocks that one entry may say came: entries with more are not written by anybody.
const MAX_ENTRY_BLOCKS: u64 = 1 << 24;

/// What a disk writes whole, or not.
const SECTOR: u64 = 512;

/// A state as it was found.
pub(crate) struct Recovered {
    pub(crate) state: State,
    /// Whether all entries could stand.
    pub(crate) is_whole: bool,
    /// Whether an entry cut the log: the reference cannot read blocks that are appended behind it before it is flushed.
    pub(crate) truncates: bool,
}

/// The state that header and entries describe.
pub(crate) fn recover(
    medium: &Arc<dyn Medium>,
    files: &Files,
    header: &Header,
    entries: &[Entry],
    options: &OpenOptions,
) -> Result<Recovered> {
    let authority = authority(medium, header, options)?;
    let mut stand = entries.len();
    loop {
        let (state, truncates) = carry_out(medium, files, header, &entries[..stand], authority.clone())?;
        let sound = sound_entries(&state, &entries[..stand])?;
        if sound == stand {
            return Ok(Recovered { state, is_whole: stand == entries.len(), truncates });
        }
        // With fewer entries more blocks may count as held.
        stand = sound;
    }
}

/// Who may sign the core, as far as header and options tell.
fn authority(medium: &Arc<dyn Medium>, header: &Header, options: &OpenOptions) -> Result<Authority> {
    if let Some(key) = options.key.filter(|key| *key != header.key) {
        return Err(Error::new(
            ErrorKind::StorageConflict,
            format!("the core {} is stored here, not {key}: give that key, or another directory", header.key),
        )
        .at(place(medium)));
    }
    let Some(manifest) = &options.manifest else {
        // Without a manifest the key is taken for a public key until a proof shows otherwise.
        return Authority::new(header.key, header.manifest.clone(), options.compat != Some(false))
            .map_err(|e| Error::corrupt(format!("the header is damaged: {e}")).at(medium.path("oplog")));
    };
    let conflict = || {
        let what = format!("the core {} is stored here, which is not of the manifest given", header.key);
        Error::new(ErrorKind::StorageConflict, what).at(place(medium))
    };
    let given = Authority::new(header.key, Some(manifest.clone()), false).map_err(|_| conflict())?;
    // Who gives a manifest alone asks for the core that is named by its hash.
    if options.key.is_none() && options.compat != Some(true) && manifest.key() != header.key {
        return Err(conflict());
    }
    match &header.manifest {
        Some(stored) => Authority::new(header.key, Some(stored.clone()), false),
        None => Ok(given),
    }
}

/// Where the log is after some of the entries.
struct Position {
    fork: u64,
    length: u64,
    signature: Vec<u8>,
    truncated: bool,
    /// Up to where entries brought blocks, be it beyond the log.
    brought: u64,
}

/// The state that header and `entries` describe, and whether one of them cuts the log.
fn carry_out(
    medium: &Arc<dyn Medium>,
    files: &Files,
    header: &Header,
    entries: &[Entry],
    authority: Authority,
) -> Result<(State, bool)> {
    let mut tree = Tree::new(files.tree.file().clone());
    // What stands beyond the log is of a flush that did not come to its end, whose entries say it again, of a core that
    // was overwritten, or of drafts.
    if tree.reaches_past(header.tree.length) && !entries.iter().any(signs_drafts) {
        tree.truncate(header.tree.length);
    }
    let mut state = State {
        head: Head::default(),
        authority,
        contiguous: None,
        user_data: header.user_data.clone(),
        reorgs: header.reorgs.clone(),
        snapshots: Vec::new(),
        healed: Vec::new(),
        stored_contiguous: entries.is_empty().then_some(header.contiguous_length),
        files: Some(Files { tree, bits: Bitfield::new(files.bits.file().clone()), blocks: files.blocks.clone() }),
    };
    let mut at = Position {
        fork: header.tree.fork,
        length: header.tree.length,
        signature: header.tree.signature.clone(),
        truncated: false,
        brought: 0,
    };
    if at.length > MAX_SAFE_INTEGER / 2 {
        let what = format!("the header says the log has {} blocks, more than any log", at.length);
        return Err(Error::corrupt(what).at(medium.path("oplog")));
    }
    for entry in entries {
        replay(&mut state, &mut at, entry, &|what| {
            Error::corrupt(format!("an entry of the log of changes {what}")).at(medium.path("oplog"))
        })?;
    }
    let files_now = state.files_mut()?;
    if files_now.tree.reaches_past(at.length) {
        files_now.tree.truncate(at.length);
    }
    files_now.bits.set_range(at.length, at.brought.saturating_sub(at.length), false)?;
    let moved = entries.iter().any(|entry| entry.upgrade.is_some());
    let roots = roots(&mut state, header, &at, moved)?.ok_or_else(|| {
        Error::corrupt(
            "the roots of the tree are not those that were signed, and do not follow from the blocks that are here: the file is damaged; restore it from a copy, or download the core anew",
        )
        .at(medium.path("tree"))
    })?;
    state.head = Head { roots, fork: at.fork, signature: at.signature };
    Ok((state, at.truncated))
}

/// Applies an entry of the oplog as the commit that wrote it did, but for the roots.
fn replay(state: &mut State, at: &mut Position, entry: &Entry, bad: &dyn Fn(&str) -> Error) -> Result<()> {
    let files = state.files.as_mut().ok_or_else(crate::core::state::closed)?;
    if let Some((key, value)) = &entry.user_data {
        set_user_data(&mut state.user_data, key.clone(), value.clone());
    }
    let mut hint = None;
    if let Some(to) = &entry.upgrade {
        if to.ancestors > at.length.min(to.length) || to.length > MAX_SAFE_INTEGER / 2 {
            return Err(bad("moves the log to a length that does not fit"));
        }
        let cuts = to.ancestors < at.length || to.fork != at.fork;
        // No bit past the old end was ever vouched for, but for those of drafts that were signed now.
        let vouched = entry.bitfield.filter(|_| !cuts && signs_drafts(entry)).map_or(to.ancestors, |bits| bits.start);
        let end = at.length.max(to.length).max(if cuts { at.brought } else { 0 });
        files.bits.set_range(vouched, end - vouched, false)?;
        if to.ancestors < at.length {
            files.tree.truncate(to.ancestors);
        }
        if to.fork != at.fork && at.length > 0 {
            hint = Some(ReorgHint { from: at.fork, to: to.fork, ancestors: to.ancestors });
        }
        at.truncated |= cuts;
        (at.fork, at.length, at.signature) = (to.fork, to.length, to.signature.clone());
    }
    files.tree.put(&entry.nodes);
    if let Some(bits) = entry.bitfield {
        if !bits.drop && bits.length > MAX_ENTRY_BLOCKS {
            return Err(bad("says that more blocks came than can"));
        }
        if bits.start.checked_add(bits.length).is_none() {
            return Err(bad("speaks of blocks beyond any log"));
        }
        files.bits.set_range(bits.start, bits.length, !bits.drop)?;
        if !bits.drop {
            at.brought = at.brought.max(bits.start + bits.length);
        }
    }
    hint.into_iter().for_each(|hint| state.add_reorg_hint(hint));
    Ok(())
}

/// Whether `entry` takes drafts into the log: it moves the log over blocks before those that it brings, up to the end of these.
fn signs_drafts(entry: &Entry) -> bool {
    let (Some(to), Some(bits)) = (&entry.upgrade, entry.bitfield) else { return false };
    !bits.drop && bits.start > to.ancestors && bits.start.checked_add(bits.length) == Some(to.length)
}

/// The roots of the log at `at`: as they are stored, or, where that is not what was signed, as they follow from what is below.
fn roots(state: &mut State, header: &Header, at: &Position, moved: bool) -> Result<Option<Roots>> {
    // Without an entry that moved the log, the header's hash; else the signature, where it can be checked.
    let authority = if moved { state.authority.learn(None).ok() } else { None };
    let is_right = |roots: &Roots| match (&authority, header.tree.root_hash) {
        _ if roots.length() == 0 => true,
        (Some(authority), _) => authority
            .check(Head { roots: roots.clone(), fork: at.fork, signature: Vec::new() }.tree(), &at.signature)
            .is_ok(),
        (None, Some(hash)) if !moved => hash == roots.tree_hash(),
        (None, _) => true,
    };
    let files = state.files()?;
    let stored =
        full_roots(at.length).map(|index| held_node(&files.tree, index)).collect::<Result<Option<Vec<_>>>>()?;
    let stored = stored.and_then(|nodes| Roots::new(nodes).ok());
    if let Some(roots) = stored.as_ref().filter(|roots| is_right(roots)) {
        return Ok(Some(roots.clone()));
    }
    let Some(roots) = recompute::roots(state, at.length, is_right)? else {
        // A draft that not all signers have signed yet has a signature that does not hold.
        return Ok(stored.filter(|_| moved));
    };
    let files = state.files_mut()?;
    let mut healed = Vec::new();
    for root in roots.nodes() {
        if held_node(&files.tree, root.index)? != Some(*root) {
            healed.push(*root);
        }
    }
    files.tree.put(&healed);
    state.healed = healed.iter().map(|node| node.index).collect();
    Ok(Some(roots))
}

/// How many of the entries can stand; see the head of this file.
fn sound_entries(state: &State, entries: &[Entry]) -> Result<usize> {
    let files = state.files()?;
    // Each block that the entries bring to stay, and which of them brings it.
    let mut brought: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Some(upgrade) = &entry.upgrade {
            drop(brought.split_off(&upgrade.ancestors));
        }
        match entry.bitfield {
            Some(bits) if bits.drop => {
                let end = bits.start.saturating_add(bits.length);
                let gone: Vec<u64> = brought.range(bits.start..end).map(|(&block, _)| block).collect();
                for block in gone {
                    brought.remove(&block);
                }
            }
            // One block, whose leaf may have come before, or blocks that come with their leaves, which bounds how many there are.
            Some(bits) if bits.length <= (entry.nodes.len() as u64).max(1) => {
                brought.extend((bits.start..bits.start.saturating_add(bits.length)).map(|block| (block, at)));
            }
            _ => {}
        }
    }
    let mut sound = entries.len();
    let mut end = None;
    for (&block, &at) in &brought {
        let Some(leaf) = held_node(&files.tree, NodeIndex::of_block(block))? else { continue };
        let offset = match end {
            Some((last, offset)) if last + 1 == block => offset,
            _ => match merkle::byte_offset(&files.tree, &state.head, block) {
                Ok(offset) => offset,
                Err(_) => continue,
            },
        };
        end = Some((block, offset.saturating_add(leaf.size)));
        if at < sound && was_lost(&files.blocks, offset, &leaf)? {
            sound = at;
        }
    }
    Ok(sound)
}

/// Whether bytes of a block are missing in the way that bytes are missing which were never written out.
fn was_lost(blocks: &Blocks, offset: u64, leaf: &Node) -> Result<bool> {
    if leaf.size > MAX_STORED_BLOCK {
        return Ok(false);
    }
    let bytes = match blocks.read(offset, leaf.size as usize) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(true),
        Err(error) => return Err(error),
    };
    if hash::leaf(&bytes) == leaf.hash {
        return Ok(false);
    }
    let first = ((SECTOR - offset % SECTOR) as usize).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let mut sectors = std::iter::once(head).chain(rest.chunks(SECTOR as usize));
    Ok(sectors.any(|sector| sector.first() == Some(&0) || sector.last() == Some(&0)))
}
