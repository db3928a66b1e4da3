//! Group commit: appends of several threads that are committed together.
//!
//! The first thread that appends leads. Threads that append meanwhile follow: each leaves a copy of its blocks in the
//! queue and waits until the leader has committed them or the lead is handed to it. The leader commits what is in the
//! queue when the writer is free, under one signature, as one oplog entry and, where the durability asks for it, with
//! one pair of syncs. It then hands the lead to the first follower that still waits. The blocks of each append are all
//! committed or none, and lie in one piece.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::encryption::Encryption;
use crate::core::state::closed;
use crate::crypto::hash::Hash;
use crate::crypto::keys::KeyPair;
use crate::sync::{Condvar, Mutex, Rank, Signal};
use crate::{Error, ErrorKind, Result};

/// Where each commit waits for the disk, the leader waits for followers up to the last commit's duration divided by
/// this.
const GATHER_DIVISOR: u32 = 4;

/// Appends that wait to be committed together.
pub(crate) struct AppendQueue {
    appends: Mutex<Appends>,
    joined: Condvar,
}

#[derive(Default)]
struct Appends {
    /// Whether a thread commits, or is about to.
    has_leader: bool,
    followers: VecDeque<Arc<Follower>>,
    /// How many appends were committed or waiting when the last commit ended, and for how long it pays to wait for as
    /// many again: threads whose appends were just committed mostly come at once with the next.
    expected: usize,
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
    /// The leader committed it; length and byte length after it.
    Committed(Result<(u64, u64)>),
    /// Its own thread leads from now on.
    Leads,
}

/// What became of an append that joined the queue.
pub(crate) enum Joined<'a> {
    /// The leader committed it; length and byte length after it.
    Committed(Result<(u64, u64)>),
    /// Its own thread has to commit it, with those that wait behind it.
    Leads(Leader<'a>),
}

/// The followers whose appends the leader commits. Each gets an answer, also where the leader panics.
pub(crate) struct Group(Vec<Arc<Follower>>);

/// The right to commit. Dropping it hands the lead to the next follower, also where the leader panics.
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

    /// Wakes each follower with `length` of its place in the group, which is length and byte length after its append.
    pub(crate) fn finish(self, length: impl Fn(usize) -> Result<(u64, u64)>) {
        self.0.iter().enumerate().for_each(|(at, follower)| follower.woken.set(Woken::Committed(length(at))));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let lost = || Error::new(ErrorKind::Failed, "the thread that was to commit this append panicked");
        // A signal keeps its first value: followers that have an answer keep it.
        self.0.iter().for_each(|follower| follower.woken.set(Woken::Committed(Err(lost()))));
    }
}

impl Leader<'_> {
    /// Waits for as many appends as were there the last time, for a part of the last commit's duration at the most.
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

    /// Takes the first followers out of the queue, up to one that `fits` refuses.
    pub(crate) fn take_group(&self, mut fits: impl FnMut(&Follower) -> bool) -> Group {
        let mut appends = self.0.appends.lock();
        let count = appends.followers.iter().take_while(|follower| fits(follower)).count();
        Group(appends.followers.drain(..count).collect())
    }

    /// Notes for the next leader that a commit of `count` appends took so long.
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

    /// The lead, or none where another thread has it.
    pub(crate) fn try_lead(&self) -> Option<Leader<'_>> {
        let has_leader = std::mem::replace(&mut self.appends.lock().has_leader, true);
        (!has_leader).then(|| Leader(self))
    }

    /// Blocks until the leader has committed `follower` or hands it the lead; without a leader `follower` leads at
    /// once.
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
