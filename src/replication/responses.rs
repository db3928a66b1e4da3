//! Responses of peers: whether they answer the request, in which order they are committed, what the outcome
//! means for the request and for the peer.
//!
//! ```text
//! Data -> check_answers_request -> refuse_missing (what the response lacks is requested from others)
//!      -> commit_in_order: Action::Commit now, or after the response it depends on
//!      -> committed: settle the request as done or to be retried; an invalid proof makes the peer suspect
//! ```

use std::time::Duration;

use super::action::{Action, CloseReason};
use super::forks::{does_not_fit, is_ours};
use super::id::PeerId;
use super::in_flight::Purpose;
use super::local::{CommitOutcome, Local};
use super::message::{Data, Message, Request};
use super::peer::Suspicion;
use super::replicator::{Replicator, State};
use crate::merkle::{self, Reorg, UpgradeRequest};
use crate::{Error, ErrorKind, Result};

/// How long a peer may take, after an invalid proof, to prove that its log is signed and contradicts ours.
const CONFLICT_PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// How many unfounded conflict proofs a peer may send unasked: each costs a signature check.
const MAX_UNFOUNDED_CONFLICTS: u32 = 16;

/// The most bytes of one peer's responses that wait for the response they depend on. A response beyond that is
/// dropped and requested again: sizes are only estimates when blocks are requested, and a peer may hold back
/// the first of many responses and send the rest as large as it likes.
const MAX_WAITING_BYTES: usize = 64 << 20;

impl Replicator {
    /// The outcome of [`Action::Commit`]. Call it after [`Replicator::changed`].
    pub fn committed(&mut self, peer: PeerId, request: u64, outcome: CommitOutcome, local: &dyn Local, now: Duration) {
        self.mark_dirty(peer);
        // If it is gone, so are its requests.
        let Some(remote) = self.peers.get(&peer) else { return };
        let Some(in_flight) = remote.requests.get(&request) else { return };
        let (requested, excused) =
            (in_flight.request, in_flight.depends_on.is_some_and(|first| remote.is_failed(first)));
        let head = local.head();
        let moved = requested.fork != head.fork
            || requested.wanted.upgrade.is_some_and(|upgrade| upgrade.start != head.length());
        match outcome {
            CommitOutcome::Stored => {
                let found_out = requested.wanted.hash.is_some() || requested.wanted.seek.is_some();
                self.settle_request(peer, request, Settled::Done);
                if let Some(block) = requested.wanted.block {
                    self.requeue_if_lost(block.index, local);
                }
                if found_out {
                    self.update_seeks(local);
                    self.mark_all_dirty();
                }
            }
            CommitOutcome::Stale => self.settle_request(peer, request, Settled::Retry),
            // It may have been verified against nodes of two forks.
            CommitOutcome::Rejected(_) if requested.fork < head.fork => {
                self.settle_request(peer, request, Settled::Retry)
            }
            CommitOutcome::Rejected(error) if is_ours(error.kind()) => {
                self.settle_request(peer, request, Settled::Retry);
                self.set_failed();
            }
            CommitOutcome::Rejected(error) if does_not_fit(error.kind()) => {
                self.settle_request(peer, request, Settled::Retry);
                if !moved && !excused {
                    self.disconnect(peer, error);
                }
            }
            CommitOutcome::Rejected(error) => self.suspect(peer, error, local, now),
            CommitOutcome::Failed => {
                self.settle_request(peer, request, Settled::Retry);
                self.set_failed();
            }
        }
    }

    /// The outcome of [`Action::CheckConflict`]: whether the proof is valid and contradicts the local log.
    pub fn conflict_checked(&mut self, peer: PeerId, data: Box<Data>, conflict: bool, local: &dyn Local) {
        self.mark_all_dirty();
        // If the log has moved to another fork since, the comparison may have used nodes of both.
        if conflict && data.proof.fork == local.head().fork {
            return self.stop_for_conflict(peer, data, local);
        }
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        remote.checking_conflict = false;
        match remote.suspicion.take() {
            Some(suspicion) => self.disconnect(peer, suspicion.error),
            None => {
                remote.unfounded_conflicts += 1;
                if remote.unfounded_conflicts > MAX_UNFOUNDED_CONFLICTS {
                    self.disconnect(
                        peer,
                        Error::protocol(format!(
                            "the peer sent more than {MAX_UNFOUNDED_CONFLICTS} conflict proofs that show no conflict"
                        )),
                    );
                }
            }
        }
    }

