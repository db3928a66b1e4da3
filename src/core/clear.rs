//! Dropping blocks and giving their disk space back.
//!
//! The drop is committed, and on the disk unless the durability is `None`, before the first byte goes: old bits must
//! not vouch for bytes that are gone. The space goes at once then, before anything is flushed, for a full disk may
//! have no room to flush.

use std::ops::{Range, RangeBounds};

use crate::Result;
use crate::core::change::Change;
use crate::core::durability::Durability;
use crate::core::handle::Hypercore;
use crate::core::limits::{check_range, range_of};
use crate::core::session::Session;
use crate::core::shared::{Shared, is_out_of_space};
use crate::core::writer::Writer;
use crate::oplog::{BitfieldUpdate, EntryRef, Marks};

/// What a clear dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Cleared {
    /// The number of blocks that were stored before and are not any more.
    pub dropped_blocks: u64,
    /// The disk space that the file system took back, in bytes. Holes have the granularity of its blocks, often 4096 bytes.
    pub freed_bytes: u64,
}

/// Clearing.
impl Hypercore {
    /// Drops the stored blocks of `range` and gives their disk space back. The log keeps its length, and peers can send the blocks
    /// again. Blocks that are not stored are skipped. Space that an earlier clear could not give back is given back too.
    ///
    /// Blocks until the change is committed and, unless the durability is [`None`](crate::Durability::None), on the disk. Works on a
    /// full disk.
    ///
    /// If the file system refuses to give the space back, the call fails, and the blocks are dropped all the same: clear the range
    /// again to give it back.
    #[doc(alias = "diff")]
    pub fn clear(&self, range: impl RangeBounds<u64>) -> Result<Cleared> {
        self.session.clear(range_of(range, || self.len())?)
    }
}

impl Session {
    /// Drops the blocks of `range`; see [`crate::Hypercore::clear`].
    pub(crate) fn clear(&self, range: Range<u64>) -> Result<Cleared> {
        check_range(&range)?;
        self.check_open()?;
        let shared = &*self.shared;
        let mut writer = shared.writer()?;
        // As in the reference, what begins behind the end that the session shows is no change.
        let shown = self.length();
        // Nobody else changes the core meanwhile.
        let reading = shared.reading()?;
        let (blocks, end) = (reading.blocks.clone(), range.end.min(reading.length()));
        if range.start >= end || range.start >= shown {
            return Ok(Cleared::default());
        }
        let before = blocks.disk_usage()?;
        let (count, freed) = match reading.bits.first_set(range.start, end)? {
            // What is not held is no change: begin and end with blocks that are.
            Some(first) => {
                let last = reading.bits.last_set_before(end)?.unwrap_or(first);
                let count = reading.bits.count_set(first..last + 1)?;
                let hole = shared.hole_between(&reading, first, last + 1)?;
                // What is kept of the state would be copied by the change.
                drop(reading);
                let bits = BitfieldUpdate { drop: true, start: first, length: last + 1 - first };
                shared.commit_clear(&mut writer, bits)?;
                (count, hole.map_or(Ok(()), |hole| blocks.punch(hole.start, hole.end - hole.start)))
            }
            // An earlier clear may have dropped them and then failed to give their space back.
            None => (0, shared.punch_unheld(range.start..end)),
        };
        shared.flush_if_due(&mut writer, false);
        drop(writer);
        shared.deliver();
        freed?;
        let after = blocks.disk_usage()?;
        Ok(Cleared { dropped_blocks: count, freed_bytes: before.saturating_sub(after) })
    }
}

impl Shared {
    /// Commits that the blocks of
    /// `bits` are dropped. The caller gives their space back, and then has [`Shared::flush_if_due`] flush: there may
    /// be no room for that before. On a full disk, where no entry fits the oplog any more, the bits are cleared in the
    /// file `bitfield` itself, whose pages have their space: a crash may leave some of the blocks dropped and others
    /// not.
    pub(crate) fn commit_clear(&self, writer: &mut Writer, bits: BitfieldUpdate) -> Result<()> {
        self.reopen_files(writer)?;
        self.prepare_files(writer).inspect_err(|error| self.poison_unless_full(writer, error))?;
        let changes = vec![Change { bits: Some(bits), ..Change::default() }];
        let plan = self.plan(&changes)?;
        let (waits, blocks) = (self.requires_sync(writer, &changes), self.state.read().files()?.blocks.clone());
        let mut in_place = false;
        let mut write = || {
            if waits {
                self.sync_before(writer, &blocks, false)?;
            }
            let marks = Marks { unsynced: None, settled: waits };
            match writer.oplog.append_to_free(EntryRef { marks, ..changes[0].entry(None) }) {
                Err(error) if is_out_of_space(&error) && writer.oplog.cut_failed_append().is_ok() => {
                    // What was missing at first says best what to do.
                    self.clear_in_place(writer, &changes).map_err(|_| error)?;
                    in_place = true;
                    Ok(())
                }
                appended => appended.and_then(|()| self.entries_written(writer, waits)),
            }
        };
        write().inspect_err(|error| self.poison_unless_full(writer, error))?;
        writer.has_unflushed = true;
        writer.has_unmarked_tail = false;
        // The header's hint of a contiguous length is too high now.
        writer.header_is_stale |= in_place;
        self.apply_committed(writer, changes, plan, waits);
        Ok(())
    }

    /// Drops blocks without an entry: nothing is to be left in the oplog that says they are held.
    fn clear_in_place(&self, writer: &mut Writer, changes: &[Change]) -> Result<()> {
        self.flush(writer)?;
        let pages = self.plan(changes)?.bits.into_pages();
        let file = self.state.read().files()?.bits.file().clone();
        file.write_pages(&pages)?;
        if self.durability == Durability::None { Ok(()) } else { self.check_sync(file.sync()) }
    }
}
