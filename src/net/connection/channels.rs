//! The channels of a connection: which core uses which, opened by either side.
//!
//! ```text
//! attach (before the handshake) -> connecting: a placeholder peer keeps the core's waits open
//! open_channel -> mux open, the replicator's `connecting`
//! Opened, or the peer had opened first -> peer_opened checks the capability -> messages
//! Closed / Rejected -> peer_closed; opened again if the peer was idle and this core wants more
//! ```
//!
//! A peer that asks for a core that is not attached gets it if the server's lookup finds it, else a reject.

use std::sync::Arc;

use super::inner::Inner;
use crate::crypto::keys::DiscoveryKey;
use crate::net::driver::Driver;
use crate::replication::PeerId;
use crate::wire::batch;
use crate::wire::mux::{Accepted, ChannelId, Event};
use crate::{Error, ErrorKind, Result};

/// The protocol's names, the present one first. Whichever name the peer opens is used.
const PROTOCOLS: [&str; 2] = ["hypercore/alpha", "hypercore"];

/// Where the channel of an attached core stands.
enum Attached {
    /// The channel is open, or was before.
    Opened,
    /// It will be opened when the handshake is done.
    Waiting,
}

impl Inner {
    /// Adds `core` to the connection. Its channel is opened now, or when the handshake is done.
    pub(super) fn attach(self: &Arc<Self>, core: &Arc<Driver>) -> Result<()> {
        let placeholder = PeerId::next();
        core.peer_connecting(placeholder, self.clone());
        let attached = self.attach_with(core, placeholder);
        if !matches!(attached, Ok(Attached::Waiting)) {
            core.peer_closed(placeholder);
        }
        attached.map(|_| ())
    }

    fn attach_with(self: &Arc<Self>, core: &Arc<Driver>, placeholder: PeerId) -> Result<Attached> {
        let established = {
            let mut state = self.state.lock();
            if self.is_closing() || state.closed {
                return Err(Error::new(ErrorKind::Closed, "the connection is closed"));
            }
            if state.cores.iter().any(|known| Arc::ptr_eq(known, core)) {
                return Ok(Attached::Opened);
            }
            state.cores.push(core.clone());
            if !state.established {
                state.connecting.push((core.clone(), placeholder));
            }
            state.established
        };
        // Registered after the core was added: if the core closes in the meantime, either it finds the
        // connection, or this call finds that it is closed.
        if !core.add_connection(self.clone()) {
            self.detach(core);
            return Err(Error::new(ErrorKind::Closed, "the core is closed"));
        }
        if established {
            self.open_channel(core)?;
            return Ok(Attached::Opened);
        }
        Ok(Attached::Waiting)
    }

    /// Removes `core` and closes its channels. Returns whether it was the last core.
    pub(super) fn detach(&self, core: &Driver) -> bool {
        let (closed, last) = {
            let mut state = self.state.lock();
            let is_it = |other: &Arc<Driver>| std::ptr::eq(&**other, core);
            state.cores.retain(|known| !is_it(known));
            let channels: Vec<ChannelId> =
                state.channels.iter().filter(|(_, (c, _))| is_it(c)).map(|(id, _)| *id).collect();
            let mut peers: Vec<PeerId> =
                channels.iter().filter_map(|id| state.channels.remove(id)).map(|(_, peer)| peer).collect();
            peers.extend(state.connecting.iter().filter(|(c, _)| is_it(c)).map(|(_, peer)| *peer));
            state.connecting.retain(|(c, _)| !is_it(c));
            for channel in channels {
                let _ = state.mux.close(channel);
            }
            (peers, state.cores.is_empty())
        };
        core.remove_connection(self);
        for peer in closed {
            core.peer_closed(peer);
        }
        self.wake();
        last
    }

    pub(super) fn open_channels(self: &Arc<Self>) -> Result<()> {
        let (cores, placeholders) = {
            let mut state = self.state.lock();
            state.established = true;
            (state.cores.clone(), std::mem::take(&mut state.connecting))
        };
        let opened = cores.iter().try_for_each(|core| self.open_channel(core));
        for (core, peer) in placeholders {
            core.peer_closed(peer);
        }
        opened
    }

