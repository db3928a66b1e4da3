//! The only place that changes a core: local edits and remote proofs come through here, one commit at a time.
//!
//! The order, and what a crash leaves after each step:
//!
//! 0. Once, before the first change: [`adopt`](Shared::adopt).
//! 1. Everything that has to be read for the change is read, so that what follows the commit point cannot fail.
//! 2. Blocks to `data`: past the end or where no block is held, so nobody looks there yet. Crash: stray bytes,
//!    harmless.
//! 3. (A change that waits for the disk: `data` synced, and `oplog` where entries before are not.)
//! 4. Entries to `oplog`: **the commit point**. Crash before: the old state. A torn entry fails its checksum and is
//!    cut off.
//! 5. (A change that waits: `oplog` synced.)
//! 6. Memory: head, overlay nodes, bits; waiters, events and peers are told. This cannot fail.
//! 7. When due, [`flush`](Shared::flush): (unless `none`: `data` and `oplog` synced) dirty pages to
//!    `bitfield`, the cut and the overlay to `tree`; after a truncation,
//!    `data` is cut. Crash: the entries say the same again. (unless `none`: all synced.) The other header slot is
//!    written, which in one stroke outdates the entries. (unless `none`: synced.) The entries are cut off.
//!
//! A failure before the commit point is the call's error. One after it is not, for the change has happened: it poisons
//! the core, and the next call that writes, or closing, says why.
//!
//! With `always` every change waits for the disk. With `flush` those do that give up bytes which an entry before them
//! may need: truncations, forks and clears; and heads that a writer takes over from a peer.

use std::io;
use std::sync::atomic::Ordering;

use crate::core::durable::Lag;
use crate::core::events::Event;
use crate::core::network::Changed;
use crate::core::options::Durability;
use crate::core::proven;
use crate::core::state::{Adoption, Shared, State, Writer};
use crate::core::transition::Position;
use crate::manifest::Verifier;
use crate::merkle::Patch;
use crate::oplog::{BitfieldUpdate, EntryRef, Marks, TreeUpgrade};
use crate::storage::bitfield::BitsPlan;
use crate::storage::blocks::{Blocks, empty_sectors};
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
    pub(crate) verifier: Option<Verifier>,
    /// Who made it.
    pub(crate) origin: Origin,
}

/// Who made a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Origin {
    /// This core: peers may hear of it only when a power cut cannot take it back.
    #[default]
    Here,
    /// Others, who signed it.
    Peer,
}

/// Bytes to write to `data` at an offset, for the change of this number.
pub(crate) struct BlockBytes<'a> {
    pub(crate) offset: u64,
    pub(crate) blocks: &'a [&'a [u8]],
}

/// What was read for a commit before it began.
struct Plan {
    bits: BitsPlan,
    /// The contiguous length before, and after each change.
    contiguous_before: u64,
    contiguous: Vec<u64>,
}

