//! The interface through which a core uses its replication. `net` implements it; a core that never
//! replicates has none.

use crate::Result;
use crate::core::peers::{ExtensionHandler, Peer};
use crate::core::wait_goal::WaitGoal;

/// A change of the core that is announced to peers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changed {
    /// Blocks are held from now on or, with `drop`, no longer.
    Blocks { start: u64, length: u64, drop: bool },
    /// The log grew.
    Head,
    /// The manifest became known.
    Manifest,
    /// The log was truncated from `length` to `ancestors` blocks.
    Truncated { ancestors: u64, length: u64 },
}

/// The replication of one core. No method blocks on a socket. All but `close` may be called with the writer lock
/// held; none with the state lock.
pub(crate) trait Network: Send + Sync {
    /// The core changed. Called once for each commit, in the order of the commits.
    fn changed(&self, changes: &[Changed]);
    /// The core changed, and peers may see the change only once it is on the disk: a connection's thread has
    /// to sync it.
    fn sync_due(&self);
    /// Requests what waiter `id` waits for. Repeating a request has no effect.
    fn wait_for(&self, id: u64, goal: &WaitGoal);
    /// Waiter `id` no longer waits.
    fn stop_waiting(&self, id: u64);
    /// Sets how many searches for peers are under way.
    fn set_finding_peers(&self, finders: usize);
    /// The peers that replicate the core.
    fn peers(&self) -> Vec<Peer>;
    /// Sets the handler for messages of the extension `name`; `None` removes it. Returns the old handler, to be
    /// dropped with no lock held: it may own the last handle of a core.
    #[must_use]
    fn set_extension(&self, name: &str, handler: Option<ExtensionHandler>) -> Option<ExtensionHandler>;
    /// Sends a message of an extension to one peer, or to all. Fails if some of them have too much unread data.
    fn send_extension(&self, name: &str, message: &[u8], peer: Option<u64>) -> Result<()>;
    /// Ends the replication, because the core closes.
    fn close(&self);
    /// The value itself, which `net` casts back to its own type.
    fn as_any(self: std::sync::Arc<Self>) -> std::sync::Arc<dyn std::any::Any + Send + Sync>;
}

#[cfg(test)]
pub(crate) mod testing {
    use std::any::Any;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A network without peers that records calls.
    #[derive(Default)]
    pub(crate) struct RecordingNetwork {
        /// The argument of each `set_finding_peers`.
        pub(crate) finders: Mutex<Vec<usize>>,
        /// The number of calls of `sync_due`.
        pub(crate) syncs_due: AtomicUsize,
    }

    impl Network for RecordingNetwork {
        fn changed(&self, _: &[Changed]) {}
        fn sync_due(&self) {
            self.syncs_due.fetch_add(1, Ordering::SeqCst);
        }
        fn wait_for(&self, _: u64, _: &WaitGoal) {}
        fn stop_waiting(&self, _: u64) {}
        fn set_finding_peers(&self, finders: usize) {
            self.finders.lock().unwrap().push(finders);
        }
        fn peers(&self) -> Vec<Peer> {
            Vec::new()
        }
        fn set_extension(&self, _: &str, _: Option<ExtensionHandler>) -> Option<ExtensionHandler> {
            None
        }
        fn send_extension(&self, _: &str, _: &[u8], _: Option<u64>) -> Result<()> {
            Ok(())
        }
        fn close(&self) {}
        fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
            self
        }
    }
}
