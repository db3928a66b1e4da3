//! Commits: the only place that changes a core. Local edits and remote proofs come through here, one commit
//! at a time.
//!
//! These are the steps, with what a crash after each of them leaves. Syncs in parentheses happen only where
//! they say so.
//!
//! 0. Once, before the first change: [`prepare_files`](Shared::prepare_files).
//! 1. Everything that the change needs is read, so that nothing after the commit point can fail.
//! 2. Blocks are written to `data`, past the end or where no block is held, so no reader uses these bytes before
//!    the commit. A crash leaves stray bytes, which are harmless.
//! 3. (If the change waits for the disk: `data` is synced, and `oplog` too if earlier entries are not yet synced.)
//! 4. Entries are written to `oplog`: **the commit point**. A crash before it leaves the old state. A torn entry
//!    fails its checksum and is cut off.
//! 5. (If the change waits for the disk: `oplog` is synced.)
//! 6. Head, overlay nodes and bits change in memory; waiters, events and peers are notified. This cannot fail.
//! 7. When due, [`flush`](Shared::flush): (unless the durability is `None`: `data` and `oplog` are synced) dirty
//!    pages are written to `bitfield`; `tree` is shortened and the overlay written to it; after a truncation, `data`
//!    is shortened. After a crash up to here, replaying the entries gives the same state again. (Unless `None`: all
//!    files are synced.) The header is written to the other slot. This one write makes all oplog entries obsolete.
//!    (Unless `None`: it is synced.) The entries are cut off.
//!
//! A failure before the commit point is the error of the call. A failure after it is not, because the change has
//! happened: it poisons the core, and the next call that writes, or closing, returns it.
//!
//! With `Always` every change waits for the disk. With `Flush` two kinds of changes wait: those that free bytes which
//! an earlier entry may need (truncations, forks and clears), and heads of its own log that a writer gets from a
//! peer.

use std::sync::atomic::Ordering;

use crate::Result;
use crate::core::apply_entry::LogPosition;
use crate::core::change::{BlockBytes, Change, Origin};
use crate::core::durability::Durability;
use crate::core::event_queue::Event;
use crate::core::network::Changed;
use crate::core::shared::Shared;
use crate::core::state::State;
use crate::core::synced::Unannounced;
use crate::core::writer::Writer;
use crate::merkle::Patch;
use crate::oplog::{EntryRef, TreeUpgrade};
use crate::storage::bitfield::BitsPlan;
use crate::storage::blocks::{Blocks, empty_sectors};

/// Everything that a commit has to read, read before the commit begins.
pub(crate) struct CommitPlan {
    pub(crate) bits: BitsPlan,
    /// The contiguous length before the first change.
    contiguous_before: u64,
    /// The contiguous length after each change.
    contiguous: Vec<u64>,
}

impl Shared {
    /// Commits `changes` in order, each of them as a whole or not at all.
    ///
    /// The caller made them on the current head while it held this writer lock. Waiters are woken, and the network is
    /// notified, before this returns; an append may have to be announced to peers only after a sync
    /// (`core/peer_sync.rs`). Events are only queued: the caller calls [`Shared::deliver`] after it has released its
    /// locks.
    ///
    /// # Errors
    /// After an error no change is visible; if bytes may have moved, the core is poisoned. A failure after the
    /// commit point is not returned: it poisons the core, and a later call returns it.
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

    /// Whether peers see an append only after it is synced. Before the first peer connects nothing has to be
    /// hidden: [`Shared::sync_before_first_peer`] then syncs everything once.
    fn hides_unsynced(&self) -> bool {
        self.durability == Durability::Flush && self.is_synced_for_peers.load(Ordering::SeqCst)
    }

