//! What a core needs of the conversations it takes part in. `net` implements it; a core that never replicates has none.

use crate::Result;
use crate::core::peers::{ExtensionHandler, Peer};
use crate::core::request::WaitFor;

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
    fn sync_due(&self);
    /// The waiter `id` wants something. Saying it twice is saying it once.
    fn wait_for(&self, id: u64, want: &WaitFor);
    /// The waiter `id` waits no more.
    fn stop_waiting(&self, id: u64);
    /// How many are looking for peers.
    fn set_finding_peers(&self, finders: usize);
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
