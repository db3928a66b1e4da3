//! The replicator's entry points: messages and channels of peers, waiters of callers, polling; and its timeouts.
//!
//! The functions with the outcomes of actions are in `responses`, those with changes of the core in `announce`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, CloseReason, Response};
use super::cursor::BlockQueue;
use super::downloads::{ActiveDownload, Unwanted};
use super::id::{PeerId, WaiterId};
use super::local::Local;
use super::message::{Handshake, Message};
use super::peer::{PeerInfo, RemotePeer};
use super::requests::{Config, Requests};
use crate::download::Download;
use crate::{Error, ErrorKind};

/// While channels are opening, a wait that no joined peer can satisfy ends only once this many peers have joined. An
/// update considers at most this many peers.
const PEERS_FOR_UPGRADE: usize = 3;

/// How long an update waits for a peer's first `Sync`, for the longer log that a `Sync` promised, and for the answer
/// to a request for a longer head.
pub(super) const SYNC_TIMEOUT: Duration = Duration::from_secs(20);

/// The replication of one core with all its peers.
pub struct Replicator {
    pub(super) peers: BTreeMap<PeerId, RemotePeer>,
    connecting: BTreeSet<PeerId>,
    pub(super) requests: Requests,
    /// The peers that may be sent more requests since requests were last picked.
    dirty: DirtyPeers,
    had_peers: bool,
    finding_peers: usize,
    pub(super) downloading: bool,
    /// When `downloading` becomes false, after the core lost interest.
    pub(super) stop_downloading_at: Option<Duration>,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Running,
    /// The core cannot store: nothing is requested.
    Failed,
    /// The core has a conflict or was closed.
    Stopped,
}

#[derive(Default, Debug)]
struct DirtyPeers {
    /// Whether anything happened, so that waits may end.
    any: bool,
    /// Whether all peers are concerned, not only `peers`.
    all: bool,
    peers: BTreeSet<PeerId>,
}

impl Replicator {
    /// A replicator without peers, of a core that is interested in more blocks.
    pub fn new(config: Config) -> Self {
        Replicator {
            peers: BTreeMap::new(),
            connecting: BTreeSet::new(),
            requests: Requests::new(config),
            dirty: DirtyPeers::default(),
            had_peers: false,
            finding_peers: 0,
            downloading: true,
            stop_downloading_at: None,
            state: State::Running,
        }
    }

    /// A channel is being opened. While one is, and fewer than three peers have joined, no wait ends because no
    /// peer has what it waits for.
    pub fn connecting(&mut self, peer: PeerId) {
        self.connecting.insert(peer);
    }

    /// Both sides have opened the channel, and the driver has verified the capability in the handshake.
    pub fn opened(&mut self, peer: PeerId, handshake: &Handshake, local: &dyn Local, now: Duration) {
        self.connecting.remove(&peer);
        if self.state == State::Stopped {
            self.requests.actions.push_back(Action::Close { peer, reason: CloseReason::Closed });
            return;
        }
        let mut remote = RemotePeer::new(handshake.seeks, self.requests.config.in_flight.0);
        remote.sync_deadline = Some(now + SYNC_TIMEOUT);
        self.peers.insert(peer, remote);
        self.had_peers = true;
        self.mark_all_dirty();
        self.requests.actions.push_back(Action::Peer { peer, joined: true });
        self.send_sync(peer, local);
        self.announce_all(peer, local);
    }

    /// The channel was closed by the other side or lost, or could not be opened. Returns true if the other side
    /// closed it as idle although this core wants more: the driver then opens it again, as a new peer.
    pub fn closed(&mut self, peer: PeerId) -> bool {
        self.connecting.remove(&peer);
        self.mark_all_dirty();
        let Some(gone) = self.forget_peer(peer) else { return false };
        let sync = gone.remote_sync.unwrap_or_default();
        self.state == State::Running && self.downloading && sync.uploading && !sync.downloading
    }

