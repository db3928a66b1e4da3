//! Reading an open core while it changes, without holding its state.
//!
//! The lock of the state lets nobody in while a writer waits for it: a reader that held it over a read of a file would make all
//! others wait for the disk. So a reader takes a [`Reading`] under the lock, which is two counts and a pointer, and reads the files
//! outside. Three things tell it what came between:
//!
//! * **What waits for a flush** is found in memory first: pages of the bitfield in the reading itself, nodes of the tree, where there
//!   are any, one by one under the lock again ([`TreeView`]).
//! * **The version of a file** says whether the file changed since. A flush writes only what is still found in memory while it
//!   is written, so that what a file says of anything else is true if the version after reading is what it was before.
//! * **The generation** grows when blocks are given up, by a cut or a clear. Whoever finds it grown begins again. Nothing but that
//!   changes a node that a held block is found by: an append adds nodes, and puts none in the place of another.
//!
//! A node that no held block needs may be put right (see `merkle`). Seeks and answers that use such nodes are checked by
//! [`Shared::read_settled`].

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock};

use crate::Result;
use crate::core::state::{Shared, State};
use crate::index::NodeIndex;
use crate::manifest::Prologue;
use crate::merkle::{Head, NodeSource};
use crate::node::Node;
use crate::store::bitfield::Bitfield;
use crate::store::blocks::Blocks;
use crate::store::tree::{TreeReader, TreeSnapshot};
use crate::sync::{Rank, ReadGuard, RwLock, WriteGuard};

/// How often a search of the bitfield is begun again because a flush wrote to the file meanwhile. After that each bit that was read is
/// the one before the flush or the one after.
const TRIES: usize = 4;

/// The state of a core behind its lock, with what readers take of it.
pub(crate) struct StateLock(RwLock<Slot>);

struct Slot {
    state: State,
    /// Made for the first reader after a change.
    published: OnceLock<Arc<Published>>,
}

/// Shared access to the state. Only memory may be read while it is held.
pub(crate) struct StateRef<'a>(ReadGuard<'a, Slot>);

/// Exclusive access to the state. Only memory may be read while it is held.
pub(crate) struct StateMut<'a>(WriteGuard<'a, Slot>);

/// What a reader needs of the state; the same for all readers until the state changes.
pub(crate) struct Published {
    pub(crate) head: Head,
    /// How many blocks from the first on are held, where that was counted.
    pub(crate) contiguous: Option<u64>,
    pub(crate) prologue: Option<Prologue>,
    pub(crate) has_manifest: bool,
    pub(crate) is_compat: bool,
    pub(crate) tree: TreeSnapshot,
    pub(crate) bits: Bitfield,
    pub(crate) blocks: Arc<Blocks>,
}

/// The state as it was at one time, and what tells whether it still is so.
pub(crate) struct Reading {
    published: Arc<Published>,
    generation: u64,
    tree_version: u64,
    bits_version: u64,
}

impl StateLock {
    pub(crate) fn new(state: State) -> Self {
        StateLock(RwLock::new(Rank::State, Slot { state, published: OnceLock::new() }))
    }

    /// Blocks while a thread changes the state.
    pub(crate) fn read(&self) -> StateRef<'_> {
        StateRef(self.0.read())
    }

    /// Blocks while any other thread holds the state.
    pub(crate) fn write(&self) -> StateMut<'_> {
        let mut slot = self.0.write();
        // Also for the sake of who changes the bitfield: it need not be copied where nobody reads.
        slot.published.take();
        StateMut(slot)
    }
}

impl Deref for StateRef<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0.state
    }
}

impl Deref for StateMut<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0.state
    }
}

impl std::ops::DerefMut for StateMut<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0.state
    }
}

impl Published {
    fn of(state: &State) -> Result<Self> {
        let files = state.files()?;
        Ok(Published {
            head: state.head.clone(),
            contiguous: state.contiguous,
            prologue: state.authority.prologue().copied(),
            has_manifest: state.authority.manifest().is_some(),
            is_compat: state.authority.is_compat(),
            tree: files.tree.snapshot(),
            bits: files.bits.clone(),
            blocks: files.blocks.clone(),
        })
    }

