//! The requests that a peer refused, and when they may be sent to it again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::id::WaiterId;

/// The first pause after a refusal. Each further one is twice as long, until the peer sends a `Sync` with news.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(64);

#[derive(Default, Debug)]
pub(super) struct Refused {
    pub blocks: BTreeSet<u64>,
    pub seeks: BTreeSet<WaiterId>,
    pub upgrade: bool,
    pub fork: bool,
    pub manifest: bool,
    /// When the refusals are forgotten; none if there are none.
    pub until: Option<Duration>,
    backoff: u32,
}

impl Refused {
    /// Starts the pause, if none runs, after something was refused at `now`.
    pub fn again(&mut self, now: Duration) {
        if self.until.is_none() {
            let pause = BACKOFF.saturating_mul(1 << self.backoff.min(16)).min(MAX_BACKOFF);
            self.backoff += 1;
            self.until = Some(now + pause);
        }
    }

    /// The peer announced that it has the blocks of `start..end`, or does not.
    pub fn forget(&mut self, start: u64, end: u64) {
        let refused: Vec<u64> = self.blocks.range(start..end.max(start)).copied().collect();
        for block in refused {
            self.blocks.remove(&block);
        }
    }

    /// Forgets all refusals but keeps the length of the next pause. Returns whether there were any.
    pub fn forget_all(&mut self) -> bool {
        let forgotten = Refused { backoff: self.backoff, ..Refused::default() };
        std::mem::replace(self, forgotten).until.is_some()
    }

    /// The peer sent news about its log: the next pause is short again.
    pub fn reset_backoff(&mut self) {
        self.backoff = 0;
    }
}
