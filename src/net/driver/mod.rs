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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::Hypercore;
use crate::core::network::Network;
use crate::core::peers::{ExtensionHandler, Peer, PeerState};
use crate::core::shared::Shared;
use crate::core::state;
use crate::crypto::keys::DiscoveryKey;
use crate::merkle::Verified;
use crate::net::connection::Inner as Connection;
use crate::replication::{Config, Data, Message, PeerId, Replicator, Request, WaiterId};
use crate::sync::{Mutex, Rank};
use crate::wire::mux::ChannelId;
use crate::{Error, Result};

mod drive;
mod network;
mod peers;
mod pending_proofs;
mod view;

use view::LocalView;

/// The conversations of one core.
pub(crate) struct Driver {
    shared: Weak<Shared>,
    discovery_key: DiscoveryKey,
    began: Instant,
    machine: Mutex<Machine>,
}

struct Machine {
    replicator: Replicator,
    peers: HashMap<PeerId, PeerLink>,
    connections: Vec<Weak<Connection>>,
    /// The core's waiters by the machine's names for their wants, and the other way round.
    core_waiters: HashMap<WaiterId, u64>,
    waiter_ids: HashMap<u64, WaiterId>,
    extensions: BTreeMap<String, ExtensionHandler>,
    /// What takes time, found but not done yet, of no peer in particular.
    backlog: Vec<Work>,
    /// The earliest deadline that the connections' writers know of.
    told_deadline: Option<Duration>,
    closed: bool,
}

/// The network of a core as what only this file makes it.
fn own(network: &Arc<dyn Network>) -> Option<Arc<Driver>> {
    network.clone().as_any().downcast().ok()
}

/// Where a peer is to be reached.
struct PeerLink {
    connection: Arc<Connection>,
    channel: Option<ChannelId>,
    joined: bool,
    /// What it sent that is to be verified, in order.
    pending_proofs: Vec<PendingProof>,
}

impl PeerLink {
    fn is_on(&self, connection: &Connection) -> bool {
        std::ptr::eq(&*self.connection, connection)
    }
}

/// What a peer claims; verified by the threads of its connection.
enum PendingProof {
    Proof(Box<Data>),
    Conflict(Box<Data>),
    Fork(Box<Data>),
}

/// What else takes time, and is done without the machine's lock.
enum Work {
    Reorganize(Box<Verified>),
    Cut(Arc<Connection>, Error),
    Conflict(u64, u64),
    Evidence(Arc<Connection>, ChannelId, Request),
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
            return own(known).ok_or_else(state::closed);
        }
        let mut seed = [0; 8];
        crate::crypto::keys::random(&mut seed)?;
        let config = Config { seed: u64::from_le_bytes(seed), ..Config::default() };
        let net = Arc::new(Driver {
            shared: Arc::downgrade(shared),
            discovery_key: shared.discovery_key,
            began: Instant::now(),
            machine: Mutex::new(
                Rank::Replicator,
                Machine {
                    replicator: Replicator::new(config),
                    peers: HashMap::new(),
                    connections: Vec::new(),
                    core_waiters: HashMap::new(),
                    waiter_ids: HashMap::new(),
                    extensions: BTreeMap::new(),
                    backlog: Vec::new(),
                    told_deadline: None,
                    closed: false,
                },
            ),
        });
        if shared.network.set(net.clone()).is_err() {
            // Another thread was first.
            return Self::of(core);
        }
        // Under their locks, as whoever changes them tells of it.
        let finders = shared.finders.lock();
        net.set_finding_peers(*finders);
        drop(finders);
        let extensions = shared.extensions.lock();
        let replaced: Vec<_> =
            extensions.iter().map(|(name, _, handler)| net.set_extension(name, Some(handler.clone()))).collect();
        drop(extensions);
        drop(replaced);
        for (id, want) in shared.waiters.registered_waits() {
            net.wait_for(id, &want);
            // Whose wait ended before this said so in vain.
            if !shared.waiters.is_waiting(id) {
                net.stop_waiting(id);
            }
        }
        Ok(net)
    }

    pub(crate) fn discovery_key(&self) -> DiscoveryKey {
        self.discovery_key
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.machine.lock().closed
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    /// Tells the machine something, with the core as it is.
    fn tell<T>(&self, f: impl FnOnce(&mut Machine, &LocalView<'_>, Duration) -> T) -> Option<T> {
        let shared = self.shared()?;
        let mut machine = self.machine.lock();
        // After the machine's lock: what the machine was told of is in the view.
        let view = LocalView::new(&shared);
        Some(f(&mut machine, &view, self.now()))
    }

    fn me(&self, shared: &Shared) -> Option<Arc<Driver>> {
        shared.network.get().and_then(own)
    }
}

fn link(peers: &HashMap<PeerId, PeerLink>, peer: PeerId) -> Option<(&Arc<Connection>, ChannelId)> {
    let link = peers.get(&peer)?;
    Some((&link.connection, link.channel?))
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
