//! Downloads a range of a core from addresses.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use hypercore::{Download, Error, ErrorKind, Hypercore, Subscription, UpdateOptions};

use super::dialers::Dialers;
use super::here::Here;
use crate::cli::arguments::values::Range;
use crate::cli::failure::{Failure, Result, about};
use crate::cli::stderr::one_line;
use crate::cli::terminal::progress::{Progress, Unit};
use crate::cli::terminal::screen::note;
use crate::cli::terminal::units::plural;
use crate::cli::thread::thread;

const CONFLICT: &str =
    "a peer has another log with the same key: the owner of the key signed two logs; nothing stored here was changed";
/// How long the other peers have after the first one joined to announce a longer log.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// A running download from addresses.
///
/// Every event of the core and its peers sends on one channel, the bell. The waiting thread then reads the state of
/// the core and of the peers.
pub struct Fetch<'a> {
    pub(super) core: &'a Hypercore,
    pub(super) dir: &'a Path,
    pub(super) start: u64,
    /// `None` is the end of the log.
    pub(super) end: Option<u64>,
    /// How many blocks of the range were held at the start.
    held_before: u64,
    pub(super) shared: Arc<Shared>,
    bell: Receiver<()>,
    dialers: Arc<Dialers>,
    _subscriptions: Vec<Subscription>,
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.dialers.stop();
    }
}

pub(super) struct Shared {
    ringer: Sender<()>,
    /// Whether every connected peer has announced its length, and none is longer than the log.
    settled: AtomicBool,
    downloaded: AtomicU64,
    last_progress: Mutex<Instant>,
    /// When the first peer joined.
    joined: Mutex<Option<Instant>>,
    /// The error that ends the download.
    failure: Mutex<Option<String>>,
    pub(super) stopped: AtomicBool,
}

impl<'a> Fetch<'a> {
    /// Starts to download the blocks from `range.0` up to `range.1`, or up to the end of the log, into
    /// `core` in `dir`.
    pub fn start(core: &'a Hypercore, dir: &'a Path, addresses: &[String], range: Range) -> Result<Self> {
        let (start, end) = range;
        let (ringer, bell) = bounded(1);
        let shared = Arc::new(Shared {
            ringer,
            settled: AtomicBool::new(false),
            downloaded: AtomicU64::new(0),
            last_progress: Mutex::new(Instant::now()),
            joined: Mutex::new(None),
            failure: Mutex::new(None),
            stopped: AtomicBool::new(false),
        });
        let (to_sync, peers) = unbounded();
        let mut subscriptions = subscribe(core, &shared);
        let rings = shared.clone();
        let dialers = Arc::new(Dialers::start(core, addresses, move || rings.ring())?);
        let (of_peer, joins) = (shared.clone(), dialers.clone());
        subscriptions.push(core.on_peer_add(move |peer| {
            of_peer.settled.store(false, Ordering::SeqCst);
            of_peer.join();
            joins.joined(peer);
            let _ = to_sync.send(());
        }));
        spawn_settling(core, &shared, peers)?;
        let held_before = spawn_download(core, &shared, range).map_err(|e| about(dir, e))?;
        Ok(Fetch { core, dir, start, end, held_before, shared, bell, dialers, _subscriptions: subscriptions })
    }

    /// Waits until the range is complete. Fails after `timeout` without progress.
    pub fn finish(&self, timeout: Option<Duration>) -> Result<()> {
        let mut here = Here::new(self.start);
        let mut progress = Progress::new("cloning", Unit::Blocks, None).after(self.held_before);
        let grace = timeout.map_or(GRACE, |timeout| GRACE.min(timeout / 2));
        // The length and fork of the whole log, once they are known.
        let mut whole: Option<(u64, u64)> = None;
        let mut told_short = false;
        loop {
            self.check()?;
            let (length, fork) = (self.core.len(), self.core.fork());
            if whole.is_none_or(|(_, of)| of != fork) && self.is_in_step(length, fork, grace) {
                whole = Some((length, fork));
            }
            let end = match (self.end, whole) {
                (Some(end), _) => Some(end),
                (None, Some((whole, _))) => Some(whole.max(self.start)),
                (None, None) => None,
            };
            let now_here = here.up_to(self.core).map_err(|e| about(self.dir, e))?;
            if end.is_some_and(|end| now_here >= end) {
                return Ok(());
            }
            if whole.is_some() && self.end.is_some_and(|end| end > length) && !std::mem::replace(&mut told_short, true)
            {
                note(format_args!("warning: the log has {} so far; waiting for more", plural(length, "block")));
            }
            progress.expect(end.unwrap_or(length).saturating_sub(self.start));
            progress.at(self.held_before + self.shared.downloaded.load(Ordering::Relaxed));

            let look = if whole.is_none() { self.look_again(grace) } else { None };
            // A deadline that overflows the clock is no deadline.
            let patience = timeout.and_then(|timeout| self.shared.last_progress().checked_add(timeout));
            match self.wait([look, patience].into_iter().flatten().min()) {
                Ok(()) => {}
                Err(()) if patience.is_none_or(|at| at > Instant::now()) => {}
                Err(()) => return Err(self.nothing_came(timeout.unwrap_or_default(), now_here)),
            }
        }
    }

