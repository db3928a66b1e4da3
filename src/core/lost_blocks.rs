//! Finds, at opening, blocks whose oplog entry survived a crash but whose bytes in `data` did not, or only in part.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Result;
use crate::core::limits::MAX_STORED_BLOCK;
use crate::core::rebuild::held_node;
use crate::core::state::State;
use crate::core::trusted_nodes;
use crate::crypto::hash;
use crate::index::NodeIndex;
use crate::oplog::Entry;
use crate::storage::blocks::{Blocks, EmptySectors, empty_sectors};

/// The most ranges of blocks beyond the end of `data` that are listed one by one.
const MAX_BEYOND: usize = 1024;

/// The blocks that the entries add and that no later entry removes, each with the index of the entry that adds it.
pub(crate) fn added_blocks(entries: &[Entry]) -> BTreeMap<u64, usize> {
    let mut added: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Some(upgrade) = &entry.upgrade {
            drop(added.split_off(&upgrade.ancestors));
        }
        match entry.bitfield {
            Some(bits) if bits.drop => {
                let end = bits.start.saturating_add(bits.length);
                let dropped: Vec<u64> = added.range(bits.start..end).map(|(&block, _)| block).collect();
                for block in dropped {
                    added.remove(&block);
                }
            }
            // An entry adds one block, whose leaf an earlier entry may have brought, or it brings the leaves of all
            // its blocks. Entries that claim more are skipped, which bounds the number of blocks here.
            Some(bits) if bits.length <= (entry.nodes.len() as u64).max(1) => {
                added.extend((bits.start..bits.start.saturating_add(bits.length)).map(|block| (block, at)));
            }
            _ => {}
        }
    }
    added
}

/// Blocks that a power cut took. `core/recovery.rs` says how they are distinguished from damaged ones.
#[derive(Default)]
pub(crate) struct LostBlocks {
    /// The position of the first entry to discard; all that follow it are discarded too.
    pub(crate) discarded_from: Option<usize>,
    /// Lost blocks of entries that are kept, in index order.
    pub(crate) missing: Vec<Range<u64>>,
}

impl LostBlocks {
    pub(crate) fn find(state: &State, entries: &[Entry], added: &BTreeMap<u64, usize>) -> Result<Self> {
        let mut lost = LostBlocks::default();
        // Everything before the last entry with this mark is on the disk.
        let settled = entries.iter().rposition(|entry| entry.marks.settled).unwrap_or(0);
        let unconfirmed: BTreeMap<u64, usize> =
            added.iter().filter(|(_, entry)| **entry >= settled).map(|(&block, &entry)| (block, entry)).collect();
        let files = state.files()?;
        let data_end = files.blocks.len()?;
        if unconfirmed.is_empty() || !files.blocks.exists()? || data_end < held_end_excluding(state, &unconfirmed)? {
            return Ok(lost);
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
                lost.missing.extend(stored.lost);
            } else if stored.is_wrong && (stored.is_cut || stored.empty_sectors > entry.marks.unsynced.unwrap_or(0)) {
                lost.discarded_from = Some(at);
                break;
            }
        }
        lost.missing.sort_unstable_by_key(|range| range.start);
        Ok(lost)
    }
}

/// The end in `data` of the last held block that is not in `unconfirmed`. Zero if there is none, or if the tree
/// does not prove where that block lies.
fn held_end_excluding(state: &State, unconfirmed: &BTreeMap<u64, usize>) -> Result<u64> {
    let bits = &state.files()?.bits;
    let mut end = state.head.length();
    while let Some(last) = bits.last_set_before(end)? {
        if !unconfirmed.contains_key(&last) {
            return Ok(trusted_nodes::leaf(&state.files()?.tree, &state.head, last)?
                .map_or(0, |(offset, leaf)| offset.saturating_add(leaf.size)));
        }
        // Continue the search just before this run of unconfirmed blocks.
        end = last;
        while end > 0 && unconfirmed.contains_key(&(end - 1)) {
            end -= 1;
        }
    }
    Ok(0)
}

/// The bytes that `data` holds for blocks that lie back to back.
#[derive(Default)]
struct StoredRange {
    /// Whether a block that was checked fails its hash or is not all there.
    is_wrong: bool,
    /// The wrong blocks that contain a sector of zeros or end beyond the file.
    lost: Vec<Range<u64>>,
    /// Whether the file ends before the last of the blocks ends.
    is_cut: bool,
    /// The number of sectors of all these blocks that are zeros.
    empty_sectors: u64,
}

impl StoredRange {
    /// Reads `blocks`, and compares with their hashes those for which `counts` is true. Blocks whose place in
    /// `data` is not proven are not reported.
    fn read(state: &State, blocks: Range<u64>, data_end: u64, counts: impl Fn(u64) -> bool) -> Result<Self> {
        let mut found = StoredRange::default();
        let Some((mut offset, _)) = trusted_nodes::leaf(&state.files()?.tree, &state.head, blocks.start)? else {
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
            // A block of zeros beyond the end of the file fits its hash, but reading it would be an error.
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

/// The `size` bytes of `data` at `offset`. Bytes beyond the end of the file are zeros.
fn read_padded(blocks: &Blocks, offset: u64, size: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    blocks.read_up_to(offset, &mut bytes)?;
    Ok(bytes)
}

/// The held blocks that end beyond the end of `data`, as ranges in index order.
pub(crate) fn beyond_data(state: &State) -> Result<Vec<Range<u64>>> {
    let files = state.files()?;
    let (bits, length) = (&files.bits, state.head.length());
    let Some(last) = bits.last_set_before(length)? else { return Ok(Vec::new()) };
    let data_end = files.blocks.len()?;
    // Blocks whose place is not proven are left to `verify`.
    let is_beyond = |block| -> Result<bool> {
        let place = trusted_nodes::leaf(&files.tree, &state.head, block)?;
        Ok(place.is_some_and(|(offset, leaf)| leaf.size > 0 && offset.saturating_add(leaf.size) > data_end))
    };
    if !is_beyond(last)? {
        return Ok(Vec::new());
    }
    // Blocks lie in index order, so a binary search finds the first one beyond the end.
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
            // At the limit, the last range is extended over all later lost blocks, including unheld blocks between.
            Some(last) if is_full => last.end = at,
            _ => ranges.push(start..at),
        }
    }
    Ok(ranges)
}
