//! The only place that changes a core: local edits and remote proofs come through here, one commit at a time.
//!
//! The order, and what a crash leaves after each step:
//!
//! 0. Once, before the first change: [`prepare_files`](Shared::prepare_files).
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

use std::sync::atomic::Ordering;

use crate::Result;
use crate::core::change::{BlockBytes, Change, Origin};
use crate::core::durability::Durability;
use crate::core::event_queue::Event;
use crate::core::network::Changed;
use crate::core::shared::Shared;
use crate::core::state::State;
use crate::core::synced::Unannounced;
use crate::core::transition::Position;
use crate::core::writer::Writer;
use crate::merkle::Patch;
use crate::oplog::{EntryRef, TreeUpgrade};
use crate::storage::bitfield::BitsPlan;
use crate::storage::blocks::{Blocks, empty_sectors};

/// What was read for a commit before it began.
pub(crate) struct Plan {
    pub(crate) bits: BitsPlan,
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
        self.prepare_files(writer).inspect_err(|error| self.poison_unless_full(writer, error))?;
        let plan = self.plan(&changes)?;
        let sync = self.requires_sync(writer, &changes);
        self.write(writer, data, &changes, sync).inspect_err(|error| self.poison_unless_full(writer, error))?;
        let is_cut = self.apply_committed(writer, changes, plan, sync);
        self.flush_if_due(writer, is_cut);
        Ok(())
    }

    /// Whether an append is kept from peers until it is on the disk: not before the first peer comes, for whom all is
    /// synced once.
    fn hides_unsynced(&self) -> bool {
        self.durability == Durability::Flush && self.is_synced_for_peers.load(Ordering::SeqCst)
    }

    /// Reads what `changes` need to be carried out.
    pub(crate) fn plan(&self, changes: &[Change]) -> Result<Plan> {
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
    pub(crate) fn requires_sync(&self, writer: &Writer, changes: &[Change]) -> bool {
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
    fn write(&self, writer: &mut Writer, data: &[BlockBytes<'_>], changes: &[Change], sync: bool) -> Result<()> {
        let (blocks, end) = {
            let state = self.state.read();
            (state.files()?.blocks.clone(), state.head.byte_length())
        };
        let written = self.write_blocks(writer, &blocks, data, sync);
        let written = written.and_then(|()| self.write_entries(writer, data, changes, sync));
        if let Err(error) = written {
            if writer.oplog.cut_failed_append().is_ok() {
                // Without an entry nobody needs the blocks, and a full disk has room again.
                for bytes in data {
                    let len = bytes.blocks.iter().map(|block| block.len() as u64).sum();
                    let gone = if bytes.offset >= end { blocks.set_len(end) } else { blocks.punch(bytes.offset, len) };
                    gone.inspect_err(|error| self.poison(error))?;
                }
            }
            return Err(error);
        }
        self.entries_written(writer, sync)
    }

    fn write_blocks(&self, writer: &mut Writer, blocks: &Blocks, data: &[BlockBytes<'_>], sync: bool) -> Result<()> {
        for bytes in data {
            blocks.write(bytes.offset, bytes.blocks)?;
            writer.unflushed_bytes += bytes.blocks.iter().map(|b| b.len() as u64).sum::<u64>();
        }
        if self.durability != Durability::None && !data.is_empty() {
            // An entry must not outlive the name of the file that its blocks are in.
            self.check_sync(blocks.sync_name())?;
        }
        if sync { self.sync_before(writer, blocks, !data.is_empty()) } else { Ok(()) }
    }

    /// Waits until everything before the next entry is on the disk, with the blocks that it brings, if it does.
    pub(crate) fn sync_before(&self, writer: &mut Writer, blocks: &Blocks, brings_blocks: bool) -> Result<()> {
        let (written, is_complete) = (self.synced.written(), self.synced.is_complete());
        if brings_blocks || !is_complete {
            self.check_sync(blocks.sync())?;
        }
        if !is_complete {
            self.check_sync(writer.oplog.sync())?;
            self.synced.mark_synced(written);
        }
        Ok(())
    }

    fn write_entries(
        &self,
        writer: &mut Writer,
        data: &[BlockBytes<'_>],
        changes: &[Change],
        sync: bool,
    ) -> Result<()> {
        let upgrades: Vec<Option<TreeUpgrade>> = changes.iter().map(Change::tree_upgrade).collect();
        let mut settled = sync || (self.durability != Durability::None && self.synced.is_complete());
        let mut entries: Vec<EntryRef<'_>> = Vec::with_capacity(changes.len());
        let mut pieces = data.iter().flat_map(BlockBytes::pieces);
        for (change, upgrade) in changes.iter().zip(&upgrades).filter(|(change, _)| !change.is_header_only()) {
            let mut entry = change.entry(upgrade.as_ref());
            entry.marks.settled = settled;
            // A write may come to the disk in part: nothing is said of what is in it.
            settled = false;
            if self.durability == Durability::Flush && !sync {
                let count = change.bits.filter(|bits| !bits.drop).map_or(0, |bits| bits.length);
                entry.marks.unsynced = Some(empty_sectors(pieces.by_ref().take(count as usize)));
            }
            entries.push(entry);
        }
        if !entries.is_empty() {
            writer.oplog.append(&entries, false)?;
            writer.has_unflushed = true;
            writer.has_unmarked_tail = !sync;
        }
        Ok(())
    }

    /// Entries were written, and are waited for with `waits`. After an error the next open may find them.
    pub(crate) fn entries_written(&self, writer: &mut Writer, sync: bool) -> Result<()> {
        self.synced.count_entry();
        if sync {
            let written = self.synced.written();
            self.check_sync(writer.oplog.sync())?;
            self.synced.mark_synced(written);
        }
        Ok(())
    }

    /// Makes changes visible whose entries are written, and tells of them; whether one of them cuts the log.
    pub(crate) fn apply_committed(&self, writer: &mut Writer, changes: Vec<Change>, plan: Plan, sync: bool) -> bool {
        let mut is_cut = false;
        {
            let _announcing = self.announcing.lock();
            let mut news = Announcement::default();
            {
                let mut state = self.state.write();
                let is_own = |change: &Change| change.origin == Origin::Local && change.patch.is_some();
                if self.hides_unsynced() && !sync && state.unannounced.is_none() && changes.iter().any(is_own) {
                    state.unannounced = Some(Unannounced::since(state.head.clone()));
                }
                state.apply_bits(plan.bits);
                let mut before = plan.contiguous_before;
                for (change, contiguous) in changes.into_iter().zip(plan.contiguous) {
                    writer.header_is_stale |= change.verifier.is_some();
                    is_cut |= change.patch.as_ref().is_some_and(Patch::truncates);
                    state.apply(change, self, &mut news, before, contiguous);
                    before = contiguous;
                }
                state.clear_recovery_if_resolved();
                news.network = match &mut state.unannounced {
                    Some(waiting) if !sync => {
                        waiting.add(&news.changes);
                        ToNetwork::Later
                    }
                    // All that waited was synced with this, and comes before it.
                    waiting => {
                        let mut changes = waiting.take().map_or_else(Vec::new, Unannounced::into_changes);
                        changes.extend(&news.changes);
                        ToNetwork::Now(changes)
                    }
                };
            }
            self.announce(news);
        }
        is_cut
    }

    /// Wakes waiters, tells the network, queues events. The caller holds the announcing lock.
    fn announce(&self, news: Announcement) {
        for change in &news.changes {
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
        match (self.network.get(), news.network) {
            (None, _) => self.finish_downloads(),
            (Some(network), ToNetwork::Now(changes)) => network.changed(&changes),
            (Some(network), ToNetwork::Later) => {
                self.finish_held_downloads();
                network.sync_due();
            }
        }
        news.events.into_iter().for_each(|event| self.events.push(event));
    }
}

/// What has to be told of a commit once the state is free.
#[derive(Default)]
struct Announcement {
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

impl State {
    /// Changes which blocks are held.
    fn apply_bits(&mut self, plan: BitsPlan) {
        if let Some(files) = &mut self.files {
            files.bits.apply(plan);
        }
        self.stored_contiguous = None;
    }

    /// Makes `change` visible, but for the bits. `news` collects whom to tell; `before` and `contiguous` are the
    /// contiguous length before and after it.
    fn apply(&mut self, change: Change, shared: &Shared, news: &mut Announcement, before: u64, contiguous: u64) {
        let old_length = self.head.length();
        let mut at = Position::of(&self.head);
        let upgrade = change.tree_upgrade();
        let entry = change.entry(upgrade.as_ref());
        let is_cut = at.is_cut_by(&entry);
        if is_cut || entry.bitfield.is_some_and(|bits| bits.drop) {
            shared.generation.fetch_add(1, Ordering::SeqCst);
        }
        if let Some((key, value)) = &change.user_data {
            shared.encryption_state.user_data_changed(key, value);
        }
        // It fails for a closed core alone, which this one is not.
        let _ = self.apply_entry(&entry, &mut at);
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
            news.events.push(Event::Manifest);
            news.changes.push(Changed::Manifest);
        }
        if let Some(head) = change.patch.and_then(|patch| patch.upgrade) {
            self.head = head;
        }
        let appended = self.head.length() > truncated.unwrap_or(old_length);
        if appended || truncated.is_some() || contiguous != before {
            news.events.push(Event::Head {
                appended,
                truncated: truncated.map(|ancestors| (ancestors, self.head.fork)),
                contiguous_grew: contiguous > before,
                contiguous_shrank: (contiguous < before).then_some((contiguous, self.head.fork)),
            });
        }
        if let Some(ancestors) = truncated {
            news.changes.push(Changed::Truncated { ancestors, length: old_length });
        }
        if appended {
            news.changes.push(Changed::Head);
        }
        if let Some(bits) = bits.filter(|bits| !(bits.drop && truncated.is_some())) {
            news.changes.push(Changed::Blocks { start: bits.start, length: bits.length, drop: bits.drop });
        }
    }
}
