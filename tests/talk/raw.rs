//! A peer made of the parts below the surface, which says whatever a story wants it to say.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use hypercore::lowlevel::codec::Writer;
use hypercore::lowlevel::crypto::hash;
use hypercore::lowlevel::replication::{Handshake, Message};
use hypercore::lowlevel::wire::batch::{self, Batch};
use hypercore::lowlevel::wire::channel::{Channel, Receiver, Sender};
use hypercore::lowlevel::wire::mux::{ChannelId, Event, Mux};
use hypercore::net::Role;
use hypercore::{Key, KeyPair};

/// What the other side said.
#[derive(Debug)]
pub enum Heard {
    Opened(ChannelId),
    Message(Message),
    Closed,
    Rejected,
    RemoteOpen,
}

/// What is said, from any thread.
#[derive(Clone)]
pub struct Mouth(Arc<Mutex<Saying>>);

struct Saying {
    stream: TcpStream,
    sender: Sender,
    mux: Mux,
    role: Role,
    handshake_hash: [u8; 64],
}

/// What is heard.
pub struct Raw {
    pub mouth: Mouth,
    stream: TcpStream,
    receiver: Receiver,
    heard: VecDeque<Heard>,
}

impl Raw {
    /// Shakes hands.
    pub fn new(mut stream: TcpStream, role: Role) -> Raw {
        stream.set_nodelay(true).unwrap();
        let mut channel = Channel::new(role, &KeyPair::generate().unwrap()).unwrap();
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
        let saying = Saying {
            stream: stream.try_clone().unwrap(),
            sender: established.sender,
            mux: Mux::new(),
            role,
            handshake_hash: established.handshake_hash,
        };
        let mouth = Mouth(Arc::new(Mutex::new(saying)));
        Raw { mouth, stream, receiver: established.receiver, heard: VecDeque::new() }
    }

    /// The next thing said; none when the other side has ended the connection.
    pub fn hear(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            while let Some(frame) = self.receiver.next_message().unwrap() {
                let mut saying = self.mouth.0.lock().unwrap();
                for message in batch::messages(frame) {
                    self.heard.extend(match saying.mux.receive(message.unwrap()).unwrap() {
                        Event::Nothing => None,
                        Event::Opened { channel, .. } => Some(Heard::Opened(channel)),
                        Event::Closed { .. } => Some(Heard::Closed),
                        Event::Rejected { .. } => Some(Heard::Rejected),
                        Event::RemoteOpen { .. } => Some(Heard::RemoteOpen),
                        Event::Message { kind, payload, .. } => {
                            Some(Heard::Message(Message::decode(kind, payload).unwrap().unwrap()))
                        }
                    });
                }
            }
            if self.heard.is_empty() {
                match self.stream.read(self.receiver.space()) {
                    Ok(0) | Err(_) => return None,
                    Ok(n) => self.receiver.filled(n),
                }
            }
        }
    }

    /// Waits until the other side has ended the connection.
    pub fn hear_out(mut self) {
        while self.hear().is_some() {}
    }

    /// The next message that `wanted` takes.
    pub fn hear_until<T>(&mut self, mut wanted: impl FnMut(Heard) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = wanted(self.hear()?) {
                return Some(found);
            }
        }
    }
}

impl Mouth {
    /// Opens the channel of the core with this key, and proves to know it.
    pub fn open(&self, key: &Key) -> ChannelId {
        let (role, handshake_hash) = {
            let saying = self.0.lock().unwrap();
            (saying.role, saying.handshake_hash)
        };
        let capability = hash::capability(role.is_initiator(), key.as_bytes(), &handshake_hash);
        self.open_with(key, Handshake { seeks: true, capability })
    }

    pub fn open_with(&self, key: &Key, handshake: Handshake) -> ChannelId {
        let mut w = Writer::new();
        handshake.encode(&mut w);
        let mut saying = self.0.lock().unwrap();
        let opening = saying.mux.open(&["hypercore/alpha"], key.discovery_key().as_bytes(), &w.into_vec()).unwrap();
        drop(saying);
        _ = self.flush();
        opening.channel
    }

    /// False when the other side has ended the connection.
    pub fn say(&self, channel: ChannelId, message: &Message) -> bool {
        self.say_bytes(channel, message.kind(), |w| message.encode(w))
    }

    pub fn say_bytes(&self, channel: ChannelId, kind: u64, write: impl FnOnce(&mut Writer)) -> bool {
        self.queue(channel, kind, write);
        self.flush()
    }

    /// To be said with the next that is.
    pub fn queue(&self, channel: ChannelId, kind: u64, write: impl FnOnce(&mut Writer)) {
        let mut saying = self.0.lock().unwrap();
        _ = saying.mux.send(channel, kind, 64, write);
    }

    /// A message of any bytes, without channels.
    pub fn say_frame(&self, frame: &[u8]) -> bool {
        let mut saying = self.0.lock().unwrap();
        let mut out = Vec::new();
        saying.sender.seal(&mut out, |w| _ = w.bytes(frame)).unwrap();
        saying.stream.write_all(&out).is_ok()
    }

    /// Messages in one frame, however many.
    pub fn say_at_once(&self, channel: ChannelId, messages: impl Iterator<Item = Message>) -> bool {
        let mut w = Writer::new();
        let number = self.0.lock().unwrap().mux.wire_id(channel).unwrap();
        let mut batch = Batch::new(&mut w);
        for message in messages {
            batch.push(number, message.kind(), 16, |w| message.encode(w)).unwrap();
        }
        self.say_frame(w.as_slice())
    }

    /// Bytes as they are, encrypted or not.
    pub fn say_plain(&self, bytes: &[u8]) -> bool {
        self.0.lock().unwrap().stream.write_all(bytes).is_ok()
    }

    pub fn close(&self, channel: ChannelId) {
        _ = self.0.lock().unwrap().mux.close(channel);
        self.flush();
    }

    pub fn hang_up(&self) {
        _ = self.0.lock().unwrap().stream.shutdown(std::net::Shutdown::Both);
    }

    pub fn flush(&self) -> bool {
        let mut saying = self.0.lock().unwrap();
        let mut out = Vec::new();
        while let Some(frame) = saying.mux.take() {
            saying.sender.seal(&mut out, |w| _ = w.bytes(&frame)).unwrap();
        }
        saying.stream.write_all(&out).is_ok()
    }
}
