//! What was asked of the peers together, what for, and what it will bring.
//!
//! A block is asked for with only those nodes of its proof that are neither held nor brought by a request that went to the same peer
//! before: such a request *depends_on* on the earlier one, and its answer waits for the other's. Without this, the hundreds of requests in
//! flight would each be answered with the same nodes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::action::Action;
use super::downloads::Downloads;
use super::id::PeerId;
use super::in_flight::{InFlight, Purpose, RequestRef, RequestedFrom};
use super::local::{Local, is_held};
use super::message::{Message, Request};
use super::peer::RemotePeer;
use super::reorg::Forks;
use crate::index::{BuildIndexHasher, NodeIndex};
use crate::merkle::{self, UpgradeRequest};

/// The most bytes asked of all peers together, as far as sizes can be guessed.
const MAX_BYTES: u64 = 64 << 20;

/// What an answer without a block is taken to have.
const SMALL_ANSWER: u64 = 2048;

/// What a block is taken to have before anything is known.
const UNKNOWN_BLOCK: u64 = 64 << 10;

/// How long an answer may take before somebody else is asked: this many times what the fastest peer takes, within bounds.
const PATIENCE: u32 = 4;
const MIN_PATIENCE: Duration = Duration::from_millis(250);
const MAX_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// How a core replicates.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The fewest and the most requests in flight with one peer.
    pub in_flight: (usize, usize),
    /// Where the choice among equals starts from.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config { in_flight: (16, 512), seed: 0 }
    }
}

/// What was asked of the peers together, and what for.
pub(super) struct Scheduler {
    pub config: Config,
    pub downloads: Downloads,
    pub actions: VecDeque<Action>,
    /// Blocks asked for.
    pub blocks: BTreeMap<u64, RequestedFrom>,
    /// Those of them that may be asked of somebody else as well.
    pub late: BTreeSet<u64>,
    /// The nodes that answers on their way will bring.
    expected: HashMap<NodeIndex, RequestRef, BuildIndexHasher>,
    /// The longer head.
    pub upgrade: RequestedFrom,
    pub manifest: RequestedFrom,
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

/// The way up from a block to what is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// How many levels up.
    pub nodes: u64,
    /// The request that will bring what is known there; none if it is held already.
    pub depends_on: Option<u64>,
}

/// What does not change while requests are picked.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub local: &'a dyn Local,
    pub now: Duration,
    /// Whether some peer is a downloader itself, so that it pays not to ask for the same blocks as it does.
    pub company: bool,
}

impl Scheduler {
    pub fn new(config: Config) -> Self {
        Scheduler {
            config,
            downloads: Downloads::default(),
            actions: VecDeque::new(),
            blocks: BTreeMap::new(),
            late: BTreeSet::new(),
            expected: HashMap::default(),
            upgrade: RequestedFrom::default(),
            manifest: RequestedFrom::default(),
            forks: Forks::default(),
            bytes: 0,
            in_flight: 0,
            short_of_room: false,
            block_size: None,
            fastest: None,
            random: config.seed | 1,
        }
    }

    /// Whether a longer head can be asked of the peer now.
    pub fn can_upgrade(&self, id: PeerId, peer: &RemotePeer, view: Context<'_>) -> bool {
        let head = view.local.head();
        peer.can_upgrade_us(head.fork, head.length()) && self.upgrade.may_ask(id)
    }

    pub fn lacks_manifest(&self, id: PeerId, peer: &RemotePeer, view: Context<'_>) -> bool {
        let offered = peer.sync.is_some_and(|sync| sync.has_manifest) && !peer.refused.manifest;
        offered && !view.local.has_manifest() && self.manifest.may_ask(id)
    }

    pub fn has_room(&mut self, peer: &RemotePeer, view: Context<'_>) -> bool {
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

    /// How far up from a block nodes are missing, and on which earlier request to `peer` that counts.
    pub fn path(&self, block: u64, id: PeerId, peer: &RemotePeer, may_depend: bool, local: &dyn Local) -> Path {
        let mut at = NodeIndex::of_block(block);
        let mut nodes = 0;
        // An unreadable node counts as missing; it is the commit that reports it.
        while at.end_block() <= local.head().length() && !is_held(local, at) {
            if may_depend && peer.may_depend() {
                let expected = self.expected.get(&at).filter(|holder| holder.peer == id);
                if let Some(holder) = expected {
                    return Path { nodes, depends_on: Some(holder.request) };
                }
            }
            at = at.parent();
            nodes += 1;
        }
        Path { nodes, depends_on: None }
    }

    /// The answer to a request will bring the nodes on the way `nodes` levels up from `block`, and those beside it.
    pub fn expect(&mut self, block: u64, nodes: u64, holder: RequestRef) {
        for index in brought_along(block, nodes) {
            self.expected.entry(index).or_insert(holder);
        }
    }

    /// The request is settled: its nodes are held, or will not come.
    pub fn expect_no_more(&mut self, request: &Request, peer: PeerId) {
        let Some(block) = request.wanted.block else { return };
        let holder = RequestRef { peer, request: request.id };
        for index in brought_along(block.index, block.nodes) {
            if self.expected.get(&index) == Some(&holder) {
                self.expected.remove(&index);
            }
        }
    }

    pub fn send(
        &mut self,
        id: PeerId,
        peer: &mut RemotePeer,
        view: Context<'_>,
        wanted: merkle::Request,
        purpose: Purpose,
        priority: u64,
    ) {
        let request = self.complete(id, peer, view, wanted, purpose, priority);
        self.send_off(id, peer, view, request, purpose, None);
    }

    /// Makes a request that also asks for a longer head and the manifest, where those are wanted and can be had.
    pub fn complete(
        &self,
        id: PeerId,
        peer: &mut RemotePeer,
        view: Context<'_>,
        mut wanted: merkle::Request,
        purpose: Purpose,
        priority: u64,
    ) -> Request {
        if purpose != Purpose::Fork && self.can_upgrade(id, peer, view) {
            let start = view.local.head().length();
            wanted.upgrade = Some(UpgradeRequest { start, length: peer.length() - start });
        }
        let manifest = self.lacks_manifest(id, peer, view);
        let number = peer.next_id;
        peer.next_id += 1;
        Request { id: number, fork: peer.fork(), wanted, manifest, priority }
    }

    /// Sends a request and remembers that it was sent.
    pub fn send_off(
        &mut self,
        id: PeerId,
        peer: &mut RemotePeer,
        view: Context<'_>,
        request: Request,
        purpose: Purpose,
        depends_on: Option<u64>,
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
                if let Some(seek) = self.downloads.seeks.get_mut(&want) {
                    seek.asked.add(id, request.id);
                }
            }
            Purpose::Fork => self.forks.asked(id, &request),
        }
        let bytes = if wanted.block.is_some() { self.guess_size(view.local) } else { SMALL_ANSWER };
        let due = view.now + self.patience();
        let in_flight =
            InFlight { request, purpose, at: view.now, due, bytes, answered: false, committing: false, depends_on };
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
                if let Some(seek) = self.downloads.seeks.get_mut(&want) {
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

    pub fn roll(&mut self) -> u64 {
        // Xorshift: only spreads load, nobody gains by guessing it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// The nodes that a proof brings that leads `nodes` levels up from `block`: all on the way, and those beside.
fn brought_along(block: u64, nodes: u64) -> impl Iterator<Item = NodeIndex> {
    let way = std::iter::successors(Some(NodeIndex::of_block(block)), |at| Some(at.parent()));
    way.take(nodes as usize).flat_map(|at| [at, at.sibling()])
}
