//! What a crash took: the report of recovery. It is kept in the core's user data until the loss is made good.

use std::fmt;
use std::ops::Range;

use crate::Result;
use crate::codec::{Reader, Writer};
use crate::storage::bitfield::Bitfield;

/// The user data that holds the report.
pub(crate) const USER_DATA: &str = "hypercore-blocking/recovery";

/// The most ranges of missing blocks that a report lists one by one; what is beyond them goes into the last.
const MAX_RANGES: usize = 256;

/// What opening a core gave up, or found missing, because a crash took its blocks; told by
/// [`Hypercore::recovery`](crate::Hypercore::recovery).
///
/// Where nobody can have seen the lost blocks, the log was cut to before them
/// ([`Recovery::from`] is more than [`Recovery::to`]), and goes on from there. Where others may have seen them, or the
/// core is a copy whose `data` was cut or removed, the log keeps its length (`from` equals
/// `to`) and [`Recovery::missing`] lists them: a peer can bring them again, or the log be truncated, which raises its
/// fork.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// How many blocks the log had.
    pub from: u64,
    /// How many blocks it had after opening.
    pub to: u64,
    /// How many blocks were lost.
    pub blocks: u64,
    /// Those of them that the log still counts.
    pub missing: Vec<Range<u64>>,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recovery { from, to, blocks, .. } = self;
        if from == to {
            return write!(
                f,
                "{blocks} blocks that were held are missing: a crash took them, or `data` was cut or removed; the log keeps its length of {to}"
            );
        }
        write!(f, "{blocks} blocks written before a crash are lost: the log was {from} long and is now {to}")
    }
}

impl Recovery {
    /// What the user data of a core says was lost before.
    pub(crate) fn load(user_data: &[(String, Vec<u8>)]) -> Option<Self> {
        let (_, value) = user_data.iter().find(|(key, _)| key == USER_DATA)?;
        Self::decode(&mut Reader::new(value)).ok()
    }

    /// The user data that keeps it.
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

    /// The report with what was lost before and is not made good yet.
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

    /// A report of `missing` blocks, from the left, of a log that stays `length` long.
    pub(crate) fn of_missing(length: u64, missing: Vec<Range<u64>>) -> Self {
        let blocks = missing.iter().map(|range| range.end - range.start).sum();
        Recovery { from: length, to: length, blocks, missing: join_ranges(missing) }
    }

    /// Whether the log has grown past what was cut off, and holds again, or no longer counts, what was missing.
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

/// No more ranges than a report lists.
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
