//! One connection: a reader and a writer thread, and the channels of the cores that share it.
//!
//! What is to be sent goes through the multiplexer under the connection's lock, never through the socket: whoever says something only
//! queues it and wakes the writer. The writer sends the queue first; only then, and only a frame at a time, it turns the peers'
//! requests into answers. So a peer that does not read what it asked for costs one frame, not the memory of all its requests.
//!
//! ```text
//! options.rs    how a connection is made, and what went over it
//! progress.rs       how long the peer is waited for
//! reader.rs     the reader thread: handshake, then message by message
//! writer.rs     the writer thread: what is queued, then answers; keep-alives and deadlines
//! channels.rs   which core talks on which channel
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::crypto::keys::Key;
use crate::net::duplex::Duplex;
use crate::wire::noise::Role;
use crate::{Error, ErrorKind, Result};

mod channels;
mod idle_timeout;
mod inner;
mod options;
mod reader;
mod replication;
mod transport;
mod writer;

use inner::Inner;
pub(crate) use inner::Lookup;
pub use options::{ConnectionOptions, Counters};
pub use replication::Replication;

/// A connection to a peer, which carries any number of cores. Cheap to clone; it lives until it is closed, by either side.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

impl Connection {
    /// Begins a connection over `stream`, and its two threads. Does not wait for the handshake; what goes wrong there ends the connection
    /// and is told by [`Connection::wait`].
    #[doc(alias = "createProtocolStream")]
    pub fn open(stream: impl Duplex, role: Role, options: ConnectionOptions) -> Result<Self> {
        Self::open_with(stream, role, options, None)
    }

    pub(crate) fn open_with(
        stream: impl Duplex,
        role: Role,
        options: ConnectionOptions,
        lookup: Option<Lookup>,
    ) -> Result<Self> {
        Inner::open(stream, role, options, lookup).map(Connection)
    }

    /// Which side of the handshake we were.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// The key that the peer proved to own; none until the handshake is done.
    #[doc(alias = "remotePublicKey")]
    pub fn remote_public_key(&self) -> Option<Key> {
        self.0.remote_public_key()
    }

    /// The peer's address, where the stream has one.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.0.address
    }

    /// What went over the connection so far.
    pub fn counters(&self) -> Counters {
        Counters { received: self.0.received.load(Ordering::Relaxed), sent: self.0.sent.load(Ordering::Relaxed) }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.ended.peek().is_some()
    }

    /// Blocks until the connection ends. An error says why, unless one side simply closed it.
    pub fn wait(&self) -> Result<()> {
        match self.0.ended.wait(None).flatten() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// As [`Connection::wait`], until `timeout` has passed at the longest; [`ErrorKind::Timeout`] then.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        match self.0.ended.wait(Instant::now().checked_add(timeout)) {
            Some(Some(error)) => Err(error),
            Some(None) => Ok(()),
            None => Err(Error::new(ErrorKind::Timeout, "the connection is still open")),
        }
    }

    /// Ends the connection and waits for its threads. May be called in a callback, but not by a stream that a connection reads.
    pub fn close(&self) {
        self.0.shut(None);
        self.0.join();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("role", &self.0.role)
            .field("remote_public_key", &self.remote_public_key())
            .field("remote_address", &self.0.address)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