    /// Handles a message of a peer. A breach of the protocol leads to [`Action::Close`].
    pub fn handle(&mut self, peer: PeerId, message: Message, local: &dyn Local, now: Duration) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        match message {
            Message::Sync(sync) => self.on_sync(peer, sync, local, now),
            Message::Request(request) => match remote.upload_queue.push(request) {
                Ok(true) => self.requests.actions.push_back(Action::ResponsesReady { peer }),
                Ok(false) => {}
                Err(error) => self.disconnect(peer, error),
            },
            Message::Cancel(request) => remote.upload_queue.cancel(request),
            Message::Data(data) => self.on_data(peer, data, local, now),
            Message::NoData(request) => self.on_no_data(peer, request, now),
            Message::Want(span) => {
                if remote.upload_queue.want(span) {
                    self.requests.actions.push_back(Action::ResponsesReady { peer });
                }
            }
            // A `Want` is answered once, and later changes are announced to all peers: nothing has to be cancelled.
            Message::Unwant(_) => {}
            Message::Bitfield(bitfield) => self.on_bitfield(peer, &bitfield),
            Message::Range(range) => self.on_range(peer, range),
            Message::Extension(extension) => {
                if let Some(name) = remote.extension_name(extension.name) {
                    self.requests.actions.push_back(Action::Extension { peer, name, message: extension.message });
                }
            }
        }
    }

    /// The next response to send to a peer; none until the next [`Action::ResponsesReady`].
    pub fn next_response(&mut self, peer: PeerId, local: &dyn Local) -> Option<Response> {
        self.peers.get_mut(&peer)?.upload_queue.next(local)
    }

    /// Sends a message of an extension to a peer.
    pub fn send_extension(&mut self, peer: PeerId, name: &str, message: Vec<u8>) {
        if let Some(remote) = self.peers.get_mut(&peer) {
            let message = remote.extension(name, message);
            self.requests.actions.push_back(Action::Send { peer, message });
        }
    }

    /// Whether nothing is requested any more because the core could not store.
    pub fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// The peers whose channel is open.
    pub fn peers(&self) -> impl Iterator<Item = PeerInfo> + '_ {
        self.peers.iter().map(|(id, peer)| PeerInfo {
            peer: *id,
            fork: peer.fork(),
            length: peer.length(),
            contiguous_length: peer.bitfield.contiguous(),
            can_upgrade: peer.remote_sync.is_some_and(|sync| sync.can_upgrade),
            uploading: peer.remote_sync.is_some_and(|sync| sync.uploading),
            downloading: peer.remote_sync.is_some_and(|sync| sync.downloading),
            in_flight: peer.requests.len(),
        })
    }

    /// Waits until block `index` is stored. The wait fails if the block is in the log already and the log is
    /// then truncated below it, or the core is closed.
    pub fn wait_for_block(&mut self, index: u64, local: &dyn Local) -> WaiterId {
        let waiter = self.requests.downloads.add_block(index, index < local.head().length());
        if local.has(index) {
            self.requests.downloads.have(index..index + 1, local, &mut self.requests.actions);
        } else if !self.requests.blocks.contains_key(&index) {
            self.requests.downloads.gets.insert(index);
            self.lower_queue_cursors(BlockQueue::Gets, index);
        }
        self.mark_all_dirty();
        self.fail_if_stopped();
        waiter
    }

    /// Waits until all blocks of `download` are stored or, with [`Download::if_available`], until no peer has
    /// more of them.
    pub fn download(&mut self, download: Arc<Download>, local: &dyn Local) -> WaiterId {
        let active = ActiveDownload::new(download);
        let waiter = self.requests.downloads.add_download(active, local, &mut self.requests.actions);
        self.mark_all_dirty();
        self.fail_if_stopped();
        waiter
    }

    /// Waits until it is known which block holds byte offset `bytes`; the first `padding` bytes of each block
    /// do not count.
    pub fn wait_for_seek(&mut self, bytes: u64, padding: u64, local: &dyn Local) -> WaiterId {
        let waiter = self.requests.downloads.add_seek(bytes, padding);
        self.update_seeks(local);
        self.mark_all_dirty();
        self.fail_if_stopped();
        waiter
    }

    /// Waits until the log is longer or on another fork, or until no peer may have a longer one.
    pub fn wait_for_upgrade(&mut self, local: &dyn Local) -> WaiterId {
        let waiter = self.requests.downloads.add_upgrade(local);
        self.reorganize_if_found();
        self.mark_all_dirty();
        self.fail_if_stopped();
        waiter
    }

    /// Removes a waiter without waking it, and cancels the requests that were sent for it alone.
    pub fn cancel(&mut self, waiter: WaiterId) {
        self.mark_all_dirty();
        let requested: Vec<(PeerId, u64)> = match self.requests.downloads.remove(waiter) {
            Some(Unwanted::Block(block)) => {
                self.requests.blocks.get(&block).map(|requested| requested.iter().collect()).unwrap_or_default()
            }
            Some(Unwanted::Seek(requested)) => requested.iter().collect(),
            Some(Unwanted::Download) => {
                for peer in self.peers.values_mut() {
                    peer.cursors.remove(&BlockQueue::Download(waiter));
                }
                let downloads = &mut self.requests.downloads;
                let unwanted: Vec<u64> =
                    downloads.retries.iter().copied().filter(|b| !downloads.is_in_download(*b)).collect();
                for block in unwanted {
                    downloads.retries.remove(&block);
                }
                let unwanted = |block: &u64| !downloads.blocks.contains_key(block) && !downloads.is_in_download(*block);
                let blocks = self.requests.blocks.iter().filter(|(block, _)| unwanted(block));
                blocks.flat_map(|(_, requested)| requested.iter()).collect()
            }
            None => return,
        };
        for (peer, request) in requested {
            self.cancel_request(peer, request);
        }
    }

    /// Sets how many callers are looking for peers. While there is one and no peer has joined yet,
    /// updates keep waiting.
    pub fn set_finding_peers(&mut self, finding_peers: usize) {
        self.finding_peers = finding_peers;
        self.mark_all_dirty();
    }

    /// Fails all waiters and closes all channels.
    pub fn close(&mut self) {
        self.stop(Error::new(ErrorKind::Closed, "the core is closed"), |_| CloseReason::Closed);
    }

    /// The next action; none when there is nothing more to do until the next call of another function.
    pub fn poll(&mut self, local: &dyn Local, now: Duration) -> Option<Action> {
        if let Some(action) = self.requests.actions.pop_front() {
            return Some(action);
        }
        self.handle_timeouts(local, now);
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.any {
            self.send_requests(dirty, local, now);
            self.finish_waits(local, now);
        }
        self.requests.actions.pop_front()
    }

    /// When to poll again if nothing else happens.
    pub fn next_deadline(&self) -> Option<Duration> {
        let awaiting = self.requests.downloads.has_waits_on_peers();
        let peers = self.peers.values().flat_map(|peer| {
            let suspicion = peer.suspicion.as_ref().map(|suspicion| suspicion.until);
            let (sync, bitfield) = if awaiting { (peer.sync_deadline, peer.bitfield_deadline) } else { (None, None) };
            [suspicion, peer.refused.until, peer.next_want_at, peer.next_late(), sync, bitfield]
        });
        peers.chain([self.stop_downloading_at]).flatten().min()
    }
}

