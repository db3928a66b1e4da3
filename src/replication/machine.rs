//! The machine: what comes in, what became of what went out, what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range as Span;
use std::time::Duration;

use super::message::{Data, Handshake, Message, Request, Sync};
use super::peer::{Peer, Purpose, Source, Suspicion};
use super::pick::{Desk, TURN, View};
use super::reorg::{does_not_fit, is_ours};
use super::wants::{Orphan, RangeWant};
use super::{Action, Change, CloseReason, Config, Download, Local, Outcome, PeerId, PeerInfo, Serve, WantId};
use crate::codec::MAX_SAFE_INTEGER;
use crate::merkle::{self, Reorg, UpgradeRequest};
use crate::{Error, ErrorKind, Result};

/// How long a core that has lost interest in more goes on saying that it has some: opening and closing in a row must not make
/// peers come and go.
const LINGER: Duration = Duration::from_secs(20);

/// How long a peer whose proof was wrong may take to show that its log is signed and contradicts ours.
const EVIDENCE_WAIT: Duration = Duration::from_secs(5);

/// How many proofs of a conflict that come to nothing a peer may send unasked: each costs a signature check.
const MAX_ALARMS: u32 = 16;

/// While more are connecting, "nobody has more" is not said before so many peers were heard.
const PEERS_FOR_UPGRADE: usize = 3;

/// A request for a longer head that is older than this keeps nobody waiting any more.
const STALLED: Duration = Duration::from_secs(20);

/// The replication of one core with all its peers.
pub struct Replicator {
    peers: BTreeMap<PeerId, Peer>,
    connecting: BTreeSet<PeerId>,
    desk: Desk,
    /// Whether anything happened since requests were last picked.
    stirred: bool,
    /// Whose turn it is first.
    turn: usize,
    had_peers: bool,
    finders: usize,
    downloading: bool,
    /// When `downloading` ends.
    linger: Option<Duration>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Running,
    /// The core cannot store: nothing is asked for.
    Failed,
    /// There is a conflict, or the core was closed.
    Stopped,
}

impl Replicator {
    /// A machine without peers, of a core that is interested in more.
    pub fn new(config: Config) -> Self {
        Replicator {
            peers: BTreeMap::new(),
            connecting: BTreeSet::new(),
            desk: Desk::new(config),
            stirred: false,
            turn: 0,
            had_peers: false,
            finders: 0,
            downloading: true,
            linger: None,
            state: State::Running,
        }
    }

    // -- Connections.

    /// A channel is being opened; as long as one is, nothing is said to be not available.
    pub fn connecting(&mut self, peer: PeerId) {
        self.connecting.insert(peer);
    }

    /// Both sides have opened the channel, and the capability in the handshake was found right.
    pub fn opened(&mut self, peer: PeerId, handshake: &Handshake, local: &dyn Local) {
        self.connecting.remove(&peer);
        if self.state == State::Stopped {
            self.desk.actions.push_back(Action::Close { peer, reason: CloseReason::Closed });
            return;
        }
        self.peers.insert(peer, Peer::new(handshake.seeks, self.desk.config.in_flight.0));
        self.had_peers = true;
        self.stirred = true;
        self.desk.actions.push_back(Action::Peer { peer, joined: true });
        self.say_sync(peer, local);
        self.announce_all(peer, local.contiguous_length() == local.head().length(), local);
    }

    /// The channel is gone, or could not be opened. True if the other side closed it for want of interest and it should be opened again,
    /// as another peer.
    pub fn closed(&mut self, peer: PeerId) -> bool {
        self.connecting.remove(&peer);
        self.stirred = true;
        let Some(gone) = self.forget_peer(peer) else { return false };
        let said = gone.sync.unwrap_or_default();
        self.state == State::Running && self.downloading && said.uploading && !said.downloading
    }

    /// Takes in a message of a peer. Of breaches of the protocol comes an [`Action::Close`].
    pub fn handle(&mut self, peer: PeerId, message: Message, local: &dyn Local, now: Duration) {
        let Some(it) = self.peers.get_mut(&peer) else { return };
        match message {
            Message::Sync(sync) => self.on_sync(peer, sync, local),
            Message::Request(request) => match it.inbox.push(request) {
                Ok(true) => self.desk.actions.push_back(Action::Serve { peer }),
                Ok(false) => {}
                Err(error) => self.cut_off(peer, error),
            },
            Message::Cancel(request) => it.inbox.cancel(request),
            Message::Data(data) => self.on_data(peer, data, local, now),
            Message::NoData(request) => self.on_no_data(peer, request, now),
            Message::Want(span) => {
                if it.inbox.want(span) {
                    self.desk.actions.push_back(Action::Serve { peer });
                }
            }
            // Nothing is remembered of wants that could be taken back.
            Message::Unwant(_) => {}
            Message::Bitfield(bitfield) => {
                it.remote.replace(bitfield.start, &bitfield.words);
                let end = bitfield.start.saturating_add(bitfield.words.len() as u64 * 32);
                self.on_told(peer, bitfield.start, end);
            }
            Message::Range(range) => {
                let end = range.start.saturating_add(range.length).min(MAX_SAFE_INTEGER);
                if range.drop {
                    it.remote.remove(range.start, end);
                } else {
                    it.remote.insert(range.start, end);
                }
                self.on_told(peer, range.start, end);
            }
            Message::Extension(extension) => {
                if let Some(name) = it.extension_name(extension.name) {
                    self.desk.actions.push_back(Action::Extension { peer, name, message: extension.message });
                }
            }
        }
    }

