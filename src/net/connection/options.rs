//! How a connection is made, and what went over it.

use std::fmt;
use std::time::Duration;

use crate::crypto::keys::KeyPair;

/// How a connection is made.
#[derive(Clone)]
pub struct ConnectionOptions {
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) stack_size: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        ConnectionOptions {
            key_pair: None,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(5),
            stack_size: 256 * 1024,
        }
    }
}

impl ConnectionOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// By which key pair the peer is to know us; default a new one for each connection.
    #[doc(alias = "keyPair")]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// The longest that the handshake may take, default 10 s: a peer that connects and says nothing, or half of it, is dropped then.
    /// Zero is without limit.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// The longest that nothing may come from the peer, or that it may refuse to read, default 30 s; zero is without limit. The
    /// reference sends something every 5 s.
    ///
    /// Of a message that has begun, 16 KiB or the rest have to come in that time, or to be taken: a byte now and then does not keep a
    /// connection, and the longest messages, of almost 16 MiB, may take a thousand times as long. For a line slower than 550 bytes
    /// a second raise it.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// After how long without anything to say an empty message is sent, default 5 s; zero sends none.
    #[doc(alias = "keepAlive")]
    pub fn keep_alive(mut self, every: Duration) -> Self {
        self.keep_alive = every;
        self
    }

    /// The stack of each of the connection's two threads, default 256 KiB. Callbacks do not run on them, but streams and storage of
    /// your own do: raise it for those that need more.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes;
        self
    }
}

impl fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionOptions")
            .field("key_pair", &self.key_pair)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("stack_size", &self.stack_size)
            .finish()
    }
}

/// What went over a connection so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Bytes from the peer.
    pub received: u64,
    /// Bytes to the peer.
    pub sent: u64,
}
