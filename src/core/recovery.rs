//! Reading the state of a core from its files: the header, the entries after it, and which of these entries count.
//!
//! # What a power cut can take, and what it cannot
//!
//! Where the disk is not waited for at each change, a power cut may leave an entry in `oplog` without the bytes
//! that were written to `data` before it, or with only part of them. Recovery discards such an entry, with all that
//! follow it, only if a power cut explains what is missing. All of these have to hold:
//!
//! 1. The entry and all that follow it are marked as not waited for ([`Marks::unsynced`](crate::oplog::Marks)). No
//!    peer knows of such an entry, so the log may continue from before it. Nothing that was written with
//!    `Durability::Always` is ever discarded.
//! 2. No later entry is marked as [`settled`](crate::oplog::Marks): all entries before such an entry, and their
//!    blocks, are on the disk.
//! 3. A block that the entry adds fails its hash or reaches beyond the end of the file. And more 512-byte sectors of
//!    the entry's blocks (a sector counts as far as the blocks reach into it) are now zeros, or past the end of the
//!    file, than contained only zeros when they were written. **Bytes of `data` are zeros before they are written**:
//!    past the end of the log, because [`prepare_files`](crate::core::shared::Shared::prepare_files) and the flush
//!    that immediately follows each truncation shorten the file; in holes, because they were never written or were
//!    punched.
//! 4. `data` exists, because its name is on the disk before the first entry, and it reaches as far as the blocks
//!    from before these entries. A power cut does not explain a file that is missing or was shortened.
//! 5. The tree proves, up to the signed roots, where the blocks lie. A damaged node makes no block look lost.
//!
//! An entry without marks was written by JavaScript Hypercore or with `Durability::None`, so others may have seen
//! it. It is kept, and those of its blocks that a power cut took count as not held, to be fetched from a peer.
//!
//! Any other block that fails its hash is damaged: its entry is kept, reading the block is an error, and
//! `verify` names it.
//!
//! A reader's core can fetch everything again: it counts blocks that lie beyond the end of `data` as not held.
//!
//! None of this is written before the first change of the core: see [`Preparation`].
//!
//! # Drafts
//!
//! A batch of JavaScript Hypercore may store blocks after the end of the log before they are signed: its entries add
//! blocks and nodes and do not change the log's length. A later signed entry extends the log over these drafts and
//! lists only the blocks after them. The drafts themselves are then in the entries before it or, after a flush, only
//! in the files, beyond the length in the header. Blocks in the files beyond that length count only if an entry
//! extends the log over them. Drafts that were never signed are not part of the log.
//!
//! # Roots
//!
//! For the head, replay tracks only fork and length. The roots are read once, at the end: a flush that a crash
//! stopped may already have cut off or overwritten the roots of earlier lengths. The roots have to be those that the
//! header's hash or the last entry's signature covers. A root that is not is recomputed from what is below it, and
//! `verify` reports it. If no recomputed roots fit, the core does not open. There is one exception: where more than
//! one signer is needed, a head may count without such a signature, for it may be one signer's draft.

use std::sync::Arc;

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::apply_entry::{LogPosition, signs_drafts};
use crate::core::lost_blocks::{LostBlocks, added_blocks, beyond_data};
use crate::core::open_options::OpenOptions;
use crate::core::rebuild::{self, held_node};
use crate::core::recovery_report::Recovery;
use crate::core::state::{Files, State, storage_path};
use crate::core::writer::Preparation;
use crate::flat_tree::full_roots;
use crate::index::NodeIndex;
use crate::manifest::{self, Verifier};
use crate::merkle::Head;
use crate::node::Roots;
use crate::oplog::{Entry, Header};
use crate::storage::backend::Storage;
use crate::storage::bitfield::{Bitfield, BitsPlan};
use crate::storage::tree::Tree;
use crate::{Error, ErrorKind, Result};

/// The most blocks that one entry may add. No implementation writes entries with more.
const MAX_ENTRY_BLOCKS: u64 = 1 << 24;

/// The state that was read, and the preparation that the files need before the first change.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) preparation: Preparation,
}

