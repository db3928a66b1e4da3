//! What connections say to a core: peers come, speak, ask and go.

use std::sync::Arc;
use std::time::Instant;

use super::{Driver, PeerLink, describe};
use crate::core::Event;
use crate::core::shared::Shared;
use crate::crypto::hash;
use crate::merkle;
use crate::net::connection::Inner as Connection;
use crate::replication::{Data, Handshake, Message, PeerId, Request, Serve};
use crate::wire::mux::ChannelId;
use crate::wire::noise::Role;
use crate::{Error, Result};

impl Driver {
    /// What our side says on opening a channel.
    pub(crate) fn handshake(&self, role: Role, handshake_hash: &[u8; 64]) -> Vec<u8> {
        let Some(shared) = self.shared() else { return Vec::new() };
        let capability = hash::capability(role.is_initiator(), shared.key.as_bytes(), handshake_hash);
        let mut w = crate::codec::Writer::new();
        Handshake { seeks: true, capability }.encode(&mut w);
        w.into_vec()
    }

    /// Waits until what peers are to see is on the disk, before the first of them; see
    /// [`Shared::sync_before_first_peer`].
    pub(crate) fn settle_before_peers(&self) -> Result<()> {
        self.shared().map_or(Ok(()), |shared| shared.sync_before_first_peer())
    }

    /// Syncs and tells what peers may not have heard of yet, unless another thread is at it; whether there was
    /// anything.
    pub(crate) fn settle(&self) -> bool {
        self.shared().is_some_and(|shared| shared.sync_for_peers_unless_busy())
    }

    /// Has `connection` told when the core closes; false if it is closed.
    pub(crate) fn remember(&self, connection: &Arc<Connection>) -> bool {
        let mut machine = self.machine.lock();
        if !machine.closed {
            machine.connections.push(Arc::downgrade(connection));
        }
        !machine.closed
    }

    pub(crate) fn forget(&self, connection: &Connection) {
        self.machine.lock().connections.retain(|c| c.strong_count() > 0 && !std::ptr::eq(c.as_ptr(), connection));
    }

    /// A channel is being opened.
    pub(crate) fn peer_connecting(&self, peer: PeerId, connection: &Arc<Connection>) {
        let mut machine = self.machine.lock();
        let link =
            PeerLink { connection: connection.clone(), channel: None, joined: false, pending_proofs: Vec::new() };
        machine.peers.insert(peer, link);
        machine.replicator.connecting(peer);
    }

    /// The channel has this name on its connection.
    pub(crate) fn peer_channel(&self, peer: PeerId, channel: ChannelId) {
        if let Some(link) = self.machine.lock().peers.get_mut(&peer) {
            link.channel = Some(channel);
        }
    }