    /// The outcome of [`Action::VerifyFork`].
    pub fn fork_verified(&mut self, peer: PeerId, request: u64, outcome: Result<Reorg>, local: &dyn Local) {
        self.mark_all_dirty();
        let requested =
            self.peers.get(&peer).and_then(|remote| remote.requests.get(&request)).map(|in_flight| in_flight.request);
        self.settle_request(peer, request, Settled::Done);
        match outcome {
            Ok(reorg) => {
                if reorg.fork() > local.head().fork {
                    self.requests.forks.found(reorg);
                    self.reorganize_if_found();
                }
            }
            Err(error) if is_ours(error.kind()) => self.set_failed(),
            Err(error) => {
                if requested.is_some_and(|requested| requested.fork > local.head().fork) {
                    self.disconnect(peer, error);
                }
            }
        }
    }

    /// The outcome of [`Action::Reorganize`]. Call it after [`Replicator::changed`].
    pub fn reorganized(&mut self, outcome: CommitOutcome) {
        self.mark_all_dirty();
        self.requests.forks.applied();
        if let CommitOutcome::Failed | CommitOutcome::Rejected(_) = outcome {
            self.set_failed();
        }
    }
}

impl Replicator {
    pub(super) fn on_data(&mut self, peer: PeerId, mut data: Box<Data>, local: &dyn Local, now: Duration) {
        self.mark_dirty(peer);
        if data.request == 0 {
            return self.on_conflict_proof(peer, data, local);
        }
        let Some((request, purpose)) = self.accept_response(peer, &mut data, local, now) else { return };
        self.refuse_missing(peer, &request, purpose, &data, now);
        let (id, proof) = (request.id, &data.proof);
        if proof.block.is_none() && proof.hash.is_none() && proof.upgrade.is_none() && proof.manifest.is_none() {
            return self.settle_request(peer, id, Settled::Retry);
        }
        match purpose {
            Purpose::Fork if proof.upgrade.is_some() => {
                self.requests.actions.push_back(Action::VerifyFork { peer, data });
            }
            Purpose::Fork if proof.hash.is_some() => {
                self.settle_request(peer, id, Settled::Done);
                self.on_fork_step(peer, &data, local, now);
            }
            _ => {
                let block = proof.block.as_ref().map(|block| block.index);
                let kept = self.commit_in_order(peer, data);
                if let Some(block) = block.filter(|_| kept) {
                    self.cancel_other_copies(block, peer, id);
                }
            }
        }
    }

    /// Finds the request that a response answers, and removes from the response what was not requested. None if
    /// there is nothing more to do: the request was cancelled or is answered already, or the response breaks
    /// the protocol and the peer is disconnected.
    fn accept_response(
        &mut self,
        peer: PeerId,
        data: &mut Data,
        local: &dyn Local,
        now: Duration,
    ) -> Option<(Request, Purpose)> {
        let remote = self.peers.get_mut(&peer)?;
        let count = remote.requests.len();
        let Some(in_flight) = remote.requests.get_mut(&data.request) else {
            // A request that was cancelled may still be answered.
            if data.request >= remote.next_id {
                self.disconnect(
                    peer,
                    Error::protocol(format!("the peer answers request {}, which was never sent", data.request)),
                );
            }
            return None;
        };
        if std::mem::replace(&mut in_flight.answered, true) {
            return None;
        }
        let (request, purpose) = (in_flight.request, in_flight.purpose);
        let took = now.saturating_sub(in_flight.sent_at);
        remote.window.record_response(took, count, self.requests.config.in_flight, now);
        if let Some(block) = &data.proof.block {
            self.requests.record_block_size(block.value.len() as u64);
        }
        if let Err(error) = check_answers_request(&request, data) {
            self.disconnect(peer, error);
            return None;
        }
        let proof = &mut data.proof;
        if !request.manifest {
            proof.manifest = None;
        }
        if proof.fork != request.fork {
            // The peer has moved to another fork. The manifest is the same on all forks.
            let manifest = proof.manifest.take();
            *proof = merkle::Proof { fork: local.head().fork, manifest, ..Default::default() };
        }
        Some((request, purpose))
    }

