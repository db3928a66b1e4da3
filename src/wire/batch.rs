//! The messages inside an encrypted frame, as npm `protomux` lays them out.
//!
//! One message: uint channel ‖ uint kind ‖ payload. Many: `00 00` (channel 0, kind 0) ‖ uint channel, then items, each a
//! buffer of uint kind ‖ payload; an item of no bytes is followed by the uint channel of the items after it. The channel
//! is the sender's own number for it, and 0 is control.

use crate::codec::{Reader, Writer, uint_len};
use crate::wire::noise_stream::MAX_MESSAGE;
use crate::{Error, ErrorKind, Result};

/// The channel of control messages.
pub const CONTROL: u64 = 0;

/// Control: what follows are many messages.
const BATCH: u64 = 0;

/// When a frame is this long no more messages join it.
pub const FULL: usize = 64 << 10;

/// The most bytes of one message, its kind included: it fits a frame beside what fills it up to [`FULL`].
pub const MAX_ITEM: usize = MAX_MESSAGE - FULL - 64;

/// A message as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The peer's number for the channel; 0 is control.
    pub channel: u64,
    /// The type of the message.
    pub kind: u64,
    /// The message.
    pub payload: &'a [u8],
}

/// The messages of a frame, in order. After an error there are no more.
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

/// The messages of `frame`; an empty one has none.
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

/// Writes many messages into one frame. A batch that nothing was pushed to writes nothing.
#[derive(Debug)]
pub struct Batch<'w> {
    writer: &'w mut Writer,
    start: usize,
    channel: Option<u64>,
}

impl<'w> Batch<'w> {
    /// A batch that goes on where `writer` stands, at the beginning of a message.
    pub fn new(writer: &'w mut Writer) -> Self {
        Batch { start: writer.len(), writer, channel: None }
    }

    /// Adds a message of type `kind`, written by `write`, on our channel number `channel`. `about` guesses the length of
    /// what `write` writes; a good guess saves a move. More than [`MAX_ITEM`] bytes are an [`ErrorKind::Encoding`] error
    /// and leave everything as it was.
    pub fn push(&mut self, channel: u64, kind: u64, about: usize, write: impl FnOnce(&mut Writer)) -> Result<()> {
        push(self.writer, &mut self.channel, channel, kind, about, write)
    }

    /// Whether the frame is long enough to be sent. Nothing should be pushed to it then: the frame could grow too long.
    pub fn is_full(&self) -> bool {
        self.writer.len() - self.start >= FULL
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.channel.is_none()
    }
}

/// Adds an item to the batch that `writer` ends with, whose last item was on the channel `last`.
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
        return Err(Error::new(ErrorKind::Encoding, format!("a message has {size} bytes, {MAX_ITEM} at most fit")));
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
    fn what_a_batch_takes_comes_out_again() {
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
    fn a_message_that_is_too_long_leaves_the_batch_as_it_was() {
        let mut w = Writer::new();
        let mut batch = Batch::new(&mut w);
        batch.push(1, 1, 0, |w| _ = w.bytes(b"one")).unwrap();
        let too_long = vec![0; MAX_ITEM];
        assert_eq!(batch.push(2, 1, 0, |w| _ = w.bytes(&too_long)).unwrap_err().kind(), ErrorKind::Encoding);
        batch.push(1, 1, 0, |w| _ = w.bytes(b"two")).unwrap();
        assert_eq!(all(w.as_slice()).unwrap(), [(1, 1, b"one".to_vec()), (1, 1, b"two".to_vec())]);
    }

    #[test]
    fn nothing_malformed_passes() {
        assert_eq!(all(&[]).unwrap(), []);
        assert_eq!(all(&[0, 0, 1]).unwrap(), []);
        // No kind; no channel; an item past the end; a channel that is missing; a batch in a batch.
        for bad in [&[1][..], &[0, 0], &[0, 0, 1, 9, 1], &[0, 0, 1, 0], &[0, 0, 0, 1, 0]] {
            assert_eq!(all(bad).unwrap_err().kind(), ErrorKind::Protocol, "{bad:?}");
        }
    }
}
