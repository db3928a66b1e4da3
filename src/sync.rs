//! The only door to locks, condition variables and threads, and the list of all of them.
//!
//! # Locks
//!
//! Locks are taken in this order, top first. A thread that holds one may take only those below it. Debug builds
//! check this, and panic at the first wrong order, whether or not it would have deadlocked.
//!
//! Each entry says where the lock is, what it guards, and the longest thing that is done under it.
//!
//! 1. [`Rank::ProofOrder`]: `net/connection` (`proof_order`). Stores the proofs of a connection's peers in the
//!    order of arrival. Longest: verifying and committing a batch.
//! 2. [`Rank::PeerSync`]: `core/shared.rs` (`peer_sync`). Lets one thread at a time sync what peers are to hear
//!    of. Longest: a file sync.
//! 3. [`Rank::Writer`]: `core/shared.rs` (`writer`). The oplog and flushing; every thread that changes a core
//!    holds it. Longest: a file sync, reading what a change needs, verifying the core.
//! 4. [`Rank::Notifying`]: `core/shared.rs` (`notifying`). Notifies the network of changes in their order.
//!    Longest: telling the network.
//! 5. [`Rank::Queue`]: `core/append_queue.rs` and `core/shared.rs` (`finders`). The appends that wait for a
//!    group commit, and the number of searches for peers. Longest: moving a vector, telling the network.
//! 6. [`Rank::Session`]: `core/shared.rs` (`sessions`, `downloads`, `extensions`) and `net/server.rs` (`cores`,
//!    `connections`). The open sessions, downloads and extensions of a core; the cores and connections of a
//!    server. Longest: a search of the list, telling the network of an extension.
//! 7. [`Rank::MessageOrder`]: `net/connection` (`message_order`). Handles the messages of a peer in their
//!    order, also while a channel opens. Longest: as [`Rank::Replicator`].
//! 8. [`Rank::Replicator`]: `net/driver` and `core/download.rs` (`waiting`). The replicator, and the waiter of
//!    a download. Longest: one step of the replicator, which may read `tree` and `bitfield`.
//! 9. [`Rank::State`]: `core/state_lock.rs`. The head, the tree's and the bitfield's changes in memory.
//!    Longest: a change in memory. Readers of a core read no file under it.
//! 10. [`Rank::Waiters`]: `core/waiters.rs`. The waiters of each block. Longest: a search of a map.
//! 11. [`Rank::Connection`]: `net/connection` (`state`). The outgoing messages, cores and channels of a
//!     connection. Longest: moving a vector.
//! 12. [`Rank::Events`]: `core/event_queue.rs`, `core/waiters.rs` (`Cancel`) and `core/session.rs` (`snapshot`,
//!     shared by readers). Subscriptions and undelivered events, the waiters of a cancel token, the view of a
//!     snapshot. Longest: cloning the list of callbacks.
//! 13. [`Rank::Signal`]: `sync.rs` ([`Signal`]), `net/connection` (`close`, `reading`) and `net/duplex.rs`. The
//!     result of a waiter, the function that closes a stream, its reader thread, the bytes of a pipe. Longest:
//!     copying up to 64 KiB.
//! 14. [`Rank::File`]: `storage/mmap.rs` (`changing`). The length of a mapped file while the file changes or a
//!     window of it is mapped. Longest: a write, reading in a window for which no reader waits.
//! 15. [`Rank::Map`]: `storage/mmap.rs` (`maps`). The windows of a file, shared by readers; a reader that
//!     cannot get it at once reads the file. Longest: replacing a window, shortening the file.
//! 16. [`Rank::FileOpen`]: `storage/lazy_file.rs` (`making`). Creates or reopens a file once. Longest: opening
//!     it.
//! 17. [`Rank::Storage`]: `storage/disk.rs` and `storage/memory.rs`. The file names to be synced; files in
//!     memory. Longest: a sync of a directory, copying bytes.
//!
//! No lock is held over a callback or a socket write. Only [`Rank::PeerSync`] and [`Rank::Writer`], with the locks
//! above them, are held over a file sync; readers of a core never take these. Files are read under the locks down
//! to [`Rank::Replicator`], where a commit may wait for the read, and under [`Rank::Map`], where only a thread that
//! shortens the file waits.
//!
//! These are outside the order, and no lock of the list is taken under one of them:
//!
//! * **Values that are set once** (`OnceLock`, `LazyLock`; readers wait while the value is made): the network
//!   of a core and the failure that poisoned it (`core/shared.rs`, `core/writer.rs`); the part of the state
//!   that readers use without the lock, made from memory under [`Rank::State`] (`core/state_lock.rs`); the
//!   peer's identity (`net/connection`); an open file, made under [`Rank::FileOpen`]
//!   (`storage/lazy_file.rs`); offsets of subtrees (`merkle/seek.rs`); and constants of the process
//!   (`crypto/hash.rs`, `core/leaf_hashes.rs`, `storage/bitfield/plan.rs`).
//! * **Channels**: two of each connection, with room for one and four items: one wakes its writer, the other hands
//!   the writer what the handshake makes (`net/connection`); and one of each verification with progress, with room
//!   for one item (`core/verify.rs`).
//! * **Locks of the command**, which uses those of `std`: the lines drawn on the screen, held over a write
//!   to the terminal (`cli/terminal/screen.rs`); the state of the display of peers (`cli/terminal/peer_status.rs`), of
//!   addresses that are dialled (`cli/download/dialers.rs`) and of a download (`cli/download/fetch.rs`); and the
//!   directory that `demo` removes at its end (`cli/commands/demo.rs`).
//!
//! # Threads
//!
//! There are the caller's threads, a reader and a writer for each connection, and one acceptor for each listener.
//! Scoped threads that end before the call returns hash batches, and verify a core for a call that asks for
//! progress. Deadlines are timeouts of condition variables.
//!
//! Callbacks run on callers' threads. For events of a connection's thread they run on a thread that is started for
//! them and ends with them, because a callback may wait for what only the connection can bring.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// The place of a lock in the order of the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Rank {
    ProofOrder,
    PeerSync,
    Writer,
    Notifying,
    Queue,
    Session,
    MessageOrder,
    Replicator,
    State,
    Waiters,
    Connection,
    Events,
    Signal,
    File,
    Map,
    FileOpen,
    Storage,
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// Marks that this thread holds a lock of `rank`, until dropped.
    #[derive(Debug)]
    pub struct Held(Rank);

    impl Held {
        pub fn take(rank: Rank) -> Self {
            HELD.with_borrow_mut(|held| {
                if let Some(&above) = held.iter().find(|&&above| above >= rank) {
                    panic!("lock {rank:?} is taken while {above:?} is held: that is the wrong order");
                }
                held.push(rank);
            });
            Held(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // The list may be gone already on a thread that is ending.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|&rank| rank == self.0) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(debug_assertions))]
mod held {
    #[derive(Debug)]
    pub struct Held;

    impl Held {
        pub fn take(_: super::Rank) -> Self {
            Held
        }
    }
}

use held::Held;

/// A mutex with a place in the order. A panic under it does not poison it: code that writes under it has to leave
/// the value sound, and a panic under [`Rank::Writer`] poisons the core instead.
#[derive(Debug)]
pub struct Mutex<T> {
    rank: Rank,
    inner: std::sync::Mutex<T>,
}

/// Access to the value of a [`Mutex`]; dropping it releases the lock.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    // Declared before `_held`, and so dropped before it.
    inner: std::sync::MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Mutex<T> {
    /// Makes a mutex of `rank` around `value`.
    pub fn new(rank: Rank, value: T) -> Self {
        Mutex { rank, inner: std::sync::Mutex::new(value) }
    }

    /// Locks the mutex. Blocks while another thread holds it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::take(self.rank);
        MutexGuard { inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner), _held: held }
    }

    /// Locks the mutex without blocking; `None` if another thread holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = Held::take(self.rank);
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { inner, _held: held })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A reader-writer lock with a place in the order. A panic under it does not poison it.
#[derive(Debug)]
pub struct RwLock<T> {
    rank: Rank,
    inner: std::sync::RwLock<T>,
}

/// Shared access to the value of an [`RwLock`].
#[derive(Debug)]
pub struct ReadGuard<'a, T> {
    inner: std::sync::RwLockReadGuard<'a, T>,
    _held: Held,
}

