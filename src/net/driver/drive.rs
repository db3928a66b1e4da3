//! Driving: polling the replicator's actions and carrying them out until there are none.

use std::sync::{Arc, Weak};

use super::connection_calls::respond;
use super::pending_proofs::outcome_of;
use super::view::LocalView;
use super::{Deferred, Driver, PeerLink, PendingProof, State, Transport, describe};
use crate::core::shared::Shared;
use crate::core::waiters::WaitOutcome;
use crate::core::{Event, ExtensionMessage};
use crate::merkle::Verified;
use crate::replication::{Action, CloseReason, PeerId, WaiterId, Woken};
use crate::{Error, Result};

impl Driver {
    /// Carries out all actions, except proofs to verify, which are left to the threads of their connection. No
    /// lock may be held.
    pub(crate) fn drive(&self) {
        self.drive_with(None);
    }

    /// Like [`Driver::drive`] on a thread of `connection`, whose peers' proofs it verifies and commits as well.
    pub(crate) fn drive_on(&self, connection: &dyn Transport) {
        self.drive_with(Some(connection));
    }

    fn drive_with(&self, current: Option<&dyn Transport>) {
        let Some(shared) = self.shared() else { return };
        loop {
            self.dispatch_actions(&shared, current);
            let deferred = std::mem::take(&mut self.state.lock().deferred);
            let idle = deferred.is_empty();
            for action in deferred {
                self.carry_out(&shared, action);
            }
            let verified = current.is_some_and(|connection| self.check_pending_proofs(&shared, connection));
            if idle && !verified {
                break;
            }
        }
        shared.deliver();
    }

    /// Polls the replicator until it has no more actions. Carries out the quick ones under the lock, which
    /// keeps their order, and leaves the others in `deferred` or with the peer's pending proofs. Wakes the
    /// connections that have something to do, except `current`.
    pub(super) fn dispatch_actions(&self, shared: &Shared, current: Option<&dyn Transport>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let local = LocalView::new(shared);
        let mut woken = Vec::new();
        while let Some(action) = state.replicator.poll(&local, self.now()) {
            match action {
                Action::Send { peer, message } => {
                    if let Some((connection, channel)) = state.channel_of(peer) {
                        connection.send(channel, &message);
                    }
                }
                Action::ResponsesReady { peer } => {
                    if let Some((connection, channel)) = state.channel_of(peer) {
                        connection.queue_responses(channel);
                    }
                }
                Action::Commit { peer, data } => state.push_proof(peer, PendingProof::Proof(data)),
                Action::CheckConflict { peer, data } => state.push_proof(peer, PendingProof::Conflict(data)),
                Action::VerifyFork { peer, data } => state.push_proof(peer, PendingProof::Fork(data)),
                Action::Reorganize { verified } => state.deferred.push(Deferred::Reorganize(verified)),
                Action::Extension { peer, name, message } => state.queue_extension(shared, peer, &name, message),
                Action::Wake { waiter, result } => woken.push((waiter, result)),
                Action::Peer { peer, joined } => state.report_peer(shared, peer, joined),
                Action::Close { peer, reason } => state.close_peer(shared, peer, reason),
                Action::Conflict { data, .. } => {
                    let length = data.proof.upgrade.as_ref().map_or(0, |u| u.start.saturating_add(u.length));
                    state.deferred.push(Deferred::ReportConflict(length, data.proof.fork));
                }
            }
        }
        drop(local);
        state.wake_waiters(shared, woken);
        state.wake_connections(current);
    }

    fn carry_out(&self, shared: &Arc<Shared>, action: Deferred) {
        match action {
            Deferred::Reorganize(verified) => self.reorganize(shared, *verified),
            Deferred::Disconnect(connection, error) => connection.shut(Some(error)),
            Deferred::ReportConflict(length, fork) => shared.events.push(Event::Conflict(length, fork)),
            Deferred::ProveConflict(connection, channel, request) => {
                connection.send(channel, &respond(shared, &request));
                connection.close_channel(channel);
            }
        }
    }

    /// Commits a move to another fork and reports the outcome to the replicator.
    fn reorganize(&self, shared: &Arc<Shared>, verified: Verified) {
        let committed = shared.commit_verified(vec![verified]);
        let failure = committed.as_ref().err().cloned();
        let outcome = outcome_of(committed.unwrap_or_default().pop());
        let failed = self.with_replicator(|state, _, _| {
            state.replicator.reorganized(outcome);
            state.replicator.has_failed()
        });
        if failed == Some(true) {
            self.fail_waiters(shared, failure);
        }
    }
}

