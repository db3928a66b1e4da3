//! The machine: what comes in, what became of what went out, what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desk::{Desk, View};
use super::message::{Handshake, Message};
use super::peer::{Peer, Source};
use super::pick::TURN;
use super::wants::{Orphan, RangeWant};
use super::{Action, CloseReason, Config, Download, Local, PeerId, PeerInfo, Serve, WantId};
use crate::codec::MAX_SAFE_INTEGER;
use crate::{Error, ErrorKind};

/// While more are connecting, "nobody has more" is not said before so many peers were heard.
const PEERS_FOR_UPGRADE: usize = 3;

/// For how long a peer that has not answered, or does not say what it would have to, keeps a wait for a longer head open.
const HOPE: Duration = Duration::from_secs(20);

/// The replication of one core with all its peers.
pub struct Replicator {
    pub(super) peers: BTreeMap<PeerId, Peer>,
    connecting: BTreeSet<PeerId>,
    pub(super) desk: Desk,
    /// Who may be asked for more since requests were last picked.
    stirred: Stirred,
    /// Whose turn it is first.
    turn: usize,
    had_peers: bool,
    finders: usize,
    pub(super) downloading: bool,
    /// When `downloading` ends.
    pub(super) linger: Option<Duration>,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Running,
    /// The core cannot store: nothing is asked for.
    Failed,
    /// There is a conflict, or the core was closed.
    Stopped,
}

#[derive(Default, Debug)]
struct Stirred {
    /// Whether anything happened at all.
    any: bool,
    /// Whether it concerns everybody.
    all: bool,
    peers: BTreeSet<PeerId>,
}

impl Replicator {
    /// A machine without peers, of a core that is interested in more.
    pub fn new(config: Config) -> Self {
        Replicator {
            peers: BTreeMap::new(),
            connecting: BTreeSet::new(),
            desk: Desk::new(config),
            stirred: Stirred::default(),
            turn: 0,
            had_peers: false,
            finders: 0,
            downloading: true,
            linger: None,
            state: State::Running,
        }
    }

    /// A channel is being opened; as long as one is, nothing is said to be not available.
    pub fn connecting(&mut self, peer: PeerId) {
        self.connecting.insert(peer);
    }

    /// Both sides have opened the channel, and the capability in the handshake was found right.
    pub fn opened(&mut self, peer: PeerId, handshake: &Handshake, local: &dyn Local, now: Duration) {
        self.connecting.remove(&peer);
        if self.state == State::Stopped {
            self.desk.actions.push_back(Action::Close { peer, reason: CloseReason::Closed });
            return;
        }
        let mut it = Peer::new(handshake.seeks, self.desk.config.in_flight.0);
        it.hope = Some(now + HOPE);
        self.peers.insert(peer, it);
        self.had_peers = true;
        self.stir_all();
        self.desk.actions.push_back(Action::Peer { peer, joined: true });
        self.say_sync(peer, local);
        self.announce_all(peer, local);
    }

    /// The channel is gone, or could not be opened. True if the other side closed it for want of interest and it should be opened again,
    /// as another peer.
    pub fn closed(&mut self, peer: PeerId) -> bool {
        self.connecting.remove(&peer);
        self.stir_all();
        let Some(gone) = self.forget_peer(peer) else { return false };
        let said = gone.sync.unwrap_or_default();
        self.state == State::Running && self.downloading && said.uploading && !said.downloading
    }

