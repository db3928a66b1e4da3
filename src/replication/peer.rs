//! The state of one peer: what it announced, the requests in flight to it, the responses that wait for an
//! earlier one, and what is not requested from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::cursor::{BlockQueue, Cursor};
use super::id::{PeerId, WaiterId};
use super::in_flight::{InFlight, Purpose};
use super::local::{Local, is_held};
use super::message::{Data, Extension, Message, Range, Request, Sync};
use super::refusals::Refused;
use super::remote_bitfield::RemoteBitfield;
use super::request_window::RequestWindow;
use super::upload_queue::UploadQueue;
use crate::Error;
use crate::index::NodeIndex;

/// Messages of an extension with a longer name are ignored, because the last name has to be kept.
const MAX_EXTENSION_NAME: usize = 1024;

/// When this many failed requests are recorded, those that no request in flight depends on are dropped.
const MAX_FAILED: usize = 2048;

/// Blocks refused beyond this many are not requested again from the peer before it announces them again.
const MAX_REFUSED: usize = 4096;

/// The most bytes requested from one peer at a time, as far as sizes can be estimated.
const MAX_BYTES: u64 = 16 << 20;

/// The state of a peer, as its messages describe it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// The peer.
    pub peer: PeerId,
    /// The fork of its log.
    pub fork: u64,
    /// The length of its log.
    pub length: u64,
    /// How many blocks it is known to have from block 0 without a gap.
    pub contiguous_length: u64,
    /// Whether it says that it can prove its head to us.
    pub can_upgrade: bool,
    /// Whether it says that it answers requests.
    pub uploading: bool,
    /// Whether it says that it wants more blocks.
    pub downloading: bool,
    /// How many requests to it are in flight.
    pub in_flight: usize,
}

pub(super) struct RemotePeer {
    /// Whether it answers requests with a seek.
    pub seeks: bool,
    /// The last `Sync` received; none before the first.
    pub remote_sync: Option<Sync>,
    /// The last `Sync` sent.
    pub local_sync: Option<Sync>,
    /// The blocks it has, as far as known.
    pub bitfield: RemoteBitfield,
    /// The peer's own requests.
    pub upload_queue: UploadQueue,
    /// The requests in flight, by number and so by age.
    pub requests: BTreeMap<u64, InFlight>,
    /// No request is late before this time.
    pub next_late_at: Option<Duration>,
    /// The number of the next request.
    pub next_id: u64,
    /// Responses that wait for the response of the request they depend on, which is the key.
    pub waiting_responses: HashMap<u64, Vec<Data>>,
    /// The size of the blocks in `waiting_responses`.
    pub waiting_bytes: usize,
    /// Requests whose nodes will not come, on which others in flight may still depend.
    pub failed: BTreeSet<u64>,
    /// All of `failed` have lower numbers than this.
    failed_before: u64,
    /// The estimated size of all responses in flight.
    pub bytes: u64,
    /// How many requests may be in flight.
    pub window: RequestWindow,
    /// The requests that the peer refused.
    pub refused: Refused,
    /// Until when the peer keeps an update open: it has not sent its first `Sync`, or its last one promised
    /// a longer log.
    pub sync_deadline: Option<Duration>,
    /// Set after an invalid proof: nothing more is requested from the peer.
    pub suspicion: Option<Suspicion>,
    /// Whether a conflict proof of the peer is being verified.
    pub checking_conflict: bool,
    /// How many conflict proofs it has sent, unasked, that showed no conflict.
    pub unfounded_conflicts: u32,
    /// How far each search has come. The blocks before a cursor were held, in flight, or could not be requested
    /// from this peer.
    pub cursors: HashMap<BlockQueue, Cursor>,
    /// Roots of the peer's log above blocks that searches skipped: we do not hold these nodes, and the peer's
    /// proofs do not reach further up.
    pub unknown_roots: BTreeSet<NodeIndex>,
    /// When the next `Want` may be sent; none if at once.
    pub next_want_at: Option<Duration>,
    /// Until when the last `Want` may be answered. A peer that has no block of the segments does not answer.
    pub bitfield_deadline: Option<Duration>,
    extension_sent: String,
    extension_received: Option<String>,
}

/// An invalid proof came from the peer. Before it is disconnected, it may prove that its log is signed
/// and contradicts ours.
#[derive(Debug)]
pub(super) struct Suspicion {
    pub error: Error,
    pub until: Duration,
}

