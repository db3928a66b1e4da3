//! The driver of one core on its connections: the only code that knows both the core and the protocol.
//!
//! The replicator ([`Replicator`]) decides, the driver carries out. A thread with news (a reader with a
//! message, a caller with a wait) passes it to the replicator under the lock, and then *drives*: it polls
//! actions until there are none. Quick actions (queueing messages, waking waiters) are carried out under the
//! lock, so they keep their order. Actions that verify, write or disconnect are collected, carried out without
//! the lock, and their outcome is passed to the replicator, which may then have more actions. All proofs found
//! at one time are committed together.
//!
//! Only the two threads of a peer's connection verify and store what it sent, and only one of them at a time:
//! one response may depend on an earlier one, and a peer that sends faster than we store has to wait.
//!
//! ```text
//! drive             polls actions and carries them out
//! pending_proofs    verifies and commits proofs, reports the outcome
//! connection_calls  calls from connections: a channel opens, a message arrives, a response is due, the channel closes
//! core_calls        calls from the core: changes, waiters, extensions, closing
//! view              the replicator's view of the core
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::Hypercore;
use crate::core::network::Network;
use crate::core::peers::{ExtensionHandler, Peer, PeerState};
use crate::core::shared::Shared;
use crate::core::state;
use crate::crypto::keys::{DiscoveryKey, Key};
use crate::merkle::Verified;
use crate::replication::{Config, Data, Message, PeerId, Replicator, Request, WaiterId};
use crate::sync::{Mutex, MutexGuard, Rank};
use crate::wire::mux::ChannelId;
use crate::{Error, Result};

mod connection_calls;
mod core_calls;
mod drive;
mod pending_proofs;
mod view;

use view::LocalView;

/// The driver's interface to a connection. Messages are queued for the writer thread; except for `leave`, no
/// method waits for the peer.
pub(crate) trait Transport: Send + Sync {
    /// Queues a message on a channel; none is sent on a channel that is closed. If the peer reads too slowly,
    /// the connection ends.
    fn send(&self, channel: ChannelId, message: &Message);
    /// Lets the writer thread take responses for the channel's peer when the socket has room.
    fn queue_responses(&self, channel: ChannelId);
    /// Closes a channel whose peer the replicator has removed.
    fn close_channel(&self, channel: ChannelId);
    /// Wakes the writer thread.
    fn wake(&self);
    /// Ends the connection, because of `error` if there is one. Does not wait for its threads.
    fn shut(&self, error: Option<Error>);
    /// Closes the core's channel. If it was the connection's last core, ends the connection and waits
    /// for its threads.
    fn leave(&self, core: &Driver);
    /// The key that the peer proved to own; none until the handshake is done.
    fn remote_public_key(&self) -> Option<Key>;
    /// The peer's address, if the stream has one.
    fn address(&self) -> Option<SocketAddr>;
    /// Whether the peer reads fast enough for messages of extensions to be queued.
    fn has_room_for_extensions(&self) -> bool;
    /// How many bytes of the peer's extension messages wait to be delivered.
    fn undelivered(&self) -> &Arc<AtomicUsize>;
    /// Serializes the verification and storage of what the connection's peers sent.
    fn lock_proof_order(&self) -> MutexGuard<'_, ()>;
}

/// The replication of one core over all its connections.
pub(crate) struct Driver {
    shared: Weak<Shared>,
    discovery_key: DiscoveryKey,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    replicator: Replicator,
    peers: HashMap<PeerId, PeerLink>,
    connections: Vec<Weak<dyn Transport>>,
    /// The core's waiter for each of the replicator's, and the reverse.
    core_waiters: HashMap<WaiterId, u64>,
    waiter_ids: HashMap<u64, WaiterId>,
    extensions: BTreeMap<String, ExtensionHandler>,
    /// Actions to carry out without the lock, other than proofs.
    deferred: Vec<Deferred>,
    /// The earliest deadline that the connections' writer threads know of.
    scheduled_deadline: Option<Duration>,
    closed: bool,
}

/// The driver behind a core's network: nothing else implements the trait.
fn as_driver(network: &Arc<dyn Network>) -> Option<Arc<Driver>> {
    network.clone().as_any().downcast().ok()
}

/// The connection and channel of a peer.
struct PeerLink {
    connection: Arc<dyn Transport>,
    channel: Option<ChannelId>,
    joined: bool,
    /// Proofs from the peer that have to be verified, in the order of arrival.
    pending_proofs: Vec<PendingProof>,
}

impl PeerLink {
    fn is_on(&self, connection: &dyn Transport) -> bool {
        std::ptr::addr_eq(&*self.connection, connection)
    }
}

