//! Which block is asked of whom.
//!
//! Peers take turns. Whoever has room is asked for the first of these that it can answer and nobody else was asked for: the manifest,
//! a step towards a higher fork, the place of a byte, blocks that callers wait for, blocks that were asked for in vain, the next block of
//! a download, a longer head. The request for a longer head rides on any other.
//!
//! A block is asked for with only those nodes of its proof that are neither held nor brought by a request that went to the same peer
//! before: such a request *leans* on the earlier one, and its answer waits for the other's. Without this, the hundreds of requests in
//! flight would each be answered with the same nodes.
//!
//! What was asked for long ago, measured by how fast peers answer, is *late*: it is asked of somebody else as well, but only when there is
//! nothing left that nobody was asked for; blocks that callers wait for come before downloads also in this.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::message::{Message, Request, SEGMENT, Span};
use super::peer::{Cursor, InFlight, Peer, Purpose, Source};
use super::reorg::Forks;
use super::wants::{RangeWant, Wants};
use super::{Action, Config, Download, Local, PeerId, WantId, is_held};
use crate::index::{BuildIndexHasher, NodeIndex};
use crate::merkle::{self, NodeRequest, Seek, SeekRequest, UpgradeRequest};

/// How many requests a peer is sent before it is another's turn: neighbouring blocks share most of their proofs.
pub(super) const TURN: usize = 16;

/// The most peers that the same thing is asked of at a time.
const MAX_COPIES: usize = 3;

/// The most bytes asked of all peers together, as far as sizes can be guessed.
const MAX_BYTES: u64 = 64 << 20;

/// What an answer without a block is taken to have.
const SMALL_ANSWER: u64 = 2048;

/// What a block is taken to have before anything is known.
const UNKNOWN_BLOCK: u64 = 64 << 10;

/// The most downloads that are searched for one peer at a time, as the reference does.
const MAX_RANGES: usize = 64;

/// How many segments a peer is asked about at a time, and how long before the next may be; answers take up to 256 KiB each.
const SEGMENTS: usize = 8;
pub(super) const SEGMENTS_PAUSE: Duration = Duration::from_secs(1);

/// How long an answer may take before somebody else is asked: this many times what the fastest peer takes, within bounds.
const PATIENCE: u32 = 4;
const MIN_PATIENCE: Duration = Duration::from_millis(250);
const MAX_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// What was asked of the peers together, and what for.
pub(super) struct Desk {
    pub config: Config,
    pub wants: Wants,
    pub actions: VecDeque<Action>,
    /// Blocks asked for.
    pub blocks: BTreeMap<u64, Asked>,
    /// Those of them that may be asked of somebody else as well.
    pub late: BTreeSet<u64>,
    /// The nodes that answers on their way will bring.
    expected: HashMap<NodeIndex, Holder, BuildIndexHasher>,
    /// The longer head.
    pub upgrade: Asked,
    pub manifest: Asked,
    pub forks: Forks,
    /// The bytes that all answers on their way are guessed to have, and how many they are.
    pub bytes: u64,
    pub in_flight: usize,
    /// Whether something was not asked for because of that.
    pub short_of_room: bool,
    /// The bytes that blocks have had of late.
    pub block_size: Option<u64>,
    /// How soon the fastest peer answers.
    pub fastest: Option<Duration>,
    pub random: u64,
}

/// Something that was asked for, and of whom.
#[derive(Default, Debug)]
pub(super) struct Asked {
    pub by: Vec<Holder>,
    /// Whether it may be asked of somebody else as well.
    pub late: bool,
    /// Whether an answer is here and being verified.
    pub answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    pub peer: PeerId,
    pub request: u64,
}

/// The way up from a block to what is known.
#[derive(Clone, Copy, Debug)]
struct Path {
    /// How many levels up.
    nodes: u64,
    /// The request that will bring what is known there; none if it is held already.
    leans: Option<u64>,
}

