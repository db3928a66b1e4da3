//! Subscribing to the events of a core. `core/event_queue.rs` delivers them.

use std::sync::Arc;

use crate::Error;
use crate::core::event_queue::{Handler, Subscription};
use crate::core::handle::Hypercore;
use crate::core::peers::{BlockTransfer, Peer};

/// Events. Each subscription lasts until it is dropped, or with [`Subscription::forever`] until the session closes.
///
/// Callbacks run one at a time, in the order of the changes, local and remote alike, and with no lock held: a
/// callback may call any method, drop the core, or panic. It may run on another thread than the call that caused
/// it. The next event waits until it returns.
impl Hypercore {
    /// Calls `f` when the log has grown.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// let _subscription = core.on_append(move || sender.send("grown").unwrap());
    /// core.append(b"more")?;
    /// assert_eq!(receiver.recv().unwrap(), "grown");
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    ///
    /// While 32,768 events wait for slow callbacks, an event of growth is dropped if another one is already waiting.
    #[doc(alias = "append")]
    pub fn on_append(&self, f: impl Fn() + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::Append(Arc::new(f)))
    }

    /// Calls `f` when the log was cut, with the length up to which it is unchanged and the new fork.
    #[doc(alias = "truncate")]
    pub fn on_truncate(&self, f: impl Fn(u64, u64) + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::Truncate(Arc::new(f)))
    }

    /// Calls `f` at once, because an open core is ready. For code that expects the event of JavaScript Hypercore.
    #[doc(alias = "ready")]
    pub fn on_ready(&self, f: impl Fn() + Send + Sync + 'static) -> Subscription {
        f();
        self.subscribe(Handler::Append(Arc::new(|| ())))
    }

    /// Calls `f` when this session closes.
    #[doc(alias = "close")]
    pub fn on_close(&self, f: impl Fn() + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::Close(Arc::new(f)))
    }

    /// Calls `f` when a peer begins to replicate the core.
    #[doc(alias = "peer-add")]
    pub fn on_peer_add(&self, f: impl Fn(&Peer) + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::PeerAdd(Arc::new(f)))
    }

    /// Calls `f` when a peer has left.
    #[doc(alias = "peer-remove")]
    pub fn on_peer_remove(&self, f: impl Fn(&Peer) + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::PeerRemove(Arc::new(f)))
    }

    /// Calls `f` for each block that a peer sent and that is now stored.
    ///
    /// While 32,768 events wait for callbacks that are slower than the peers, events of further blocks are dropped:
    /// peers do not wait for callbacks, because a callback may wait for blocks of a peer.
    /// [`Downloading`](crate::Downloading) tells when all blocks are held.
    #[doc(alias = "download")]
    pub fn on_download(&self, f: impl Fn(&BlockTransfer) + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::Download(Arc::new(f)))
    }

    /// Calls `f` for each block that was sent to a peer.
    ///
    /// While 32,768 events wait for callbacks that are slower than the peers, events of further blocks are dropped.
    #[doc(alias = "upload")]
    pub fn on_upload(&self, f: impl Fn(&BlockTransfer) + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::Upload(Arc::new(f)))
    }

    /// Calls `f` when a peer showed a validly signed tree that contradicts ours, with its length and fork: the
    /// holder of the secret key signed two histories.
    ///
    /// Replication of the core has stopped by then. Stored data stays.
    #[doc(alias = "conflict")]
    pub fn on_conflict(&self, f: impl Fn(u64, u64) + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::Conflict(Arc::new(f)))
    }

    /// Calls `f` when the manifest becomes known.
    #[doc(alias = "manifest")]
    pub fn on_manifest(&self, f: impl Fn() + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::Manifest(Arc::new(f)))
    }

    /// Calls `f` when data from a peer did not verify, with the reason. The peer's connection is closed.
    #[doc(alias = "verification-error")]
    pub fn on_verification_error(&self, f: impl Fn(&Error, &Peer) + Send + Sync + 'static) -> Subscription {
        self.subscribe(Handler::VerificationError(Arc::new(f)))
    }

    fn subscribe(&self, handler: Handler) -> Subscription {
        self.session.shared.events.subscribe(self.session.id, self.session.sparse, handler)
    }
}