    /// Emits the commit of a response, or keeps it until the response that it depends on is being committed.
    /// Returns false if there is no room to keep it; it is then requested again.
    pub(super) fn commit_in_order(&mut self, peer: PeerId, data: Box<Data>) -> bool {
        let Some(remote) = self.peers.get_mut(&peer) else { return false };
        let depends_on = remote.requests.get(&data.request).and_then(|in_flight| in_flight.depends_on);
        if let Some(first) =
            depends_on.filter(|first| remote.requests.get(first).is_some_and(|first| !first.committing))
        {
            let size = block_len(&data);
            if remote.waiting_bytes.saturating_add(size) > MAX_WAITING_BYTES {
                self.settle_request(peer, data.request, Settled::Retry);
                return false;
            }
            remote.waiting_bytes += size;
            remote.waiting_responses.entry(first).or_default().push(*data);
            return true;
        }
        let id = data.request;
        if let Some(in_flight) = remote.requests.get_mut(&id) {
            in_flight.committing = true;
        }
        self.requests.actions.push_back(Action::Commit { peer, data });
        self.commit_waiting(peer, id);
        true
    }

    /// Commits the responses that waited for request `first`, whether that one is being committed or has
    /// failed. In the latter case they may be rejected, and are then requested again.
    pub(super) fn commit_waiting(&mut self, peer: PeerId, first: u64) {
        let mut firsts = vec![first];
        while let Some(first) = firsts.pop() {
            let Some(remote) = self.peers.get_mut(&peer) else { return };
            for data in remote.waiting_responses.remove(&first).unwrap_or_default() {
                remote.waiting_bytes -= block_len(&data);
                if let Some(in_flight) = remote.requests.get_mut(&data.request) {
                    in_flight.committing = true;
                    firsts.push(data.request);
                    self.requests.actions.push_back(Action::Commit { peer, data: Box::new(data) });
                }
            }
        }
    }

    /// Makes what the response lacks available to other peers, and records it as refused by this one.
    pub(super) fn refuse_missing(
        &mut self,
        peer: PeerId,
        request: &Request,
        purpose: Purpose,
        data: &Data,
        now: Duration,
    ) {
        let (wanted, proof) = (&request.wanted, &data.proof);
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        let block = wanted.block.filter(|_| proof.block.is_none()).map(|block| block.index);
        let upgrade = wanted.upgrade.is_some() && proof.upgrade.is_none();
        let hash = wanted.hash.is_some() && proof.hash.is_none();
        let manifest = request.manifest && proof.manifest.is_none();
        // A peer that has moved to another fork could not answer, but may once we have followed it.
        if remote.fork() == request.fork {
            if let Some(block) = block {
                remote.refuse_block(block, now);
            }
            match purpose {
                Purpose::Log => remote.refused.upgrade |= upgrade,
                Purpose::Fork => remote.refused.fork |= upgrade || hash,
                Purpose::Seek(waiter) => {
                    remote.refused.upgrade |= upgrade;
                    if hash || upgrade {
                        remote.refused.seeks.insert(waiter);
                    }
                }
            }
        }
        remote.refused.manifest |= manifest;
        if block.is_none() && !upgrade && !hash && !manifest {
            return;
        }
        remote.refused.again(now);
        if block.is_some() {
            remote.mark_failed(request.id);
        }
        self.mark_all_dirty();
        if let Some(block) = block {
            self.settle_block(block, peer, request.id, Settled::Retry);
        }
        if upgrade && self.requests.upgrade.remove(peer, request.id) {
            self.lower_cursors(0, u64::MAX);
        }
        if manifest {
            self.requests.manifest.remove(peer, request.id);
        }
    }

    pub(super) fn on_no_data(&mut self, peer: PeerId, request: u64, now: Duration) {
        self.mark_all_dirty();
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        if request == 0 {
            if let Some(suspicion) = remote.suspicion.take() {
                self.disconnect(peer, suspicion.error);
            }
            return;
        }
        let Some(in_flight) = remote.requests.get_mut(&request).filter(|in_flight| !in_flight.answered) else { return };
        let (requested, purpose) = (in_flight.request, in_flight.purpose);
        self.refuse_missing(peer, &requested, purpose, &Data::default(), now);
        self.settle_request(peer, request, Settled::Retry);
    }

