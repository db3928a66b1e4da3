//! The machine: what comes in, what became of what went out, what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, CloseReason, Serve};
use super::cursor::Source;
use super::downloads::{Orphan, RangeDownload};
use super::id::{PeerId, WaiterId};
use super::local::Local;
use super::message::{Handshake, Message};
use super::peer::{PeerInfo, RemotePeer};
use super::picker::TURN;
use super::scheduler::{Config, Context, Scheduler};
use crate::codec::MAX_SAFE_INTEGER;
use crate::download::Download;
use crate::{Error, ErrorKind};

/// While more are connecting, "nobody has more" is not said before so many peers were heard.
const PEERS_FOR_UPGRADE: usize = 3;

/// For how long a peer that has not answered, or does not say what it would have to, keeps a wait for a longer head open.
const SYNC_TIMEOUT: Duration = Duration::from_secs(20);

/// The replication of one core with all its peers.
pub struct Replicator {
    pub(super) peers: BTreeMap<PeerId, RemotePeer>,
    connecting: BTreeSet<PeerId>,
    pub(super) scheduler: Scheduler,
    /// Who may be asked for more since requests were last picked.
    dirty: Dirty,
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
struct Dirty {
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
            scheduler: Scheduler::new(config),
            dirty: Dirty::default(),
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
            self.scheduler.actions.push_back(Action::Close { peer, reason: CloseReason::Closed });
            return;
        }
        let mut it = RemotePeer::new(handshake.seeks, self.scheduler.config.in_flight.0);
        it.sync_deadline = Some(now + SYNC_TIMEOUT);
        self.peers.insert(peer, it);
        self.had_peers = true;
        self.mark_all_dirty();
        self.scheduler.actions.push_back(Action::Peer { peer, joined: true });
        self.say_sync(peer, local);
        self.announce_all(peer, local);
    }

    /// The channel is gone, or could not be opened. True if the other side closed it for want of interest and it should be opened again,
    /// as another peer.
    pub fn closed(&mut self, peer: PeerId) -> bool {
        self.connecting.remove(&peer);
        self.mark_all_dirty();
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
                    it.sync_deadline = Some(now + SYNC_TIMEOUT);
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
                Ok(true) => self.scheduler.actions.push_back(Action::Serve { peer }),
                Ok(false) => {}
                Err(error) => self.cut_off(peer, error),
            },
            Message::Cancel(request) => it.inbox.cancel(request),
            Message::Data(data) => self.on_data(peer, data, local, now),
            Message::NoData(request) => self.on_no_data(peer, request, now),
            Message::Want(span) => {
                if it.inbox.want(span) {
                    self.scheduler.actions.push_back(Action::Serve { peer });
                }
            }
            // Nothing is remembered of wants that could be taken back.
            Message::Unwant(_) => {}
            Message::Bitfield(bitfield) => {
                let end = bitfield.start.saturating_add(bitfield.words.len() as u64 * 32);
                it.refused.forget(bitfield.start, end);
                it.bitfield_deadline = None;
                it.remote.replace(bitfield.start, &bitfield.words);
                self.on_told(peer, bitfield.start, end);
            }
            Message::Range(range) => {
                let end = range.start.saturating_add(range.length).min(MAX_SAFE_INTEGER);
                it.refused.forget(range.start, end);
                if it.bitfield_deadline.take().is_some() {
                    self.dirty.any = true;
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
                    self.scheduler.actions.push_back(Action::Extension { peer, name, message: extension.message });
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
            self.scheduler.actions.push_back(Action::Send { peer, message });
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
    pub fn wait_for_block(&mut self, index: u64, local: &dyn Local) -> WaiterId {
        let want = self.scheduler.downloads.add_block(index, index < local.head().length());
        if local.has(index) {
            self.scheduler.downloads.have(index..index + 1, local, &mut self.scheduler.actions);
        } else if !self.scheduler.blocks.contains_key(&index) {
            self.scheduler.downloads.gets.insert(index);
            self.lower_queue_cursors(Source::Gets, index);
        }
        self.mark_all_dirty();
        self.fail_if_stopped();
        want
    }

    /// Waits until all of `what` is stored or, for [`Download::if_available`], until no peer has more of it.
    pub fn download(&mut self, what: Arc<Download>, local: &dyn Local) -> WaiterId {
        let range = RangeDownload::new(what);
        let want = self.scheduler.downloads.add_range(range, local, &mut self.scheduler.actions);
        self.mark_all_dirty();
        self.fail_if_stopped();
        want
    }

    /// Waits until it is known which block holds byte `bytes`, without the `padding` bytes at the start of each block.
    pub fn wait_for_seek(&mut self, bytes: u64, padding: u64, local: &dyn Local) -> WaiterId {
        let want = self.scheduler.downloads.add_seek(bytes, padding);
        self.settle_seeks(local);
        self.mark_all_dirty();
        self.fail_if_stopped();
        want
    }

    /// Waits until the log is longer, or on another fork, or nobody is left who might have a longer one.
    pub fn wait_for_upgrade(&mut self, local: &dyn Local) -> WaiterId {
        let want = self.scheduler.downloads.add_upgrade(local);
        self.reorganize_if_found();
        self.mark_all_dirty();
        self.fail_if_stopped();
        want
    }

    /// Forgets a want without a word. What was asked of peers for it alone is taken back.
    pub fn cancel(&mut self, want: WaiterId) {
        self.mark_all_dirty();
        let asked: Vec<(PeerId, u64)> = match self.scheduler.downloads.remove(want) {
            Some(Orphan::Block(block)) => {
                self.scheduler.blocks.get(&block).map(|asked| asked.holders().collect()).unwrap_or_default()
            }
            Some(Orphan::Seek(asked)) => asked.holders().collect(),
            Some(Orphan::Range) => {
                for peer in self.peers.values_mut() {
                    peer.cursors.remove(&Source::Range(want));
                }
                let downloads = &mut self.scheduler.downloads;
                let unwanted: Vec<u64> =
                    downloads.retries.iter().copied().filter(|b| !downloads.is_downloaded(*b)).collect();
                for block in unwanted {
                    downloads.retries.remove(&block);
                }
                let unwanted = |block: &u64| !downloads.blocks.contains_key(block) && !downloads.is_downloaded(*block);
                let blocks = self.scheduler.blocks.iter().filter(|(block, _)| unwanted(block));
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
        self.mark_all_dirty();
    }

    /// Fails all wants and closes all channels.
    pub fn close(&mut self) {
        self.stop(Error::new(ErrorKind::Closed, "the core is closed"), |_| CloseReason::Closed);
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, local: &dyn Local, now: Duration) -> Option<Action> {
        if let Some(action) = self.scheduler.actions.pop_front() {
            return Some(action);
        }
        self.look_at_clock(local, now);
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.any {
            self.pick_for(dirty, local, now);
            self.settle(local, now);
        }
        self.scheduler.actions.pop_front()
    }

    /// When to poll again though nothing happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let awaiting = self.scheduler.downloads.await_peers();
        let peers = self.peers.values().flat_map(|peer| {
            let suspicion = peer.suspicion.as_ref().map(|suspicion| suspicion.until);
            let (sync, bitfield) = if awaiting { (peer.sync_deadline, peer.bitfield_deadline) } else { (None, None) };
            [suspicion, peer.refused.until, peer.next_want, peer.next_due(), sync, bitfield]
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
        let mut dirty = false;
        for (id, peer) in &mut self.peers {
            if let Some(suspicion) = peer.suspicion.take_if(|suspicion| suspicion.until <= now) {
                guilty.push((*id, suspicion.error));
            }
            if peer.refused.until.is_some_and(|at| at <= now) {
                peer.forgive();
                dirty = true;
            }
            dirty |= peer.next_want.take_if(|at| *at <= now).is_some();
            dirty |= peer.sync_deadline.take_if(|at| *at <= now).is_some();
            dirty |= peer.bitfield_deadline.take_if(|at| *at <= now).is_some();
            if peer.next_due().is_none_or(|due| due > now) {
                continue;
            }
            for (request, purpose) in peer.overdue(now, now + self.scheduler.more_patience()) {
                dirty = true;
                upgrade_late |= self.scheduler.is_late(&request, purpose);
            }
        }
        if dirty {
            self.mark_all_dirty();
        }
        if upgrade_late {
            self.lower_cursors(0, u64::MAX);
        }
        for (peer, error) in guilty {
            self.cut_off(peer, error);
        }
    }

    pub(super) fn stop(&mut self, error: Error, reason: impl Fn(&RemotePeer) -> CloseReason) {
        if self.state == State::Stopped {
            return;
        }
        self.state = State::Stopped;
        self.scheduler.downloads.fail(&error, &mut self.scheduler.actions);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            if let Some(gone) = self.forget_peer(peer) {
                self.scheduler.actions.push_back(Action::Close { peer, reason: reason(&gone) });
            }
        }
        for peer in std::mem::take(&mut self.connecting) {
            self.scheduler.actions.push_back(Action::Close { peer, reason: CloseReason::Closed });
        }
    }

    pub(super) fn fail_if_stopped(&mut self) {
        if self.state == State::Stopped {
            let error = Error::new(ErrorKind::Closed, "replication of the core has stopped");
            self.scheduler.downloads.fail(&error, &mut self.scheduler.actions);
        }
    }

    pub(super) fn cut_off(&mut self, peer: PeerId, error: Error) {
        if self.forget_peer(peer).is_some() {
            self.scheduler.actions.push_back(Action::Close { peer, reason: CloseReason::Misbehaved(error) });
        }
    }

    /// Removes all traces of a peer; what was asked of it is to be asked of others.
    pub(super) fn forget_peer(&mut self, peer: PeerId) -> Option<RemotePeer> {
        self.mark_all_dirty();
        self.release_all(peer);
        let gone = self.peers.remove(&peer)?;
        self.scheduler.actions.push_back(Action::Peer { peer, joined: false });
        Some(gone)
    }

    pub(super) fn settle_seeks(&mut self, local: &dyn Local) {
        let asked = self.scheduler.downloads.settle_seeks(local, &mut self.scheduler.actions);
        let holders: Vec<_> = asked.iter().flat_map(|asked| asked.holders()).collect();
        for (peer, request) in holders {
            self.take_back(peer, request);
        }
    }

    pub(super) fn lower_cursors(&mut self, start: u64, end: u64) {
        let downloads = &self.scheduler.downloads;
        for peer in self.peers.values_mut() {
            peer.lower_cursors(start, end, |want| downloads.origin(want));
        }
    }

    pub(super) fn lower_queue_cursors(&mut self, source: Source, at: u64) {
        for peer in self.peers.values_mut() {
            peer.lower_cursor(source, at);
        }
    }

    /// Something happened that may let `peer` be asked for more.
    pub(super) fn mark_dirty(&mut self, peer: PeerId) {
        self.dirty.any = true;
        self.dirty.peers.insert(peer);
    }

    /// Something happened that may let anybody be asked for more.
    pub(super) fn mark_all_dirty(&mut self) {
        self.dirty.any = true;
        self.dirty.all = true;
    }

    /// Something happened that may end a wait.
    pub(super) fn mark_waits_dirty(&mut self) {
        self.dirty.any = true;
    }

    /// Sends requests to those peers that have room, in turns.
    fn pick_for(&mut self, dirty: Dirty, local: &dyn Local, now: Duration) {
        if self.state != State::Running {
            return;
        }
        let company = self
            .peers
            .values()
            .any(|peer| peer.sync.is_some_and(|sync| sync.downloading) && peer.remote.contiguous() < peer.length());
        self.scheduler.fastest = self.peers.values().filter_map(|peer| peer.window.answer).min();
        let view = Context { local, now, company };
        let mut order: Vec<PeerId> = match dirty.all {
            true => self.peers.keys().copied().collect(),
            false => dirty.peers.into_iter().collect(),
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
                (0..TURN).all(|_| self.scheduler.pick(*id, peer, view))
            });
        }
    }

    /// Ends waits that nothing more will come of.
    pub(super) fn settle(&mut self, local: &dyn Local, now: Duration) {
        if !self.connecting.is_empty() && self.peers.len() < PEERS_FOR_UPGRADE {
            return;
        }
        if self.no_upgrade_to_come(local, now) {
            self.scheduler.downloads.settle_upgrades(false, &mut self.scheduler.actions);
        }
        let heard = self.peers.values().all(|peer| peer.sync.is_some() || peer.sync_deadline.is_none());
        let told = self.peers.values().all(|peer| peer.bitfield_deadline.is_none());
        let idle = heard && told && self.scheduler.in_flight == 0;
        if self.connecting.is_empty() && idle && !self.scheduler.forks.is_busy() {
            self.scheduler.downloads.settle_available(&mut self.scheduler.actions);
        }
    }

    pub(super) fn no_upgrade_to_come(&self, local: &dyn Local, now: Duration) -> bool {
        if self.scheduler.downloads.upgrades.is_empty() || (!self.had_peers && self.finders > 0) {
            return false;
        }
        let head = local.head();
        let promising = self.peers.values().take(PEERS_FOR_UPGRADE).any(|peer| {
            let refuses = peer.refused.upgrade || peer.refused.fork || peer.suspicion.is_some();
            if peer.sync_deadline.is_none() || refuses {
                return false;
            }
            let Some(sync) = peer.sync else { return true };
            let same_fork = sync.fork == head.fork && sync.length > head.length();
            let promising = same_fork && (sync.can_upgrade || sync.remote_length != head.length());
            sync.uploading && (promising || sync.fork > head.fork)
        });
        let fresh = self
            .peers
            .values()
            .flat_map(|peer| peer.requests.values())
            .any(|asked| asked.request.wanted.upgrade.is_some() && now.saturating_sub(asked.at) < SYNC_TIMEOUT);
        !promising && !fresh && !self.scheduler.forks.is_applying()
    }
}
