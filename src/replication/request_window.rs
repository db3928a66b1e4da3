//! How many requests a peer may have in flight.

use std::time::Duration;

/// When answers take longer than this, the peer has more to do than it can: it is asked for less at a time.
const SLOW_ANSWER: Duration = Duration::from_millis(1500);

/// How fast a peer answers, and how much to ask of it at a time.
#[derive(Debug)]
pub(super) struct RequestWindow {
    /// How many requests may be in flight.
    pub size: usize,
    /// How long answers take, smoothed.
    pub answer: Option<Duration>,
    slowed: Duration,
}

impl RequestWindow {
    pub fn new(size: usize) -> Self {
        RequestWindow { size, answer: None, slowed: Duration::ZERO }
    }

    /// Takes in that an answer took `took`, while `in_flight` requests were.
    pub fn answered(&mut self, took: Duration, in_flight: usize, bounds: (usize, usize), now: Duration) {
        let answer = self.answer.map_or(took, |answer| (answer * 7 + took) / 8);
        self.answer = Some(answer);
        if took > SLOW_ANSWER {
            // One cut for each round trip: the answers that follow were asked for before it.
            if now >= self.slowed {
                self.size = (self.size / 2).max(bounds.0);
                self.slowed = now + took;
            }
        } else if in_flight * 2 > self.size {
            self.size = (self.size + 1).min(bounds.1);
        }
    }
}
