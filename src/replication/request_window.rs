//! How many requests a peer may have in flight: one more for each response while the window is at least half
//! full, half as many after a response that took more than 1.5 s.

use std::time::Duration;

/// A peer whose responses take longer has more to do than it can: the window is halved.
const SLOW_RESPONSE: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub(super) struct RequestWindow {
    /// How many requests may be in flight.
    pub size: usize,
    /// How long responses take, smoothed with a weight of 1/8 for the last.
    pub response_time: Option<Duration>,
    next_cut_at: Duration,
}

impl RequestWindow {
    pub fn new(size: usize) -> Self {
        RequestWindow { size, response_time: None, next_cut_at: Duration::ZERO }
    }

    /// Records that a response took `took` while `in_flight` requests were in flight. `bounds` limit the window.
    pub fn record_response(&mut self, took: Duration, in_flight: usize, bounds: (usize, usize), now: Duration) {
        let answer = self.response_time.map_or(took, |answer| (answer * 7 + took) / 8);
        self.response_time = Some(answer);
        if took > SLOW_RESPONSE {
            // At most one cut in each round trip: the responses that follow belong to requests sent before it.
            if now >= self.next_cut_at {
                self.size = (self.size / 2).max(bounds.0);
                self.next_cut_at = now + took;
            }
        } else if in_flight * 2 > self.size {
            self.size = (self.size + 1).min(bounds.1);
        }
    }
}
