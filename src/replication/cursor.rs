//! How far a search for blocks to ask for has got.

use super::id::WaiterId;

/// Where blocks to ask for are searched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Source {
    Gets,
    Retries,
    Download(WaiterId),
}

/// A place in a search: whether it has wrapped around its search_start, and the block it comes to next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Cursor {
    pub wrapped: bool,
    pub at: u64,
}
