//! What a peer refused to answer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::id::WaiterId;

/// How long a peer is not asked again for what it refused; doubled each time until it says something new about itself.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(64);

/// What a peer refused to answer, and until when it is left alone with it.
#[derive(Default, Debug)]
pub(super) struct Refused {
    pub blocks: BTreeSet<u64>,
    pub seeks: BTreeSet<WaiterId>,
    pub upgrade: bool,
    pub fork: bool,
    pub manifest: bool,
    /// When to ask again; none if nothing is refused.
    pub until: Option<Duration>,
    backoff: u32,
}

impl Refused {
    /// Something was refused just now.
    pub fn again(&mut self, now: Duration) {
        if self.until.is_none() {
            let pause = BACKOFF.saturating_mul(1 << self.backoff.min(16)).min(MAX_BACKOFF);
            self.backoff += 1;
            self.until = Some(now + pause);
        }
    }

    /// The peer said whether it has the blocks from `start` up to `end`.
    pub fn forget(&mut self, start: u64, end: u64) {
        let refused: Vec<u64> = self.blocks.range(start..end.max(start)).copied().collect();
        for block in refused {
            self.blocks.remove(&block);
        }
    }

    /// Forgets all but how long the next pause is. True if anything was refused.
    pub fn forget_all(&mut self) -> bool {
        let forgotten = Refused { backoff: self.backoff, ..Refused::default() };
        std::mem::replace(self, forgotten).until.is_some()
    }

    /// The peer said something new: the next refusal is met with patience again.
    pub fn reset_backoff(&mut self) {
        self.backoff = 0;
    }
}