    /// The next thing to send to a peer that waits for answers; none until [`Action::Serve`] is said again.
    pub fn serve(&mut self, peer: PeerId, local: &dyn Local) -> Option<Serve> {
        self.peers.get_mut(&peer)?.inbox.next(local)
    }

    /// A message of an extension to a peer.
    pub fn send_extension(&mut self, peer: PeerId, name: &str, message: Vec<u8>) {
        if let Some(it) = self.peers.get_mut(&peer) {
            let message = it.extension(name, message);
            self.desk.actions.push_back(Action::Send { peer, message });
        }
    }

    /// The peers whose channel is open.
    pub fn peers(&self) -> impl Iterator<Item = PeerInfo> + '_ {
        self.peers.iter().map(|(id, peer)| PeerInfo {
            peer: *id,
            fork: peer.fork(),
            length: peer.length(),
            contiguous_length: peer.remote.contiguous(),
            can_upgrade: peer.sync.is_some_and(|sync| sync.can_upgrade),
            uploading: peer.sync.is_some_and(|sync| sync.uploading),
            downloading: peer.sync.is_some_and(|sync| sync.downloading),
            in_flight: peer.requests.len(),
        })
    }

    // -- What became of actions.

    /// What became of [`Action::Commit`], after [`Replicator::changed`].
    pub fn committed(&mut self, peer: PeerId, request: u64, outcome: Outcome, local: &dyn Local, now: Duration) {
        self.stirred = true;
        // Without it, the peer is gone, and its requests were released.
        let Some(it) = self.peers.get(&peer) else { return };
        let Some(in_flight) = it.requests.get(&request) else { return };
        let (asked, excused) = (in_flight.request, in_flight.leans.is_some_and(|first| it.fallen.contains(&first)));
        let head = local.head();
        let moved =
            asked.fork != head.fork || asked.wanted.upgrade.is_some_and(|upgrade| upgrade.start != head.length());
        match outcome {
            Outcome::Stored => {
                let found_out = asked.wanted.hash.is_some() || asked.wanted.seek.is_some();
                self.release(peer, request, false);
                if found_out {
                    self.settle_seeks(local);
                }
            }
            Outcome::Stale => self.release(peer, request, true),
            Outcome::Rejected(error) if is_ours(error.kind()) => {
                self.release(peer, request, true);
                self.fail();
            }
            Outcome::Rejected(error) if does_not_fit(error.kind()) => {
                self.release(peer, request, true);
                if !moved && !excused {
                    self.cut_off(peer, error);
                }
            }
            Outcome::Rejected(error) => self.suspect(peer, error, local, now),
            Outcome::Failed => {
                self.release(peer, request, true);
                self.fail();
            }
        }
    }

    /// What became of [`Action::CheckConflict`]: whether the proof holds and contradicts the own log.
    pub fn conflict_checked(&mut self, peer: PeerId, data: Box<Data>, conflict: bool, local: &dyn Local) {
        self.stirred = true;
        if conflict {
            return self.stop_for_conflict(peer, data, local);
        }
        let Some(it) = self.peers.get_mut(&peer) else { return };
        it.checking = false;
        match it.suspicion.take() {
            Some(suspicion) => self.cut_off(peer, suspicion.error),
            None => {
                it.alarms += 1;
                if it.alarms > MAX_ALARMS {
                    self.cut_off(peer, Error::protocol("the peer keeps proving conflicts that are none"));
                }
            }
        }
    }

    /// What became of [`Action::VerifyFork`].
    pub fn fork_verified(&mut self, peer: PeerId, request: u64, outcome: Result<Reorg>, local: &dyn Local) {
        self.stirred = true;
        let asked = self.peers.get(&peer).and_then(|it| it.requests.get(&request)).map(|it| it.request);
        self.release(peer, request, false);
        match outcome {
            Ok(reorg) => {
                if reorg.fork() > local.head().fork {
                    self.desk.forks.found(reorg);
                    self.reorganize_if_found();
                }
            }
            Err(error) if is_ours(error.kind()) => self.fail(),
            Err(error) => {
                if asked.is_some_and(|asked| asked.fork > local.head().fork) {
                    self.cut_off(peer, error);
                }
            }
        }
    }

    /// What became of [`Action::Reorganize`], after [`Replicator::changed`].
    pub fn reorganized(&mut self, outcome: Outcome) {
        self.stirred = true;
        self.desk.forks.applied();
        if let Outcome::Failed | Outcome::Rejected(_) = outcome {
            self.fail();
        }
    }

    /// What the core did, by whomever: to be said once for each commit.
    pub fn changed(&mut self, change: &Change, local: &dyn Local) {
        self.stirred = true;
        let desk = &mut self.desk;
        if let Some(cut) = &change.truncated {
            desk.wants.truncated(cut.start, &mut desk.actions);
            for range in desk.wants.ranges.values_mut() {
                range.restart();
                range.origin = None;
            }
        }
        if change.upgraded {
            desk.forks.head_changed();
            let head = local.head();
            if desk.wants.upgrade_from != (head.fork, head.length()) {
                desk.wants.settle_upgrades(true, &mut desk.actions);
            }
        }
        let news = change.upgraded || change.manifest;
        let head = local.head();
        // Nodes that came with a block may be just those that the proof for a peer behind us lacked.
        let behind = |peer: &Peer| {
            let helpless = peer.said.is_some_and(|said| !said.can_upgrade);
            helpless && peer.fork() == head.fork && peer.length() < head.length()
        };
        let peers = self.peers.iter().filter(|(_, peer)| news || behind(peer)).map(|(id, _)| *id);
        for peer in peers.collect::<Vec<_>>() {
            self.say_sync(peer, local);
        }
        if let Some(dropped) = &change.dropped {
            // Peers that thought we had these did not tell us that they have them.
            for peer in self.peers.values_mut() {
                peer.remote.ask_again(dropped.start, dropped.end);
            }
        }
        for range in &change.have {
            self.on_have(range.clone());
        }
        self.broadcast(change, local);
        let desk = &mut self.desk;
        if !change.have.is_empty() {
            desk.wants.settle_ranges(local, &mut desk.actions);
        }
        if change.upgraded {
            for peer in self.peers.values_mut() {
                peer.cursors.clear();
            }
            self.settle_seeks(local);
        } else if let Some(dropped) = &change.dropped {
            self.lower_cursors(dropped.start, dropped.end);
        }
    }

    /// Asks for things again after the core could not store them.
    pub fn resume(&mut self) {
        if self.state == State::Failed {
            self.state = State::Running;
            self.stirred = true;
        }
    }

    // -- What callers wait for.

    /// Waits for block `index`. Where it is in the log already and the log is then cut below it, the wait fails.
    pub fn want_block(&mut self, index: u64, local: &dyn Local) -> WantId {
        let want = self.desk.wants.add_block(index, index < local.head().length());
        if local.has(index) {
            self.desk.wants.have(index..index + 1, &mut self.desk.actions);
        } else if !self.desk.blocks.contains_key(&index) {
            self.desk.wants.gets.insert(index);
            self.lower_queue_cursors(Source::Gets, index);
        }
        self.stirred = true;
        self.fail_if_stopped();
        want
    }

    /// Waits until all of `what` is here. `linear`: in its order, as far as possible. `if_available`: it is also over when nobody has any
    /// more of it.
    pub fn want_range(&mut self, what: Download, linear: bool, if_available: bool, local: &dyn Local) -> WantId {
        let want = self.desk.wants.add_range(RangeWant::new(what, linear, if_available));
        self.desk.wants.settle_ranges(local, &mut self.desk.actions);
        self.stirred = true;
        self.fail_if_stopped();
        want
    }

    /// Waits until it is known which block holds byte `bytes`, without the `padding` bytes at the start of each block.
    pub fn want_seek(&mut self, bytes: u64, padding: u64, local: &dyn Local) -> WantId {
        let want = self.desk.wants.add_seek(bytes, padding);
        self.settle_seeks(local);
        self.stirred = true;
        self.fail_if_stopped();
        want
    }

    /// Waits until the log is longer, or on another fork, or nobody is left who might have a longer one.
    pub fn want_upgrade(&mut self, local: &dyn Local) -> WantId {
        let want = self.desk.wants.add_upgrade(local);
        self.reorganize_if_found();
        self.stirred = true;
        self.fail_if_stopped();
        want
    }

    /// Forgets a want without a word. What was asked of peers for it alone is taken back.
    pub fn cancel(&mut self, want: WantId) {
        self.stirred = true;
        let asked: Vec<(PeerId, u64)> = match self.desk.wants.remove(want) {
            Some(Orphan::Block(block)) => {
                self.desk.blocks.get(&block).map(|asked| asked.holders().collect()).unwrap_or_default()
            }
            Some(Orphan::Seek(asked)) => asked.holders().collect(),
            Some(Orphan::Range) => {
                for peer in self.peers.values_mut() {
                    peer.cursors.remove(&Source::Range(want));
                }
                let wants = &mut self.desk.wants;
                let unwanted: Vec<u64> = wants.retries.iter().copied().filter(|b| !wants.is_downloaded(*b)).collect();
                for block in unwanted {
                    wants.retries.remove(&block);
                }
                let unwanted = |block: &u64| !wants.blocks.contains_key(block) && !wants.is_downloaded(*block);
                let blocks = self.desk.blocks.iter().filter(|(block, _)| unwanted(block));
                blocks.flat_map(|(_, asked)| asked.holders()).collect()
            }
            None => return,
        };
        for (peer, request) in asked {
            self.take_back(peer, request);
        }
    }

    /// How many are looking for peers. While somebody is, and no peer was found yet, waits for a longer log go on.
    pub fn set_finding_peers(&mut self, finders: usize) {
        self.finders = finders;
        self.stirred = true;
    }

    /// Whether the core is interested in more. Losing interest takes effect after a while.
    pub fn set_downloading(&mut self, downloading: bool, local: &dyn Local, now: Duration) {
        if !downloading {
            self.linger = Some(now + LINGER).filter(|_| self.downloading);
            return;
        }
        self.linger = None;
        self.set_downloading_now(true, local);
    }

    /// Whether peers are told that the core is interested in more.
    pub fn is_downloading(&self) -> bool {
        self.downloading
    }

    /// Fails all wants and closes all channels.
    pub fn close(&mut self) {
        self.stop(Error::new(ErrorKind::Closed, "the core is closed"), |_| CloseReason::Closed);
    }

    // -- Driving.

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, local: &dyn Local, now: Duration) -> Option<Action> {
        if let Some(action) = self.desk.actions.pop_front() {
            return Some(action);
        }
        self.look_at_clock(local, now);
        if std::mem::take(&mut self.stirred) {
            self.pick_all(local, now);
            self.settle(local, now);
        }
        self.desk.actions.pop_front()
    }

    /// When to poll again though nothing happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let peers = self.peers.values().flat_map(|peer| {
            let suspicion = peer.suspicion.as_ref().map(|suspicion| suspicion.until);
            [suspicion, peer.refused.until, peer.next_want, peer.next_due()]
        });
        peers.chain([self.linger]).flatten().min()
    }

    /// Lets what is due happen.
    fn look_at_clock(&mut self, local: &dyn Local, now: Duration) {
        if self.linger.is_some_and(|at| at <= now) {
            self.linger = None;
            self.set_downloading_now(false, local);
        }
        let mut guilty = Vec::new();
        let mut upgrade_late = false;
        for (id, peer) in &mut self.peers {
            if let Some(suspicion) = peer.suspicion.take_if(|suspicion| suspicion.until <= now) {
                guilty.push((*id, suspicion.error));
            }
            if peer.refused.until.is_some_and(|at| at <= now) {
                peer.forgive();
                self.stirred = true;
            }
            if peer.next_want.take_if(|at| *at <= now).is_some() {
                self.stirred = true;
            }
            if peer.next_due().is_none_or(|due| due > now) {
                continue;
            }
            self.stirred = true;
            let again = now + self.desk.more_patience();
            for request in peer.requests.values_mut().filter(|request| !request.answered && request.due <= now) {
                request.due = again;
                upgrade_late |= self.desk.is_late(request);
            }
        }
        if upgrade_late {
            self.lower_cursors(0, u64::MAX);
        }
        for (peer, error) in guilty {
            self.cut_off(peer, error);
        }
    }
}

