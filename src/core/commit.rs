//! The only place that changes a core: local edits and remote proofs come through here, one commit at a time.
//!
//! The order, and what a crash leaves after each step:
//!
//! 0. Once, before the first change: [`adopt`](Shared::adopt).
//! 1. Blocks to `data`: past the end or where no block is held, so nobody looks there yet. Crash: stray bytes, harmless.
//! 2. (durability `always`: `data` synced.)
//! 3. Entries to `oplog`: **the commit point**. Crash before: the old state. A torn entry fails its checksum and is cut off.
//! 4. (`always`: `oplog` synced.)
//! 5. Memory: head, overlay nodes, bits; waiters, events and peers are told.
//! 6. When due, [`flush`](Shared::flush): (unless `none`: `data` and `oplog` synced) dirty pages to `bitfield`, the cut and the
//!    overlay to `tree`; after a truncation, `data` is cut. Crash: the entries say the same again. (unless `none`: all synced.) The
//!    other header slot is written, which in one stroke outdates the entries. (unless `none`: synced.) The entries are cut off.

use std::sync::atomic::Ordering;

use crate::core::events::Event;
use crate::core::network::Changed;
use crate::core::options::Durability;
use crate::core::state::{Shared, State, Writer, place};
use crate::flat_tree::full_roots;
use crate::manifest::Authority;
use crate::merkle::{self, NodeSource, Patch};
use crate::oplog::{BitfieldUpdate, EntryRef, ReorgHint, TreeUpgrade};
use crate::{Error, Result};

/// The oplog is flushed when its entries exceed this many bytes, as in the reference;
const MAX_ENTRY_BYTES: u64 = 64 * 1024;
/// where each flush waits for the disk several times, seldomer;
const MAX_SYNCED_ENTRY_BYTES: u64 = 256 * 1024;
/// or when this many bytes of blocks were written since: what has to be checked again after a crash stays bounded.
const MAX_BLOCK_BYTES: u64 = 16 * 1024 * 1024;

/// One change: all of it happens or none.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// What happens to the tree.
    pub(crate) patch: Option<Patch>,
    /// Which blocks come or go.
    pub(crate) bits: Option<BitfieldUpdate>,
    /// A key to set; an empty value deletes it.
    pub(crate) user_data: Option<(String, Vec<u8>)>,
    /// A manifest that was learnt and checked.
    pub(crate) authority: Option<Authority>,
}

/// Bytes to write to `data` at an offset.
pub(crate) struct BlockBytes<'a> {
    pub(crate) offset: u64,
    pub(crate) blocks: &'a [&'a [u8]],
}

