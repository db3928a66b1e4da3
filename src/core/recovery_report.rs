//! The report of what a crash took. The user data of the core keeps it until the loss is made good.

use std::fmt;
use std::ops::Range;

use crate::Result;
use crate::codec::{Reader, Writer};
use crate::storage::bitfield::Bitfield;

/// The name of the user data that holds the report.
pub(crate) const USER_DATA: &str = "hypercore-blocking/recovery";

/// The most ranges of missing blocks that a report lists one by one. The last range takes in all that follow.
const MAX_RANGES: usize = 256;

/// The blocks that opening a core discarded, or found missing, because a crash took them.
/// [`Hypercore::recovery`](crate::Hypercore::recovery) returns it.
///
/// If no peer can have seen the lost blocks, opening cut the log to before them ([`Recovery::from`] is greater than
/// [`Recovery::to`]), and the log continues from there. If others may have seen them, or if the core is a copy
/// whose `data` was cut or removed, the log keeps its length (`from` equals `to`) and [`Recovery::missing`] lists
/// the blocks. A peer can send them again, or the log can be truncated, which raises its fork.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// The length of the log before opening, in blocks.
    pub from: u64,
    /// The length of the log after opening, in blocks.
    pub to: u64,
    /// The number of blocks that were lost.
    pub blocks: u64,
    /// The lost blocks below the length of the log, as ranges in index order.
    pub missing: Vec<Range<u64>>,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recovery { from, to, blocks, .. } = self;
        if from == to {
            return write!(
                f,
                "{blocks} blocks that were held are missing: a crash took them, or `data` was cut or removed; the log \
                 keeps its length of {to}"
            );
        }
        write!(f, "{blocks} blocks written before a crash are lost: the log was {from} long and is now {to}")
    }
}

impl Recovery {
    /// The report that the user data of a core holds, if it does.
    pub(crate) fn load(user_data: &[(String, Vec<u8>)]) -> Option<Self> {
        let (_, value) = user_data.iter().find(|(key, _)| key == USER_DATA)?;
        Self::decode(&mut Reader::new(value)).ok()
    }

    /// The value of the user data that keeps the report.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.uint(self.from).uint(self.to).uint(self.blocks);
        w.array(&self.missing, |w, range| {
            w.uint(range.start).uint(range.end - range.start);
        });
        w.into_vec()
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let (from, to, blocks) = (r.uint()?, r.uint()?, r.uint()?);
        let missing = r.array(2, |r| {
            let (start, length) = (r.uint()?, r.uint()?);
            Ok(start..start.saturating_add(length))
        })?;
        Ok(Recovery { from, to, blocks, missing })
    }

    /// Adds the losses of an earlier report that are not made good yet.
    pub(crate) fn merged_with(mut self, before: Option<Recovery>) -> Self {
        let Some(before) = before else { return self };
        self.from = self.from.max(before.from);
        self.blocks = self.blocks.saturating_add(before.blocks);
        let mut missing = before.missing;
        missing.append(&mut self.missing);
        missing.retain(|range| range.start < self.to);
        missing.sort_unstable_by_key(|range| range.start);
        self.missing = join_ranges(missing);
        self
    }

    /// The report of `missing` blocks, in index order, of a log that keeps its length `length`.
    pub(crate) fn of_missing(length: u64, missing: Vec<Range<u64>>) -> Self {
        let blocks = missing.iter().map(|range| range.end - range.start).sum();
        Recovery { from: length, to: length, blocks, missing: join_ranges(missing) }
    }

    /// Whether the loss is made good: the log has grown past what was cut off, and each missing block is held again
    /// or is no longer part of the log.
    pub(crate) fn is_resolved(&self, length: u64, bits: &Bitfield) -> Result<bool> {
        if length < self.from && self.from > self.to {
            return Ok(false);
        }
        for range in &self.missing {
            let end = range.end.min(length);
            if range.start < end && bits.first_unset(range.start, end)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Joins adjacent ranges, and more than a report may list into the last one.
fn join_ranges(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges.drain(..) {
        let is_full = joined.len() >= MAX_RANGES;
        match joined.last_mut() {
            Some(last) if is_full || range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}
