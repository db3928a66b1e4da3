//! The state that the two threads of a connection share, how they start, and how the connection ends.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Sender as Outbox, bounded};

use super::idle_timeout::{IdleTimeout, WINDOWS_PER_WRITE};
use super::options::ConnectionOptions;
use crate::core::Hypercore;
use crate::crypto::keys::{DiscoveryKey, Key, KeyPair};
use crate::logging;
use crate::net::driver::Driver;
use crate::net::duplex::{Duplex, Halves};
use crate::replication::PeerId;
use crate::sync::{self, Mutex, Rank, Signal};
use crate::wire::mux::{ChannelId, Mux};
use crate::wire::noise::Role;
use crate::wire::noise_stream::{NoiseStream, Sender};
use crate::{Error, ErrorKind, Result};

/// Finds the core that a peer asks for.
pub(crate) type Lookup = Arc<dyn Fn(&DiscoveryKey) -> Option<Hypercore> + Send + Sync>;

pub(crate) struct Inner {
    pub(super) role: Role,
    pub(super) options: ConnectionOptions,
    /// Ends the stream. None once both threads have ended, because the function may hold the stream.
    pub(super) close: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    pub(super) address: Option<SocketAddr>,
    pub(super) identity: OnceLock<Identity>,
    pub(super) began: Instant,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    /// The reader waiting for bytes of the peer, and the writer waiting for the peer to read.
    pub(super) receiving: IdleTimeout,
    pub(super) sending: IdleTimeout,
    pub(super) wake: Outbox<()>,
    pub(super) closing: AtomicBool,
    /// How many bytes of the peer's extension messages wait to be delivered.
    pub(super) undelivered: Arc<AtomicUsize>,
    /// Held while what the peers of this connection sent is verified and stored.
    pub(super) proof_order: Mutex<()>,
    /// Held from taking a message or opening a channel in the mux until the driver has been told, so that
    /// drivers see them in order.
    pub(super) message_order: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) lookup: Option<Lookup>,
    /// Set when both threads have ended, with the error that ended the connection, if any.
    pub(super) ended: Signal<Option<Error>>,
    /// The handle of the reader thread, taken by the first caller of `join`.
    pub(super) reading: Mutex<Option<JoinHandle<()>>>,
    pub(super) joined: Signal<()>,
}

struct PeerName<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for PeerName<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

pub(super) struct Identity {
    pub(super) remote_public_key: Key,
    pub(super) handshake_hash: [u8; 64],
}

#[derive(Default)]
pub(super) struct State {
    pub(super) mux: Mux,
    /// The cores that replicate here, whether or not their channel is open.
    pub(super) cores: Vec<Arc<Driver>>,
    /// The placeholder peers of cores that were attached before the handshake: while one is connecting, no wait
    /// of the core ends for lack of peers.
    pub(super) connecting: Vec<(Arc<Driver>, PeerId)>,
    pub(super) channels: HashMap<ChannelId, (Arc<Driver>, PeerId)>,
    /// The peers with requests to answer, in round-robin order.
    pub(super) responding: VecDeque<(Arc<Driver>, PeerId, ChannelId)>,
    pub(super) established: bool,
    /// Whether no more channels are opened.
    pub(super) closed: bool,
    /// Why the connection ends.
    pub(super) error: Option<Error>,
}

pub(super) enum ToWriter {
    Bytes(Vec<u8>),
    Established(Box<Sender>, Vec<u8>),
}

impl Inner {
    /// Starts a connection over `stream`, and its two threads.
    pub(super) fn open(
        stream: impl Duplex,
        role: Role,
        options: ConnectionOptions,
        lookup: Option<Lookup>,
    ) -> Result<Arc<Self>> {
        let halves = stream.split(options.idle_timeout)?;
        let key_pair = match &options.key_pair {
            Some(key_pair) => key_pair.clone(),
            None => KeyPair::generate()?,
        };
        let noise = NoiseStream::new(role, &key_pair)?;
        let Halves { reader, writer, close, address } = halves;
        let (wake, woken) = bounded(1);
        let (to_writer, control) = bounded(4);
        let stack_size = options.stack_size;
        let (began, idle) = (Instant::now(), options.idle_timeout);
        let inner = Arc::new(Inner {
            role,
            options,
            close: Mutex::new(Rank::Signal, Some(close.into())),
            address,
            identity: OnceLock::new(),
            began,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            receiving: IdleTimeout::new(began, idle),
            sending: IdleTimeout::new(began, idle.map(|idle| idle.saturating_mul(WINDOWS_PER_WRITE))),
            wake,
            closing: AtomicBool::new(false),
            undelivered: Arc::default(),
            proof_order: Mutex::new(Rank::ProofOrder, ()),
            message_order: Mutex::new(Rank::MessageOrder, ()),
            state: Mutex::new(Rank::Connection, State::default()),
            lookup,
            ended: Signal::new(),
            reading: Mutex::new(Rank::Signal, None),
            joined: Signal::new(),
        });
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let builder = thread::Builder::new().name(name.to_owned()).stack_size(stack_size);
            builder.spawn(run).map_err(Error::from)
        };
        let ours = inner.clone();
        let write = Box::new(move || ours.write_until_closed(writer, &control, &woken));
        let writing = spawn("hypercore-write", write)?;
        let ours = inner.clone();
        let read = Box::new(move || ours.read_until_closed(reader, noise, to_writer, writing));
        match spawn("hypercore-read", read) {
            Ok(reading) => *inner.reading.lock() = Some(reading),
            Err(error) => {
                inner.shut(None);
                return Err(error);
            }
        }
        Ok(inner)
    }
}

