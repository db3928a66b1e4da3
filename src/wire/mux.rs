//! Many channels over one connection, paired by protocol name and id, as in npm `protomux`.
//!
//! ```text
//! control messages     1 open    uint local id, string protocol, buffer id, handshake up to the end
//!                      2 reject  uint: the receiver's id
//!                      3 close   uint: the sender's id
//! ```
//!
//! Both sides open a channel; two opens for the same protocol and id form a pair, and each side numbers its
//! channels as it likes, from 1. A side that does not want what the other opened rejects it. The states of our
//! side of a channel:
//!
//! ```text
//! free -> open sent: Waiting -> open received: Open -> close sent or received: free
//!                            -> reject received: free
//!                            -> close sent: Waiting, closed -> open or reject received: free
//! ```
//!
//! These rules keep both sides in step when messages cross:
//!
//! - A peer's ids grow by one at most, and an id that is in use cannot be opened again.
//! - Our id of a channel is free once the peer has answered for it: at once if the channel was open, else when
//!   its open or reject arrives. A channel that we closed before the peer answered is closed once more when it
//!   does, because JavaScript overlooks a close that overtakes its answer.
//! - Messages for a channel that is closed here are ignored: the peer did not know yet.
//! - A channel is open once on each side; another open for the same protocol and id is rejected.
//!
//! Three limits bound what a peer can make us keep: [`MAX_CHANNELS`] channels, [`MAX_HELD`] bytes of what it
//! opened and sent before we answered, and `MAX_ANSWERS` answers that it does not read.

use std::collections::{HashMap, VecDeque};
use std::mem;

use crate::codec::{Reader, Writer};
use crate::wire::batch::{self, CONTROL, FULL, Incoming};
use crate::{Error, ErrorKind, Result};

const OPEN: u64 = 1;
const REJECT: u64 = 2;
const CLOSE: u64 = 3;

/// The most channels of each side.
pub const MAX_CHANNELS: usize = 1 << 16;

/// The most bytes kept for channels that the peer opened and we have not answered.
pub const MAX_HELD: usize = 4 << 20;

/// The memory that a channel or a message takes besides its bytes.
const HELD_OVERHEAD: usize = 512;

/// The most answers to the peer's opens that may wait to be sent.
const MAX_ANSWERS: usize = MAX_CHANNELS;

/// One opening of a channel on our side. It differs from a later one that uses the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelId {
    slot: usize,
    serial: u64,
}

/// The result of a message from the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing has to be done.
    Nothing,
    /// The peer opened a channel that is not open here. Answer with [`Mux::open`] or [`Mux::reject`], now or later.
    RemoteOpen {
        /// The protocol's name.
        protocol: &'a str,
        /// The channel's id; may be empty.
        id: &'a [u8],
    },
    /// The peer opened our channel too. Messages can go both ways now.
    Opened {
        /// Our channel.
        channel: ChannelId,
        /// The peer's handshake.
        handshake: &'a [u8],
    },
    /// A message on an open channel.
    Message {
        /// Our channel.
        channel: ChannelId,
        /// The message type.
        kind: u64,
        /// The message's bytes.
        payload: &'a [u8],
    },
    /// The peer rejected the channel that we opened. It is closed.
    Rejected {
        /// The channel that is closed.
        channel: ChannelId,
    },
    /// The peer closed the channel.
    Closed {
        /// The channel that is closed.
        channel: ChannelId,
    },
}

/// A channel that was opened on our side.
#[derive(Debug)]
pub struct Opening {
    /// The channel.
    pub channel: ChannelId,
    /// The messages that the peer has sent, if it opened first; else [`Event::Opened`] or [`Event::Rejected`] follows.
    pub accepted: Option<Accepted>,
}

/// The messages of a peer that opened first, in order.
#[derive(Debug)]
pub struct Accepted {
    /// Its handshake.
    pub handshake: Vec<u8>,
    /// Its messages: type and bytes.
    pub messages: Vec<(u64, Vec<u8>)>,
}

