//! Selects which peer is asked for which block: the order of the peers, and the next request for each.
//!
//! Peers take turns of 16 requests. A peer that has room is sent the first of these that it can answer and that is not
//! in flight. If another peer is late with its answer, the same is requested again: a block as item 5 or 9, anything
//! else as the item that it was.
//!
//! 1. the manifest, from a peer whose log is empty (otherwise it is requested with the next request);
//! 2. a step towards a higher fork;
//! 3. the nodes that narrow down a byte offset;
//! 4. a block that a caller waits for;
//! 5. such a block again, if another peer is late with it;
//! 6. a block of a download whose request failed;
//! 7. the next block of a download;
//! 8. a longer head (every other request asks for it as well, if the peer has one);
//! 9. a block of a download again, if another peer is late with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::Action;
use super::cursor::{BlockQueue, Cursor};
use super::downloads::ActiveDownload;
use super::id::{PeerId, WaiterId};
use super::in_flight::{Purpose, RequestRef};
use super::local::Local;
use super::message::{Message, SEGMENT, Span};
use super::peer::RemotePeer;
use super::requests::{PickContext, ProofPath, Requests};
use crate::download::Blocks;
use crate::index::NodeIndex;
use crate::merkle::{self, NodeRequest, Seek, SeekRequest};

/// How many requests a peer is sent in one turn: neighbouring blocks share most of their proofs.
const REQUESTS_PER_TURN: usize = 16;

/// The most downloads searched for one peer at a time, as in JavaScript.
const MAX_DOWNLOADS_SEARCHED: usize = 64;

/// How many segments a peer is asked about at a time, and the pause after that; answers take up to 256 KiB each.
const SEGMENTS: usize = 8;
const SEGMENTS_PAUSE: Duration = Duration::from_secs(1);

impl Requests {
    /// Sends requests to the `eligible` ones of all `peers`, in turns, as long as they have room.
    pub fn send_in_turns(
        &mut self,
        peers: &mut BTreeMap<PeerId, RemotePeer>,
        eligible: Vec<PeerId>,
        local: &dyn Local,
        now: Duration,
    ) {
        let other_downloaders = peers.values().any(|peer| {
            peer.remote_sync.is_some_and(|sync| sync.downloading) && peer.bitfield.contiguous() < peer.length()
        });
        self.fastest_response = peers.values().filter_map(|peer| peer.window.response_time).min();
        let context = PickContext { local, now, other_downloaders };
        let mut order = eligible;
        self.rotation = self.rotation.wrapping_add(1);
        if !order.is_empty() {
            let first = self.rotation % order.len();
            order.rotate_left(first);
        }
        // A peer that cannot be sent a full turn drops out of the round.
        while !order.is_empty() {
            order.retain(|id| {
                let Some(peer) = peers.get_mut(id) else { return false };
                (0..REQUESTS_PER_TURN).all(|_| self.pick(*id, peer, context))
            });
        }
    }

    /// Sends the peer one more request, if it has room and can answer one. Returns whether a request was sent.
    fn pick(&mut self, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        if !peer.is_active() || self.forks.is_applying() || !self.has_room(peer, context) {
            return false;
        }
        self.pick_manifest(id, peer, context)
            || self.pick_fork(id, peer, context)
            || self.pick_seek(id, peer, context)
            || self.pick_queued(BlockQueue::Gets, id, peer, context)
            || self.pick_late(true, id, peer, context)
            || self.pick_queued(BlockQueue::Retries, id, peer, context)
            || self.pick_download(id, peer, context)
            || self.pick_upgrade(id, peer, context)
            || self.pick_late(false, id, peer, context)
    }

    fn pick_manifest(&mut self, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        // From a peer with a log, the manifest is requested together with the log.
        if peer.length() > 0 || !self.lacks_manifest(id, peer, context) {
            return false;
        }
        self.request(id, peer, context, merkle::Request::default(), Purpose::Log, 0);
        true
    }

