//! What a caller asks to be downloaded: the part of a log, and in which order.

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
    /// The blocks from `start` up to `end`; without an end, all that are ever appended.
    Range {
        /// The first block.
        start: u64,
        /// The block after the last.
        end: Option<u64>,
    },
    /// Sorted, each once.
    List(Vec<u64>),
}

impl Download {
    /// The blocks of a range. A range without an end follows the log for ever.
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

    /// These blocks.
    pub fn blocks(blocks: impl IntoIterator<Item = u64>) -> Self {
        let mut list: Vec<u64> = blocks.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        Download { blocks: Blocks::List(list), linear: false, if_available: false }
    }

    /// All blocks, and for ever those that come.
    pub fn all() -> Self {
        Self::range(..)
    }

    /// Whether to ask from the first to the last; default false, where order is left to what peers have.
    pub fn linear(mut self, linear: bool) -> Self {
        self.linear = linear;
        self
    }

    /// Whether to be done as soon as no connected peer has more of it; default false.
    #[doc(alias = "ifAvailable")]
    pub fn if_available(mut self, if_available: bool) -> Self {
        self.if_available = if_available;
        self
    }
}
