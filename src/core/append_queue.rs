//! Group commit: the appends of several threads are committed together.
//!
//! The first thread that appends is the leader. Threads that append meanwhile are followers: each puts a copy of
//! its blocks into the queue and waits until the leader has committed them or hands over the lead. Once the leader
//! has the writer lock, it commits the appends in the queue under one signature, as one oplog entry and, if the
//! durability asks for syncs, with one pair of them. It then hands the lead to the first follower that still waits.
//! The blocks of one append are all committed or none, and have consecutive indexes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::encryption::Encryption;
use crate::core::state::closed;
use crate::crypto::hash::Hash;
use crate::crypto::keys::KeyPair;
use crate::sync::{Condvar, Mutex, Rank, Signal};
use crate::{Error, ErrorKind, Result};

/// If each commit waits for the disk, the leader waits for followers for at most the last commit's duration divided by
/// this.
const GATHER_DIVISOR: u32 = 4;

/// The appends that wait to be committed together.
pub(crate) struct AppendQueue {
    appends: Mutex<Appends>,
    joined: Condvar,
}

#[derive(Default)]
struct Appends {
    /// Whether a thread commits, or is about to.
    has_leader: bool,
    followers: VecDeque<Arc<Follower>>,
    /// How many appends were in the last commit or still queued after it: a thread usually appends again right after
    /// its commit.
    expected: usize,
    /// How long the leader waits for `expected` appends.
    gather_time: Duration,
}

/// An append that another thread may commit.
pub(crate) struct Follower {
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) leaves: Vec<(u64, Hash)>,
    pub(crate) encryption: Option<Arc<Encryption>>,
    pub(crate) key_pair: KeyPair,
    woken: Signal<Woken>,
}

/// Why a follower stops waiting.
#[derive(Clone)]
enum Woken {
    /// The leader committed its append; length and byte length after it.
    Committed(Result<(u64, u64)>),
    /// Its own thread is the leader from now on.
    Leads,
}

/// The outcome for an append that joined the queue.
pub(crate) enum Joined<'a> {
    /// The leader committed it; length and byte length after it.
    Committed(Result<(u64, u64)>),
    /// Its own thread has to commit it, together with the followers behind it.
    Leads(Leader<'a>),
}

/// The followers whose appends the leader commits. Dropping it answers each that has no answer yet, also if
/// the leader panics.
pub(crate) struct Group(Vec<Arc<Follower>>);

/// The right to commit. Dropping it hands the lead to the next follower, also if the leader panics.
pub(crate) struct Leader<'a>(&'a AppendQueue);

impl Follower {
    pub(crate) fn new(
        blocks: Vec<Vec<u8>>,
        leaves: Vec<(u64, Hash)>,
        encryption: Option<Arc<Encryption>>,
        key_pair: KeyPair,
    ) -> Self {
        Follower { blocks, leaves, encryption, key_pair, woken: Signal::new() }
    }
}

impl Group {
    pub(crate) fn followers(&self) -> impl Iterator<Item = &Follower> {
        self.0.iter().map(Arc::as_ref)
    }

    /// Wakes each follower with `length(i)`: length and byte length after the append of follower `i` of the group.
    pub(crate) fn finish(self, length: impl Fn(usize) -> Result<(u64, u64)>) {
        self.0.iter().enumerate().for_each(|(at, follower)| follower.woken.set(Woken::Committed(length(at))));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let lost = || Error::new(ErrorKind::Failed, "the thread that was to commit this append panicked");
        // A signal keeps its first value, so this does not replace an answer.
        self.0.iter().for_each(|follower| follower.woken.set(Woken::Committed(Err(lost()))));
    }
}

impl Leader<'_> {
    /// Waits until as many appends are here as last time, for at most a quarter of the last commit's duration.
    pub(crate) fn gather(&self) {
        let mut appends = self.0.appends.lock();
        let until = Instant::now() + appends.gather_time;
        while appends.followers.len() + 1 < appends.expected {
            let (guard, late) = self.0.joined.wait_until(appends, Some(until));
            appends = guard;
            if late {
                return;
            }
        }
    }

    /// Takes followers from the front of the queue, up to the first that `fits` refuses.
    pub(crate) fn take_group(&self, mut fits: impl FnMut(&Follower) -> bool) -> Group {
        let mut appends = self.0.appends.lock();
        let count = appends.followers.iter().take_while(|follower| fits(follower)).count();
        Group(appends.followers.drain(..count).collect())
    }

    /// Records for the next leader how many appends a commit had and how long it took.
    pub(crate) fn committed(&self, count: usize, took: Duration) {
        let mut appends = self.0.appends.lock();
        appends.expected = count + appends.followers.len();
        appends.gather_time = took / GATHER_DIVISOR;
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let mut appends = self.0.appends.lock();
        match appends.followers.pop_front() {
            Some(next) => next.woken.set(Woken::Leads),
            None => appends.has_leader = false,
        }
    }
}

impl AppendQueue {
    pub(crate) fn new() -> Self {
        AppendQueue { appends: Mutex::new(Rank::Queue, Appends::default()), joined: Condvar::new() }
    }

    /// Returns the lead, or `None` if another thread has it.
    pub(crate) fn try_lead(&self) -> Option<Leader<'_>> {
        let has_leader = std::mem::replace(&mut self.appends.lock().has_leader, true);
        (!has_leader).then(|| Leader(self))
    }

    /// Blocks until the leader has committed `follower` or hands it the lead. Without a leader, `follower`
    /// leads at once.
    pub(crate) fn join(&self, follower: &Arc<Follower>) -> Joined<'_> {
        let mut appends = self.appends.lock();
        if !appends.has_leader {
            appends.has_leader = true;
            return Joined::Leads(Leader(self));
        }
        appends.followers.push_back(follower.clone());
        self.joined.notify_all();
        drop(appends);
        match follower.woken.wait(None) {
            Some(Woken::Committed(lengths)) => Joined::Committed(lengths),
            Some(Woken::Leads) => Joined::Leads(Leader(self)),
            None => Joined::Committed(Err(closed())),
        }
    }
}
