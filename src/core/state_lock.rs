//! The lock around the state of a core, and the part of the state that readers use after they have released it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::Result;
use crate::core::state::State;
use crate::manifest::Prologue;
use crate::merkle::Head;
use crate::storage::bitfield::Bitfield;
use crate::storage::blocks::Blocks;
use crate::storage::tree::TreeSnapshot;
use crate::sync::{Rank, ReadGuard, RwLock, WriteGuard};

/// The state of a core behind its lock.
pub(crate) struct StateLock(RwLock<StateCell>);

struct StateCell {
    state: State,
    /// Made for the first reader after a change.
    published: OnceLock<Arc<Published>>,
}

/// Shared access to the state. A thread that holds it reads only memory, no files.
pub(crate) struct StateRef<'a>(ReadGuard<'a, StateCell>);

/// Exclusive access to the state. A thread that holds it reads only memory, no files.
pub(crate) struct StateMut<'a>(WriteGuard<'a, StateCell>);

/// The part of the state that readers need. All readers share one until the state changes.
pub(crate) struct Published {
    pub(crate) head: Head,
    /// The head that peers may see, if it is not `head`.
    announced_head: Option<Head>,
    /// How many blocks from the first on are held without a gap, if they were counted.
    pub(crate) contiguous: Option<u64>,
    pub(crate) prologue: Option<Prologue>,
    pub(crate) has_manifest: bool,
    pub(crate) is_compat: bool,
    pub(crate) tree: TreeSnapshot,
    pub(crate) bits: Bitfield,
    pub(crate) blocks: Arc<Blocks>,
}

impl StateLock {
    pub(crate) fn new(state: State) -> Self {
        StateLock(RwLock::new(Rank::State, StateCell { state, published: OnceLock::new() }))
    }

    /// Passes the part of the state that readers need to `take`, which runs before anything can change. Blocks
    /// while another thread changes the state.
    pub(crate) fn published<T>(&self, take: impl FnOnce(Arc<Published>) -> T) -> Result<T> {
        let cell = self.0.read();
        let published = match cell.published.get() {
            Some(published) => published.clone(),
            None => {
                let new = Arc::new(Published::of(&cell.state)?);
                cell.published.get_or_init(|| new).clone()
            }
        };
        Ok(take(published))
    }

    /// Blocks while another thread changes the state.
    pub(crate) fn read(&self) -> StateRef<'_> {
        StateRef(self.0.read())
    }

    /// Blocks while any other thread holds the state.
    pub(crate) fn write(&self) -> StateMut<'_> {
        let mut cell = self.0.write();
        // If this stayed, a change of the bitfield would copy its list of pages even if there are no readers.
        cell.published.take();
        StateMut(cell)
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
            announced_head: state.unannounced.as_ref().map(|_| state.announced_head().clone()),
            contiguous: state.contiguous,
            prologue: state.verifier.prologue().copied(),
            has_manifest: state.verifier.manifest().is_some(),
            is_compat: state.verifier.is_compat(),
            tree: files.tree.snapshot(),
            bits: files.bits.clone(),
            blocks: files.blocks.clone(),
        })
    }

    /// The head that peers may see.
    pub(crate) fn announced_head(&self) -> &Head {
        self.announced_head.as_ref().unwrap_or(&self.head)
    }

    /// The length of the log, in blocks.
    pub(crate) fn length(&self) -> u64 {
        self.head.length()
    }

    /// Whether block `index` is held.
    pub(crate) fn has(&self, index: u64) -> Result<bool> {
        Ok(index < self.length() && self.bits.get(index)?)
    }

    /// The first block from `from` on that is not held; the length of the log if all are held.
    pub(crate) fn first_unset(&self, from: u64) -> Result<u64> {
        Ok(self.bits.first_unset(from, self.length())?.unwrap_or(self.length()))
    }
}