impl Shared {
    /// Commits `changes`, in order, each whole or not at all; on an error after bytes may have moved the writer latches.
    ///
    /// The caller made them on the present head, under this writer. Waiters and peers are told at once; events wait for
    /// [`Shared::deliver`], to be called when the locks are given up.
    pub(crate) fn commit(&self, writer: &mut Writer, data: &[BlockBytes<'_>], changes: Vec<Change>) -> Result<()> {
        self.reopen_files(writer)?;
        let done = self.commit_unlatched(writer, data, changes);
        if let Err(error) = &done {
            writer.latch.get_or_insert_with(|| error.clone());
        }
        done
    }

    fn commit_unlatched(&self, writer: &mut Writer, data: &[BlockBytes<'_>], changes: Vec<Change>) -> Result<()> {
        self.adopt(writer)?;
        let blocks = self.state.read().files()?.blocks.clone();
        for bytes in data {
            blocks.write(bytes.offset, bytes.blocks)?;
            writer.unflushed_bytes += bytes.blocks.iter().map(|b| b.len() as u64).sum::<u64>();
        }
        let always = self.durability == Durability::Always;
        if always && !data.is_empty() {
            blocks.sync()?;
        }
        let upgrades: Vec<Option<TreeUpgrade>> = changes.iter().map(Change::tree_upgrade).collect();
        let entries: Vec<EntryRef<'_>> = changes
            .iter()
            .zip(&upgrades)
            .filter(|(change, _)| !change.is_header_only())
            .map(|(change, upgrade)| change.entry(upgrade.as_ref()))
            .collect();
        if !entries.is_empty() {
            writer.oplog.append(&entries, false)?;
            writer.has_unflushed = true;
            if always {
                writer.oplog.sync()?;
            }
        }
        let mut truncated = false;
        let mut told = Told::default();
        {
            let mut state = self.state.write();
            for change in changes {
                writer.header_is_stale |= change.authority.is_some();
                truncated |= change.patch.as_ref().is_some_and(Patch::truncates);
                state.apply(change, self, &mut told)?;
            }
        }
        self.tell(told);
        let most = if self.durability == Durability::None { MAX_ENTRY_BYTES } else { MAX_SYNCED_ENTRY_BYTES };
        // The reference cannot read blocks that were appended behind an unflushed truncation.
        if truncated
            || writer.header_is_stale
            || writer.oplog.entries_byte_length() >= most
            || writer.unflushed_bytes >= MAX_BLOCK_BYTES
        {
            self.flush(writer)?;
        }
        Ok(())
    }

    /// Makes the files, before anything is added to them for the first time, what this durability takes them for:
    ///
    /// * `data` ends where the log does: what a crash or another implementation left beyond is cut off, so that bytes not yet
    ///   written read as zeros (see `core/restore.rs`);
    /// * with `always`, what was there before is on the disk, names included: whoever wrote it may not have waited for that. (With `flush`
    ///   the next flush sees to it.)
    fn adopt(&self, writer: &mut Writer) -> Result<()> {
        if writer.is_adopted {
            return Ok(());
        }
        let (tree, bits, blocks, end) = {
            let state = self.state.read();
            let files = state.files()?;
            (files.tree.file().clone(), files.bits.file().clone(), files.blocks.clone(), state.head.byte_length())
        };
        let sync = self.durability != Durability::None;
        let cut = blocks.len()? > end;
        if cut {
            blocks.set_len(end)?;
        }
        if self.durability == Durability::Always {
            blocks.sync()?;
            bits.sync()?;
            tree.sync()?;
            writer.oplog.sync_all()?;
        } else if sync && cut {
            blocks.sync()?;
        }
        if sync {
            self.medium.sync_dir().map_err(|e| Error::from_io(e, "sync", place(&self.medium)))?;
        }
        writer.is_adopted = true;
        Ok(())
    }

    /// Writes what the oplog holds to its places, and the header that makes it void.
    pub(crate) fn flush(&self, writer: &mut Writer) -> Result<()> {
        self.adopt(writer)?;
        let sync = self.durability != Durability::None;
        let (tree_file, bits_file, blocks, nodes, pages, bytes_kept) = {
            let state = self.state.read();
            let files = state.files()?;
            let nodes = files.tree.pending();
            let cut = nodes.as_ref().and_then(|nodes| nodes.cut);
            let bytes_kept = cut.map_or(Ok(0), |length| state.bytes_kept(length))?;
            (
                files.tree.file().clone(),
                files.bits.file().clone(),
                files.blocks.clone(),
                nodes,
                files.bits.dirty_pages(),
                bytes_kept,
            )
        };
        // What is overwritten below is needed by the old header alone; the entries have to be safe before.
        if sync && self.durability != Durability::Always {
            blocks.sync()?;
            writer.oplog.sync()?;
        }
        if !pages.is_empty() {
            bits_file.write_pages(&pages)?;
        }
        if let Some(pending) = &nodes {
            if let Some(length) = pending.cut {
                tree_file.cut(length)?;
                // What is written there next is told from what was there before by the zeros that it overwrites.
                if blocks.len()? > bytes_kept {
                    blocks.set_len(bytes_kept)?;
                }
                if sync {
                    blocks.sync()?;
                }
            }
            tree_file.write(&pending.nodes)?;
        }
        if sync {
            bits_file.sync()?;
            tree_file.sync()?;
        }
        let header = {
            let mut state = self.state.write();
            let contiguous = state.count_contiguous()?;
            state.contiguous = Some(contiguous);
            state.stored_contiguous = Some(contiguous);
            state.healed.clear();
            let files = state.files_mut()?;
            files.bits.forget(&pages);
            if let Some(pending) = &nodes {
                files.tree.forget(pending);
            }
            state.header(self.key, writer.key_pair.as_ref())
        };
        writer.oplog.flush(&header, sync)?;
        writer.unflushed_bytes = 0;
        writer.has_unflushed = false;
        writer.header_is_stale = false;
        Ok(())
    }

    /// Flushes now; on an error after bytes may have moved the writer latches.
    pub(crate) fn flush_or_latch(&self, writer: &mut Writer) -> Result<()> {
        self.reopen_files(writer)?;
        let done = self.flush(writer);
        if let Err(error) = &done {
            writer.latch.get_or_insert_with(|| error.clone());
        }
        done
    }

    /// Wakes waiters, tells the network, queues events.
    fn tell(&self, told: Told) {
        for change in &told.changes {
            match change {
                Changed::Blocks { start, length, drop: false } => self.wants.blocks_arrived(*start, *length),
                Changed::Truncated { ancestors, length } => {
                    // A snapshot waits in vain for a block that was cut.
                    self.wants.blocks_arrived(*ancestors, length - ancestors);
                    self.wants.head_changed();
                }
                _ => self.wants.head_changed(),
            }
        }
        match self.network.get() {
            Some(network) => network.changed(&told.changes),
            None => self.finish_downloads(),
        }
        told.events.into_iter().for_each(|event| self.events.push(event));
    }
}

/// What has to be told of a commit once the state is free.
#[derive(Default)]
pub(crate) struct Told {
    events: Vec<Event>,
    changes: Vec<Changed>,
}

impl Change {
    fn is_header_only(&self) -> bool {
        self.patch.is_none() && self.bits.is_none() && self.user_data.is_none()
    }

    fn tree_upgrade(&self) -> Option<TreeUpgrade> {
        let patch = self.patch.as_ref()?;
        let head = patch.upgrade.as_ref()?;
        Some(TreeUpgrade {
            fork: head.fork,
            ancestors: patch.ancestors,
            length: head.length(),
            signature: head.signature.clone(),
        })
    }

    fn entry<'a>(&'a self, upgrade: Option<&'a TreeUpgrade>) -> EntryRef<'a> {
        EntryRef {
            user_data: self.user_data.as_ref().map(|(key, value)| (key.as_str(), value.as_slice())),
            nodes: self.patch.as_ref().map_or(&[], |p| &p.nodes),
            upgrade,
            bitfield: self.bits,
        }
    }
}

impl Patch {
    /// Whether it takes blocks off the log, or none but moves it to another fork all the same.
    pub(crate) fn truncates(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|head| self.ancestors < self.base_length || head.fork != self.base_fork)
    }
}

impl State {
    /// Makes `change` visible. `told` collects whom to tell.
    pub(crate) fn apply(&mut self, change: Change, shared: &Shared, told: &mut Told) -> Result<()> {
        let before = self.count_contiguous()?;
        // All that can fail comes first: readers see the whole change or nothing of it.
        self.change_bits(&change)?;
        self.contiguous = Some(before);
        self.stored_contiguous = None;
        if let Some(authority) = change.authority {
            self.authority = authority;
            told.events.push(Event::Manifest);
            told.changes.push(Changed::Manifest);
        }
        if let Some((key, value)) = change.user_data {
            shared.encrypted.follow(&key, &value);
            set_user_data(&mut self.user_data, key, value);
        }
        let (mut appended, mut truncated) = (false, None);
        if let Some(patch) = change.patch {
            let old_length = self.head.length();
            if patch.truncates() {
                shared.generation.fetch_add(1, Ordering::SeqCst);
                truncated = Some((patch.ancestors, old_length));
                self.snapshots.retain(|snapshot| {
                    let Some(snapshot) = snapshot.upgrade() else { return false };
                    snapshot.compat_length.fetch_min(patch.ancestors, Ordering::SeqCst);
                    true
                });
            }
            self.apply_patch(patch)?;
            appended = self.head.length() > truncated.map_or(old_length, |(ancestors, _)| ancestors);
        }
        if let Some(bits) = change.bits {
            if bits.drop {
                shared.generation.fetch_add(1, Ordering::SeqCst);
            }
            self.follow_contiguous(bits);
        }
        let contiguous = self.contiguous.unwrap_or(0);
        if appended || truncated.is_some() || contiguous != before {
            told.events.push(Event::Head {
                appended,
                truncated: truncated.map(|(ancestors, _)| (ancestors, self.head.fork)),
                contiguous_grew: contiguous > before,
                contiguous_shrank: (contiguous < before).then_some((contiguous, self.head.fork)),
            });
        }
        if let Some((ancestors, length)) = truncated {
            told.changes.push(Changed::Truncated { ancestors, length });
        }
        if appended {
            told.changes.push(Changed::Head);
        }
        if let Some(bits) = change.bits.filter(|bits| !(bits.drop && truncated.is_some())) {
            told.changes.push(Changed::Blocks { start: bits.start, length: bits.length, drop: bits.drop });
        }
        Ok(())
    }