    /// How many blocks the log has.
    pub(crate) fn length(&self) -> u64 {
        self.head.length()
    }

    /// Whether block `index` is here.
    pub(crate) fn has(&self, index: u64) -> Result<bool> {
        Ok(index < self.length() && self.bits.get(index)?)
    }

    /// The first block from `from` on that is not held; the length of the log where all are.
    pub(crate) fn first_unset(&self, from: u64) -> Result<u64> {
        Ok(self.bits.first_unset(from, self.length())?.unwrap_or(self.length()))
    }
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
        TreeView { shared, reading: self, is_in_file: Cell::new(self.tree.is_clean) }
    }

    /// What `look` finds if all nodes are in the file, and were all the time. It must read nothing else of the core.
    pub(crate) fn look_in_file<T>(&self, look: impl FnOnce(&TreeReader<'_>) -> T) -> Option<T> {
        if !self.tree.is_clean {
            return None;
        }
        let found = look(&self.tree.file.reader());
        (self.tree.file.version() == self.tree_version).then_some(found)
    }
}

/// The tree of a [`Reading`], node by node. Each node is what it was at the time of the reading, or at a later one.
pub(crate) struct TreeView<'a> {
    shared: &'a Shared,
    reading: &'a Reading,
    /// Whether all nodes are in the file, as far as is known.
    is_in_file: Cell<bool>,
}

impl NodeSource for TreeView<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        if self.is_in_file.get() {
            match self.reading.look_in_file(|file| file.node(index)) {
                Some(found) => return found,
                None => self.is_in_file.set(false),
            }
        }
        loop {
            let (file, version) = {
                let state = self.shared.state.read();
                let tree = &state.files()?.tree;
                match tree.known(index) {
                    Some(known) => return Ok(known),
                    None => (tree.file().clone(), tree.file().version()),
                }
            };
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
        let slot = self.state.0.read();
        let published = match slot.published.get() {
            Some(published) => published.clone(),
            None => {
                let new = Arc::new(Published::of(&slot.state)?);
                slot.published.get_or_init(|| new).clone()
            }
        };
        Ok(Reading {
            generation: self.generation.load(Ordering::SeqCst),
            tree_version: published.tree.file.version(),
            bits_version: published.bits.version(),
            published,
        })
    }

    /// Whether no block was given up since `reading`: if one was, what was read means nothing, nor does a failure to read it.
    pub(crate) fn keeps(&self, reading: &Reading) -> bool {
        // What was read before must not be read later than this.
        fence(Ordering::Acquire);
        reading.generation == self.generation()
    }

    /// What `look` finds in the bitfield.
    pub(crate) fn read_bits<T>(&self, look: impl Fn(&Reading) -> Result<T>) -> Result<T> {
        for _ in 1..TRIES {
            let reading = self.reading()?;
            let found = look(&reading);
            if reading.is_bits_unchanged() {
                return found;
            }
        }
        look(&self.reading()?)
    }

    /// What `look` finds in the tree, with no block given up meanwhile.
    pub(crate) fn read_tree<T>(&self, look: impl Fn(&Reading, &TreeView<'_>) -> Result<T>) -> Result<T> {
        loop {
            let reading = self.reading()?;
            let found = look(&reading, &reading.tree(self));
            if self.keeps(&reading) {
                return found;
            }
        }
    }

    /// As [`Shared::read_tree`], where nodes are read that may be put right: what is found is the same twice if the tree changed
    /// meanwhile.
    pub(crate) fn read_settled<T: PartialEq>(&self, look: impl Fn(&Reading, &TreeView<'_>) -> Result<T>) -> Result<T> {
        let mut last = None;
        loop {
            let reading = self.reading()?;
            let found = look(&reading, &reading.tree(self));
            if !self.keeps(&reading) {
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