/// Our side of a connection's channels.
#[derive(Debug, Default)]
pub struct Mux {
    /// Our channels, by our id - 1.
    local: Vec<LocalChannel>,
    /// The free slots of `local`.
    free: Vec<usize>,
    /// The peer's channels, by its id - 1.
    remote: Vec<RemoteChannel>,
    topics: HashMap<Topic, Pairing>,
    serial: u64,
    /// The bytes and overhead of all [`RemoteChannel::Pending`].
    held: usize,
    /// The answers since the last frame was taken.
    answers: usize,
    outgoing: Outgoing,
}

/// A protocol and an id, encoded as in an open message.
type Topic = Vec<u8>;

#[derive(Debug)]
enum LocalChannel {
    Free,
    /// The peer has not answered yet. If `closed`, only our number is kept, until the answer.
    Waiting {
        serial: u64,
        topics: Vec<Topic>,
        closed: bool,
    },
    Open {
        serial: u64,
        topics: Vec<Topic>,
        remote: usize,
    },
}

#[derive(Debug)]
enum RemoteChannel {
    Free,
    Pending(Box<Pending>),
    Open { local: usize },
}

/// A channel that the peer opened and we have not answered.
#[derive(Debug)]
struct Pending {
    topic: Topic,
    accepted: Accepted,
    size: usize,
}

/// The channels of one topic that have no partner yet, oldest first.
#[derive(Debug, Default)]
struct Pairing {
    /// Our channels, closed ones included, that wait for the peer's answer.
    waiting: VecDeque<usize>,
    /// The peer's channels that wait for ours.
    remote_opens: VecDeque<usize>,
    /// Whether one of our channels is open or waiting.
    in_use: bool,
}

/// The frames to be sent, all full except the last.
#[derive(Debug, Default)]
struct Outgoing {
    frames: VecDeque<Writer>,
    /// The bytes of all frames.
    bytes: usize,
    /// The channel of the last message in the last frame.
    channel: Option<u64>,
}

