//! Who waits for what: blocks, a longer head, answers of the network; and what ends the wait.
//!
//! A waiter registers first and looks at the core afterwards, and whoever changes the core tells the waiters afterwards: whichever
//! comes first, no wake-up is lost. A woken waiter looks again; it is never handed data.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use crate::core::network::Network;
use crate::core::request::WaitFor;
use crate::download::Download;
use crate::sync::{Mutex, Rank, Signal};
use crate::{Error, ErrorKind, Result};

/// Why a wait ended.
#[derive(Clone, Debug)]
pub(crate) enum WaitOutcome {
    /// What was wanted may be there: look again.
    Changed,
    /// It cannot come: closed, cancelled, or the network's error.
    Failed(Error),
}

/// All who wait on one core.
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
    want: WaitFor,
    signal: Arc<Signal<WaitOutcome>>,
}

/// One who waits; the wait is over when it is dropped.
pub(crate) struct Waiting {
    waiters: Arc<Waiters>,
    id: u64,
    signal: Arc<Signal<WaitOutcome>>,
    /// Who is to be told when the wait is over, even one that came after it had begun.
    network: Arc<OnceLock<Arc<dyn Network>>>,
}

/// A download as the core remembers it.
pub(crate) struct DownloadEntry {
    pub(crate) what: Arc<Download>,
    pub(crate) waiting: Mutex<Option<Waiting>>,
    pub(crate) signal: Arc<Signal<WaitOutcome>>,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Waiters(Mutex::new(Rank::Waiters, Inner::default()))
    }

    /// Registers a waiter of `session`. Look at the core after this and before waiting.
    pub(crate) fn register(
        self: &Arc<Self>,
        session: u64,
        want: WaitFor,
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
        if let WaitFor::Block(index) = &want {
            inner.blocks.entry(*index).or_default().push(id);
        }
        inner.waiters.insert(id, Waiter { session, want, signal: signal.clone() });
        drop(inner);
        if let Some(cancel) = cancel {
            cancel.watch(&signal);
        }
        Ok(Waiting { waiters: self.clone(), id, signal, network: network.clone() })
    }

    /// Wakes who waits for one of the blocks from `start` on.
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

    /// Wakes who waits for the place of a byte: the log may have grown over it.
    pub(crate) fn head_changed(&self) {
        let inner = self.0.lock();
        inner
            .waiters
            .values()
            .filter(|w| matches!(w.want, WaitFor::Seek { .. }))
            .for_each(|w| w.signal.set(WaitOutcome::Changed));
    }

    /// Wakes who waits for the peers' word on a longer head.
    pub(crate) fn wake_upgrades(&self, outcome: &WaitOutcome) {
        let inner = self.0.lock();
        inner.waiters.values().filter(|w| w.want == WaitFor::Upgrade).for_each(|w| w.signal.set(outcome.clone()));
    }

    /// Ends the wait of the waiter `id`, if it still waits.
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

    /// Ends all waits, and those to come.
    pub(crate) fn close(&self, error: &Error) {
        let mut inner = self.0.lock();
        inner.closed = Some(error.clone());
        inner.waiters.values().for_each(|w| w.signal.set(WaitOutcome::Failed(error.clone())));
    }

    /// Whether the waiter `id` still waits.
    pub(crate) fn is_waiting(&self, id: u64) -> bool {
        self.0.lock().waiters.contains_key(&id)
    }

    /// Everything the network is to bring, with the waiters' ids: what a network that comes late has to ask for.
    pub(crate) fn for_network(&self) -> Vec<(u64, WaitFor)> {
        let inner = self.0.lock();
        let mut wanted: Vec<_> = inner.waiters.iter().map(|(&id, waiter)| (id, waiter.want.clone())).collect();
        wanted.sort_unstable_by_key(|(id, _)| *id);
        wanted
    }
}

impl Waiting {
    /// The number by which the network knows this waiter.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Blocks until the wait is ended; [`ErrorKind::Timeout`] when `deadline` passes first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        match self.signal.wait(deadline) {
            Some(WaitOutcome::Failed(error)) => Err(error),
            Some(WaitOutcome::Changed) => Ok(()),
            None => Err(Error::new(ErrorKind::Timeout, "the time allowed for waiting is over")),
        }
    }

    /// What is set when the wait ends.
    pub(crate) fn signal(&self) -> Arc<Signal<WaitOutcome>> {
        self.signal.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.waiters.0.lock();
        let Some(waiter) = inner.waiters.remove(&self.id) else { return };
        if let WaitFor::Block(index) = waiter.want {
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

/// Ends waits from another thread. One token may serve many calls, at once and one after the other.
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
    /// A token nobody cancelled yet.
    pub fn new() -> Self {
        Cancel(Arc::new(CancelState {
            cancelled: AtomicBool::new(false),
            waiting: Mutex::new(Rank::Events, Vec::new()),
        }))
    }

    /// Ends every wait that was given this token, now and from now on, with [`ErrorKind::Cancelled`].
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