impl Replicator {
    /// Acts on all deadlines that have passed.
    pub(super) fn handle_timeouts(&mut self, local: &dyn Local, now: Duration) {
        if self.stop_downloading_at.is_some_and(|at| at <= now) {
            self.stop_downloading_at = None;
            self.set_downloading_now(false, local);
        }
        let mut expired = Vec::new();
        let mut upgrade_late = false;
        let mut dirty = false;
        for (id, peer) in &mut self.peers {
            if let Some(suspicion) = peer.suspicion.take_if(|suspicion| suspicion.until <= now) {
                expired.push((*id, suspicion.error));
            }
            if peer.refused.until.is_some_and(|at| at <= now) {
                peer.forget_refusals();
                dirty = true;
            }
            dirty |= peer.next_want_at.take_if(|at| *at <= now).is_some();
            dirty |= peer.sync_deadline.take_if(|at| *at <= now).is_some();
            dirty |= peer.bitfield_deadline.take_if(|at| *at <= now).is_some();
            if peer.next_late().is_none_or(|due| due > now) {
                continue;
            }
            for (request, purpose) in peer.take_late(now, now + self.requests.repeated_request_timeout()) {
                dirty = true;
                upgrade_late |= self.requests.mark_late(&request, purpose);
            }
        }
        if dirty {
            self.mark_all_dirty();
        }
        if upgrade_late {
            self.lower_cursors(0, u64::MAX);
        }
        for (peer, error) in expired {
            self.disconnect(peer, error);
        }
    }

