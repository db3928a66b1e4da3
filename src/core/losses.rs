//! What a crash took: blocks of entries that are not in `data`, or not all of them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Result;
use crate::core::limits::MAX_STORED_BLOCK;
use crate::core::proven;
use crate::core::rebuild::held_node;
use crate::core::state::State;
use crate::crypto::hash;
use crate::index::NodeIndex;
use crate::oplog::Entry;
use crate::storage::blocks::{Blocks, EmptySectors, empty_sectors};

/// So many ranges of blocks beyond the end of `data` are told apart.
const MAX_BEYOND: usize = 1024;

/// Each block that the entries bring to stay, and which of them brings it.
pub(crate) fn added_blocks(entries: &[Entry]) -> BTreeMap<u64, usize> {
    let mut added: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Some(upgrade) = &entry.upgrade {
            drop(added.split_off(&upgrade.ancestors));
        }
        match entry.bitfield {
            Some(bits) if bits.drop => {
                let end = bits.start.saturating_add(bits.length);
                let gone: Vec<u64> = added.range(bits.start..end).map(|(&block, _)| block).collect();
                for block in gone {
                    added.remove(&block);
                }
            }
            // One block, whose leaf may have come before, or blocks that come with their leaves, which bounds how many
            // there are.
            Some(bits) if bits.length <= (entry.nodes.len() as u64).max(1) => {
                added.extend((bits.start..bits.start.saturating_add(bits.length)).map(|block| (block, at)));
            }
            _ => {}
        }
    }
    added
}

/// What a power cut took; `core/recovery.rs` says how it is told from damage.
#[derive(Default)]
pub(crate) struct Losses {
    /// The first entry that is to be given up.
    pub(crate) discarded_from: Option<usize>,
    /// Blocks of entries that stand, from the left.
    pub(crate) missing: Vec<Range<u64>>,
}

impl Losses {
    pub(crate) fn find(state: &State, entries: &[Entry], added: &BTreeMap<u64, usize>) -> Result<Self> {
        let mut losses = Losses::default();
        // Everything before the last mark is on the disk.
        let settled = entries.iter().rposition(|entry| entry.marks.settled).unwrap_or(0);
        let unconfirmed: BTreeMap<u64, usize> =
            added.iter().filter(|(_, entry)| **entry >= settled).map(|(&block, &entry)| (block, entry)).collect();
        let files = state.files()?;
        let data_end = files.blocks.len()?;
        if unconfirmed.is_empty() || !files.blocks.exists()? || data_end < held_end_excluding(state, &unconfirmed)? {
            return Ok(losses);
        }
        let mut first_unsynced = entries.len();
        while first_unsynced > settled && entries[first_unsynced - 1].marks.unsynced.is_some() {
            first_unsynced -= 1;
        }
        for (at, entry) in entries.iter().enumerate().skip(settled) {
            let Some(bits) = entry.bitfield.filter(|bits| !bits.drop && bits.length > 0) else { continue };
            let was_waited_for = entry.marks.settled && entry.marks.unsynced.is_none();
            if was_waited_for
                || !unconfirmed.range(bits.start..bits.start.saturating_add(bits.length)).any(|(_, &by)| by == at)
            {
                continue;
            }
            let stored =
                StoredRange::read(state, bits.start..bits.start.saturating_add(bits.length), data_end, |block| {
                    unconfirmed.get(&block) == Some(&at)
                })?;
            if at < first_unsynced {
                losses.missing.extend(stored.lost);
            } else if stored.is_wrong && (stored.is_cut || stored.empty_sectors > entry.marks.unsynced.unwrap_or(0)) {
                losses.discarded_from = Some(at);
                break;
            }
        }
        losses.missing.sort_unstable_by_key(|range| range.start);
        Ok(losses)
    }
}

