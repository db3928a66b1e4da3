//! Reads of an open core that do not hold its state.
//!
//! A standard `RwLock` admits no reader while a writer waits for it. A reader that held the state over a read of a
//! file would make every other thread wait for the disk. A reader therefore takes a [`Reading`] under the lock, which
//! costs one reference count, and reads the files after it. Three things tell the reader what happened in between:
//!
//! * **The overlay.** A page of the bitfield that waits for a flush is in the reading itself. A node of the tree that
//!   waits for a flush is looked up under the lock again, one node at a time ([`TreeView`]), unless all nodes that
//!   are asked for stand before the first node of the overlay.
//! * **The version of a file** grows when the file begins to change and when that ends. A flush writes only pages and
//!   nodes that readers find in memory until the flush is over. What a file says of any other page or node is true if
//!   the version after the read is the version before it.
//! * **The generation** grows when blocks are given up, by a cut or a clear. A reader that finds it grown begins
//!   again. Nothing else changes a node that leads to a held block: an append adds nodes and replaces none.
//!
//! A node that leads to no held block can be replaced when its size is put right (see `merkle`). Seeks, and proofs
//! that need such nodes, go through [`Shared::read_stable`].

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::Result;
use crate::core::shared::Shared;
use crate::core::state_lock::Published;
use crate::index::NodeIndex;
use crate::merkle::NodeSource;
use crate::node::Node;
use crate::storage::tree::TreeReader;

/// How often a search of the bitfield is begun again because a flush wrote to the file meanwhile. After that each bit
/// that was read is the one before the flush or the one after.
const TRIES: usize = 4;

/// The state as it was at one time, and what tells whether it still is so.
pub(crate) struct Reading {
    published: Arc<Published>,
    generation: u64,
    tree_version: u64,
    bits_version: u64,
}

impl Deref for Reading {
    type Target = Published;
    fn deref(&self) -> &Published {
        &self.published
    }
}

impl Reading {
    /// Whether the file `bitfield` is what it was, and with it every bit that was read.
    pub(crate) fn is_bits_unchanged(&self) -> bool {
        self.bits.version() == self.bits_version
    }

    /// The tree, to be read without the state.
    pub(crate) fn tree<'a>(&'a self, shared: &'a Shared) -> TreeView<'a> {
        TreeView { shared, reading: self, is_same_file: Cell::new(true) }
    }

    /// What `look` finds in the file of nodes up to `last`, if they are there and were all the time. It must read
    /// nothing else of the core.
    pub(crate) fn read_from_file<T>(&self, last: NodeIndex, read: impl FnOnce(&TreeReader<'_>) -> T) -> Option<T> {
        if last >= self.tree.dirty_from {
            return None;
        }
        let found = read(&self.tree.file.reader());
        (self.tree.file.version() == self.tree_version).then_some(found)
    }
}

/// The tree of a [`Reading`], node by node. Each node is what it was at the time of the reading, or at a later one.
pub(crate) struct TreeView<'a> {
    shared: &'a Shared,
    reading: &'a Reading,
    /// Whether the file did not change since, as far as is known.
    is_same_file: Cell<bool>,
}

impl NodeSource for TreeView<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        if self.is_same_file.get() && index < self.reading.tree.dirty_from {
            match self.reading.read_from_file(index, |file| file.node(index)) {
                Some(found) => return found,
                None => self.is_same_file.set(false),
            }
        }
        let file = &self.reading.tree.file;
        loop {
            let (replaced, version) = {
                let state = self.shared.state.read();
                let tree = &state.files()?.tree;
                if let Some(known) = tree.known(index) {
                    return Ok(known);
                }
                ((!Arc::ptr_eq(tree.file(), file)).then(|| tree.file().clone()), tree.file().version())
            };
            let file = replaced.as_ref().unwrap_or(file);
            let found = file.node(index);
            // A flush that began since may have written just this node.
            if file.version() == version {
                return found;
            }
        }
    }
}

impl Shared {
    /// The state as it is now, to be read without holding it.
    pub(crate) fn reading(&self) -> Result<Reading> {
        self.state.published(|published| Reading {
            generation: self.generation.load(Ordering::SeqCst),
            tree_version: published.tree.file.version(),
            bits_version: published.bits.version(),
            published,
        })
    }

    /// Whether no block was given up since `reading`. If one was, neither the result of a read nor its error means
    /// anything.
    pub(crate) fn is_still_valid(&self, reading: &Reading) -> bool {
        // What was read before must not be read later than this.
        fence(Ordering::Acquire);
        reading.generation == self.generation()
    }

    /// What `look` finds in the bitfield.
    pub(crate) fn read_bits<T>(&self, read: impl Fn(&Reading) -> Result<T>) -> Result<T> {
        for _ in 1..TRIES {
            let reading = self.reading()?;
            let found = read(&reading);
            if reading.is_bits_unchanged() {
                return found;
            }
        }
        read(&self.reading()?)
    }

    /// What `look` finds in the tree, with no block given up meanwhile.
    pub(crate) fn read_tree<T>(&self, read: impl Fn(&Reading, &TreeView<'_>) -> Result<T>) -> Result<T> {
        loop {
            let reading = self.reading()?;
            let found = read(&reading, &reading.tree(self));
            if self.is_still_valid(&reading) {
                return found;
            }
        }
    }

    /// As [`Shared::read_tree`], where nodes are read that may be put right: what is found is the same twice if the
    /// tree changed meanwhile.
    pub(crate) fn read_stable<T: PartialEq>(&self, read: impl Fn(&Reading, &TreeView<'_>) -> Result<T>) -> Result<T> {
        let mut last = None;
        loop {
            let reading = self.reading()?;
            let found = read(&reading, &reading.tree(self));
            if !self.is_still_valid(&reading) {
                continue;
            }
            if self.state.read().files()?.tree.is(&reading.tree) {
                return found;
            }
            match found {
                Ok(found) if last.as_ref() == Some(&found) => return Ok(found),
                Ok(found) => last = Some(found),
                Err(error) => return Err(error),
            }
        }
    }

    /// How many blocks from the first on are held. Counted when it is first asked for.
    pub(crate) fn contiguous_length(&self) -> Result<u64> {
        for _ in 1..TRIES {
            if let Some(contiguous) = self.state.read().contiguous {
                return Ok(contiguous);
            }
            let reading = self.reading()?;
            let counted = reading.first_unset(0)?;
            let mut state = self.state.write();
            let same_head = state.head.length() == reading.length() && state.head.fork == reading.head.fork;
            if same_head && state.files()?.bits.is(&reading.bits) && reading.is_bits_unchanged() {
                return Ok(*state.contiguous.get_or_insert(counted));
            }
        }
        self.reading()?.first_unset(0)
    }
}
