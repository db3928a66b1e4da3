//! Finds, incrementally, where the blocks held without a gap end.

use hypercore::Hypercore;

/// Finds the first block from `start` on that is not held. It remembers where it stopped, so that each call looks
/// only at blocks that came since.
pub struct Here {
    start: u64,
    at: u64,
    fork: u64,
}

impl Here {
    pub fn new(start: u64) -> Self {
        Here { start, at: start, fork: 0 }
    }

    /// The first block from the start on that is not held.
    pub fn up_to(&mut self, core: &Hypercore) -> hypercore::Result<u64> {
        let fork = core.fork();
        if fork != self.fork {
            // A truncation may have removed blocks.
            (self.at, self.fork) = (self.start, fork);
        }
        while let Some(held) = core.held_from(self.at)?.filter(|held| held.start == self.at) {
            self.at = held.end;
        }
        Ok(self.at)
    }
}