/// The end in `data` of the last block that is held and none of `unconfirmed`; where the tree does not tell, zero.
fn held_end_excluding(state: &State, unconfirmed: &BTreeMap<u64, usize>) -> Result<u64> {
    let bits = &state.files()?.bits;
    let mut end = state.head.length();
    while let Some(last) = bits.last_set_before(end)? {
        if !unconfirmed.contains_key(&last) {
            return Ok(proven::place(&state.files()?.tree, &state.head, last)?
                .map_or(0, |(offset, leaf)| offset.saturating_add(leaf.size)));
        }
        // On to the start of the run that it is in.
        end = last;
        while end > 0 && unconfirmed.contains_key(&(end - 1)) {
            end -= 1;
        }
    }
    Ok(0)
}

/// What `data` holds of blocks that lie back to back.
#[derive(Default)]
struct StoredRange {
    /// Whether some block fails its hash.
    is_wrong: bool,
    /// Blocks that do, and have a sector of zeros or end beyond the file.
    lost: Vec<Range<u64>>,
    /// Whether the file ends before they do.
    is_cut: bool,
    /// How many sectors of all of them are zeros.
    empty_sectors: u64,
}

impl StoredRange {
    /// Reads `blocks`, and compares those that `counts` says with their hashes. Nothing is wrong with blocks whose
    /// place is not proven.
    fn read(state: &State, blocks: Range<u64>, data_end: u64, counts: impl Fn(u64) -> bool) -> Result<Self> {
        let mut found = StoredRange::default();
        let Some((mut offset, _)) = proven::place(&state.files()?.tree, &state.head, blocks.start)? else {
            return Ok(found);
        };
        let files = state.files()?;
        let mut empty = EmptySectors::default();
        for block in blocks {
            let Some(leaf) = held_node(&files.tree, NodeIndex::of_block(block))? else { break };
            if leaf.size > MAX_STORED_BLOCK {
                break;
            }
            let bytes = read_padded(&files.blocks, offset, leaf.size)?;
            empty.add(offset, &bytes);
            let end = offset.saturating_add(leaf.size);
            // Also where it is all zeros: reading it would be an error.
            let is_cut = leaf.size > 0 && end > data_end;
            found.is_cut |= is_cut;
            if counts(block) && (is_cut || hash::leaf(&bytes) != leaf.hash) {
                found.is_wrong = true;
                if is_cut || empty_sectors([(offset, &bytes[..])]) > 0 {
                    match found.lost.last_mut() {
                        Some(last) if last.end == block => last.end += 1,
                        _ => found.lost.push(block..block + 1),
                    }
                }
            }
            offset = end;
        }
        found.empty_sectors = empty.count();
        Ok(found)
    }
}

/// The `size` bytes of `data` at `offset`, with zeros for what lies beyond its end.
fn read_padded(blocks: &Blocks, offset: u64, size: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    blocks.read_up_to(offset, &mut bytes)?;
    Ok(bytes)
}

/// Which blocks are held that do not end within `data`.
pub(crate) fn beyond_data(state: &State) -> Result<Vec<Range<u64>>> {
    let files = state.files()?;
    let (bits, length) = (&files.bits, state.head.length());
    let Some(last) = bits.last_set_before(length)? else { return Ok(Vec::new()) };
    let data_end = files.blocks.len()?;
    // Blocks whose place is not proven are left to `verify`.
    let is_beyond = |block| -> Result<bool> {
        let place = proven::place(&files.tree, &state.head, block)?;
        Ok(place.is_some_and(|(offset, leaf)| leaf.size > 0 && offset.saturating_add(leaf.size) > data_end))
    };
    if !is_beyond(last)? {
        return Ok(Vec::new());
    }
    // Blocks lie in their order: the first one is found by halving.
    let (mut from, mut until, mut first) = (0, last, last);
    while from < until {
        let middle = from + (until - from) / 2;
        match bits.first_set(middle, until)? {
            Some(block) if is_beyond(block)? => (first, until) = (block, middle),
            Some(block) => from = block + 1,
            None => until = middle,
        }
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = first;
    while let Some(start) = bits.first_set(at, length)? {
        at = bits.first_unset(start, length)?.unwrap_or(length);
        let is_full = ranges.len() >= MAX_BEYOND;
        match ranges.last_mut() {
            // Also what is not held in between.
            Some(last) if is_full => last.end = at,
            _ => ranges.push(start..at),
        }
    }
    Ok(ranges)
}
