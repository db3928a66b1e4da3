//! An encrypted connection: frames, handshake and secretstream together, as in npm `@hyperswarm/secret-stream`.
//!
//! ```text
//! initiator                              responder        each line one frame
//! e                                  ->
//!                                    <-  e, ee, s, es
//! s, se                              ->
//! stream id ‖ secretstream header    ->
//! message …                          ->
//!                                    <-  stream id ‖ secretstream header
//!                                    <-  message …
//! ```
//!
//! A [`NoiseStream`] is the connection up to the third message of the handshake. It is then split into a
//! [`Receiver`] and a [`Sender`] that share nothing, so that one thread can decrypt while another encrypts. The
//! first frame of the receiver must be the peer's stream id and header.
//!
//! An empty message keeps the connection alive and has no other meaning.

use std::fmt;
use std::mem;
use std::ops::Range;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::codec::Writer;
use crate::crypto::hash::stream_id;
use crate::crypto::keys::{self, Key, KeyPair};
use crate::wire::frame::{self, Decoder};
use crate::wire::noise::{Answered, Initiator, Responder, Role, Secrets};
use crate::wire::secretstream::{HEADER, MAC, OVERHEAD, Pull, Push, TAG_MESSAGE};
use crate::{Error, ErrorKind, Result};

/// The most bytes of one message.
pub const MAX_MESSAGE: usize = frame::MAX - OVERHEAD;

/// The most bytes of a handshake frame: the longest has 96, and payloads, which we ignore, may use the rest.
const MAX_HANDSHAKE: usize = 1024;

const STREAM_ID: usize = 32;

/// A connection during its handshake.
///
/// Over a blocking stream, repeat these steps: advance, send, read.
///
/// ```
/// # use std::io::{Read, Write};
/// # use hypercore::lowlevel::wire::noise_stream::{NoiseStream, Established};
/// fn establish(mut stream: NoiseStream, mut socket: impl Read + Write) -> std::io::Result<Established> {
///     loop {
///         let done = stream.advance()?;
///         socket.write_all(&stream.take_output())?;
///         if done {
///             return Ok(stream.split()?);
///         }
///         match socket.read(stream.space())? {
///             0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
///             n => stream.filled(n),
///         }
///     }
/// }
/// ```
pub struct NoiseStream {
    role: Role,
    header: [u8; HEADER],
    frames: Decoder,
    output: Vec<u8>,
    step: Step,
}

enum Step {
    Initiator(Initiator),
    Responder(Responder),
    Answered(Answered),
    Done(Secrets),
    Failed(Error),
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Established {
    /// Decrypts what the peer sends.
    pub receiver: Receiver,
    /// Encrypts what is sent to the peer.
    pub sender: Sender,
    /// Send this before anything that the sender encrypts; empty if [`NoiseStream::take_output`] returned it already.
    pub output: Vec<u8>,
    /// This side's role.
    pub role: Role,
    /// The peer's key; the peer has proved that it holds the secret key.
    pub remote_public_key: Key,
    /// The same on both sides, and different for every connection.
    pub handshake_hash: [u8; 64],
}

impl NoiseStream {
    /// Starts a handshake with the key pair `pair`.
    pub fn new(role: Role, pair: &KeyPair) -> Result<Self> {
        let mut header = [0; HEADER];
        keys::random(&mut header)?;
        Ok(Self::with_randomness(role, pair, KeyPair::generate()?, header))
    }

    /// Starts a handshake with given random values, for tests. Using values twice breaks the encryption.
    pub fn with_randomness(role: Role, pair: &KeyPair, ephemeral: KeyPair, header: [u8; HEADER]) -> Self {
        let mut output = Vec::new();
        let step = match role {
            Role::Initiator => {
                let (state, message) = Initiator::new(pair.clone(), ephemeral);
                push_frame(&mut output, &message);
                Step::Initiator(state)
            }
            Role::Responder => Step::Responder(Responder::new(pair.clone(), ephemeral)),
        };
        NoiseStream { role, header, frames: Decoder::new(MAX_HANDSHAKE), output, step }
    }

