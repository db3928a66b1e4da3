//! What callers wait for: blocks, downloads, bytes, a longer log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::action::{Action, Woken};
use super::cursor::Source;
use super::id::WaiterId;
use super::in_flight::RequestedFrom;
use super::local::Local;
use crate::download::{Blocks, Download};
use crate::merkle::{Seek, seek_local};
use crate::{Error, ErrorKind, Result};

/// All that callers wait for.
#[derive(Default)]
pub(super) struct Downloads {
    last: u64,
    kinds: HashMap<WaiterId, Kind>,
    /// Who waits for a block.
    pub blocks: BTreeMap<u64, Vec<Waiter>>,
    /// Blocks of callers that have been asked of nobody, or in vain.
    pub gets: BTreeSet<u64>,
    /// Blocks of downloads that were asked for in vain.
    pub retries: BTreeSet<u64>,
    pub ranges: BTreeMap<WaiterId, RangeDownload>,
    /// The first block that each download lacks: only where one of these comes can a download be complete.
    lacking: BTreeSet<(u64, WaiterId)>,
    /// How many downloads are over when no more is to be had.
    if_available: usize,
    pub seeks: BTreeMap<WaiterId, PendingSeek>,
    pub upgrades: BTreeSet<WaiterId>,
    /// Fork and length of the log when the first of `upgrades` came.
    pub upgrade_from: (u64, u64),
}

#[derive(Clone, Copy)]
enum Kind {
    Block(u64),
    Range,
    Seek,
    Upgrade,
}

/// Somebody who waits for a block.
pub(super) struct Waiter {
    want: WaiterId,
    /// The block was in the log at that time: its waiter is not to get another one that takes its place.
    snapshot: bool,
}

/// A download.
pub(super) struct RangeDownload {
    pub what: Arc<Download>,
    /// What is left when all that is held at the beginning is taken away: blocks, or places in the list. No end: all that is ever
    /// appended.
    pub start: u64,
    pub end: Option<u64>,
    /// Where the search starts, after which it wraps around; chosen at the first search.
    pub origin: Option<u64>,
}

/// A byte whose block is looked for.
pub(super) struct PendingSeek {
    pub bytes: u64,
    pub padding: u64,
    /// What the local tree says.
    pub state: Seek,
    pub asked: RequestedFrom,
}

impl RangeDownload {
    pub fn new(what: Arc<Download>) -> Self {
        let mut range = RangeDownload { what, start: 0, end: None, origin: None };
        range.restart();
        range
    }

    /// Takes everything up again, as after the log was cut.
    fn restart(&mut self) {
        self.origin = None;
        (self.start, self.end) = match &self.what.blocks {
            Blocks::Range { start, end } => (*start, end.map(|end| end.max(*start))),
            Blocks::List(blocks) => (0, Some(blocks.len() as u64)),
        };
    }

    /// Takes away what is held at the beginning. Gives the first block that is lacking; none if nothing is.
    fn shrink(&mut self, local: &dyn Local) -> Option<u64> {
        match &self.what.blocks {
            Blocks::Range { .. } => {
                self.start = local.first_unset(self.start);
                Some(self.start).filter(|start| self.end.is_none_or(|end| *start < end))
            }
            Blocks::List(blocks) => {
                let left = blocks.get(self.start as usize..).unwrap_or(&[]);
                let held = left.iter().take_while(|block| local.has(**block)).count();
                self.start += held as u64;
                left.get(held).copied()
            }
        }
    }

    /// Whether `block` is part of it.
    fn contains(&self, block: u64) -> bool {
        match &self.what.blocks {
            Blocks::Range { start, end } => *start <= block && end.is_none_or(|end| block < end),
            Blocks::List(blocks) => blocks.binary_search(&block).is_ok(),
        }
    }
}

impl Downloads {
    fn add(&mut self, kind: Kind) -> WaiterId {
        self.last += 1;
        let want = WaiterId(self.last);
        self.kinds.insert(want, kind);
        want
    }

    pub fn add_block(&mut self, block: u64, snapshot: bool) -> WaiterId {
        let want = self.add(Kind::Block(block));
        self.blocks.entry(block).or_default().push(Waiter { want, snapshot });
        want
    }

    pub fn add_range(
        &mut self,
        range: RangeDownload,
        local: &dyn Local,
        actions: &mut impl Extend<Action>,
    ) -> WaiterId {
        let want = self.add(Kind::Range);
        self.if_available += usize::from(range.what.if_available);
        self.ranges.insert(want, range);
        self.settle_range(want, local, actions);
        want
    }

