//! Applies one oplog entry to the state, in a commit and in recovery alike.
//!
//! An entry first acts on the bits of held blocks ([`LogPosition::plan_bits`], which may read files and fail), then on
//! the rest of the state ([`State::apply_entry`], which changes only memory). The caller supplies the roots of the
//! new head: a commit has computed them, and recovery looks them up after it has applied all entries.

use crate::Result;
use crate::core::state::{State, closed};
use crate::merkle::Head;
use crate::oplog::{EntryRef, ReorgHint};
use crate::storage::bitfield::{Bitfield, BitsPlan};

/// The position of a log between two entries.
#[derive(Clone, Debug)]
pub(crate) struct LogPosition {
    pub(crate) fork: u64,
    pub(crate) length: u64,
    /// The end of the blocks that entries added. Drafts lie past the end of the log.
    pub(crate) added_end: u64,
}

impl LogPosition {
    pub(crate) fn of(head: &Head) -> Self {
        LogPosition { fork: head.fork, length: head.length(), added_end: 0 }
    }

    /// Whether `entry` removes blocks from the log, or moves the log to another fork without removing any.
    pub(crate) fn is_cut_by(&self, entry: &EntryRef<'_>) -> bool {
        entry.upgrade.is_some_and(|to| to.ancestors < self.length || to.fork != self.fork)
    }

    /// Adds to `plan`, which was made on `bits`, which blocks become held or are dropped by `entry`.
    pub(crate) fn plan_bits(&self, entry: &EntryRef<'_>, bits: &Bitfield, plan: &mut BitsPlan) -> Result<()> {
        let is_cut = self.is_cut_by(entry);
        if let Some(to) = entry.upgrade {
            // Bits past the old end do not count, except those of drafts that this entry extends the log over.
            let signed_drafts = entry.bitfield.filter(|_| !is_cut && signs_drafts(entry));
            let kept = signed_drafts.map_or(to.ancestors, |update| update.start);
            let end = self.length.max(to.length).max(if is_cut { self.added_end } else { 0 });
            plan.set_range(bits, kept, end.saturating_sub(kept), false)?;
        }
        match entry.bitfield {
            // The truncation dropped these blocks already.
            Some(update) if update.drop && is_cut && entry.upgrade.is_some_and(|to| to.ancestors <= update.start) => {
                Ok(())
            }
            Some(update) => plan.set_range(bits, update.start, update.length, !update.drop),
            None => Ok(()),
        }
    }

    fn advance(&mut self, entry: &EntryRef<'_>) {
        if let Some(to) = entry.upgrade {
            (self.fork, self.length) = (to.fork, to.length);
        }
        if let Some(update) = entry.bitfield.filter(|update| !update.drop) {
            self.added_end = self.added_end.max(update.start.saturating_add(update.length));
        }
    }
}

impl State {
    /// Applies `entry`, except for its bits and the roots, and moves `at` past it.
    pub(crate) fn apply_entry(&mut self, entry: &EntryRef<'_>, at: &mut LogPosition) -> Result<()> {
        let files = self.files.as_mut().ok_or_else(closed)?;
        let mut hint = None;
        if let Some(to) = entry.upgrade {
            if to.ancestors < at.length {
                files.tree.truncate(to.ancestors);
            }
            if to.fork != at.fork && at.length > 0 {
                hint = Some(ReorgHint { from: at.fork, to: to.fork, ancestors: to.ancestors });
            }
        }
        files.tree.put(entry.nodes);
        if let Some((key, value)) = entry.user_data {
            self.set_user_data(key, value);
        }
        hint.into_iter().for_each(|hint| self.add_reorg_hint(hint));
        at.advance(entry);
        Ok(())
    }

    /// Adds a hint to the header's list. It keeps the last four, and none that a later truncation made meaningless.
    fn add_reorg_hint(&mut self, hint: ReorgHint) {
        const KEPT: usize = 4;
        let surplus = (self.reorgs.len() + 1).saturating_sub(KEPT);
        self.reorgs.drain(..surplus.min(self.reorgs.len()));
        while self.reorgs.last().is_some_and(|last| last.ancestors > hint.ancestors) {
            self.reorgs.pop();
        }
        self.reorgs.push(hint);
    }
}

/// Whether `entry` extends the log over drafts: it adds blocks that begin after those that it keeps (`ancestors`), and
/// the log then ends where they end.
pub(crate) fn signs_drafts(entry: &EntryRef<'_>) -> bool {
    let (Some(to), Some(update)) = (entry.upgrade, entry.bitfield) else { return false };
    !update.drop && update.start > to.ancestors && update.start.checked_add(update.length) == Some(to.length)
}
