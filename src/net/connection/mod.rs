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

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender as Outbox, bounded};

use crate::core::Hypercore;
use crate::crypto::keys::{DiscoveryKey, Key, KeyPair};
use crate::net::driver::Driver;
use crate::net::duplex::{Duplex, Halves};
use crate::replication::PeerId;
use crate::sync::{self, Mutex, Rank, Signal};
use crate::wire::mux::{ChannelId, Mux};
use crate::wire::noise::Role;
use crate::wire::noise_stream::{NoiseStream, Sender};
use crate::{Error, ErrorKind, Result};

mod channels;
mod idle_timeout;
mod options;
mod reader;
mod writer;

use idle_timeout::IdleTimeout;
pub use options::{ConnectionOptions, Counters};

/// A connection to a peer, which carries any number of cores. Cheap to clone; it lives until it is closed, by either side.
#[derive(Clone)]
pub struct Connection(pub(crate) Arc<Inner>);

/// Finds the core that a peer asks for.
pub(crate) type Lookup = Arc<dyn Fn(&DiscoveryKey) -> Option<Hypercore> + Send + Sync>;

pub(crate) struct Inner {
    role: Role,
    options: ConnectionOptions,
    /// None once the connection has ended: it may hold the stream.
    close: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    address: Option<SocketAddr>,
    identity: OnceLock<Identity>,
    began: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    /// The reader's wait for what the peer says, and the writer's for the peer to take what it is told.
    receiving: IdleTimeout,
    sending: IdleTimeout,
    wake: Outbox<()>,
    closing: AtomicBool,
    /// How many bytes of the peer's messages of extensions wait to be delivered.
    pub(crate) undelivered: Arc<AtomicUsize>,
    /// Held by the thread that verifies and stores what peers here claim.
    turn: Mutex<()>,
    /// Held from receiving the peer say something, or answering for a channel, until the core has been told.
    order: Mutex<()>,
    state: Mutex<State>,
    lookup: Option<Lookup>,
    /// Set when both threads have ended: why, if not because one side closed.
    ended: Signal<Option<Error>>,
    /// The reader, for the first who joins it.
    reading: Mutex<Option<JoinHandle<()>>>,
    joined: Signal<()>,
}

struct Identity {
    remote_public_key: Key,
    handshake_hash: [u8; 64],
}

#[derive(Default)]
struct State {
    mux: Mux,
    /// Cores that replicate here, whether or not their channel is open.
    cores: Vec<Arc<Driver>>,
    /// Who stands for the peer in each of them until the handshake is done, so that nobody is told before that nobody is there.
    expected: Vec<(Arc<Driver>, PeerId)>,
    channels: HashMap<ChannelId, (Arc<Driver>, PeerId)>,
    /// Who waits for answers, in turn.
    serving: VecDeque<(Arc<Driver>, PeerId, ChannelId)>,
    ready: bool,
    /// Whether channels are opened no more.
    over: bool,
    /// Why the connection ends, once it does.
    error: Option<Error>,
}