// What follows is how the above is done.
impl Replicator {
    fn on_sync(&mut self, peer: PeerId, sync: Sync, local: &dyn Local) {
        self.stirred = true;
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if it.sync != Some(sync) {
            it.sync = Some(sync);
            it.forgive();
            it.refused.reset_backoff();
        }
        if self.close_if_idle(peer) {
            return;
        }
        // Who is behind us needs to hear that we know how far, before it asks for more.
        if sync.fork == local.head().fork && sync.length < local.head().length() {
            self.say_sync(peer, local);
        }
    }

    fn say_sync(&mut self, peer: PeerId, local: &dyn Local) {
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if let Some(message) = it.next_sync(local, self.downloading) {
            self.desk.actions.push_back(Action::Send { peer, message });
        }
    }

    fn on_told(&mut self, peer: PeerId, start: u64, end: u64) {
        self.stirred = true;
        let wants = &self.desk.wants;
        if let Some(it) = self.peers.get_mut(&peer) {
            it.told(start, end, |want| wants.origin(want));
        }
    }

    fn on_data(&mut self, peer: PeerId, mut data: Box<Data>, local: &dyn Local, now: Duration) {
        self.stirred = true;
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if data.request == 0 {
            return self.on_evidence(peer, data, local);
        }
        let in_flight = it.requests.len();
        let Some(asked) = it.requests.get_mut(&data.request) else {
            // What was taken back may still be answered.
            if data.request >= it.next_id {
                self.cut_off(peer, Error::protocol("the peer answers what it was not asked"));
            }
            return;
        };
        if std::mem::replace(&mut asked.answered, true) {
            return;
        }
        let (id, request, purpose) = (data.request, asked.request, asked.purpose);
        let took = now.saturating_sub(asked.at);
        it.pace.answered(took, in_flight, self.desk.config.in_flight, now);
        if let Some(block) = &data.proof.block {
            self.desk.saw_block(block.value.len() as u64);
        }
        if let Err(error) = check_asked_for(&request, &data) {
            return self.cut_off(peer, error);
        }
        let proof = &mut data.proof;
        if !request.manifest {
            proof.manifest = None;
        }
        if proof.fork != request.fork {
            // It has moved to another fork. The manifest is the same on all.
            let manifest = proof.manifest.take();
            *proof = merkle::Proof { fork: local.head().fork, manifest, ..Default::default() };
        }
        self.refuse_missing(peer, &request, purpose, &data, now);
        let proof = &data.proof;
        if proof.block.is_none() && proof.hash.is_none() && proof.upgrade.is_none() && proof.manifest.is_none() {
            return self.release(peer, id, true);
        }
        match purpose {
            Purpose::Fork if proof.upgrade.is_some() => {
                self.desk.actions.push_back(Action::VerifyFork { peer, data });
            }
            Purpose::Fork if proof.hash.is_some() => {
                self.release(peer, id, false);
                self.on_fork_step(peer, &data, local, now);
            }
            _ => {
                let block = proof.block.as_ref().map(|block| block.index);
                self.commit_in_order(peer, data);
                if let Some(block) = block {
                    self.keep_one_copy(block, peer, id);
                }
            }
        }
    }