impl RemotePeer {
    pub fn new(seeks: bool, window: usize) -> Self {
        RemotePeer {
            seeks,
            remote_sync: None,
            local_sync: None,
            bitfield: RemoteBitfield::default(),
            upload_queue: UploadQueue::default(),
            requests: BTreeMap::new(),
            next_late_at: None,
            next_id: 1,
            waiting_responses: HashMap::new(),
            waiting_bytes: 0,
            failed: BTreeSet::new(),
            failed_before: 0,
            bytes: 0,
            window: RequestWindow::new(window),
            refused: Refused::default(),
            sync_deadline: None,
            suspicion: None,
            checking_conflict: false,
            unfounded_conflicts: 0,
            cursors: HashMap::new(),
            unknown_roots: BTreeSet::new(),
            next_want_at: None,
            bitfield_deadline: None,
            extension_sent: String::new(),
            extension_received: Some(String::new()),
        }
    }

    /// The fork of its log; 0 before its first `Sync`.
    pub fn fork(&self) -> u64 {
        self.remote_sync.map_or(0, |sync| sync.fork)
    }

    /// The length of its log; 0 before its first `Sync`.
    pub fn length(&self) -> u64 {
        self.remote_sync.map_or(0, |sync| sync.length)
    }

    /// Records a `Sync`. Returns whether it differs from the last one.
    pub fn update_remote_sync(&mut self, sync: Sync) -> bool {
        if self.remote_sync == Some(sync) {
            return false;
        }
        self.remote_sync = Some(sync);
        self.forget_refusals();
        self.refused.reset_backoff();
        true
    }

    /// Whether anything may be requested from the peer.
    pub fn is_active(&self) -> bool {
        self.suspicion.is_none() && self.remote_sync.is_some_and(|sync| sync.uploading)
    }

    /// Whether one more request, with a response of about `bytes`, may be sent. Two are always allowed, so that
    /// blocks larger than the limit get through and the line does not fall silent after each.
    pub fn has_room(&self, bytes: u64) -> bool {
        let count = self.requests.len();
        count < self.window.size && (count < 2 || self.bytes.saturating_add(bytes) <= MAX_BYTES)
    }

    /// Whether new requests may depend on others in flight. Not while one in flight may depend on a failed one,
    /// or retries would depend on failed requests without end.
    pub fn may_depend(&self) -> bool {
        self.failed.is_empty()
    }

    /// Records that the nodes of a request will not come.
    pub fn mark_failed(&mut self, request: u64) {
        if self.failed.len() >= MAX_FAILED {
            let needed: BTreeSet<u64> = self.requests.values().filter_map(|request| request.depends_on).collect();
            self.failed.retain(|request| needed.contains(request));
        }
        self.failed.insert(request);
        self.failed_before = self.next_id;
    }

    /// Whether a request has failed or is still in flight.
    pub fn is_failed(&self, request: u64) -> bool {
        self.failed.contains(&request) || self.requests.contains_key(&request)
    }

    /// Forgets the failed requests once no request in flight is old enough to depend on them.
    pub fn clear_settled_failures(&mut self) {
        let oldest = self.requests.first_key_value().map(|(id, _)| *id);
        if !self.failed.is_empty() && oldest.is_none_or(|oldest| oldest >= self.failed_before) {
            self.failed.clear();
        }
    }

    /// The `Sync` to send; none if the last one was the same.
    pub fn next_sync(&mut self, local: &dyn Local, downloading: bool) -> Option<Message> {
        let head = local.head();
        let same_fork = head.fork == self.fork();
        let length = if same_fork { self.length() } else { 0 };
        let sync = Sync {
            fork: head.fork,
            length: head.length(),
            remote_length: length,
            can_upgrade: same_fork && can_upgrade(local, length),
            uploading: true,
            downloading,
            has_manifest: local.has_manifest() && !local.is_compat(),
        };
        if self.local_sync == Some(sync) {
            return None;
        }
        self.local_sync = Some(sync);
        Some(Message::Sync(sync))
    }

    /// Whether the peer says it can prove a longer head to us, starting at exactly our `length`.
    pub fn can_upgrade_us(&self, fork: u64, length: u64) -> bool {
        self.remote_sync.is_some_and(|sync| {
            sync.can_upgrade && sync.fork == fork && sync.length > length && sync.remote_length == length
        }) && !self.refused.upgrade
    }

