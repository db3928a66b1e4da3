//! One core in its conversations: the only place that knows both the core and the protocol.
//!
//! The machine ([`Replicator`]) decides, this carries out. Whoever brings news, a reader with a message or a caller with a wish, tells the
//! machine and then *drives*: takes its actions until there are none. What is quick (queueing messages, waking waiters) is done
//! at once, under the machine's lock, so that it keeps its order; what verifies or writes is collected and done after, without it, and
//! its outcome told to the machine, which may have more to do then. All proofs that one drive finds are committed together.
//!
//! What a peer sent is verified and stored by the threads of its connection alone, one at a time: one answer may lean on another that
//! came before it, and a peer that sends faster than we store has to wait.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::accept::Taken;
use crate::core::download::Blocks;
use crate::core::network::{Changed, ExtensionHandler, Network};
use crate::core::peers::{Peer, PeerState};
use crate::core::state::{self, Shared, State};
use crate::core::wants::{Outcome as WaitOutcome, Want};
use crate::core::{Event, ExtensionMessage, Hypercore};
use crate::crypto::hash;
use crate::crypto::keys::DiscoveryKey;
use crate::index::NodeIndex;
use crate::merkle::{self, Head, NodeSource, Overlay, Verified};
use crate::net::connection::Inner as Connection;
use crate::node::Node;
use crate::replication::{
    Action, Change, CloseReason, Config, Data, Handshake, Local, Message, Outcome, PeerId, Replicator, Request, Serve,
    WantId,
};
use crate::sync::{Mutex, Rank};
use crate::wire::batch::Batch;
use crate::wire::mux::ChannelId;
use crate::wire::noise::Role;
use crate::{Error, ErrorKind, Result};

/// The conversations of one core.
pub(crate) struct CoreNet {
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
    waiters: HashMap<WantId, u64>,
    wants: HashMap<u64, WantId>,
    extensions: BTreeMap<String, ExtensionHandler>,
    /// What takes time, found but not done yet, of no peer in particular.
    backlog: Vec<Work>,
    /// The earliest deadline that the connections' writers know of.
    told_deadline: Option<Duration>,
    closed: bool,
}

/// The network of a core as what only this file makes it.
fn own(network: &Arc<dyn Network>) -> Option<Arc<CoreNet>> {
    network.clone().as_any().downcast().ok()
}

/// Where a peer is to be reached.
struct PeerLink {
    connection: Arc<Connection>,
    channel: Option<ChannelId>,
    joined: bool,
    /// What it sent that is to be verified, in order.
    claims: Vec<Claim>,
    /// How many bytes of its messages of extensions wait to be delivered.
    undelivered: Arc<AtomicUsize>,
}

impl PeerLink {
    fn is_on(&self, connection: &Connection) -> bool {
        std::ptr::eq(&*self.connection, connection)
    }
}

