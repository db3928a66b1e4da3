//! Options and counters of a connection.

use std::fmt;
use std::time::Duration;

use crate::crypto::keys::KeyPair;

/// The options of a connection.
#[derive(Clone)]
pub struct ConnectionOptions {
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) stack_size: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        ConnectionOptions {
            key_pair: None,
            handshake_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(30)),
            keep_alive: Some(Duration::from_secs(5)),
            stack_size: 256 * 1024,
        }
    }
}

impl ConnectionOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key pair that identifies this side to the peer. Default: a new one for each connection.
    #[doc(alias = "keyPair")]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// How long the handshake may take; default 10 s. A peer that connects and sends nothing, or half a
    /// handshake, is then dropped. `None` is without limit.
    pub fn handshake_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake_timeout = timeout.into();
        self
    }

    /// How long the peer may send nothing, or read nothing, before it is dropped; default 30 s. `None` is
    /// without limit. JavaScript sends a message at least every 5 s.
    ///
    /// Once a message has begun, its next 16 KiB, or its rest if that is shorter, must arrive or be read within that
    /// time. So a peer that sends a byte now and then does not keep the connection open, while the longest messages,
    /// of almost 16 MiB, may take a thousand times as long. Raise the timeout for a line slower than 550 bytes a
    /// second.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// This side sends an empty message when it has sent nothing for this long; default 5 s, at least 1 ms. `None`
    /// sends none.
    #[doc(alias = "keepAlive")]
    pub fn keep_alive(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.keep_alive = every.into().map(|every| every.max(Duration::from_millis(1)));
        self
    }

    /// The stack size of each of the connection's two threads in bytes; default 256 KiB. Callbacks do not run
    /// on these threads, but streams and storage of your own do: raise the size if those need more.
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

/// The bytes that went over a connection so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Bytes received from the peer.
    pub received: u64,
    /// Bytes sent to the peer.
    pub sent: u64,
}
