//! How many requests a peer may have in flight.

use std::time::Duration;

/// When answers take longer than this, the peer has more to do than it can: it is asked for less at a time.
const SLOW_RESPONSE: Duration = Duration::from_millis(1500);

/// How fast a peer answers, and how much to ask of it at a time.
#[derive(Debug)]
pub(super) struct RequestWindow {
    /// How many requests may be in flight.
    pub size: usize,
    /// How long answers take, smoothed.
    pub response_time: Option<Duration>,
    next_cut_at: Duration,
}

impl RequestWindow {
    pub fn new(size: usize) -> Self {
        RequestWindow { size, response_time: None, next_cut_at: Duration::ZERO }
    }

    /// Takes in that an answer took `took`, while `in_flight` requests were.
    pub fn record_response(&mut self, took: Duration, in_flight: usize, bounds: (usize, usize), now: Duration) {
        let answer = self.response_time.map_or(took, |answer| (answer * 7 + took) / 8);
        self.response_time = Some(answer);
        if took > SLOW_RESPONSE {
            // One cut for each round trip: the answers that follow were asked for before it.
            if now >= self.next_cut_at {
                self.size = (self.size / 2).max(bounds.0);
                self.next_cut_at = now + took;
            }
        } else if in_flight * 2 > self.size {
            self.size = (self.size + 1).min(bounds.1);
        }
    }
}
