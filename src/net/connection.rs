//! One connection: a reader and a writer thread, and the channels of the cores that share it.
//!
//! What is to be sent goes through the multiplexer under the connection's lock, never through the socket: whoever says something only
//! queues it and wakes the writer. The writer sends the queue first; only then, and only a frame at a time, it turns the peers'
//! requests into answers. So a peer that does not read what it asked for costs one frame, not the memory of all its requests.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Inbox, RecvTimeoutError, Sender as Outbox, bounded};

use crate::core::Hypercore;
use crate::crypto::keys::{DiscoveryKey, Key, KeyPair};
use crate::net::duplex::{Duplex, Halves};
use crate::net::session::{CoreNet, size_hint};
use crate::replication::{Message, PeerId};
use crate::sync::{self, Mutex, MutexGuard, Rank, Signal};
use crate::wire::batch::{self, Batch};
use crate::wire::channel::{Channel, Receiver, Sender};
use crate::wire::mux::{Accepted, ChannelId, Event, Mux};
use crate::wire::noise::Role;
use crate::{Error, ErrorKind, Result};

/// The names of the protocol, the present one first; we answer whichever the peer uses.
const PROTOCOLS: [&str; 2] = ["hypercore/alpha", "hypercore"];
/// So many bytes are gathered before they are written to the socket.
const WRITE_BYTES: usize = 256 * 1024;
/// So many frames, of 64 KiB and more, may wait for a peer that does not read.
const MAX_UNREAD: usize = 256;

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
    /// Milliseconds since `began` at which something came last.
    heard: AtomicU64,
    wake: Outbox<()>,
    closing: AtomicBool,
    /// Held by the thread that verifies and stores what peers here claim.
    turn: Mutex<()>,
    /// Held from hearing the peer say something, or answering for a channel, until the core has been told.
    order: Mutex<()>,
    state: Mutex<State>,
    lookup: Option<Lookup>,
    /// Set when both threads have ended: why, if not because one side closed.
    ended: Signal<Option<Error>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Identity {
    remote_public_key: Key,
    handshake_hash: [u8; 64],
}