    /// Has an answer committed, or held back until that of the request it leans on is.
    fn commit_in_order(&mut self, peer: PeerId, data: Box<Data>) {
        let Some(it) = self.peers.get_mut(&peer) else { return };
        let leans = it.requests.get(&data.request).and_then(|asked| asked.leans);
        if let Some(first) = leans.filter(|first| it.requests.get(first).is_some_and(|first| !first.committing)) {
            it.held.entry(first).or_default().push(data);
            return;
        }
        let id = data.request;
        if let Some(asked) = it.requests.get_mut(&id) {
            asked.committing = true;
        }
        self.desk.actions.push_back(Action::Commit { peer, data });
        self.commit_held(peer, id);
    }

    /// What leaned on request `first` need not wait any longer. It may fall now, and is asked for again then.
    fn commit_held(&mut self, peer: PeerId, first: u64) {
        let mut firsts = vec![first];
        while let Some(first) = firsts.pop() {
            let Some(it) = self.peers.get_mut(&peer) else { return };
            for data in it.held.remove(&first).unwrap_or_default() {
                if let Some(asked) = it.requests.get_mut(&data.request) {
                    asked.committing = true;
                    firsts.push(data.request);
                    self.desk.actions.push_back(Action::Commit { peer, data });
                }
            }
        }
    }

