//! The effects of a local change and of a peer's `Sync`, `Range` or `Bitfield`: announcements, searches that start
//! again, and idle channels that close. `Sync` carries fork and length, `Range` the blocks held or dropped.

use std::time::Duration;

use super::action::{Action, CloseReason};
use super::id::PeerId;
use super::local::{Local, LogChange};
use super::message::{Bitfield, Range, Sync};
use super::peer::RemotePeer;
use super::replicator::{Replicator, SYNC_TIMEOUT};
use crate::codec::MAX_SAFE_INTEGER;

/// For how long after losing interest the core still says that it is downloading: a program that closes and
/// opens sessions in turn must not make channels close and open.
const STOP_DOWNLOADING_DELAY: Duration = Duration::from_secs(20);

impl Replicator {
    /// The core changed. Call it once for each commit, after the commit.
    pub fn changed(&mut self, change: &LogChange, local: &dyn Local) {
        if change.upgraded || change.manifest || change.dropped.is_some() {
            self.mark_all_dirty();
        } else {
            self.mark_waits_dirty();
        }
        let requests = &mut self.requests;
        if let Some(cut) = &change.truncated {
            requests.downloads.truncated(cut.start, &mut requests.actions);
            requests.downloads.restart_downloads(local, &mut requests.actions);
        }
        if change.upgraded {
            requests.forks.head_changed();
            let head = local.head();
            if requests.downloads.upgrade_from != (head.fork, head.length()) {
                requests.downloads.finish_upgrades(true, &mut requests.actions);
            }
        }
        let news = change.upgraded || change.manifest;
        let head = local.head();
        // An upgrade cannot be proved to a peer if a root of its length is missing here. A block's proof may have just
        // brought that root, so `Sync` is sent again.
        let behind = |peer: &RemotePeer| {
            let cannot_upgrade = peer.local_sync.is_some_and(|sync| !sync.can_upgrade);
            cannot_upgrade && peer.fork() == head.fork && peer.length() < head.length()
        };
        let peers = self.peers.iter().filter(|(_, peer)| news || behind(peer)).map(|(id, _)| *id);
        for peer in peers.collect::<Vec<_>>() {
            self.send_sync(peer, local);
        }
        if let Some(dropped) = &change.dropped {
            // Peers that believed we hold these blocks did not announce theirs, so what they have is unknown:
            // `Want` it again.
            for peer in self.peers.values_mut() {
                peer.bitfield.ask_again(dropped.start, dropped.end);
            }
        }
        for range in &change.have {
            self.on_blocks_held(range.clone(), local);
        }
        self.retry_below_known_roots(local);
        self.announce_change(change, local);
        if change.upgraded {
            for peer in self.peers.values_mut() {
                peer.cursors.clear();
            }
            self.update_seeks(local);
        } else if let Some(dropped) = &change.dropped {
            self.lower_cursors(dropped.start, dropped.end);
        }
    }

    /// Sends the peer a `Sync` of the present head, unless the last one was the same.
    pub fn send_sync(&mut self, peer: PeerId, local: &dyn Local) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        if let Some(message) = remote.next_sync(local, self.downloading) {
            self.requests.actions.push_back(Action::Send { peer, message });
        }
    }

    /// Sets whether the core wants more blocks. `false` takes effect after 20 s; then channels whose peer wants
    /// nothing either are closed as idle.
    pub fn set_downloading(&mut self, downloading: bool, local: &dyn Local, now: Duration) {
        if !downloading {
            self.stop_downloading_at = Some(now + STOP_DOWNLOADING_DELAY).filter(|_| self.downloading);
            return;
        }
        self.stop_downloading_at = None;
        self.set_downloading_now(true, local);
    }
}

