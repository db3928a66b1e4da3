//! What the files of a core say its state is: the header, the entries since, and which of these can stand.
//!
//! # What a power cut can take, and what it cannot
//!
//! Where the disk is not waited for at each change, a power cut may leave an entry in
//! `oplog` but not, or not all of, the bytes that were written to `data` before it. An entry is given up, with all
//! that follow it, only where that explains what is missing:
//!
//! 1. The entry is marked as not waited for
//!    ([`Marks::unsynced`](crate::oplog::Marks)), and so are all that follow it. No peer has heard of such an entry, so that the log may go on from before it. Nothing that was written with `Durability::Always`
//!    is ever given up.
//! 2. No entry from it on says that all before is on the disk.
//! 3. A block that it brings fails its hash, or is not all there, and more sectors of its blocks (512 bytes of the
//!    file, as far as the blocks reach) are zeros, or lie beyond the end of the file, than were zeros when it was
//!    written. **Bytes of
//!    `data` are zeros before they are written**: past the end, which [`prepare_files`](crate::core::shared::Shared::prepare_files)
//!    sees to, as does the flush that follows each truncation at once; in holes, because they were never written or
//!    were punched.
//! 4. `data` is there, as its name is on the disk before the first entry, and reaches as far as the blocks from
//!    before these entries do: a file that is missing, or was cut, is not a power cut's work.
//! 5. Where the blocks lie is proven by the tree up to the signed roots: a damaged node makes no block look lost.
//!
//! An entry without marks is the reference's, or was written with `Durability::None`: others may have seen it. It
//! stands, and those of its blocks that a power cut took count as not held, to be fetched from a peer.
//!
//! Everything else that fails its hash is damaged: the entry stands, reading the block is an error, `verify` names it.
//!
//! A reader's core, which can fetch everything again, counts blocks as not held that lie beyond the end of `data`.
//!
//! None of this is written before the first change of the core: see [`Preparation`].
//!
//! # Drafts
//!
//! A batch of the reference may put blocks behind the log before they are signed: entries that bring blocks and nodes
//! and do not move the log. A later entry takes them in. It moves the log over them and brings only what follows them,
//! so that what they are is in the entries before it or, after a flush, in the files alone, beyond what the header
//! tells of. Only where an entry does that does anything count that the files hold there. Drafts that were never
//! signed are no part of the log.
//!
//! # Roots
//!
//! Entries are replayed out by lengths alone, and the roots looked for at the end: a flush that a crash stopped may
//! have cut or overwritten those of the lengths before. They should be what the header's hash, or the last entry's
//! signature, is over. A root that is not is computed anew from what is below it, and `verify` tells of it. Where that
//! leads to nothing the core does not open. Only where more than one signer is needed a head may stand without them:
//! one signer's draft.

use std::sync::Arc;

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::losses::{Losses, added_blocks, beyond_data};
use crate::core::open_options::OpenOptions;
use crate::core::rebuild::{self, held_node};
use crate::core::recovery_report::Recovery;
use crate::core::state::{Files, State, storage_path};
use crate::core::transition::{Position, signs_drafts};
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

/// The most blocks that one entry may say came: entries with more are not written by anybody.
const MAX_ENTRY_BLOCKS: u64 = 1 << 24;

/// A state as it was found.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) preparation: Preparation,
}

