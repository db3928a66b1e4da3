//! Two noise streams without a socket: in fragments, with changed bytes, and with a malicious peer.

use hypercore::lowlevel::wire::frame;
use hypercore::lowlevel::wire::noise::Role;
use hypercore::lowlevel::wire::noise_stream::{Established, MAX_MESSAGE, NoiseStream, Receiver, Sender};
use hypercore::{Error, ErrorKind};

use crate::common::machine::one_in;
use crate::common::pair;

const MESSAGES: [&[u8]; 4] =
    [b"first", b"", b"a second message that is longer than a block of the cipher is, by a bit", b"x"];

fn streams() -> [NoiseStream; 2] {
    [
        NoiseStream::with_randomness(Role::Initiator, &pair(1), pair(3), [5; 24]),
        NoiseStream::with_randomness(Role::Responder, &pair(2), pair(4), [6; 24]),
    ]
}

/// One end of a stream: it does the handshake, then sends [`MESSAGES`].
enum Side {
    Handshake(Box<NoiseStream>),
    Open { receiver: Box<Receiver>, received: Vec<Vec<u8>> },
}

impl Side {
    /// Feeds bytes from the peer; returns the bytes to send.
    fn take(self, bytes: &[u8]) -> Result<(Side, Vec<u8>), Error> {
        match self {
            Side::Handshake(mut channel) => {
                channel.feed(bytes);
                let done = channel.advance()?;
                if !done {
                    let output = channel.take_output();
                    return Ok((Side::Handshake(channel), output));
                }
                let Established { receiver, mut sender, mut output, .. } = channel.split()?;
                for message in MESSAGES {
                    sender.seal(&mut output, |w| _ = w.bytes(message))?;
                }
                let side = Side::Open { receiver: Box::new(receiver), received: Vec::new() };
                let (side, _) = side.take(&[])?;
                Ok((side, output))
            }
            Side::Open { mut receiver, mut received } => {
                receiver.feed(bytes);
                while let Some(message) = receiver.next_message()? {
                    received.push(message.to_vec());
                }
                Ok((Side::Open { receiver, received }, Vec::new()))
            }
        }
    }
}

/// The bytes that each side received, how many bytes it sent, and the error that ended the exchange, if any.
struct Outcome {
    received: [Vec<Vec<u8>>; 2],
    sent: [usize; 2],
    error: Option<Error>,
}

/// Connects two sides, whose bytes arrive in fragments of `step`. `line` may change each byte, given its
/// side and position.
fn exchange(step: usize, mut line: impl FnMut(usize, usize, &mut u8)) -> Outcome {
    let mut sides = streams().map(|channel| Some(Side::Handshake(Box::new(channel))));
    let mut outcome = Outcome { received: Default::default(), sent: [0; 2], error: None };
    let mut inbox = [Vec::new(), Vec::new()];
    // The initiator sends first.
    if let Some(Side::Handshake(channel)) = &mut sides[0] {
        inbox[1] = channel.take_output();
        outcome.sent[0] = inbox[1].len();
        for (i, byte) in inbox[1].iter_mut().enumerate() {
            line(0, i, byte);
        }
    }
    'exchange: while inbox.iter().any(|inbox| !inbox.is_empty()) {
        for me in [0, 1] {
            let n = step.min(inbox[me].len());
            let bytes: Vec<u8> = inbox[me].drain(..n).collect();
            let (side, mut output) = match sides[me].take().unwrap().take(&bytes) {
                Ok(next) => next,
                Err(e) => {
                    outcome.error = Some(e);
                    break 'exchange;
                }
            };
            for (i, byte) in output.iter_mut().enumerate() {
                line(me, outcome.sent[me] + i, byte);
            }
            outcome.sent[me] += output.len();
            inbox[1 - me].extend(output);
            if let Side::Open { received, .. } = &side {
                outcome.received[me] = received.clone();
            }
            sides[me] = Some(side);
        }
    }
    outcome
}

#[test]
fn messages_arrive_in_fragments_of_any_size() {
    for step in [1, 2, 3, 17, 64, 10_000] {
        let outcome = exchange(step, |_, _, _| {});
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        for received in outcome.received {
            assert_eq!(received, MESSAGES, "in fragments of {step}");
        }
    }
}