impl Replicator {
    pub(super) fn set_downloading_now(&mut self, downloading: bool, local: &dyn Local) {
        if self.downloading == downloading {
            return;
        }
        self.downloading = downloading;
        self.mark_all_dirty();
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.send_sync(peer, local);
            self.close_if_idle(peer);
        }
    }

    pub(super) fn on_sync(&mut self, peer: PeerId, sync: Sync, local: &dyn Local, now: Duration) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        let before = remote.remote_sync.unwrap_or_default();
        if remote.update_remote_sync(sync) {
            remote.sync_deadline = Some(now + SYNC_TIMEOUT);
            // Searches return to the blocks that the peer has gained since its last `Sync`.
            let same_fork = before.fork == sync.fork;
            let gained_from = if same_fork { before.length.min(local.head().length()) } else { 0 };
            // A longer head may prove blocks that the last one could not.
            let unproven = std::mem::take(&mut remote.unknown_roots);
            let from = unproven.first().map_or(gained_from, |root| gained_from.min(root.first_block()));
            self.on_blocks_offered(peer, from, u64::MAX);
        }
        self.mark_dirty(peer);
        if self.close_if_idle(peer) {
            return;
        }
        // A peer behind us requests a longer head only after a `Sync` shows that we know the length of its log.
        let head = local.head();
        if self.peers.get(&peer).is_some_and(|remote| remote.fork() == head.fork && remote.length() < head.length()) {
            self.send_sync(peer, local);
        }
    }

    pub(super) fn close_if_idle(&mut self, peer: PeerId) -> bool {
        let idle = self.peers.get(&peer).is_some_and(|remote| remote.remote_sync.is_some_and(|sync| !sync.downloading));
        if !idle || self.downloading || self.forget_peer(peer).is_none() {
            return false;
        }
        self.requests.actions.push_back(Action::Close { peer, reason: CloseReason::Idle });
        true
    }

    pub(super) fn on_bitfield(&mut self, peer: PeerId, bitfield: &Bitfield) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        let end = bitfield.start.saturating_add(bitfield.words.len() as u64 * 32);
        remote.refused.forget(bitfield.start, end);
        remote.bitfield_deadline = None;
        remote.bitfield.replace(bitfield.start, &bitfield.words);
        self.on_blocks_offered(peer, bitfield.start, end);
    }

    pub(super) fn on_range(&mut self, peer: PeerId, range: Range) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        let end = range.start.saturating_add(range.length).min(MAX_SAFE_INTEGER);
        remote.refused.forget(range.start, end);
        let answers_want = remote.bitfield_deadline.take().is_some();
        if range.drop {
            remote.bitfield.remove(range.start, end);
        } else if remote.bitfield.next_unset(range.start) < end {
            remote.bitfield.insert(range.start, end);
            self.on_blocks_offered(peer, range.start, end);
        }
        if answers_want {
            self.mark_waits_dirty();
        }
    }

    /// The peer has, or may now be able to prove, the blocks of `start..end`: searches look at them again.
    pub(super) fn on_blocks_offered(&mut self, peer: PeerId, start: u64, end: u64) {
        self.mark_dirty(peer);
        let downloads = &self.requests.downloads;
        if let Some(remote) = self.peers.get_mut(&peer) {
            remote.lower_cursors(start, end, |waiter| downloads.search_start(waiter));
        }
    }

    /// Blocks that were skipped because a root of the peer's shorter log was unknown here are searched again once that
    /// root has arrived: the peer proves its blocks only up to its own roots.
    fn retry_below_known_roots(&mut self, local: &dyn Local) {
        let downloads = &self.requests.downloads;
        let mut found = Vec::new();
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.unknown_roots.is_empty()) {
            if let Some((start, end)) = peer.take_known_roots(local) {
                peer.lower_cursors(start, end, |waiter| downloads.search_start(waiter));
                found.push(*id);
            }
        }
        found.into_iter().for_each(|peer| self.mark_dirty(peer));
    }

    pub(super) fn on_blocks_held(&mut self, range: std::ops::Range<u64>, local: &dyn Local) {
        self.requests.downloads.have(range.clone(), local, &mut self.requests.actions);
        let held = self.requests.blocks.range(range).filter(|(block, _)| local.has(**block));
        let requested: Vec<_> = held.flat_map(|(_, requested)| requested.iter()).collect();
        for (peer, request) in requested {
            self.cancel_request(peer, request);
        }
    }

    /// Announces blocks that are now held, or no longer.
    pub(super) fn announce_change(&mut self, change: &LogChange, local: &dyn Local) {
        // A complete log is announced as one range from block 0: version 11 of JavaScript forgets other ranges
        // that arrive before it has followed a fork.
        let complete = !change.have.is_empty() && local.contiguous_length() == local.head().length();
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            if let Some(dropped) = &change.dropped {
                self.announce(peer, dropped.start, dropped.end, true, local);
            }
            if complete {
                self.announce_all(peer, local);
                continue;
            }
            for range in &change.have {
                self.announce(peer, range.start, range.end, false, local);
            }
        }
    }

    /// Announces the blocks that are held from block 0 without a gap.
    pub(super) fn announce_all(&mut self, peer: PeerId, local: &dyn Local) {
        self.announce(peer, 0, local.contiguous_length(), false, local);
    }

    pub(super) fn announce(&mut self, peer: PeerId, start: u64, end: u64, drop: bool, local: &dyn Local) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        if let Some(message) = remote.announce(start, end, drop, local.head().fork) {
            self.requests.actions.push_back(Action::Send { peer, message });
        }
    }
}
