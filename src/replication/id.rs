//! Identifiers of peers and of waiters.

/// One channel of one connection, and so one view of one core. The driver assigns the numbers and never
/// uses one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u64);

/// One wait of a caller, for a block, a download, a byte offset or a longer log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WaiterId(pub u64);