impl Mux {
    /// A connection without channels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a channel for one of the protocol `names` and `id` (which may be empty), with `handshake`. The
    /// name is the one that the peer opened, if it did, else the first.
    ///
    /// With [`Opening::accepted`] the channel is open both ways; else [`Event::Opened`] or [`Event::Rejected`]
    /// follows. Fails if the channel is open already, or [`MAX_CHANNELS`] are.
    pub fn open(&mut self, names: &[&str], id: &[u8], handshake: &[u8]) -> Result<Opening> {
        let topics: Vec<Topic> = names.iter().map(|name| topic(name, id)).collect();
        let Some(first) = topics.first() else { return Err(Error::bad_argument("a channel needs a protocol")) };
        if topics.iter().any(|topic| self.topics.get(topic).is_some_and(|pairing| pairing.in_use)) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("a channel of {} with this id is open on this connection", names[0]),
            ));
        }
        if self.free.is_empty() && self.local.len() >= MAX_CHANNELS {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("{MAX_CHANNELS} channels are open on this connection, which is the limit"),
            ));
        }
        let remote_open = topics.iter().find_map(|topic| Some((topic, *self.topics.get(topic)?.remote_opens.front()?)));
        let name = remote_open.map_or(first, |(topic, _)| topic);
        let remote_open = remote_open.map(|(_, remote)| remote);

        let slot = self.free.pop().unwrap_or_else(|| {
            self.local.push(LocalChannel::Free);
            self.local.len() - 1
        });
        self.serial += 1;
        let serial = self.serial;
        let written = self.outgoing.push(CONTROL, OPEN, name.len() + handshake.len() + 9, |w| {
            w.uint(wire_id(slot)).bytes(name).bytes(handshake);
        });
        if let Err(e) = written {
            self.free.push(slot);
            return Err(e);
        }
        for topic in &topics {
            let pairing = self.topics.entry(topic.clone()).or_default();
            pairing.in_use = true;
            if remote_open.is_none() {
                pairing.waiting.push_back(slot);
            }
        }
        let accepted = remote_open.and_then(|remote| self.take_pending(remote, RemoteChannel::Open { local: slot }));
        self.local[slot] = match remote_open {
            None => LocalChannel::Waiting { serial, topics: topics.clone(), closed: false },
            Some(remote) => LocalChannel::Open { serial, topics: topics.clone(), remote },
        };
        for topic in &topics {
            self.reject_remote_opens(topic)?;
        }
        Ok(Opening { channel: ChannelId { slot, serial }, accepted })
    }

    /// Rejects what the peer opened for `protocol` and `id`, unless it has been opened here.
    pub fn reject(&mut self, protocol: &str, id: &[u8]) -> Result<()> {
        let topic = topic(protocol, id);
        self.reject_remote_opens(&topic)?;
        self.forget_if_idle(&topic);
        Ok(())
    }

    /// Closes a channel, whether or not the peer has answered. Returns false if it was closed already.
    pub fn close(&mut self, channel: ChannelId) -> Result<bool> {
        if !self.is_open(channel) {
            return Ok(false);
        }
        let slot = channel.slot;
        self.send_control(CLOSE, wire_id(slot))?;
        match mem::replace(&mut self.local[slot], LocalChannel::Free) {
            LocalChannel::Open { topics, remote, .. } => {
                self.remote[remote] = RemoteChannel::Free;
                self.release(slot, &topics);
            }
            LocalChannel::Waiting { serial, topics, .. } => {
                for topic in &topics {
                    self.topics.entry(topic.clone()).or_default().in_use = false;
                }
                self.local[slot] = LocalChannel::Waiting { serial, topics, closed: true };
            }
            LocalChannel::Free => {}
        }
        Ok(true)
    }

    /// Whether a channel is open on our side. Messages on it are sent, but not read before the peer opens it too.
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.local.get(channel.slot).and_then(LocalChannel::serial) == Some(channel.serial)
    }

    /// Our number for an open channel, for writing messages into a [`Batch`](batch::Batch) of one's own; none
    /// if it is closed. Such a frame must be sent after those that [`take`](Self::take) returns at that time.
    pub fn wire_id(&self, channel: ChannelId) -> Option<u64> {
        self.is_open(channel).then(|| wire_id(channel.slot))
    }

    /// Queues a message on a channel. `about` estimates the length of what `write` writes. A message of
    /// more than [`MAX_ITEM`](batch::MAX_ITEM) bytes is an [`ErrorKind::Encoding`] error, one on a
    /// closed channel [`ErrorKind::Closed`].
    pub fn send(&mut self, channel: ChannelId, kind: u64, about: usize, write: impl FnOnce(&mut Writer)) -> Result<()> {
        let id = self.wire_id(channel).ok_or_else(|| Error::new(ErrorKind::Closed, "the channel is closed"))?;
        self.outgoing.push(id, kind, about, write)
    }

    /// The next frame to be encrypted and sent; none if nothing is queued.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.answers = 0;
        let frame = self.outgoing.frames.pop_front().map(Writer::into_vec)?;
        self.outgoing.bytes -= frame.len();
        Some(frame)
    }

    /// Whether anything is queued.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.frames.is_empty()
    }

    /// How many bytes are queued.
    pub fn queued_bytes(&self) -> usize {
        self.outgoing.bytes
    }

    /// Handles one message of the peer, from [`batch::messages`]. After an error the connection must be closed.
    pub fn receive<'a>(&mut self, message: Incoming<'a>) -> Result<Event<'a>> {
        let Incoming { channel, kind, payload } = message;
        let Some(remote) = slot_of(channel) else {
            return match kind {
                OPEN => self.on_open(payload),
                REJECT => self.on_reject(payload),
                CLOSE => self.on_close(payload),
                _ => Ok(Event::Nothing),
            };
        };
        match self.remote.get_mut(remote) {
            None | Some(RemoteChannel::Free) => Ok(Event::Nothing),
            Some(&mut RemoteChannel::Open { local }) => match self.local[local].serial() {
                Some(serial) => Ok(Event::Message { channel: ChannelId { slot: local, serial }, kind, payload }),
                None => Ok(Event::Nothing),
            },
            Some(RemoteChannel::Pending(pending)) => {
                let size = reserve(&mut self.held, payload.len())?;
                pending.size += size;
                pending.accepted.messages.push((kind, payload.to_vec()));
                Ok(Event::Nothing)
            }
        }
    }

    fn on_open<'a>(&mut self, payload: &'a [u8]) -> Result<Event<'a>> {
        let mut r = Reader::new(payload);
        let open = (|| Ok((r.uint()?, r.string()?, r.buffer()?, r.raw())))();
        let (number, protocol, id, handshake) = open.map_err(malformed)?;
        let Some(remote) = slot_of(number) else {
            // The control channel is always open.
            self.answer(REJECT, 0)?;
            return Ok(Event::Nothing);
        };
        if remote == self.remote.len() && remote < MAX_CHANNELS {
            self.remote.push(RemoteChannel::Free);
        }
        if !matches!(self.remote.get(remote), Some(RemoteChannel::Free)) {
            return Err(Error::protocol(format!("the peer opens a channel as number {number}, which is not free")));
        }
        let topic = topic(protocol, id);
        let pairing = self.topics.get(&topic);
        if let Some(&slot) = pairing.and_then(|pairing| pairing.waiting.front()) {
            return self.on_answer(slot, remote, handshake);
        }
        if pairing.is_some_and(|pairing| pairing.in_use) {
            self.answer(REJECT, number)?;
            return Ok(Event::Nothing);
        }
        let size = reserve(&mut self.held, topic.len() + handshake.len())?;
        self.topics.entry(topic.clone()).or_default().remote_opens.push_back(remote);
        let accepted = Accepted { handshake: handshake.to_vec(), messages: Vec::new() };
        self.remote[remote] = RemoteChannel::Pending(Box::new(Pending { topic, accepted, size }));
        Ok(Event::RemoteOpen { protocol, id })
    }

    /// The peer opened, as `remote`, the channel that we had opened in `slot`.
    fn on_answer<'a>(&mut self, slot: usize, remote: usize, handshake: &'a [u8]) -> Result<Event<'a>> {
        let LocalChannel::Waiting { serial, topics, closed } = mem::replace(&mut self.local[slot], LocalChannel::Free)
        else {
            return Ok(Event::Nothing);
        };
        self.stop_waiting(slot, &topics);
        if closed {
            self.answer(CLOSE, wire_id(slot))?;
            self.free.push(slot);
            return Ok(Event::Nothing);
        }
        self.local[slot] = LocalChannel::Open { serial, topics, remote };
        self.remote[remote] = RemoteChannel::Open { local: slot };
        Ok(Event::Opened { channel: ChannelId { slot, serial }, handshake })
    }

    fn on_reject(&mut self, payload: &[u8]) -> Result<Event<'static>> {
        let number = Reader::new(payload).uint().map_err(malformed)?;
        let slot = slot_of(number).filter(|&slot| matches!(self.local.get(slot), Some(LocalChannel::Waiting { .. })));
        let Some(slot) = slot else {
            return Err(Error::protocol(format!("the peer rejects channel {number}, which does not wait for it")));
        };
        let LocalChannel::Waiting { serial, topics, closed } = mem::replace(&mut self.local[slot], LocalChannel::Free)
        else {
            return Ok(Event::Nothing);
        };
        self.stop_waiting(slot, &topics);
        if closed {
            self.free.push(slot);
            return Ok(Event::Nothing);
        }
        self.release(slot, &topics);
        Ok(Event::Rejected { channel: ChannelId { slot, serial } })
    }

    fn on_close(&mut self, payload: &[u8]) -> Result<Event<'static>> {
        let number = Reader::new(payload).uint().map_err(malformed)?;
        let Some(remote) = slot_of(number) else { return Ok(Event::Nothing) };
        match self.remote.get(remote) {
            None | Some(RemoteChannel::Free) => Ok(Event::Nothing),
            Some(RemoteChannel::Pending(pending)) => {
                let topic = pending.topic.clone();
                if let Some(pairing) = self.topics.get_mut(&topic) {
                    pairing.remote_opens.retain(|&remote_opens| remote_opens != remote);
                }
                self.take_pending(remote, RemoteChannel::Free);
                self.forget_if_idle(&topic);
                // The peer may use its number again once we have answered.
                self.answer(REJECT, number)?;
                Ok(Event::Nothing)
            }
            Some(&RemoteChannel::Open { local: slot }) => {
                self.remote[remote] = RemoteChannel::Free;
                let LocalChannel::Open { serial, topics, .. } = mem::replace(&mut self.local[slot], LocalChannel::Free)
                else {
                    return Ok(Event::Nothing);
                };
                self.release(slot, &topics);
                Ok(Event::Closed { channel: ChannelId { slot, serial } })
            }
        }
    }

    /// Replaces a channel that the peer opened by `next`, and returns what was kept for it.
    fn take_pending(&mut self, remote: usize, next: RemoteChannel) -> Option<Accepted> {
        match mem::replace(&mut self.remote[remote], next) {
            RemoteChannel::Pending(pending) => {
                self.held -= pending.size;
                if let Some(pairing) = self.topics.get_mut(&pending.topic) {
                    pairing.remote_opens.retain(|&remote_opens| remote_opens != remote);
                }
                Some(pending.accepted)
            }
            _ => None,
        }
    }

    fn reject_remote_opens(&mut self, topic: &Topic) -> Result<()> {
        let remote_opens =
            self.topics.get_mut(topic).map(|pairing| mem::take(&mut pairing.remote_opens)).unwrap_or_default();
        for remote in remote_opens {
            self.take_pending(remote, RemoteChannel::Free);
            self.answer(REJECT, wire_id(remote))?;
        }
        Ok(())
    }

    fn stop_waiting(&mut self, slot: usize, topics: &[Topic]) {
        for topic in topics {
            if let Some(pairing) = self.topics.get_mut(topic) {
                pairing.waiting.retain(|&waiting| waiting != slot);
            }
            self.forget_if_idle(topic);
        }
    }

    /// The channel in `slot` is closed on both sides.
    fn release(&mut self, slot: usize, topics: &[Topic]) {
        self.free.push(slot);
        for topic in topics {
            if let Some(pairing) = self.topics.get_mut(topic) {
                pairing.in_use = false;
            }
            self.forget_if_idle(topic);
        }
    }

    fn forget_if_idle(&mut self, topic: &Topic) {
        if self.topics.get(topic).is_some_and(|p| p.waiting.is_empty() && p.remote_opens.is_empty() && !p.in_use) {
            self.topics.remove(topic);
        }
    }

    /// Sends a control message in answer to one of the peer's.
    fn answer(&mut self, kind: u64, number: u64) -> Result<()> {
        self.answers += 1;
        if self.answers > MAX_ANSWERS {
            return Err(Error::protocol(format!("the peer opens channels without reading {MAX_ANSWERS} answers")));
        }
        self.send_control(kind, number)
    }

    fn send_control(&mut self, kind: u64, number: u64) -> Result<()> {
        self.outgoing.push(CONTROL, kind, 9, |w| _ = w.uint(number))
    }
}

