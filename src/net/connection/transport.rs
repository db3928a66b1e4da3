//! Implements the driver's trait `Transport` for a connection: queueing messages, waking and closing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::inner::Inner;
use crate::crypto::keys::Key;
use crate::net::driver::{Driver, Transport, size_hint};
use crate::replication::Message;
use crate::sync::MutexGuard;
use crate::wire::mux::ChannelId;
use crate::{Error, ErrorKind};

/// The connection ends when a message is queued while more than this many bytes are queued already: the peer
/// does not read.
const MAX_QUEUED: usize = 32 << 20;
/// Above this, no messages of extensions are queued, so that a program that sends too many does not
/// lose the connection.
const MAX_QUEUED_FOR_EXTENSIONS: usize = 16 << 20;

impl Transport for Inner {
    fn send(&self, channel: ChannelId, message: &Message) {
        let mut state = self.state.lock();
        let about = size_hint(message);
        let unread = state.mux.queued_bytes() > MAX_QUEUED;
        // If the channel has been closed, the message is not needed.
        let sent = state.mux.send(channel, message.kind(), about, |w| message.encode(w));
        drop(state);
        match sent {
            Err(error) if error.kind() != ErrorKind::Closed => self.shut(Some(error)),
            _ if unread => self.shut(Some(Error::protocol(format!(
                "the peer does not read: more than {MAX_QUEUED} bytes wait for it"
            )))),
            _ => self.wake(),
        }
    }

    fn queue_responses(&self, channel: ChannelId) {
        let mut state = self.state.lock();
        // If the channel has been closed, no responses are needed.
        let Some((core, peer)) = state.channels.get(&channel).cloned() else { return };
        if !state.responding.iter().any(|(_, waiting, _)| *waiting == peer) {
            state.responding.push_back((core, peer, channel));
        }
        drop(state);
        self.wake();
    }

    fn close_channel(&self, channel: ChannelId) {
        let mut state = self.state.lock();
        state.channels.remove(&channel);
        let _ = state.mux.close(channel);
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        Inner::wake(self);
    }

    fn shut(&self, error: Option<Error>) {
        Inner::shut(self, error);
    }

    fn leave(&self, core: &Driver) {
        if self.detach(core) {
            self.shut(None);
            self.join();
        }
    }

    fn remote_public_key(&self) -> Option<Key> {
        Inner::remote_public_key(self)
    }

    fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    fn has_room_for_extensions(&self) -> bool {
        self.state.lock().mux.queued_bytes() <= MAX_QUEUED_FOR_EXTENSIONS
    }

    fn undelivered(&self) -> &Arc<AtomicUsize> {
        &self.undelivered
    }

    fn lock_proof_order(&self) -> MutexGuard<'_, ()> {
        self.proof_order.lock()
    }
}