    pub fn add_seek(&mut self, bytes: u64, padding: u64) -> WaiterId {
        let want = self.add(Kind::Seek);
        let state = Seek::Beyond;
        self.seeks.insert(want, PendingSeek { bytes, padding, state, asked: RequestedFrom::default() });
        want
    }

    pub fn add_upgrade(&mut self, local: &dyn Local) -> WaiterId {
        let want = self.add(Kind::Upgrade);
        if self.upgrades.is_empty() {
            self.upgrade_from = (local.head().fork, local.head().length());
        }
        self.upgrades.insert(want);
        want
    }

    /// Forgets a want. What was asked for it alone is found by the caller: the block or the seek.
    pub fn remove(&mut self, want: WaiterId) -> Option<Orphan> {
        match self.kinds.remove(&want)? {
            Kind::Block(block) => {
                let waiters = self.blocks.get_mut(&block)?;
                waiters.retain(|waiter| waiter.want != want);
                if !waiters.is_empty() {
                    return None;
                }
                self.blocks.remove(&block);
                self.gets.remove(&block);
                (!self.is_downloaded(block)).then_some(Orphan::Block(block))
            }
            Kind::Range => {
                self.remove_range(want);
                Some(Orphan::Range)
            }
            Kind::Seek => self.seeks.remove(&want).map(|seek| Orphan::Seek(seek.asked)),
            Kind::Upgrade => {
                self.upgrades.remove(&want);
                None
            }
        }
    }

    /// Whether some download takes in `block`.
    pub fn is_downloaded(&self, block: u64) -> bool {
        self.ranges.values().any(|range| range.contains(block))
    }

    /// Whether somebody waits for what peers have, and no longer than that.
    pub fn await_peers(&self) -> bool {
        !self.upgrades.is_empty() || self.if_available > 0
    }

    /// Where the search of a download starts; none for a list of blocks, or when it is over.
    pub fn origin(&self, want: WaiterId) -> Option<u64> {
        let range = self.ranges.get(&want)?;
        matches!(range.what.blocks, Blocks::Range { .. }).then(|| range.origin.unwrap_or(0))
    }

    /// Where blocks that were asked for in vain wait to be asked for again; none if nobody wants it any more.
    pub fn requeue(&mut self, block: u64) -> Option<Source> {
        if self.blocks.contains_key(&block) {
            self.gets.insert(block);
            return Some(Source::Gets);
        }
        if self.is_downloaded(block) {
            self.retries.insert(block);
            return Some(Source::Retries);
        }
        None
    }

    /// Blocks of `range` have come, and may be gone again: wakes those who wait for such as are held, and the downloads that are complete
    /// by them.
    pub fn have(&mut self, range: std::ops::Range<u64>, local: &dyn Local, actions: &mut impl Extend<Action>) {
        let held: Vec<u64> = self.retries.range(range.clone()).copied().filter(|block| local.has(*block)).collect();
        for block in held {
            self.retries.remove(&block);
        }
        let waited_for = self.blocks.range(range.clone()).map(|(block, _)| *block);
        let held: Vec<u64> = waited_for.filter(|block| local.has(*block)).collect();
        for block in held {
            self.gets.remove(&block);
            for waiter in self.blocks.remove(&block).unwrap_or_default() {
                self.wake(waiter.want, Ok(Woken::Block), actions);
            }
        }
        let (first, end) = ((range.start, WaiterId(0)), (range.end, WaiterId(0)));
        let found: Vec<(u64, WaiterId)> = self.lacking.range(first..end).copied().collect();
        for entry in found {
            self.lacking.remove(&entry);
            self.settle_range(entry.1, local, actions);
        }
    }

    /// Fails those who wait for a block that was in the log and no longer is.
    pub fn truncated(&mut self, length: u64, actions: &mut impl Extend<Action>) {
        let mut failed = Vec::new();
        self.blocks.range_mut(length..).for_each(|(_, waiters)| {
            waiters.retain(|waiter| {
                if waiter.snapshot {
                    failed.push(waiter.want);
                }
                !waiter.snapshot
            });
        });
        let orphans: Vec<u64> = self.blocks.range(length..).filter(|(_, w)| w.is_empty()).map(|(b, _)| *b).collect();
        for block in orphans {
            self.blocks.remove(&block);
            self.gets.remove(&block);
        }
        for want in failed {
            let error = Error::new(ErrorKind::SnapshotNotAvailable, "the block was cut from the log");
            self.wake(want, Err(error), actions);
        }
    }

