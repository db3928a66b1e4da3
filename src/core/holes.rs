//! Holes in `data`: finding the bytes of blocks that are not held, and giving their disk space back.

use std::ops::Range;

use crate::Result;
use crate::core::reading::Reading;
use crate::core::shared::Shared;
use crate::core::trusted_nodes;

impl Shared {
    /// Gives back the disk space of those of `blocks` that are not held. The caller holds the writer lock.
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

    /// The bytes of `data` between the last held block before `start` and the first held block from `end` on.
    /// `None` where the tree does not prove where these blocks lie: a hole in the wrong place would destroy blocks.
    pub(crate) fn hole_between(&self, reading: &Reading, start: u64, end: u64) -> Result<Option<Range<u64>>> {
        let (tree, head) = (reading.tree(self), &reading.head);
        let from = trusted_nodes::end_of_held(&tree, head, &reading.bits, start)?;
        let to = match reading.bits.first_set(end, head.length())? {
            Some(next) => trusted_nodes::leaf(&tree, head, next)?.map(|(offset, _)| offset),
            None => Some(head.byte_length()),
        };
        Ok(from.zip(to).map(|(from, to)| from..to.max(from)))
    }
}