    /// Handles a proof of the peer's whole tree, which was requested after an invalid proof, or which
    /// it sent unasked.
    pub(super) fn on_conflict_proof(&mut self, peer: PeerId, data: Box<Data>, local: &dyn Local) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        let whole = data.proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start == 0);
        if whole && data.proof.fork == local.head().fork && !remote.checking_conflict {
            remote.checking_conflict = true;
            self.requests.actions.push_back(Action::CheckConflict { peer, data });
        }
    }

    pub(super) fn on_fork_step(&mut self, peer: PeerId, data: &Data, local: &dyn Local, now: Duration) {
        match self.requests.forks.step(&data.proof, local) {
            Ok(true) => self.reorganize_if_found(),
            Err(error) if is_ours(error.kind()) => self.set_failed(),
            Err(error) if !does_not_fit(error.kind()) => self.disconnect(peer, error),
            Ok(false) | Err(_) => {
                if let Some(remote) = self.peers.get_mut(&peer) {
                    remote.refused.fork = true;
                    remote.refused.again(now);
                }
            }
        }
    }

    pub(super) fn reorganize_if_found(&mut self) {
        if self.state != State::Running {
            return;
        }
        if let Some(verified) = self.requests.forks.apply() {
            self.requests.actions.push_back(Action::Reorganize { verified: Box::new(verified) });
        }
    }

    /// The peer sent an invalid proof. Nothing more is requested from it, but it has 5 s to prove that its log
    /// is signed and contradicts ours: then the signer is at fault.
    pub(super) fn suspect(&mut self, peer: PeerId, error: Error, local: &dyn Local, now: Duration) {
        self.settle_all(peer);
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        if remote.suspicion.is_some() {
            return;
        }
        let head = local.head();
        let length = head.length().min(remote.length());
        if length == 0 || remote.fork() != head.fork {
            return self.disconnect(peer, error);
        }
        remote.suspicion = Some(Suspicion { error, until: now + CONFLICT_PROOF_TIMEOUT });
        let message = Message::Request(conflict_proof_request(head.fork, length));
        self.requests.actions.push_back(Action::Send { peer, message });
    }

    pub(super) fn stop_for_conflict(&mut self, peer: PeerId, data: Box<Data>, local: &dyn Local) {
        self.requests.actions.push_back(Action::Conflict { peer, data });
        let (fork, length) = (local.head().fork, local.head().length());
        let error = Error::new(ErrorKind::Conflict, "two signed trees of one fork contradict each other");
        self.stop(error, |remote| {
            let length = length.min(remote.length());
            CloseReason::Conflict {
                request: (length > 0 && remote.fork() == fork).then(|| conflict_proof_request(fork, length)),
            }
        });
    }

    pub(super) fn set_failed(&mut self) {
        if self.state == State::Running {
            self.state = State::Failed;
        }
    }

    pub(super) fn settle_all(&mut self, peer: PeerId) {
        if let Some(remote) = self.peers.get_mut(&peer) {
            remote.waiting_responses.clear();
            remote.waiting_bytes = 0;
        }
        let requests = self.peers.get(&peer).map(|remote| remote.requests.keys().copied().collect::<Vec<_>>());
        for request in requests.unwrap_or_default() {
            self.settle_request(peer, request, Settled::Retry);
        }
    }

    /// Removes a request from everything that counts it.
    pub(super) fn settle_request(&mut self, peer: PeerId, request: u64, settled: Settled) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        let Some(gone) = remote.requests.remove(&request) else { return };
        if settled == Settled::Retry {
            remote.mark_failed(request);
        }
        remote.clear_settled_failures();
        remote.bytes -= gone.bytes;
        self.requests.bytes -= gone.bytes;
        self.requests.in_flight -= 1;
        if settled == Settled::Retry || std::mem::take(&mut self.requests.over_budget) {
            self.mark_all_dirty();
        } else {
            self.mark_dirty(peer);
        }
        if let Some(block) = gone.request.wanted.block {
            self.settle_block(block.index, peer, request, settled);
        }
        self.requests.forget_expected(&gone.request, peer);
        if !gone.committing {
            self.commit_waiting(peer, request);
        }
        if self.requests.upgrade.remove(peer, request) {
            // Other peers may have a longer head too, which was not requested from them meanwhile.
            self.mark_all_dirty();
            if settled == Settled::Retry {
                self.lower_cursors(0, u64::MAX);
            }
        }
        if self.requests.manifest.remove(peer, request) {
            self.mark_all_dirty();
        }
        match gone.purpose {
            Purpose::Log => {}
            Purpose::Seek(waiter) => {
                if let Some(seek) = self.requests.downloads.seeks.get_mut(&waiter) {
                    seek.requested.remove(peer, request);
                }
            }
            Purpose::Fork => self.requests.forks.settled(peer, &gone.request),
        }
    }

    pub(super) fn settle_block(&mut self, block: u64, peer: PeerId, request: u64, settled: Settled) {
        let Some(requested) = self.requests.blocks.get_mut(&block) else { return };
        if !requested.remove(peer, request) {
            return;
        }
        if !requested.requests.is_empty() {
            // If the response that arrived has failed, the block may be requested from another peer once the
            // remaining requests are late.
            let peers = &self.peers;
            let mut left =
                requested.requests.iter().filter_map(|other| peers.get(&other.peer)?.requests.get(&other.request));
            requested.answered = left.any(|request| request.answered);
            return;
        }
        self.requests.blocks.remove(&block);
        self.requests.late.remove(&block);
        if settled == Settled::Done {
            return;
        }
        if let Some(source) = self.requests.downloads.requeue(block) {
            self.lower_queue_cursors(source, block);
        }
    }

    /// A stored block may be cleared before its commit is reported here. A waiter that was added in between
    /// relied on the request that is now settled.
    pub(super) fn requeue_if_lost(&mut self, block: u64, local: &dyn Local) {
        if local.has(block) || self.requests.blocks.contains_key(&block) {
            return;
        }
        if let Some(source) = self.requests.downloads.requeue(block) {
            self.lower_queue_cursors(source, block);
            self.mark_all_dirty();
        }
    }

    /// A response for the block has arrived: cancels the requests for it to other peers.
    pub(super) fn cancel_other_copies(&mut self, block: u64, peer: PeerId, request: u64) {
        let Some(requested) = self.requests.blocks.get_mut(&block) else { return };
        requested.answered = true;
        self.requests.late.remove(&block);
        let others: Vec<_> = requested.iter().filter(|other| *other != (peer, request)).collect();
        for (peer, request) in others {
            self.cancel_request(peer, request);
        }
    }

    /// Cancels a request, unless it is answered already or asks for an upgrade or the manifest as well.
    pub(super) fn cancel_request(&mut self, peer: PeerId, request: u64) {
        let Some(in_flight) = self.peers.get(&peer).and_then(|remote| remote.requests.get(&request)) else { return };
        let wanted = &in_flight.request;
        if in_flight.answered || wanted.wanted.upgrade.is_some() || wanted.manifest {
            return;
        }
        if let Some(remote) = self.peers.get_mut(&peer) {
            remote.mark_failed(request);
        }
        self.settle_request(peer, request, Settled::Done);
        self.requests.actions.push_back(Action::Send { peer, message: Message::Cancel(request) });
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settled {
    /// The response has come, or is no longer needed.
    Done,
    /// The response is still needed.
    Retry,
}

fn block_len(data: &Data) -> usize {
    data.proof.block.as_ref().map_or(0, |block| block.value.len())
}

/// The request for a proof of the whole tree, which shows whether two logs contradict each other.
fn conflict_proof_request(fork: u64, length: u64) -> Request {
    let upgrade = Some(UpgradeRequest { start: 0, length });
    Request { id: 0, fork, wanted: merkle::Request { upgrade, ..Default::default() }, ..Default::default() }
}

/// A response may contain less than was requested, but nothing else.
fn check_answers_request(request: &Request, data: &Data) -> Result<()> {
    let (wanted, proof) = (&request.wanted, &data.proof);
    let block =
        proof.block.as_ref().is_none_or(|part| wanted.block.is_some_and(|requested| requested.index == part.index));
    let hash =
        proof.hash.as_ref().is_none_or(|part| wanted.hash.is_some_and(|requested| requested.index == part.index.0));
    let seek =
        proof.seek.as_ref().is_none_or(|part| wanted.seek.is_some_and(|requested| requested.bytes == part.bytes));
    let upgrade = proof.upgrade.is_none() || wanted.upgrade.is_some();
    if block && hash && seek && upgrade {
        return Ok(());
    }
    Err(Error::protocol("the peer's response has a part that was not requested"))
}
