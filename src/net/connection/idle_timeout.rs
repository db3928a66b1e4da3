//! Detection of a peer that sends nothing, or reads nothing, for `idle_timeout`.
//!
//! A direction makes progress when a message begins, when it is complete, and with each [`MIN_PROGRESS`] bytes
//! in between. So a byte now and then does not keep a connection alive, and a slow line may take as long as it
//! needs for a long message. Only time spent waiting for the peer counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// This many bytes of a message count as progress.
pub(super) const MIN_PROGRESS: usize = 16 * 1024;

/// The most bytes of one write call, so that its duration shows how fast the peer reads.
pub(super) const MAX_WRITE: usize = 64 * 1024;

/// The other thread sees progress only when a write returns. A write at minimum speed takes up to this many timeouts.
pub(super) const WINDOWS_PER_WRITE: u32 = (MAX_WRITE / MIN_PROGRESS) as u32;

/// The thread of this direction is not waiting for the peer.
const NOT_WAITING: u64 = u64::MAX;

/// Since when one direction has waited for the peer without progress. Set by the thread of that direction,
/// checked by both.
pub(super) struct IdleTimeout {
    began: Instant,
    limit: Option<Duration>,
    /// In milliseconds since `began`.
    since: AtomicU64,
}

impl IdleTimeout {
    pub(super) fn new(began: Instant, limit: Option<Duration>) -> Self {
        IdleTimeout { began, limit, since: AtomicU64::new(NOT_WAITING) }
    }

    /// The thread begins to wait for the peer, with this progress so far.
    pub(super) fn start(&self, progress: &Progress) {
        let millis = progress.since.saturating_duration_since(self.began).as_millis();
        self.since.store(u64::try_from(millis).unwrap_or(NOT_WAITING), Ordering::Relaxed);
    }

    /// The thread no longer waits for the peer.
    pub(super) fn stop(&self) {
        self.since.store(NOT_WAITING, Ordering::Relaxed);
    }

    /// Whether the peer has made no progress for the limit.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// When to check again; none if there is no limit.
    pub(super) fn next_check(&self, now: Instant) -> Option<Instant> {
        // A wait that begins later also expires later.
        self.deadline().or_else(|| now.checked_add(self.limit?))
    }

    fn deadline(&self) -> Option<Instant> {
        let since = self.since.load(Ordering::Relaxed);
        if since == NOT_WAITING {
            return None;
        }
        self.began.checked_add(Duration::from_millis(since))?.checked_add(self.limit?)
    }
}

/// The progress of one direction.
pub(super) struct Progress {
    since: Instant,
    paused: Instant,
    /// The bytes moved since the last progress.
    bytes: usize,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Progress { since: now, paused: now, bytes: 0 }
    }

    /// A message begins or is complete.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Progress::new(now);
    }

    /// `bytes` bytes were read or written.
    pub(super) fn moved(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.paused = now;
        if self.bytes >= MIN_PROGRESS {
            self.restart(now);
        }
    }

    /// Whether there was no progress for `limit`.
    pub(super) fn has_expired(&self, limit: Option<Duration>, now: Instant) -> bool {
        limit.is_some_and(|limit| now.saturating_duration_since(self.since) >= limit)
    }

    /// The thread waits for the peer again; the time since the last bytes is not charged to the peer.
    pub(super) fn resume(&mut self, now: Instant) {
        self.since += now.saturating_duration_since(self.paused);
        self.paused = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn trickled_bytes_do_not_extend_timeout() {
        let began = Instant::now();
        let timeout = IdleTimeout::new(began, Some(10 * SECOND));
        let mut progress = Progress::new(began);
        assert!(!timeout.has_expired(began + 100 * SECOND), "no thread waits");
        timeout.start(&progress);
        for second in 1..10 {
            progress.moved(1, began + second * SECOND);
            progress.resume(began + second * SECOND);
            timeout.start(&progress);
            assert!(!timeout.has_expired(began + second * SECOND));
        }
        assert_eq!(timeout.next_check(began), Some(began + 10 * SECOND));
        assert!(timeout.has_expired(began + 10 * SECOND));

        progress.moved(MIN_PROGRESS - 10, began + 15 * SECOND);
        timeout.start(&progress);
        assert!(timeout.has_expired(began + 16 * SECOND));
        progress.moved(1, began + 16 * SECOND);
        timeout.start(&progress);
        assert!(!timeout.has_expired(began + 25 * SECOND));
        assert!(timeout.has_expired(began + 26 * SECOND));
    }

    #[test]
    fn local_work_does_not_count_as_idle() {
        let began = Instant::now();
        let timeout = IdleTimeout::new(began, Some(10 * SECOND));
        let mut progress = Progress::new(began);
        timeout.start(&progress);
        progress.moved(1, began + 9 * SECOND);
        // Five seconds of work on this side.
        timeout.stop();
        assert_eq!(timeout.next_check(began), Some(began + 10 * SECOND));
        progress.resume(began + 14 * SECOND);
        timeout.start(&progress);
        assert!(!timeout.has_expired(began + 14 * SECOND));
        assert!(timeout.has_expired(began + 15 * SECOND));
    }

    #[test]
    fn timeout_without_limit_never_expires() {
        let began = Instant::now();
        let timeout = IdleTimeout::new(began, None);
        timeout.start(&Progress::new(began));
        assert!(!timeout.has_expired(began + 1000 * SECOND));
        assert_eq!(timeout.next_check(began), None);
    }
}