    /// The bits of `change`. After an error none of those that a reader looks at has changed.
    fn change_bits(&mut self, change: &Change) -> Result<()> {
        let from = self.head.length();
        let files = self.files.as_mut().ok_or_else(crate::core::state::closed)?;
        let mut cut = None;
        if let Some((patch, head)) = change.patch.as_ref().and_then(|patch| Some((patch, patch.upgrade.as_ref()?))) {
            cut = patch.truncates().then_some(patch.ancestors);
            let kept = cut.unwrap_or(from);
            // No bit past the old end was ever vouched for.
            files.bits.set_range(kept, from.max(head.length()) - kept, false)?;
        }
        match change.bits {
            Some(bits) if !(bits.drop && cut.is_some_and(|cut| cut <= bits.start)) => {
                files.bits.set_range(bits.start, bits.length, !bits.drop)
            }
            _ => Ok(()),
        }
    }

    /// Moves tree and head.
    fn apply_patch(&mut self, patch: Patch) -> Result<()> {
        let old_length = self.head.length();
        let files = self.files.as_mut().ok_or_else(crate::core::state::closed)?;
        if patch.truncates() && patch.ancestors < old_length {
            files.tree.truncate(patch.ancestors);
            self.contiguous = self.contiguous.map(|c| c.min(patch.ancestors));
        }
        files.tree.put(&patch.nodes);
        let Some(head) = patch.upgrade else { return Ok(()) };
        if head.fork != self.head.fork && old_length > 0 {
            self.add_reorg_hint(ReorgHint { from: self.head.fork, to: head.fork, ancestors: patch.ancestors });
        }
        self.head = head;
        Ok(())
    }