/// A changed byte keeps some message from arriving and lets no other arrive in its place. It ends in a protocol
/// error, unless it was part of a length, which can leave a side waiting.
#[test]
fn changed_byte_ends_delivery_of_messages() {
    let sent = exchange(10_000, |_, _, _| {}).sent;
    let mut errors = 0;
    let mut total = 0;
    for side in [0, 1] {
        for position in (0..sent[side]).step_by(one_in(8)) {
            for flip in [1, 0x80] {
                let outcome = exchange(10_000, |s, p, byte| {
                    if (s, p) == (side, position) {
                        *byte ^= flip;
                    }
                });
                for received in &outcome.received {
                    assert!(MESSAGES.map(<[u8]>::to_vec).starts_with(received), "side {side}, byte {position}");
                }
                assert_ne!(outcome.received.map(|received| received.len()), [4, 4], "side {side}, byte {position}");
                total += 1;
                if let Some(e) = outcome.error {
                    assert_eq!(e.kind(), ErrorKind::Protocol, "{e:?}");
                    errors += 1;
                }
            }
        }
    }
    assert!(total > 1000 / one_in(8) && errors * 10 > total * 9, "{errors} of {total} changes were noticed at once");
}

#[test]
fn both_sides_know_remote_key_and_handshake_hash() {
    let [mut a, mut b] = streams();
    b.feed(&a.take_output());
    assert!(!b.advance().unwrap() && !b.is_established());
    a.feed(&b.take_output());
    assert!(a.advance().unwrap() && a.is_established());
    b.feed(&a.take_output());
    assert!(b.advance().unwrap());
    let (a, b) = (a.split().unwrap(), b.split().unwrap());
    assert_eq!(a.remote_public_key, pair(2).public_key());
    assert_eq!(b.remote_public_key, pair(1).public_key());
    assert_eq!(a.handshake_hash, b.handshake_hash);
    assert_eq!((a.role, b.role), (Role::Initiator, Role::Responder));
}

/// The initiator's first messages may arrive in the same read as the end of its handshake.
#[test]
fn message_read_with_end_of_handshake_arrives() {
    let (mut a, mut b, early) = {
        let [mut a, mut b] = streams();
        b.feed(&a.take_output());
        b.advance().unwrap();
        a.feed(&b.take_output());
        a.advance().unwrap();
        let mut a = a.split().unwrap();
        let mut early = std::mem::take(&mut a.output);
        a.sender.seal(&mut early, |w| _ = w.bytes(b"early")).unwrap();
        b.feed(&early);
        b.advance().unwrap();
        (a, b.split().unwrap(), early)
    };
    assert!(early.len() > 100);
    assert_eq!(b.receiver.next_message().unwrap().unwrap(), b"early");
    assert!(b.receiver.is_between_messages());
    a.receiver.feed(&b.output);
    assert!(a.receiver.next_message().unwrap().is_none());
    assert!(a.receiver.is_between_messages());
}

fn established() -> [(Receiver, Sender); 2] {
    let [mut a, mut b] = streams();
    b.feed(&a.take_output());
    b.advance().unwrap();
    a.feed(&b.take_output());
    a.advance().unwrap();
    b.feed(&a.take_output());
    b.advance().unwrap();
    let (mut a, b) = (a.split().unwrap(), b.split().unwrap());
    a.receiver.feed(&b.output);
    assert!(a.receiver.next_message().unwrap().is_none());
    [(a.receiver, a.sender), (b.receiver, b.sender)]
}

#[test]
fn sender_and_receiver_work_on_separate_threads() {
    let [(_, mut sender), (mut receiver, _)] = established();
    let (to, from) = std::sync::mpsc::sync_channel::<Vec<u8>>(4);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..200u32 {
                let mut out = Vec::new();
                sender.seal(&mut out, |w| _ = w.u32(i).bytes(&vec![i as u8; 1000])).unwrap();
                to.send(out).unwrap();
            }
        });
        scope.spawn(move || {
            let mut next = 0u32;
            for bytes in from {
                receiver.feed(&bytes);
                while let Some(message) = receiver.next_message().unwrap() {
                    assert_eq!(message[..4], next.to_le_bytes());
                    assert!(message[4..].iter().all(|&byte| byte == next as u8));
                    next += 1;
                }
            }
            assert_eq!(next, 200);
        });
    });
}

