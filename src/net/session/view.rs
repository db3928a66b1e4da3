//! The core as the replication machine and the tree's proofs see it.

use crate::Result;
use crate::core::state::{Shared, State};
use crate::index::NodeIndex;
use crate::merkle::{Head, NodeSource};
use crate::node::Node;
use crate::replication::Local;

/// The core as the machine sees it, while its state is held.
pub(super) struct View<'a> {
    pub(super) state: &'a State,
}

impl NodeSource for View<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        self.state.files()?.tree.node(index)
    }
}

/// The tree of a core, node by node: for what takes longer than the state should be held.
pub(super) struct Nodes<'a>(pub(super) &'a Shared);

impl NodeSource for Nodes<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        self.0.state.read().files()?.tree.node(index)
    }
}

impl Local for View<'_> {
    fn head(&self) -> &Head {
        self.state.shown_head()
    }

    fn contiguous_length(&self) -> u64 {
        self.state.count_contiguous().unwrap_or(0).min(self.head().length())
    }

    fn has(&self, index: u64) -> bool {
        index < self.head().length() && self.state.has(index).unwrap_or(false)
    }

    fn first_unset(&self, from: u64) -> u64 {
        let length = self.head().length();
        if from >= length {
            return from;
        }
        let found = self.state.files().and_then(|files| files.bits.first_unset(from, length));
        found.ok().map_or(from, |found| found.unwrap_or(length))
    }

    fn first_set(&self, from: u64) -> Option<u64> {
        let length = self.head().length();
        if from >= length {
            return None;
        }
        self.state.files().and_then(|files| files.bits.first_set(from, length)).ok().flatten()
    }

    fn words(&self, start: u64, words: &mut [u32]) {
        words.fill(0);
        let length = self.head().length();
        let mut bytes = vec![0; words.len() * 4];
        let copied = self.state.files().and_then(|files| files.bits.copy(start, &mut bytes));
        if copied.is_err() {
            return;
        }
        for (at, (word, four)) in words.iter_mut().zip(bytes.chunks_exact(4)).enumerate() {
            let first = start + at as u64 * 32;
            let inside = length.saturating_sub(first).min(32) as u32;
            let mask = if inside == 32 { u32::MAX } else { (1 << inside) - 1 };
            *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]) & mask;
        }
    }

    fn has_manifest(&self) -> bool {
        self.state.authority.manifest().is_some()
    }

    fn is_compat(&self) -> bool {
        self.state.authority.is_compat()
    }
}