    /// Takes all downloads up again, as after the log was cut.
    pub fn restart_ranges(&mut self, local: &dyn Local, actions: &mut impl Extend<Action>) {
        self.lacking.clear();
        self.ranges.values_mut().for_each(RangeDownload::restart);
        for want in self.ranges.keys().copied().collect::<Vec<_>>() {
            self.settle_range(want, local, actions);
        }
    }

    /// Wakes a download if it is complete, else remembers what it lacks.
    fn settle_range(&mut self, want: WaiterId, local: &dyn Local, actions: &mut impl Extend<Action>) {
        let Some(range) = self.ranges.get_mut(&want) else { return };
        match range.shrink(local) {
            Some(block) => {
                self.lacking.insert((block, want));
            }
            None => {
                self.remove_range(want);
                self.wake(want, Ok(Woken::Downloaded), actions);
            }
        }
    }

    fn remove_range(&mut self, want: WaiterId) {
        let Some(range) = self.ranges.remove(&want) else { return };
        self.if_available -= usize::from(range.what.if_available);
        let lacking = match &range.what.blocks {
            Blocks::Range { .. } => Some(range.start),
            Blocks::List(blocks) => blocks.get(range.start as usize).copied(),
        };
        self.lacking.remove(&(lacking.unwrap_or(u64::MAX), want));
    }

    /// Wakes the downloads that are over because no more is to be had.
    pub fn settle_available(&mut self, actions: &mut impl Extend<Action>) {
        if self.if_available == 0 {
            return;
        }
        let done = self.ranges.iter().filter(|(_, range)| range.what.if_available).map(|(want, _)| *want);
        for want in done.collect::<Vec<_>>() {
            self.remove_range(want);
            self.wake(want, Ok(Woken::Downloaded), actions);
        }
    }

    /// The downloads to search for blocks, at most `limit` of them, from a place that `random` says.
    pub fn some_ranges(&self, limit: usize, random: u64) -> Vec<WaiterId> {
        if self.ranges.len() <= limit {
            return self.ranges.keys().copied().collect();
        }
        let from = WaiterId(random % (self.last + 1));
        self.ranges.range(from..).chain(self.ranges.range(..from)).take(limit).map(|(want, _)| *want).collect()
    }

    /// Looks again where the bytes are that are looked for, and wakes those that are found. Gives what was asked for them.
    pub fn settle_seeks(&mut self, local: &dyn Local, actions: &mut impl Extend<Action>) -> Vec<RequestedFrom> {
        let mut done = Vec::new();
        for (want, seek) in &mut self.seeks {
            match seek_local(local, local.head(), seek.bytes, seek.padding) {
                Ok(Seek::Found { block, offset }) => done.push((*want, Ok(Woken::Seek { index: block, offset }))),
                Ok(state) => seek.state = state,
                Err(error) => done.push((*want, Err(error))),
            }
        }
        let mut asked = Vec::new();
        for (want, result) in done {
            asked.extend(self.seeks.remove(&want).map(|seek| seek.asked));
            self.wake(want, result, actions);
        }
        asked
    }

    /// Wakes those who wait for another head.
    pub fn settle_upgrades(&mut self, upgraded: bool, actions: &mut impl Extend<Action>) {
        for want in std::mem::take(&mut self.upgrades) {
            self.wake(want, Ok(Woken::Upgraded(upgraded)), actions);
        }
    }

    /// Fails everything.
    pub fn fail(&mut self, error: &Error, actions: &mut impl Extend<Action>) {
        let Downloads { last, kinds, .. } = std::mem::take(self);
        self.last = last;
        let mut waiters: Vec<WaiterId> = kinds.into_keys().collect();
        waiters.sort_unstable();
        actions.extend(waiters.into_iter().map(|want| Action::Wake { want, result: Err(error.clone()) }));
    }

    fn wake(&mut self, want: WaiterId, result: Result<Woken>, actions: &mut impl Extend<Action>) {
        self.kinds.remove(&want);
        actions.extend([Action::Wake { want, result }]);
    }
}

/// What nobody waits for any more.
pub(super) enum Orphan {
    Block(u64),
    Range,
    Seek(RequestedFrom),
}