/// The state that the header and the entries of `found` describe, less what a crash took.
pub(crate) fn recover(
    storage: &Arc<dyn Storage>,
    files: &Files,
    found: &crate::oplog::Recovered,
    options: &OpenOptions,
) -> Result<Recovered> {
    let (header, entries) = (&found.header, &found.entries[..]);
    let lost_length = found.lost_length;
    let verifier = verifier(storage, header, options)?;
    // A header is written when the tree has been, and the entries go when the header is there: without them, the leaf
    // of one block more than the header says is that of a header which was damaged. Drafts may stand there too.
    let next = NodeIndex::of_block(header.tree.length.min(MAX_SAFE_INTEGER / 2));
    let is_longer = entries.is_empty() && held_node(&files.tree, next)?.is_some();
    if found.may_be_outdated && is_longer && !verifier.learn(None).is_ok_and(|verifier| verifier.needs_several()) {
        let what = format!(
            "one of the two headers is damaged, and the log is longer than the {} blocks that the other tells of: nothing is changed \
             here; restore the file from a copy, or make the core anew (`overwrite`) and fetch the log from a peer",
            header.tree.length
        );
        return Err(Error::corrupt(what).at(storage.path("oplog")));
    }
    let mut replayed = replay(storage, files, header, entries, verifier.clone())?;
    let added = added_blocks(entries);
    let losses = Losses::find(&replayed.state, entries, &added)?;
    let mut found = None;
    if let Some(discarded_from) = losses.discarded_from {
        let from = replayed.state.head.length();
        replayed = replay(storage, files, header, &entries[..discarded_from], verifier)?;
        let to = replayed.state.head.length();
        let blocks = added.values().filter(|&&entry| entry >= discarded_from).count() as u64;
        found = Some(Recovery { from, to, blocks, missing: Vec::new() });
    }
    let Replayed { mut state, is_cut } = replayed;
    if let Some(from) = lost_length.filter(|&from| from > state.head.length()) {
        // What the lost entry brought besides is not known.
        let to = state.head.length();
        found = Some(Recovery { from, to, blocks: from - to, missing: Vec::new() });
    }
    let mut missing = losses.missing;
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

/// Who may sign the core, as far as header and options tell.
fn verifier(storage: &Arc<dyn Storage>, header: &Header, options: &OpenOptions) -> Result<Verifier> {
    if let Some(key) = options.key.filter(|key| *key != header.key) {
        return Err(Error::new(
            ErrorKind::StorageConflict,
            format!("the core {} is stored here, not {key}: give that key, or another directory", header.key),
        )
        .at(storage_path(storage)));
    }
    let Some(manifest) = &options.manifest else {
        // Without a manifest the key is taken for a public key until a proof shows otherwise.
        return Verifier::new(header.key, header.manifest.clone(), options.compat != Some(false))
            .map_err(|e| Error::corrupt(format!("the header is damaged: {e}")).at(storage.path("oplog")));
    };
    let conflict = || {
        let what = format!("the core {} is stored here, which is not of the manifest given", header.key);
        Error::new(ErrorKind::StorageConflict, what).at(storage_path(storage))
    };
    let given = Verifier::new(header.key, Some(manifest.clone()), false).map_err(|_| conflict())?;
    // Who gives a manifest alone asks for the core that is named by its hash.
    if options.key.is_none() && options.compat != Some(true) && manifest.key() != header.key {
        return Err(conflict());
    }
    match &header.manifest {
        Some(stored) => Verifier::new(header.key, Some(stored.clone()), false),
        None => Ok(given),
    }
}

/// What some entries come to.
struct Replayed {
    state: State,
    /// Whether an entry cut the log: the reference cannot read blocks that are appended behind it before it is
    /// flushed.
    is_cut: bool,
}

/// The state that header and `entries` describe.
fn replay(
    storage: &Arc<dyn Storage>,
    files: &Files,
    header: &Header,
    entries: &[Entry],
    verifier: Verifier,
) -> Result<Replayed> {
    let mut tree = Tree::new(files.tree.file().clone());
    // What stands beyond the log is of a flush that did not come to its end, whose entries say it again, of a core
    // that was overwritten, or of drafts.
    if tree.reaches_past(header.tree.length) && !entries.iter().any(|entry| signs_drafts(&entry.as_ref())) {
        tree.truncate(header.tree.length);
    }
    let mut user_data = header.user_data.clone();
    // The reference keeps an empty value until the header is read again.
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
        let what = format!("the header says the log has {} blocks, more than any log", header.tree.length);
        return Err(Error::corrupt(what).at(storage.path("oplog")));
    }
    let mut at = Position { fork: header.tree.fork, length: header.tree.length, added_end: 0 };
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
            "the roots of the tree are not those that were signed, and do not follow from the blocks that are here: the file is damaged; restore it from a copy, or download the core anew",
        )
        .at(storage.path("tree"))
    })?;
    state.head = Head { roots, fork: at.fork, signature: signature.clone() };
    Ok(Replayed { state, is_cut })
}

/// What is wrong with `entry`, if it cannot follow on what is at `at`.
fn check(entry: &Entry, at: &Position) -> std::result::Result<(), &'static str> {
    if let Some(to) = &entry.upgrade {
        if to.ancestors > at.length.min(to.length) || to.length > MAX_SAFE_INTEGER / 2 {
            return Err("moves the log to a length that does not fit");
        }
    }
    match entry.bitfield {
        Some(bits) if !bits.drop && bits.length > MAX_ENTRY_BLOCKS => Err("says that more blocks came than can"),
        Some(bits) if bits.start.checked_add(bits.length).is_none() => Err("speaks of blocks beyond any log"),
        _ => Ok(()),
    }
}

/// The roots of the log at `at`: as they are stored, or, where that is not what was signed, as they follow from what
/// is below.
fn roots(state: &mut State, header: &Header, at: &Position, signature: &[u8], moved: bool) -> Result<Option<Roots>> {
    // Without an entry that moved the log, the header's hash; else the signature, where it can be checked.
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
        // A draft of the reference may have no signature yet.
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
