//! How far a log is held without a gap.

use hypercore::Hypercore;

/// How far the log is here without a gap, from a block on.
pub struct Here {
    start: u64,
    at: u64,
    fork: u64,
}

impl Here {
    pub fn new(start: u64) -> Self {
        Here { start, at: start, fork: 0 }
    }

    /// The first block from the start on that is not here.
    pub fn up_to(&mut self, core: &Hypercore) -> hypercore::Result<u64> {
        let fork = core.fork();
        if fork != self.fork {
            // Blocks that were here may have been cut.
            (self.at, self.fork) = (self.start, fork);
        }
        while let Some(held) = core.held_from(self.at)?.filter(|held| held.start == self.at) {
            self.at = held.end;
        }
        Ok(self.at)
    }
}