    /// Reads everything that `changes` need, in the state after the changes before each.
    pub(crate) fn plan(&self, changes: &[Change]) -> Result<CommitPlan> {
        let contiguous_before = self.contiguous_length()?;
        // The caller holds the writer lock, so the core cannot change here.
        let reading = self.reading()?;
        let bits = &reading.bits;
        let mut at = LogPosition::of(&reading.head);
        let mut plan = CommitPlan { bits: BitsPlan::default(), contiguous_before, contiguous: Vec::new() };
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

    /// Whether the commit of `changes` waits until they are on the disk.
    pub(crate) fn requires_sync(&self, writer: &Writer, changes: &[Change]) -> bool {
        let gives_up_bytes = |change: &Change| {
            let drops = change.bits.is_some_and(|bits| bits.drop);
            drops || change.patch.as_ref().is_some_and(Patch::truncates)
        };
        // If a writer took its own log's head back from peers and then lost it in a power cut, it would sign a
        // conflicting log. So such a head is synced.
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

    /// Writes blocks and entries up to the commit point, and syncs the entries if `sync` is set.
    fn write(&self, writer: &mut Writer, data: &[BlockBytes<'_>], changes: &[Change], sync: bool) -> Result<()> {
        let (blocks, end) = {
            let state = self.state.read();
            (state.files()?.blocks.clone(), state.head.byte_length())
        };
        let written = self.write_blocks(writer, &blocks, data, sync);
        let written = written.and_then(|()| self.write_entries(writer, data, changes, sync));
        if let Err(error) = written {
            if writer.oplog.cut_failed_append().is_ok() {
                // Without an entry no reader uses the blocks. Removing them gives a full disk its space back.
                for bytes in data {
                    let len = bytes.blocks.iter().map(|block| block.len() as u64).sum();
                    let removed =
                        if bytes.offset >= end { blocks.set_len(end) } else { blocks.punch(bytes.offset, len) };
                    removed.inspect_err(|error| self.poison(error))?;
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
            // After a power cut no entry may refer to blocks in a file whose name is not on the disk.
            self.check_sync(blocks.sync_name())?;
        }
        if sync { self.sync_before(writer, blocks, !data.is_empty()) } else { Ok(()) }
    }

    /// Waits until everything that the next entry relies on is on the disk: all earlier entries with their blocks
    /// and, if `brings_blocks` is set, the blocks of that entry.
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
            // One write may reach the disk in part, so a later entry of it cannot vouch for the entries before.
            settled = false;
            if self.durability == Durability::Flush && !sync {
                let count = change.bits.filter(|bits| !bits.drop).map_or(0, |bits| bits.length);
                entry.marks.unsynced = Some(empty_sectors(pieces.by_ref().take(count as usize)));
            }
            entries.push(entry);
        }
        if !entries.is_empty() {
            writer.oplog.append(&entries)?;
            writer.has_unflushed = true;
            writer.has_unmarked_tail = !sync;
        }
        Ok(())
    }

    /// Counts entries that were just written; waits until they are on the disk if `sync` is set. After an error the
    /// next open may find them all the same.
    pub(crate) fn entries_written(&self, writer: &mut Writer, sync: bool) -> Result<()> {
        self.synced.count_entry();
        if sync {
            let written = self.synced.written();
            self.check_sync(writer.oplog.sync())?;
            self.synced.mark_synced(written);
        }
        Ok(())
    }

    /// Makes changes visible whose entries are written, and notifies waiters, events and peers. Returns whether one
    /// of the changes truncates the log.
    pub(crate) fn apply_committed(
        &self,
        writer: &mut Writer,
        changes: Vec<Change>,
        plan: CommitPlan,
        sync: bool,
    ) -> bool {
        let mut is_cut = false;
        {
            let _notifying = self.notifying.lock();
            let mut notification = Notification::default();
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
                    state.apply(change, self, &mut notification, before, contiguous);
                    before = contiguous;
                }
                state.clear_recovery_if_resolved();
                notification.network = match &mut state.unannounced {
                    Some(waiting) if !sync => {
                        waiting.add(&notification.changes);
                        ToNetwork::Later
                    }
                    // This commit's sync covered all changes that waited for one. Those are announced first.
                    waiting => {
                        let mut changes = waiting.take().map_or_else(Vec::new, Unannounced::into_changes);
                        changes.extend(&notification.changes);
                        ToNetwork::Now(changes)
                    }
                };
            }
            self.notify(notification);
        }
        is_cut
    }

    /// Wakes waiters, notifies the network and queues events. The caller holds the notifying lock.
    fn notify(&self, notification: Notification) {
        for change in &notification.changes {
            match change {
                Changed::Blocks { start, length, drop: false } => self.waiters.blocks_arrived(*start, *length),
                Changed::Truncated { ancestors, length } => {
                    // A snapshot's read that waits for a block which was truncated would never get it.
                    self.waiters.blocks_arrived(*ancestors, length - ancestors);
                    self.waiters.head_changed();
                }
                _ => self.waiters.head_changed(),
            }
        }
        match (self.network.get(), notification.network) {
            (None, _) => self.finish_downloads(),
            (Some(network), ToNetwork::Now(changes)) => network.changed(&changes),
            (Some(network), ToNetwork::Later) => {
                self.finish_held_downloads();
                network.sync_due();
            }
        }
        notification.events.into_iter().for_each(|event| self.events.push(event));
    }
}

/// The notifications that a commit sends after it has released the state lock.
#[derive(Default)]
struct Notification {
    events: Vec<Event>,
    changes: Vec<Changed>,
    network: ToNetwork,
}

/// When the network is notified of changes.
enum ToNetwork {
    /// After the next sync for peers.
    Later,
    /// At once: of these changes, which include any that waited for a sync.
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

    /// Makes `change` visible, except for the bits, and adds its notifications to `notification`. `before` and
    /// `contiguous` are the contiguous lengths before and after the change.
    fn apply(
        &mut self,
        change: Change,
        shared: &Shared,
        notification: &mut Notification,
        before: u64,
        contiguous: u64,
    ) {
        let old_length = self.head.length();
        let mut at = LogPosition::of(&self.head);
        let upgrade = change.tree_upgrade();
        let entry = change.entry(upgrade.as_ref());
        let is_cut = at.is_cut_by(&entry);
        if is_cut || entry.bitfield.is_some_and(|bits| bits.drop) {
            shared.generation.fetch_add(1, Ordering::SeqCst);
        }
        if let Some((key, value)) = &change.user_data {
            shared.encryption_state.user_data_changed(key, value);
        }
        // This fails only for a closed core, and this one is open.
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
            notification.events.push(Event::Manifest);
            notification.changes.push(Changed::Manifest);
        }
        if let Some(head) = change.patch.and_then(|patch| patch.upgrade) {
            self.head = head;
        }
        let appended = self.head.length() > truncated.unwrap_or(old_length);
        if appended || truncated.is_some() || contiguous != before {
            notification.events.push(Event::Head {
                appended,
                truncated: truncated.map(|ancestors| (ancestors, self.head.fork)),
                contiguous_grew: contiguous > before,
                contiguous_shrank: (contiguous < before).then_some((contiguous, self.head.fork)),
            });
        }
        if let Some(ancestors) = truncated {
            notification.changes.push(Changed::Truncated { ancestors, length: old_length });
        }
        if appended {
            notification.changes.push(Changed::Head);
        }
        if let Some(bits) = bits.filter(|bits| !(bits.drop && truncated.is_some())) {
            notification.changes.push(Changed::Blocks { start: bits.start, length: bits.length, drop: bits.drop });
        }
    }
}
