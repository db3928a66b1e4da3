//! A simulated network: cores in memory with their replicators, links with latency and bandwidth, and a clock that
//! jumps to the next event.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hypercore::Download;
use hypercore::Result;
use hypercore::lowlevel::codec::Writer;
use hypercore::lowlevel::merkle::{self, Reorg};
use hypercore::lowlevel::replication::{
    Action, CloseReason, CommitOutcome, Config, Data, Handshake, LogChange, Message, PeerId, Replicator, Response,
    WaiterId, Woken,
};

use crate::simulated_core::{Core, blocks};

/// A core with its replicator, and what the replicator did.
pub struct Host {
    pub core: Core,
    pub machine: Replicator,
    pub woken: HashMap<WaiterId, Result<Woken>>,
    pub closed: Vec<(PeerId, CloseReason)>,
    pub conflicts: usize,
    pub extensions: Vec<(PeerId, String, Vec<u8>)>,
    pub joined: i64,
    pub commit_takes: Duration,
    /// The delay from a commit until the replicator learns its outcome. It learns of the change itself at once.
    pub outcome_takes: Duration,
    /// Whether every commit fails.
    pub broken: bool,
    /// How many responses at a time are sent in reverse order.
    pub disorder: usize,
    /// Changes or drops outgoing messages.
    pub tamper: Option<Tamper>,
    /// How often each block was stored.
    pub stored: HashMap<u64, usize>,
    pub rejected: usize,
    /// The nodes in all received block proofs.
    pub received_nodes: usize,
}

/// Changes a message before it is sent; false drops it.
pub type Tamper = Box<dyn FnMut(&mut Message) -> bool>;

/// A connection between two hosts.
pub struct Link {
    pub hosts: [usize; 2],
    peers: [PeerId; 2],
    up: bool,
    pub latency: Duration,
    /// Bytes per second in each direction.
    pub rate: f64,
    busy: [Duration; 2],
    /// How many messages each end sent, by type.
    pub sent: [[usize; 10]; 2],
}

enum Event {
    /// A message arrives at one end of a link.
    Message {
        link: usize,
        end: usize,
        kind: u64,
        bytes: Vec<u8>,
    },
    /// The link has room for a response from this end.
    Serve {
        link: usize,
        end: usize,
    },
    /// The other end has closed the channel.
    Closed {
        link: usize,
        end: usize,
    },
    Commit {
        host: usize,
        peer: PeerId,
        data: Box<Data>,
    },
    Committed {
        host: usize,
        peer: PeerId,
        request: u64,
        outcome: CommitOutcome,
    },
}

pub struct Net {
    pub now: Duration,
    pub hosts: Vec<Host>,
    pub links: Vec<Link>,
    events: BTreeMap<(Duration, u64), Event>,
    count: u64,
    pub steps: u64,
    peers: HashMap<PeerId, (usize, usize)>,
}

/// A test that takes more steps is in a livelock.
const MAX_STEPS: u64 = 400_000;

impl Net {
    pub fn new() -> Self {
        Net {
            now: Duration::from_secs(1),
            hosts: Vec::new(),
            links: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            steps: 0,
            peers: HashMap::new(),
        }
    }

    pub fn host(&mut self, core: Core) -> usize {
        self.host_with(core, Config::default())
    }

    pub fn host_with(&mut self, core: Core, config: Config) -> usize {
        let seed = self.hosts.len() as u64 * 7919 + 1;
        self.hosts.push(Host {
            core,
            machine: Replicator::new(Config { seed, ..config }),
            woken: HashMap::new(),
            closed: Vec::new(),
            conflicts: 0,
            extensions: Vec::new(),
            joined: 0,
            commit_takes: Duration::ZERO,
            outcome_takes: Duration::ZERO,
            broken: false,
            disorder: 1,
            tamper: None,
            stored: HashMap::new(),
            rejected: 0,
            received_nodes: 0,
        });
        self.hosts.len() - 1
    }

    /// Connects two hosts by a fast link; returns the link.
    pub fn connect(&mut self, a: usize, b: usize) -> usize {
        self.connect_by(a, b, Duration::from_millis(5), 1e8)
    }

    pub fn connect_by(&mut self, a: usize, b: usize, latency: Duration, rate: f64) -> usize {
        let link = self.links.len();
        let peers = [PeerId(link as u64 * 2 + 100), PeerId(link as u64 * 2 + 101)];
        self.links.push(Link {
            hosts: [a, b],
            peers,
            up: true,
            latency,
            rate,
            busy: [self.now; 2],
            sent: [[0; 10]; 2],
        });
        for (end, peer) in peers.into_iter().enumerate() {
            self.peers.insert(peer, (link, end));
            let host = &mut self.hosts[self.links[link].hosts[end]];
            host.machine.connecting(peer);
            host.machine.opened(peer, &Handshake { seeks: true, capability: [0; 32] }, &host.core, self.now);
        }
        link
    }

