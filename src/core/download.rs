//! Downloads: blocks that the network fetches while the caller does something else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::handle::Hypercore;
use crate::core::limits::check_range;
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::core::wait_goal::WaitGoal;
use crate::core::waiters::{DownloadEntry, WaitOutcome};
use crate::download::{Blocks, Download};
use crate::sync::{Mutex, Rank, deadline};
use crate::{Error, ErrorKind, Result};

/// The most blocks a list may name.
const MAX_LISTED: usize = 1 << 20;

/// The progress of a download.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// How many of the blocks are held.
    pub blocks: u64,
    /// How many blocks there are. For a range without an end: up to the present length of the log.
    pub total: u64,
}

/// A download in progress; made by [`Hypercore::download`]. It goes on when this is dropped.
/// [`Downloading::cancel`] ends it, and so does closing its session.
pub struct Downloading {
    shared: Arc<Shared>,
    what: Arc<Download>,
    /// The core's list keeps it alive until the download ends; see `Shared::finish_downloads`.
    entry: Arc<DownloadEntry>,
}

/// Downloads.
impl Hypercore {
    /// Starts to download blocks from the network and returns at once.
    ///
    /// [`Downloading::wait`] waits for them. Fails with [`BadArgument`](ErrorKind::BadArgument) for a range that
    /// ends before it starts and for a list of more than 2^20 blocks, and with [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// use hypercore::{Download, Hypercore};
    ///
    /// let core = Hypercore::in_memory()?;
    /// core.append_batch(["here", "already"])?;
    /// core.download(Download::range(0..2))?.wait()?;
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn download(&self, what: Download) -> Result<Downloading> {
        self.session.download(what)
    }
}

impl Session {
    /// See [`crate::Hypercore::download`].
    pub(crate) fn download(&self, what: Download) -> Result<Downloading> {
        self.check_open()?;
        match &what.blocks {
            Blocks::List(list) if list.len() > MAX_LISTED => {
                return Err(Error::bad_argument(format!(
                    "a download lists {} blocks, more than the {MAX_LISTED} of one: split the list",
                    list.len()
                )));
            }
            Blocks::Range { start, end: Some(end) } => check_range(&(*start..*end))?,
            Blocks::Range { start, end: None } => check_range(&(*start..*start))?,
            Blocks::List(list) => {
                let end = list.last().map_or(0, |last| last.saturating_add(1));
                check_range(&(0..end))?;
            }
        }
        let shared = &self.shared;
        let what = Arc::new(what);
        let goal = WaitGoal::Range(what.clone());
        let waiting = shared.waiters.register(self.id, goal.clone(), None, &shared.network)?;
        // Checked after registering: a close from here on finds the waiter.
        self.check_open()?;
        let signal = waiting.signal();
        shared.ask(&waiting, &goal);
        let entry = Arc::new(DownloadEntry {
            what: what.clone(),
            waiting: Mutex::new(Rank::Replicator, Some(waiting)),
            signal,
        });
        shared.downloads.lock().push(entry.clone());
        shared.forget_ended_downloads();
        if shared.network.get().is_none() {
            shared.finish_downloads();
        }
        Ok(Downloading { shared: shared.clone(), what, entry })
    }
}

impl Shared {
    /// Withdraws from the network the requests of downloads that have ended.
    pub(crate) fn forget_ended_downloads(&self) {
        let ended = take_matching(&mut self.downloads.lock(), |entry| entry.signal.peek().is_some());
        drop(ended.iter().map(|entry| entry.waiting.lock().take()).collect::<Vec<_>>());
    }

    /// Without a network: ends the downloads whose blocks are all held, and those with `if_available`, as no
    /// peer has more.
    pub(crate) fn finish_downloads(&self) {
        let candidates: Vec<_> = self.downloads.lock().clone();
        for entry in candidates {
            if entry.what.if_available || self.is_downloaded(&entry.what).unwrap_or(false) {
                entry.signal.set(WaitOutcome::Changed);
            }
        }
    }

