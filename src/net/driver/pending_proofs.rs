//! What peers claim is verified without the machine's lock, and committed together; the machine is told the outcome.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Driver, PeerLink, PendingProof, describe};
use crate::core::Event;
use crate::core::commit_proof::Committed;
use crate::core::peers::{BlockTransfer, Peer};
use crate::core::shared::Shared;
use crate::merkle::{self, Overlay, Verified};
use crate::net::connection::Inner as Connection;
use crate::replication::{CommitOutcome, Data, PeerId};
use crate::{Error, ErrorKind, Result};

impl Driver {
    /// Verifies what the peers on `connection` claim, and stores what holds; false if they claim nothing.
    pub(super) fn check_pending_proofs(&self, shared: &Arc<Shared>, connection: &Connection) -> bool {
        let _turn = connection.take_turn();
        let mut claims = Vec::new();
        // Who brought a block is told also if it leaves meanwhile, and to those who subscribe meanwhile.
        let mut told = HashMap::new();
        let is_claiming = |link: &PeerLink| link.is_on(connection) && !link.pending_proofs.is_empty();
        for (&peer, link) in self.machine.lock().peers.iter_mut().filter(|(_, link)| is_claiming(link)) {
            told.insert(peer, describe(peer, link, None));
            claims.extend(link.pending_proofs.drain(..).map(|claim| (peer, claim)));
        }
        let found = !claims.is_empty();
        if found {
            self.show_present_head(shared);
        }
        let mut proofs = Vec::new();
        for (peer, claim) in claims {
            if let PendingProof::Proof(data) = claim {
                proofs.push((peer, data));
                continue;
            }
            self.commit_proofs(shared, &told, std::mem::take(&mut proofs));
            match claim {
                PendingProof::Proof(_) => {}
                PendingProof::Conflict(data) => self.check_conflict(shared, peer, data),
                PendingProof::Fork(data) => self.verify_fork(shared, peer, &data),
            }
        }
        self.commit_proofs(shared, &told, proofs);
        found
    }

    /// Verifies proofs and commits them together, those that move the head each by itself.
    fn commit_proofs(&self, shared: &Arc<Shared>, told: &HashMap<PeerId, Peer>, proofs: Vec<(PeerId, Box<Data>)>) {
        let mut proofs = proofs.into_iter().peekable();
        while proofs.peek().is_some() {
            let mut group = Vec::new();
            let Ok(reading) = shared.reading() else { return };
            let (head, verifier) = (&reading.head, shared.state.read().verifier.clone());
            // A proof may lean on one before it: the peer was asked for no more than that one would not bring.
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
            self.commit_group(shared, told, group);
        }
    }

    fn commit_group(
        &self,
        shared: &Arc<Shared>,
        told: &HashMap<PeerId, Peer>,
        group: Vec<(PeerId, u64, Result<Verified>)>,
    ) {
        let mut good = Vec::with_capacity(group.len());
        let mut asked = Vec::with_capacity(group.len());
        for (peer, request, verified) in group {
            let refused = match verified {
                Ok(verified) => {
                    good.push(verified);
                    None
                }
                Err(error) => Some(error),
            };
            asked.push((peer, request, refused));
        }
        let taken = if good.is_empty() { Ok(Vec::new()) } else { shared.commit_verified(good) };
        let failure = taken.as_ref().err().cloned();
        let mut taken = taken.unwrap_or_default().into_iter();
        let mut outcomes = Vec::with_capacity(asked.len());
        // In their order: what becomes of one may excuse the next.
        for (peer, request, refused) in asked {
            let outcome = match refused {
                Some(error) => CommitOutcome::Rejected(error),
                None => match taken.next() {
                    Some(Committed::Stored(block)) => {
                        if let (Some((index, byte_length)), Some(peer)) = (block, told.get(&peer)) {
                            let block = BlockTransfer { index, byte_length, peer: peer.clone() };
                            shared.events.push_if_room(Event::Download(block));
                        }
                        CommitOutcome::Stored
                    }
                    Some(Committed::Stale) => CommitOutcome::Stale,
                    Some(Committed::Refused(error)) => CommitOutcome::Rejected(error),
                    None => CommitOutcome::Failed,
                },
            };
            outcomes.push((peer, request, outcome));
        }
        self.show_present_head(shared);
        let ours = outcomes.iter().find_map(|(_, _, outcome)| match outcome {
            CommitOutcome::Rejected(error) => Some(error.clone()),
            _ => None,
        });
        let failed = self.tell(|machine, local, now| {
            for (peer, request, outcome) in outcomes {
                machine.replicator.committed(peer, request, outcome, local, now);
            }
            machine.replicator.has_failed()
        });
        if failed == Some(true) {
            self.give_up(shared, failure.or(ours));
        }
    }

    /// Lets the machine see the head that proofs are checked against: by an older one it would take an honest peer for
    /// a liar.
    fn show_present_head(&self, shared: &Shared) {
        // A disk that fails ends the core's writing, and so what peers are asked for.
        let _ = shared.sync_for_peers();
    }

    /// The core cannot store what peers bring: who waits for it would wait for ever.
    fn give_up(&self, shared: &Shared, why: Option<Error>) {
        let why = why.unwrap_or_else(|| Error::new(ErrorKind::Failed, "what peers bring cannot be stored"));
        shared.waiters.close(&why);
    }

    fn check_conflict(&self, shared: &Arc<Shared>, peer: PeerId, data: Box<Data>) {
        let Ok(reading) = shared.reading() else { return };
        let verifier = shared.state.read().verifier.clone();
        let conflict = merkle::conflict(&reading.tree(shared), &reading.head, &data.proof, &verifier);
        let found = matches!(conflict, Ok(Some(_)));
        self.tell(|machine, local, _| machine.replicator.conflict_checked(peer, data, found, local));
    }

    fn verify_fork(&self, shared: &Arc<Shared>, peer: PeerId, data: &Data) {
        let Ok(reading) = shared.reading() else { return };
        let verifier = shared.state.read().verifier.clone();
        let outcome = merkle::Reorg::start(&reading.tree(shared), &reading.head, &data.proof, &verifier);
        self.tell(|machine, local, _| machine.replicator.fork_verified(peer, data.request, outcome, local));
    }

    pub(super) fn reorganize(&self, shared: &Arc<Shared>, verified: Verified) {
        let taken = shared.commit_verified(vec![verified]);
        let failure = taken.as_ref().err().cloned();
        let outcome = match taken.unwrap_or_default().pop() {
            Some(Committed::Stored(_)) => CommitOutcome::Stored,
            Some(Committed::Stale) => CommitOutcome::Stale,
            Some(Committed::Refused(error)) => CommitOutcome::Rejected(error),
            None => CommitOutcome::Failed,
        };
        let failed = self.tell(|machine, _, _| {
            machine.replicator.reorganized(outcome);
            machine.replicator.has_failed()
        });
        if failed == Some(true) {
            self.give_up(shared, failure);
        }
    }
}