/// The state that the header and the entries of `found` describe, less what a crash took.
pub(crate) fn recover(
    storage: &Arc<dyn Storage>,
    files: &Files,
    found: &crate::oplog::OpenedOplog,
    options: &OpenOptions,
) -> Result<Recovered> {
    let (header, entries) = (&found.header, &found.entries[..]);
    let lost_length = found.lost_length;
    let verifier = verifier(storage, header, options)?;
    // A flush writes the tree before the header, and removes the entries after it. So if there are no entries, a
    // leaf just past the header's length means that a newer header was damaged, unless the leaf is a draft's.
    let next = NodeIndex::of_block(header.tree.length.min(MAX_SAFE_INTEGER / 2));
    let is_longer = entries.is_empty() && held_node(&files.tree, next)?.is_some();
    if found.may_be_outdated && is_longer && !verifier.learn(None).is_ok_and(|verifier| verifier.needs_several()) {
        let what = format!(
            "one of the two headers is damaged, and the log is longer than the {} blocks in the other: nothing was \
             changed; restore the file from a copy, or make the core again (`overwrite`) and download the log from a \
             peer",
            header.tree.length
        );
        return Err(Error::corrupt(what).at(storage.path("oplog")));
    }
    let mut replayed = replay(storage, files, header, entries, verifier.clone())?;
    let added = added_blocks(entries);
    let lost = LostBlocks::find(&replayed.state, entries, &added)?;
    let mut found = None;
    if let Some(discarded_from) = lost.discarded_from {
        let from = replayed.state.head.length();
        replayed = replay(storage, files, header, &entries[..discarded_from], verifier)?;
        let to = replayed.state.head.length();
        let blocks = added.values().filter(|&&entry| entry >= discarded_from).count() as u64;
        found = Some(Recovery { from, to, blocks, missing: Vec::new() });
    }
    let Replayed { mut state, is_cut } = replayed;
    if let Some(from) = lost_length.filter(|&from| from > state.head.length()) {
        // It is not known which blocks the lost entry added apart from the length.
        let to = state.head.length();
        found = Some(Recovery { from, to, blocks: from - to, missing: Vec::new() });
    }
    let mut missing = lost.missing;
    if header.key_pair.is_none() && options.key_pair.is_none() {
        missing.extend(beyond_data(&state)?);
    }
    for range in &missing {
        state.files_mut()?.bits.set_range(range.start, range.end - range.start, false)?;
    }
    if !missing.is_empty() {
        state.stored_contiguous = None;
        let lost = Recovery::of_missing(state.head.length(), missing);
        found = Some(lost.merged_with(found));
    }
    let before = Recovery::load(&state.user_data);
    let flush = is_cut || found.is_some();
    state.set_recovery(match found {
        Some(found) => Some(found.merged_with(before)),
        None => before,
    });
    state.clear_recovery_if_resolved();
    let drops = entries.iter().filter_map(|entry| entry.bitfield.filter(|bits| bits.drop));
    let holes = drops.map(|bits| bits.start..bits.start.saturating_add(bits.length)).collect();
    Ok(Recovered { state, preparation: Preparation::Due { flush, holes } })
}

/// The verifier of the core, from the header and the options.
fn verifier(storage: &Arc<dyn Storage>, header: &Header, options: &OpenOptions) -> Result<Verifier> {
    if let Some(key) = options.key.filter(|key| *key != header.key) {
        return Err(Error::new(
            ErrorKind::StorageConflict,
            format!("the core {} is stored here, not {key}: give that key, or another directory", header.key),
        )
        .at(storage_path(storage)));
    }
    let Some(manifest) = &options.manifest else {
        // Without a manifest the key counts as a public key until a proof shows otherwise.
        return Verifier::new(header.key, header.manifest.clone(), options.compat != Some(false))
            .map_err(|e| Error::corrupt(format!("the header is damaged: {e}")).at(storage.path("oplog")));
    };
    let conflict = || {
        let what = format!(
            "the core {} is stored here, and the given manifest is of another core: give its manifest, or another \
             directory",
            header.key
        );
        Error::new(ErrorKind::StorageConflict, what).at(storage_path(storage))
    };
    let given = Verifier::new(header.key, Some(manifest.clone()), false).map_err(|_| conflict())?;
    // A caller that gives a manifest and no key asks for the core that the manifest's hash names.
    if options.key.is_none() && options.compat != Some(true) && manifest.key() != header.key {
        return Err(conflict());
    }
    match &header.manifest {
        Some(stored) => Verifier::new(header.key, Some(stored.clone()), false),
        None => Ok(given),
    }
}

/// The result of replaying the header and some entries.
struct Replayed {
    state: State,
    /// Whether an entry truncated the log. If so, a flush has to come before the next append: JavaScript Hypercore
    /// cannot read blocks that are appended after an unflushed truncation.
    is_cut: bool,
}

