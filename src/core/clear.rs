//! Dropping blocks and giving their disk space back.
//!
//! The drop is committed, and on the disk unless the durability is `None`, before the first byte goes: old bits must
//! not vouch for bytes that are gone. The space goes at once then, before anything is flushed, for a full disk may
//! have no room to flush.

use std::ops::Range;

use crate::Result;
use crate::core::limits::check_range;
use crate::core::proven;
use crate::core::reading::Reading;
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::oplog::BitfieldUpdate;

/// What a clear did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Cleared {
    /// How many blocks were held and are not any more.
    pub blocks: u64,
    /// How many bytes of disk space came free.
    pub bytes: u64,
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
                let hole = shared.hole_of(&reading, first, last + 1)?;
                // What is kept of the state would be copied by the change.
                drop(reading);
                let bits = BitfieldUpdate { drop: true, start: first, length: last + 1 - first };
                shared.commit_clear(&mut writer, bits)?;
                (count, hole.map_or(Ok(()), |hole| blocks.punch(hole.start, hole.end - hole.start)))
            }
            // An earlier clear may have dropped them and then failed to give their space back.
            None => (0, shared.give_back(range.start..end)),
        };
        shared.flush_if_due(&mut writer, false);
        drop(writer);
        shared.deliver();
        freed?;
        let after = blocks.disk_usage()?;
        Ok(Cleared { blocks: count, bytes: before.saturating_sub(after) })
    }
}

impl Shared {
    /// Gives the disk space back of what is not held among `blocks`. The caller holds the writer.
    pub(crate) fn give_back(&self, blocks: Range<u64>) -> Result<()> {
        let reading = self.reading()?;
        let end = blocks.end.min(reading.length());
        let mut at = blocks.start;
        while at < end {
            let Some(start) = reading.bits.first_unset(at, end)? else { break };
            at = reading.bits.first_set(start, end)?.unwrap_or(end);
            if let Some(hole) = self.hole_of(&reading, start, at)? {
                reading.blocks.punch(hole.start, hole.end - hole.start)?;
            }
        }
        Ok(())
    }

    /// The bytes of `data` between the blocks that are held before `start` and from `end` on; none where the tree does
    /// not prove where those lie: a hole in the wrong place would cost blocks.
    fn hole_of(&self, reading: &Reading, start: u64, end: u64) -> Result<Option<Range<u64>>> {
        let (tree, head) = (reading.tree(self), &reading.head);
        let from = proven::end_of_held(&tree, head, &reading.bits, start)?;
        let to = match reading.bits.first_set(end, head.length())? {
            Some(next) => proven::place(&tree, head, next)?.map(|(offset, _)| offset),
            None => Some(head.byte_length()),
        };
        Ok(from.zip(to).map(|(from, to)| from..to.max(from)))
    }
}
