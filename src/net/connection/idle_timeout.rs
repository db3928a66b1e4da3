//! How long the peer is waited for: since when it has sent, or taken, nothing worth counting.
//!
//! A direction makes progress when a message begins, when it is whole, and with each [`MIN_PROGRESS`] bytes of it between. So a byte now
//! and then does not hold a connection, and a slow line may take as long as it needs for a long message.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many bytes of a message that has begun are progress.
pub(super) const MIN_PROGRESS: usize = 16 * 1024;

/// So many bytes are handed over at a time, so that it is seen how fast they go.
pub(super) const MAX_WRITE: usize = 64 * 1024;

/// How many times as long as it takes to make progress one write may take that does make some, as seen from outside.
pub(super) const WINDOWS_PER_WRITE: u32 = (MAX_WRITE / MIN_PROGRESS) as u32;

/// Nobody waits.
const NOT_WAITING: u64 = u64::MAX;

/// Since when one direction waits for the peer: said by the thread that does, looked at by both.
pub(super) struct IdleTimeout {
    began: Instant,
    limit: Duration,
    /// In milliseconds since `began`.
    since: AtomicU64,
}

impl IdleTimeout {
    /// With a limit of zero it never ends.
    pub(super) fn new(began: Instant, limit: Duration) -> Self {
        IdleTimeout { began, limit, since: AtomicU64::new(NOT_WAITING) }
    }

    /// The peer is waited for, at this progress.
    pub(super) fn start(&self, progress: &Progress) {
        let millis = progress.since.saturating_duration_since(self.began).as_millis();
        self.since.store(u64::try_from(millis).unwrap_or(NOT_WAITING), Ordering::Relaxed);
    }

    /// It is not: what takes time is our own work.
    pub(super) fn stop(&self) {
        self.since.store(NOT_WAITING, Ordering::Relaxed);
    }

    /// Whether the peer was waited for long enough.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// When to look next whether it is over; none if it never ends.
    pub(super) fn next_check(&self, now: Instant) -> Option<Instant> {
        // Who begins to wait later waits at least as long.
        if self.limit.is_zero() { None } else { self.deadline().or_else(|| now.checked_add(self.limit)) }
    }

    fn deadline(&self) -> Option<Instant> {
        let since = self.since.load(Ordering::Relaxed);
        if self.limit.is_zero() || since == NOT_WAITING {
            return None;
        }
        self.began.checked_add(Duration::from_millis(since))?.checked_add(self.limit)
    }
}

/// The progress of one direction.
pub(super) struct Progress {
    since: Instant,
    paused: Instant,
    /// What came or went since.
    bytes: usize,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Progress { since: now, paused: now, bytes: 0 }
    }

    /// A message begins or is whole.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Progress::new(now);
    }

    /// So many bytes came or went.
    pub(super) fn moved(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.paused = now;
        if self.bytes >= MIN_PROGRESS {
            self.restart(now);
        }
    }

    /// Whether there was none for as long as `limit`; zero is without limit.
    pub(super) fn has_expired(&self, limit: Duration, now: Instant) -> bool {
        !limit.is_zero() && now.saturating_duration_since(self.since) >= limit
    }

    /// The peer is waited for again; the time since the last bytes was not its own.
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
    fn only_enough_bytes_are_progress_and_our_own_work_costs_the_peer_nothing() {
        let began = Instant::now();
        let timeout = IdleTimeout::new(began, 10 * SECOND);
        let mut progress = Progress::new(began);
        assert!(!timeout.has_expired(began + 100 * SECOND), "nobody waits");
        timeout.start(&progress);
        for second in 1..10 {
            progress.moved(1, began + second * SECOND);
            progress.resume(began + second * SECOND);
            timeout.start(&progress);
            assert!(!timeout.has_expired(began + second * SECOND));
        }
        assert_eq!(timeout.next_check(began), Some(began + 10 * SECOND));
        assert!(timeout.has_expired(began + 10 * SECOND));

        // Five seconds of work.
        timeout.stop();
        assert_eq!(timeout.next_check(began), Some(began + 10 * SECOND));
        progress.resume(began + 14 * SECOND);
        timeout.start(&progress);
        assert!(!timeout.has_expired(began + 14 * SECOND));
        assert!(timeout.has_expired(began + 15 * SECOND));

        progress.moved(MIN_PROGRESS - 10, began + 15 * SECOND);
        timeout.start(&progress);
        assert!(timeout.has_expired(began + 16 * SECOND));
        progress.moved(1, began + 16 * SECOND);
        timeout.start(&progress);
        assert!(!timeout.has_expired(began + 25 * SECOND));
        assert!(timeout.has_expired(began + 26 * SECOND));
    }

    #[test]
    fn without_a_limit_there_is_no_end() {
        let began = Instant::now();
        let timeout = IdleTimeout::new(began, Duration::ZERO);
        timeout.start(&Progress::new(began));
        assert!(!timeout.has_expired(began + 1000 * SECOND));
        assert_eq!(timeout.next_check(began), None);
    }
}