/// Exclusive access to the value of an [`RwLock`].
#[derive(Debug)]
pub struct WriteGuard<'a, T> {
    inner: std::sync::RwLockWriteGuard<'a, T>,
    _held: Held,
}

impl<T> RwLock<T> {
    /// Makes a lock of `rank` around `value`.
    pub fn new(rank: Rank, value: T) -> Self {
        RwLock { rank, inner: std::sync::RwLock::new(value) }
    }

    /// Takes the lock for reading. Blocks while a thread holds it for writing or waits to.
    pub fn read(&self) -> ReadGuard<'_, T> {
        let held = Held::take(self.rank);
        ReadGuard { inner: self.inner.read().unwrap_or_else(PoisonError::into_inner), _held: held }
    }

    /// As [`RwLock::read`], but returns `None` where that would block.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let held = Held::take(self.rank);
        match self.inner.try_read() {
            Ok(inner) => Some(ReadGuard { inner, _held: held }),
            Err(TryLockError::Poisoned(poisoned)) => Some(ReadGuard { inner: poisoned.into_inner(), _held: held }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the lock for writing. Blocks while any other thread holds it.
    pub fn write(&self) -> WriteGuard<'_, T> {
        let held = Held::take(self.rank);
        WriteGuard { inner: self.inner.write().unwrap_or_else(PoisonError::into_inner), _held: held }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A condition variable for a [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// Makes a condition variable without waiters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Releases the lock, blocks until woken, and takes the lock again. May return without a wake-up, as any wait
    /// on a condition variable.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { inner, _held } = guard;
        MutexGuard { inner: self.0.wait(inner).unwrap_or_else(PoisonError::into_inner), _held }
    }

    /// As [`Condvar::wait`], but blocks at most until `deadline`; returns true if that passed. `None`
    /// is no deadline.
    pub fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Option<Instant>) -> (MutexGuard<'a, T>, bool) {
        let Some(deadline) = deadline else { return (self.wait(guard), false) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (guard, true);
        }
        let MutexGuard { inner, _held } = guard;
        let (inner, result) = self.0.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
        (MutexGuard { inner, _held }, result.timed_out())
    }
}