impl LocalChannel {
    /// The serial of a channel that is not closed.
    fn serial(&self) -> Option<u64> {
        match self {
            LocalChannel::Waiting { serial, closed: false, .. } | LocalChannel::Open { serial, .. } => Some(*serial),
            _ => None,
        }
    }
}

impl Outgoing {
    fn push(&mut self, channel: u64, kind: u64, about: usize, write: impl FnOnce(&mut Writer)) -> Result<()> {
        if self.frames.back().is_none_or(|frame| frame.len() >= FULL) {
            self.frames.push_back(Writer::new());
            self.channel = None;
        }
        let Some(frame) = self.frames.back_mut() else { return Ok(()) };
        let before = frame.len();
        let result = batch::push(frame, &mut self.channel, channel, kind, about, write);
        self.bytes = self.bytes - before + frame.len();
        if frame.is_empty() {
            self.frames.pop_back();
        }
        result
    }
}

fn topic(protocol: &str, id: &[u8]) -> Topic {
    let mut w = Writer::new();
    w.string(protocol).buffer(id);
    w.into_vec()
}

/// Reserves `size` bytes for a channel of the peer that we have not answered.
fn reserve(held: &mut usize, size: usize) -> Result<usize> {
    let size = size.saturating_add(HELD_OVERHEAD);
    if size > MAX_HELD - *held {
        return Err(Error::protocol(format!(
            "the peer sends more than {MAX_HELD} bytes on channels that are not open here"
        )));
    }
    *held += size;
    Ok(size)
}

/// The number on the wire of a slot.
fn wire_id(slot: usize) -> u64 {
    slot as u64 + 1
}

/// The slot of a number on the wire; none for 0, the control channel.
fn slot_of(number: u64) -> Option<usize> {
    Some(usize::try_from(number.checked_sub(1)?).unwrap_or(usize::MAX))
}

fn malformed(e: Error) -> Error {
    Error::protocol(format!("the peer sends a malformed control message: {e}"))
}
