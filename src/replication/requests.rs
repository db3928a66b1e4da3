//! The requests in flight to all peers, the proof nodes they will bring, and the limits on them.
//!
//! A block is requested with only those nodes of its proof that are neither held nor brought by an earlier
//! request to the same peer. Such a request *depends on* the earlier one, and its response waits for the
//! other's. Otherwise the hundreds of requests in flight would each be answered with the same nodes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::action::Action;
use super::downloads::Downloads;
use super::forks::Forks;
use super::id::PeerId;
use super::in_flight::{InFlight, Purpose, RequestRef, RequestedFrom};
use super::local::{Local, is_held};
use super::message::{Message, Request};
use super::peer::RemotePeer;
use crate::index::{BuildIndexHasher, NodeIndex};
use crate::merkle::{self, UpgradeRequest};

/// The most bytes requested from all peers, as far as sizes can be estimated.
const MAX_BYTES: u64 = 64 << 20;

/// The size that a response without a block is estimated to have.
const SMALL_RESPONSE: u64 = 2048;

/// The size that a block is estimated to have before any is known.
const UNKNOWN_BLOCK_SIZE: u64 = 64 << 10;

/// A request is late after this many times the response time of the fastest peer, within bounds. Then the same
/// may be requested from another peer.
const REQUEST_TIMEOUT_FACTOR: u32 = 4;
const MIN_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const INITIAL_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How a core replicates.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The least and the most requests in flight to one peer.
    pub in_flight: (usize, usize),
    /// The seed of random choices. They only spread load.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config { in_flight: (16, 512), seed: 0 }
    }
}

pub(super) struct Requests {
    pub config: Config,
    pub downloads: Downloads,
    pub actions: VecDeque<Action>,
    /// The blocks in flight.
    pub blocks: BTreeMap<u64, RequestedFrom>,
    /// Blocks in flight that may be requested from another peer as well.
    pub late: BTreeSet<u64>,
    /// The nodes that responses in flight will bring, and the request of each.
    expected_nodes: HashMap<NodeIndex, RequestRef, BuildIndexHasher>,
    /// The requests for a longer head.
    pub upgrade: RequestedFrom,
    pub manifest: RequestedFrom,
    pub forks: Forks,
    /// The estimated size, and the number, of all responses in flight.
    pub bytes: u64,
    pub in_flight: usize,
    /// Whether a request was not sent because of [`MAX_BYTES`]. The next settled request then lets all peers
    /// be picked again.
    pub over_budget: bool,
    /// The estimated size of the next block, from recent ones.
    pub block_size: Option<u64>,
    /// The response time of the fastest peer.
    pub fastest_response: Option<Duration>,
    /// Increments with each round of requests; selects the peer that comes first.
    pub rotation: usize,
    pub random: u64,
}

/// The path from a block up to a node that is held or expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProofPath {
    /// The number of levels.
    pub nodes: u64,
    /// The request that will bring the node at its end; none if it is held.
    pub depends_on: Option<u64>,
}

/// The values that stay the same while requests are picked.
#[derive(Clone, Copy)]
pub(super) struct PickContext<'a> {
    pub local: &'a dyn Local,
    pub now: Duration,
    /// Whether some peer is downloading itself, so that it is better not to request the same blocks as it does.
    pub other_downloaders: bool,
}

impl Requests {
    pub fn new(config: Config) -> Self {
        Requests {
            config,
            downloads: Downloads::default(),
            actions: VecDeque::new(),
            blocks: BTreeMap::new(),
            late: BTreeSet::new(),
            expected_nodes: HashMap::default(),
            upgrade: RequestedFrom::default(),
            manifest: RequestedFrom::default(),
            forks: Forks::default(),
            bytes: 0,
            in_flight: 0,
            over_budget: false,
            block_size: None,
            fastest_response: None,
            rotation: 0,
            random: config.seed | 1,
        }
    }

    /// Whether a longer head can be requested from the peer now.
    pub fn can_upgrade(&self, id: PeerId, peer: &RemotePeer, context: PickContext<'_>) -> bool {
        let head = context.local.head();
        peer.can_upgrade_us(head.fork, head.length()) && self.upgrade.may_request(id)
    }

    pub fn lacks_manifest(&self, id: PeerId, peer: &RemotePeer, context: PickContext<'_>) -> bool {
        let offered = peer.remote_sync.is_some_and(|sync| sync.has_manifest) && !peer.refused.manifest;
        offered && !context.local.has_manifest() && self.manifest.may_request(id)
    }

    pub fn has_room(&mut self, peer: &RemotePeer, context: PickContext<'_>) -> bool {
        let size = self.estimate_block_size(context.local);
        let room = self.in_flight == 0 || self.bytes.saturating_add(size) <= MAX_BYTES;
        self.over_budget |= !room;
        room && peer.has_room(size)
    }

    /// The estimated size of the next block.
    fn estimate_block_size(&self, local: &dyn Local) -> u64 {
        let head = local.head();
        let average = head.byte_length().checked_div(head.length());
        self.block_size.or(average).unwrap_or(UNKNOWN_BLOCK_SIZE)
    }

    /// Updates the estimate: to a larger size at once, to a smaller one by an eighth of the difference.
    pub fn record_block_size(&mut self, size: u64) {
        let estimate = self.block_size.map_or(size, |estimate| size.max(estimate - estimate.saturating_sub(size) / 8));
        self.block_size = Some(estimate);
    }

