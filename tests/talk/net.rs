//! A network without sockets: cores in memory, machines beside them, lines with latency and a rate between them, and a clock that
//! jumps to whatever happens next.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hypercore::Download;
use hypercore::lowlevel::codec::Writer;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::Verifier;
use hypercore::lowlevel::merkle::{self, Head, NodeSource, Reorg, Verified};
use hypercore::lowlevel::node::Node;
use hypercore::lowlevel::replication::{
    Action, CloseReason, CommitOutcome, Config, Data, Handshake, Local, LogChange, Message, PeerId, Replicator,
    Request, Response, WaiterId, Woken,
};
use hypercore::{Error, ErrorKind, KeyPair, Manifest, Result};

/// A core in memory.
#[derive(Clone)]
pub struct Core {
    key_pair: Option<KeyPair>,
    pub verifier: Verifier,
    pub head: Head,
    nodes: HashMap<NodeIndex, Node>,
    pub blocks: BTreeMap<u64, Vec<u8>>,
    contiguous: RefCell<u64>,
    /// How often it was asked whether it has a block.
    pub looked_up: Cell<u64>,
}

impl Core {
    fn new(verifier: Verifier, key_pair: Option<KeyPair>) -> Self {
        Core {
            key_pair,
            verifier,
            head: Head::default(),
            nodes: HashMap::new(),
            blocks: BTreeMap::new(),
            contiguous: RefCell::new(0),
            looked_up: Cell::new(0),
        }
    }

    /// The writer's compat core.
    pub fn writer() -> Self {
        let pair = KeyPair::from_seed(&[9; 32]);
        let manifest = Manifest::single(pair.public_key());
        Core::new(Verifier::new(pair.public_key(), Some(manifest), true).unwrap(), Some(pair))
    }

    /// The writer's core whose key is its manifest's hash.
    pub fn manifest_writer() -> Self {
        let pair = KeyPair::from_seed(&[9; 32]);
        let manifest = Manifest::single(pair.public_key());
        Core::new(Verifier::new(manifest.key(), Some(manifest), false).unwrap(), Some(pair))
    }

    /// An empty core opened by the key of `other`.
    pub fn reader_of(other: &Core) -> Self {
        Core::new(Verifier::new(*other.verifier.key(), None, other.verifier.is_compat()).unwrap(), None)
    }

    pub fn length(&self) -> u64 {
        self.head.length()
    }

    pub fn append(&mut self, blocks: impl IntoIterator<Item = Vec<u8>>) -> LogChange {
        let start = self.length();
        let blocks: Vec<Vec<u8>> = blocks.into_iter().collect();
        let leaves = blocks.iter().enumerate().map(|(i, block)| Node::leaf(start + i as u64, block));
        let patch = merkle::append(&self.head, leaves).unwrap();
        self.apply_own(patch);
        self.blocks.extend((start..).zip(blocks));
        LogChange { have: std::iter::once(start..self.length()).collect(), upgraded: true, ..LogChange::default() }
    }

    pub fn truncate(&mut self, length: u64) -> LogChange {
        let patch = merkle::truncate(&*self, &self.head, length, self.head.fork + 1).unwrap();
        let cut = length..self.length();
        self.apply_own(patch);
        LogChange { dropped: Some(cut.clone()), upgraded: true, truncated: Some(cut), ..LogChange::default() }
    }

    pub fn clear(&mut self, range: std::ops::Range<u64>) -> LogChange {
        self.blocks.retain(|index, _| !range.contains(index));
        *self.contiguous.borrow_mut() = 0;
        LogChange { dropped: Some(range), ..LogChange::default() }
    }

    fn apply_own(&mut self, patch: merkle::Patch) {
        let head = patch.upgrade.clone().unwrap();
        let signed = match head.length() {
            0 => None,
            _ => Some(self.verifier.sign(head.tree(), self.key_pair.as_ref().unwrap()).unwrap()),
        };
        self.apply(Verified::own(patch, signed.as_ref()).unwrap()).unwrap();
    }

