//! A peer built on the lower layers, which sends whatever a test wants.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hypercore::lowlevel::codec::Writer;
use hypercore::lowlevel::crypto::hash;
use hypercore::lowlevel::replication::{Handshake, Message};
use hypercore::lowlevel::wire::batch::{self, Batch};
use hypercore::lowlevel::wire::mux::{ChannelId, Event, Mux};
use hypercore::lowlevel::wire::noise_stream::{NoiseStream, Receiver, Sender};
use hypercore::net::{Connection, ConnectionOptions, Duplex, Halves, Role};
use hypercore::{Hypercore, Key, KeyPair};

use crate::common::Gate;
use crate::cores::{Events, tcp};

#[derive(Debug)]
pub enum Received {
    Opened(ChannelId),
    Message(Message),
    Closed,
    Rejected,
    RemoteOpen,
}

/// The sending half, for any thread.
#[derive(Clone)]
pub struct RawSender(Arc<Mutex<SenderState>>);

struct SenderState {
    stream: TcpStream,
    sender: Sender,
    mux: Mux,
    role: Role,
    handshake_hash: [u8; 64],
}

impl SenderState {
    fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(frame) = self.mux.take() {
            self.sender.seal(&mut out, |w| _ = w.bytes(&frame)).unwrap();
        }
        out
    }
}

pub struct RawPeer {
    pub sender: RawSender,
    stream: TcpStream,
    receiver: Receiver,
    received: VecDeque<Received>,
}

impl RawPeer {
    /// Does the handshake.
    pub fn new(mut stream: TcpStream, role: Role) -> RawPeer {
        stream.set_nodelay(true).unwrap();
        let mut channel = NoiseStream::new(role, &KeyPair::generate().unwrap()).unwrap();
        let established = loop {
            let done = channel.advance().unwrap();
            stream.write_all(&channel.take_output()).unwrap();
            if done {
                break channel.split().unwrap();
            }
            let n = stream.read(channel.space()).unwrap();
            assert!(n > 0, "the handshake was cut");
            channel.filled(n);
        };
        stream.write_all(&established.output).unwrap();
        let state = SenderState {
            stream: stream.try_clone().unwrap(),
            sender: established.sender,
            mux: Mux::new(),
            role,
            handshake_hash: established.handshake_hash,
        };
        let sender = RawSender(Arc::new(Mutex::new(state)));
        RawPeer { sender, stream, receiver: established.receiver, received: VecDeque::new() }
    }

    /// Waits for the next event; `None` when the other side has ended the connection.
    pub fn receive(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = self.received.pop_front() {
                return Some(received);
            }
            while let Some(frame) = self.receiver.next_message().unwrap() {
                let mut state = self.sender.0.lock().unwrap();
                for message in batch::messages(frame) {
                    self.received.extend(match state.mux.receive(message.unwrap()).unwrap() {
                        Event::Nothing => None,
                        Event::Opened { channel, .. } => Some(Received::Opened(channel)),
                        Event::Closed { .. } => Some(Received::Closed),
                        Event::Rejected { .. } => Some(Received::Rejected),
                        Event::RemoteOpen { .. } => Some(Received::RemoteOpen),
                        Event::Message { kind, payload, .. } => {
                            Some(Received::Message(Message::decode(kind, payload).unwrap().unwrap()))
                        }
                    });
                }
            }
            if self.received.is_empty() {
                match self.stream.read(self.receiver.space()) {
                    Ok(0) | Err(_) => return None,
                    Ok(n) => self.receiver.filled(n),
                }
            }
        }
    }

    /// Waits for a keep-alive; returns the time since the message before it, or since the call.
    pub fn wait_for_keep_alive(&mut self) -> Option<Duration> {
        let mut since = Instant::now();
        loop {
            while let Some(frame) = self.receiver.next_message().unwrap() {
                if frame.is_empty() {
                    return Some(since.elapsed());
                }
                since = Instant::now();
            }
            match self.stream.read(self.receiver.space()) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.receiver.filled(n),
            }
        }
    }

    /// Waits until the other side has ended the connection.
    pub fn wait_for_end(mut self) {
        while self.receive().is_some() {}
    }

    /// Waits for the first event that `wanted` accepts, and drops those before it.
    pub fn receive_until<T>(&mut self, mut wanted: impl FnMut(Received) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = wanted(self.receive()?) {
                return Some(found);
            }
        }
    }
}

impl RawSender {
    /// Opens the channel of the core with this key, with a valid capability.
    pub fn open(&self, key: &Key) -> ChannelId {
        let (role, handshake_hash) = {
            let state = self.0.lock().unwrap();
            (state.role, state.handshake_hash)
        };
        let capability = hash::capability(role.is_initiator(), key.as_bytes(), &handshake_hash);
        self.open_with(key, Handshake { seeks: true, capability })
    }

