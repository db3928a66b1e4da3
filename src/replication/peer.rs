//! One peer: what it said of itself, what we asked of it, and how fast it answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::cursor::{Cursor, Source};
use super::id::{PeerId, WaiterId};
use super::in_flight::{InFlight, Purpose};
use super::inbox::Inbox;
use super::local::{Local, is_held};
use super::message::{Data, Extension, Message, Range, Request, Sync};
use super::refusals::Refused;
use super::remote_bitfield::RemoteBitfield;
use super::request_window::RequestWindow;
use crate::Error;
use crate::index::NodeIndex;

/// The longest name of an extension; longer ones are ignored, since the last one has to be remembered.
const MAX_EXTENSION_NAME: usize = 1024;

/// How many requests that came to nothing are remembered before those are sorted out on which none in flight depends_on.
const MAX_FAILED: usize = 2048;

/// The most blocks remembered as refused by a peer; what it refuses beyond is not asked of it until it announces it again.
const MAX_REFUSED: usize = 4096;

/// The most bytes asked of one peer at a time, as far as sizes can be guessed.
const MAX_BYTES: u64 = 16 << 20;

/// What is known of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// Whose.
    pub peer: PeerId,
    /// The fork of its log.
    pub fork: u64,
    /// The length of its log.
    pub length: u64,
    /// How many blocks from the first on it is known to have.
    pub contiguous_length: u64,
    /// Whether it says it can prove its head to us.
    pub can_upgrade: bool,
    /// Whether it says it answers requests.
    pub uploading: bool,
    /// Whether it says it is interested in more.
    pub downloading: bool,
    /// How many requests it has not answered.
    pub in_flight: usize,
}

pub(super) struct RemotePeer {
    /// Whether it understands seeks.
    pub seeks: bool,
    /// What it said last; none before its first word.
    pub remote_sync: Option<Sync>,
    /// What we said last.
    pub local_sync: Option<Sync>,
    /// The blocks it has.
    pub bitfield: RemoteBitfield,
    /// What it asks of us.
    pub inbox: Inbox,
    /// What we asked of it, by number, and so by age.
    pub requests: BTreeMap<u64, InFlight>,
    /// Not before this is any of them late.
    pub next_late_at: Option<Duration>,
    /// The number of the next request.
    pub next_id: u64,
    /// Answers that wait for that of the request they lean on.
    pub waiting_responses: HashMap<u64, Vec<Data>>,
    /// The bytes of their blocks.
    pub waiting_bytes: usize,
    /// Requests that came to nothing, on which others in flight may may_depend.
    pub failed: BTreeSet<u64>,
    /// Those were sent before this one.
    failed_before: u64,
    /// The bytes that the answers on their way are guessed to have.
    pub bytes: u64,
    /// How fast it is.
    pub window: RequestWindow,
    /// What it refused.
    pub refused: Refused,
    /// Until when it is expected to say or show something that it owes.
    pub sync_deadline: Option<Duration>,
    /// Why it is not asked for anything, nor believed.
    pub suspicion: Option<Suspicion>,
    /// Whether a proof of a conflict that it has shown is being checked.
    pub checking_conflict: bool,
    /// How many it has shown in vain without being asked.
    pub unfounded_conflicts: u32,
    /// How far each search for blocks has got: what lies before was held, in flight, or not to be had from this peer.
    pub cursors: HashMap<Source, Cursor>,
    /// Roots of its log, over blocks that were passed over: we do not know these nodes, and its proofs do not lead further up.
    pub unknown_roots: BTreeSet<NodeIndex>,
    /// When it may be asked what it has of further segments.
    pub next_want_at: Option<Duration>,
    /// Until when it may yet say what it has of those it was asked about. It says nothing if it has nothing of them.
    pub bitfield_deadline: Option<Duration>,
    extension_sent: String,
    extension_received: Option<String>,
}

