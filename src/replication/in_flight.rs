//! Requests on their way to peers, and which peers a thing was requested from.

use std::time::Duration;

use super::id::{PeerId, WaiterId};
use super::message::Request;

/// From how many peers the same thing is requested at a time, at most.
const MAX_COPIES: usize = 3;

/// A request whose response has not been settled.
#[derive(Debug)]
pub(super) struct InFlight {
    pub request: Request,
    pub purpose: Purpose,
    pub sent_at: Duration,
    /// From then on, the same thing may be requested from another peer.
    pub late_at: Duration,
    /// The estimated size of the response.
    pub bytes: u64,
    /// Whether the response has arrived.
    pub answered: bool,
    /// Whether the response is being verified and stored.
    pub committing: bool,
    /// An earlier request to the same peer, whose response brings the node at the top of this response's proof.
    pub depends_on: Option<u64>,
}

/// The purpose of a request, besides the block, head or manifest that it may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Log,
    Seek(WaiterId),
    Fork,
}

/// The requests in flight for one thing, such as a block or the longer head.
#[derive(Default, Debug)]
pub(super) struct RequestedFrom {
    pub requests: Vec<RequestRef>,
    /// Whether one of them is late, so that the thing may be requested from another peer as well.
    pub late: bool,
    /// Whether one of them is answered, and its response is being verified.
    pub answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestRef {
    pub peer: PeerId,
    pub request: u64,
}

impl RequestedFrom {
    /// Whether the thing may be requested from `peer`: it is not in flight, or a request for it is late, none
    /// is answered and none went to this peer.
    pub fn may_request(&self, peer: PeerId) -> bool {
        self.requests.is_empty()
            || (self.late
                && !self.answered
                && self.requests.len() < MAX_COPIES
                && self.requests.iter().all(|other| other.peer != peer))
    }

    pub fn add(&mut self, peer: PeerId, request: u64) {
        self.requests.push(RequestRef { peer, request });
        self.late = false;
    }

    /// Returns whether the request was among them.
    pub fn remove(&mut self, peer: PeerId, request: u64) -> bool {
        let before = self.requests.len();
        self.requests.retain(|other| *other != RequestRef { peer, request });
        if self.requests.is_empty() {
            *self = RequestedFrom::default();
        }
        self.requests.len() < before
    }

    /// Peer and number of each request.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, u64)> + '_ {
        self.requests.iter().map(|other| (other.peer, other.request))
    }
}