/// The state that the header and `entries` describe.
fn replay(
    storage: &Arc<dyn Storage>,
    files: &Files,
    header: &Header,
    entries: &[Entry],
    verifier: Verifier,
) -> Result<Replayed> {
    let mut tree = Tree::new(files.tree.file().clone());
    // Nodes beyond the log come from an unfinished flush, whose entries bring them again, from a core that was
    // overwritten, or from drafts.
    if tree.reaches_past(header.tree.length) && !entries.iter().any(|entry| signs_drafts(&entry.as_ref())) {
        tree.truncate(header.tree.length);
    }
    let mut user_data = header.user_data.clone();
    // JavaScript Hypercore keeps an empty value in the header until it reads it again.
    user_data.retain(|(_, value)| !value.is_empty());
    let mut state = State {
        head: Head::default(),
        verifier,
        contiguous: None,
        user_data,
        reorgs: header.reorgs.clone(),
        snapshots: Vec::new(),
        repaired: Vec::new(),
        recovery: None,
        unannounced: None,
        stored_contiguous: entries.is_empty().then_some(header.contiguous_length),
        files: Some(Files {
            tree,
            bits: Bitfield::new(files.bits.file().clone()),
            blocks: files.blocks.clone(),
            oplog: files.oplog.clone(),
        }),
    };
    if header.tree.length > MAX_SAFE_INTEGER / 2 {
        let what = format!("the header says the log has {} blocks, more than a log can have", header.tree.length);
        return Err(Error::corrupt(what).at(storage.path("oplog")));
    }
    let mut at = LogPosition { fork: header.tree.fork, length: header.tree.length, added_end: 0 };
    let (mut signature, mut is_cut) = (&header.tree.signature, false);
    for entry in entries {
        let bad = |what| Error::corrupt(format!("an entry of the log of changes {what}")).at(storage.path("oplog"));
        check(entry, &at).map_err(bad)?;
        let entry = entry.as_ref();
        is_cut |= at.is_cut_by(&entry);
        if let Some(to) = entry.upgrade {
            signature = &to.signature;
        }
        let bits = &mut state.files_mut()?.bits;
        let mut plan = BitsPlan::default();
        at.plan_bits(&entry, bits, &mut plan)?;
        bits.apply(plan);
        state.apply_entry(&entry, &mut at)?;
    }
    let files = state.files_mut()?;
    if files.tree.reaches_past(at.length) {
        files.tree.truncate(at.length);
    }
    files.bits.set_range(at.length, at.added_end.saturating_sub(at.length), false)?;
    let moved = entries.iter().any(|entry| entry.upgrade.is_some());
    let roots = roots(&mut state, header, &at, signature, moved)?.ok_or_else(|| {
        Error::corrupt(
            "the roots of the tree are not those that were signed, and do not follow from the stored blocks: the \
             file is damaged; restore it from a copy, or download the core again",
        )
        .at(storage.path("tree"))
    })?;
    state.head = Head { roots, fork: at.fork, signature: signature.clone() };
    Ok(Replayed { state, is_cut })
}

/// An error with the reason if `entry` cannot follow on the log at `at`.
fn check(entry: &Entry, at: &LogPosition) -> std::result::Result<(), &'static str> {
    if let Some(to) = &entry.upgrade {
        if to.ancestors > at.length.min(to.length) || to.length > MAX_SAFE_INTEGER / 2 {
            return Err("moves the log to a length that does not follow from the length before");
        }
    }
    match entry.bitfield {
        Some(bits) if !bits.drop && bits.length > MAX_ENTRY_BLOCKS => Err("adds more blocks than one entry can"),
        Some(bits) if bits.start.checked_add(bits.length).is_none() => {
            Err("names blocks beyond the longest possible log")
        }
        _ => Ok(()),
    }
}

/// The roots of the log at `at`: the stored ones if they are those that were signed, else as recomputed from what
/// is below them. `None` if neither fits.
fn roots(state: &mut State, header: &Header, at: &LogPosition, signature: &[u8], moved: bool) -> Result<Option<Roots>> {
    // Without an entry that moved the log, the header's hash decides. Otherwise the signature does, if it
    // can be checked.
    let verifier = if moved { state.verifier.learn(None).ok() } else { None };
    let is_right = |roots: &Roots| match (&verifier, header.tree.root_hash) {
        _ if roots.length() == 0 => true,
        (Some(verifier), _) => {
            let tree = manifest::SignableTree { roots, fork: at.fork };
            verifier.check(tree, signature).is_ok() || verifier.is_draft(tree, signature)
        }
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
    let Some(roots) = rebuild::roots(files, at.length, is_right)? else {
        // A draft of JavaScript Hypercore may have no signature yet.
        let may_be_draft = verifier.is_some_and(|verifier| verifier.needs_several());
        return Ok(stored.filter(|_| may_be_draft));
    };
    let files = state.files_mut()?;
    let mut repaired = Vec::new();
    for root in roots.nodes() {
        if held_node(&files.tree, root.index)? != Some(*root) {
            repaired.push(*root);
        }
    }
    files.tree.put(&repaired);
    state.repaired = repaired.iter().map(|node| node.index).collect();
    Ok(Some(roots))
}
