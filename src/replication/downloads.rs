//! The waits of callers: for single blocks, downloads, the block of a byte offset, a longer log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::action::{Action, Woken};
use super::cursor::BlockQueue;
use super::id::WaiterId;
use super::in_flight::RequestedFrom;
use super::local::Local;
use crate::download::{Blocks, Download};
use crate::merkle::{Seek, seek_local};
use crate::{Error, ErrorKind, Result};

/// All waiters of one core, and the blocks that are queued for them.
#[derive(Default)]
pub(super) struct Downloads {
    last: u64,
    kinds: HashMap<WaiterId, Kind>,
    /// The waiters of each block.
    pub blocks: BTreeMap<u64, Vec<BlockWaiter>>,
    /// Blocks that a waiter needs and that are not currently requested.
    pub gets: BTreeSet<u64>,
    /// Blocks of downloads whose request failed, to be requested again.
    pub retries: BTreeSet<u64>,
    pub active: BTreeMap<WaiterId, ActiveDownload>,
    /// The first block that each download lacks. A download can only become complete when this block arrives,
    /// so the others need no check.
    first_missing: BTreeSet<(u64, WaiterId)>,
    /// How many of the downloads end when no peer has more of them.
    if_available: usize,
    pub seeks: BTreeMap<WaiterId, PendingSeek>,
    pub upgrades: BTreeSet<WaiterId>,
    /// Fork and length of the log when the first of `upgrades` was added.
    pub upgrade_from: (u64, u64),
}

#[derive(Clone, Copy)]
enum Kind {
    Block(u64),
    Download,
    Seek,
    Upgrade,
}

pub(super) struct BlockWaiter {
    id: WaiterId,
    /// The block was in the log when the wait began. If the log is truncated below it, the wait fails: a later
    /// block with the same index is another block.
    snapshot: bool,
}

pub(super) struct ActiveDownload {
    pub download: Arc<Download>,
    /// The part that may still be missing: blocks, or positions in the list. No end: the download includes all
    /// blocks that are appended later.
    pub start: u64,
    pub end: Option<u64>,
    /// The block at which searches begin, before they wrap around; chosen by the first search.
    pub search_start: Option<u64>,
}

/// A byte offset whose block is being looked up.
pub(super) struct PendingSeek {
    pub bytes: u64,
    pub padding: u64,
    /// How far the local tree narrows it down.
    pub state: Seek,
    pub requested: RequestedFrom,
}

impl ActiveDownload {
    pub fn new(download: Arc<Download>) -> Self {
        let mut active = ActiveDownload { download, start: 0, end: None, search_start: None };
        active.restart();
        active
    }

    /// Starts over, as needed after a truncation.
    fn restart(&mut self) {
        self.search_start = None;
        (self.start, self.end) = match &self.download.blocks {
            Blocks::Range { start, end } => (*start, end.map(|end| end.max(*start))),
            Blocks::List(blocks) => (0, Some(blocks.len() as u64)),
        };
    }