    /// How many levels of nodes above `block` are missing, up to a node that is held or, with `may_depend`,
    /// that a request in flight to the same peer will bring.
    pub fn proof_path(
        &self,
        block: u64,
        id: PeerId,
        peer: &RemotePeer,
        may_depend: bool,
        local: &dyn Local,
    ) -> ProofPath {
        let mut at = NodeIndex::of_block(block);
        let mut nodes = 0;
        // A node that cannot be read counts as missing; the commit reports the error.
        while at.end_block() <= local.head().length() && !is_held(local, at) {
            if may_depend && peer.may_depend() {
                let expected = self.expected_nodes.get(&at).filter(|source| source.peer == id);
                if let Some(source) = expected {
                    return ProofPath { nodes, depends_on: Some(source.request) };
                }
            }
            at = at.parent();
            nodes += 1;
        }
        ProofPath { nodes, depends_on: None }
    }

    /// Records the nodes that a response will bring: `nodes` levels up from `block`, and their siblings.
    pub fn expect_nodes(&mut self, block: u64, nodes: u64, source: RequestRef) {
        for index in nodes_in_proof(block, nodes) {
            self.expected_nodes.entry(index).or_insert(source);
        }
    }

    /// Removes the nodes that the request was to bring: they are held now, or will not come.
    pub fn forget_expected(&mut self, request: &Request, peer: PeerId) {
        let Some(block) = request.wanted.block else { return };
        let source = RequestRef { peer, request: request.id };
        for index in nodes_in_proof(block.index, block.nodes) {
            if self.expected_nodes.get(&index) == Some(&source) {
                self.expected_nodes.remove(&index);
            }
        }
    }

    pub fn request(
        &mut self,
        id: PeerId,
        peer: &mut RemotePeer,
        context: PickContext<'_>,
        wanted: merkle::Request,
        purpose: Purpose,
        priority: u64,
    ) {
        let request = self.build_request(id, peer, context, wanted, purpose, priority);
        self.send_request(id, peer, context, request, purpose, None);
    }

    /// Numbers a request, and adds a longer head and the manifest to it if they are missing and the peer has them.
    pub fn build_request(
        &self,
        id: PeerId,
        peer: &mut RemotePeer,
        context: PickContext<'_>,
        mut wanted: merkle::Request,
        purpose: Purpose,
        priority: u64,
    ) -> Request {
        if purpose != Purpose::Fork && self.can_upgrade(id, peer, context) {
            let start = context.local.head().length();
            wanted.upgrade = Some(UpgradeRequest { start, length: peer.length() - start });
        }
        let manifest = self.lacks_manifest(id, peer, context);
        let number = peer.next_id;
        peer.next_id += 1;
        Request { id: number, fork: peer.fork(), wanted, manifest, priority }
    }

    /// Sends a request and records it as in flight.
    pub fn send_request(
        &mut self,
        id: PeerId,
        peer: &mut RemotePeer,
        context: PickContext<'_>,
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
            Purpose::Seek(waiter) => {
                if let Some(seek) = self.downloads.seeks.get_mut(&waiter) {
                    seek.requested.add(id, request.id);
                }
            }
            Purpose::Fork => self.forks.requested(id, &request),
        }
        let bytes = if wanted.block.is_some() { self.estimate_block_size(context.local) } else { SMALL_RESPONSE };
        let late_at = context.now + self.request_timeout();
        let in_flight = InFlight {
            request,
            purpose,
            sent_at: context.now,
            late_at,
            bytes,
            answered: false,
            committing: false,
            depends_on,
        };
        peer.requests.insert(request.id, in_flight);
        peer.next_late_at = peer.next_late_at.into_iter().chain([late_at]).min();
        peer.bytes += bytes;
        self.bytes += bytes;
        self.in_flight += 1;
        self.actions.push_back(Action::Send { peer: id, message: Message::Request(request) });
    }

    /// Records that a request is late, so that what it asks for may be requested from another peer. Returns
    /// whether it asks for a longer head.
    pub fn mark_late(&mut self, request: &Request, purpose: Purpose) -> bool {
        if let Some(block) = request.wanted.block {
            if let Some(requested) = self.blocks.get_mut(&block.index) {
                requested.late = true;
                self.late.insert(block.index);
            }
        }
        if request.manifest {
            self.manifest.late = true;
        }
        match purpose {
            Purpose::Fork => {
                self.forks.mark_late(request);
                return false;
            }
            Purpose::Seek(waiter) => {
                if let Some(seek) = self.downloads.seeks.get_mut(&waiter) {
                    seek.requested.late = true;
                }
            }
            Purpose::Log => {}
        }
        self.upgrade.late |= request.wanted.upgrade.is_some();
        request.wanted.upgrade.is_some()
    }

    /// After how long a request is late.
    pub fn request_timeout(&self) -> Duration {
        self.fastest_response.map_or(INITIAL_REQUEST_TIMEOUT, |fastest| {
            (fastest * REQUEST_TIMEOUT_FACTOR).clamp(MIN_REQUEST_TIMEOUT, MAX_REQUEST_TIMEOUT)
        })
    }

    /// After how long a late request is late again.
    pub fn repeated_request_timeout(&self) -> Duration {
        (self.request_timeout() * REQUEST_TIMEOUT_FACTOR).min(MAX_REQUEST_TIMEOUT)
    }

    pub fn next_random(&mut self) -> u64 {
        // Xorshift: only spreads load; a peer gains nothing by guessing it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// The nodes that a proof of `nodes` levels up from `block` brings: those on the path, and their siblings.
fn nodes_in_proof(block: u64, nodes: u64) -> impl Iterator<Item = NodeIndex> {
    let path = std::iter::successors(Some(NodeIndex::of_block(block)), |at| Some(at.parent()));
    path.take(nodes as usize).flat_map(|at| [at, at.sibling()])
}
