//! One core in its conversations: the only place that knows both the core and the protocol.
//!
//! The machine ([`Replicator`]) decides, this carries out. Whoever brings news, a reader with a message or a caller with a wish, tells the
//! machine and then *drives*: takes its actions until there are none. What is quick (queueing messages, waking waiters) is done
//! at once, under the machine's lock, so that it keeps its order; what verifies or writes is collected and done after, without it, and
//! its outcome told to the machine, which may have more to do then. All proofs that one drive finds are committed together.
//!
//! What a peer sent is verified and stored by the threads of its connection alone, one at a time: one answer may lean on another that
//! came before it, and a peer that sends faster than we store has to wait.
//!
//! ```text
//! drive.rs     takes the machine's actions until there are none
//! pending_proofs.rs    what peers claim is verified and committed
//! peers.rs     what connections say: peers come, speak, ask and go
//! network.rs   what the core says: its changes, waiters, extensions, its end
//! view.rs      the core as the machine sees it
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::Hypercore;
use crate::core::network::{ExtensionHandler, Network};
use crate::core::peers::{Peer, PeerState};
use crate::core::state::{self, Shared};
use crate::crypto::keys::{DiscoveryKey, Key};
use crate::merkle::Verified;
use crate::replication::{Config, Data, Message, PeerId, Replicator, Request, WaiterId};
use crate::sync::{Mutex, MutexGuard, Rank};
use crate::wire::mux::ChannelId;
use crate::{Error, Result};

mod drive;
mod network;
mod peers;
mod pending_proofs;
mod view;

use view::LocalView;

/// What the driver needs of a connection: queueing for its writer thread, and where the peer is. No method blocks on the socket.
pub(crate) trait Transport: Send + Sync {
    /// Queues a message on a channel.
    fn send(&self, channel: ChannelId, message: &Message);
    /// Has the requests that wait for a channel's peer answered when the socket has room.
    fn queue_responses(&self, channel: ChannelId);
    /// Closes a channel whose peer was forgotten already.
    fn close_channel(&self, channel: ChannelId);
    /// Wakes the writer thread.
    fn wake(&self);
    /// Ends the connection, for the reason given if there is one; does not wait for its threads.
    fn shut(&self, error: Option<Error>);
    /// Closes the core's channel here, and ends the connection, waiting for its threads, if that was its last core.
    fn leave(&self, core: &Driver);
    /// The key that the peer proved to own; none until the handshake is done.
    fn remote_public_key(&self) -> Option<Key>;
    /// The peer's address, where the stream has one.
    fn address(&self) -> Option<SocketAddr>;
    /// Whether the peer reads fast enough to be sent messages of extensions.
    fn has_room_for_extensions(&self) -> bool;
    /// How many bytes of the peer's messages of extensions wait to be delivered.
    fn undelivered(&self) -> &Arc<AtomicUsize>;
    /// Waits until it is this thread's turn to verify and store what peers here claim.
    fn lock_proof_order(&self) -> MutexGuard<'_, ()>;
}

/// The conversations of one core.
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
    /// The core's waiters by the machine's names for their wants, and the other way round.
    core_waiters: HashMap<WaiterId, u64>,
    waiter_ids: HashMap<u64, WaiterId>,
    extensions: BTreeMap<String, ExtensionHandler>,
    /// What takes time, found but not done yet, of no peer in particular.
    deferred: Vec<Deferred>,
    /// The earliest deadline that the connections' writers know of.
    scheduled_deadline: Option<Duration>,
    closed: bool,
}

/// The network of a core as what only this file makes it.
fn as_driver(network: &Arc<dyn Network>) -> Option<Arc<Driver>> {
    network.clone().as_any().downcast().ok()
}

/// Where a peer is to be reached.
struct PeerLink {
    connection: Arc<dyn Transport>,
    channel: Option<ChannelId>,
    joined: bool,
    /// What it sent that is to be verified, in order.
    pending_proofs: Vec<PendingProof>,
}

impl PeerLink {
    fn is_on(&self, connection: &dyn Transport) -> bool {
        std::ptr::addr_eq(&*self.connection, connection)
    }
}

/// What a peer claims; verified by the threads of its connection.
enum PendingProof {
    Proof(Box<Data>),
    Conflict(Box<Data>),
    Fork(Box<Data>),
}

/// What else takes time, and is done without the machine's lock.
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
    /// A number that was not used before.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        PeerId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Driver {
    /// The conversations of `core`, begun now if it had none.
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

    /// Takes over what was set and who waits in the core before it had a driver.
    fn adopt_state(&self, shared: &Shared) {
        // Under their locks, as whoever changes them tells of it.
        let finders = shared.finders.lock();
        self.set_finding_peers(*finders);
        drop(finders);
        let extensions = shared.extensions.lock();
        let replaced: Vec<_> =
            extensions.iter().map(|(name, _, handler)| self.set_extension(name, Some(handler.clone()))).collect();
        drop(extensions);
        drop(replaced);
        for (id, want) in shared.waiters.for_network() {
            self.wait_for(id, &want);
            // Whose wait ended before this said so in vain.
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

    /// Tells the machine something, with the core as it is.
    fn with_replicator<T>(&self, f: impl FnOnce(&mut State, &LocalView<'_>, Duration) -> T) -> Option<T> {
        let shared = self.shared()?;
        let mut state = self.state.lock();
        // After the machine's lock: what the machine was told of is in the view.
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

/// About how many bytes a message takes: a good guess saves a move.
pub(crate) fn size_hint(message: &Message) -> usize {
    match message {
        Message::Data(data) => data.encoded_len(data.proof.block.as_ref().map_or(0, |block| block.value.len())),
        Message::Bitfield(bitfield) => bitfield.words.len() * 4 + 16,
        Message::Extension(extension) => extension.message.len() + extension.name.len() + 16,
        _ => 64,
    }
}
