//! Which blocks to download, and in which order.

use std::ops::{Bound, RangeBounds};

/// Which blocks to download, and how; see [`crate::Hypercore::download`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Download {
    pub(crate) blocks: Blocks,
    pub(crate) linear: bool,
    pub(crate) if_available: bool,
}

/// The blocks of a [`Download`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Blocks {
    /// The blocks of `start..end`; without an end, all blocks from `start` on, including those appended later.
    Range {
        /// The first block.
        start: u64,
        /// The block after the last.
        end: Option<u64>,
    },
    /// Ascending and without duplicates.
    List(Vec<u64>),
}

impl Download {
    /// The blocks of a range. A range without an end includes all blocks that are appended later, so the
    /// download never completes.
    #[doc(alias = "start")]
    #[doc(alias = "end")]
    pub fn range(range: impl RangeBounds<u64>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => Some(last.saturating_add(1)),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => None,
        };
        Download { blocks: Blocks::Range { start, end }, linear: false, if_available: false }
    }

    /// The given blocks, in any order.
    pub fn blocks(blocks: impl IntoIterator<Item = u64>) -> Self {
        let mut list: Vec<u64> = blocks.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        Download { blocks: Blocks::List(list), linear: false, if_available: false }
    }

    /// All blocks, including those that are appended later.
    pub fn all() -> Self {
        Self::range(..)
    }

    /// Whether to request the blocks from first to last. Default false: the order then depends on which blocks
    /// the peers have.
    pub fn linear(mut self, linear: bool) -> Self {
        self.linear = linear;
        self
    }

    /// Whether to complete as soon as no connected peer has more of the blocks; default false.
    #[doc(alias = "ifAvailable")]
    pub fn if_available(mut self, if_available: bool) -> Self {
        self.if_available = if_available;
        self
    }
}
