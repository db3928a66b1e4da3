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
    pub at: Duration,
    /// When somebody else may be asked as well.
    pub due: Duration,
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
    pub by: Vec<RequestRef>,
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
    pub fn may_ask(&self, peer: PeerId) -> bool {
        self.by.is_empty()
            || (self.late
                && !self.answered
                && self.by.len() < MAX_COPIES
                && self.by.iter().all(|holder| holder.peer != peer))
    }

    pub fn add(&mut self, peer: PeerId, request: u64) {
        self.by.push(RequestRef { peer, request });
        self.late = false;
    }

    /// True if it was asked of this peer by this request.
    pub fn remove(&mut self, peer: PeerId, request: u64) -> bool {
        let before = self.by.len();
        self.by.retain(|holder| *holder != RequestRef { peer, request });
        if self.by.is_empty() {
            *self = RequestedFrom::default();
        }
        self.by.len() < before
    }

    /// Of whom it was asked, as peer and request.
    pub fn holders(&self) -> impl Iterator<Item = (PeerId, u64)> + '_ {
        self.by.iter().map(|holder| (holder.peer, holder.request))
    }
}