    /// Both sides have opened the channel; an error if the peer does not prove that it knows the core's key.
    pub(crate) fn peer_opened(
        &self,
        peer: PeerId,
        handshake: &[u8],
        role: Role,
        handshake_hash: &[u8; 64],
    ) -> Result<()> {
        let Some(shared) = self.shared() else { return Ok(()) };
        let handshake = Handshake::decode(&mut crate::codec::Reader::new(handshake))
            .map_err(|e| Error::protocol(format!("the peer opens a channel with a malformed handshake: {e}")))?;
        let expected = hash::capability(!role.is_initiator(), shared.key.as_bytes(), handshake_hash);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(&expected[..], &handshake.capability[..])) {
            return Err(Error::protocol(format!("the peer does not know the key of the core {}", self.discovery_key)));
        }
        self.tell(|machine, local, now| {
            // The core may have left the connection, or this may have ended, before that was heard.
            if machine.peers.contains_key(&peer) {
                machine.replicator.opened(peer, &handshake, local, now);
            }
        });
        Ok(())
    }

    /// The channel is closed or lost; true if it should be opened again.
    pub(crate) fn peer_closed(&self, peer: PeerId) -> bool {
        let mut machine = self.machine.lock();
        let again = machine.replicator.closed(peer);
        let link = machine.peers.remove(&peer);
        // Its writer may be the only one that knows of the next deadline.
        machine.told_deadline = None;
        drop(machine);
        if let (Some(link), Some(shared)) = (link, self.shared()) {
            if link.joined {
                shared.events.push(Event::PeerRemove(describe(peer, &link, None)));
            }
        }
        self.drive();
        again
    }

    /// Takes in a message of a peer; what comes of it comes of the next drive. An error if it is malformed.
    pub(crate) fn receive(&self, peer: PeerId, kind: u64, payload: &[u8]) -> Result<()> {
        match Message::decode(kind, payload) {
            Ok(Some(message)) => {
                self.tell(|machine, local, now| machine.replicator.handle(peer, message, local, now));
                Ok(())
            }
            // A later version of the protocol may have more kinds.
            Ok(None) => Ok(()),
            Err(error) => Err(Error::protocol(format!("the peer sends a malformed message: {error}"))),
        }
    }

    /// When to drive again though nothing happened. If it should come to be sooner, the connections are woken.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let mut machine = self.machine.lock();
        machine.told_deadline = machine.replicator.next_deadline();
        machine.told_deadline.and_then(|at| self.began.checked_add(at))
    }

    /// The next thing to send to `peer`; none if nothing waits. What `connection` has queued goes before it.
    pub(crate) fn answer(&self, peer: PeerId, connection: &Connection) -> Option<Message> {
        let shared = self.shared()?;
        let next = self.tell(|machine, local, _| machine.replicator.serve(peer, local)).flatten()?;
        let message = match next {
            Serve::Message(message) => message,
            Serve::Request(request) => answer_to(&shared, &request),
        };
        if let Message::Data(data) = &message {
            if let Some(block) = &data.proof.block {
                self.tell_upload(&shared, peer, block.index, block.value.len() as u64);
            }
            if data.proof.upgrade.is_some() {
                // It leads to a head that the peer may not have been told of yet. One that gets a longer log than it
                // was told of asks for no more, if it is the reference.
                self.tell(|machine, local, _| machine.replicator.say_head(peer, local));
                self.act(&shared, Some(connection));
            }
        }
        Some(message)
    }

    fn tell_upload(&self, shared: &Arc<Shared>, peer: PeerId, index: u64, bytes: u64) {
        // Of a peer that asks faster than it is told who listens misses some: an event costs more than a request.
        if shared.events.has_subscribers() && !shared.events.has_reached_block_limit() {
            let told = self.machine.lock().peers.get(&peer).map(|link| describe(peer, link, None));
            if let Some(peer) = told {
                shared.events.push_if_room(Event::Upload(crate::core::peers::BlockTransfer {
                    index,
                    byte_length: bytes,
                    peer,
                }));
                shared.deliver();
            }
        }
    }
}

/// The answer to a peer's request.
pub(super) fn answer_to(shared: &Arc<Shared>, request: &Request) -> Message {
    let (fork, manifest) = {
        let state = shared.state.read();
        (
            state.shown_head().fork,
            state.verifier.manifest().filter(|_| request.manifest && !state.verifier.is_compat()).cloned(),
        )
    };
    let proof = if request.fork == fork { shared.prove(&request.wanted).ok().flatten() } else { None };
    match (proof, manifest) {
        (Some(proof), manifest) => {
            let proof = merkle::Proof { manifest, ..proof };
            Message::Data(Box::new(Data { request: request.id, proof }))
        }
        (None, Some(manifest)) => {
            let proof = merkle::Proof { fork: request.fork, manifest: Some(manifest), ..merkle::Proof::default() };
            Message::Data(Box::new(Data { request: request.id, proof }))
        }
        (None, None) => Message::NoData(request.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Hypercore;

    #[test]
    fn a_peer_that_left_before_its_handshake_was_heard_does_not_come_back() -> Result<()> {
        let core = Hypercore::in_memory()?;
        let net = Driver::of(&core)?;
        let said = net.handshake(Role::Initiator, &[7; 64]);
        net.peer_opened(PeerId::next(), &said, Role::Responder, &[7; 64])?;
        assert_eq!(net.machine.lock().replicator.peers().count(), 0);
        Ok(())
    }
}