/// What does not change while requests are picked.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub local: &'a dyn Local,
    pub now: Duration,
    /// Whether some peer is a downloader itself, so that it pays not to ask for the same blocks as it does.
    pub company: bool,
}

impl Asked {
    /// Whether `peer` may be asked.
    pub fn may_ask(&self, peer: PeerId) -> bool {
        self.by.is_empty()
            || (self.late
                && !self.answered
                && self.by.len() < MAX_COPIES
                && self.by.iter().all(|holder| holder.peer != peer))
    }

    pub fn add(&mut self, peer: PeerId, request: u64) {
        self.by.push(Holder { peer, request });
        self.late = false;
    }

    /// True if it was asked of this peer by this request.
    pub fn remove(&mut self, peer: PeerId, request: u64) -> bool {
        let before = self.by.len();
        self.by.retain(|holder| *holder != Holder { peer, request });
        if self.by.is_empty() {
            *self = Asked::default();
        }
        self.by.len() < before
    }

    /// Of whom it was asked, as peer and request.
    pub fn holders(&self) -> impl Iterator<Item = (PeerId, u64)> + '_ {
        self.by.iter().map(|holder| (holder.peer, holder.request))
    }
}

impl Desk {
    pub fn new(config: Config) -> Self {
        Desk {
            config,
            wants: Wants::default(),
            actions: VecDeque::new(),
            blocks: BTreeMap::new(),
            late: BTreeSet::new(),
            expected: HashMap::default(),
            upgrade: Asked::default(),
            manifest: Asked::default(),
            forks: Forks::default(),
            bytes: 0,
            in_flight: 0,
            short_of_room: false,
            block_size: None,
            fastest: None,
            random: config.seed | 1,
        }
    }

    /// Sends the peer one more request, if it has room and there is something to ask it for.
    pub fn pick(&mut self, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        if !peer.is_active() || self.forks.is_applying() || !self.has_room(peer, view) {
            return false;
        }
        self.pick_manifest(id, peer, view)
            || self.pick_fork(id, peer, view)
            || self.pick_seek(id, peer, view)
            || self.pick_queued(Source::Gets, id, peer, view)
            || self.pick_late(true, id, peer, view)
            || self.pick_queued(Source::Retries, id, peer, view)
            || self.pick_range(id, peer, view)
            || self.pick_upgrade(id, peer, view)
            || self.pick_late(false, id, peer, view)
    }

    fn has_room(&mut self, peer: &Peer, view: View<'_>) -> bool {
        let size = self.guess_size(view.local);
        let room = self.in_flight == 0 || self.bytes.saturating_add(size) <= MAX_BYTES;
        self.short_of_room |= !room;
        room && peer.has_room(size)
    }

    /// How many bytes the next block may have.
    fn guess_size(&self, local: &dyn Local) -> u64 {
        let head = local.head();
        let average = head.byte_length().checked_div(head.length());
        self.block_size.or(average).unwrap_or(UNKNOWN_BLOCK)
    }

    /// Takes in the size of a block that arrived: large ones count at once, small ones little by little.
    pub fn saw_block(&mut self, size: u64) {
        let guess = self.block_size.map_or(size, |guess| size.max(guess - guess.saturating_sub(size) / 8));
        self.block_size = Some(guess);
    }

    fn pick_manifest(&mut self, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        // Where there is a log to ask for, the request for it asks for the manifest as well.
        if peer.length() > 0 || !self.lacks_manifest(id, peer, view) {
            return false;
        }
        self.send(id, peer, view, merkle::Request::default(), Purpose::Log, 0);
        true
    }

    fn lacks_manifest(&self, id: PeerId, peer: &Peer, view: View<'_>) -> bool {
        let offered = peer.sync.is_some_and(|sync| sync.has_manifest) && !peer.refused.manifest;
        offered && !view.local.has_manifest() && self.manifest.may_ask(id)
    }