    /// Commits a change that was found good, if it still fits.
    fn apply(&mut self, verified: Verified) -> Option<LogChange> {
        if !verified.fits(&self.head) {
            return None;
        }
        let settled = verified.settle(&*self).unwrap();
        let mut change = LogChange { upgraded: settled.patch.upgrade.is_some(), ..LogChange::default() };
        if settled.patch.ancestors < settled.patch.base_length {
            let cut = settled.patch.ancestors..settled.patch.base_length;
            let keep = NodeIndex::of_block(cut.start);
            self.nodes.retain(|index, _| *index < keep && index.end_block() <= cut.start);
            self.blocks.retain(|index, _| *index < cut.start);
            *self.contiguous.borrow_mut() = 0;
            change.dropped = Some(cut.clone());
            change.truncated = Some(cut);
        }
        self.nodes.extend(settled.patch.nodes.into_iter().map(|node| (node.index, node)));
        if let Some(head) = settled.patch.upgrade {
            self.head = head;
        }
        if let Some((index, value)) = settled.block {
            self.blocks.insert(index, value);
            change.have.push(index..index + 1);
        }
        if let Some(manifest) = settled.manifest {
            self.verifier = self.verifier.with_manifest(manifest).unwrap();
            change.manifest = true;
        }
        Some(change)
    }

    pub fn commit(&mut self, data: &Data) -> (CommitOutcome, Option<LogChange>) {
        match merkle::verify(&*self, &self.head, data.proof.clone(), &self.verifier) {
            Err(error) => (CommitOutcome::Rejected(error), None),
            Ok(verified) => match self.apply(verified) {
                None => (CommitOutcome::Stale, None),
                change => (CommitOutcome::Stored, change),
            },
        }
    }

    /// The answer to a request.
    pub fn answer(&self, request: &Request) -> Message {
        let manifest = self.verifier.manifest().filter(|_| request.manifest && !self.verifier.is_compat());
        let mut data = Data { request: request.id, ..Data::default() };
        let proof = match request.fork == self.head.fork {
            true => self.prove(request),
            false => Err(Error::new(ErrorKind::InvalidOperation, "another fork")),
        };
        match proof {
            Ok(proof) => data.proof = proof,
            Err(_) if manifest.is_none() => return Message::NoData(request.id),
            Err(_) => data.proof.fork = self.head.fork,
        }
        data.proof.manifest = manifest.cloned();
        Message::Data(Box::new(data))
    }

    fn prove(&self, request: &Request) -> Result<merkle::Proof> {
        let mut proof = merkle::prove(self, &self.head, self.verifier.prologue(), &request.wanted)?;
        if let Some(block) = &mut proof.block {
            let value = self.blocks.get(&block.index);
            block.value = value.ok_or_else(|| Error::new(ErrorKind::BlockNotAvailable, "not here"))?.clone();
        }
        Ok(proof)
    }
}

impl NodeSource for Core {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        Ok(self.nodes.get(&index).copied().filter(|node| !node.is_blank()))
    }
}

impl Local for Core {
    fn head(&self) -> &Head {
        &self.head
    }
    fn contiguous_length(&self) -> u64 {
        let mut contiguous = self.contiguous.borrow_mut();
        while self.blocks.contains_key(&contiguous) {
            *contiguous += 1;
        }
        *contiguous
    }
    fn has(&self, index: u64) -> bool {
        self.looked_up.set(self.looked_up.get() + 1);
        self.blocks.contains_key(&index)
    }
    fn first_unset(&self, from: u64) -> u64 {
        let from = if from < self.contiguous_length() { self.contiguous_length() } else { from };
        let held = self.blocks.range(from..).zip(from..).take_while(|((index, _), at)| *index == at);
        from + held.count() as u64
    }
    fn first_set(&self, from: u64) -> Option<u64> {
        self.blocks.range(from..).next().map(|(index, _)| *index)
    }
    fn words(&self, start: u64, words: &mut [u32]) {
        words.fill(0);
        for (index, _) in self.blocks.range(start..start + words.len() as u64 * 32) {
            words[((index - start) / 32) as usize] |= 1 << (index % 32);
        }
    }
    fn has_manifest(&self) -> bool {
        self.verifier.manifest().is_some()
    }
    fn is_compat(&self) -> bool {
        self.verifier.is_compat()
    }
}