    pub fn peer(&self, link: usize, host: usize) -> PeerId {
        let link = &self.links[link];
        link.peers[link.hosts.iter().position(|it| *it == host).unwrap()]
    }

    /// Cuts a link: messages in flight are lost.
    pub fn cut(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].up, false) {
            return;
        }
        for end in 0..2 {
            let host = self.links[link].hosts[end];
            self.hosts[host].machine.closed(self.links[link].peers[end]);
        }
    }

    pub fn change(&mut self, host: usize, change: impl FnOnce(&mut Core) -> LogChange) {
        let host = &mut self.hosts[host];
        let change = change(&mut host.core);
        host.machine.changed(&change, &host.core);
    }

    /// Runs until nothing is left to happen or `limit` has passed; true in the first case.
    pub fn run_for(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        self.run_until(end, |_| false)
    }

    /// Runs until nothing is left to happen; fails after an hour of virtual time.
    #[track_caller]
    pub fn settle(&mut self) {
        assert!(self.run_for(Duration::from_secs(3600)), "the network does not come to rest");
    }

    /// Runs until `done`; fails if that does not happen within an hour of virtual time.
    #[track_caller]
    pub fn until(&mut self, done: impl FnMut(&Net) -> bool) {
        let start = self.now;
        let end = self.now + Duration::from_secs(3600);
        let mut done = done;
        self.run_until(end, &mut done);
        assert!(done(self), "it did not happen in {:?} and {} steps", self.now - start, self.steps);
    }

    /// Runs until `done` or until `end`; true if nothing is left to happen.
    pub fn run_until(&mut self, end: Duration, mut done: impl FnMut(&Net) -> bool) -> bool {
        loop {
            for host in 0..self.hosts.len() {
                self.carry_out_actions(host);
            }
            if done(self) {
                return false;
            }
            self.steps += 1;
            assert!(self.steps < MAX_STEPS, "livelock at {:?}", self.now);
            let deadline = self.hosts.iter().filter_map(|host| host.machine.next_deadline()).min();
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = deadline.into_iter().chain(event).min() else { return true };
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            // All events of one moment are handled before any action, like the messages of one frame.
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.handle(event);
            }
        }
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Message { link, end, kind, bytes } => {
                let link = &self.links[link];
                let host = &mut self.hosts[link.hosts[end]];
                if !link.up {
                    return;
                }
                match Message::decode(kind, &bytes) {
                    Ok(Some(message)) => host.machine.handle(link.peers[end], message, &host.core, now),
                    Ok(None) => {}
                    Err(_) => {
                        host.machine.closed(link.peers[end]);
                    }
                }
            }
            Event::Serve { link, end } => self.serve(link, end),
            Event::Closed { link, end } => {
                if self.links[link].up {
                    self.links[link].up = false;
                    let (host, peer) = (self.links[link].hosts[end], self.links[link].peers[end]);
                    self.hosts[host].machine.closed(peer);
                }
            }
            Event::Commit { host: index, peer, data } => {
                let host = &mut self.hosts[index];
                host.received_nodes += data.proof.block.as_ref().map_or(0, |block| block.nodes.len());
                let (outcome, change) = match host.broken {
                    true => (CommitOutcome::Failed, None),
                    false => host.core.commit(&data),
                };
                if let Some(change) = change {
                    for block in change.have.iter().cloned().flatten() {
                        *host.stored.entry(block).or_default() += 1;
                    }
                    host.machine.changed(&change, &host.core);
                }
                host.rejected += usize::from(matches!(outcome, CommitOutcome::Rejected(_)));
                let told = Event::Committed { host: index, peer, request: data.request, outcome };
                match host.outcome_takes {
                    Duration::ZERO => self.handle(told),
                    takes => self.schedule(now + takes, told),
                }
            }
            Event::Committed { host, peer, request, outcome } => {
                let host = &mut self.hosts[host];
                host.machine.committed(peer, request, outcome, &host.core, now);
            }
        }
    }

    /// Sends the next responses from this end of a link, and schedules the next time that the link is free.
    fn serve(&mut self, link: usize, end: usize) {
        let (host, peer) = (self.links[link].hosts[end], self.links[link].peers[end]);
        let it = &mut self.hosts[host];
        let mut messages = Vec::new();
        while messages.len() < it.disorder {
            match it.machine.next_response(peer, &it.core) {
                Some(Response::Message(message)) => messages.push(message),
                Some(Response::Prove(request)) => messages.push(it.core.answer(&request)),
                None => break,
            }
        }
        if messages.is_empty() {
            return;
        }
        for message in messages.into_iter().rev() {
            self.send(peer, message);
        }
        let free = self.links[link].busy[end];
        self.schedule(free, Event::Serve { link, end });
    }

    fn send(&mut self, peer: PeerId, mut message: Message) {
        let (link, end) = self.peers[&peer];
        let it = &mut self.links[link];
        if let Some(tamper) = &mut self.hosts[it.hosts[end]].tamper {
            if !tamper(&mut message) {
                return;
            }
        }
        let mut w = Writer::new();
        message.encode(&mut w);
        let bytes = w.into_vec();
        it.sent[end][message.kind() as usize] += 1;
        it.busy[end] = it.busy[end].max(self.now) + Duration::from_secs_f64((bytes.len() + 20) as f64 / it.rate);
        let at = it.busy[end] + it.latency;
        self.schedule(at, Event::Message { link, end: 1 - end, kind: message.kind(), bytes });
    }

    /// Carries out the actions of a host's replicator.
    fn carry_out_actions(&mut self, index: usize) {
        loop {
            let host = &mut self.hosts[index];
            let Some(action) = host.machine.poll(&host.core, self.now) else {
                let deadline = host.machine.next_deadline();
                assert!(deadline.is_none_or(|at| at > self.now), "a deadline has passed and nothing came of it");
                return;
            };
            match action {
                Action::Send { peer, message } => self.send(peer, message),
                Action::ResponsesReady { peer } => {
                    let (link, end) = self.peers[&peer];
                    let at = self.links[link].busy[end].max(self.now);
                    self.schedule(at, Event::Serve { link, end });
                }
                Action::Commit { peer, data } => {
                    let at = self.now + host.commit_takes;
                    self.schedule(at, Event::Commit { host: index, peer, data });
                }
                Action::CheckConflict { peer, data } => {
                    let core = &host.core;
                    let found = merkle::conflict(core, &core.head, &data.proof, &core.verifier);
                    host.machine.conflict_checked(peer, data, matches!(found, Ok(Some(_))), core);
                }
                Action::VerifyFork { peer, data } => {
                    let core = &host.core;
                    let found = Reorg::start(core, &core.head, &data.proof, &core.verifier);
                    host.machine.fork_verified(peer, data.request, found, core);
                }
                Action::Reorganize { verified } => match host.core.apply(*verified) {
                    Some(change) => {
                        host.machine.changed(&change, &host.core);
                        host.machine.reorganized(CommitOutcome::Stored);
                    }
                    None => host.machine.reorganized(CommitOutcome::Stale),
                },
                Action::Close { peer, reason } => {
                    if let CloseReason::Conflict { request: Some(request) } = &reason {
                        let answer = host.core.answer(request);
                        host.closed.push((peer, reason));
                        self.send(peer, answer);
                    } else {
                        host.closed.push((peer, reason));
                    }
                    let (link, end) = self.peers[&peer];
                    let at = self.links[link].busy[end].max(self.now) + self.links[link].latency;
                    self.schedule(at, Event::Closed { link, end: 1 - end });
                }
                Action::Wake { waiter, result } => {
                    assert!(host.woken.insert(waiter, result).is_none(), "woken twice");
                }
                Action::Peer { joined, .. } => host.joined += if joined { 1 } else { -1 },
                Action::Extension { peer, name, message } => host.extensions.push((peer, name, message)),
                Action::Conflict { .. } => host.conflicts += 1,
            }
        }
    }
}

/// A writer with blocks and a reader connected to it: the network, the writer, the reader and the link.
pub fn pair(count: u64) -> (Net, usize, usize, usize) {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(count));
    let reader = Core::reader_of(&writer);
    let (a, b) = (net.host(writer), net.host(reader));
    let link = net.connect(a, b);
    (net, a, b, link)
}

/// A download of all blocks that follows the log.
pub fn all() -> Download {
    Download::all()
}

pub fn download(net: &mut Net, host: usize, what: Download) -> WaiterId {
    let it = &mut net.hosts[host];
    it.machine.download(Arc::new(what), &it.core)
}

/// Fails unless both hosts have the same head and the same blocks.
#[track_caller]
pub fn assert_same(net: &Net, a: usize, b: usize) {
    assert_eq!(net.hosts[a].core.head, net.hosts[b].core.head);
    let differ =
        (0..net.hosts[a].core.length()).find(|i| net.hosts[a].core.blocks.get(i) != net.hosts[b].core.blocks.get(i));
    assert_eq!(differ, None, "the first block that differs");
}