    /// Treats what an answer lacks as refused.
    fn refuse_missing(&mut self, peer: PeerId, request: &Request, purpose: Purpose, data: &Data, now: Duration) {
        let wanted = &request.wanted;
        let proof = &data.proof;
        let Some(it) = self.peers.get_mut(&peer) else { return };
        let mut refused = false;
        if let Some(block) = wanted.block.filter(|_| proof.block.is_none()) {
            it.refuse_block(block.index, now);
            refused = true;
        }
        match purpose {
            Purpose::Fork if proof.upgrade.is_none() && proof.hash.is_none() => {
                it.refused.fork = true;
                refused = true;
            }
            Purpose::Seek(want) if proof.hash.is_none() && proof.upgrade.is_none() => {
                it.refused.seeks.insert(want);
                refused = true;
            }
            _ => {}
        }
        if purpose != Purpose::Fork && wanted.upgrade.is_some() && proof.upgrade.is_none() {
            it.refused.upgrade = true;
            refused = true;
        }
        if request.manifest && proof.manifest.is_none() {
            it.refused.manifest = true;
            refused = true;
        }
        if !refused {
            return;
        }
        it.refused.again(now);
        let block = wanted.block.filter(|_| proof.block.is_none()).map(|block| block.index);
        if let Some(block) = block {
            self.release_block(block, peer, request.id, true);
        }
        if proof.upgrade.is_none() && self.desk.upgrade.remove(peer, request.id) {
            self.lower_cursors(0, u64::MAX);
        }
        if proof.manifest.is_none() {
            self.desk.manifest.remove(peer, request.id);
        }
    }

