//! Following a peer to a higher fork.
//!
//! ```text
//! peer's Sync has a higher fork -> Request upgrade 0..length -> Action::VerifyFork -> fork_verified: a search starts
//! search: Request a hash -> Data -> next hash ... until the block is found at which the logs part
//! Action::Reorganize: truncate there, take the new head -> reorganized
//! ```
//!
//! A peer on a higher fork is requested to prove its roots. Once they are found to be signed, requests for hashes go
//! to any peer on that fork. One search runs at a time, for the highest fork proven. For a fork that is claimed and
//! not proven, only its requests in flight are stored.

use std::collections::BTreeMap;

use super::id::PeerId;
use super::in_flight::RequestedFrom;
use super::local::Local;
use super::message::Request;
use super::peer::RemotePeer;
use crate::merkle::{self, Proof, Reorg, UpgradeRequest, Verified};
use crate::{ErrorKind, Result};

#[derive(Default)]
pub(super) struct Forks {
    /// The requests for a proof of each fork; never more entries than peers.
    proofs: BTreeMap<u64, RequestedFrom>,
    /// The search in the highest fork proven.
    search: Option<Box<Reorg>>,
    /// The requests for the next step of `search`.
    step: RequestedFrom,
    applying: bool,
}

impl Forks {
    /// Whether the core is being moved to another fork; no other requests are sent meanwhile.
    pub fn is_applying(&self) -> bool {
        self.applying
    }

    /// Whether a request or the move itself may still lead to another fork.
    pub fn is_busy(&self) -> bool {
        self.applying || !self.proofs.is_empty() || !self.step.requests.is_empty()
    }

    /// The request to send to a peer that is on a higher fork than the local log.
    pub fn next_request(&self, id: PeerId, peer: &RemotePeer, random: u64) -> Option<merkle::Request> {
        match &self.search {
            Some(search) if search.fork() > peer.fork() => return None,
            Some(search) if search.fork() == peer.fork() => {
                let (start, end) = self.next_blocks(peer)?;
                if !self.step.may_request(id) {
                    return None;
                }
                let somewhere = start + random % (end - start);
                let there = |from: u64| peer.bitfield.next_set(from).filter(|block| *block < end);
                // A peer that has the block has the nodes. If all segments were asked about and no such block
                // is known, one is requested anyway: a peer that believes we have a block does not announce it.
                let requested = peer.bitfield.next_unasked(start, end).is_none();
                let block = there(somewhere).or_else(|| there(start)).or(requested.then_some(somewhere))?;
                let hash = search.wanted().map(|wanted| wanted.request(block));
                return Some(merkle::Request { hash, ..Default::default() });
            }
            _ => {}
        }
        if self.proofs.get(&peer.fork()).is_some_and(|requested| !requested.may_request(id)) {
            return None;
        }
        let upgrade = Some(UpgradeRequest { start: 0, length: peer.length() });
        Some(merkle::Request { upgrade, ..Default::default() })
    }

    /// The peer's blocks of which one would bring the search forward.
    pub fn next_blocks(&self, peer: &RemotePeer) -> Option<(u64, u64)> {
        let search = self.search.as_ref().filter(|search| search.fork() == peer.fork())?;
        let wanted = search.wanted()?;
        let end = wanted.end.min(peer.length());
        (wanted.start < end).then_some((wanted.start, end))
    }

    /// Records a request that was sent.
    pub fn requested(&mut self, peer: PeerId, request: &Request) {
        match request.wanted.upgrade {
            Some(_) => self.proofs.entry(request.fork).or_default().add(peer, request.id),
            None => self.step.add(peer, request.id),
        }
    }

    /// Removes a request, whatever its outcome.
    pub fn settled(&mut self, peer: PeerId, request: &Request) {
        if request.wanted.upgrade.is_none() {
            self.step.remove(peer, request.id);
        } else if let Some(requested) = self.proofs.get_mut(&request.fork) {
            requested.remove(peer, request.id);
            if requested.requests.is_empty() {
                self.proofs.remove(&request.fork);
            }
        }
    }

    /// Records that a request is late: the same may be requested from another peer.
    pub fn mark_late(&mut self, request: &Request) {
        match request.wanted.upgrade {
            Some(_) => {
                if let Some(requested) = self.proofs.get_mut(&request.fork) {
                    requested.late = true;
                }
            }
            None => self.step.late = true,
        }
    }

    /// A fork is proven: starts its search, unless one for a higher fork runs.
    pub fn found(&mut self, reorg: Reorg) {
        if self.search.as_ref().is_none_or(|search| search.fork() < reorg.fork()) {
            self.search = Some(Box::new(reorg));
            self.step = RequestedFrom::default();
        }
    }

    /// Takes the response to a step. Returns false if it does not bring the search forward.
    pub fn step(&mut self, proof: &Proof, local: &dyn Local) -> Result<bool> {
        match &mut self.search {
            Some(search) if search.fork() == proof.fork => search.update(local, proof),
            _ => Ok(true),
        }
    }

    /// The change that leads to the new fork, if the search is finished. Until `applied`, the core is busy with it.
    pub fn apply(&mut self) -> Option<Verified> {
        if self.applying || !self.search.as_ref()?.is_finished() {
            return None;
        }
        let verified = self.search.take()?.finish();
        self.applying = verified.is_some();
        self.step = RequestedFrom::default();
        verified
    }

    /// The core has moved to the new fork, or could not.
    pub fn applied(&mut self) {
        self.applying = false;
    }

    /// The local head changed, so the search no longer applies.
    pub fn head_changed(&mut self) {
        self.search = None;
        self.step = RequestedFrom::default();
    }
}

/// Whether a proof does not fit the tree it was checked against, as opposed to being invalid.
pub(super) fn does_not_fit(kind: ErrorKind) -> bool {
    kind == ErrorKind::InvalidOperation
}

/// Whether an error is the fault of the local core, not of the peer that sent the proof.
pub(super) fn is_ours(kind: ErrorKind) -> bool {
    use ErrorKind::*;
    matches!(kind, Io | Corrupt | Failed | Closed | NotWritable | Locked | StorageConflict | StorageEmpty)
}