impl Driver {
    /// Carries out the quick actions only, for a caller that may hold the writer lock, and wakes connections to
    /// do the rest.
    pub(super) fn drive_quick(&self) {
        let Some(shared) = self.shared() else { return };
        self.dispatch_actions(&shared, None);
        let state = self.state.lock();
        if !state.deferred.is_empty() {
            let connections: Vec<_> = state.connections.iter().filter_map(Weak::upgrade).collect();
            drop(state);
            connections.iter().for_each(|connection| connection.wake());
        }
    }

    /// Whether actions were left to the threads of `connection`.
    pub(crate) fn has_work(&self, connection: &dyn Transport) -> bool {
        let state = self.state.lock();
        let has_pending = |link: &PeerLink| link.is_on(connection) && !link.pending_proofs.is_empty();
        !state.deferred.is_empty() || state.peers.values().any(has_pending)
    }
}

/// How single actions are carried out, under the lock.
impl State {
    /// Leaves a proof to the threads of the peer's connection.
    fn push_proof(&mut self, peer: PeerId, proof: PendingProof) {
        if let Some(link) = self.peers.get_mut(&peer) {
            link.pending_proofs.push(proof);
        }
    }

    /// Queues an extension's message for its handler. A peer whose undelivered messages exceed the
    /// limit is disconnected.
    fn queue_extension(&mut self, shared: &Shared, peer: PeerId, name: &str, message: Vec<u8>) {
        let (Some(link), Some(handler)) = (self.peers.get(&peer), self.extensions.get(name)) else { return };
        let message = ExtensionMessage {
            handler: handler.clone(),
            message,
            peer: describe(peer, link, None),
            waiting: link.connection.undelivered().clone(),
        };
        if let Err(error) = shared.events.push_message(message) {
            self.deferred.push(Deferred::Disconnect(link.connection.clone(), error));
        }
    }

    fn report_peer(&mut self, shared: &Shared, peer: PeerId, joined: bool) {
        let info = self.replicator.peers().find(|info| info.peer == peer);
        let Some(link) = self.peers.get_mut(&peer) else { return };
        if joined && shared.events.has_reached_peer_limit() {
            let error = Error::protocol("peers join and leave faster than the events of it are delivered");
            self.deferred.push(Deferred::Disconnect(link.connection.clone(), error));
        }
        link.joined = joined;
        let described = describe(peer, link, info.as_ref());
        shared.events.push(if joined { Event::PeerAdd(described) } else { Event::PeerRemove(described) });
    }

    /// Closes the channel of a peer that the replicator has removed, or its connection if the peer misbehaved.
    fn close_peer(&mut self, shared: &Shared, peer: PeerId, reason: CloseReason) {
        let Some(link) = self.peers.remove(&peer) else { return };
        if link.joined {
            shared.events.push(Event::PeerRemove(describe(peer, &link, None)));
        }
        match (reason, link.channel) {
            (CloseReason::Misbehaved(error), _) => {
                shared.events.push(Event::VerificationError(error.clone(), describe(peer, &link, None)));
                self.deferred.push(Deferred::Disconnect(link.connection, error));
            }
            (CloseReason::Conflict { request: Some(request) }, Some(channel)) => {
                self.deferred.push(Deferred::ProveConflict(link.connection, channel, request));
            }
            (_, Some(channel)) => link.connection.close_channel(channel),
            (_, None) => {}
        }
    }

    fn wake_waiters(&mut self, shared: &Shared, woken: Vec<(WaiterId, Result<Woken>)>) {
        for (id, result) in woken {
            let Some(waiter) = self.core_waiters.remove(&id) else { continue };
            self.waiter_ids.remove(&waiter);
            let outcome = match result {
                Ok(_) => WaitOutcome::Changed,
                Err(error) => WaitOutcome::Failed(error),
            };
            shared.waiters.wake(waiter, outcome);
        }
    }

    /// Wakes the connections, except `current`, whose peers have pending proofs; and all of them if the next
    /// deadline is earlier than their writers know.
    fn wake_connections(&mut self, current: Option<&dyn Transport>) {
        let others = |link: &&PeerLink| !current.is_some_and(|current| link.is_on(current));
        let waiting = self.peers.values().filter(|link| !link.pending_proofs.is_empty());
        waiting.filter(others).for_each(|link| link.connection.wake());
        let due = self.replicator.next_deadline();
        if due.is_some_and(|due| self.scheduled_deadline.is_none_or(|known| due < known)) {
            self.scheduled_deadline = due;
            self.connections.iter().filter_map(Weak::upgrade).for_each(|connection| connection.wake());
        }
    }
}
