//! Downloads: ranges of blocks that the network is to bring, while the caller does something else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::handle::Hypercore;
use crate::core::limits::check_range;
use crate::core::request::WaitFor;
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::core::waiters::{DownloadEntry, WaitOutcome};
use crate::download::{Blocks, Download};
use crate::sync::{Mutex, Rank, deadline};
use crate::{Error, ErrorKind, Result};

/// The most blocks a list may name.
const MAX_LISTED: usize = 1 << 20;

/// How far a download is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// How many of the blocks are here.
    pub blocks: u64,
    /// How many there are; for a range without an end, up to the present length.
    pub total: u64,
}

/// A download that is under way. It goes on when this is dropped; [`Downloading::cancel`] ends it, and so does the end of its
/// session.
pub struct Downloading {
    shared: Arc<Shared>,
    what: Arc<Download>,
    /// Kept alive by the core until the download ends; see `Shared::finish_downloads`.
    entry: Arc<DownloadEntry>,
}

/// Downloads.
impl Hypercore {
    /// Asks the network for blocks, to be brought while the caller does something else.
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
                return Err(Error::bad_argument(format!("a download may list {MAX_LISTED} blocks at the most")));
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
        let want = WaitFor::Range(what.clone());
        let waiting = shared.waiters.register(self.id, want.clone(), None, &shared.network)?;
        // Only now, so that a close that comes later finds the waiter.
        self.check_open()?;
        let signal = waiting.signal();
        shared.ask(&waiting, &want);
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
    /// Takes back from the network what it was asked for downloads that have ended.
    pub(crate) fn forget_ended_downloads(&self) {
        let ended = extract(&mut self.downloads.lock(), |entry| entry.signal.peek().is_some());
        drop(ended.iter().map(|entry| entry.waiting.lock().take()).collect::<Vec<_>>());
    }

    /// Without a network, ends the downloads whose blocks are all here, and those of what is available: nothing is.
    pub(crate) fn finish_downloads(&self) {
        let candidates: Vec<_> = self.downloads.lock().clone();
        for entry in candidates {
            if entry.what.if_available || self.is_downloaded(&entry.what).unwrap_or(false) {
                entry.signal.set(WaitOutcome::Changed);
            }
        }
    }

    /// Ends the downloads whose blocks are all here, though the network was not told of all of them yet.
    pub(crate) fn finish_held_downloads(&self) {
        let candidates: Vec<_> = self.downloads.lock().clone();
        for entry in candidates {
            if self.is_downloaded(&entry.what).unwrap_or(false) {
                entry.signal.set(WaitOutcome::Changed);
            }
        }
    }

    fn is_downloaded(&self, what: &Download) -> Result<bool> {
        self.read_bits(|it| match &what.blocks {
            Blocks::Range { end: None, .. } => Ok(false),
            Blocks::Range { start, end: Some(end) } => {
                Ok(start >= end || (*end <= it.length() && it.bits.first_unset(*start, *end)?.is_none()))
            }
            Blocks::List(list) => {
                for &index in list {
                    if !it.has(index)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        })
    }
}

fn extract(
    list: &mut Vec<Arc<DownloadEntry>>,
    mut which: impl FnMut(&DownloadEntry) -> bool,
) -> Vec<Arc<DownloadEntry>> {
    let (ended, kept) = std::mem::take(list).into_iter().partition(|entry| which(entry));
    *list = kept;
    ended
}

impl Downloading {
    /// Blocks until all of it is here. Woken early with an error by [`Downloading::cancel`] and by closing.
    ///
    /// As in the reference, a download outlives connections: when nobody is left who has the rest, it waits for the next peer, for as
    /// long as it takes. [`Download::if_available`] ends it then, [`Downloading::wait_timeout`] the wait.
    #[doc(alias = "done")]
    pub fn wait(&self) -> Result<()> {
        self.wait_until(None)
    }

    /// As [`Downloading::wait`], for `timeout` at the longest; [`ErrorKind::Timeout`] then, and the download goes on.
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
            None => Err(Error::new(ErrorKind::Timeout, "the download was not done within the time allowed")),
        }
    }

    /// Whether the download ended, well or not.
    pub fn is_done(&self) -> bool {
        self.entry.signal.peek().is_some()
    }

    /// How far it is.
    pub fn progress(&self) -> Result<Progress> {
        self.shared.read_bits(|it| match &self.what.blocks {
            &Blocks::Range { start, end } => {
                let total = end.unwrap_or(it.length()).saturating_sub(start);
                let end = end.unwrap_or(it.length()).min(it.length());
                let blocks = if start < end { it.bits.count_set(start..end)? } else { 0 };
                Ok(Progress { blocks, total })
            }
            Blocks::List(list) => {
                let mut blocks = 0;
                for &index in list {
                    blocks += u64::from(it.has(index)?);
                }
                Ok(Progress { blocks, total: list.len() as u64 })
            }
        })
    }

    /// Ends the download; what has come stays. Who waits for it gets [`ErrorKind::Cancelled`].
    #[doc(alias = "destroy")]
    pub fn cancel(&self) {
        self.entry.signal.set(WaitOutcome::Failed(Error::new(ErrorKind::Cancelled, "the download was cancelled")));
        self.forget();
    }

    fn forget(&self) {
        let waiting = self.entry.waiting.lock().take();
        drop(waiting);
        let gone = extract(&mut self.shared.downloads.lock(), |entry| std::ptr::eq(entry, &*self.entry));
        drop(gone);
    }
}

impl std::fmt::Debug for Downloading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downloading").field("what", &self.what).field("done", &self.is_done()).finish_non_exhaustive()
    }
}
