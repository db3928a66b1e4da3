//! Calls that wait for a block, a longer head or the network: how they are registered, woken and cancelled.
//!
//! A waiter registers first and looks at the core after that. A thread that changes the core wakes the waiters
//! after the change. So no wake-up is lost, in either order. A woken waiter looks again; a wake-up carries no data.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use crate::core::network::Network;
use crate::core::wait_goal::WaitGoal;
use crate::download::Download;
use crate::sync::{Mutex, Rank, Signal};
use crate::{Error, ErrorKind, Result};

/// Why a wait ended.
#[derive(Clone, Debug)]
pub(crate) enum WaitOutcome {
    /// Something changed: the waiter checks again whether it can finish.
    Changed,
    /// The goal cannot be reached: closed, cancelled, or the network's error.
    Failed(Error),
}

/// All waiters of one core.
pub(crate) struct Waiters(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next_id: u64,
    waiters: HashMap<u64, Waiter>,
    blocks: HashMap<u64, Vec<u64>>,
    closed: Option<Error>,
}

struct Waiter {
    session: u64,
    goal: WaitGoal,
    signal: Arc<Signal<WaitOutcome>>,
}

/// A registered waiter. Dropping it ends the wait.
pub(crate) struct Waiting {
    waiters: Arc<Waiters>,
    id: u64,
    signal: Arc<Signal<WaitOutcome>>,
    /// Told when the wait is over, also a network that was set after the wait began.
    network: Arc<OnceLock<Arc<dyn Network>>>,
}

/// A download in the core's list.
pub(crate) struct DownloadEntry {
    pub(crate) what: Arc<Download>,
    pub(crate) waiting: Mutex<Option<Waiting>>,
    pub(crate) signal: Arc<Signal<WaitOutcome>>,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Waiters(Mutex::new(Rank::Waiters, Inner::default()))
    }

    /// Registers a waiter of `session`. The caller looks at the core after this and before it waits.
    pub(crate) fn register(
        self: &Arc<Self>,
        session: u64,
        goal: WaitGoal,
        cancel: Option<&Cancel>,
        network: &Arc<OnceLock<Arc<dyn Network>>>,
    ) -> Result<Waiting> {
        let signal = Arc::new(Signal::new());
        let mut inner = self.0.lock();
        if let Some(error) = &inner.closed {
            return Err(error.clone());
        }
        inner.next_id += 1;
        let id = inner.next_id;
        if let WaitGoal::Block(index) = &goal {
            inner.blocks.entry(*index).or_default().push(id);
        }
        inner.waiters.insert(id, Waiter { session, goal, signal: signal.clone() });
        drop(inner);
        if let Some(cancel) = cancel {
            cancel.watch(&signal);
        }
        Ok(Waiting { waiters: self.clone(), id, signal, network: network.clone() })
    }

    /// Wakes the waiters of the blocks from `start` on.
    pub(crate) fn blocks_arrived(&self, start: u64, length: u64) {
        let inner = self.0.lock();
        if inner.blocks.is_empty() {
            return;
        }
        let wake = |ids: &Vec<u64>| {
            for waiter in ids.iter().filter_map(|id| inner.waiters.get(id)) {
                waiter.signal.set(WaitOutcome::Changed);
            }
        };
        if length < inner.blocks.len() as u64 {
            (start..start + length).filter_map(|index| inner.blocks.get(&index)).for_each(wake);
        } else {
            inner
                .blocks
                .iter()
                .filter(|(index, _)| (start..start + length).contains(index))
                .for_each(|(_, ids)| wake(ids));
        }
    }

    /// Wakes the waiters of a seek: the log may have grown past their byte.
    pub(crate) fn head_changed(&self) {
        let inner = self.0.lock();
        inner
            .waiters
            .values()
            .filter(|w| matches!(w.goal, WaitGoal::Seek { .. }))
            .for_each(|w| w.signal.set(WaitOutcome::Changed));
    }

    /// Wakes the waiters that ask the peers for a longer head.
    pub(crate) fn wake_upgrades(&self, outcome: &WaitOutcome) {
        let inner = self.0.lock();
        inner.waiters.values().filter(|w| w.goal == WaitGoal::Upgrade).for_each(|w| w.signal.set(outcome.clone()));
    }

    /// Ends the wait of waiter `id`, if it still waits.
    pub(crate) fn wake(&self, id: u64, outcome: WaitOutcome) {
        let waiter = self.0.lock().waiters.get(&id).map(|w| w.signal.clone());
        if let Some(signal) = waiter {
            signal.set(outcome);
        }
    }

    /// Ends all waits of one session.
    pub(crate) fn close_session(&self, session: u64, error: &Error) {
        let inner = self.0.lock();
        inner
            .waiters
            .values()
            .filter(|w| w.session == session)
            .for_each(|w| w.signal.set(WaitOutcome::Failed(error.clone())));
    }

    /// Ends all present and future waits.
    pub(crate) fn close(&self, error: &Error) {
        let mut inner = self.0.lock();
        inner.closed = Some(error.clone());
        inner.waiters.values().for_each(|w| w.signal.set(WaitOutcome::Failed(error.clone())));
    }

    /// Whether waiter `id` still waits.
    pub(crate) fn is_waiting(&self, id: u64) -> bool {
        self.0.lock().waiters.contains_key(&id)
    }

    /// All registered waits with their ids, for a network that starts after them.
    pub(crate) fn registered_waits(&self) -> Vec<(u64, WaitGoal)> {
        let inner = self.0.lock();
        let mut waits: Vec<_> = inner.waiters.iter().map(|(&id, waiter)| (id, waiter.goal.clone())).collect();
        waits.sort_unstable_by_key(|(id, _)| *id);
        waits
    }
}