    /// Skips the blocks held at the start. Returns the first block that is missing; none if the download is complete.
    fn skip_held(&mut self, local: &dyn Local) -> Option<u64> {
        match &self.download.blocks {
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

    fn contains(&self, block: u64) -> bool {
        match &self.download.blocks {
            Blocks::Range { start, end } => *start <= block && end.is_none_or(|end| block < end),
            Blocks::List(blocks) => blocks.binary_search(&block).is_ok(),
        }
    }
}

impl Downloads {
    fn add(&mut self, kind: Kind) -> WaiterId {
        self.last += 1;
        let waiter = WaiterId(self.last);
        self.kinds.insert(waiter, kind);
        waiter
    }

    pub fn add_block(&mut self, block: u64, snapshot: bool) -> WaiterId {
        let waiter = self.add(Kind::Block(block));
        self.blocks.entry(block).or_default().push(BlockWaiter { id: waiter, snapshot });
        waiter
    }

    pub fn add_download(
        &mut self,
        active: ActiveDownload,
        local: &dyn Local,
        actions: &mut impl Extend<Action>,
    ) -> WaiterId {
        let waiter = self.add(Kind::Download);
        self.if_available += usize::from(active.download.if_available);
        self.active.insert(waiter, active);
        self.update_download(waiter, local, actions);
        waiter
    }

    pub fn add_seek(&mut self, bytes: u64, padding: u64) -> WaiterId {
        let waiter = self.add(Kind::Seek);
        let state = Seek::Beyond;
        self.seeks.insert(waiter, PendingSeek { bytes, padding, state, requested: RequestedFrom::default() });
        waiter
    }

    pub fn add_upgrade(&mut self, local: &dyn Local) -> WaiterId {
        let waiter = self.add(Kind::Upgrade);
        if self.upgrades.is_empty() {
            self.upgrade_from = (local.head().fork, local.head().length());
        }
        self.upgrades.insert(waiter);
        waiter
    }

    /// Removes a waiter. Returns what no other waiter needs: requests for it alone can be cancelled.
    pub fn remove(&mut self, waiter: WaiterId) -> Option<Unwanted> {
        match self.kinds.remove(&waiter)? {
            Kind::Block(block) => {
                let waiters = self.blocks.get_mut(&block)?;
                waiters.retain(|other| other.id != waiter);
                if !waiters.is_empty() {
                    return None;
                }
                self.blocks.remove(&block);
                self.gets.remove(&block);
                (!self.is_in_download(block)).then_some(Unwanted::Block(block))
            }
            Kind::Download => {
                self.remove_download(waiter);
                Some(Unwanted::Download)
            }
            Kind::Seek => self.seeks.remove(&waiter).map(|seek| Unwanted::Seek(seek.requested)),
            Kind::Upgrade => {
                self.upgrades.remove(&waiter);
                None
            }
        }
    }

    pub fn is_in_download(&self, block: u64) -> bool {
        self.active.values().any(|active| active.contains(block))
    }

    /// Whether some waiter waits only until the peers have nothing more to offer: for an upgrade,
    /// or with `if_available`.
    pub fn has_waits_on_peers(&self) -> bool {
        !self.upgrades.is_empty() || self.if_available > 0
    }

    /// The block at which searches of a download begin; none for a list of blocks, or if the waiter is gone.
    pub fn search_start(&self, waiter: WaiterId) -> Option<u64> {
        let active = self.active.get(&waiter)?;
        matches!(active.download.blocks, Blocks::Range { .. }).then(|| active.search_start.unwrap_or(0))
    }

    /// Queues a block whose request failed. Returns the queue; none if no waiter needs the block.
    pub fn requeue(&mut self, block: u64) -> Option<BlockQueue> {
        if self.blocks.contains_key(&block) {
            self.gets.insert(block);
            return Some(BlockQueue::Gets);
        }
        if self.is_in_download(block) {
            self.retries.insert(block);
            return Some(BlockQueue::Retries);
        }
        None
    }

    /// Blocks of `range` were stored, and may have been cleared again since. Wakes the waiters of those that
    /// are held, and the downloads that are complete.
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
                self.wake(waiter.id, Ok(Woken::Block), actions);
            }
        }
        let (first, end) = ((range.start, WaiterId(0)), (range.end, WaiterId(0)));
        let found: Vec<(u64, WaiterId)> = self.first_missing.range(first..end).copied().collect();
        for entry in found {
            self.first_missing.remove(&entry);
            self.update_download(entry.1, local, actions);
        }
    }

    /// The log was truncated to `length`: fails the waiters of blocks that were cut off.
    pub fn truncated(&mut self, length: u64, actions: &mut impl Extend<Action>) {
        let mut failed = Vec::new();
        self.blocks.range_mut(length..).for_each(|(_, waiters)| {
            waiters.retain(|waiter| {
                if waiter.snapshot {
                    failed.push(waiter.id);
                }
                !waiter.snapshot
            });
        });
        let orphans: Vec<u64> =
            self.blocks.range(length..).filter(|(_, waiters)| waiters.is_empty()).map(|(block, _)| *block).collect();
        for block in orphans {
            self.blocks.remove(&block);
            self.gets.remove(&block);
        }
        for waiter in failed {
            let error = Error::new(ErrorKind::SnapshotNotAvailable, "the block was cut from the log");
            self.wake(waiter, Err(error), actions);
        }
    }

    /// The log was truncated: starts all downloads over.
    pub fn restart_downloads(&mut self, local: &dyn Local, actions: &mut impl Extend<Action>) {
        self.first_missing.clear();
        self.active.values_mut().for_each(ActiveDownload::restart);
        for waiter in self.active.keys().copied().collect::<Vec<_>>() {
            self.update_download(waiter, local, actions);
        }
    }

    /// Wakes a download if it is complete, else records its first missing block.
    fn update_download(&mut self, waiter: WaiterId, local: &dyn Local, actions: &mut impl Extend<Action>) {
        let Some(active) = self.active.get_mut(&waiter) else { return };
        match active.skip_held(local) {
            Some(block) => {
                self.first_missing.insert((block, waiter));
            }
            None => {
                self.remove_download(waiter);
                self.wake(waiter, Ok(Woken::Downloaded), actions);
            }
        }
    }

    fn remove_download(&mut self, waiter: WaiterId) {
        let Some(active) = self.active.remove(&waiter) else { return };
        self.if_available -= usize::from(active.download.if_available);
        let first_missing = match &active.download.blocks {
            Blocks::Range { .. } => Some(active.start),
            Blocks::List(blocks) => blocks.get(active.start as usize).copied(),
        };
        self.first_missing.remove(&(first_missing.unwrap_or(u64::MAX), waiter));
    }

    /// Wakes the downloads with `if_available`, because no peer has more of them.
    pub fn finish_if_available(&mut self, actions: &mut impl Extend<Action>) {
        if self.if_available == 0 {
            return;
        }
        let done = self.active.iter().filter(|(_, active)| active.download.if_available).map(|(waiter, _)| *waiter);
        for waiter in done.collect::<Vec<_>>() {
            self.remove_download(waiter);
            self.wake(waiter, Ok(Woken::Downloaded), actions);
        }
    }

    /// At most `limit` downloads to search for blocks. If there are more, they start at one that `random`
    /// selects, so each gets its turn.
    pub fn choose_downloads(&self, limit: usize, random: u64) -> Vec<WaiterId> {
        if self.active.len() <= limit {
            return self.active.keys().copied().collect();
        }
        let from = WaiterId(random % (self.last + 1));
        self.active.range(from..).chain(self.active.range(..from)).take(limit).map(|(waiter, _)| *waiter).collect()
    }

    /// Looks the byte offsets up in the local tree again, and wakes the waiters whose block is found. Returns
    /// the requests that were made for them.
    pub fn update_seeks(&mut self, local: &dyn Local, actions: &mut impl Extend<Action>) -> Vec<RequestedFrom> {
        let mut done = Vec::new();
        for (waiter, seek) in &mut self.seeks {
            match seek_local(local, local.head(), seek.bytes, seek.padding) {
                Ok(Seek::Found { block, offset }) => done.push((*waiter, Ok(Woken::Seek { index: block, offset }))),
                Ok(state) => seek.state = state,
                Err(error) => done.push((*waiter, Err(error))),
            }
        }
        let mut requested = Vec::new();
        for (waiter, result) in done {
            requested.extend(self.seeks.remove(&waiter).map(|seek| seek.requested));
            self.wake(waiter, result, actions);
        }
        requested
    }

    /// Wakes all waiters for an upgrade with the answer `upgraded`.
    pub fn finish_upgrades(&mut self, upgraded: bool, actions: &mut impl Extend<Action>) {
        for waiter in std::mem::take(&mut self.upgrades) {
            self.wake(waiter, Ok(Woken::Upgraded(upgraded)), actions);
        }
    }

    /// Fails all waiters.
    pub fn fail(&mut self, error: &Error, actions: &mut impl Extend<Action>) {
        let Downloads { last, kinds, .. } = std::mem::take(self);
        self.last = last;
        let mut ids: Vec<WaiterId> = kinds.into_keys().collect();
        ids.sort_unstable();
        actions.extend(ids.into_iter().map(|waiter| Action::Wake { waiter, result: Err(error.clone()) }));
    }

    fn wake(&mut self, waiter: WaiterId, result: Result<Woken>, actions: &mut impl Extend<Action>) {
        self.kinds.remove(&waiter);
        actions.extend([Action::Wake { waiter, result }]);
    }
}

/// The request that no waiter needs any more.
pub(super) enum Unwanted {
    Block(u64),
    Download,
    Seek(RequestedFrom),
}
