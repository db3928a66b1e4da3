//! The messages inside an encrypted frame, as npm `protomux` lays them out.
//!
//! ```text
//! one message     uint channel ‖ uint kind ‖ payload
//! many            00 00 (channel 0, kind 0) ‖ uint channel ‖ items
//! item            buffer of: uint kind ‖ payload
//!                 an empty item is followed by the uint channel of the items after it
//! ```
//!
//! The channel is the sender's own number for it; channel 0 is for control messages.

use crate::codec::{Reader, Writer, uint_len};
use crate::wire::noise_stream::MAX_MESSAGE;
use crate::{Error, ErrorKind, Result};

/// The channel of control messages.
pub const CONTROL: u64 = 0;

/// The kind of the control message that holds many messages.
const BATCH: u64 = 0;

/// A frame of this length is full: no more messages are added.
pub const FULL: usize = 64 << 10;

/// The most bytes of one message, its kind included: it fits into a frame that is almost [`FULL`].
pub const MAX_ITEM: usize = MAX_MESSAGE - FULL - 64;

/// A received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The peer's number for the channel; 0 is control.
    pub channel: u64,
    /// The message type.
    pub kind: u64,
    /// The message's bytes.
    pub payload: &'a [u8],
}

/// Iterator over the messages of a frame, in order. It ends after an error.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: Reader<'a>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Start,
    Batch { channel: u64 },
    End,
}

/// The messages of `frame`; an empty frame has none.
pub fn messages(frame: &[u8]) -> Messages<'_> {
    Messages { rest: Reader::new(frame), state: State::Start }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Incoming<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step().map_err(|e| Error::protocol(format!("the peer sends a malformed message: {e}")));
        if !matches!(next, Ok(Some(_))) {
            self.state = State::End;
        }
        next.transpose()
    }
}

impl<'a> Messages<'a> {
    fn step(&mut self) -> Result<Option<Incoming<'a>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut channel = match self.state {
            State::End => return Ok(None),
            State::Batch { channel } => channel,
            State::Start => {
                let (channel, kind) = (self.rest.uint()?, self.rest.uint()?);
                if (channel, kind) != (CONTROL, BATCH) {
                    self.state = State::End;
                    return Ok(Some(Incoming { channel, kind, payload: self.rest.raw() }));
                }
                self.rest.uint()?
            }
        };
        while !self.rest.is_empty() {
            let item = self.rest.buffer()?;
            if item.is_empty() {
                channel = self.rest.uint()?;
                continue;
            }
            let mut item = Reader::new(item);
            let kind = item.uint()?;
            if (channel, kind) == (CONTROL, BATCH) {
                return Err(Error::decoding("a batch inside a batch"));
            }
            self.state = State::Batch { channel };
            return Ok(Some(Incoming { channel, kind, payload: item.raw() }));
        }
        Ok(None)
    }
}

/// Writes many messages into one frame. A batch without messages writes nothing.
#[derive(Debug)]
pub struct Batch<'w> {
    writer: &'w mut Writer,
    start: usize,
    channel: Option<u64>,
}

impl<'w> Batch<'w> {
    /// Starts a batch at the end of `writer`, which must be the start of a frame.
    pub fn new(writer: &'w mut Writer) -> Self {
        Batch { start: writer.len(), writer, channel: None }
    }

    /// Adds a message of type `kind`, written by `write`, on our channel number `channel`. `about` estimates
    /// the length of what `write` writes; a good estimate saves moving it. A message of more than [`MAX_ITEM`]
    /// bytes is an [`ErrorKind::Encoding`] error and leaves the batch unchanged.
    pub fn push(&mut self, channel: u64, kind: u64, about: usize, write: impl FnOnce(&mut Writer)) -> Result<()> {
        push(self.writer, &mut self.channel, channel, kind, about, write)
    }

    /// Whether the frame is full. Send it then: another message could make it too long.
    pub fn is_full(&self) -> bool {
        self.writer.len() - self.start >= FULL
    }

    /// Whether the batch has no messages.
    pub fn is_empty(&self) -> bool {
        self.channel.is_none()
    }
}

/// Adds an item to the batch at the end of `writer`, whose last item was on channel `last`.
pub(super) fn push(
    writer: &mut Writer,
    last: &mut Option<u64>,
    channel: u64,
    kind: u64,
    about: usize,
    write: impl FnOnce(&mut Writer),
) -> Result<()> {
    let start = writer.len();
    match *last {
        Some(last) if last == channel => {}
        Some(_) => _ = writer.uint(0).uint(channel),
        None => _ = writer.uint(CONTROL).uint(BATCH).uint(channel),
    }
    let mut size = 0;
    writer.sized(uint_len(kind) + about, |writer| {
        let start = writer.len();
        write(writer.uint(kind));
        size = writer.len() - start;
    });
    if size > MAX_ITEM {
        writer.truncate(start);
        return Err(Error::new(
            ErrorKind::Encoding,
            format!("a message of {size} bytes is too long; the limit is {MAX_ITEM} bytes"),
        ));
    }
    *last = Some(channel);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(frame: &[u8]) -> Result<Vec<(u64, u64, Vec<u8>)>> {
        messages(frame).map(|m| m.map(|m| (m.channel, m.kind, m.payload.to_vec()))).collect()
    }

    #[test]
    fn messages_of_batch_equal_those_pushed() {
        let mut w = Writer::new();
        let mut batch = Batch::new(&mut w);
        let mut expected = Vec::new();
        for (channel, kind, size) in [(1, 0, 0), (1, 300, 1), (0, 1, 252), (700, 3, 65_600), (2, 2, 5)] {
            batch.push(channel, kind, 10, |w| _ = w.bytes(&vec![kind as u8; size])).unwrap();
            expected.push((channel, kind, vec![kind as u8; size]));
        }
        assert!(batch.is_full());
        assert_eq!(all(w.as_slice()).unwrap(), expected);
    }

    #[test]
    fn push_of_too_long_message_leaves_batch_unchanged() {
        let mut w = Writer::new();
        let mut batch = Batch::new(&mut w);
        batch.push(1, 1, 0, |w| _ = w.bytes(b"one")).unwrap();
        let too_long = vec![0; MAX_ITEM];
        assert_eq!(batch.push(2, 1, 0, |w| _ = w.bytes(&too_long)).unwrap_err().kind(), ErrorKind::Encoding);
        batch.push(1, 1, 0, |w| _ = w.bytes(b"two")).unwrap();
        assert_eq!(all(w.as_slice()).unwrap(), [(1, 1, b"one".to_vec()), (1, 1, b"two".to_vec())]);
    }

    #[test]
    fn malformed_frame_is_protocol_error() {
        assert_eq!(all(&[]).unwrap(), []);
        assert_eq!(all(&[0, 0, 1]).unwrap(), []);
        // No kind; no channel; an item past the end; a missing channel; a batch in a batch.
        for bad in [&[1][..], &[0, 0], &[0, 0, 1, 9, 1], &[0, 0, 1, 0], &[0, 0, 0, 1, 0]] {
            assert_eq!(all(bad).unwrap_err().kind(), ErrorKind::Protocol, "{bad:?}");
        }
    }
}