    fn pick_fork(&mut self, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        if peer.fork() <= context.local.head().fork || peer.length() == 0 || peer.refused.fork {
            return false;
        }
        let random = self.next_random();
        let Some(wanted) = self.forks.next_request(id, peer, random) else {
            if let Some((start, end)) = self.forks.next_blocks(peer) {
                self.want_segments(id, peer, start, end, context);
            }
            return false;
        };
        self.request(id, peer, context, wanted, Purpose::Fork, 0);
        true
    }

    fn pick_seek(&mut self, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        let head = context.local.head();
        if self.downloads.seeks.is_empty() || peer.fork() != head.fork {
            return false;
        }
        let random = self.next_random();
        let can_upgrade = self.can_upgrade(id, peer, context);
        let found = self.downloads.seeks.iter().find_map(|(waiter, seek)| {
            if !seek.requested.may_request(id) || peer.refused.seeks.contains(waiter) {
                return None;
            }
            let place = SeekRequest { bytes: seek.bytes, padding: seek.padding };
            let mut wanted = merkle::Request { seek: peer.seeks.then_some(place), ..Default::default() };
            match seek.state {
                Seek::Within { start, end } => wanted.hash = Some(seek_hash(start, end, peer, head.length(), random)?),
                _ if can_upgrade => {}
                _ => return None,
            }
            Some((*waiter, wanted))
        });
        let Some((waiter, wanted)) = found else { return false };
        self.request(id, peer, context, wanted, Purpose::Seek(waiter), 1);
        true
    }

    /// Requests a block of `gets` or `retries`.
    fn pick_queued(&mut self, queue: BlockQueue, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        let priority = u64::from(queue == BlockQueue::Gets);
        let mut at = peer.cursors.get(&queue).map_or(0, |cursor| cursor.at);
        loop {
            let blocks = if queue == BlockQueue::Gets { &self.downloads.gets } else { &self.downloads.retries };
            let Some(&block) = blocks.range(at..).next() else { break };
            at = block + 1;
            if !peer.bitfield.contains(block) {
                self.want_segments(id, peer, block, block + 1, context);
                let segment_end = (block / SEGMENT + 1) * SEGMENT;
                at = peer.bitfield.next_set(at).map_or(segment_end, |set| set.min(segment_end));
            } else if self.request_block(block, priority, id, peer, context) {
                if queue == BlockQueue::Gets {
                    self.downloads.gets.remove(&block);
                } else {
                    self.downloads.retries.remove(&block);
                }
                peer.cursors.insert(queue, Cursor { wrapped: false, at });
                return true;
            }
        }
        peer.cursors.insert(queue, Cursor { wrapped: false, at: u64::MAX });
        false
    }

    /// Requests a block that another peer is late with.
    fn pick_late(&mut self, for_callers: bool, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        let eligible = |block: &&u64| {
            peer.bitfield.contains(**block)
                && self.downloads.blocks.contains_key(*block) == for_callers
                && self.blocks.get(*block).is_some_and(|requested| requested.may_request(id))
        };
        let Some(&block) = self.late.iter().find(eligible) else { return false };
        let sent = self.request_block(block, for_callers.into(), id, peer, context);
        self.late.remove(&block);
        sent
    }

    fn pick_download(&mut self, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        let head = context.local.head();
        if self.downloads.active.is_empty() || peer.fork() != head.fork {
            return false;
        }
        let random = self.next_random();
        for waiter in self.downloads.choose_downloads(MAX_DOWNLOADS_SEARCHED, random) {
            while let Some(block) = self.next_in_download(waiter, peer, context) {
                if self.request_block(block, 0, id, peer, context) {
                    return true;
                }
            }
            self.want_for_download(waiter, id, peer, context);
        }
        false
    }