#[test]
fn oversized_message_is_refused_and_changes_nothing() {
    let [(_, mut sender), (mut receiver, _)] = established();
    let mut out = b"before".to_vec();
    let large = vec![9; MAX_MESSAGE + 1];
    let e = sender.seal(&mut out, |w| _ = w.bytes(&large)).unwrap_err();
    assert_eq!((e.kind(), &out[..]), (ErrorKind::Encoding, &b"before"[..]));
    out.clear();
    sender.seal(&mut out, |w| _ = w.bytes(&large[1..])).unwrap();
    sender.keep_alive(&mut out);
    assert_eq!(out.len(), 3 + frame::MAX + 3 + 17);
    receiver.feed(&out);
    assert_eq!(receiver.next_message().unwrap().unwrap(), &large[1..]);
    assert_eq!(receiver.next_message().unwrap().unwrap(), b"");
    // After some keep-alives the memory of the large message is released.
    for _ in 0..10 {
        out.clear();
        sender.keep_alive(&mut out);
        receiver.feed(&out);
        assert_eq!(receiver.next_message().unwrap().unwrap(), b"");
    }
    assert!(receiver.capacity() <= 256 << 10, "{} bytes are kept", receiver.capacity());
}

#[test]
fn oversized_handshake_frames_are_refused() {
    let [_, mut b] = streams();
    b.feed(&frame::prefix(1025));
    assert_eq!(b.advance().unwrap_err().kind(), ErrorKind::Protocol);
    // An error is final.
    b.feed(&[0; 2000]);
    assert_eq!(b.advance().unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(b.split().unwrap_err().kind(), ErrorKind::Protocol);

    // The frame with the stream's id has a fixed size.
    let [mut a, mut b] = streams();
    b.feed(&a.take_output());
    b.advance().unwrap();
    a.feed(&b.take_output());
    a.advance().unwrap();
    let mut a = a.split().unwrap();
    for wrong in [55, 57, 0] {
        let mut receiver = {
            let [mut again, mut b] = streams();
            b.feed(&again.take_output());
            b.advance().unwrap();
            again.feed(&b.take_output());
            again.advance().unwrap();
            again.split().unwrap().receiver
        };
        receiver.feed(&frame::prefix(wrong));
        receiver.feed(&vec![0; wrong]);
        assert_eq!(receiver.next_message().unwrap_err().kind(), ErrorKind::Protocol, "{wrong} bytes");
        assert_eq!(receiver.next_message().unwrap_err().kind(), ErrorKind::Protocol);
    }
    // Our own frame sent back has the id of another stream.
    let own = a.output.split_off(3 + 64);
    a.receiver.feed(&own);
    assert!(a.receiver.next_message().unwrap_err().to_string().contains("another stream"));
}

#[test]
fn reordered_and_repeated_messages_are_refused() {
    let messages = |sender: &mut Sender| -> [Vec<u8>; 2] {
        [b"one", b"two"].map(|text| {
            let mut out = Vec::new();
            sender.seal(&mut out, |w| _ = w.bytes(text)).unwrap();
            out
        })
    };
    let [(_, mut sender), (mut receiver, _)] = established();
    let [one, two] = messages(&mut sender);
    receiver.feed(&two);
    receiver.feed(&one);
    assert_eq!(receiver.next_message().unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(receiver.next_message().unwrap_err().kind(), ErrorKind::Protocol, "an error is final");

    let [(_, mut sender), (mut receiver, _)] = established();
    let [one, _] = messages(&mut sender);
    receiver.feed(&one);
    receiver.feed(&one);
    assert_eq!(receiver.next_message().unwrap().unwrap(), b"one");
    assert_eq!(receiver.next_message().unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn too_short_frames_are_refused() {
    for len in 0..17 {
        let [_, (mut receiver, _)] = established();
        receiver.feed(&frame::prefix(len));
        receiver.feed(&vec![0; len]);
        assert_eq!(receiver.next_message().unwrap_err().kind(), ErrorKind::Protocol, "{len} bytes");
    }
}

#[test]
fn end_inside_message_is_detected() {
    let [(_, mut sender), (mut receiver, _)] = established();
    let mut out = Vec::new();
    sender.seal(&mut out, |w| _ = w.bytes(b"cut")).unwrap();
    assert!(receiver.next_message().unwrap().is_none());
    assert!(receiver.is_between_messages());
    for (i, byte) in out.iter().enumerate() {
        receiver.feed(&[*byte]);
        let whole = receiver.next_message().unwrap().is_some();
        assert_eq!(receiver.is_between_messages(), whole);
        assert_eq!(whole, i + 1 == out.len());
    }
}
