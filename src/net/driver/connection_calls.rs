//! Calls from connections: channels open and close, messages arrive, responses are taken.

use std::sync::Arc;
use std::time::Instant;

use super::{Driver, PeerLink, Transport, describe};
use crate::core::Event;
use crate::core::shared::Shared;
use crate::crypto::hash;
use crate::merkle;
use crate::replication::{Data, Handshake, Message, PeerId, Request, Response};
use crate::wire::mux::ChannelId;
use crate::wire::noise::Role;
use crate::{Error, Result};

impl Driver {
    /// The handshake that is sent when a channel is opened.
    pub(crate) fn handshake(&self, role: Role, handshake_hash: &[u8; 64]) -> Vec<u8> {
        let Some(shared) = self.shared() else { return Vec::new() };
        let capability = hash::capability(role.is_initiator(), shared.key.as_bytes(), handshake_hash);
        let mut w = crate::codec::Writer::new();
        Handshake { seeks: true, capability }.encode(&mut w);
        w.into_vec()
    }

    /// Syncs, before the first peer, what the peers will see; see [`Shared::sync_before_first_peer`].
    pub(crate) fn sync_before_first_peer(&self) -> Result<()> {
        self.shared().map_or(Ok(()), |shared| shared.sync_before_first_peer())
    }

    /// Syncs appended blocks and announces them, unless another thread is doing so. Returns whether there were any.
    pub(crate) fn sync_for_peers(&self) -> bool {
        self.shared().is_some_and(|shared| shared.sync_for_peers_unless_busy())
    }

    /// Registers a connection, to be notified when the core closes. Returns false if the core is closed already.
    pub(crate) fn add_connection(&self, connection: Arc<dyn Transport>) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            state.connections.push(Arc::downgrade(&connection));
        }
        !state.closed
    }

    pub(crate) fn remove_connection(&self, connection: &dyn Transport) {
        self.state.lock().connections.retain(|c| c.strong_count() > 0 && !std::ptr::addr_eq(c.as_ptr(), connection));
    }

    /// A channel is being opened.
    pub(crate) fn peer_connecting(&self, peer: PeerId, connection: Arc<dyn Transport>) {
        let mut state = self.state.lock();
        let link = PeerLink { connection, channel: None, joined: false, pending_proofs: Vec::new() };
        state.peers.insert(peer, link);
        state.replicator.connecting(peer);
    }

    /// Records the channel of a peer.
    pub(crate) fn peer_channel(&self, peer: PeerId, channel: ChannelId) {
        if let Some(link) = self.state.lock().peers.get_mut(&peer) {
            link.channel = Some(channel);
        }
    }

    /// Both sides have opened the channel. Fails if the peer does not prove that it knows the core's key.
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
        self.with_replicator(|state, local, now| {
            // The core may have left the connection, or the connection may have ended, in the meantime.
            if state.peers.contains_key(&peer) {
                state.replicator.opened(peer, &handshake, local, now);
            }
        });
        Ok(())
    }

    /// The channel was closed or lost. Returns whether it should be opened again.
    pub(crate) fn peer_closed(&self, peer: PeerId) -> bool {
        let mut state = self.state.lock();
        let again = state.replicator.closed(peer);
        let link = state.peers.remove(&peer);
        // Its writer may have been the only one that knew of the next deadline.
        state.scheduled_deadline = None;
        drop(state);
        if let (Some(link), Some(shared)) = (link, self.shared()) {
            if link.joined {
                shared.events.push(Event::PeerRemove(describe(peer, &link, None)));
            }
        }
        self.drive();
        again
    }

    /// Passes a message of a peer to the replicator; the next drive carries out the actions. Fails if the
    /// message is malformed.
    pub(crate) fn receive(&self, peer: PeerId, kind: u64, payload: &[u8]) -> Result<()> {
        match Message::decode(kind, payload) {
            Ok(Some(message)) => {
                self.with_replicator(|state, local, now| state.replicator.handle(peer, message, local, now));
                Ok(())
            }
            // Newer versions of the protocol may have more types.
            Ok(None) => Ok(()),
            Err(error) => Err(Error::protocol(format!("the peer sends a malformed message: {error}"))),
        }
    }

    /// When to drive again if nothing else happens. If the deadline becomes earlier, the connections are woken.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        state.scheduled_deadline = state.replicator.next_deadline();
        state.scheduled_deadline.and_then(|at| self.began.checked_add(at))
    }

    /// The next response to `peer`; none if its upload queue is empty. Messages that `connection` has queued must be
    /// sent before it.
    pub(crate) fn next_response(&self, peer: PeerId, connection: &dyn Transport) -> Option<Message> {
        let shared = self.shared()?;
        let next = self.with_replicator(|state, local, _| state.replicator.next_response(peer, local)).flatten()?;
        let message = match next {
            Response::Message(message) => message,
            Response::Prove(request) => respond(&shared, &request),
        };
        if let Message::Data(data) = &message {
            if let Some(block) = &data.proof.block {
                self.report_upload(&shared, peer, block.index, block.value.len() as u64);
            }
            if data.proof.upgrade.is_some() {
                // The response leads to a head that may not have been announced to the peer. JavaScript requests no
                // more if its log becomes longer than the last `Sync` said.
                self.with_replicator(|state, local, _| state.replicator.send_sync(peer, local));
                self.dispatch_actions(&shared, Some(connection));
            }
        }
        Some(message)
    }

    fn report_upload(&self, shared: &Arc<Shared>, peer: PeerId, index: u64, bytes: u64) {
        // A peer may request faster than events are delivered; then some uploads are not reported, because an
        // event costs more than a request.
        if shared.events.has_subscribers() && !shared.events.has_reached_block_limit() {
            let told = self.state.lock().peers.get(&peer).map(|link| describe(peer, link, None));
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
pub(super) fn respond(shared: &Arc<Shared>, request: &Request) -> Message {
    let (fork, manifest) = {
        let state = shared.state.read();
        (
            state.announced_head().fork,
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
    fn handshake_of_removed_peer_adds_no_peer() -> Result<()> {
        let core = Hypercore::in_memory()?;
        let driver = Driver::of(&core)?;
        let said = driver.handshake(Role::Initiator, &[7; 64]);
        driver.peer_opened(PeerId::next(), &said, Role::Responder, &[7; 64])?;
        assert_eq!(driver.state.lock().replicator.peers().count(), 0);
        Ok(())
    }
}