impl Waiting {
    /// The id under which the network knows this waiter.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Blocks until the wait is ended. Fails with [`ErrorKind::Timeout`] if `deadline` passes first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        match self.signal.wait(deadline) {
            Some(WaitOutcome::Failed(error)) => Err(error),
            Some(WaitOutcome::Changed) => Ok(()),
            None => Err(Error::new(ErrorKind::Timeout, "the wait reached its timeout: try again, or allow more time")),
        }
    }

    /// The signal that is set when the wait ends.
    pub(crate) fn signal(&self) -> Arc<Signal<WaitOutcome>> {
        self.signal.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.waiters.0.lock();
        let Some(waiter) = inner.waiters.remove(&self.id) else { return };
        if let WaitGoal::Block(index) = waiter.goal {
            if let Some(ids) = inner.blocks.get_mut(&index) {
                ids.retain(|&id| id != self.id);
                if ids.is_empty() {
                    inner.blocks.remove(&index);
                }
            }
        }
        drop(inner);
        if let Some(network) = self.network.get() {
            network.stop_waiting(self.id);
        }
    }
}

/// A token that ends waits from another thread. One token may serve many calls, at once and one after the other.
///
/// ```
/// use hypercore::{Cancel, ErrorKind, GetOptions, Hypercore};
///
/// let core = Hypercore::in_memory()?;
/// let cancel = Cancel::new();
/// let result = std::thread::scope(|s| {
///     let getting = s.spawn(|| core.get_with(7, GetOptions::new().cancel(&cancel)));
///     cancel.cancel();
///     getting.join().unwrap()
/// });
/// assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
/// # Ok::<(), hypercore::Error>(())
/// ```
#[derive(Clone)]
pub struct Cancel(Arc<CancelState>);

struct CancelState {
    cancelled: AtomicBool,
    waiting: Mutex<Vec<Weak<Signal<WaitOutcome>>>>,
}

impl Cancel {
    /// Creates a token that is not cancelled.
    pub fn new() -> Self {
        Cancel(Arc::new(CancelState {
            cancelled: AtomicBool::new(false),
            waiting: Mutex::new(Rank::Events, Vec::new()),
        }))
    }

    /// Ends every present and future wait that has this token, with [`ErrorKind::Cancelled`].
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.0.waiting.lock());
        waiting.iter().filter_map(Weak::upgrade).for_each(|signal| signal.set(cancelled()));
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    fn watch(&self, signal: &Arc<Signal<WaitOutcome>>) {
        let mut waiting = self.0.waiting.lock();
        waiting.retain(|signal| signal.strong_count() > 0);
        waiting.push(Arc::downgrade(signal));
        drop(waiting);
        if self.is_cancelled() {
            signal.set(cancelled());
        }
    }
}

fn cancelled() -> WaitOutcome {
    WaitOutcome::Failed(Error::new(ErrorKind::Cancelled, "the wait was cancelled"))
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish()
    }
}