    pub(super) fn stop(&mut self, error: Error, reason: impl Fn(&RemotePeer) -> CloseReason) {
        if self.state == State::Stopped {
            return;
        }
        self.state = State::Stopped;
        self.requests.downloads.fail(&error, &mut self.requests.actions);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            if let Some(gone) = self.forget_peer(peer) {
                self.requests.actions.push_back(Action::Close { peer, reason: reason(&gone) });
            }
        }
        for peer in std::mem::take(&mut self.connecting) {
            self.requests.actions.push_back(Action::Close { peer, reason: CloseReason::Closed });
        }
    }

    pub(super) fn fail_if_stopped(&mut self) {
        if self.state == State::Stopped {
            let error = Error::new(ErrorKind::Closed, "replication of the core has stopped");
            self.requests.downloads.fail(&error, &mut self.requests.actions);
        }
    }

    pub(super) fn disconnect(&mut self, peer: PeerId, error: Error) {
        if self.forget_peer(peer).is_some() {
            self.requests.actions.push_back(Action::Close { peer, reason: CloseReason::Misbehaved(error) });
        }
    }

    /// Removes a peer; what was requested from it can be requested from others.
    pub(super) fn forget_peer(&mut self, peer: PeerId) -> Option<RemotePeer> {
        self.mark_all_dirty();
        self.settle_all(peer);
        let gone = self.peers.remove(&peer)?;
        self.requests.actions.push_back(Action::Peer { peer, joined: false });
        Some(gone)
    }

    pub(super) fn update_seeks(&mut self, local: &dyn Local) {
        let requested = self.requests.downloads.update_seeks(local, &mut self.requests.actions);
        let requests: Vec<_> = requested.iter().flat_map(|requested| requested.iter()).collect();
        for (peer, request) in requests {
            self.cancel_request(peer, request);
        }
    }

    pub(super) fn lower_cursors(&mut self, start: u64, end: u64) {
        let downloads = &self.requests.downloads;
        for peer in self.peers.values_mut() {
            peer.lower_cursors(start, end, |waiter| downloads.search_start(waiter));
        }
    }

    pub(super) fn lower_queue_cursors(&mut self, queue: BlockQueue, at: u64) {
        for peer in self.peers.values_mut() {
            peer.lower_cursor(queue, at);
        }
    }

    /// `peer` may be sent more requests.
    pub(super) fn mark_dirty(&mut self, peer: PeerId) {
        self.dirty.any = true;
        self.dirty.peers.insert(peer);
    }

    /// All peers may be sent more requests.
    pub(super) fn mark_all_dirty(&mut self) {
        self.dirty.any = true;
        self.dirty.all = true;
    }

    /// Waits may end.
    pub(super) fn mark_waits_dirty(&mut self) {
        self.dirty.any = true;
    }

    /// Sends requests to the peers that may be sent more.
    fn send_requests(&mut self, dirty: DirtyPeers, local: &dyn Local, now: Duration) {
        if self.state != State::Running {
            return;
        }
        let eligible: Vec<PeerId> = match dirty.all {
            true => self.peers.keys().copied().collect(),
            false => dirty.peers.into_iter().collect(),
        };
        self.requests.send_in_turns(&mut self.peers, eligible, local, now);
    }

    /// Ends the waits for which no peer has anything to offer.
    pub(super) fn finish_waits(&mut self, local: &dyn Local, now: Duration) {
        if !self.connecting.is_empty() && self.peers.len() < PEERS_FOR_UPGRADE {
            return;
        }
        if self.no_upgrade_expected(local, now) {
            self.requests.downloads.finish_upgrades(false, &mut self.requests.actions);
        }
        let all_synced = self.peers.values().all(|peer| peer.remote_sync.is_some() || peer.sync_deadline.is_none());
        let all_told = self.peers.values().all(|peer| peer.bitfield_deadline.is_none());
        let idle = all_synced && all_told && self.requests.in_flight == 0;
        if self.connecting.is_empty() && idle && !self.requests.forks.is_busy() {
            self.requests.downloads.finish_if_available(&mut self.requests.actions);
        }
    }

    pub(super) fn no_upgrade_expected(&self, local: &dyn Local, now: Duration) -> bool {
        if self.requests.downloads.upgrades.is_empty() || (!self.had_peers && self.finding_peers > 0) {
            return false;
        }
        let head = local.head();
        let promising = self.peers.values().take(PEERS_FOR_UPGRADE).any(|peer| {
            let refuses = peer.refused.upgrade || peer.refused.fork || peer.suspicion.is_some();
            if peer.sync_deadline.is_none() || refuses {
                return false;
            }
            let Some(sync) = peer.remote_sync else { return true };
            let same_fork = sync.fork == head.fork && sync.length > head.length();
            let promising = same_fork && (sync.can_upgrade || sync.remote_length != head.length());
            sync.uploading && (promising || sync.fork > head.fork)
        });
        let fresh = self.peers.values().flat_map(|peer| peer.requests.values()).any(|in_flight| {
            in_flight.request.wanted.upgrade.is_some() && now.saturating_sub(in_flight.sent_at) < SYNC_TIMEOUT
        });
        !promising && !fresh && !self.requests.forks.is_applying()
    }
}
