//! What a waiter asks of the network.

use std::sync::Arc;

use crate::download::Download;

/// What a waiter waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WaitFor {
    /// A block to be held.
    Block(u64),
    /// The peers to say whether they have a longer head.
    Upgrade,
    /// The nodes that tell which block holds a byte, counted without so much padding a block.
    Seek { bytes: u64, padding: u64 },
    /// All of these blocks to be held.
    Range(Arc<Download>),
}