impl Shared {
    /// Commits `changes`, in order, each whole or not at all.
    ///
    /// The caller made them on the present head, under this writer. Waiters and peers are told at once, events wait
    /// for [`Shared::deliver`], to be called when the locks are given up.
    ///
    /// # Errors
    /// Nothing of the changes is visible after an error; if bytes may have moved, the core is poisoned. A failure
    /// after the commit point is no error: it poisons the core and is told later.
    pub(crate) fn commit(&self, writer: &mut Writer, data: &[BlockBytes<'_>], changes: Vec<Change>) -> Result<()> {
        self.reopen_files(writer)?;
        self.adopt(writer).inspect_err(|error| self.poison_unless_full(writer, error))?;
        let plan = self.plan(&changes)?;
        let waits = self.waits_for(writer, &changes);
        self.write(writer, data, &changes, waits).inspect_err(|error| self.poison_unless_full(writer, error))?;
        let is_cut = self.show(writer, changes, plan, waits);
        self.flush_if_due(writer, is_cut);
        Ok(())
    }

    /// Commits that the blocks of
    /// `bits` are dropped. The caller gives their space back, and then has [`Shared::flush_if_due`] flush: there may
    /// be no room for that before. On a full disk, where no entry fits the oplog any more, the bits are cleared in the
    /// file `bitfield` itself, whose pages have their space: a crash may leave some of the blocks dropped and others
    /// not.
    pub(crate) fn commit_clear(&self, writer: &mut Writer, bits: BitfieldUpdate) -> Result<()> {
        self.reopen_files(writer)?;
        self.adopt(writer).inspect_err(|error| self.poison_unless_full(writer, error))?;
        let changes = vec![Change { bits: Some(bits), ..Change::default() }];
        let plan = self.plan(&changes)?;
        let (waits, blocks) = (self.waits_for(writer, &changes), self.state.read().files()?.blocks.clone());
        let mut in_place = false;
        let mut write = || {
            if waits {
                self.sync_before(writer, &blocks, false)?;
            }
            let marks = Marks { unsynced: None, settled: waits };
            match writer.oplog.append_to_free(EntryRef { marks, ..changes[0].entry(None) }) {
                Err(error) if is_out_of_space(&error) && writer.oplog.take_back().is_ok() => {
                    // What was missing at first says best what to do.
                    self.clear_in_place(writer, &changes).map_err(|_| error)?;
                    in_place = true;
                    Ok(())
                }
                appended => appended.and_then(|()| self.wrote(writer, waits)),
            }
        };
        write().inspect_err(|error| self.poison_unless_full(writer, error))?;
        writer.has_unflushed = true;
        writer.has_unsettled_tail = false;
        // The header's hint of a contiguous length is too high now.
        writer.header_is_stale |= in_place;
        self.show(writer, changes, plan, waits);
        Ok(())
    }

    /// Drops blocks without an entry: nothing is to be left in the oplog that says they are held.
    fn clear_in_place(&self, writer: &mut Writer, changes: &[Change]) -> Result<()> {
        self.flush(writer)?;
        let pages = self.plan(changes)?.bits.into_pages();
        let file = self.state.read().files()?.bits.file().clone();
        file.write_pages(&pages)?;
        if self.durability == Durability::None { Ok(()) } else { self.synced(file.sync()) }
    }

    /// What a sync returned. After one that failed the system may have dropped what it could not write: nothing is
    /// written any more.
    fn synced(&self, done: Result<()>) -> Result<()> {
        done.inspect_err(|error| self.poison(error))
    }

    /// Poisons the core for `error`, of which the caller is told, unless there was just no room and nothing of the
    /// change is left: room can be made, by a clear for one.
    fn poison_unless_full(&self, writer: &Writer, error: &Error) {
        if !self.is_harmless(writer, error) {
            self.poison_and_tell(error);
        }
    }

    fn is_harmless(&self, writer: &Writer, error: &Error) -> bool {
        is_out_of_space(error) && self.poison.get().is_none() && writer.oplog.is_good()
    }

    /// Reads what `changes` need to be carried out.
    fn plan(&self, changes: &[Change]) -> Result<Plan> {
        let contiguous_before = self.contiguous_length()?;
        // Nobody else changes the core meanwhile.
        let reading = self.reading()?;
        let bits = &reading.bits;
        let mut at = Position::of(&reading.head);
        let mut plan = Plan { bits: BitsPlan::default(), contiguous_before, contiguous: Vec::new() };
        let mut contiguous = contiguous_before;
        for change in changes {
            let upgrade = change.tree_upgrade();
            let entry = change.entry(upgrade.as_ref());
            at.plan_bits(&entry, bits, &mut plan.bits)?;
            if let Some(to) = &upgrade {
                contiguous = contiguous.min(to.ancestors);
                (at.fork, at.length) = (to.fork, to.length);
            }
            match change.bits {
                Some(update) if update.drop => contiguous = contiguous.min(update.start),
                Some(update) if (update.start..=update.start.saturating_add(update.length)).contains(&contiguous) => {
                    let end = update.start.saturating_add(update.length).min(at.length);
                    contiguous = plan.bits.first_unset(bits, end, at.length)?.unwrap_or(at.length);
                }
                _ => {}
            }
            plan.contiguous.push(contiguous);
        }
        Ok(plan)
    }

    /// Whether the commit of `changes` waits for the disk.
    fn waits_for(&self, writer: &Writer, changes: &[Change]) -> bool {
        let gives_up_bytes = |change: &Change| {
            let drops = change.bits.is_some_and(|bits| bits.drop);
            drops || change.patch.as_ref().is_some_and(Patch::truncates)
        };
        // A writer that lost what others told it of its log would sign a second history.
        let is_own_head = |change: &Change| {
            let moves = change.patch.as_ref().is_some_and(|patch| patch.upgrade.is_some());
            writer.signs && change.origin == Origin::Peer && moves
        };
        match self.durability {
            Durability::None => false,
            Durability::Flush => changes.iter().any(|change| gives_up_bytes(change) || is_own_head(change)),
            Durability::Always => true,
        }
    }

    /// Writes blocks and entries, up to the commit point and the sync behind it.
    fn write(&self, writer: &mut Writer, data: &[BlockBytes<'_>], changes: &[Change], waits: bool) -> Result<()> {
        let (blocks, end) = {
            let state = self.state.read();
            (state.files()?.blocks.clone(), state.head.byte_length())
        };
        let written = self.write_blocks(writer, &blocks, data, waits);
        let written = written.and_then(|()| self.write_entries(writer, data, changes, waits));
        if let Err(error) = written {
            if writer.oplog.take_back().is_ok() {
                // Without an entry nobody needs the blocks, and a full disk has room again.
                for bytes in data {
                    let len = bytes.blocks.iter().map(|block| block.len() as u64).sum();
                    let gone = if bytes.offset >= end { blocks.set_len(end) } else { blocks.punch(bytes.offset, len) };
                    gone.inspect_err(|error| self.poison(error))?;
                }
            }
            return Err(error);
        }
        self.wrote(writer, waits)
    }

    fn write_blocks(&self, writer: &mut Writer, blocks: &Blocks, data: &[BlockBytes<'_>], waits: bool) -> Result<()> {
        for bytes in data {
            blocks.write(bytes.offset, bytes.blocks)?;
            writer.unflushed_bytes += bytes.blocks.iter().map(|b| b.len() as u64).sum::<u64>();
        }
        if self.durability != Durability::None && !data.is_empty() {
            // An entry must not outlive the name of the file that its blocks are in.
            self.synced(blocks.sync_name())?;
        }
        if waits { self.sync_before(writer, blocks, !data.is_empty()) } else { Ok(()) }
    }

    /// Waits until everything before the next entry is on the disk, with the blocks that it brings, if it does.
    fn sync_before(&self, writer: &mut Writer, blocks: &Blocks, brings_blocks: bool) -> Result<()> {
        let (written, is_settled) = (self.synced.written(), self.synced.is_settled());
        if brings_blocks || !is_settled {
            self.synced(blocks.sync())?;
        }
        if !is_settled {
            self.synced(writer.oplog.sync())?;
            self.synced.is_synced(written);
        }
        Ok(())
    }

    fn write_entries(
        &self,
        writer: &mut Writer,
        data: &[BlockBytes<'_>],
        changes: &[Change],
        waits: bool,
    ) -> Result<()> {
        let upgrades: Vec<Option<TreeUpgrade>> = changes.iter().map(Change::tree_upgrade).collect();
        let mut settled = waits || (self.durability != Durability::None && self.synced.is_settled());
        let mut entries: Vec<EntryRef<'_>> = Vec::with_capacity(changes.len());
        let mut pieces = data.iter().flat_map(BlockBytes::pieces);
        for (change, upgrade) in changes.iter().zip(&upgrades).filter(|(change, _)| !change.is_header_only()) {
            let mut entry = change.entry(upgrade.as_ref());
            entry.marks.settled = settled;
            // A write may come to the disk in part: nothing is said of what is in it.
            settled = false;
            if self.durability == Durability::Flush && !waits {
                let count = change.bits.filter(|bits| !bits.drop).map_or(0, |bits| bits.length);
                entry.marks.unsynced = Some(empty_sectors(pieces.by_ref().take(count as usize)));
            }
            entries.push(entry);
        }
        if !entries.is_empty() {
            writer.oplog.append(&entries)?;
            writer.has_unflushed = true;
            writer.has_unsettled_tail = !waits;
        }
        Ok(())
    }

    /// Entries were written, and are waited for with `waits`. After an error the next open may find them.
    fn wrote(&self, writer: &mut Writer, waits: bool) -> Result<()> {
        self.synced.wrote();
        if waits {
            let written = self.synced.written();
            self.synced(writer.oplog.sync())?;
            self.synced.is_synced(written);
        }
        Ok(())
    }

    /// Makes changes visible whose entries are written, and tells of them; whether one of them cuts the log.
    fn show(&self, writer: &mut Writer, changes: Vec<Change>, plan: Plan, waits: bool) -> bool {
        let mut is_cut = false;
        {
            let _telling = self.telling.lock();
            let mut told = Told::default();
            {
                let mut state = self.state.write();
                let is_own = |change: &Change| change.origin == Origin::Here && change.patch.is_some();
                if self.hides_unsynced() && !waits && state.lag.is_none() && changes.iter().any(is_own) {
                    state.lag = Some(Lag::behind(state.head.clone()));
                }
                state.apply_bits(plan.bits);
                let mut before = plan.contiguous_before;
                for (change, contiguous) in changes.into_iter().zip(plan.contiguous) {
                    writer.header_is_stale |= change.verifier.is_some();
                    is_cut |= change.patch.as_ref().is_some_and(Patch::truncates);
                    state.apply(change, self, &mut told, before, contiguous);
                    before = contiguous;
                }
                state.forget_recovery_if_made_good();
                told.network = match &mut state.lag {
                    Some(lag) if !waits => {
                        lag.add(&told.changes);
                        ToNetwork::Later
                    }
                    // All that waited was synced with this, and comes before it.
                    lag => {
                        let mut changes = lag.take().map_or_else(Vec::new, Lag::into_changes);
                        changes.extend(&told.changes);
                        ToNetwork::Now(changes)
                    }
                };
            }
            self.tell(told);
        }
        is_cut
    }

    /// Flushes where that is due, behind changes that have happened: what fails now poisons the core. Where there is
    /// no room the entries stay in the oplog, and the next change tries again.
    pub(crate) fn flush_if_due(&self, writer: &mut Writer, is_cut: bool) {
        let most = if self.durability == Durability::None { MAX_ENTRY_BYTES } else { MAX_SYNCED_ENTRY_BYTES };
        // The reference cannot read blocks that were appended behind an unflushed truncation.
        let is_due = is_cut
            || writer.header_is_stale
            || writer.oplog.entries_byte_length() >= most
            || writer.unflushed_bytes >= MAX_BLOCK_BYTES;
        if is_due {
            let flushed = self.flush(writer);
            if let Some(error) = flushed.err().filter(|error| !self.is_harmless(writer, error)) {
                self.poison(&error);
            }
        }
    }

    /// Makes the files, before anything is added to them for the first time, what this durability takes them for:
    ///
    /// * `oplog` ends behind its last whole entry;
    /// * what opening gave up, and the cuts it found, are flushed: neither must come back behind the entries to come;
    /// * `data` ends where the log does: what a crash or another implementation left beyond is cut off, so that bytes not yet written read as zeros (see `core/recovery.rs`);
    /// * the space of blocks that were dropped is given back, should a crash have come in between;
    /// * with
    ///   `always`, what was there before is on the disk, names included: whoever wrote it may not have waited for that. (With `flush`
    ///   the next flush sees to it.)
    pub(crate) fn adopt(&self, writer: &mut Writer) -> Result<()> {
        let Adoption::Due { flush, holes } = writer.adoption.clone() else { return Ok(()) };
        let sync = self.durability != Durability::None;
        if sync {
            // A process that was killed may have made files whose names are not on the disk.
            self.synced(self.sync_dir())?;
        }
        self.synced(writer.oplog.cut_tail(sync))?;
        if flush {
            // Syncs the entries before it cuts what they allow to cut.
            self.flush_adopted(writer)?;
        }
        let (tree, bits, blocks, end) = {
            let state = self.state.read();
            let files = state.files()?;
            (files.tree.file().clone(), files.bits.file().clone(), files.blocks.clone(), state.head.byte_length())
        };
        let is_longer = blocks.len()? > end;
        if self.durability == Durability::Always {
            self.synced(blocks.sync())?;
            self.synced(bits.sync())?;
            self.synced(tree.sync())?;
            self.synced(writer.oplog.sync_all())?;
        } else if sync && (is_longer || !holes.is_empty()) {
            // The entries that the bytes beyond the end, or in the holes, are no part of any more.
            self.synced(writer.oplog.sync())?;
        }
        if is_longer {
            blocks.set_len(end)?;
            if sync {
                self.synced(blocks.sync())?;
            }
        }
        for hole in holes {
            self.give_back(hole)?;
        }
        if self.durability == Durability::Always {
            self.synced.is_synced(self.synced.written());
        }
        writer.adoption = Adoption::Done;
        Ok(())
    }

    /// Writes what the oplog holds to its places, and the header that makes it void.
    pub(crate) fn flush(&self, writer: &mut Writer) -> Result<()> {
        self.adopt(writer)?;
        self.flush_adopted(writer)
    }

    fn flush_adopted(&self, writer: &mut Writer) -> Result<()> {
        let sync = self.durability != Durability::None;
        let (tree_file, bits_file, blocks, nodes, pages) = {
            let state = self.state.read();
            let files = state.files()?;
            (
                files.tree.file().clone(),
                files.bits.file().clone(),
                files.blocks.clone(),
                files.tree.pending(),
                files.bits.dirty_pages(),
            )
        };
        let bytes_kept = match nodes.as_ref().and_then(|nodes| nodes.cut) {
            Some(_) => {
                let reading = self.reading()?;
                proven::end_of_held(&reading.tree(self), &reading.head, &reading.bits, u64::MAX)?
            }
            None => None,
        };
        let written = self.synced.written();
        // What is overwritten below is needed by the old header alone; the entries have to be safe before.
        if sync && !self.synced.is_settled() {
            self.synced(blocks.sync())?;
            self.synced(writer.oplog.sync())?;
        }
        // A header must not vouch for files that another program cut.
        bits_file.check()?;
        tree_file.check()?;
        if !pages.is_empty() {
            bits_file.write_pages(&pages)?;
        }
        if let Some(pending) = &nodes {
            if let Some(length) = pending.cut {
                tree_file.cut(length)?;
                // What is written there next is told from what was there before by the zeros that it overwrites.
                if let Some(kept) = bytes_kept.filter(|&kept| blocks.len().is_ok_and(|len| len > kept)) {
                    blocks.set_len(kept)?;
                }
                if sync {
                    self.synced(blocks.sync())?;
                }
            }
            tree_file.write(&pending.nodes)?;
        }
        if sync {
            self.synced(bits_file.sync())?;
            self.synced(tree_file.sync())?;
        }
        let contiguous = self.contiguous_length()?;
        let header = {
            let mut state = self.state.write();
            state.stored_contiguous = Some(contiguous);
            state.repaired.clear();
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
        writer.has_unsettled_tail = false;
        writer.header_is_stale = false;
        if sync {
            self.synced.is_synced(written);
            self.tell_flushed();
        }
        Ok(())
    }

    /// A flush has synced what peers were not told of.
    fn tell_flushed(&self) {
        let _telling = self.telling.lock();
        let Some(lag) = self.state.write().lag.take() else { return };
        if let Some(network) = self.network.get() {
            network.changed(&lag.into_changes());
        }
    }

    /// Flushes now, for a caller that is told of an error; the core is poisoned by one.
    pub(crate) fn flush_now(&self, writer: &mut Writer) -> Result<()> {
        self.reopen_files(writer)?;
        self.flush(writer).inspect_err(|error| self.poison_unless_full(writer, error))
    }

    /// Wakes waiters, tells the network, queues events. The caller holds the right to tell.
    fn tell(&self, told: Told) {
        for change in &told.changes {
            match change {
                Changed::Blocks { start, length, drop: false } => self.waiters.blocks_arrived(*start, *length),
                Changed::Truncated { ancestors, length } => {
                    // A snapshot waits in vain for a block that was cut.
                    self.waiters.blocks_arrived(*ancestors, length - ancestors);
                    self.waiters.head_changed();
                }
                _ => self.waiters.head_changed(),
            }
        }
        match (self.network.get(), told.network) {
            (None, _) => self.finish_downloads(),
            (Some(network), ToNetwork::Now(changes)) => network.changed(&changes),
            (Some(network), ToNetwork::Later) => {
                self.finish_held_downloads();
                network.unsettled();
            }
        }
        told.events.into_iter().for_each(|event| self.events.push(event));
    }
}

/// Whether `error` says that there is no room: on the disk, under a quota, or under a limit of the process.
pub(crate) fn is_out_of_space(error: &Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    error.io_error().is_some_and(|e| matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

impl<'a> BlockBytes<'a> {
    /// Each block with its offset.
    fn pieces(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let mut at = self.offset;
        self.blocks.iter().map(move |block| {
            let offset = at;
            at = at.saturating_add(block.len() as u64);
            (offset, *block)
        })
    }
}

/// What has to be told of a commit once the state is free.
#[derive(Default)]
struct Told {
    events: Vec<Event>,
    changes: Vec<Changed>,
    network: ToNetwork,
}

/// When the network is told.
enum ToNetwork {
    /// When the changes are on the disk.
    Later,
    /// Now, of all this.
    Now(Vec<Changed>),
}

impl Default for ToNetwork {
    fn default() -> Self {
        ToNetwork::Now(Vec::new())
    }
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
            marks: Marks::default(),
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
    /// Changes which blocks are held.
    fn apply_bits(&mut self, plan: BitsPlan) {
        if let Some(files) = &mut self.files {
            files.bits.apply(plan);
        }
        self.stored_contiguous = None;
    }

    /// Makes `change` visible, but for the bits. `told` collects whom to tell; `before` and `contiguous` are the
    /// contiguous length before and after it.
    fn apply(&mut self, change: Change, shared: &Shared, told: &mut Told, before: u64, contiguous: u64) {
        let old_length = self.head.length();
        let mut at = Position::of(&self.head);
        let upgrade = change.tree_upgrade();
        let entry = change.entry(upgrade.as_ref());
        let is_cut = at.is_cut_by(&entry);
        if is_cut || entry.bitfield.is_some_and(|bits| bits.drop) {
            shared.generation.fetch_add(1, Ordering::SeqCst);
        }
        if let Some((key, value)) = &change.user_data {
            shared.encrypted.follow(key, value);
        }
        // It fails for a closed core alone, which this one is not.
        let _ = self.carry_out(&entry, &mut at);
        self.contiguous = Some(contiguous);
        let truncated = upgrade.as_ref().filter(|_| is_cut).map(|to| to.ancestors);
        if let Some(ancestors) = truncated {
            self.snapshots.retain(|snapshot| {
                let Some(snapshot) = snapshot.upgrade() else { return false };
                snapshot.compat_length.fetch_min(ancestors, Ordering::SeqCst);
                true
            });
        }
        let bits = change.bits;
        if let Some(verifier) = change.verifier {
            self.verifier = verifier;
            told.events.push(Event::Manifest);
            told.changes.push(Changed::Manifest);
        }
        if let Some(head) = change.patch.and_then(|patch| patch.upgrade) {
            self.head = head;
        }
        let appended = self.head.length() > truncated.unwrap_or(old_length);
        if appended || truncated.is_some() || contiguous != before {
            told.events.push(Event::Head {
                appended,
                truncated: truncated.map(|ancestors| (ancestors, self.head.fork)),
                contiguous_grew: contiguous > before,
                contiguous_shrank: (contiguous < before).then_some((contiguous, self.head.fork)),
            });
        }
        if let Some(ancestors) = truncated {
            told.changes.push(Changed::Truncated { ancestors, length: old_length });
        }
        if appended {
            told.changes.push(Changed::Head);
        }
        if let Some(bits) = bits.filter(|bits| !(bits.drop && truncated.is_some())) {
            told.changes.push(Changed::Blocks { start: bits.start, length: bits.length, drop: bits.drop });
        }
    }
}

pub(crate) fn set_user_data(list: &mut Vec<(String, Vec<u8>)>, key: &str, value: &[u8]) {
    let at = list.iter().position(|(k, _)| k == key);
    match (at, value.is_empty()) {
        (Some(at), true) => {
            list.remove(at);
        }
        (Some(at), false) => list[at].1 = value.to_vec(),
        (None, true) => {}
        (None, false) => list.push((key.to_owned(), value.to_vec())),
    }
}