enum ToWriter {
    Bytes(Vec<u8>),
    Established(Box<Sender>, Vec<u8>),
}

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
        let halves = stream.split(options.idle_timeout)?;
        let key_pair = match &options.key_pair {
            Some(key_pair) => key_pair.clone(),
            None => KeyPair::generate()?,
        };
        let channel = NoiseStream::new(role, &key_pair)?;
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
            sending: IdleTimeout::new(began, idle.saturating_mul(writer::MOST_WINDOWS)),
            wake,
            closing: AtomicBool::new(false),
            undelivered: Arc::default(),
            turn: Mutex::new(Rank::ProofOrder, ()),
            order: Mutex::new(Rank::MessageOrder, ()),
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
        let read = Box::new(move || ours.read_until_closed(reader, channel, to_writer, writing));
        match spawn("hypercore-read", read) {
            Ok(reading) => *inner.reading.lock() = Some(reading),
            Err(error) => {
                inner.shut(None);
                return Err(error);
            }
        }
        Ok(Connection(inner))
    }

    /// Which side of the handshake we were.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// The key that the peer proved to own; none until the handshake is done.
    #[doc(alias = "remotePublicKey")]
    pub fn remote_public_key(&self) -> Option<Key> {
        self.0.identity.get().map(|identity| identity.remote_public_key)
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

    /// Replicates `core` over this connection too.
    pub(crate) fn attach(&self, core: &Hypercore) -> Result<Replication> {
        let net = Driver::of(core)?;
        self.0.attach(&net)?;
        Ok(Replication { connection: self.clone(), core: net })
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

/// One core's part in a connection. Dropping it changes nothing; the core replicates until the connection or the core closes, or
/// [`Replication::close`].
#[derive(Clone)]
pub struct Replication {
    connection: Connection,
    core: Arc<Driver>,
}

impl Replication {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The key that the peer proved to own; none until the handshake is done.
    #[doc(alias = "remotePublicKey")]
    pub fn remote_public_key(&self) -> Option<Key> {
        self.connection.remote_public_key()
    }

    /// What went over the connection so far, of all its cores.
    pub fn counters(&self) -> Counters {
        self.connection.counters()
    }

    /// Blocks until the connection ends; see [`Connection::wait`].
    pub fn wait(&self) -> Result<()> {
        self.connection.wait()
    }

    /// Ends the replication of this core, and the connection if it carries no other.
    pub fn close(&self) {
        if self.connection.0.detach(&self.core) {
            self.connection.close();
        }
    }
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// The life of a connection.
impl Inner {
    /// Waits for both threads to end, unless this is a connection's thread.
    fn join(&self) {
        if sync::is_connection() {
            return;
        }
        let reading = self.reading.lock().take();
        match reading {
            // It waits for the writer.
            Some(thread) => {
                let _ = thread.join();
                self.joined.set(());
            }
            // Another thread was first.
            None => _ = self.joined.wait(None),
        }
    }

    /// Ends the connection, for the reason given if there is one; both threads notice at once.
    pub(crate) fn shut(&self, error: Option<Error>) {
        if let Some(error) = error {
            self.state.lock().error.get_or_insert(error);
        }
        if !self.closing.swap(true, Ordering::SeqCst) {
            let close = self.close.lock().clone();
            if let Some(close) = close {
                close();
            }
        }
        self.wake();
    }

    /// Has the writer look for what there is to send.
    pub(crate) fn wake(&self) {
        // A full channel says the same already.
        let _ = self.wake.try_send(());
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// When the handshake has to be done.
    fn handshake_deadline(&self) -> Option<Instant> {
        let timeout = Some(self.options.handshake_timeout).filter(|timeout| !timeout.is_zero());
        timeout.and_then(|timeout| self.began.checked_add(timeout))
    }

    /// An error when the peer has been waited for too long, by either thread. Each looks whenever what it does returns: it is the only one
    /// that can while the other is held up.
    fn check_deadlines(&self) -> Result<()> {
        let now = Instant::now();
        if self.identity.get().is_none() {
            return match self.handshake_deadline() {
                Some(deadline) if deadline <= now => Err(self.handshake_timed_out()),
                _ => Ok(()),
            };
        }
        if self.receiving.is_over(now) {
            let limit = self.options.idle_timeout;
            return Err(Error::new(ErrorKind::Timeout, format!("nothing came from the peer for {limit:?}")));
        }
        if self.sending.is_over(now) { Err(self.sending_timed_out()) } else { Ok(()) }
    }

    fn sending_timed_out(&self) -> Error {
        let limit = self.options.idle_timeout;
        Error::new(ErrorKind::Timeout, format!("the peer did not read for {limit:?}"))
    }

    fn handshake_timed_out(&self) -> Error {
        let limit = self.options.handshake_timeout;
        Error::new(ErrorKind::Timeout, format!("the peer did not finish the handshake within {limit:?}"))
    }

    pub(crate) fn remote_public_key(&self) -> Option<Key> {
        self.identity.get().map(|identity| identity.remote_public_key)
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// Whether a stream only says that nothing happened for a while.
fn is_pause(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Whether the peer has closed its end.
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

fn gone_early() -> Error {
    Error::new(ErrorKind::Closed, "the peer ended the connection during the handshake")
}

fn ended_early(error: Error) -> Error {
    if error.io_error().is_some_and(is_gone) { gone_early() } else { error }
}

/// Runs a thread's work so that its end is told even if a stream or a storage panics: others wait for it.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Failed, "a thread of the connection panicked")))
}

impl Hypercore {
    /// Replicates this core over a byte stream, on two threads of its own, until either side closes. Returns at once.
    ///
    /// `role` says who speaks first: one side has to be the initiator, by custom the one that connected.
    ///
    /// ```no_run
    /// use hypercore::Hypercore;
    /// use hypercore::net::Role;
    ///
    /// let core = Hypercore::options().key("7jfgaa9nutjyixzikb7tgmsf9gkwq7iqz498zr1nd5ig1fng4esy".parse()?).open("copy")?;
    /// let stream = std::net::TcpStream::connect("127.0.0.1:4977")?;
    /// let _replication = core.replicate(stream, Role::Initiator)?;
    /// println!("{:?}", core.get(0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replicate(&self, stream: impl Duplex, role: Role) -> Result<Replication> {
        let connection = Connection::open(stream, role, ConnectionOptions::default())?;
        self.replicate_on(&connection)
    }

    /// Replicates this core over a connection that may carry others; at any time in its life.
    #[doc(alias = "replicate")]
    pub fn replicate_on(&self, connection: &Connection) -> Result<Replication> {
        connection.attach(self)
    }
}