/// A proof of a peer, verified by the threads of its connection.
enum PendingProof {
    Proof(Box<Data>),
    Conflict(Box<Data>),
    Fork(Box<Data>),
}

/// An action that is carried out without the lock.
enum Deferred {
    Reorganize(Box<Verified>),
    Disconnect(Arc<dyn Transport>, Error),
    ReportConflict(u64, u64),
    ProveConflict(Arc<dyn Transport>, ChannelId, Request),
}

impl State {
    /// The connection and channel of a peer; none before its channel is opened.
    fn channel_of(&self, peer: PeerId) -> Option<(&Arc<dyn Transport>, ChannelId)> {
        let link = self.peers.get(&peer)?;
        Some((&link.connection, link.channel?))
    }
}

impl PeerId {
    /// A new id, unique in the process.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        PeerId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Driver {
    /// The driver of `core`; creates it on first use.
    pub(crate) fn of(core: &Hypercore) -> Result<Arc<Self>> {
        core.session.check_open()?;
        let shared = &core.session.shared;
        if let Some(known) = shared.network.get() {
            return as_driver(known).ok_or_else(state::closed);
        }
        let mut seed = [0; 8];
        crate::crypto::keys::random(&mut seed)?;
        let config = Config { seed: u64::from_le_bytes(seed), ..Config::default() };
        let driver = Arc::new(Driver {
            shared: Arc::downgrade(shared),
            discovery_key: shared.discovery_key,
            began: Instant::now(),
            state: Mutex::new(
                Rank::Replicator,
                State {
                    replicator: Replicator::new(config),
                    peers: HashMap::new(),
                    connections: Vec::new(),
                    core_waiters: HashMap::new(),
                    waiter_ids: HashMap::new(),
                    extensions: BTreeMap::new(),
                    deferred: Vec::new(),
                    scheduled_deadline: None,
                    closed: false,
                },
            ),
        });
        if shared.network.set(driver.clone()).is_err() {
            // Another thread was first.
            return Self::of(core);
        }
        driver.adopt_state(shared);
        Ok(driver)
    }

    /// Registers the extensions, waiters and searches for peers that the core had before it had a driver.
    fn adopt_state(&self, shared: &Shared) {
        // Under the lock of each, as the threads that change them call the driver under it.
        let finders = shared.finders.lock();
        self.set_finding_peers(*finders);
        drop(finders);
        let extensions = shared.extensions.lock();
        let replaced: Vec<_> =
            extensions.iter().map(|(name, _, handler)| self.set_extension(name, Some(handler.clone()))).collect();
        drop(extensions);
        drop(replaced);
        for (id, want) in shared.waiters.registered_waits() {
            self.wait_for(id, &want);
            // If the wait ended before it was registered, its `stop_waiting` had no effect.
            if !shared.waiters.is_waiting(id) {
                self.stop_waiting(id);
            }
        }
    }

    pub(crate) fn discovery_key(&self) -> DiscoveryKey {
        self.discovery_key
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    /// Calls `f` with the replicator's state and the core as it is now; none if the core is gone.
    fn with_replicator<T>(&self, f: impl FnOnce(&mut State, &LocalView<'_>, Duration) -> T) -> Option<T> {
        let shared = self.shared()?;
        let mut state = self.state.lock();
        // Taken after the lock, so that the view includes every change that was reported to the replicator.
        let view = LocalView::new(&shared);
        Some(f(&mut state, &view, self.now()))
    }
}

fn describe(id: PeerId, link: &PeerLink, info: Option<&crate::replication::PeerInfo>) -> Peer {
    Peer(Arc::new(PeerState {
        id: id.0,
        remote_public_key: link.connection.remote_public_key().unwrap_or([0; 32].into()),
        remote_address: link.connection.address(),
        remote_length: info.map_or(0, |i| i.length),
        remote_fork: info.map_or(0, |i| i.fork),
        remote_can_upgrade: info.is_some_and(|i| i.can_upgrade),
        remote_uploading: info.is_some_and(|i| i.uploading),
        remote_downloading: info.is_some_and(|i| i.downloading),
    }))
}

/// About how many bytes a message takes; a good estimate saves moving it.
pub(crate) fn size_hint(message: &Message) -> usize {
    match message {
        Message::Data(data) => data.encoded_len(data.proof.block.as_ref().map_or(0, |block| block.value.len())),
        Message::Bitfield(bitfield) => bitfield.words.len() * 4 + 16,
        Message::Extension(extension) => extension.message.len() + extension.name.len() + 16,
        _ => 64,
    }
}