/// A core with its machine, and what came of it.
pub struct Host {
    pub core: Core,
    pub machine: Replicator,
    pub woken: HashMap<WaiterId, Result<Woken>>,
    pub closed: Vec<(PeerId, CloseReason)>,
    pub conflicts: usize,
    pub extensions: Vec<(PeerId, String, Vec<u8>)>,
    pub joined: i64,
    /// How long a commit takes.
    pub commit_takes: Duration,
    /// How long after it the machine hears what became of it; of the change itself it hears at once.
    pub outcome_takes: Duration,
    /// Whether nothing can be stored.
    pub broken: bool,
    /// How many requests are answered in reverse order.
    pub disorder: usize,
    /// Changes what is sent: a liar's.
    pub tamper: Option<Tamper>,
    /// Blocks that were stored, with how often.
    pub stored: HashMap<u64, usize>,
    /// Proofs that were rejected.
    pub rejected: usize,
    /// Nodes in the proofs of blocks.
    pub received_nodes: usize,
}

/// Changes a message before it is sent; false swallows it.
pub type Tamper = Box<dyn FnMut(&mut Message) -> bool>;

/// A line between two hosts.
pub struct Line {
    pub hosts: [usize; 2],
    peers: [PeerId; 2],
    up: bool,
    pub latency: Duration,
    /// Bytes a second in each direction.
    pub rate: f64,
    busy: [Duration; 2],
    /// Messages sent from each end, by type.
    pub sent: [[usize; 10]; 2],
}