    /// Opens the channel of `core`, as a new peer.
    pub(crate) fn open_channel(self: &Arc<Self>, core: &Arc<Driver>) -> Result<()> {
        let Some(identity) = self.identity.get() else { return Ok(()) };
        core.sync_before_first_peer()?;
        let peer = PeerId::next();
        let handshake = core.handshake(self.role, &identity.handshake_hash);
        // Messages of the peer on this channel must not be handled before the driver knows the channel.
        let order = self.message_order.lock();
        core.peer_connecting(peer, self.clone());
        let opening = {
            let mut state = self.state.lock();
            let attached = state.cores.iter().any(|known| Arc::ptr_eq(known, core));
            let opening = attached.then(|| state.mux.open(&PROTOCOLS, core.discovery_key().as_bytes(), &handshake));
            if let Some(Ok(opening)) = &opening {
                state.channels.insert(opening.channel, (core.clone(), peer));
            }
            opening
        };
        let opening = match opening {
            Some(Ok(opening)) => opening,
            not_opened => {
                drop(order);
                core.peer_closed(peer);
                return match not_opened {
                    // Open already, because both sides opened it at the same time.
                    Some(Err(error)) if error.kind() != ErrorKind::InvalidOperation => Err(error),
                    _ => Ok(()),
                };
            }
        };
        core.peer_channel(peer, opening.channel);
        self.wake();
        let Some(Accepted { handshake, messages }) = opening.accepted else { return Ok(()) };
        let opened = self
            .peer_opened(core, peer, &handshake)
            .and_then(|()| messages.iter().try_for_each(|(kind, payload)| core.receive(peer, *kind, payload)));
        drop(order);
        if let Err(error) = &opened {
            self.shut(Some(error.clone()));
        }
        core.drive();
        opened
    }

    fn peer_opened(&self, core: &Driver, peer: PeerId, handshake: &[u8]) -> Result<()> {
        let Some(identity) = self.identity.get() else { return Ok(()) };
        core.peer_opened(peer, handshake, self.role, &identity.handshake_hash)
    }

    pub(super) fn receive(self: &Arc<Self>, message: batch::Incoming<'_>, dirty: &mut Vec<Arc<Driver>>) -> Result<()> {
        let order = self.message_order.lock();
        let mut state = self.state.lock();
        match state.mux.receive(message)? {
            Event::Nothing => {}
            Event::Message { channel, kind, payload } => {
                let Some((core, peer)) = state.channels.get(&channel).cloned() else { return Ok(()) };
                drop(state);
                core.receive(peer, kind, payload)?;
                mark_dirty(dirty, core);
            }
            Event::Opened { channel, handshake } => {
                let Some((core, peer)) = state.channels.get(&channel).cloned() else { return Ok(()) };
                drop(state);
                self.peer_opened(&core, peer, handshake)?;
                mark_dirty(dirty, core);
            }
            Event::RemoteOpen { protocol, id } => {
                drop((state, order));
                self.on_remote_open(protocol, id)?;
            }
            Event::Closed { channel } | Event::Rejected { channel } => {
                let Some((core, peer)) = state.channels.remove(&channel) else { return Ok(()) };
                drop((state, order));
                // Messages before the close are handled first.
                core.drive_on(&**self);
                if core.peer_closed(peer) && !core.is_closed() {
                    self.open_channel(&core)?;
                }
                mark_dirty(dirty, core);
            }
        }
        Ok(())
    }

    /// Opens the channel that the peer asks for if the core is attached or the server has it, else rejects it.
    fn on_remote_open(self: &Arc<Self>, protocol: &str, id: &[u8]) -> Result<()> {
        let key = <[u8; 32]>::try_from(id).ok().filter(|_| PROTOCOLS.contains(&protocol)).map(DiscoveryKey::from);
        let attached = key.and_then(|key| {
            let state = self.state.lock();
            state.cores.iter().find(|core| core.discovery_key() == key).cloned()
        });
        match (attached, key) {
            (Some(core), _) => self.open_channel(&core)?,
            (None, Some(key)) => {
                // A core that has been closed is not served.
                if let Some(core) = self.find_core(&key) {
                    let _ = self.attach(&core);
                }
            }
            (None, None) => {}
        }
        // If the channel was not opened, also because the core has just left, the peer is told. Otherwise this
        // has no effect.
        self.state.lock().mux.reject(protocol, id)?;
        self.wake();
        Ok(())
    }

    fn find_core(&self, key: &DiscoveryKey) -> Option<Arc<Driver>> {
        let core = self.lookup.as_ref()?(key)?;
        Driver::of(&core).ok()
    }

    pub(super) fn wake_if_needed(&self) {
        if self.state.lock().mux.has_outgoing() {
            self.wake();
        }
    }
}

fn mark_dirty(dirty: &mut Vec<Arc<Driver>>, core: Arc<Driver>) {
    if !dirty.iter().any(|known| Arc::ptr_eq(known, &core)) {
        dirty.push(core);
    }
}
