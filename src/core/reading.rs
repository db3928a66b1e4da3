//! Reads of an open core that do not hold the state lock.
//!
//! A standard `RwLock` admits no reader while a writer waits for it, so a reader that held the state lock while it
//! reads a file would make every other thread wait for the disk. A reader therefore takes a [`Reading`] under the
//! lock, which costs one reference count, and reads the files after it has released the lock. Three things tell it
//! what happened in between:
//!
//! * **The overlay.** A reading contains the bitfield pages that wait for a flush. Nodes of the tree that wait for
//!   a flush are looked up under the lock again, one node at a time ([`TreeView`]), unless all nodes that are asked
//!   for lie before the first node of the overlay.
//! * **The version of a file** grows when a change of the file begins and again when it ends. A flush writes only
//!   pages and nodes that readers find in memory until the flush is over. The file is right about any other page or
//!   node if its version is the same before and after the read.
//! * **The generation** grows when a truncation or a clear frees blocks. A reader that finds it changed starts again.
//!   Nothing else changes a node that leads to a held block: an append adds nodes and replaces none.
//!
//! A node that leads to no held block can be replaced when its size is corrected (see `merkle`). Seeks, and proofs
//! that need such nodes, use [`Shared::read_stable`].

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

/// How often a search of the bitfield is tried while flushes write to the file. The last try takes what it reads:
/// each bit is the one from before the flush or the one from after it.
const TRIES: usize = 4;

/// The state as it was at one time, with the versions that tell whether it is still current.
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
    /// Whether the file `bitfield` has not changed, and with it none of the bits that were read.
    pub(crate) fn is_bits_unchanged(&self) -> bool {
        self.bits.version() == self.bits_version
    }

    /// The tree, for reading without the state lock.
    pub(crate) fn tree<'a>(&'a self, shared: &'a Shared) -> TreeView<'a> {
        TreeView { shared, reading: self, is_same_file: Cell::new(true) }
    }

    /// The result of `read` on the file `tree`, if all nodes up to `last` are in the file and the file did not
    /// change meanwhile; else `None`. `read` must read nothing else of the core.
    pub(crate) fn read_from_file<T>(&self, last: NodeIndex, read: impl FnOnce(&TreeReader<'_>) -> T) -> Option<T> {
        if last >= self.tree.dirty_from {
            return None;
        }
        let found = read(&self.tree.file.reader());
        (self.tree.file.version() == self.tree_version).then_some(found)
    }
}

/// The tree of a [`Reading`], node by node. Each node is as it was at the time of the reading, or as it was later.
pub(crate) struct TreeView<'a> {
    shared: &'a Shared,
    reading: &'a Reading,
    /// False once the file was found to have changed since the reading.
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
            // A flush that began meanwhile may have written this node.
            if file.version() == version {
                return found;
            }
        }
    }
}

impl Shared {
    /// The current state, for reading without the state lock.
    pub(crate) fn reading(&self) -> Result<Reading> {
        self.state.published(|published| Reading {
            generation: self.generation.load(Ordering::SeqCst),
            tree_version: published.tree.file.version(),
            bits_version: published.bits.version(),
            published,
        })
    }

    /// Whether no block was freed since `reading`. If one was, neither the result nor the error of
    /// a read counts.
    pub(crate) fn is_still_valid(&self, reading: &Reading) -> bool {
        // This keeps the reads before it from being moved after the load of the generation.
        fence(Ordering::Acquire);
        reading.generation == self.generation()
    }

    /// The result of `read` on the bitfield, read while no flush changed it, or on the last of [`TRIES`] tries.
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

    /// The result of `read` on the tree, read while no block was freed.
    pub(crate) fn read_tree<T>(&self, read: impl Fn(&Reading, &TreeView<'_>) -> Result<T>) -> Result<T> {
        loop {
            let reading = self.reading()?;
            let found = read(&reading, &reading.tree(self));
            if self.is_still_valid(&reading) {
                return found;
            }
        }
    }

    /// As [`Shared::read_tree`], for nodes whose size may be corrected. If the tree changed meanwhile, `read` has
    /// to give the same result twice in a row.
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

    /// How many blocks from the first on are held without a gap. The first call counts them.
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