    /// Where to put the next bytes from the peer; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        self.frames.space()
    }

    /// The first `n` bytes of [`space`](Self::space) have been filled.
    pub fn filled(&mut self, n: usize) {
        self.frames.filled(n);
    }

    /// Copies `bytes` in as the next from the peer.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.frames.feed(bytes);
    }

    /// The bytes to send to the peer now; may be empty.
    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.output)
    }

    /// Whether the handshake is done, so that [`split`](Self::split) succeeds.
    pub fn is_established(&self) -> bool {
        matches!(self.step, Step::Done(_))
    }

    /// Continues the handshake with the bytes that have arrived. Returns whether it is done. An error is final.
    pub fn advance(&mut self) -> Result<bool> {
        while !self.is_established() {
            match self.advance_once() {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(e) => {
                    self.step = Step::Failed(e.clone());
                    return Err(e);
                }
            }
        }
        Ok(true)
    }

    /// Splits the connection into its two directions. Bytes of the peer after its handshake go to the receiver.
    pub fn split(self) -> Result<Established> {
        let secrets = match self.step {
            Step::Done(secrets) => secrets,
            Step::Failed(e) => return Err(e),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, "the handshake is not done yet")),
        };
        let Secrets { tx, rx, handshake_hash, remote_public_key } = secrets;
        let expected_id = stream_id(!self.role.is_initiator(), &handshake_hash);
        let mut frames = self.frames;
        frames.set_max(STREAM_ID + HEADER);
        Ok(Established {
            receiver: Receiver { frames, state: Receiving::Opening { key: rx, expected_id } },
            sender: Sender(Push::new(&tx, &self.header)),
            output: self.output,
            role: self.role,
            remote_public_key,
            handshake_hash,
        })
    }

    fn advance_once(&mut self) -> Result<bool> {
        if let Step::Failed(e) = &self.step {
            return Err(e.clone());
        }
        let Some(message) = self.frames.next_frame()? else { return Ok(false) };
        let failed = Step::Failed(Error::protocol("the handshake failed"));
        self.step = match mem::replace(&mut self.step, failed) {
            Step::Initiator(state) => {
                let (reply, secrets) = state.finish(message)?;
                push_frame(&mut self.output, &reply);
                Step::Done(secrets)
            }
            Step::Responder(state) => {
                let (state, reply) = state.answer(message)?;
                push_frame(&mut self.output, &reply);
                Step::Answered(state)
            }
            Step::Answered(state) => Step::Done(state.finish(message)?),
            end @ (Step::Done(_) | Step::Failed(_)) => end,
        };
        if let Step::Done(secrets) = &self.step {
            let id = stream_id(self.role.is_initiator(), &secrets.handshake_hash);
            push_frame(&mut self.output, &[&id[..], &self.header].concat());
        }
        Ok(true)
    }
}

fn push_frame(out: &mut Vec<u8>, message: &[u8]) {
    out.extend_from_slice(&frame::prefix(message.len()));
    out.extend_from_slice(message);
}

/// The receiving direction: bytes in, messages out.
pub struct Receiver {
    frames: Decoder,
    state: Receiving,
}

enum Receiving {
    Opening { key: Zeroizing<[u8; 32]>, expected_id: [u8; STREAM_ID] },
    Open(Pull),
    Failed(Error),
}

impl Receiver {
    /// Where to put the next bytes from the peer; never empty. Take all messages first.
    pub fn space(&mut self) -> &mut [u8] {
        self.frames.space()
    }

    /// The first `n` bytes of [`space`](Self::space) have been filled.
    pub fn filled(&mut self, n: usize) {
        self.frames.filled(n);
    }

