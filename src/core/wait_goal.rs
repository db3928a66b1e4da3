//! The goal of a waiting call: a block, a range, a seek or an upgrade. The network is asked to reach it.

use std::sync::Arc;

use crate::download::Download;

/// The goal of a wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WaitGoal {
    /// This block is held.
    Block(u64),
    /// The peers have answered whether they have a longer head.
    Upgrade,
    /// The nodes are held that tell which block holds byte `bytes`, counted without `padding` bytes per block.
    Seek { bytes: u64, padding: u64 },
    /// All of these blocks are held.
    Range(Arc<Download>),
}
