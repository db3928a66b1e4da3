//! What a core needs of the conversations it takes part in. `net` implements it; a core that never replicates has none.

use crate::Result;
use crate::core::peers::Peer;
use crate::core::waiters::WaitFor;

/// A change of the core that peers are told of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changed {
    /// Blocks came or, with `drop`, went.
    Blocks { start: u64, length: u64, drop: bool },
    /// The head grew.
    Head,
    /// The manifest became known.
    Manifest,
    /// The log was cut to `ancestors`, from `length`.
    Truncated { ancestors: u64, length: u64 },
}

/// The conversations of one core. No method blocks on a socket. All but `close` may be called while the writer is held; none while the
/// state is.
pub(crate) trait Network: Send + Sync {
    /// The core changed; called once for each commit, in the order of the commits.
    fn changed(&self, changes: &[Changed]);
    /// The core changed, and peers may hear of it only when that is on the disk: some connection's thread has to see to it.
    fn unsettled(&self);
    /// The waiter `id` wants something. Saying it twice is saying it once.
    fn wait_for(&self, id: u64, want: &WaitFor);
    /// The waiter `id` waits no more.
    fn stop_waiting(&self, id: u64);
    /// How many are looking for peers.
    fn set_finding_peers(&self, finders: usize);
    /// Follows a fork that was found but not followed yet; true if the core moved.
    fn apply_pending_reorg(&self) -> Result<bool>;
    /// Who replicates the core.
    fn peers(&self) -> Vec<Peer>;
    /// Takes messages of the extension `name` from peers, or no more. Gives the handler it had, to be dropped where no lock is held: it
    /// may hold the last handle of a core.
    #[must_use]
    fn set_extension(&self, name: &str, handler: Option<ExtensionHandler>) -> Option<ExtensionHandler>;
    /// Sends a message of an extension to one peer, or to all; an error if some of them have too much to read already.
    fn send_extension(&self, name: &str, message: &[u8], peer: Option<u64>) -> Result<()>;
    /// The core closes: ends the conversations.
    fn close(&self);
    /// Itself, for `net`, which made it.
    fn as_any(self: std::sync::Arc<Self>) -> std::sync::Arc<dyn std::any::Any + Send + Sync>;
}

/// What is called with an extension's message and its sender.
pub(crate) type ExtensionHandler = std::sync::Arc<dyn Fn(&[u8], &Peer) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Hypercore;
    use std::any::Any;
    use std::sync::{Arc, Mutex};
    use std::thread;

    /// Remembers what it is told of those who look for peers.
    #[derive(Default)]
    struct Listener(Mutex<Vec<usize>>);

    impl Network for Listener {
        fn changed(&self, _: &[Changed]) {}
        fn unsettled(&self) {}
        fn wait_for(&self, _: u64, _: &WaitFor) {}
        fn stop_waiting(&self, _: u64) {}
        fn set_finding_peers(&self, finders: usize) {
            self.0.lock().unwrap().push(finders);
        }
        fn apply_pending_reorg(&self) -> Result<bool> {
            Ok(false)
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

    #[test]
    fn searches_that_begin_and_end_at_once_are_told_in_their_order() {
        let core = Hypercore::in_memory().unwrap();
        let listener = Arc::new(Listener::default());
        assert!(core.session.shared.network.set(listener.clone()).is_ok());
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..20_000).for_each(|_| core.finding_peers().done()));
            }
        });
        let told = listener.0.lock().unwrap();
        assert_eq!((told.len(), told.last()), (4 * 2 * 20_000, Some(&0)));
        assert!(told.windows(2).all(|two| two[0].abs_diff(two[1]) == 1));
    }
}
