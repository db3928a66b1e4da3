//! Requests on their way, and what was asked of whom.

use std::time::Duration;

use super::id::{PeerId, WaiterId};
use super::message::Request;

/// The most peers that the same thing is asked of at a time.
const MAX_COPIES: usize = 3;

/// A request on its way.
#[derive(Debug)]
pub(super) struct InFlight {
    pub request: Request,
    pub purpose: Purpose,
    /// When it was sent.
    pub sent_at: Duration,
    /// When somebody else may be asked as well.
    pub late_at: Duration,
    /// The bytes its answer is guessed to have.
    pub bytes: u64,
    /// Whether the answer is here.
    pub answered: bool,
    /// Whether the answer is being verified and stored.
    pub committing: bool,
    /// The earlier request whose answer brings what this one's leads up to.
    pub depends_on: Option<u64>,
}

/// What a request is for, besides the block, the head and the manifest that it may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Log,
    Seek(WaiterId),
    Fork,
}

/// Something that was asked for, and of whom.
#[derive(Default, Debug)]
pub(super) struct RequestedFrom {
    pub requests: Vec<RequestRef>,
    /// Whether it may be asked of somebody else as well.
    pub late: bool,
    /// Whether an answer is here and being verified.
    pub answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestRef {
    pub peer: PeerId,
    pub request: u64,
}

impl RequestedFrom {
    /// Whether `peer` may be asked.
    pub fn may_request(&self, peer: PeerId) -> bool {
        self.requests.is_empty()
            || (self.late
                && !self.answered
                && self.requests.len() < MAX_COPIES
                && self.requests.iter().all(|holder| holder.peer != peer))
    }

    pub fn add(&mut self, peer: PeerId, request: u64) {
        self.requests.push(RequestRef { peer, request });
        self.late = false;
    }

    /// True if it was asked of this peer by this request.
    pub fn remove(&mut self, peer: PeerId, request: u64) -> bool {
        let before = self.requests.len();
        self.requests.retain(|holder| *holder != RequestRef { peer, request });
        if self.requests.is_empty() {
            *self = RequestedFrom::default();
        }
        self.requests.len() < before
    }

    /// Of whom it was asked, as peer and request.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, u64)> + '_ {
        self.requests.iter().map(|holder| (holder.peer, holder.request))
    }
}
