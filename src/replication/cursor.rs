//! How far a peer's search for blocks to request has come.

use super::id::WaiterId;

/// Blocks to request: `gets` or `retries` of [`Downloads`](super::downloads::Downloads), or those of a download.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum BlockQueue {
    Gets,
    Retries,
    Download(WaiterId),
}

/// A position in a search: the next block to look at (for a list of blocks, the next position in the list). A search
/// begins at the download's `search_start`, and continues from the download's first block once it has `wrapped`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Cursor {
    pub wrapped: bool,
    pub at: u64,
}
