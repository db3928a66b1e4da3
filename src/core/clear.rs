//! Dropping blocks and giving their disk space back.
//!
//! The drop is committed, and on the disk unless the durability is `None`, before the first byte goes: old bits must not vouch for
//! bytes that are gone. The space goes at once then, before anything is flushed, for a full disk may have no room to flush.

use std::ops::Range;

use crate::Result;
use crate::core::options::check_range;
use crate::core::session::Session;
use crate::core::state::{Shared, State};
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
        let (blocks, end, held) = {
            let state = shared.state.read();
            let files = state.files()?;
            let end = range.end.min(state.head.length());
            if range.start >= end || range.start >= shown {
                return Ok(Cleared::default());
            }
            // What is not held is no change: begin and end with blocks that are.
            let held = match files.bits.first_set(range.start, end)? {
                Some(first) => Some(first..files.bits.last_set_before(end)?.unwrap_or(first) + 1),
                None => None,
            };
            (files.blocks.clone(), end, held)
        };
        let before = blocks.disk_usage()?;
        let (count, freed) = match held {
            Some(held) => {
                let (count, hole) = {
                    let state = shared.state.read();
                    let hole = hole_of(&state, held.start, held.end)?;
                    (state.files()?.bits.count_set(held.clone())?, hole)
                };
                let bits = BitfieldUpdate { drop: true, start: held.start, length: held.end - held.start };
                shared.commit_clear(&mut writer, bits)?;
                (count, hole.map_or(Ok(()), |hole| blocks.punch(hole.start, hole.end - hole.start)))
            }
            // An earlier clear may have dropped them and then failed to give their space back.
            None => (0, shared.give_back(range.start..end)),
        };
        drop(writer);
        shared.deliver();
        freed?;
        let after = blocks.disk_usage()?;
        Ok(Cleared { blocks: count, bytes: before.saturating_sub(after) })
    }
}

impl Shared {
    /// Gives the disk space back of what is not held among `blocks`.
    pub(crate) fn give_back(&self, blocks: Range<u64>) -> Result<()> {
        let (holes, file) = {
            let state = self.state.read();
            let files = state.files()?;
            let mut holes = Vec::new();
            let end = blocks.end.min(state.head.length());
            let mut at = blocks.start;
            while at < end {
                let Some(start) = files.bits.first_unset(at, end)? else { break };
                let stop = files.bits.first_set(start, end)?.unwrap_or(end);
                holes.extend(hole_of(&state, start, stop)?);
                at = stop;
            }
            (holes, files.blocks.clone())
        };
        holes.into_iter().try_for_each(|hole| file.punch(hole.start, hole.end - hole.start))
    }
}

/// The bytes of `data` between the blocks that are held before `start` and from `end` on; none where the tree does not prove where
/// those lie: a hole in the wrong place would cost blocks.
fn hole_of(state: &State, start: u64, end: u64) -> Result<Option<Range<u64>>> {
    let (bits, length) = (&state.files()?.bits, state.head.length());
    let from = state.proven_end(start)?;
    let to = match bits.first_set(end, length)? {
        Some(next) => state.proven_place(next)?.map(|(offset, _)| offset),
        None => Some(state.head.byte_length()),
    };
    Ok(from.zip(to).map(|(from, to)| from..to.max(from)))
}