    /// Where the bytes end that a log cut to `length` blocks needs, and those of the blocks that came since.
    fn bytes_kept(&self, length: u64) -> Result<u64> {
        let files = self.files()?;
        let mut end = 0_u64;
        for root in full_roots(length.min(self.head.length())) {
            match files.tree.node(root)? {
                Some(root) => end = end.saturating_add(root.size),
                None => return Ok(self.head.byte_length()),
            }
        }
        match files.bits.last_set_before(self.head.length())? {
            Some(last) if last >= length => {
                let (start, size) = merkle::byte_range(&files.tree, &self.head, last)?;
                Ok(end.max(start.saturating_add(size)))
            }
            _ => Ok(end),
        }
    }

    /// The contiguous length after bits were set or dropped, where it was counted before; it is left to be counted again where that
    /// cannot be done now.
    fn follow_contiguous(&mut self, update: BitfieldUpdate) {
        let length = self.head.length();
        let end = update.start.saturating_add(update.length);
        let Some(files) = &self.files else { return };
        self.contiguous = match self.contiguous {
            Some(c) if update.drop => Some(c.min(update.start)),
            Some(c) if (update.start..=end).contains(&c) => {
                files.bits.first_unset(end.min(length), length).ok().map(|first| first.unwrap_or(length))
            }
            unchanged => unchanged,
        };
    }

    /// Only hints: a few of the last, none that a later cut made meaningless.
    pub(crate) fn add_reorg_hint(&mut self, hint: ReorgHint) {
        const KEPT: usize = 4;
        let surplus = (self.reorgs.len() + 1).saturating_sub(KEPT);
        self.reorgs.drain(..surplus.min(self.reorgs.len()));
        while self.reorgs.last().is_some_and(|last| last.ancestors > hint.ancestors) {
            self.reorgs.pop();
        }
        self.reorgs.push(hint);
    }
}

pub(crate) fn set_user_data(list: &mut Vec<(String, Vec<u8>)>, key: String, value: Vec<u8>) {
    let at = list.iter().position(|(k, _)| *k == key);
    match (at, value.is_empty()) {
        (Some(at), true) => {
            list.remove(at);
        }
        (Some(at), false) => list[at].1 = value,
        (None, true) => {}
        (None, false) => list.push((key, value)),
    }
}
