//! Implements `replication::Local`, the replicator's view of a core, on an open core.

use crate::Result;
use crate::core::reading::Reading;
use crate::core::shared::Shared;
use crate::core::state::closed;
use crate::index::NodeIndex;
use crate::merkle::{Head, NodeSource};
use crate::node::Node;
use crate::replication::Local;

/// The core at the time the view was made, or in part as it has become since; the replicator is told of such a
/// change later. No lock of the core is held meanwhile.
pub(super) struct LocalView<'a> {
    shared: &'a Shared,
    /// None if the core is closed.
    reading: Option<Reading>,
    /// The last head of a closed core.
    last_head: Head,
}

impl<'a> LocalView<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let reading = shared.reading().ok();
        let last_head = if reading.is_some() { Head::default() } else { shared.state.read().head.clone() };
        LocalView { shared, reading, last_head }
    }

    /// The head that peers are shown.
    fn announced_head(&self) -> &Head {
        self.reading.as_ref().map_or(&self.last_head, |reading| reading.announced_head())
    }
}

impl NodeSource for LocalView<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match &self.reading {
            Some(reading) => reading.tree(self.shared).node(index),
            None => Err(closed()),
        }
    }
}

impl Local for LocalView<'_> {
    fn head(&self) -> &Head {
        self.announced_head()
    }

    fn contiguous_length(&self) -> u64 {
        let known = self.reading.as_ref().and_then(|reading| reading.contiguous);
        let contiguous = known.or_else(|| self.shared.contiguous_length().ok());
        contiguous.unwrap_or(0).min(self.announced_head().length())
    }

    fn has(&self, index: u64) -> bool {
        let held = |reading: &Reading| reading.bits.get(index).unwrap_or(false);
        index < self.announced_head().length() && self.reading.as_ref().is_some_and(held)
    }

    fn first_unset(&self, from: u64) -> u64 {
        let length = self.announced_head().length();
        let Some(reading) = self.reading.as_ref().filter(|_| from < length) else { return from };
        reading.bits.first_unset(from, length).map_or(from, |found| found.unwrap_or(length))
    }

    fn first_set(&self, from: u64) -> Option<u64> {
        let length = self.announced_head().length();
        let reading = self.reading.as_ref().filter(|_| from < length)?;
        reading.bits.first_set(from, length).ok().flatten()
    }

    fn words(&self, start: u64, words: &mut [u32]) {
        words.fill(0);
        let length = self.announced_head().length();
        let mut bytes = vec![0; words.len() * 4];
        if self.reading.as_ref().is_none_or(|reading| reading.bits.copy(start, &mut bytes).is_err()) {
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
        self.reading.as_ref().is_some_and(|reading| reading.has_manifest)
    }

    fn is_compat(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.is_compat)
    }
}
