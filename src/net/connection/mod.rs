//! One connection: a reader and a writer thread, and the channels of the cores that share it.
//!
//! Messages to the peer are queued in the mux under the connection's lock, and the writer thread is woken. The writer
//! sends the queue first. Only when it is empty does it turn the peer's requests into responses, one frame (64 KiB)
//! at a time. So a peer that does not read its responses costs one frame, not the memory of all its requests.
//!
//! ```text
//! handshake                       10 s (handshake_timeout), then the connection ends
//! no progress reading or writing  30 s (idle_timeout), then the connection ends
//! nothing sent                    5 s (keep_alive), then an empty message is sent
//! bytes queued                    32 MiB, then the connection ends: the peer does not read;
//!                                 16 MiB for messages of extensions, then sending one fails
//! messages handled in a row       1024, then their actions are carried out before the next
//! ```
//!
//! ```text
//! options        options and counters
//! inner          what both threads share; start and end
//! reader         the reader thread: handshake, then messages
//! writer         the writer thread: queued messages, responses, keep-alives, deadlines
//! channels       which core uses which channel
//! idle_timeout   detection of a peer that sends or reads nothing
//! transport      the connection as drivers use it
//! replication    one core's part in a connection
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

/// A connection to a peer, which carries any number of cores. Clones are cheap and share the connection. It
/// lives until either side closes it; dropping the handles does not end it.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

impl Connection {
    /// Starts a connection over `stream`, with two threads, and returns at once. An error of the handshake ends
    /// the connection and is returned by [`Connection::wait`]. This call itself fails if the stream cannot be
    /// split or a thread cannot be started.
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

    /// This side's role in the handshake.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// The key that the peer proved to own; none until the handshake is done.
    #[doc(alias = "remotePublicKey")]
    pub fn remote_public_key(&self) -> Option<Key> {
        self.0.remote_public_key()
    }

    /// The peer's address, if the stream has one.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.0.address
    }

    /// The bytes received and sent so far.
    pub fn counters(&self) -> Counters {
        Counters { received: self.0.received.load(Ordering::Relaxed), sent: self.0.sent.load(Ordering::Relaxed) }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.ended.peek().is_some()
    }

    /// Blocks until the connection ends, however long that takes: either side closes it, or a deadline of
    /// [`ConnectionOptions`] passes. Returns the error that ended it; `Ok` if one side simply closed it.
    pub fn wait(&self) -> Result<()> {
        match self.0.ended.wait(None).flatten() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Like [`Connection::wait`], for at most `timeout`; then it fails with [`ErrorKind::Timeout`], and the
    /// connection stays open.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        match self.0.ended.wait(Instant::now().checked_add(timeout)) {
            Some(Some(error)) => Err(error),
            Some(None) => Ok(()),
            None => Err(Error::new(ErrorKind::Timeout, format!("the connection is still open after {timeout:?}"))),
        }
    }

    /// Ends the connection and waits for its two threads. A call from a callback does not wait. The stream that the
    /// connection reads or writes must not call this.
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