    fn on_no_data(&mut self, peer: PeerId, request: u64, now: Duration) {
        self.stirred = true;
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if request == 0 {
            if let Some(suspicion) = it.suspicion.take() {
                self.cut_off(peer, suspicion.error);
            }
            return;
        }
        let Some(asked) = it.requests.get_mut(&request).filter(|asked| !asked.answered) else { return };
        let (asked, purpose) = (asked.request, asked.purpose);
        self.refuse_missing(peer, &asked, purpose, &Data::default(), now);
        self.release(peer, request, true);
    }

    /// A proof of the peer's whole tree came, asked for because of a wrong proof, or unasked.
    fn on_evidence(&mut self, peer: PeerId, data: Box<Data>, local: &dyn Local) {
        let Some(it) = self.peers.get_mut(&peer) else { return };
        let whole = data.proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start == 0);
        if whole && data.proof.fork == local.head().fork && !it.checking {
            it.checking = true;
            self.desk.actions.push_back(Action::CheckConflict { peer, data });
        }
    }

    fn on_fork_step(&mut self, peer: PeerId, data: &Data, local: &dyn Local, now: Duration) {
        match self.desk.forks.step(&data.proof, local) {
            Ok(true) => self.reorganize_if_found(),
            Err(error) if is_ours(error.kind()) => self.fail(),
            Err(error) if !does_not_fit(error.kind()) => self.cut_off(peer, error),
            Ok(false) | Err(_) => {
                if let Some(it) = self.peers.get_mut(&peer) {
                    it.refused.fork = true;
                    it.refused.again(now);
                }
            }
        }
    }

    fn reorganize_if_found(&mut self) {
        if !self.desk.wants_upgrade() || self.state != State::Running {
            return;
        }
        if let Some(verified) = self.desk.forks.apply() {
            self.desk.actions.push_back(Action::Reorganize { verified: Box::new(verified) });
        }
    }

    /// A proof of the peer is wrong. It is asked for nothing more, but may show within a while that its log is signed: then the signer
    /// is to blame.
    fn suspect(&mut self, peer: PeerId, error: Error, local: &dyn Local, now: Duration) {
        self.release_all(peer);
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if it.suspicion.is_some() {
            return;
        }
        let head = local.head();
        let length = head.length().min(it.length());
        if length == 0 || it.fork() != head.fork {
            return self.cut_off(peer, error);
        }
        it.suspicion = Some(Suspicion { error, until: now + EVIDENCE_WAIT });
        let message = Message::Request(evidence(head.fork, length));
        self.desk.actions.push_back(Action::Send { peer, message });
    }

    fn stop_for_conflict(&mut self, peer: PeerId, data: Box<Data>, local: &dyn Local) {
        self.desk.actions.push_back(Action::Conflict { peer, data });
        let (fork, length) = (local.head().fork, local.head().length());
        let error = Error::new(ErrorKind::Conflict, "two signed trees of one fork contradict each other");
        self.stop(error, |it| {
            let length = length.min(it.length());
            CloseReason::Conflict { evidence: (length > 0 && it.fork() == fork).then(|| evidence(fork, length)) }
        });
    }

    fn stop(&mut self, error: Error, reason: impl Fn(&Peer) -> CloseReason) {
        if self.state == State::Stopped {
            return;
        }
        self.state = State::Stopped;
        self.desk.wants.fail(&error, &mut self.desk.actions);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            if let Some(gone) = self.forget_peer(peer) {
                self.desk.actions.push_back(Action::Close { peer, reason: reason(&gone) });
            }
        }
        for peer in std::mem::take(&mut self.connecting) {
            self.desk.actions.push_back(Action::Close { peer, reason: CloseReason::Closed });
        }
    }

    fn fail_if_stopped(&mut self) {
        if self.state == State::Stopped {
            let error = Error::new(ErrorKind::Closed, "replication of the core has stopped");
            self.desk.wants.fail(&error, &mut self.desk.actions);
        }
    }

    fn fail(&mut self) {
        if self.state == State::Running {
            self.state = State::Failed;
        }
    }

    fn cut_off(&mut self, peer: PeerId, error: Error) {
        if self.forget_peer(peer).is_some() {
            self.desk.actions.push_back(Action::Close { peer, reason: CloseReason::Misbehaved(error) });
        }
    }

    fn close_if_idle(&mut self, peer: PeerId) -> bool {
        let idle = self.peers.get(&peer).is_some_and(|it| it.sync.is_some_and(|sync| !sync.downloading));
        if !idle || self.downloading || self.forget_peer(peer).is_none() {
            return false;
        }
        self.desk.actions.push_back(Action::Close { peer, reason: CloseReason::Idle });
        true
    }

    fn set_downloading_now(&mut self, downloading: bool, local: &dyn Local) {
        if self.downloading == downloading {
            return;
        }
        self.downloading = downloading;
        self.stirred = true;
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.say_sync(peer, local);
            self.close_if_idle(peer);
        }
    }

    /// Removes all traces of a peer; what was asked of it is to be asked of others.
    fn forget_peer(&mut self, peer: PeerId) -> Option<Peer> {
        self.stirred = true;
        self.release_all(peer);
        let gone = self.peers.remove(&peer)?;
        self.desk.actions.push_back(Action::Peer { peer, joined: false });
        Some(gone)
    }

    fn release_all(&mut self, peer: PeerId) {
        if let Some(it) = self.peers.get_mut(&peer) {
            it.held.clear();
        }
        let requests = self.peers.get(&peer).map(|it| it.requests.keys().copied().collect::<Vec<_>>());
        for request in requests.unwrap_or_default() {
            self.release(peer, request, true);
        }
    }

    /// Settles a request. `again`: what it asked for is still needed.
    fn release(&mut self, peer: PeerId, request: u64, again: bool) {
        let Some(it) = self.peers.get_mut(&peer) else { return };
        let Some(gone) = it.requests.remove(&request) else { return };
        if again {
            it.fell(request);
        }
        it.settled();
        it.bytes -= gone.bytes;
        self.desk.bytes -= gone.bytes;
        self.desk.in_flight -= 1;
        if let Some(block) = gone.request.wanted.block {
            self.release_block(block.index, peer, request, again);
        }
        self.desk.expect_no_more(&gone.request, peer);
        if !gone.committing {
            self.commit_held(peer, request);
        }
        if self.desk.upgrade.remove(peer, request) && again {
            self.lower_cursors(0, u64::MAX);
        }
        self.desk.manifest.remove(peer, request);
        match gone.purpose {
            Purpose::Log => {}
            Purpose::Seek(want) => {
                if let Some(seek) = self.desk.wants.seeks.get_mut(&want) {
                    seek.asked.remove(peer, request);
                }
            }
            Purpose::Fork => self.desk.forks.settled(peer, &gone.request),
        }
    }

    fn release_block(&mut self, block: u64, peer: PeerId, request: u64, again: bool) {
        let Some(asked) = self.desk.blocks.get_mut(&block) else { return };
        if !asked.remove(peer, request) || !asked.by.is_empty() {
            return;
        }
        self.desk.blocks.remove(&block);
        self.desk.late.remove(&block);
        if !again {
            return;
        }
        if let Some(source) = self.desk.wants.requeue(block) {
            self.lower_queue_cursors(source, block);
        }
    }

    /// An answer for a block is here: nobody else needs to send it.
    fn keep_one_copy(&mut self, block: u64, peer: PeerId, request: u64) {
        let Some(asked) = self.desk.blocks.get_mut(&block) else { return };
        asked.answered = true;
        self.desk.late.remove(&block);
        let others: Vec<_> = asked.holders().filter(|holder| *holder != (peer, request)).collect();
        for (peer, request) in others {
            self.take_back(peer, request);
        }
    }

    /// Cancels a request, unless it asks for more than a block or the place of a byte, or is answered already.
    fn take_back(&mut self, peer: PeerId, request: u64) {
        let Some(asked) = self.peers.get(&peer).and_then(|it| it.requests.get(&request)) else { return };
        if asked.answered || asked.request.wanted.upgrade.is_some() || asked.request.manifest {
            return;
        }
        if let Some(it) = self.peers.get_mut(&peer) {
            it.fell(request);
        }
        self.release(peer, request, false);
        self.desk.actions.push_back(Action::Send { peer, message: Message::Cancel(request) });
    }

    fn on_have(&mut self, range: Span<u64>) {
        self.desk.wants.have(range.clone(), &mut self.desk.actions);
        let holders = self.desk.blocks.range(range).flat_map(|(_, asked)| asked.holders());
        let asked: Vec<_> = holders.collect();
        for (peer, request) in asked {
            self.take_back(peer, request);
        }
    }

    /// Tells peers which blocks are here now, or no more.
    fn broadcast(&mut self, change: &Change, local: &dyn Local) {
        let complete = !change.have.is_empty() && local.contiguous_length() == local.head().length();
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            if let Some(dropped) = &change.dropped {
                self.announce(peer, dropped.start, dropped.end, true, local);
            }
            if complete && !self.peers[&peer].told_all {
                self.announce_all(peer, true, local);
                continue;
            }
            for range in &change.have {
                self.announce(peer, range.start, range.end, false, local);
            }
        }
    }

    fn announce_all(&mut self, peer: PeerId, complete: bool, local: &dyn Local) {
        let contiguous = local.contiguous_length();
        if let Some(it) = self.peers.get_mut(&peer) {
            it.told_all |= complete && contiguous > 0;
        }
        self.announce(peer, 0, contiguous, false, local);
    }

    fn announce(&mut self, peer: PeerId, start: u64, end: u64, drop: bool, local: &dyn Local) {
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if let Some(message) = it.announce(start, end, drop, local.head().fork) {
            self.desk.actions.push_back(Action::Send { peer, message });
        }
    }

    fn settle_seeks(&mut self, local: &dyn Local) {
        let asked = self.desk.wants.settle_seeks(local, &mut self.desk.actions);
        let holders: Vec<_> = asked.iter().flat_map(|asked| asked.holders()).collect();
        for (peer, request) in holders {
            self.take_back(peer, request);
        }
    }

    fn lower_cursors(&mut self, start: u64, end: u64) {
        let wants = &self.desk.wants;
        for peer in self.peers.values_mut() {
            peer.lower_cursors(start, end, |want| wants.origin(want));
        }
    }

    fn lower_queue_cursors(&mut self, source: Source, at: u64) {
        for peer in self.peers.values_mut() {
            peer.lower_cursor(source, at);
        }
    }

    /// Sends requests to all peers that have room, in turns.
    fn pick_all(&mut self, local: &dyn Local, now: Duration) {
        if self.state != State::Running {
            return;
        }
        let company = self
            .peers
            .values()
            .any(|peer| peer.sync.is_some_and(|sync| sync.downloading) && peer.remote.contiguous() < peer.length());
        self.desk.fastest = self.peers.values().filter_map(|peer| peer.pace.answer).min();
        let view = View { local, now, company };
        self.turn = self.turn.wrapping_add(1);
        let mut order: Vec<PeerId> = self.peers.keys().copied().collect();
        if !order.is_empty() {
            let first = self.turn % order.len();
            order.rotate_left(first);
        }
        // Whoever has nothing more to ask for is not looked at again.
        while !order.is_empty() {
            order.retain(|id| {
                let Some(peer) = self.peers.get_mut(id) else { return false };
                (0..TURN).all(|_| self.desk.pick(*id, peer, view))
            });
        }
    }

    /// Ends waits that nothing more will come of.
    fn settle(&mut self, local: &dyn Local, now: Duration) {
        if !self.connecting.is_empty() && self.peers.len() < PEERS_FOR_UPGRADE {
            return;
        }
        if self.no_upgrade_to_come(local, now) {
            self.desk.wants.settle_upgrades(false, &mut self.desk.actions);
        }
        let idle = self.desk.in_flight == 0 && self.peers.values().all(|peer| peer.sync.is_some());
        if self.connecting.is_empty() && idle && !self.desk.forks.is_busy() {
            self.desk.wants.settle_available(&mut self.desk.actions);
        }
    }

    fn no_upgrade_to_come(&self, local: &dyn Local, now: Duration) -> bool {
        if self.desk.wants.upgrades.is_empty() || (!self.had_peers && self.finders > 0) {
            return false;
        }
        let head = local.head();
        let hopeful = self.peers.values().take(PEERS_FOR_UPGRADE).any(|peer| {
            let Some(sync) = peer.sync else { return true };
            if peer.refused.upgrade || peer.refused.fork || !peer.is_active() {
                return false;
            }
            let ahead = sync.fork > head.fork || (sync.fork == head.fork && sync.length > head.length());
            ahead && (sync.can_upgrade || sync.fork > head.fork || sync.remote_length != head.length())
        });
        let fresh = self
            .peers
            .values()
            .flat_map(|peer| peer.requests.values())
            .any(|asked| asked.request.wanted.upgrade.is_some() && now.saturating_sub(asked.at) < STALLED);
        !hopeful && !fresh && !self.desk.forks.is_applying()
    }
}

/// The request for a proof of a whole tree, which tells whether two logs contradict each other.
fn evidence(fork: u64, length: u64) -> Request {
    let upgrade = Some(UpgradeRequest { start: 0, length });
    Request { id: 0, fork, wanted: merkle::Request { upgrade, ..Default::default() }, ..Default::default() }
}

/// An answer may have less than was asked for, but nothing else.
fn check_asked_for(request: &Request, data: &Data) -> Result<()> {
    let (wanted, proof) = (&request.wanted, &data.proof);
    let block = proof.block.as_ref().is_none_or(|it| wanted.block.is_some_and(|asked| asked.index == it.index));
    let hash = proof.hash.as_ref().is_none_or(|it| wanted.hash.is_some_and(|asked| asked.index == it.index.0));
    let seek = proof.seek.as_ref().is_none_or(|it| wanted.seek.is_some_and(|asked| asked.bytes == it.bytes));
    let upgrade = proof.upgrade.is_none() || wanted.upgrade.is_some();
    if block && hash && seek && upgrade {
        return Ok(());
    }
    Err(Error::protocol("the peer answers with something else than it was asked for"))
}