    fn pick_fork(&mut self, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        if !self.config.allow_fork || peer.fork() <= view.local.head().fork || peer.length() == 0 || peer.refused.fork {
            return false;
        }
        let random = self.roll();
        let Some(wanted) = self.forks.next_request(id, peer, random) else {
            if let Some((start, end)) = self.forks.next_blocks(peer) {
                self.want_segments(id, peer, start, end, view);
            }
            return false;
        };
        self.send(id, peer, view, wanted, Purpose::Fork, 0);
        true
    }

    fn pick_seek(&mut self, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        let head = view.local.head();
        if self.wants.seeks.is_empty() || peer.fork() != head.fork {
            return false;
        }
        let random = self.roll();
        let can_upgrade = self.can_upgrade(id, peer, view);
        let found = self.wants.seeks.iter().find_map(|(want, seek)| {
            if !seek.asked.may_ask(id) || peer.refused.seeks.contains(want) {
                return None;
            }
            let place = SeekRequest { bytes: seek.bytes, padding: seek.padding };
            let mut wanted = merkle::Request { seek: peer.seeks.then_some(place), ..Default::default() };
            match seek.state {
                Seek::Within { start, end } => wanted.hash = Some(seek_hash(start, end, peer, head.length(), random)?),
                _ if can_upgrade => {}
                _ => return None,
            }
            Some((*want, wanted))
        });
        let Some((want, wanted)) = found else { return false };
        self.send(id, peer, view, wanted, Purpose::Seek(want), 1);
        true
    }

    /// Asks for a block that is queued on its own: for a caller, or because it was asked for in vain.
    fn pick_queued(&mut self, source: Source, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        let priority = u64::from(source == Source::Gets);
        let mut at = peer.cursors.get(&source).map_or(0, |cursor| cursor.at);
        loop {
            let queue = if source == Source::Gets { &self.wants.gets } else { &self.wants.retries };
            let Some(&block) = queue.range(at..).next() else { break };
            at = block + 1;
            if !peer.remote.contains(block) {
                self.want_segments(id, peer, block, block + 1, view);
                let segment_end = (block / SEGMENT + 1) * SEGMENT;
                at = peer.remote.next_set(at).map_or(segment_end, |set| set.min(segment_end));
            } else if self.request_block(block, priority, id, peer, view) {
                if source == Source::Gets {
                    self.wants.gets.remove(&block);
                } else {
                    self.wants.retries.remove(&block);
                }
                peer.cursors.insert(source, Cursor { wrapped: false, at });
                return true;
            }
        }
        peer.cursors.insert(source, Cursor { wrapped: false, at: u64::MAX });
        false
    }

    /// Asks also this peer for a block that somebody else is late with.
    fn pick_late(&mut self, for_callers: bool, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        let eligible = |block: &&u64| {
            peer.remote.contains(**block)
                && self.wants.blocks.contains_key(*block) == for_callers
                && self.blocks.get(*block).is_some_and(|asked| asked.may_ask(id))
        };
        let Some(&block) = self.late.iter().find(eligible) else { return false };
        let sent = self.request_block(block, for_callers.into(), id, peer, view);
        self.late.remove(&block);
        sent
    }

    fn pick_range(&mut self, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        let head = view.local.head();
        if self.wants.ranges.is_empty() || peer.fork() != head.fork {
            return false;
        }
        let random = self.roll();
        for want in self.wants.some_ranges(MAX_RANGES, random) {
            while let Some(block) = self.next_in_range(want, peer, view) {
                if self.request_block(block, 0, id, peer, view) {
                    return true;
                }
            }
            self.want_range(want, id, peer, view);
        }
        false
    }

