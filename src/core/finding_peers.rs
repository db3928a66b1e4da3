//! Finding peers: counts the searches for peers that are under way, which calls wait for.

use std::sync::Arc;

use crate::core::handle::Hypercore;
use crate::core::shared::Shared;
use crate::core::waiters::WaitOutcome;

/// Finding peers.
impl Hypercore {
    /// Tells the core that a search for peers is under way, until the guard is dropped.
    ///
    /// Meanwhile [`Hypercore::update`] waits for the first peer, as [`Hypercore::get`] does. Does not block.
    #[doc(alias = "findingPeers")]
    pub fn finding_peers(&self) -> FindingPeers {
        FindingPeers::new(self.session.shared.clone())
    }
}

impl Shared {
    /// Changes the number of searches. Without a network, updates that wait for a peer end with the last search.
    pub(crate) fn change_finders(&self, change: impl FnOnce(usize) -> usize) {
        let mut finders = self.finders.lock();
        *finders = change(*finders);
        // Under the lock, so that the network gets the counts of concurrent changes in their order.
        match self.network.get() {
            Some(network) => network.set_finding_peers(*finders),
            None if *finders == 0 => self.waiters.wake_upgrades(&WaitOutcome::Changed),
            None => {}
        }
    }
}

/// Marks a search for peers as under way until dropped; see [`Hypercore::finding_peers`].
#[must_use = "the search ends when this is dropped"]
pub struct FindingPeers {
    shared: Arc<Shared>,
}

impl FindingPeers {
    fn new(shared: Arc<Shared>) -> Self {
        shared.change_finders(|n| n + 1);
        FindingPeers { shared }
    }

    /// Ends the search; the same as dropping.
    pub fn done(self) {}
}

impl Drop for FindingPeers {
    fn drop(&mut self) {
        self.shared.change_finders(|n| n - 1);
    }
}

impl std::fmt::Debug for FindingPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FindingPeers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::network::testing::RecordingNetwork;
    use std::thread;

    #[test]
    fn concurrent_searches_report_counts_in_order() {
        let core = Hypercore::in_memory().unwrap();
        let network = Arc::new(RecordingNetwork::default());
        assert!(core.session.shared.network.set(network.clone()).is_ok());
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..20_000).for_each(|_| core.finding_peers().done()));
            }
        });
        let counts = network.finders.lock().unwrap();
        assert_eq!((counts.len(), counts.last()), (4 * 2 * 20_000, Some(&0)));
        assert!(counts.windows(2).all(|two| two[0].abs_diff(two[1]) == 1));
    }
}