    /// The `Range` that announces blocks of our `fork`; none if the peer is known to have them itself.
    pub fn announce(&mut self, start: u64, end: u64, drop: bool, fork: u64) -> Option<Message> {
        let known = !drop && fork == self.fork() && self.bitfield.next_unset(start) >= end;
        if start >= end || known {
            return None;
        }
        Some(Message::Range(Range { drop, start, length: end - start }))
    }

    pub fn extension(&mut self, name: &str, message: Vec<u8>) -> Message {
        let same = self.extension_sent == name;
        if !same {
            self.extension_sent = name.to_owned();
        }
        Message::Extension(Extension { name: if same { String::new() } else { name.to_owned() }, message })
    }

    /// The full name of the extension that a message belongs to; none if the last name was too long to be kept.
    pub fn extension_name(&mut self, name: String) -> Option<String> {
        if name.len() > MAX_EXTENSION_NAME {
            self.extension_received = None;
        } else if !name.is_empty() {
            self.extension_received = Some(name);
        }
        self.extension_received.clone()
    }

    /// When the next request may be late.
    pub fn next_late(&self) -> Option<Duration> {
        self.next_late_at.filter(|_| !self.requests.is_empty())
    }

    /// The requests that are late at `now`; they become late again at `again`.
    pub fn take_late(&mut self, now: Duration, again: Duration) -> Vec<(Request, Purpose)> {
        let mut late = Vec::new();
        let mut next = None;
        for request in self.requests.values_mut().filter(|request| !request.answered) {
            if request.late_at <= now {
                request.late_at = again;
                late.push((request.request, request.purpose));
            }
            next = next.into_iter().chain([request.late_at]).min();
        }
        self.next_late_at = next;
        late
    }

    /// Makes all searches look at the blocks of `start..end` again. `search_starts` returns where the search of
    /// a download begins; none for a list of blocks, which is then searched from its start.
    pub fn lower_cursors(&mut self, start: u64, end: u64, search_starts: impl Fn(WaiterId) -> Option<u64>) {
        for (source, cursor) in &mut self.cursors {
            let lower = match source {
                BlockQueue::Download(waiter) => match search_starts(*waiter) {
                    Some(search_start) if end <= search_start => Cursor { wrapped: true, at: start },
                    Some(search_start) => Cursor { wrapped: false, at: start.max(search_start) },
                    None => Cursor::default(),
                },
                _ => Cursor { wrapped: false, at: start },
            };
            *cursor = lower.min(*cursor);
        }
    }

    /// Makes the search in `source` look at the blocks from `at` on again.
    pub fn lower_cursor(&mut self, queue: BlockQueue, at: u64) {
        if let Some(cursor) = self.cursors.get_mut(&queue) {
            cursor.at = cursor.at.min(at);
        }
    }

    /// Removes the roots that have become known from `unknown_roots`; returns the span of blocks below them, if
    /// there are any.
    pub fn take_known_roots(&mut self, local: &dyn Local) -> Option<(u64, u64)> {
        let known: Vec<NodeIndex> = self.unknown_roots.iter().copied().filter(|root| is_held(local, *root)).collect();
        known.iter().for_each(|root| _ = self.unknown_roots.remove(root));
        Some((known.first()?.first_block(), known.last()?.end_block()))
    }

    /// The peer cannot send this block now.
    pub fn refuse_block(&mut self, block: u64, now: Duration) {
        self.bitfield.remove(block, block + 1);
        if self.refused.blocks.len() < MAX_REFUSED {
            self.refused.blocks.insert(block);
        }
        self.refused.again(now);
    }

    /// Forgets the refusals, so that what was refused is requested again.
    pub fn forget_refusals(&mut self) {
        for block in std::mem::take(&mut self.refused.blocks) {
            self.bitfield.insert(block, block + 1);
        }
        if self.refused.forget_all() {
            self.cursors.clear();
        }
    }
}

/// Whether the local tree can prove its head to a peer that holds the first `length` blocks: it needs all roots
/// of that length.
fn can_upgrade(local: &dyn Local, length: u64) -> bool {
    if length == 0 {
        return true;
    }
    length < local.head().length() && crate::flat_tree::full_roots(length).all(|root| is_held(local, root))
}