    /// The next block of a download that the peer has, we lack and nobody was asked for. The search goes on behind it.
    fn next_in_range(&mut self, want: WantId, peer: &mut Peer, view: View<'_>) -> Option<u64> {
        let random = self.roll();
        let range = self.wants.ranges.get_mut(&want)?;
        let end = range_end(range, peer, view.local);
        if let Download::Blocks(blocks) = &range.what {
            let cursor = peer.cursors.entry(Source::Range(want)).or_default();
            cursor.at = cursor.at.max(range.start);
            let end = range.end.unwrap_or(0);
            while cursor.at < end {
                let block = blocks.get(cursor.at as usize).copied()?;
                cursor.at += 1;
                let lacking = !view.local.has(block) && !self.blocks.contains_key(&block);
                if lacking && peer.remote.contains(block) {
                    return Some(block);
                }
            }
            return None;
        }
        if range.start >= end {
            return None;
        }
        // Alone with peers that have everything, in order: proofs are shortest so. Among others that download too, from anywhere: they
        // will have what we lack, and lack what we have.
        let in_order = range.linear || !view.company;
        let start = range.start;
        let somewhere = if in_order { 0 } else { start + (random % (end - start)) / 64 * 64 };
        let origin = *range.origin.get_or_insert(somewhere.max(if in_order { 0 } else { start }));
        let first = Cursor { wrapped: false, at: origin };
        let mut cursor = *peer.cursors.get(&Source::Range(want)).unwrap_or(&first);
        let found = loop {
            let (from, to) = if cursor.wrapped { (start, origin.min(end)) } else { (origin.max(start), end) };
            cursor.at = cursor.at.max(from);
            match peer.remote.next_missing(cursor.at, to, view.local) {
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
        peer.cursors.insert(Source::Range(want), cursor);
        found
    }

    /// Asks the peer which blocks it has where a download goes on.
    fn want_range(&mut self, want: WantId, id: PeerId, peer: &mut Peer, view: View<'_>) {
        let Some(range) = self.wants.ranges.get(&want) else { return };
        let (start, end) = match &range.what {
            Download::Range { .. } => (range.start, range_end(range, peer, view.local)),
            Download::Blocks(blocks) => {
                let left = blocks.get(range.start as usize..).unwrap_or(&[]);
                let lacking = left.iter().filter(|block| !view.local.has(**block) && **block < peer.length());
                let lacking: Vec<u64> = lacking.take(SEGMENTS * 4).copied().collect();
                for block in lacking {
                    self.want_segments(id, peer, block, block + 1, view);
                }
                return;
            }
        };
        self.want_segments(id, peer, start, end, view);
    }

    fn want_segments(&mut self, id: PeerId, peer: &mut Peer, start: u64, end: u64, view: View<'_>) {
        let end = end.min(peer.length());
        if peer.next_want.is_some() {
            return;
        }
        for sent in 0..SEGMENTS {
            let Some(segment) = peer.remote.next_unasked(start, end) else { return };
            if sent == 0 {
                peer.remote.tidy(view.local);
            }
            if !peer.remote.want(segment) {
                return;
            }
            let message = Message::Want(Span { start: segment * SEGMENT, length: SEGMENT });
            self.actions.push_back(Action::Send { peer: id, message });
            peer.telling = Some(view.now + SEGMENTS_PAUSE);
            if sent + 1 == SEGMENTS {
                peer.next_want = Some(view.now + SEGMENTS_PAUSE);
            }
        }
    }

    fn pick_upgrade(&mut self, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        if !self.wants_upgrade() || !self.can_upgrade(id, peer, view) {
            return false;
        }
        self.send(id, peer, view, merkle::Request::default(), Purpose::Log, 0);
        true
    }

    pub fn wants_upgrade(&self) -> bool {
        self.config.eager_upgrade || !self.wants.upgrades.is_empty()
    }

    /// Whether a longer head can be asked of the peer now.
    fn can_upgrade(&self, id: PeerId, peer: &Peer, view: View<'_>) -> bool {
        let head = view.local.head();
        peer.can_upgrade_us(head.fork, head.length()) && self.upgrade.may_ask(id)
    }

    /// Asks the peer for a block, if it can answer so that we can verify it.
    fn request_block(&mut self, block: u64, priority: u64, id: PeerId, peer: &mut Peer, view: View<'_>) -> bool {
        let head = view.local.head();
        if peer.fork() != head.fork || block >= peer.length() || view.local.has(block) {
            return false;
        }
        let must_upgrade = block >= head.length();
        let mut path = Path { nodes: 0, leans: None };
        if must_upgrade {
            if !self.can_upgrade(id, peer, view) {
                return false;
            }
        } else {
            // What is urgent may be answered before what was asked for earlier.
            path = self.path(block, id, peer, priority == 0, view.local);
            if !knows_ancestor(block, path.nodes, peer, head.length()) {
                return false;
            }
        }
        let wanted = Some(NodeRequest { index: block, nodes: path.nodes });
        let wanted = merkle::Request { block: wanted, ..Default::default() };
        let request = self.complete(id, peer, view, wanted, must_upgrade || self.wants_upgrade(), priority);
        if !must_upgrade {
            self.expect(block, path.nodes, Holder { peer: id, request: request.id });
        }
        self.send_off(id, peer, view, request, Purpose::Log, path.leans);
        true
    }

    /// How far up from a block nodes are missing, and on which earlier request to `peer` that counts.
    fn path(&self, block: u64, id: PeerId, peer: &Peer, lean: bool, local: &dyn Local) -> Path {
        let mut at = NodeIndex::of_block(block);
        let mut nodes = 0;
        // An unreadable node counts as missing; it is the commit that reports it.
        while at.end_block() <= local.head().length() && !is_held(local, at) {
            if lean && peer.may_lean() {
                let expected = self.expected.get(&at).filter(|holder| holder.peer == id);
                if let Some(holder) = expected {
                    return Path { nodes, leans: Some(holder.request) };
                }
            }
            at = at.parent();
            nodes += 1;
        }
        Path { nodes, leans: None }
    }

    /// The answer to a request will bring the nodes on the way `nodes` levels up from `block`, and those beside it.
    fn expect(&mut self, block: u64, nodes: u64, holder: Holder) {
        for index in brought_along(block, nodes) {
            self.expected.entry(index).or_insert(holder);
        }
    }

    /// The request is settled: its nodes are held, or will not come.
    pub fn expect_no_more(&mut self, request: &Request, peer: PeerId) {
        let Some(block) = request.wanted.block else { return };
        let holder = Holder { peer, request: request.id };
        for index in brought_along(block.index, block.nodes) {
            if self.expected.get(&index) == Some(&holder) {
                self.expected.remove(&index);
            }
        }
    }

    fn send(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        view: View<'_>,
        wanted: merkle::Request,
        purpose: Purpose,
        priority: u64,
    ) {
        let seeks_beyond = wanted.seek.is_some() && wanted.hash.is_none();
        let upgrade = purpose != Purpose::Fork && (seeks_beyond || self.wants_upgrade());
        let request = self.complete(id, peer, view, wanted, upgrade, priority);
        self.send_off(id, peer, view, request, purpose, None);
    }

    /// Makes a request that also asks for a longer head and the manifest, where those are wanted and can be had.
    fn complete(
        &self,
        id: PeerId,
        peer: &mut Peer,
        view: View<'_>,
        mut wanted: merkle::Request,
        upgrade: bool,
        priority: u64,
    ) -> Request {
        if upgrade && self.can_upgrade(id, peer, view) {
            let start = view.local.head().length();
            wanted.upgrade = Some(UpgradeRequest { start, length: peer.length() - start });
        }
        let manifest = self.lacks_manifest(id, peer, view);
        let number = peer.next_id;
        peer.next_id += 1;
        Request { id: number, fork: peer.fork(), wanted, manifest, priority }
    }

    /// Sends a request and remembers that it was sent.
    fn send_off(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        view: View<'_>,
        request: Request,
        purpose: Purpose,
        leans: Option<u64>,
    ) {
        let wanted = &request.wanted;
        if let Some(block) = wanted.block {
            self.blocks.entry(block.index).or_default().add(id, request.id);
        }
        if wanted.upgrade.is_some() && purpose != Purpose::Fork {
            self.upgrade.add(id, request.id);
        }
        if request.manifest {
            self.manifest.add(id, request.id);
        }
        match purpose {
            Purpose::Log => {}
            Purpose::Seek(want) => {
                if let Some(seek) = self.wants.seeks.get_mut(&want) {
                    seek.asked.add(id, request.id);
                }
            }
            Purpose::Fork => self.forks.asked(id, &request),
        }
        let bytes = if wanted.block.is_some() { self.guess_size(view.local) } else { SMALL_ANSWER };
        let due = view.now + self.patience();
        let in_flight =
            InFlight { request, purpose, at: view.now, due, bytes, answered: false, committing: false, leans };
        peer.requests.insert(request.id, in_flight);
        peer.due = peer.due.into_iter().chain([due]).min();
        peer.bytes += bytes;
        self.bytes += bytes;
        self.in_flight += 1;
        self.actions.push_back(Action::Send { peer: id, message: Message::Request(request) });
    }

    /// A request takes long: what it asks for may be asked of somebody else as well. True if that is a longer head.
    pub fn is_late(&mut self, request: &Request, purpose: Purpose) -> bool {
        if let Some(block) = request.wanted.block {
            if let Some(asked) = self.blocks.get_mut(&block.index) {
                asked.late = true;
                self.late.insert(block.index);
            }
        }
        if request.manifest {
            self.manifest.late = true;
        }
        match purpose {
            Purpose::Fork => {
                self.forks.is_late(request);
                return false;
            }
            Purpose::Seek(want) => {
                if let Some(seek) = self.wants.seeks.get_mut(&want) {
                    seek.asked.late = true;
                }
            }
            Purpose::Log => {}
        }
        self.upgrade.late |= request.wanted.upgrade.is_some();
        request.wanted.upgrade.is_some()
    }

    /// How long to wait for an answer before somebody else is asked.
    pub fn patience(&self) -> Duration {
        self.fastest.map_or(FIRST_PATIENCE, |fastest| (fastest * PATIENCE).clamp(MIN_PATIENCE, MAX_PATIENCE))
    }

    /// How long to wait before looking again at a request that is late already.
    pub fn more_patience(&self) -> Duration {
        (self.patience() * PATIENCE).min(MAX_PATIENCE)
    }

    fn roll(&mut self) -> u64 {
        // Xorshift: only spreads load, nobody gains by guessing it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Where a download ends for now: at its end, that of the own log, or that of the peer's.
fn range_end(range: &RangeWant, peer: &Peer, local: &dyn Local) -> u64 {
    range.end.unwrap_or(u64::MAX).min(local.head().length()).min(peer.length())
}

/// The nodes that a proof brings that leads `nodes` levels up from `block`: all on the way, and those beside.
fn brought_along(block: u64, nodes: u64) -> impl Iterator<Item = NodeIndex> {
    let way = std::iter::successors(Some(NodeIndex::of_block(block)), |at| Some(at.parent()));
    way.take(nodes as usize).flat_map(|at| [at, at.sibling()])
}

/// Whether the node `nodes` levels above `block`, which we trust, is in the tree of the peer, which may be shorter than ours.
fn knows_ancestor(block: u64, nodes: u64, peer: &Peer, length: u64) -> bool {
    peer.length() >= length || (block >> nodes.min(63) << nodes.min(63)) + (1 << nodes.min(52)) <= peer.length()
}

/// What to ask for to learn where a byte is in the blocks `start..end`, which are the span of a node we trust.
fn seek_hash(start: u64, end: u64, peer: &Peer, length: u64, random: u64) -> Option<NodeRequest> {
    let known = peer.length().min(end);
    if end <= start || known <= start || (peer.length() < length && peer.length() < end) {
        return None;
    }
    let somewhere = start + random % (known - start);
    let after = peer.remote.next_set(somewhere).filter(|block| *block < known);
    let block = after.or_else(|| peer.remote.next_set(start).filter(|block| *block < known))?;
    let top = NodeIndex(start + end - 1);
    Some(NodeRequest { index: NodeIndex::of_block(block).0, nodes: top.depth().into() })
}