enum Event {
    /// A message for one end of a line.
    Message {
        line: usize,
        end: usize,
        kind: u64,
        bytes: Vec<u8>,
    },
    /// The end of a line has room to serve.
    Serve {
        line: usize,
        end: usize,
    },
    /// The channel was closed by the other end.
    Closed {
        line: usize,
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
    pub lines: Vec<Line>,
    events: BTreeMap<(Duration, u64), Event>,
    count: u64,
    pub steps: u64,
    peers: HashMap<PeerId, (usize, usize)>,
}

/// What a step of the network may come to at most: more is a livelock.
const MAX_STEPS: u64 = 400_000;

impl Net {
    pub fn new() -> Self {
        Net {
            now: Duration::from_secs(1),
            hosts: Vec::new(),
            lines: Vec::new(),
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

    /// Connects two hosts by a fast line.
    pub fn connect(&mut self, a: usize, b: usize) -> usize {
        self.connect_by(a, b, Duration::from_millis(5), 1e8)
    }

    pub fn connect_by(&mut self, a: usize, b: usize, latency: Duration, rate: f64) -> usize {
        let line = self.lines.len();
        let peers = [PeerId(line as u64 * 2 + 100), PeerId(line as u64 * 2 + 101)];
        self.lines.push(Line {
            hosts: [a, b],
            peers,
            up: true,
            latency,
            rate,
            busy: [self.now; 2],
            sent: [[0; 10]; 2],
        });
        for (end, peer) in peers.into_iter().enumerate() {
            self.peers.insert(peer, (line, end));
            let host = &mut self.hosts[self.lines[line].hosts[end]];
            host.machine.connecting(peer);
            host.machine.opened(peer, &Handshake { seeks: true, capability: [0; 32] }, &host.core, self.now);
        }
        line
    }

    pub fn peer(&self, line: usize, host: usize) -> PeerId {
        let line = &self.lines[line];
        line.peers[line.hosts.iter().position(|it| *it == host).unwrap()]
    }

    /// Cuts a line: what is on its way is lost.
    pub fn cut(&mut self, line: usize) {
        if !std::mem::replace(&mut self.lines[line].up, false) {
            return;
        }
        for end in 0..2 {
            let host = self.lines[line].hosts[end];
            self.hosts[host].machine.closed(self.lines[line].peers[end]);
        }
    }

    pub fn change(&mut self, host: usize, change: impl FnOnce(&mut Core) -> LogChange) {
        let host = &mut self.hosts[host];
        let change = change(&mut host.core);
        host.machine.changed(&change, &host.core);
    }

    /// Lets everything happen until nothing does, or until `limit` from now has passed. True if nothing happens any more.
    pub fn run_for(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        self.run_until(end, |_| false)
    }

    /// Lets everything happen until nothing does.
    #[track_caller]
    pub fn settle(&mut self) {
        assert!(self.run_for(Duration::from_secs(3600)), "the network does not come to rest");
    }

    /// Lets things happen until `done`; fails when that does not come true.
    #[track_caller]
    pub fn until(&mut self, done: impl FnMut(&Net) -> bool) {
        let start = self.now;
        let end = self.now + Duration::from_secs(3600);
        let mut done = done;
        self.run_until(end, &mut done);
        assert!(done(self), "it did not happen in {:?} and {} steps", self.now - start, self.steps);
    }

    /// Lets things happen until `done`, or until `end`. True if nothing happens any more.
    pub fn run_until(&mut self, end: Duration, mut done: impl FnMut(&Net) -> bool) -> bool {
        loop {
            for host in 0..self.hosts.len() {
                self.act(host);
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
            // All that arrives at one time is handled before anything is done about it, like the messages of one frame.
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.happen(event);
            }
        }
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Message { line, end, kind, bytes } => {
                let line = &self.lines[line];
                let host = &mut self.hosts[line.hosts[end]];
                if !line.up {
                    return;
                }
                match Message::decode(kind, &bytes) {
                    Ok(Some(message)) => host.machine.handle(line.peers[end], message, &host.core, now),
                    Ok(None) => {}
                    Err(_) => {
                        host.machine.closed(line.peers[end]);
                    }
                }
            }
            Event::Serve { line, end } => self.serve(line, end),
            Event::Closed { line, end } => {
                if self.lines[line].up {
                    self.lines[line].up = false;
                    let (host, peer) = (self.lines[line].hosts[end], self.lines[line].peers[end]);
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
                    Duration::ZERO => self.happen(told),
                    takes => self.schedule(now + takes, told),
                }
            }
            Event::Committed { host, peer, request, outcome } => {
                let host = &mut self.hosts[host];
                host.machine.committed(peer, request, outcome, &host.core, now);
            }
        }
    }

    /// Answers what the peer at `end` of a line asked for, and goes on when the line is free.
    fn serve(&mut self, line: usize, end: usize) {
        let (host, peer) = (self.lines[line].hosts[end], self.lines[line].peers[end]);
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
        let free = self.lines[line].busy[end];
        self.schedule(free, Event::Serve { line, end });
    }

    fn send(&mut self, peer: PeerId, mut message: Message) {
        let (line, end) = self.peers[&peer];
        let it = &mut self.lines[line];
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
        self.schedule(at, Event::Message { line, end: 1 - end, kind: message.kind(), bytes });
    }

    /// Carries out what the machine of a host wants done.
    fn act(&mut self, index: usize) {
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
                    let (line, end) = self.peers[&peer];
                    let at = self.lines[line].busy[end].max(self.now);
                    self.schedule(at, Event::Serve { line, end });
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
                    let (line, end) = self.peers[&peer];
                    let at = self.lines[line].busy[end].max(self.now) + self.lines[line].latency;
                    self.schedule(at, Event::Closed { line, end: 1 - end });
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

/// A block of which no two have the same bytes.
pub fn block(index: u64, size: usize) -> Vec<u8> {
    let mut block = index.to_le_bytes().to_vec();
    block.resize(size.max(8), index as u8);
    block
}

pub fn blocks(count: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|i| block(i, 20))
}

/// A writer with blocks, and a reader connected to it.
pub fn pair(count: u64) -> (Net, usize, usize, usize) {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(count));
    let reader = Core::reader_of(&writer);
    let (a, b) = (net.host(writer), net.host(reader));
    let line = net.connect(a, b);
    (net, a, b, line)
}

/// All blocks, for ever.
pub fn all() -> Download {
    Download::all()
}

/// Starts a download.
pub fn download(net: &mut Net, host: usize, what: Download) -> WaiterId {
    let it = &mut net.hosts[host];
    it.machine.download(Arc::new(what), &it.core)
}

/// Both have the same head and the same blocks.
#[track_caller]
pub fn assert_same(net: &Net, a: usize, b: usize) {
    assert_eq!(net.hosts[a].core.head, net.hosts[b].core.head);
    let differ =
        (0..net.hosts[a].core.length()).find(|i| net.hosts[a].core.blocks.get(i) != net.hosts[b].core.blocks.get(i));
    assert_eq!(differ, None, "the first block that differs");
}