/// An invalid proof came from the peer. Before it is cut off it may show that its log is properly signed and contradicts ours.
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
            inbox: Inbox::default(),
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

    /// The fork of its log; 0 before it said so.
    pub fn fork(&self) -> u64 {
        self.remote_sync.map_or(0, |sync| sync.fork)
    }

    /// The length of its log; 0 before it said so.
    pub fn length(&self) -> u64 {
        self.remote_sync.map_or(0, |sync| sync.length)
    }

    /// Takes in what it says of its log. True if that is news.
    pub fn update_remote_sync(&mut self, sync: Sync) -> bool {
        if self.remote_sync == Some(sync) {
            return false;
        }
        self.remote_sync = Some(sync);
        self.forget_refusals();
        self.refused.reset_backoff();
        true
    }

    /// Whether it may be asked for things of its log at all.
    pub fn is_active(&self) -> bool {
        self.suspicion.is_none() && self.remote_sync.is_some_and(|sync| sync.uploading)
    }

    /// Whether one more request, with an answer of about `bytes`, may be sent to it. Two always may, so that a block of any size gets
    /// through without the line falling silent after each.
    pub fn has_room(&self, bytes: u64) -> bool {
        let count = self.requests.len();
        count < self.window.size && (count < 2 || self.bytes.saturating_add(bytes) <= MAX_BYTES)
    }

    /// Whether requests may lean on others in flight. Not while one in flight may lean on a failed one: that would go on for ever.
    pub fn may_depend(&self) -> bool {
        self.failed.is_empty()
    }

    /// A request came to nothing.
    pub fn mark_failed(&mut self, request: u64) {
        if self.failed.len() >= MAX_FAILED {
            let needed: BTreeSet<u64> = self.requests.values().filter_map(|request| request.depends_on).collect();
            self.failed.retain(|request| needed.contains(request));
        }
        self.failed.insert(request);
        self.failed_before = self.next_id;
    }

    /// Whether a request came to nothing, or is not settled yet.
    pub fn is_failed(&self, request: u64) -> bool {
        self.failed.contains(&request) || self.requests.contains_key(&request)
    }

    /// A request is gone.
    pub fn clear_settled_failures(&mut self) {
        let oldest = self.requests.first_key_value().map(|(id, _)| *id);
        if !self.failed.is_empty() && oldest.is_none_or(|oldest| oldest >= self.failed_before) {
            self.failed.clear();
        }
    }

    /// What is to be said of our log, if it was not said already.
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

    /// Whether it can show us a head longer than the `length` blocks we have, proved from just there.
    pub fn can_upgrade_us(&self, fork: u64, length: u64) -> bool {
        self.remote_sync.is_some_and(|sync| {
            sync.can_upgrade && sync.fork == fork && sync.length > length && sync.remote_length == length
        }) && !self.refused.upgrade
    }

    /// What to tell it of blocks of our `fork` that we have or have no more; nothing if it has the same itself.
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

    /// The full name of the extension a message of which arrived; none if it cannot be told.
    pub fn extension_name(&mut self, name: String) -> Option<String> {
        if name.len() > MAX_EXTENSION_NAME {
            self.extension_received = None;
        } else if !name.is_empty() {
            self.extension_received = Some(name);
        }
        self.extension_received.clone()
    }

    /// When the next of its answers may be late.
    pub fn next_late(&self) -> Option<Duration> {
        self.next_late_at.filter(|_| !self.requests.is_empty())
    }

    /// The requests whose answers are late at `now`; they are late again at `again`.
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

    /// Lets all searches look again at the blocks from `start` up to `end`. `search_starts` tells where the search of a range starts; none for
    /// a list of blocks, which starts over as a whole.
    pub fn lower_cursors(&mut self, start: u64, end: u64, search_starts: impl Fn(WaiterId) -> Option<u64>) {
        for (source, cursor) in &mut self.cursors {
            let lower = match source {
                Source::Download(waiter) => match search_starts(*waiter) {
                    Some(search_start) if end <= search_start => Cursor { wrapped: true, at: start },
                    Some(search_start) => Cursor { wrapped: false, at: start.max(search_start) },
                    None => Cursor::default(),
                },
                _ => Cursor { wrapped: false, at: start },
            };
            *cursor = lower.min(*cursor);
        }
    }

    /// Lets the search in `source` start over from block `at` where it is past it.
    pub fn lower_cursor(&mut self, source: Source, at: u64) {
        if let Some(cursor) = self.cursors.get_mut(&source) {
            cursor.at = cursor.at.min(at);
        }
    }

    /// The blocks under those of its roots that were not known and are now; none where there are none.
    pub fn take_known_roots(&mut self, local: &dyn Local) -> Option<(u64, u64)> {
        let known: Vec<NodeIndex> = self.unknown_roots.iter().copied().filter(|root| is_held(local, *root)).collect();
        known.iter().for_each(|root| _ = self.unknown_roots.remove(root));
        Some((known.first()?.first_block(), known.last()?.end_block()))
    }

    /// It cannot answer for this block now.
    pub fn refuse_block(&mut self, block: u64, now: Duration) {
        self.bitfield.remove(block, block + 1);
        if self.refused.blocks.len() < MAX_REFUSED {
            self.refused.blocks.insert(block);
        }
        self.refused.again(now);
    }

    /// Forgets what it refused, so that it is asked again.
    pub fn forget_refusals(&mut self) {
        for block in std::mem::take(&mut self.refused.blocks) {
            self.bitfield.insert(block, block + 1);
        }
        if self.refused.forget_all() {
            self.cursors.clear();
        }
    }
}

/// Whether the own tree can prove its head to somebody with the first `length` blocks: all roots of that length must be held.
fn can_upgrade(local: &dyn Local, length: u64) -> bool {
    if length == 0 {
        return true;
    }
    length < local.head().length() && crate::flat_tree::full_roots(length).all(|root| is_held(local, root))
}