    /// The next block of a download that the peer has, that is missing here and that is not in flight. The
    /// cursor moves past it.
    fn next_in_download(&mut self, waiter: WaiterId, peer: &mut RemotePeer, context: PickContext<'_>) -> Option<u64> {
        let random = self.next_random();
        let active = self.downloads.active.get_mut(&waiter)?;
        if let Blocks::List(blocks) = &active.download.blocks {
            let (in_flight, RemotePeer { cursors, bitfield, .. }) = (&self.blocks, peer);
            let cursor = cursors.entry(BlockQueue::Download(waiter)).or_default();
            return next_in_list(active, blocks, cursor, |block| {
                !context.local.has(block) && !in_flight.contains_key(&block) && bitfield.contains(block)
            });
        }
        let end = download_end(active, peer, context.local);
        if active.start >= end {
            return None;
        }
        // If no other peer downloads, go in order: proofs are shortest so. Otherwise begin anywhere: the others
        // will then have what we lack, and lack what we have.
        let in_order = active.download.linear || !context.other_downloaders;
        let start = active.start;
        let somewhere = if in_order { 0 } else { start + (random % (end - start)) / 64 * 64 };
        let search_start = *active.search_start.get_or_insert(somewhere.max(if in_order { 0 } else { start }));
        let first = Cursor { wrapped: false, at: search_start };
        let mut cursor = *peer.cursors.get(&BlockQueue::Download(waiter)).unwrap_or(&first);
        let found = loop {
            let (from, to) =
                if cursor.wrapped { (start, search_start.min(end)) } else { (search_start.max(start), end) };
            cursor.at = cursor.at.max(from);
            match peer.bitfield.next_missing(cursor.at, to, context.local) {
                Some(block) => {
                    cursor.at = block + 1;
                    if !self.blocks.contains_key(&block) {
                        break Some(block);
                    }
                }
                None if cursor.wrapped => {
                    cursor.at = cursor.at.max(to);
                    break None;
                }
                None => cursor = Cursor { wrapped: true, at: start },
            }
        };
        peer.cursors.insert(BlockQueue::Download(waiter), cursor);
        found
    }

    /// Sends `Want` for the segments in which the download continues.
    fn want_for_download(&mut self, waiter: WaiterId, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) {
        let Some(active) = self.downloads.active.get(&waiter) else { return };
        // A peer known to have everything need not be asked.
        if peer.next_want_at.is_some() || peer.bitfield.contiguous() >= peer.length() {
            return;
        }
        match &active.download.blocks {
            Blocks::Range { .. } => {
                let (start, end) = (active.start, download_end(active, peer, context.local));
                self.want_segments(id, peer, start, end, context);
            }
            Blocks::List(blocks) => {
                for block in unknown_segments(blocks.get(active.start as usize..).unwrap_or(&[]), peer, context.local) {
                    self.want_segments(id, peer, block, block + 1, context);
                }
            }
        }
    }

    fn want_segments(&mut self, id: PeerId, peer: &mut RemotePeer, start: u64, end: u64, context: PickContext<'_>) {
        let end = end.min(peer.length());
        if peer.next_want_at.is_some() {
            return;
        }
        for sent in 0..SEGMENTS {
            let Some(segment) = peer.bitfield.next_unasked(start, end) else { return };
            if sent == 0 {
                peer.bitfield.evict_held_pages(context.local);
            }
            if !peer.bitfield.want(segment) {
                return;
            }
            let message = Message::Want(Span { start: segment * SEGMENT, length: SEGMENT });
            self.actions.push_back(Action::Send { peer: id, message });
            peer.bitfield_deadline = Some(context.now + SEGMENTS_PAUSE);
            if sent + 1 == SEGMENTS {
                peer.next_want_at = Some(context.now + SEGMENTS_PAUSE);
            }
        }
    }

    fn pick_upgrade(&mut self, id: PeerId, peer: &mut RemotePeer, context: PickContext<'_>) -> bool {
        if !self.can_upgrade(id, peer, context) {
            return false;
        }
        self.request(id, peer, context, merkle::Request::default(), Purpose::Log, 0);
        true
    }