/// How a connection ends.
impl Inner {
    /// Waits for both threads to end, unless this is one of a connection's threads.
    pub(super) fn join(&self) {
        if sync::is_connection() {
            return;
        }
        let reading = self.reading.lock().take();
        match reading {
            // The reader joins the writer before it ends.
            Some(thread) => {
                let _ = thread.join();
                self.joined.set(());
            }
            // Another thread joins it.
            None => _ = self.joined.wait(None),
        }
    }

    /// Ends the connection, because of `error` if there is one. Both threads notice at once.
    pub(crate) fn shut(&self, error: Option<Error>) {
        if let Some(error) = error {
            self.state.lock().error.get_or_insert(error);
        }
        if !self.closing.swap(true, Ordering::SeqCst) {
            let close = self.close.lock().clone();
            if let Some(close) = close {
                close();
            }
            self.log_close();
        }
        self.wake();
    }

    fn log_close(&self) {
        let error = self.state.lock().error.clone();
        match error {
            Some(error) => logging::event!(warn, "connection to {}: closed: {error}", self.peer_name()),
            None => logging::event!(debug, "connection to {}: closed", self.peer_name()),
        }
    }

    /// The peer's address and public key as far as they are known, for log events.
    pub(super) fn peer_name(&self) -> impl fmt::Display {
        let (address, key) = (self.address, self.remote_public_key());
        let write = move |f: &mut fmt::Formatter<'_>| match (address, key) {
            (Some(address), Some(key)) => write!(f, "{address} ({key})"),
            (Some(address), None) => write!(f, "{address}"),
            (None, Some(key)) => write!(f, "{key}"),
            (None, None) => f.write_str("an unknown peer"),
        };
        PeerName(write)
    }

    /// Wakes the writer thread.
    pub(crate) fn wake(&self) {
        // If the channel is full, the writer has been woken already.
        let _ = self.wake.try_send(());
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// When the handshake has to be done.
    pub(super) fn handshake_deadline(&self) -> Option<Instant> {
        self.options.handshake_timeout.and_then(|timeout| self.began.checked_add(timeout))
    }

    /// Fails if the peer has made no progress for too long in either direction. Each thread checks whenever a
    /// read or write returns: while one is blocked, only the other can.
    pub(super) fn check_deadlines(&self) -> Result<()> {
        let now = Instant::now();
        if self.identity.get().is_none() {
            return match self.handshake_deadline() {
                Some(deadline) if deadline <= now => Err(self.handshake_timed_out()),
                _ => Ok(()),
            };
        }
        if self.receiving.has_expired(now) {
            let limit = self.options.idle_timeout.unwrap_or_default();
            return Err(Error::new(ErrorKind::Timeout, format!("nothing came from the peer for {limit:?}")));
        }
        if self.sending.has_expired(now) { Err(self.sending_timed_out()) } else { Ok(()) }
    }

    pub(super) fn sending_timed_out(&self) -> Error {
        let limit = self.options.idle_timeout.unwrap_or_default();
        Error::new(ErrorKind::Timeout, format!("the peer did not read for {limit:?}"))
    }

    pub(super) fn remote_public_key(&self) -> Option<Key> {
        self.identity.get().map(|identity| identity.remote_public_key)
    }

    pub(super) fn handshake_timed_out(&self) -> Error {
        let limit = self.options.handshake_timeout.unwrap_or_default();
        Error::new(ErrorKind::Timeout, format!("the peer did not finish the handshake within {limit:?}"))
    }
}

/// Whether the error is a stream's own timeout, after which reading or writing is tried again.
pub(super) fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Whether the error says that the peer has closed its end.
pub(super) fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

pub(super) fn closed_in_handshake() -> Error {
    Error::new(ErrorKind::Closed, "the peer ended the connection during the handshake")
}

pub(super) fn in_handshake(error: Error) -> Error {
    if error.io_error().is_some_and(is_gone) { closed_in_handshake() } else { error }
}

/// Turns a panic of a stream or a storage into an error, because others wait for the thread to report its end.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Failed, "a thread of the connection panicked")))
}
