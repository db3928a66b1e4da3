//! Holes in `data`: where the bytes of blocks lie that are not held, and giving their disk space back.

use std::ops::Range;

use crate::Result;
use crate::core::proven;
use crate::core::reading::Reading;
use crate::core::shared::Shared;

impl Shared {
    /// Gives the disk space back of what is not held among `blocks`. The caller holds the writer.
    pub(crate) fn punch_unheld(&self, blocks: Range<u64>) -> Result<()> {
        let reading = self.reading()?;
        let end = blocks.end.min(reading.length());
        let mut at = blocks.start;
        while at < end {
            let Some(start) = reading.bits.first_unset(at, end)? else { break };
            at = reading.bits.first_set(start, end)?.unwrap_or(end);
            if let Some(hole) = self.hole_between(&reading, start, at)? {
                reading.blocks.punch(hole.start, hole.end - hole.start)?;
            }
        }
        Ok(())
    }

    /// The bytes of `data` between the blocks that are held before `start` and from `end` on; none where the tree does
    /// not prove where those lie: a hole in the wrong place would cost blocks.
    pub(crate) fn hole_between(&self, reading: &Reading, start: u64, end: u64) -> Result<Option<Range<u64>>> {
        let (tree, head) = (reading.tree(self), &reading.head);
        let from = proven::end_of_held(&tree, head, &reading.bits, start)?;
        let to = match reading.bits.first_set(end, head.length())? {
            Some(next) => proven::place(&tree, head, next)?.map(|(offset, _)| offset),
            None => Some(head.byte_length()),
        };
        Ok(from.zip(to).map(|(from, to)| from..to.max(from)))
    }
}