/// A value that one thread delivers once and other threads wait for.
#[derive(Debug)]
pub struct Signal<T> {
    value: Mutex<Option<T>>,
    changed: Condvar,
}

impl<T: Clone> Signal<T> {
    /// Makes a signal without a value.
    pub fn new() -> Self {
        Signal { value: Mutex::new(Rank::Signal, None), changed: Condvar::new() }
    }

    /// Delivers `value` and wakes all waiters. A second delivery changes nothing.
    pub fn set(&self, value: T) {
        let mut slot = self.value.lock();
        if slot.is_none() {
            *slot = Some(value);
            drop(slot);
            self.changed.notify_all();
        }
    }

    /// The delivered value, if there is one. Does not block.
    pub fn peek(&self) -> Option<T> {
        self.value.lock().clone()
    }

    /// Blocks until a value is delivered; returns `None` if `deadline` passes first.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<T> {
        let mut slot = self.value.lock();
        loop {
            if let Some(value) = slot.as_ref() {
                return Some(value.clone());
            }
            let (guard, late) = self.changed.wait_until(slot, deadline);
            slot = guard;
            if late {
                return slot.clone();
            }
        }
    }
}

impl<T: Clone> Default for Signal<T> {
    fn default() -> Self {
        Self::new()
    }
}

thread_local! {
    static IS_CONNECTION: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as a connection's. It must not wait for what connections bring.
pub fn enter_connection() {
    IS_CONNECTION.set(true);
}

/// Whether this thread is a connection's.
pub fn is_connection() -> bool {
    IS_CONNECTION.get()
}

/// The time at which a wait of `timeout` that starts now ends. `None` if that is later than the
/// clock can represent.
pub fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn lock_in_wrong_order_panics_without_deadlock() {
        let state = RwLock::new(Rank::State, ());
        let writer = Mutex::new(Rank::Writer, ());
        drop((writer.lock(), state.read()));
        let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _state = state.read();
            let _writer = writer.lock();
        }));
        assert!(wrong.is_err());
        drop((writer.lock(), state.write()));
    }

    #[test]
    fn signal_set_twice_keeps_first_value() {
        let signal = Signal::new();
        assert_eq!(signal.wait(deadline(Duration::from_micros(1))), None);
        std::thread::scope(|s| {
            s.spawn(|| signal.set(1));
            assert_eq!(signal.wait(None), Some(1));
        });
        signal.set(2);
        assert_eq!(signal.peek(), Some(1));
    }
}