    /// Requests a block, if the peer can answer so that the proof can be verified. Returns whether it was requested.
    fn request_block(
        &mut self,
        block: u64,
        priority: u64,
        id: PeerId,
        peer: &mut RemotePeer,
        context: PickContext<'_>,
    ) -> bool {
        let head = context.local.head();
        if peer.fork() != head.fork || block >= peer.length() || context.local.has(block) {
            return false;
        }
        let must_upgrade = block >= head.length();
        let mut path = ProofPath { nodes: 0, depends_on: None };
        if must_upgrade {
            if !self.can_upgrade(id, peer, context) {
                return false;
            }
        } else {
            // An urgent request may be answered before an earlier one, so it must not depend on it.
            path = self.proof_path(block, id, peer, priority == 0, context.local);
            if !knows_ancestor(block, path.nodes, peer, head.length()) {
                peer.unknown_roots.insert(root_over(block, peer.length()));
                return false;
            }
        }
        let wanted = Some(NodeRequest { index: block, nodes: path.nodes });
        let wanted = merkle::Request { block: wanted, ..Default::default() };
        let request = self.build_request(id, peer, context, wanted, Purpose::Log, priority);
        if !must_upgrade {
            self.expect_nodes(block, path.nodes, RequestRef { peer: id, request: request.id });
        }
        self.send_request(id, peer, context, request, Purpose::Log, path.depends_on);
        true
    }
}

/// The next block of a list, from the cursor on, that can be requested. The cursor moves past it.
fn next_in_list(
    active: &ActiveDownload,
    blocks: &[u64],
    cursor: &mut Cursor,
    can_request: impl Fn(u64) -> bool,
) -> Option<u64> {
    cursor.at = cursor.at.max(active.start);
    let end = active.end.unwrap_or(0);
    while cursor.at < end {
        let block = blocks.get(cursor.at as usize).copied()?;
        cursor.at += 1;
        if can_request(block) {
            return Some(block);
        }
    }
    None
}

/// The end of the part of a download that can be requested: limited by its own end, our length and the peer's.
fn download_end(active: &ActiveDownload, peer: &RemotePeer, local: &dyn Local) -> u64 {
    active.end.unwrap_or(u64::MAX).min(local.head().length()).min(peer.length())
}

/// Whether the node `nodes` levels above `block`, which we hold, is part of the peer's tree, which may be
/// shorter than ours.
fn knows_ancestor(block: u64, nodes: u64, peer: &RemotePeer, length: u64) -> bool {
    peer.length() >= length || (block >> nodes.min(63) << nodes.min(63)) + (1 << nodes.min(52)) <= peer.length()
}

/// The root above `block` in a log of `length` blocks.
fn root_over(block: u64, length: u64) -> NodeIndex {
    let mut root = NodeIndex::of_block(block);
    while root.parent().end_block() <= length {
        root = root.parent();
    }
    root
}

/// One block of each segment that the peer has to be asked about because some of `blocks` (ascending) are
/// missing there; at most `SEGMENTS`. A segment that was asked about already costs one binary search, not a
/// look at each block.
fn unknown_segments(blocks: &[u64], peer: &RemotePeer, local: &dyn Local) -> Vec<u64> {
    let mut rest = &blocks[..blocks.partition_point(|block| *block < peer.length())];
    let mut unknown = Vec::new();
    while let Some(&first) = rest.first().filter(|_| unknown.len() < SEGMENTS) {
        let segment = first / SEGMENT;
        let (here, beyond) = rest.split_at(rest.partition_point(|block| *block / SEGMENT == segment));
        rest = beyond;
        if peer.bitfield.is_asked(segment) {
            continue;
        }
        unknown.extend(here.iter().find(|block| !peer.bitfield.contains(**block) && !local.has(**block)));
    }
    unknown
}

/// The node request that helps to find a byte offset within the blocks `start..end`, which are the span of a
/// node we hold.
fn seek_hash(start: u64, end: u64, peer: &RemotePeer, length: u64, random: u64) -> Option<NodeRequest> {
    let known = peer.length().min(end);
    if end <= start || known <= start || (peer.length() < length && peer.length() < end) {
        return None;
    }
    let somewhere = start + random % (known - start);
    let after = peer.bitfield.next_set(somewhere).filter(|block| *block < known);
    let block = after.or_else(|| peer.bitfield.next_set(start).filter(|block| *block < known))?;
    let top = NodeIndex(start + end - 1);
    Some(NodeRequest { index: NodeIndex::of_block(block).0, nodes: top.depth().into() })
}
