//! Driving: the machine's actions are taken until there are none.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::peers::answer_to;
use super::view::LocalView;
use super::{Driver, Machine, PeerLink, PendingProof, Work, describe, link};
use crate::Error;
use crate::core::shared::Shared;
use crate::core::waiters::WaitOutcome;
use crate::core::{Event, ExtensionMessage};
use crate::net::connection::Inner as Connection;
use crate::replication::{Action, CloseReason, PeerId};

impl Driver {
    /// Takes the machine's actions until there are none; what peers claim is left to the threads of their connections. Called
    /// with no lock held.
    pub(crate) fn drive(&self) {
        self.drive_with(None);
    }

    /// As [`Driver::drive`], on a thread of `connection`.
    pub(crate) fn drive_on(&self, connection: &Connection) {
        self.drive_with(Some(connection));
    }

    fn drive_with(&self, mine: Option<&Connection>) {
        let Some(shared) = self.shared() else { return };
        loop {
            self.act(&shared, mine);
            let work = std::mem::take(&mut self.machine.lock().backlog);
            let idle = work.is_empty();
            for item in work {
                self.carry_out(&shared, item);
            }
            let claimed = mine.is_some_and(|connection| self.check_pending_proofs(&shared, connection));
            if idle && !claimed {
                break;
            }
        }
        shared.deliver();
    }

    /// Does what is quick, and puts the rest where whoever has to do it finds it; wakes all of them but `mine`.
    pub(super) fn act(&self, shared: &Shared, mine: Option<&Connection>) {
        let mut guard = self.machine.lock();
        let machine = &mut *guard;
        let local = LocalView::new(shared);
        let mut woken = Vec::new();
        while let Some(action) = machine.replicator.poll(&local, self.now()) {
            let work = &mut machine.backlog;
            let claim = |peers: &mut HashMap<PeerId, PeerLink>, peer, claim| {
                if let Some(link) = peers.get_mut(&peer) {
                    link.pending_proofs.push(claim);
                }
            };
            match action {
                Action::Send { peer, message } => {
                    if let Some((connection, channel)) = link(&machine.peers, peer) {
                        connection.send(channel, &message);
                    }
                }
                Action::Serve { peer } => {
                    if let (Some((connection, channel)), Some(me)) = (link(&machine.peers, peer), self.me(shared)) {
                        connection.serve(me, peer, channel);
                    }
                }
                Action::Commit { peer, data } => claim(&mut machine.peers, peer, PendingProof::Proof(data)),
                Action::CheckConflict { peer, data } => claim(&mut machine.peers, peer, PendingProof::Conflict(data)),
                Action::VerifyFork { peer, data } => claim(&mut machine.peers, peer, PendingProof::Fork(data)),
                Action::Reorganize { verified } => work.push(Work::Reorganize(verified)),
                Action::Extension { peer, name, message } => {
                    let (Some(link), Some(handler)) = (machine.peers.get(&peer), machine.extensions.get(&name)) else {
                        continue;
                    };
                    let message = ExtensionMessage {
                        handler: handler.clone(),
                        message,
                        peer: describe(peer, link, None),
                        waiting: link.connection.undelivered.clone(),
                    };
                    if let Err(error) = shared.events.push_message(message) {
                        work.push(Work::Cut(link.connection.clone(), error));
                    }
                }
                Action::Wake { want, result } => woken.push((want, result)),
                Action::Peer { peer, joined } => {
                    let info = machine.replicator.peers().find(|info| info.peer == peer);
                    if let Some(link) = machine.peers.get_mut(&peer) {
                        if joined && shared.events.has_reached_peer_limit() {
                            let error = Error::protocol("peers come and go faster than it is told");
                            work.push(Work::Cut(link.connection.clone(), error));
                        }
                        link.joined = joined;
                        let told = describe(peer, link, info.as_ref());
                        shared.events.push(if joined { Event::PeerAdd(told) } else { Event::PeerRemove(told) });
                    }
                }
                Action::Close { peer, reason } => {
                    let link = machine.peers.remove(&peer);
                    let Some(link) = link else { continue };
                    if link.joined {
                        shared.events.push(Event::PeerRemove(describe(peer, &link, None)));
                    }
                    match (reason, link.channel) {
                        (CloseReason::Misbehaved(error), _) => {
                            shared.events.push(Event::VerificationError(error.clone(), describe(peer, &link, None)));
                            work.push(Work::Cut(link.connection, error));
                        }
                        (CloseReason::Conflict { evidence: Some(request) }, Some(channel)) => {
                            work.push(Work::Evidence(link.connection, channel, request));
                        }
                        (_, Some(channel)) => link.connection.close_channel(channel),
                        (_, None) => {}
                    }
                }
                Action::Conflict { data, .. } => {
                    let length = data.proof.upgrade.as_ref().map_or(0, |u| u.start.saturating_add(u.length));
                    work.push(Work::Conflict(length, data.proof.fork));
                }
            }
        }
        drop(local);
        for (want, result) in woken {
            let Some(waiter) = machine.core_waiters.remove(&want) else { continue };
            machine.waiter_ids.remove(&waiter);
            shared.waiters.wake(
                waiter,
                match result {
                    Ok(_) => WaitOutcome::Changed,
                    Err(error) => WaitOutcome::Failed(error),
                },
            );
        }
        machine.wake_connections(mine);
    }

    fn carry_out(&self, shared: &Arc<Shared>, work: Work) {
        match work {
            Work::Reorganize(verified) => self.reorganize(shared, *verified),
            Work::Cut(connection, error) => connection.shut(Some(error)),
            Work::Conflict(length, fork) => shared.events.push(Event::Conflict(length, fork)),
            Work::Evidence(connection, channel, request) => {
                connection.send(channel, &answer_to(shared, &request));
                connection.close_channel(channel);
            }
        }
    }
}

impl Driver {
    /// Does what is quick, for a caller that may hold the writer; what is not is left to a thread of a connection.
    pub(super) fn nudge(&self) {
        let Some(shared) = self.shared() else { return };
        self.act(&shared, None);
        let machine = self.machine.lock();
        if !machine.backlog.is_empty() {
            let connections: Vec<_> = machine.connections.iter().filter_map(Weak::upgrade).collect();
            drop(machine);
            connections.iter().for_each(|connection| connection.wake());
        }
    }

    /// Whether work was left to the threads of `connection`.
    pub(crate) fn has_work(&self, connection: &Connection) -> bool {
        let machine = self.machine.lock();
        let claims = |link: &PeerLink| link.is_on(connection) && !link.pending_proofs.is_empty();
        !machine.backlog.is_empty() || machine.peers.values().any(claims)
    }
}

impl Machine {
    /// Wakes the connections but `mine` whose peers' claims wait, and all when there is something due earlier than they know.
    fn wake_connections(&mut self, mine: Option<&Connection>) {
        let others = |link: &&PeerLink| !mine.is_some_and(|mine| link.is_on(mine));
        let waiting = self.peers.values().filter(|link| !link.pending_proofs.is_empty());
        waiting.filter(others).for_each(|link| link.connection.wake());
        let due = self.replicator.next_deadline();
        if due.is_some_and(|due| self.told_deadline.is_none_or(|told| due < told)) {
            self.told_deadline = due;
            self.connections.iter().filter_map(Weak::upgrade).for_each(|connection| connection.wake());
        }
    }
}