/// What a peer claims; verified by the threads of its connection.
enum Claim {
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

impl CoreNet {
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
        let net = Arc::new(CoreNet {
            shared: Arc::downgrade(shared),
            discovery_key: shared.discovery_key,
            began: Instant::now(),
            machine: Mutex::new(
                Rank::Replicator,
                Machine {
                    replicator: Replicator::new(config),
                    peers: HashMap::new(),
                    connections: Vec::new(),
                    waiters: HashMap::new(),
                    wants: HashMap::new(),
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
        let finders = *shared.finders.lock();
        net.set_finding_peers(finders);
        let extensions = shared.extensions.lock().clone();
        for (name, _, handler) in extensions {
            net.set_extension(&name, Some(handler));
        }
        for (id, want) in shared.wants.for_network() {
            net.want(id, &want);
            // Whose wait ended before this said so in vain.
            if !shared.wants.is_waiting(id) {
                net.unwant(id);
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
    fn tell<T>(&self, f: impl FnOnce(&mut Machine, &View<'_>, Duration) -> T) -> Option<T> {
        let shared = self.shared()?;
        let mut machine = self.machine.lock();
        let state = shared.state.read();
        Some(f(&mut machine, &View { state: &state }, self.now()))
    }
}

/// What connections say.
impl CoreNet {
    /// What our side says on opening a channel.
    pub(crate) fn handshake(&self, role: Role, handshake_hash: &[u8; 64]) -> Vec<u8> {
        let Some(shared) = self.shared() else { return Vec::new() };
        let capability = hash::capability(role.is_initiator(), shared.key.as_bytes(), handshake_hash);
        let mut w = crate::codec::Writer::new();
        Handshake { seeks: true, capability }.encode(&mut w);
        w.into_vec()
    }

    /// Has `connection` told when the core closes; false if it is closed.
    pub(crate) fn remember(&self, connection: &Arc<Connection>) -> bool {
        let mut machine = self.machine.lock();
        if !machine.closed {
            machine.connections.push(Arc::downgrade(connection));
        }
        !machine.closed
    }

    pub(crate) fn forget(&self, connection: &Connection) {
        self.machine.lock().connections.retain(|c| c.strong_count() > 0 && !std::ptr::eq(c.as_ptr(), connection));
    }

    /// A channel is being opened.
    pub(crate) fn peer_connecting(&self, peer: PeerId, connection: &Arc<Connection>) {
        let mut machine = self.machine.lock();
        let link = PeerLink {
            connection: connection.clone(),
            channel: None,
            joined: false,
            claims: Vec::new(),
            undelivered: Arc::default(),
        };
        machine.peers.insert(peer, link);
        machine.replicator.connecting(peer);
    }

    /// The channel has this name on its connection.
    pub(crate) fn peer_channel(&self, peer: PeerId, channel: ChannelId) {
        if let Some(link) = self.machine.lock().peers.get_mut(&peer) {
            link.channel = Some(channel);
        }
    }

    /// Both sides have opened the channel; an error if the peer does not prove that it knows the core's key.
    pub(crate) fn peer_opened(
        &self,
        peer: PeerId,
        handshake: &[u8],
        role: Role,
        handshake_hash: &[u8; 64],
    ) -> Result<()> {
        let Some(shared) = self.shared() else { return Ok(()) };
        let handshake = Handshake::decode(&mut crate::codec::Reader::new(handshake))
            .map_err(|e| Error::protocol(format!("the peer opens a channel with a malformed handshake: {e}")))?;
        let expected = hash::capability(!role.is_initiator(), shared.key.as_bytes(), handshake_hash);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(&expected[..], &handshake.capability[..])) {
            return Err(Error::protocol(format!("the peer does not know the key of the core {}", self.discovery_key)));
        }
        self.tell(|machine, local, now| machine.replicator.opened(peer, &handshake, local, now));
        Ok(())
    }

    /// The channel is closed or lost; true if it should be opened again.
    pub(crate) fn peer_closed(&self, peer: PeerId) -> bool {
        let mut machine = self.machine.lock();
        let again = machine.replicator.closed(peer);
        let link = machine.peers.remove(&peer);
        drop(machine);
        if let (Some(link), Some(shared)) = (link, self.shared()) {
            if link.joined {
                shared.events.push(Event::PeerRemove(describe(peer, &link, None)));
            }
        }
        self.drive();
        again
    }

    /// Takes in a message of a peer; what comes of it comes of the next drive. An error if it is malformed.
    pub(crate) fn receive(&self, peer: PeerId, kind: u64, payload: &[u8]) -> Result<()> {
        match Message::decode(kind, payload) {
            Ok(Some(message)) => {
                self.tell(|machine, local, now| machine.replicator.handle(peer, message, local, now));
                Ok(())
            }
            // A later version of the protocol may have more kinds.
            Ok(None) => Ok(()),
            Err(error) => Err(Error::protocol(format!("the peer sends a malformed message: {error}"))),
        }
    }

    /// When to drive again though nothing happened. If it should come to be sooner, the connections are woken.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let mut machine = self.machine.lock();
        machine.told_deadline = machine.replicator.next_deadline();
        machine.told_deadline.and_then(|at| self.began.checked_add(at))
    }

    /// Writes the next thing that waits for `peer` into `batch`; false if nothing does.
    pub(crate) fn answer(&self, peer: PeerId, channel: u64, batch: &mut Batch<'_>) -> Result<bool> {
        let Some(shared) = self.shared() else { return Ok(false) };
        let next = self.tell(|machine, local, _| machine.replicator.serve(peer, local)).flatten();
        let message = match next {
            None => return Ok(false),
            Some(Serve::Message(message)) => message,
            Some(Serve::Request(request)) => {
                let message = answer_to(&shared, &request);
                if let Message::Data(data) = &message {
                    if let Some(block) = &data.proof.block {
                        self.tell_upload(&shared, peer, block.index, block.value.len() as u64);
                    }
                }
                message
            }
        };
        batch.push(channel, message.kind(), size_hint(&message), |w| message.encode(w))?;
        Ok(true)
    }

    fn tell_upload(&self, shared: &Arc<Shared>, peer: PeerId, index: u64, bytes: u64) {
        if shared.events.is_heard() {
            let told = self.machine.lock().peers.get(&peer).map(|link| describe(peer, link, None));
            if let Some(peer) = told {
                shared.events.push(Event::Upload(index, bytes, peer));
                shared.deliver();
            }
        }
    }
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

/// The answer to a peer's request.
fn answer_to(shared: &Arc<Shared>, request: &Request) -> Message {
    let (fork, manifest) = {
        let state = shared.state.read();
        (
            state.head.fork,
            state.authority.manifest().filter(|_| request.manifest && !state.authority.is_compat()).cloned(),
        )
    };
    let proof = if request.fork == fork { shared.prove(&request.wanted).ok().flatten() } else { None };
    match (proof, manifest) {
        (Some(proof), manifest) => {
            let proof = merkle::Proof { manifest, ..proof };
            Message::Data(Box::new(Data { request: request.id, proof }))
        }
        (None, Some(manifest)) => {
            let proof = merkle::Proof { fork: request.fork, manifest: Some(manifest), ..merkle::Proof::default() };
            Message::Data(Box::new(Data { request: request.id, proof }))
        }
        (None, None) => Message::NoData(request.id),
    }
}

fn to_machine(what: &crate::core::Download) -> crate::replication::Download {
    match what.blocks_ref() {
        Blocks::Range { start, end } => crate::replication::Download::Range { start: *start, end: *end },
        Blocks::List(list) => crate::replication::Download::Blocks(list.clone()),
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

/// Carrying out.
impl CoreNet {
    /// Takes the machine's actions until there are none; what peers claim is left to the threads of their connections. Called
    /// with no lock held.
    pub(crate) fn drive(&self) {
        self.drive_with(None);
    }

    /// As [`CoreNet::drive`], on a thread of `connection`.
    pub(crate) fn drive_on(&self, connection: &Connection) {
        self.drive_with(Some(connection));
    }

    fn drive_with(&self, mine: Option<&Connection>) {
        let Some(shared) = self.shared() else { return };
        loop {
            self.act(&shared, mine);
            let work = std::mem::take(&mut self.machine.lock().backlog);
            let idle = work.is_empty();
            for item in work {
                self.carry_out(&shared, item);
            }
            let claimed = mine.is_some_and(|connection| self.check_claims(&shared, connection));
            if idle && !claimed {
                break;
            }
        }
        shared.deliver();
    }

    /// Does what is quick, and puts the rest where whoever has to do it finds it; wakes all of them but `mine`.
    fn act(&self, shared: &Shared, mine: Option<&Connection>) {
        let mut guard = self.machine.lock();
        let machine = &mut *guard;
        let state = shared.state.read();
        let local = View { state: &state };
        let mut woken = Vec::new();
        while let Some(action) = machine.replicator.poll(&local, self.now()) {
            let work = &mut machine.backlog;
            let claim = |peers: &mut HashMap<PeerId, PeerLink>, peer, claim| {
                if let Some(link) = peers.get_mut(&peer) {
                    link.claims.push(claim);
                }
            };
            match action {
                Action::Send { peer, message } => {
                    if let Some((connection, channel)) = link(&machine.peers, peer) {
                        connection.send(channel, &message);
                    }
                }
                Action::Serve { peer } => {
                    if let (Some((connection, channel)), Some(me)) = (link(&machine.peers, peer), self.me(shared)) {
                        connection.serve(me, peer, channel);
                    }
                }
                Action::Commit { peer, data } => claim(&mut machine.peers, peer, Claim::Proof(data)),
                Action::CheckConflict { peer, data } => claim(&mut machine.peers, peer, Claim::Conflict(data)),
                Action::VerifyFork { peer, data } => claim(&mut machine.peers, peer, Claim::Fork(data)),
                Action::Reorganize { verified } => work.push(Work::Reorganize(verified)),
                Action::Extension { peer, name, message } => {
                    let (Some(link), Some(handler)) = (machine.peers.get(&peer), machine.extensions.get(&name)) else {
                        continue;
                    };
                    let message = ExtensionMessage {
                        handler: handler.clone(),
                        message,
                        peer: describe(peer, link, None),
                        waiting: link.undelivered.clone(),
                    };
                    if let Err(error) = shared.events.push_message(message) {
                        work.push(Work::Cut(link.connection.clone(), error));
                    }
                }
                Action::Wake { want, result } => woken.push((want, result)),
                Action::Peer { peer, joined } => {
                    let info = machine.replicator.peers().find(|info| info.peer == peer);
                    if let Some(link) = machine.peers.get_mut(&peer) {
                        link.joined = joined;
                        let told = describe(peer, link, info.as_ref());
                        shared.events.push(if joined { Event::PeerAdd(told) } else { Event::PeerRemove(told) });
                    }
                }
                Action::Close { peer, reason } => {
                    let link = machine.peers.remove(&peer);
                    let Some(link) = link else { continue };
                    if link.joined {
                        shared.events.push(Event::PeerRemove(describe(peer, &link, None)));
                    }
                    match (reason, link.channel) {
                        (CloseReason::Misbehaved(error), _) => {
                            shared
                                .events
                                .push(Event::VerificationError(error.to_string(), describe(peer, &link, None)));
                            work.push(Work::Cut(link.connection, error));
                        }
                        (CloseReason::Conflict { evidence: Some(request) }, Some(channel)) => {
                            work.push(Work::Evidence(link.connection, channel, request));
                        }
                        (_, Some(channel)) => link.connection.close_channel(channel),
                        (_, None) => {}
                    }
                }
                Action::Conflict { data, .. } => {
                    let length = data.proof.upgrade.as_ref().map_or(0, |u| u.start.saturating_add(u.length));
                    work.push(Work::Conflict(length, data.proof.fork));
                }
            }
        }
        drop(state);
        for (want, result) in woken {
            let Some(waiter) = machine.waiters.remove(&want) else { continue };
            machine.wants.remove(&waiter);
            shared.wants.wake(
                waiter,
                match result {
                    Ok(_) => WaitOutcome::Changed,
                    Err(error) => WaitOutcome::Failed(error),
                },
            );
        }
        machine.wake_connections(mine);
    }

    fn me(&self, shared: &Shared) -> Option<Arc<CoreNet>> {
        shared.network.get().and_then(own)
    }

    fn carry_out(&self, shared: &Arc<Shared>, work: Work) {
        match work {
            Work::Reorganize(verified) => self.reorganize(shared, *verified),
            Work::Cut(connection, error) => connection.shut(Some(error)),
            Work::Conflict(length, fork) => shared.events.push(Event::Conflict(length, fork)),
            Work::Evidence(connection, channel, request) => {
                connection.send(channel, &answer_to(shared, &request));
                connection.close_channel(channel);
            }
        }
    }

    /// Verifies what the peers on `connection` claim, and stores what holds; false if they claim nothing.
    fn check_claims(&self, shared: &Arc<Shared>, connection: &Connection) -> bool {
        let _turn = connection.take_turn();
        let mut claims = Vec::new();
        // Who brought a block is told also if it leaves meanwhile.
        let mut told = HashMap::new();
        let heard = shared.events.is_heard();
        for (&peer, link) in self.machine.lock().peers.iter_mut().filter(|(_, link)| link.is_on(connection)) {
            claims.extend(link.claims.drain(..).map(|claim| (peer, claim)));
            if heard {
                told.insert(peer, describe(peer, link, None));
            }
        }
        let found = !claims.is_empty();
        let mut proofs = Vec::new();
        for (peer, claim) in claims {
            if let Claim::Proof(data) = claim {
                proofs.push((peer, data));
                continue;
            }
            self.commit_proofs(shared, &told, std::mem::take(&mut proofs));
            match claim {
                Claim::Proof(_) => {}
                Claim::Conflict(data) => self.check_conflict(shared, peer, data),
                Claim::Fork(data) => self.verify_fork(shared, peer, &data),
            }
        }
        self.commit_proofs(shared, &told, proofs);
        found
    }

    /// Verifies proofs and commits them together, those that move the head each by itself.
    fn commit_proofs(&self, shared: &Arc<Shared>, told: &HashMap<PeerId, Peer>, proofs: Vec<(PeerId, Box<Data>)>) {
        let mut proofs = proofs.into_iter().peekable();
        while proofs.peek().is_some() {
            let mut group = Vec::new();
            let (head, authority) = {
                let state = shared.state.read();
                (state.head.clone(), state.authority.clone())
            };
            // A proof may lean on one before it: the peer was asked for no more than that one would not bring.
            let mut tree = Overlay::new(Nodes(shared));
            while let Some((peer, data)) = proofs.next_if(|(_, d)| group.is_empty() || d.proof.upgrade.is_none()) {
                let alone = data.proof.upgrade.is_some();
                let Data { request, proof } = *data;
                let verified = merkle::verify(&tree, &head, proof, &authority);
                let verified = verified.and_then(|verified| tree.expect(&verified).map(|()| verified));
                group.push((peer, request, verified));
                if alone {
                    break;
                }
            }
            self.commit_group(shared, told, group);
        }
    }

    fn commit_group(
        &self,
        shared: &Arc<Shared>,
        told: &HashMap<PeerId, Peer>,
        group: Vec<(PeerId, u64, Result<Verified>)>,
    ) {
        let mut good = Vec::with_capacity(group.len());
        let mut asked = Vec::with_capacity(group.len());
        for (peer, request, verified) in group {
            let refused = match verified {
                Ok(verified) => {
                    good.push(verified);
                    None
                }
                Err(error) => Some(error),
            };
            asked.push((peer, request, refused));
        }
        let taken = if good.is_empty() { Ok(Vec::new()) } else { shared.commit_verified(good) };
        let failure = taken.as_ref().err().cloned();
        let mut taken = taken.unwrap_or_default().into_iter();
        let mut outcomes = Vec::with_capacity(asked.len());
        // In their order: what becomes of one may excuse the next.
        for (peer, request, refused) in asked {
            let outcome = match refused {
                Some(error) => Outcome::Rejected(error),
                None => match taken.next() {
                    Some(Taken::Stored(block)) => {
                        if let (Some((index, bytes)), Some(peer)) = (block, told.get(&peer)) {
                            shared.events.push(Event::Download(index, bytes, peer.clone()));
                        }
                        Outcome::Stored
                    }
                    Some(Taken::Stale) => Outcome::Stale,
                    Some(Taken::Refused(error)) => Outcome::Rejected(error),
                    None => Outcome::Failed,
                },
            };
            outcomes.push((peer, request, outcome));
        }
        let ours = outcomes.iter().find_map(|(_, _, outcome)| match outcome {
            Outcome::Rejected(error) => Some(error.clone()),
            _ => None,
        });
        let failed = self.tell(|machine, local, now| {
            for (peer, request, outcome) in outcomes {
                machine.replicator.committed(peer, request, outcome, local, now);
            }
            machine.replicator.has_failed()
        });
        if failed == Some(true) {
            self.give_up(shared, failure.or(ours));
        }
    }

    /// The core cannot store what peers bring: who waits for it would wait for ever.
    fn give_up(&self, shared: &Shared, why: Option<Error>) {
        let why = why.unwrap_or_else(|| Error::new(ErrorKind::Failed, "what peers bring cannot be stored"));
        shared.wants.close(&why);
    }

    fn check_conflict(&self, shared: &Arc<Shared>, peer: PeerId, data: Box<Data>) {
        let (head, authority) = {
            let state = shared.state.read();
            (state.head.clone(), state.authority.clone())
        };
        let conflict = merkle::conflict(&Nodes(shared), &head, &data.proof, &authority);
        let found = matches!(conflict, Ok(Some(_)));
        self.tell(|machine, local, _| machine.replicator.conflict_checked(peer, data, found, local));
    }

    fn verify_fork(&self, shared: &Arc<Shared>, peer: PeerId, data: &Data) {
        let (head, authority) = {
            let state = shared.state.read();
            (state.head.clone(), state.authority.clone())
        };
        let outcome = merkle::Reorg::start(&Nodes(shared), &head, &data.proof, &authority);
        self.tell(|machine, local, _| machine.replicator.fork_verified(peer, data.request, outcome, local));
    }

    fn reorganize(&self, shared: &Arc<Shared>, verified: Verified) {
        let taken = shared.commit_verified(vec![verified]);
        let failure = taken.as_ref().err().cloned();
        let outcome = match taken.unwrap_or_default().pop() {
            Some(Taken::Stored(_)) => Outcome::Stored,
            Some(Taken::Stale) => Outcome::Stale,
            Some(Taken::Refused(error)) => Outcome::Rejected(error),
            None => Outcome::Failed,
        };
        let failed = self.tell(|machine, _, _| {
            machine.replicator.reorganized(outcome);
            machine.replicator.has_failed()
        });
        if failed == Some(true) {
            self.give_up(shared, failure);
        }
    }
}

impl Machine {
    /// Wakes the connections but `mine` whose peers' claims wait, and all when there is something due earlier than they know.
    fn wake_connections(&mut self, mine: Option<&Connection>) {
        let others = |link: &&PeerLink| !mine.is_some_and(|mine| link.is_on(mine));
        let waiting = self.peers.values().filter(|link| !link.claims.is_empty());
        waiting.filter(others).for_each(|link| link.connection.wake());
        let due = self.replicator.next_deadline();
        if due.is_some_and(|due| self.told_deadline.is_none_or(|told| due < told)) {
            self.told_deadline = due;
            self.connections.iter().filter_map(Weak::upgrade).for_each(|connection| connection.wake());
        }
    }
}

fn link(peers: &HashMap<PeerId, PeerLink>, peer: PeerId) -> Option<(&Arc<Connection>, ChannelId)> {
    let link = peers.get(&peer)?;
    Some((&link.connection, link.channel?))
}

/// What the core says.
impl Network for CoreNet {
    fn changed(&self, changes: &[Changed]) {
        let mut change = Change::default();
        for it in changes {
            match *it {
                Changed::Blocks { start, length, drop: false } => change.have.push(start..start + length),
                Changed::Blocks { start, length, drop: true } => change.dropped = Some(start..start + length),
                Changed::Head => change.upgraded = true,
                Changed::Manifest => change.manifest = true,
                Changed::Truncated { ancestors, length } => {
                    change.upgraded = true;
                    change.truncated = Some(ancestors..length);
                    change.dropped = Some(ancestors..length);
                }
            }
        }
        change.have.sort_unstable_by_key(|range| range.start);
        self.tell(|machine, local, _| {
            machine.replicator.changed(&change, local);
        });
        self.nudge();
    }

    fn want(&self, id: u64, want: &Want) {
        self.tell(|machine, local, _| {
            if machine.wants.contains_key(&id) {
                return;
            }
            let name = match want {
                Want::Block(index) => machine.replicator.want_block(*index, local),
                Want::Upgrade => machine.replicator.want_upgrade(local),
                Want::Seek { bytes, padding } => machine.replicator.want_seek(*bytes, *padding, local),
                Want::Range(what) => {
                    machine.replicator.want_range(to_machine(what), what.linear, what.if_available, local)
                }
            };
            machine.waiters.insert(name, id);
            machine.wants.insert(id, name);
        });
        self.drive();
    }

    fn unwant(&self, id: u64) {
        let mut machine = self.machine.lock();
        let Some(name) = machine.wants.remove(&id) else { return };
        machine.waiters.remove(&name);
        machine.replicator.cancel(name);
        drop(machine);
        self.nudge();
    }

    fn set_finding_peers(&self, finders: usize) {
        self.machine.lock().replicator.set_finding_peers(finders);
        self.nudge();
    }

    fn apply_pending_reorg(&self) -> Result<bool> {
        // A fork that was found is followed as soon as it can be: none is ever pending.
        Ok(false)
    }

    fn peers(&self) -> Vec<Peer> {
        let machine = self.machine.lock();
        let infos: Vec<_> = machine.replicator.peers().collect();
        infos.iter().filter_map(|info| Some(describe(info.peer, machine.peers.get(&info.peer)?, Some(info)))).collect()
    }

    fn set_extension(&self, name: &str, handler: Option<ExtensionHandler>) {
        let mut machine = self.machine.lock();
        let old = match handler {
            Some(handler) => machine.extensions.insert(name.to_owned(), handler),
            None => machine.extensions.remove(name),
        };
        drop(machine);
        drop(old);
    }

    fn send_extension(&self, name: &str, message: &[u8], peer: Option<u64>) -> Result<()> {
        let mut machine = self.machine.lock();
        let to: Vec<PeerId> = match peer {
            Some(peer) => vec![PeerId(peer)],
            None => machine.replicator.peers().map(|info| info.peer).collect(),
        };
        for peer in to {
            machine.replicator.send_extension(peer, name, message.to_vec());
        }
        drop(machine);
        self.nudge();
        Ok(())
    }

    fn close(&self) {
        let connections = {
            let mut machine = self.machine.lock();
            machine.closed = true;
            machine.replicator.close();
            let extensions = std::mem::take(&mut machine.extensions);
            let connections = std::mem::take(&mut machine.connections);
            drop(machine);
            // A handler may hold the last handle of another core.
            drop(extensions);
            connections
        };
        if let Some(shared) = self.shared() {
            self.act(&shared, None);
        }
        if let Some(me) = self.shared().and_then(|shared| self.me(&shared)) {
            for connection in connections.iter().filter_map(Weak::upgrade) {
                connection.leave(&me);
            }
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl CoreNet {
    /// Does what is quick, for a caller that may hold the writer; what is not is left to a thread of a connection.
    fn nudge(&self) {
        let Some(shared) = self.shared() else { return };
        self.act(&shared, None);
        let machine = self.machine.lock();
        if !machine.backlog.is_empty() {
            let connections: Vec<_> = machine.connections.iter().filter_map(Weak::upgrade).collect();
            drop(machine);
            connections.iter().for_each(|connection| connection.wake());
        }
    }

    /// Whether work was left to the threads of `connection`.
    pub(crate) fn has_work(&self, connection: &Connection) -> bool {
        let machine = self.machine.lock();
        let claims = |link: &PeerLink| link.is_on(connection) && !link.claims.is_empty();
        !machine.backlog.is_empty() || machine.peers.values().any(claims)
    }
}

/// The core as the machine sees it, while its state is held.
struct View<'a> {
    state: &'a State,
}

impl NodeSource for View<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        self.state.files()?.tree.node(index)
    }
}

/// The tree of a core, node by node: for what takes longer than the state should be held.
struct Nodes<'a>(&'a Shared);

impl NodeSource for Nodes<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        self.0.state.read().files()?.tree.node(index)
    }
}

impl Local for View<'_> {
    fn head(&self) -> &Head {
        &self.state.head
    }

    fn contiguous_length(&self) -> u64 {
        self.state.count_contiguous().unwrap_or(0)
    }

    fn has(&self, index: u64) -> bool {
        self.state.has(index).unwrap_or(false)
    }

    fn first_unset(&self, from: u64) -> u64 {
        let length = self.state.head.length();
        if from >= length {
            return from;
        }
        let found = self.state.files().and_then(|files| files.bits.first_unset(from, length));
        found.ok().map_or(from, |found| found.unwrap_or(length))
    }

    fn first_set(&self, from: u64) -> Option<u64> {
        let length = self.state.head.length();
        if from >= length {
            return None;
        }
        self.state.files().and_then(|files| files.bits.first_set(from, length)).ok().flatten()
    }

    fn words(&self, start: u64, words: &mut [u32]) {
        words.fill(0);
        let length = self.state.head.length();
        let mut bytes = vec![0; words.len() * 4];
        let copied = self.state.files().and_then(|files| files.bits.copy(start, &mut bytes));
        if copied.is_err() {
            return;
        }
        for (at, (word, four)) in words.iter_mut().zip(bytes.chunks_exact(4)).enumerate() {
            let first = start + at as u64 * 32;
            let inside = length.saturating_sub(first).min(32) as u32;
            let mask = if inside == 32 { u32::MAX } else { (1 << inside) - 1 };
            *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]) & mask;
        }
    }

    fn has_manifest(&self) -> bool {
        self.state.authority.manifest().is_some()
    }

    fn is_compat(&self) -> bool {
        self.state.authority.is_compat()
    }
}
