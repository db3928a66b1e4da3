//! Following a peer to a higher fork.
//!
//! A peer on a higher fork is asked to prove its roots. When they are signed, the search for the block where its log parts from ours
//! goes on with requests for hashes, to whichever peer is on that fork; then the own log is cut there and the new head taken on. One
//! search runs at a time, that of the highest fork proven; of a fork that is merely claimed nothing is kept but who was asked.

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
    /// Who was asked to prove a fork: never more entries than peers.
    proofs: BTreeMap<u64, RequestedFrom>,
    /// The highest fork proven.
    search: Option<Box<Reorg>>,
    /// Who was asked for the next step of `search`.
    step: RequestedFrom,
    applying: bool,
}

impl Forks {
    /// Whether the core is being moved to another fork, so that nothing else makes sense.
    pub fn is_applying(&self) -> bool {
        self.applying
    }

    /// Whether something was asked for that may yet lead to another fork.
    pub fn is_busy(&self) -> bool {
        self.applying || !self.proofs.is_empty() || !self.step.requests.is_empty()
    }

    /// What to ask a peer for that is on a higher fork than ours.
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
                // Who has the block has the nodes. Who may have told nobody, thinking that we have it, is asked on the off chance.
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

    /// Of which blocks of a peer one would help on.
    pub fn next_blocks(&self, peer: &RemotePeer) -> Option<(u64, u64)> {
        let search = self.search.as_ref().filter(|search| search.fork() == peer.fork())?;
        let wanted = search.wanted()?;
        let end = wanted.end.min(peer.length());
        (wanted.start < end).then_some((wanted.start, end))
    }

    /// A request was sent.
    pub fn requested(&mut self, peer: PeerId, request: &Request) {
        match request.wanted.upgrade {
            Some(_) => self.proofs.entry(request.fork).or_default().add(peer, request.id),
            None => self.step.add(peer, request.id),
        }
    }

    /// A request is settled, one way or another.
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

    /// A request takes long: somebody else may be asked as well.
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

    /// A fork is proven: the search for where it parts from ours starts, unless a higher one runs.
    pub fn found(&mut self, reorg: Reorg) {
        if self.search.as_ref().is_none_or(|search| search.fork() < reorg.fork()) {
            self.search = Some(Box::new(reorg));
            self.step = RequestedFrom::default();
        }
    }

    /// The answer to a step. False where it does not lead on.
    pub fn step(&mut self, proof: &Proof, local: &dyn Local) -> Result<bool> {
        match &mut self.search {
            Some(search) if search.fork() == proof.fork => search.update(local, proof),
            _ => Ok(true),
        }
    }

    /// The change that leads to the new fork, once it is found. From then on the core is busy with it.
    pub fn apply(&mut self) -> Option<Verified> {
        if self.applying || !self.search.as_ref()?.is_finished() {
            return None;
        }
        let verified = self.search.take()?.finish();
        self.applying = verified.is_some();
        self.step = RequestedFrom::default();
        verified
    }

    /// The core has moved, or could not.
    pub fn applied(&mut self) {
        self.applying = false;
    }

    /// The own head is another: what was found out about it does not hold any more.
    pub fn head_changed(&mut self) {
        self.search = None;
        self.step = RequestedFrom::default();
    }
}

/// Whether an error of the tree says that a proof does not fit what it was checked against, rather than that it is wrong.
pub(super) fn does_not_fit(kind: ErrorKind) -> bool {
    kind == ErrorKind::InvalidOperation
}

/// Whether an error is our own, and not that of who sent the proof.
pub(super) fn is_ours(kind: ErrorKind) -> bool {
    use ErrorKind::*;
    matches!(kind, Io | Corrupt | Failed | Closed | NotWritable | Locked | StorageConflict | StorageEmpty)
}