    /// Whether the log is as long as every peer announced. At least one peer must have announced a length, and the
    /// others must have announced theirs, failed, or had `grace` to do so.
    pub(super) fn is_in_step(&self, length: u64, fork: u64, grace: Duration) -> bool {
        let peers = self.core.peers();
        let mut told = peers
            .iter()
            .filter(|peer| peer.remote_uploading())
            .map(|peer| peer.remote_fork() < fork || (peer.remote_fork() == fork && peer.remote_length() <= length));
        let is_late = self.shared.joined().is_some_and(|joined| joined.elapsed() >= grace);
        // A peer that announced more is ignored only if the core has asked it in vain (`settled`).
        match self.shared.settled.load(Ordering::SeqCst) {
            true => (self.dialers.are_settled() || is_late) && told.any(|is_behind| is_behind),
            false => is_late && told.next().is_some_and(|is_behind| is_behind) && told.all(|is_behind| is_behind),
        }
    }

    /// When to look at the peers without an event: a peer that announces an empty log causes none.
    pub(super) fn look_again(&self, grace: Duration) -> Option<Instant> {
        let (joined, now) = (self.shared.joined()?, Instant::now());
        Some(if now < joined + grace { joined + grace } else { now + grace })
    }

    pub(super) fn check(&self) -> Result<()> {
        match &*self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(Failure::Failed(format!("{}: {failure}", self.dir.display()))),
            None => Ok(()),
        }
    }

    /// Waits for the bell; `Err` if it does not ring before `until`.
    pub(super) fn wait(&self, until: Option<Instant>) -> std::result::Result<(), ()> {
        match until {
            None => self.bell.recv().map_err(|_| ()),
            Some(until) => match self.bell.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => Err(()),
                _ => Ok(()),
            },
        }
    }

    fn nothing_came(&self, timeout: Duration, here: u64) -> Failure {
        let why = match (self.dialers.trouble(), self.shared.joined()) {
            (Some(trouble), _) => format!(" ({trouble})"),
            (None, None) => " (no peer has shown that it has this core: check KEY and --from)".into(),
            (None, Some(_)) => String::new(),
        };
        Failure::Failed(format!(
            "{}: nothing came for {timeout:?}{why}; the stored blocks stay, without a gap up to block {here}: run clone \
             again to resume",
            self.dir.display(),
        ))
    }
}

impl Shared {
    pub(super) fn ring(&self) {
        // A bell that rings already is enough.
        let _ = self.ringer.try_send(());
    }

    fn progressed(&self) {
        *self.last_progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.ring();
    }

    fn last_progress(&self) -> Instant {
        *self.last_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self) {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.ring();
    }

    fn joined(&self) -> Option<Instant> {
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_by(&self, error: &Error) {
        self.fail(if error.kind() == ErrorKind::Conflict { CONFLICT.into() } else { error.to_string() });
    }

    fn fail(&self, failure: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.ring();
    }
}

/// Lets the events of the core ring the bell.
fn subscribe(core: &Hypercore, shared: &Arc<Shared>) -> Vec<Subscription> {
    let (of_download, of_append, of_truncate) = (shared.clone(), shared.clone(), shared.clone());
    let (of_conflict, of_leave) = (shared.clone(), shared.clone());
    vec![
        core.on_download(move |_| {
            of_download.downloaded.fetch_add(1, Ordering::Relaxed);
            of_download.progressed();
        }),
        core.on_append(move || of_append.progressed()),
        core.on_truncate(move |_, _| of_truncate.progressed()),
        core.on_peer_remove(move |_| of_leave.ring()),
        core.on_conflict(move |_, _| of_conflict.fail(CONFLICT.into())),
        core.on_verification_error(|error, _| note(format_args!("warning: {}", one_line(&error.to_string())))),
    ]
}

/// Starts a thread that, after each new peer, asks all peers for a longer log until none has one.
fn spawn_settling(core: &Hypercore, shared: &Arc<Shared>, peers: Receiver<()>) -> Result<()> {
    let (core, shared) = (core.clone(), shared.clone());
    let settle = move || {
        for () in peers {
            loop {
                match core.update_with(UpdateOptions::new().wait(true).force(true)) {
                    Ok(true) => shared.progressed(),
                    Ok(false) => break,
                    Err(error) if error.kind() == ErrorKind::Closed => return,
                    Err(error) => return shared.fail_by(&error),
                }
            }
            shared.settled.store(true, Ordering::SeqCst);
            shared.ring();
        }
    };
    thread("settle").spawn(settle).map(|_| ()).map_err(|e| Error::from(e).into())
}

/// Starts the download and a thread that waits for its end. Returns how many blocks of the range are held already.
fn spawn_download(core: &Hypercore, shared: &Arc<Shared>, range: Range) -> hypercore::Result<u64> {
    let downloading = core.download(match range {
        (start, Some(end)) => Download::range(start..end),
        (start, None) => Download::range(start..),
    })?;
    let held = downloading.progress()?.blocks;
    let shared = shared.clone();
    let wait = move || match downloading.wait() {
        Err(error) if error.kind() != ErrorKind::Closed => shared.fail_by(&error),
        _ => shared.ring(),
    };
    thread("download").spawn(wait)?;
    Ok(held)
}
