//! Verifying the proofs of peers without the driver's lock, committing them together, and reporting the outcome
//! to the replicator.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Driver, PeerLink, PendingProof, Transport, describe};
use crate::core::Event;
use crate::core::commit_proof::Committed;
use crate::core::peers::{BlockTransfer, Peer};
use crate::core::shared::Shared;
use crate::merkle::{self, Overlay, Verified};
use crate::replication::{CommitOutcome, Data, PeerId};
use crate::{Error, ErrorKind, Result};

impl Driver {
    /// Verifies what the peers on `connection` sent, and stores what is valid. Returns false if there was nothing.
    pub(super) fn check_pending_proofs(&self, shared: &Arc<Shared>, connection: &dyn Transport) -> bool {
        let _turn = connection.lock_proof_order();
        let mut pending = Vec::new();
        // Download events name the sender of a block even if it leaves before, or an event handler subscribes,
        // in the meantime.
        let mut senders = HashMap::new();
        let has_pending = |link: &PeerLink| link.is_on(connection) && !link.pending_proofs.is_empty();
        for (&peer, link) in self.state.lock().peers.iter_mut().filter(|(_, link)| has_pending(link)) {
            senders.insert(peer, describe(peer, link, None));
            pending.extend(link.pending_proofs.drain(..).map(|proof| (peer, proof)));
        }
        let found = !pending.is_empty();
        if found {
            self.publish_head(shared);
        }
        let mut proofs = Vec::new();
        for (peer, proof) in pending {
            if let PendingProof::Proof(data) = proof {
                proofs.push((peer, data));
                continue;
            }
            self.commit_proofs(shared, &senders, std::mem::take(&mut proofs));
            match proof {
                PendingProof::Proof(_) => {}
                PendingProof::Conflict(data) => self.check_conflict(shared, peer, data),
                PendingProof::Fork(data) => self.verify_fork(shared, peer, &data),
            }
        }
        self.commit_proofs(shared, &senders, proofs);
        found
    }

    /// Verifies proofs and commits them together; one that changes the head is committed by itself.
    fn commit_proofs(&self, shared: &Arc<Shared>, senders: &HashMap<PeerId, Peer>, proofs: Vec<(PeerId, Box<Data>)>) {
        let mut proofs = proofs.into_iter().peekable();
        while proofs.peek().is_some() {
            let mut group = Vec::new();
            let Ok(reading) = shared.reading() else { return };
            let (head, verifier) = (&reading.head, shared.state.read().verifier.clone());
            // A proof may depend on one before it, which brings nodes that the request left out.
            let mut tree = Overlay::new(reading.tree(shared));
            while let Some((peer, data)) = proofs.next_if(|(_, d)| group.is_empty() || d.proof.upgrade.is_none()) {
                let alone = data.proof.upgrade.is_some();
                let Data { request, proof } = *data;
                let verified = merkle::verify(&tree, head, proof, &verifier);
                let verified = verified.and_then(|verified| tree.expect(&verified).map(|()| verified));
                group.push((peer, request, verified));
                if alone {
                    break;
                }
            }
            drop(tree);
            self.commit_group(shared, senders, group);
        }
    }

    /// Commits the valid proofs of a group, and reports the outcome of each.
    fn commit_group(
        &self,
        shared: &Arc<Shared>,
        senders: &HashMap<PeerId, Peer>,
        group: Vec<(PeerId, u64, Result<Verified>)>,
    ) {
        let mut valid = Vec::with_capacity(group.len());
        let mut requests = Vec::with_capacity(group.len());
        for (peer, request, verified) in group {
            let rejected = match verified {
                Ok(verified) => {
                    valid.push(verified);
                    None
                }
                Err(error) => Some(error),
            };
            requests.push((peer, request, rejected));
        }
        let committed = if valid.is_empty() { Ok(Vec::new()) } else { shared.commit_verified(valid) };
        let failure = committed.as_ref().err().cloned();
        let mut committed = committed.unwrap_or_default().into_iter();
        let mut outcomes = Vec::with_capacity(requests.len());
        // In the order of the requests: the outcome of one may excuse the next.
        for (peer, request, rejected) in requests {
            let outcome = match rejected {
                Some(error) => CommitOutcome::Rejected(error),
                None => {
                    let committed = committed.next();
                    report_download(shared, committed.as_ref(), senders.get(&peer));
                    outcome_of(committed)
                }
            };
            outcomes.push((peer, request, outcome));
        }
        self.publish_head(shared);
        self.report_outcomes(shared, outcomes, failure);
    }

    /// Passes outcomes to the replicator. If the core could not store, fails all waiters, with `failure` or the
    /// first rejection as the reason.
    fn report_outcomes(&self, shared: &Shared, outcomes: Vec<(PeerId, u64, CommitOutcome)>, failure: Option<Error>) {
        let rejection = outcomes.iter().find_map(|(_, _, outcome)| match outcome {
            CommitOutcome::Rejected(error) => Some(error.clone()),
            _ => None,
        });
        let failed = self.with_replicator(|state, local, now| {
            for (peer, request, outcome) in outcomes {
                state.replicator.committed(peer, request, outcome, local, now);
            }
            state.replicator.has_failed()
        });
        if failed == Some(true) {
            self.fail_waiters(shared, failure.or(rejection));
        }
    }

    /// Syncs and announces the present head. Proofs are checked against it; if the replicator judged them by an
    /// older head, it would disconnect honest peers.
    fn publish_head(&self, shared: &Shared) {
        // If the disk fails, the core stops writing, and with it what is requested from peers.
        let _ = shared.sync_for_peers();
    }

    /// Fails all waiters, because the core cannot store what peers send.
    pub(super) fn fail_waiters(&self, shared: &Shared, reason: Option<Error>) {
        let reason =
            reason.unwrap_or_else(|| Error::new(ErrorKind::Failed, "blocks that peers sent could not be stored"));
        shared.waiters.close(&reason);
    }

    fn check_conflict(&self, shared: &Arc<Shared>, peer: PeerId, data: Box<Data>) {
        let Ok(reading) = shared.reading() else { return };
        let verifier = shared.state.read().verifier.clone();
        let conflict = merkle::conflict(&reading.tree(shared), &reading.head, &data.proof, &verifier);
        let found = matches!(conflict, Ok(Some(_)));
        self.with_replicator(|state, local, _| state.replicator.conflict_checked(peer, data, found, local));
    }

    fn verify_fork(&self, shared: &Arc<Shared>, peer: PeerId, data: &Data) {
        let Ok(reading) = shared.reading() else { return };
        let verifier = shared.state.read().verifier.clone();
        let outcome = merkle::Reorg::start(&reading.tree(shared), &reading.head, &data.proof, &verifier);
        self.with_replicator(|state, local, _| state.replicator.fork_verified(peer, data.request, outcome, local));
    }
}

pub(super) fn outcome_of(committed: Option<Committed>) -> CommitOutcome {
    match committed {
        Some(Committed::Stored(_)) => CommitOutcome::Stored,
        Some(Committed::Stale) => CommitOutcome::Stale,
        Some(Committed::Refused(error)) => CommitOutcome::Rejected(error),
        None => CommitOutcome::Failed,
    }
}

/// Reports a stored block to the subscribers of downloads.
fn report_download(shared: &Shared, committed: Option<&Committed>, sender: Option<&Peer>) {
    if let (Some(&Committed::Stored(Some((index, byte_length)))), Some(peer)) = (committed, sender) {
        shared.events.push_if_room(Event::Download(BlockTransfer { index, byte_length, peer: peer.clone() }));
    }
}