    pub fn open_with(&self, key: &Key, handshake: Handshake) -> ChannelId {
        let mut w = Writer::new();
        handshake.encode(&mut w);
        let mut state = self.0.lock().unwrap();
        let opening = state.mux.open(&["hypercore/alpha"], key.discovery_key().as_bytes(), &w.into_vec()).unwrap();
        drop(state);
        _ = self.flush();
        opening.channel
    }

    /// Returns false when the other side has ended the connection.
    pub fn send(&self, channel: ChannelId, message: &Message) -> bool {
        self.send_payload(channel, message.kind(), |w| message.encode(w))
    }

    pub fn send_payload(&self, channel: ChannelId, kind: u64, write: impl FnOnce(&mut Writer)) -> bool {
        self.queue(channel, kind, write);
        self.flush()
    }

    /// Holds a message back until the next flush.
    pub fn queue(&self, channel: ChannelId, kind: u64, write: impl FnOnce(&mut Writer)) {
        let mut state = self.0.lock().unwrap();
        _ = state.mux.send(channel, kind, 64, write);
    }

    /// Sends any bytes as one frame, past the multiplexer.
    pub fn send_frame(&self, frame: &[u8]) -> bool {
        let mut state = self.0.lock().unwrap();
        let mut out = Vec::new();
        state.sender.seal(&mut out, |w| _ = w.bytes(frame)).unwrap();
        state.stream.write_all(&out).is_ok()
    }

    /// Sends any number of messages in one frame.
    pub fn send_in_one_frame(&self, channel: ChannelId, messages: impl Iterator<Item = Message>) -> bool {
        let mut w = Writer::new();
        let number = self.0.lock().unwrap().mux.wire_id(channel).unwrap();
        let mut batch = Batch::new(&mut w);
        for message in messages {
            batch.push(number, message.kind(), 16, |w| message.encode(w)).unwrap();
        }
        self.send_frame(w.as_slice())
    }

    /// Sends bytes without encrypting them.
    pub fn send_bytes(&self, bytes: &[u8]) -> bool {
        self.0.lock().unwrap().stream.write_all(bytes).is_ok()
    }

    pub fn close(&self, channel: ChannelId) {
        _ = self.0.lock().unwrap().mux.close(channel);
        self.flush();
    }

    pub fn shut_down(&self) {
        _ = self.0.lock().unwrap().stream.shutdown(std::net::Shutdown::Both);
    }

    pub fn flush(&self) -> bool {
        // Frames must be sent in the order in which they are sealed.
        let mut state = self.0.lock().unwrap();
        let bytes = state.take();
        state.stream.write_all(&bytes).is_ok()
    }

    /// The encrypted bytes of all queued messages, for sending in pieces.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap().take()
    }
}

/// Connects `core` with a raw peer and opens its channel.
pub fn with_raw_peer(core: &Hypercore, options: ConnectionOptions) -> (Connection, RawPeer, ChannelId) {
    let (a, b) = tcp();
    attack(a, b, core, options)
}

/// As [`with_raw_peer`], over the stream `a`, whose other end is `b`; waits until the core lists the peer.
pub fn with_raw_peer_over(
    a: impl Duplex,
    b: TcpStream,
    core: &Hypercore,
    options: ConnectionOptions,
) -> (Connection, RawPeer, ChannelId) {
    let joined = Events::new(|tell| core.on_peer_add(move |_| _ = tell.send(())));
    let attacked = attack(a, b, core, options);
    joined.next();
    attacked
}

fn attack(
    a: impl Duplex,
    b: TcpStream,
    core: &Hypercore,
    options: ConnectionOptions,
) -> (Connection, RawPeer, ChannelId) {
    let connection = Connection::open(a, Role::Responder, options).unwrap();
    core.replicate_on(&connection).unwrap();
    let mut raw = RawPeer::new(b, Role::Initiator);
    let channel = raw.sender.open(&core.key());
    raw.receive_until(|received| matches!(received, Received::Opened(opened) if opened == channel).then_some(()))
        .unwrap();
    (connection, raw, channel)
}

/// A stream that `reader` reads, and whose writes pass `gate`. Closing the stream opens the gate.
pub fn gated_stream(gate: &Arc<Gate>, reader: impl Read + Send + 'static, stream: TcpStream) -> Halves {
    let (closer, opener) = (stream.try_clone().unwrap(), gate.clone());
    let close = move || {
        _ = closer.shutdown(Shutdown::Both);
        opener.open();
    };
    Halves::new(reader, GatedStream { gate: gate.clone(), stream }, close)
}

struct GatedStream {
    gate: Arc<Gate>,
    stream: TcpStream,
}

impl Write for GatedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gate.pass();
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