    /// Takes in a message of a peer. Of breaches of the protocol comes an [`Action::Close`].
    pub fn handle(&mut self, peer: PeerId, message: Message, local: &dyn Local, now: Duration) {
        let Some(it) = self.peers.get_mut(&peer) else { return };
        match message {
            Message::Sync(sync) => {
                let before = it.sync.unwrap_or_default();
                if it.heard(sync) {
                    it.hope = Some(now + HOPE);
                    // What it has more, and what a longer head of it leads to.
                    let same_fork = before.fork == sync.fork;
                    let mut from = if same_fork { before.length.min(local.head().length()) } else { 0 };
                    // A longer head of it may prove blocks that the one before could not.
                    from =
                        std::mem::take(&mut it.unknown_roots).first().map_or(from, |root| from.min(root.first_block()));
                    self.on_told(peer, from, u64::MAX);
                }
                self.on_sync(peer, local);
            }
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
                let end = bitfield.start.saturating_add(bitfield.words.len() as u64 * 32);
                it.refused.forget(bitfield.start, end);
                it.telling = None;
                it.remote.replace(bitfield.start, &bitfield.words);
                self.on_told(peer, bitfield.start, end);
            }
            Message::Range(range) => {
                let end = range.start.saturating_add(range.length).min(MAX_SAFE_INTEGER);
                it.refused.forget(range.start, end);
                if it.telling.take().is_some() {
                    self.stirred.any = true;
                }
                if range.drop {
                    it.remote.remove(range.start, end);
                } else if it.remote.next_unset(range.start) < end {
                    it.remote.insert(range.start, end);
                    self.on_told(peer, range.start, end);
                }
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

    /// Whether nothing is asked for any more because the core could not store it.
    pub fn has_failed(&self) -> bool {
        self.state == State::Failed
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

    /// Waits for block `index`. Where it is in the log already and the log is then cut below it, the wait fails.
    pub fn want_block(&mut self, index: u64, local: &dyn Local) -> WantId {
        let want = self.desk.wants.add_block(index, index < local.head().length());
        if local.has(index) {
            self.desk.wants.have(index..index + 1, local, &mut self.desk.actions);
        } else if !self.desk.blocks.contains_key(&index) {
            self.desk.wants.gets.insert(index);
            self.lower_queue_cursors(Source::Gets, index);
        }
        self.stir_all();
        self.fail_if_stopped();
        want
    }

    /// Waits until all of `what` is here. `linear`: in its order, as far as possible. `if_available`: it is also over when nobody has any
    /// more of it.
    pub fn want_range(&mut self, what: Download, linear: bool, if_available: bool, local: &dyn Local) -> WantId {
        let range = RangeWant::new(what, linear, if_available);
        let want = self.desk.wants.add_range(range, local, &mut self.desk.actions);
        self.stir_all();
        self.fail_if_stopped();
        want
    }

    /// Waits until it is known which block holds byte `bytes`, without the `padding` bytes at the start of each block.
    pub fn want_seek(&mut self, bytes: u64, padding: u64, local: &dyn Local) -> WantId {
        let want = self.desk.wants.add_seek(bytes, padding);
        self.settle_seeks(local);
        self.stir_all();
        self.fail_if_stopped();
        want
    }

    /// Waits until the log is longer, or on another fork, or nobody is left who might have a longer one.
    pub fn want_upgrade(&mut self, local: &dyn Local) -> WantId {
        let want = self.desk.wants.add_upgrade(local);
        self.reorganize_if_found();
        self.stir_all();
        self.fail_if_stopped();
        want
    }

    /// Forgets a want without a word. What was asked of peers for it alone is taken back.
    pub fn cancel(&mut self, want: WantId) {
        self.stir_all();
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
        self.stir_all();
    }

    /// Fails all wants and closes all channels.
    pub fn close(&mut self) {
        self.stop(Error::new(ErrorKind::Closed, "the core is closed"), |_| CloseReason::Closed);
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, local: &dyn Local, now: Duration) -> Option<Action> {
        if let Some(action) = self.desk.actions.pop_front() {
            return Some(action);
        }
        self.look_at_clock(local, now);
        let stirred = std::mem::take(&mut self.stirred);
        if stirred.any {
            self.pick_for(stirred, local, now);
            self.settle(local, now);
        }
        self.desk.actions.pop_front()
    }

    /// When to poll again though nothing happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let hopes = self.desk.wants.hope();
        let peers = self.peers.values().flat_map(|peer| {
            let suspicion = peer.suspicion.as_ref().map(|suspicion| suspicion.until);
            let (hope, telling) = if hopes { (peer.hope, peer.telling) } else { (None, None) };
            [suspicion, peer.refused.until, peer.next_want, peer.next_due(), hope, telling]
        });
        peers.chain([self.linger]).flatten().min()
    }
}

// What follows is how the above is done.
impl Replicator {
    /// Lets what is due happen.
    pub(super) fn look_at_clock(&mut self, local: &dyn Local, now: Duration) {
        if self.linger.is_some_and(|at| at <= now) {
            self.linger = None;
            self.set_downloading_now(false, local);
        }
        let mut guilty = Vec::new();
        let mut upgrade_late = false;
        let mut stirred = false;
        for (id, peer) in &mut self.peers {
            if let Some(suspicion) = peer.suspicion.take_if(|suspicion| suspicion.until <= now) {
                guilty.push((*id, suspicion.error));
            }
            if peer.refused.until.is_some_and(|at| at <= now) {
                peer.forgive();
                stirred = true;
            }
            stirred |= peer.next_want.take_if(|at| *at <= now).is_some();
            stirred |= peer.hope.take_if(|at| *at <= now).is_some();
            stirred |= peer.telling.take_if(|at| *at <= now).is_some();
            if peer.next_due().is_none_or(|due| due > now) {
                continue;
            }
            for (request, purpose) in peer.overdue(now, now + self.desk.more_patience()) {
                stirred = true;
                upgrade_late |= self.desk.is_late(&request, purpose);
            }
        }
        if stirred {
            self.stir_all();
        }
        if upgrade_late {
            self.lower_cursors(0, u64::MAX);
        }
        for (peer, error) in guilty {
            self.cut_off(peer, error);
        }
    }

    pub(super) fn stop(&mut self, error: Error, reason: impl Fn(&Peer) -> CloseReason) {
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

    pub(super) fn fail_if_stopped(&mut self) {
        if self.state == State::Stopped {
            let error = Error::new(ErrorKind::Closed, "replication of the core has stopped");
            self.desk.wants.fail(&error, &mut self.desk.actions);
        }
    }

    pub(super) fn cut_off(&mut self, peer: PeerId, error: Error) {
        if self.forget_peer(peer).is_some() {
            self.desk.actions.push_back(Action::Close { peer, reason: CloseReason::Misbehaved(error) });
        }
    }

    /// Removes all traces of a peer; what was asked of it is to be asked of others.
    pub(super) fn forget_peer(&mut self, peer: PeerId) -> Option<Peer> {
        self.stir_all();
        self.release_all(peer);
        let gone = self.peers.remove(&peer)?;
        self.desk.actions.push_back(Action::Peer { peer, joined: false });
        Some(gone)
    }

    pub(super) fn settle_seeks(&mut self, local: &dyn Local) {
        let asked = self.desk.wants.settle_seeks(local, &mut self.desk.actions);
        let holders: Vec<_> = asked.iter().flat_map(|asked| asked.holders()).collect();
        for (peer, request) in holders {
            self.take_back(peer, request);
        }
    }

    pub(super) fn lower_cursors(&mut self, start: u64, end: u64) {
        let wants = &self.desk.wants;
        for peer in self.peers.values_mut() {
            peer.lower_cursors(start, end, |want| wants.origin(want));
        }
    }

    pub(super) fn lower_queue_cursors(&mut self, source: Source, at: u64) {
        for peer in self.peers.values_mut() {
            peer.lower_cursor(source, at);
        }
    }

    /// Something happened that may let `peer` be asked for more.
    pub(super) fn stir(&mut self, peer: PeerId) {
        self.stirred.any = true;
        self.stirred.peers.insert(peer);
    }

    /// Something happened that may let anybody be asked for more.
    pub(super) fn stir_all(&mut self) {
        self.stirred.any = true;
        self.stirred.all = true;
    }

    /// Something happened that may end a wait.
    pub(super) fn stir_waits(&mut self) {
        self.stirred.any = true;
    }

    /// Sends requests to those peers that have room, in turns.
    fn pick_for(&mut self, stirred: Stirred, local: &dyn Local, now: Duration) {
        if self.state != State::Running {
            return;
        }
        let company = self
            .peers
            .values()
            .any(|peer| peer.sync.is_some_and(|sync| sync.downloading) && peer.remote.contiguous() < peer.length());
        self.desk.fastest = self.peers.values().filter_map(|peer| peer.pace.answer).min();
        let view = View { local, now, company };
        let mut order: Vec<PeerId> = match stirred.all {
            true => self.peers.keys().copied().collect(),
            false => stirred.peers.into_iter().collect(),
        };
        self.turn = self.turn.wrapping_add(1);
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
    pub(super) fn settle(&mut self, local: &dyn Local, now: Duration) {
        if !self.connecting.is_empty() && self.peers.len() < PEERS_FOR_UPGRADE {
            return;
        }
        if self.no_upgrade_to_come(local, now) {
            self.desk.wants.settle_upgrades(false, &mut self.desk.actions);
        }
        let heard = self.peers.values().all(|peer| peer.sync.is_some() || peer.hope.is_none());
        let told = self.peers.values().all(|peer| peer.telling.is_none());
        let idle = heard && told && self.desk.in_flight == 0;
        if self.connecting.is_empty() && idle && !self.desk.forks.is_busy() {
            self.desk.wants.settle_available(&mut self.desk.actions);
        }
    }

    pub(super) fn no_upgrade_to_come(&self, local: &dyn Local, now: Duration) -> bool {
        if self.desk.wants.upgrades.is_empty() || (!self.had_peers && self.finders > 0) {
            return false;
        }
        let head = local.head();
        let hopeful = self.peers.values().take(PEERS_FOR_UPGRADE).any(|peer| {
            let refuses = peer.refused.upgrade || peer.refused.fork || peer.suspicion.is_some();
            if peer.hope.is_none() || refuses {
                return false;
            }
            let Some(sync) = peer.sync else { return true };
            let same_fork = sync.fork == head.fork && sync.length > head.length();
            let hopeful = same_fork && (sync.can_upgrade || sync.remote_length != head.length());
            sync.uploading && (hopeful || sync.fork > head.fork)
        });
        let fresh = self
            .peers
            .values()
            .flat_map(|peer| peer.requests.values())
            .any(|asked| asked.request.wanted.upgrade.is_some() && now.saturating_sub(asked.at) < HOPE);
        !hopeful && !fresh && !self.desk.forks.is_applying()
    }
}