    /// Copies `bytes` in as the next from the peer.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.frames.feed(bytes);
    }

    /// The next message, decrypted in place; none until more bytes arrive. An empty one is a keep-alive. An
    /// error is final.
    pub fn next_message(&mut self) -> Result<Option<&mut [u8]>> {
        match self.next_range() {
            Ok(Some(range)) => Ok(Some(self.frames.frame(range))),
            Ok(None) => Ok(None),
            Err(e) => {
                self.state = Receiving::Failed(e.clone());
                Err(e)
            }
        }
    }

    /// Whether the peer's bytes end with a whole message. A connection that ends elsewhere was cut.
    pub fn is_between_messages(&self) -> bool {
        self.frames.is_empty() && matches!(self.state, Receiving::Open(_))
    }

    /// The size of the buffer in bytes.
    pub fn capacity(&self) -> usize {
        self.frames.capacity()
    }

    fn next_range(&mut self) -> Result<Option<Range<usize>>> {
        loop {
            if let Receiving::Failed(e) = &self.state {
                return Err(e.clone());
            }
            let Some(range) = self.frames.next_range()? else { return Ok(None) };
            let frame = self.frames.frame(range.clone());
            match &mut self.state {
                Receiving::Failed(e) => return Err(e.clone()),
                Receiving::Open(pull) => {
                    pull.pull(frame)?;
                    return Ok(Some(range.start + 1..range.end - MAC));
                }
                Receiving::Opening { key, expected_id } => {
                    let header = check_stream_id(frame, expected_id)?;
                    self.state = Receiving::Open(Pull::new(key, header));
                    self.frames.set_max(frame::MAX);
                }
            }
        }
    }
}

fn check_stream_id<'a>(frame: &'a [u8], expected: &[u8; STREAM_ID]) -> Result<&'a [u8; HEADER]> {
    let parts = frame.split_first_chunk::<STREAM_ID>();
    let Some((id, header)) = parts.and_then(|(id, rest)| Some((id, rest.try_into().ok()?))) else {
        return Err(Error::protocol(format!("the peer opens its stream with {} bytes, not 56", frame.len())));
    };
    if !bool::from(expected.ct_eq(id)) {
        return Err(Error::protocol("the peer opens another stream: its id does not match the handshake"));
    }
    Ok(header)
}

/// The sending direction: messages in, bytes out.
pub struct Sender(Push);

impl Sender {
    /// Appends to `out` a frame with what `write` writes, encrypted in place. A message of more than
    /// [`MAX_MESSAGE`] bytes is an [`ErrorKind::Encoding`] error and leaves `out` unchanged.
    pub fn seal(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer)) -> Result<()> {
        let start = out.len();
        let mut writer = Writer::append_to(mem::take(out));
        writer.bytes(&[0; TEXT_OFFSET]);
        write(&mut writer);
        *out = writer.into_vec();
        let size = out.len() - start - TEXT_OFFSET;
        if size > MAX_MESSAGE {
            out.truncate(start);
            return Err(Error::new(
                ErrorKind::Encoding,
                format!("a message of {size} bytes is too long; the limit is {MAX_MESSAGE} bytes"),
            ));
        }
        let (tag, mac) = self.0.push(TAG_MESSAGE, &mut out[start + TEXT_OFFSET..]);
        out[start..start + frame::PREFIX].copy_from_slice(&frame::prefix(size + OVERHEAD));
        out[start + frame::PREFIX] = tag;
        out.extend_from_slice(&mac);
        Ok(())
    }

    /// Appends to `out` the empty message that keeps the connection alive.
    pub fn keep_alive(&mut self, out: &mut Vec<u8>) {
        let (tag, mac) = self.0.push(TAG_MESSAGE, &mut []);
        out.extend_from_slice(&frame::prefix(OVERHEAD));
        out.push(tag);
        out.extend_from_slice(&mac);
    }
}

/// Where the text begins in a frame: after the length and the tag.
const TEXT_OFFSET: usize = frame::PREFIX + 1;

impl fmt::Debug for NoiseStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseStream")
            .field("role", &self.role)
            .field("established", &self.is_established())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