    /// Ends the downloads whose blocks are all held, even if the network does not know of all of them yet.
    pub(crate) fn finish_held_downloads(&self) {
        let candidates: Vec<_> = self.downloads.lock().clone();
        for entry in candidates {
            if self.is_downloaded(&entry.what).unwrap_or(false) {
                entry.signal.set(WaitOutcome::Changed);
            }
        }
    }

    fn is_downloaded(&self, what: &Download) -> Result<bool> {
        self.read_bits(|reading| match &what.blocks {
            Blocks::Range { end: None, .. } => Ok(false),
            Blocks::Range { start, end: Some(end) } => {
                Ok(start >= end || (*end <= reading.length() && reading.bits.first_unset(*start, *end)?.is_none()))
            }
            Blocks::List(list) => {
                for &index in list {
                    if !reading.has(index)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        })
    }
}

fn take_matching(
    list: &mut Vec<Arc<DownloadEntry>>,
    mut matches: impl FnMut(&DownloadEntry) -> bool,
) -> Vec<Arc<DownloadEntry>> {
    let (ended, kept) = std::mem::take(list).into_iter().partition(|entry| matches(entry));
    *list = kept;
    ended
}

impl Downloading {
    /// Blocks until all blocks of the download are held. A range without an end is never complete.
    ///
    /// A download outlives connections, as in JavaScript Hypercore: if no connected peer has the rest, it waits for
    /// another peer without limit. [`Download::if_available`] ends such a download, [`Downloading::wait_timeout`]
    /// only the wait. Fails with [`Cancelled`](ErrorKind::Cancelled) after [`Downloading::cancel`] and with
    /// [`Closed`](ErrorKind::Closed) when the session closes.
    #[doc(alias = "done")]
    pub fn wait(&self) -> Result<()> {
        self.wait_until(None)
    }

    /// Like [`Downloading::wait`], for at most `timeout`. Fails with [`Timeout`](ErrorKind::Timeout) then; the
    /// download goes on.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.wait_until(deadline(timeout))
    }

    fn wait_until(&self, until: Option<Instant>) -> Result<()> {
        let outcome = self.entry.signal.wait(until);
        if outcome.is_some() {
            self.forget();
        }
        match outcome {
            Some(WaitOutcome::Changed) => Ok(()),
            Some(WaitOutcome::Failed(error)) => Err(error),
            None => Err(Error::new(ErrorKind::Timeout, "the download did not finish before the timeout; it goes on")),
        }
    }

    /// Whether the download has ended, with success or an error.
    pub fn is_done(&self) -> bool {
        self.entry.signal.peek().is_some()
    }

    /// Counts how many of the blocks are held.
    pub fn progress(&self) -> Result<Progress> {
        self.shared.read_bits(|reading| match &self.what.blocks {
            &Blocks::Range { start, end } => {
                let total = end.unwrap_or(reading.length()).saturating_sub(start);
                let end = end.unwrap_or(reading.length()).min(reading.length());
                let blocks = if start < end { reading.bits.count_set(start..end)? } else { 0 };
                Ok(Progress { blocks, total })
            }
            Blocks::List(list) => {
                let mut blocks = 0;
                for &index in list {
                    blocks += u64::from(reading.has(index)?);
                }
                Ok(Progress { blocks, total: list.len() as u64 })
            }
        })
    }

    /// Ends the download. Blocks that have come stay. Its waiters get [`Cancelled`](ErrorKind::Cancelled).
    #[doc(alias = "destroy")]
    pub fn cancel(&self) {
        self.entry.signal.set(WaitOutcome::Failed(Error::new(ErrorKind::Cancelled, "the download was cancelled")));
        self.forget();
    }

    fn forget(&self) {
        let waiting = self.entry.waiting.lock().take();
        drop(waiting);
        let gone = take_matching(&mut self.shared.downloads.lock(), |entry| std::ptr::eq(entry, &*self.entry));
        drop(gone);
    }
}

impl std::fmt::Debug for Downloading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downloading").field("what", &self.what).field("done", &self.is_done()).finish_non_exhaustive()
    }
}