#[derive(Default)]
struct State {
    mux: Mux,
    /// Cores that replicate here, whether or not their channel is open.
    cores: Vec<Arc<CoreNet>>,
    /// Who stands for the peer in each of them until the handshake is done, so that nobody is told before that nobody is there.
    expected: Vec<(Arc<CoreNet>, PeerId)>,
    channels: HashMap<ChannelId, (Arc<CoreNet>, PeerId)>,
    /// Who waits for answers, in turn.
    serving: VecDeque<(Arc<CoreNet>, PeerId, ChannelId)>,
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
        let channel = Channel::new(role, &key_pair)?;
        let Halves { reader, writer, close, address } = halves;
        let (wake, woken) = bounded(1);
        let (to_writer, control) = bounded(4);
        let stack_size = options.stack_size;
        let inner = Arc::new(Inner {
            role,
            options,
            close: Mutex::new(Rank::Signal, Some(close.into())),
            address,
            identity: OnceLock::new(),
            began: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            wake,
            closing: AtomicBool::new(false),
            turn: Mutex::new(Rank::Turn, ()),
            order: Mutex::new(Rank::Order, ()),
            state: Mutex::new(Rank::Connection, State::default()),
            lookup,
            ended: Signal::new(),
            threads: Mutex::new(Rank::Signal, Vec::new()),
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
            Ok(reading) => inner.threads.lock().push(reading),
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
        let net = CoreNet::of(core)?;
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
    core: Arc<CoreNet>,
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
        // The reader waits for the writer.
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
        // Another thread may have been first to join them.
        self.ended.wait(None);
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

    pub(crate) fn remote_public_key(&self) -> Option<Key> {
        self.identity.get().map(|identity| identity.remote_public_key)
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    fn read_until_closed(
        self: Arc<Self>,
        mut reader: Box<dyn Read + Send>,
        channel: Channel,
        to_writer: Outbox<ToWriter>,
        writing: JoinHandle<()>,
    ) {
        sync::enter_connection();
        let read = guarded(|| self.read_all(&mut *reader, channel, to_writer));
        self.shut(read.err().filter(|_| !self.is_closing()));
        drop(reader);
        // The writer needs nothing of this thread to end; joining it here leaves one handle to wait for.
        let _ = writing.join();
        let (channels, expected, cores, error) = {
            let mut state = self.state.lock();
            state.over = true;
            state.serving.clear();
            let (channels, expected) = (std::mem::take(&mut state.channels), std::mem::take(&mut state.expected));
            (channels, expected, std::mem::take(&mut state.cores), state.error.take())
        };
        for (core, peer) in channels.into_values().chain(expected) {
            core.peer_closed(peer);
        }
        for core in cores {
            core.forget(&self);
        }
        *self.close.lock() = None;
        self.ended.set(error);
    }

    fn read_all(
        self: &Arc<Self>,
        reader: &mut dyn Read,
        mut channel: Channel,
        to_writer: Outbox<ToWriter>,
    ) -> Result<()> {
        let gone = |_| Error::new(ErrorKind::Closed, "the connection was closed during the handshake");
        loop {
            let output = channel.take_output();
            if !output.is_empty() {
                to_writer.send(ToWriter::Bytes(output)).map_err(gone)?;
            }
            let n = self.read_some(reader, channel.space())?;
            if n == 0 {
                return Err(gone_early());
            }
            channel.filled(n);
            if channel.advance()? {
                break;
            }
        }
        let established = channel.split()?;
        let identity =
            Identity { remote_public_key: established.remote_public_key, handshake_hash: established.handshake_hash };
        let _ = self.identity.set(identity);
        to_writer.send(ToWriter::Established(Box::new(established.sender), established.output)).map_err(gone)?;
        drop(to_writer);
        self.open_channels()?;
        self.read_messages(reader, established.receiver)
    }

    fn read_messages(self: &Arc<Self>, reader: &mut dyn Read, mut receiver: Receiver) -> Result<()> {
        let mut touched = Vec::new();
        loop {
            while let Some(frame) = receiver.next_message()? {
                for message in batch::messages(frame) {
                    self.receive(message?, &mut touched)?;
                }
            }
            for core in touched.drain(..) {
                core.drive_on(self);
            }
            self.wake_if_needed();
            let n = self.read_some(reader, receiver.space())?;
            if n == 0 {
                return match receiver.is_between_messages() {
                    true => Ok(()),
                    false => Err(Error::protocol("the connection was cut in the middle of a message")),
                };
            }
            receiver.filled(n);
        }
    }

    fn read_some(&self, reader: &mut dyn Read, space: &mut [u8]) -> Result<usize> {
        loop {
            match reader.read(space) {
                Ok(n) => {
                    self.received.fetch_add(n as u64, Ordering::Relaxed);
                    self.heard.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
                    return Ok(n);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // Whoever closed the connection knows why.
                Err(_) if self.is_closing() => return Ok(0),
                // One that closed with something unread looks like this.
                Err(e) if is_gone(&e) => return Ok(0),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

enum Attached {
    /// The channel was opened, now or before.
    Opened,
    /// It will be, when the handshake is done.
    Expected,
}

/// Channels.
impl Inner {
    /// Lets `core` replicate here, now or when the handshake is done.
    fn attach(self: &Arc<Self>, core: &Arc<CoreNet>) -> Result<()> {
        let expected = PeerId::next();
        core.peer_connecting(expected, self);
        let attached = self.attach_as(core, expected);
        if !matches!(attached, Ok(Attached::Expected)) {
            core.peer_closed(expected);
        }
        attached.map(|_| ())
    }

    fn attach_as(self: &Arc<Self>, core: &Arc<CoreNet>, expected: PeerId) -> Result<Attached> {
        let ready = {
            let mut state = self.state.lock();
            if self.is_closing() || state.over {
                return Err(Error::new(ErrorKind::Closed, "the connection is closed"));
            }
            if state.cores.iter().any(|known| Arc::ptr_eq(known, core)) {
                return Ok(Attached::Opened);
            }
            state.cores.push(core.clone());
            if !state.ready {
                state.expected.push((core.clone(), expected));
            }
            state.ready
        };
        // Said after, so that either the core's closing finds the connection, or this that it closes.
        if !core.remember(self) {
            self.detach(core);
            return Err(Error::new(ErrorKind::Closed, "the core is closed"));
        }
        if ready {
            self.open_channel(core)?;
            return Ok(Attached::Opened);
        }
        Ok(Attached::Expected)
    }

    /// The core closes: its channels do, and with the last core the connection.
    pub(crate) fn leave(&self, core: &Arc<CoreNet>) {
        if self.detach(core) {
            self.shut(None);
            self.join();
        }
    }

    /// Takes `core` out; true if no other is left.
    fn detach(&self, core: &Arc<CoreNet>) -> bool {
        let (closed, last) = {
            let mut state = self.state.lock();
            state.cores.retain(|known| !Arc::ptr_eq(known, core));
            let ours: Vec<ChannelId> =
                state.channels.iter().filter(|(_, (c, _))| Arc::ptr_eq(c, core)).map(|(id, _)| *id).collect();
            let mut peers: Vec<PeerId> =
                ours.iter().filter_map(|id| state.channels.remove(id)).map(|(_, peer)| peer).collect();
            peers.extend(state.expected.iter().filter(|(c, _)| Arc::ptr_eq(c, core)).map(|(_, peer)| *peer));
            state.expected.retain(|(c, _)| !Arc::ptr_eq(c, core));
            for channel in ours {
                let _ = state.mux.close(channel);
            }
            (peers, state.cores.is_empty())
        };
        core.forget(self);
        for peer in closed {
            core.peer_closed(peer);
        }
        self.wake();
        last
    }

    fn open_channels(self: &Arc<Self>) -> Result<()> {
        let (cores, expected) = {
            let mut state = self.state.lock();
            state.ready = true;
            (state.cores.clone(), std::mem::take(&mut state.expected))
        };
        let opened = cores.iter().try_for_each(|core| self.open_channel(core));
        for (core, peer) in expected {
            core.peer_closed(peer);
        }
        opened
    }

    /// Opens the channel of `core`, as a new peer of it.
    pub(crate) fn open_channel(self: &Arc<Self>, core: &Arc<CoreNet>) -> Result<()> {
        let Some(identity) = self.identity.get() else { return Ok(()) };
        let peer = PeerId::next();
        let handshake = core.handshake(self.role, &identity.handshake_hash);
        // What the peer says on the channel must not be heard before all of this is done.
        let order = self.order.lock();
        core.peer_connecting(peer, self);
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
                    // Open already: both sides had the same thought.
                    Some(Err(error)) if error.kind() != ErrorKind::InvalidOperation => Err(error),
                    _ => Ok(()),
                };
            }
        };
        core.peer_channel(peer, opening.channel);
        self.wake();
        let Some(Accepted { handshake, messages }) = opening.accepted else { return Ok(()) };
        let heard = self
            .peer_opened(core, peer, &handshake)
            .and_then(|()| messages.iter().try_for_each(|(kind, payload)| core.receive(peer, *kind, payload)));
        drop(order);
        if let Err(error) = &heard {
            self.shut(Some(error.clone()));
        }
        core.drive();
        heard
    }

    fn peer_opened(&self, core: &CoreNet, peer: PeerId, handshake: &[u8]) -> Result<()> {
        let Some(identity) = self.identity.get() else { return Ok(()) };
        core.peer_opened(peer, handshake, self.role, &identity.handshake_hash)
    }

    fn receive(self: &Arc<Self>, message: batch::Incoming<'_>, touched: &mut Vec<Arc<CoreNet>>) -> Result<()> {
        let order = self.order.lock();
        let mut state = self.state.lock();
        match state.mux.receive(message)? {
            Event::Nothing => {}
            Event::Message { channel, kind, payload } => {
                let Some((core, peer)) = state.channels.get(&channel).cloned() else { return Ok(()) };
                drop(state);
                core.receive(peer, kind, payload)?;
                touch(touched, core);
            }
            Event::Opened { channel, handshake } => {
                let Some((core, peer)) = state.channels.get(&channel).cloned() else { return Ok(()) };
                drop(state);
                self.peer_opened(&core, peer, handshake)?;
                touch(touched, core);
            }
            Event::RemoteOpen { protocol, id } => {
                let wanted =
                    <[u8; 32]>::try_from(id).ok().filter(|_| PROTOCOLS.contains(&protocol)).map(DiscoveryKey::from);
                let known = wanted.and_then(|key| state.cores.iter().find(|c| c.discovery_key() == key).cloned());
                drop((state, order));
                let found = match (known, wanted) {
                    (Some(core), _) => Some((core, true)),
                    // A core that is closed meanwhile is not to be had.
                    (None, Some(key)) => self.look_up(&key).map(|core| (core, false)),
                    (None, None) => None,
                };
                match found {
                    Some((core, true)) => self.open_channel(&core)?,
                    Some((core, false)) if self.attach(&core).is_ok() || self.is_closing() => {}
                    _ => self.state.lock().mux.reject(protocol, id)?,
                }
                self.wake();
            }
            Event::Closed { channel } | Event::Rejected { channel } => {
                let Some((core, peer)) = state.channels.remove(&channel) else { return Ok(()) };
                drop((state, order));
                // What it said before it closed counts.
                core.drive_on(self);
                if core.peer_closed(peer) && !core.is_closed() {
                    self.open_channel(&core)?;
                }
                touch(touched, core);
            }
        }
        Ok(())
    }

    fn look_up(&self, key: &DiscoveryKey) -> Option<Arc<CoreNet>> {
        let core = self.lookup.as_ref()?(key)?;
        CoreNet::of(&core).ok()
    }

    /// Waits until it is this thread's turn to verify and store what peers here claim.
    pub(crate) fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Queues a message.
    pub(crate) fn send(&self, channel: ChannelId, message: &Message) {
        let mut state = self.state.lock();
        let about = size_hint(message);
        // A channel that was closed meanwhile needs no message.
        let sent = state.mux.send(channel, message.kind(), about, |w| message.encode(w));
        let unread = state.mux.queued_frames() > MAX_UNREAD;
        drop(state);
        match sent {
            Err(error) if error.kind() != ErrorKind::Closed => self.shut(Some(error)),
            _ if unread => self.shut(Some(Error::protocol("the peer does not read what it is told"))),
            _ => self.wake(),
        }
    }

    /// Lets `peer` have its requests answered when the socket has room.
    pub(crate) fn serve(&self, core: Arc<CoreNet>, peer: PeerId, channel: ChannelId) {
        let mut state = self.state.lock();
        if !state.serving.iter().any(|(_, waiting, _)| *waiting == peer) {
            state.serving.push_back((core, peer, channel));
        }
        drop(state);
        self.wake();
    }

    /// Closes a channel whose peer was forgotten already.
    pub(crate) fn close_channel(&self, channel: ChannelId) {
        let mut state = self.state.lock();
        state.channels.remove(&channel);
        let _ = state.mux.close(channel);
        drop(state);
        self.wake();
    }

    fn wake_if_needed(&self) {
        if self.state.lock().mux.has_outgoing() {
            self.wake();
        }
    }
}

fn touch(touched: &mut Vec<Arc<CoreNet>>, core: Arc<CoreNet>) {
    if !touched.iter().any(|known| Arc::ptr_eq(known, &core)) {
        touched.push(core);
    }
}

/// The writer thread.
impl Inner {
    fn write_until_closed(
        self: Arc<Self>,
        mut writer: Box<dyn Write + Send>,
        control: &Inbox<ToWriter>,
        woken: &Inbox<()>,
    ) {
        sync::enter_connection();
        let shaken = guarded(|| self.write_handshake(&mut *writer, control));
        let written = match shaken {
            Ok(Some(sender)) => guarded(|| self.write_messages(&mut *writer, *sender, woken)),
            // The reader gave up, and says why.
            Ok(None) => return,
            Err(error) => Err(error),
        };
        // A peer that is gone is not at fault for not reading; how it left is the reader's to say.
        self.shut(written.err().filter(|e| !self.is_closing() && !e.io_error().is_some_and(is_gone)));
    }

    /// Sends what the handshake needs, until it is done; none if the reader gave up.
    fn write_handshake(&self, writer: &mut dyn Write, control: &Inbox<ToWriter>) -> Result<Option<Box<Sender>>> {
        let timeout = Some(self.options.handshake_timeout).filter(|timeout| !timeout.is_zero());
        let deadline = timeout.and_then(|timeout| self.began.checked_add(timeout));
        loop {
            let next = match deadline {
                Some(deadline) => control.recv_deadline(deadline),
                None => control.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(ToWriter::Bytes(bytes)) => self.write(writer, &bytes).map_err(ended_early)?,
                Ok(ToWriter::Established(sender, bytes)) => {
                    self.write(writer, &bytes).map_err(ended_early)?;
                    return Ok(Some(sender));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.options.handshake_timeout.as_secs_f32();
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        format!("the peer did not finish the handshake within {seconds} s"),
                    ));
                }
            }
        }
    }

    fn write_messages(self: &Arc<Self>, writer: &mut dyn Write, mut sender: Sender, woken: &Inbox<()>) -> Result<()> {
        let mut out = Vec::new();
        let mut written = Instant::now();
        while !self.is_closing() {
            // What callers found, and cannot do themselves, is done here: the reader may be waiting for the peer.
            let cores = self.state.lock().cores.clone();
            cores.iter().filter(|core| core.has_work(self)).for_each(|core| core.drive_on(self));
            out.clear();
            self.gather(&mut sender, &mut out)?;
            if !out.is_empty() {
                self.write(writer, &out)?;
                written = Instant::now();
                if out.capacity() > 4 * WRITE_BYTES {
                    out = Vec::new();
                }
                continue;
            }
            let now = Instant::now();
            let mut until: Option<Instant> = None;
            let mut sooner = |at: Option<Instant>| until = [until, at].into_iter().flatten().min();
            if !self.options.keep_alive.is_zero() {
                let due = written.checked_add(self.options.keep_alive);
                if due.is_some_and(|due| due <= now) {
                    sender.keep_alive(&mut out);
                    self.write(writer, &out)?;
                    written = now;
                    continue;
                }
                sooner(due);
            }
            if !self.options.idle_timeout.is_zero() {
                let heard = self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed));
                let due = heard.checked_add(self.options.idle_timeout);
                if due.is_some_and(|due| due <= now) {
                    let seconds = self.options.idle_timeout.as_secs_f32();
                    return Err(Error::new(ErrorKind::Timeout, format!("nothing came from the peer for {seconds} s")));
                }
                sooner(due);
            }
            // Some decisions of the machine wait for time to pass; each connection looks after the cores it carries.
            cores.iter().for_each(|core| sooner(core.next_deadline()));
            let timed_out = match until {
                Some(until) => woken.recv_deadline(until) == Err(RecvTimeoutError::Timeout),
                None => woken.recv().is_err(),
            };
            if timed_out {
                cores.iter().for_each(|core| core.drive_on(self));
            }
        }
        Ok(())
    }

    /// Seals what is queued, and then answers, up to about [`WRITE_BYTES`].
    fn gather(&self, sender: &mut Sender, out: &mut Vec<u8>) -> Result<()> {
        loop {
            let frame = self.state.lock().mux.take();
            match frame {
                Some(frame) => sender.seal(out, |w| {
                    w.bytes(&frame);
                })?,
                None => break,
            }
            if out.len() >= WRITE_BYTES {
                return Ok(());
            }
        }
        while out.len() < WRITE_BYTES {
            let next = {
                let mut state = self.state.lock();
                if state.mux.has_outgoing() {
                    return Ok(());
                }
                let Some((core, peer, channel)) = state.serving.pop_front() else { return Ok(()) };
                let Some(number) = state.mux.wire_id(channel) else { continue };
                (core, peer, channel, number)
            };
            let (core, peer, channel, number) = next;
            let mut more = true;
            let mut failed = None;
            let before = out.len();
            sender.seal(out, |w| {
                let mut batch = Batch::new(w);
                while more && !batch.is_full() {
                    match core.answer(peer, number, &mut batch) {
                        Ok(answered) => more = answered,
                        Err(error) => {
                            failed = Some(error);
                            more = false;
                        }
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            debug_assert!(out.len() > before);
            if more {
                self.state.lock().serving.push_back((core, peer, channel));
            }
        }
        Ok(())
    }

    fn write(&self, writer: &mut dyn Write, bytes: &[u8]) -> Result<()> {
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        written.map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                let seconds = self.options.idle_timeout.as_secs_f32();
                Error::new(ErrorKind::Timeout, format!("the peer did not read for {seconds} s"))
            }
            _ => e.into(),
        })
    }
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

/// Runs a thread's work so that its end is told even if a stream or a medium panics: others wait for it.
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
