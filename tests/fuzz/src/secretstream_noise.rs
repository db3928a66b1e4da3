//! Handshake and encrypted streams. The first byte says what follows: 0 the bytes that one side of a handshake
//! receives, 1 the bytes received after it, 2 how an honest conversation is split and tampered with, 3 messages
//! of a bare secretstream.

use hypercore::lowlevel::wire::noise::Role;
use hypercore::lowlevel::wire::noise_stream::{NoiseStream, Receiver, Sender};
use hypercore::lowlevel::wire::secretstream::{MAC, Pull, Push};

use crate::input::{Input, part};
use crate::memory::within;
use crate::pair;

/// The length of a secretstream's header.
const HEADER: usize = 24;

pub fn run(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    within(64 * bytes.len() + (256 << 10), || match which % 4 {
        0 => handshake(bytes),
        1 => sealed(bytes),
        2 => conversation(&mut Input(bytes)),
        _ => secretstream(&mut Input(bytes)),
    });
}

pub fn line(bytes: &[u8]) -> Option<(&'static str, &[u8])> {
    match bytes {
        [which, bytes @ ..] if which % 4 == 0 => Some(("channel", bytes)),
        [which, bytes @ ..] if which % 4 == 1 => Some(("stream", bytes)),
        _ => None,
    }
}

fn ends() -> [NoiseStream; 2] {
    [
        NoiseStream::with_randomness(Role::Initiator, &pair(1), pair(3), [5; HEADER]),
        NoiseStream::with_randomness(Role::Responder, &pair(2), pair(4), [6; HEADER]),
    ]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let [mut a, mut b] = ends();
    let first = a.take_output();
    b.feed(&first);
    b.advance().unwrap();
    let second = b.take_output();
    a.feed(&second);
    a.advance().unwrap();
    let third = a.take_output();
    let (mut sender, _) = talking();
    let mut said = vec![1];
    say(&mut sender, &mut said);
    vec![
        [vec![0, 1], first, third].concat(),
        [vec![0, 0], second].concat(),
        said,
        vec![2, 9, 0, 0, 0, 0],
        vec![2, 200, 0, 40, 0, 1],
        vec![2, 1, 1, 150, 0, 128],
        [&[3, 0][..], &part(b"hello"), &[0, 2], &part(b"rekey"), &[0, 0], &part(&[7; 300]), &[3, 0]].concat(),
    ]
}

/// Bytes from outside complete a handshake only where they are those of the other end.
fn handshake(bytes: &[u8]) {
    let [side, bytes @ ..] = bytes else { return };
    let [a, b] = ends();
    let (mut end, peer) = if side % 2 == 0 { (a, 2) } else { (b, 1) };
    for piece in bytes.chunks(50) {
        end.feed(piece);
        if end.advance().is_err() {
            assert!(end.advance().is_err() && !end.is_established());
            return;
        }
    }
    if end.is_established() {
        assert_eq!(end.split().unwrap().remote_public_key, pair(peer).public_key());
    }
}

fn talking() -> (Sender, Receiver) {
    let [mut a, mut b] = ends();
    b.feed(&a.take_output());
    b.advance().unwrap();
    a.feed(&b.take_output());
    a.advance().unwrap();
    b.feed(&a.take_output());
    b.advance().unwrap();
    let (a, b) = (a.split().unwrap(), b.split().unwrap());
    let mut receiver = a.receiver;
    receiver.feed(&b.output);
    assert!(receiver.next_message().unwrap().is_none());
    (b.sender, receiver)
}

/// The sizes of the messages of a conversation; a keep-alive is an empty message.
const SAID: [usize; 6] = [5, 0, 300, 64, 0, 63];

fn say(sender: &mut Sender, out: &mut Vec<u8>) {
    for size in SAID {
        match size {
            0 => sender.keep_alive(out),
            _ => sender.seal(out, |w| _ = w.bytes(&vec![7; size])).unwrap(),
        }
    }
}

/// The messages that come out; they must be the first of those that were said.
fn heard(receiver: &mut Receiver) -> usize {
    let mut heard = Vec::new();
    while let Ok(Some(message)) = receiver.next_message() {
        assert!(message.iter().all(|byte| *byte == 7));
        heard.push(message.len());
    }
    assert!(heard.len() <= SAID.len() && heard == SAID[..heard.len()], "{heard:?}");
    heard.len()
}

fn sealed(bytes: &[u8]) {
    let (_, mut receiver) = talking();
    receiver.feed(bytes);
    heard(&mut receiver);
}

/// Two ends talk; one byte on the way may be changed. Everything before it arrives, nothing after it does.
fn conversation(input: &mut Input) {
    let step = usize::from(input.u8()).max(1);
    let tampered = usize::from(input.u8() % 2);
    let (mut at, flip) = (usize::from(input.u16()), input.u8());
    let mut changed = false;
    let mut carry = |from: usize, mut bytes: Vec<u8>| {
        if from == tampered {
            if flip != 0 && at < bytes.len() && !changed {
                bytes[at] ^= flip;
                changed = true;
            }
            at = at.saturating_sub(bytes.len());
        }
        (bytes, changed)
    };
    let mut ends = ends();
    let mut failed = false;
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let (bytes, _) = carry(from, ends[from].take_output());
        for piece in bytes.chunks(step) {
            ends[to].feed(piece);
            failed |= ends[to].advance().is_err();
        }
    }
    let [a, b] = ends;
    let established = a.is_established() && b.is_established();
    assert!(!(established && failed));
    if !established {
        assert!(carry(tampered, Vec::new()).1, "an honest handshake fails");
        return;
    }
    let (mut a, mut b) = (a.split().unwrap(), b.split().unwrap());
    assert_eq!(a.handshake_hash, b.handshake_hash);
    assert_eq!(a.remote_public_key, pair(2).public_key());
    assert_eq!(b.remote_public_key, pair(1).public_key());
    for (from, sender, receiver, rest) in
        [(0, &mut a.sender, &mut b.receiver, &mut a.output), (1, &mut b.sender, &mut a.receiver, &mut b.output)]
    {
        let mut out = std::mem::take(rest);
        say(sender, &mut out);
        let (out, changed) = carry(from, out);
        let mut count = 0;
        for piece in out.chunks(step) {
            receiver.feed(piece);
            while let Ok(Some(message)) = receiver.next_message() {
                assert!(message.len() == SAID[count] && message.iter().all(|byte| *byte == 7));
                count += 1;
            }
        }
        let whole = count == SAID.len();
        assert!(whole != (changed && from == tampered), "{count} messages arrived");
    }
}

/// Each message is a mode, a tag and a text; the mode says what is done to it on the way.
fn secretstream(input: &mut Input) {
    let (key, header) = ([1; 32], [2; HEADER]);
    let (mut push, mut pull) = (Push::new(&key, &header), Pull::new(&key, &header));
    while !input.is_empty() {
        let (mode, tag) = (input.u8(), input.u8());
        let text = input.part();
        let mut sealed = text.to_vec();
        let (first, mac) = push.push(tag, &mut sealed);
        let good = [&[first], &sealed[..], &mac[..]].concat();
        let mut bad = good.clone();
        match mode % 4 {
            1 => bad[usize::from(mode / 4) % good.len()] ^= 1 << (tag % 8),
            2 => bad.truncate(usize::from(mode / 4) % good.len()),
            3 => bad.push(tag),
            _ => {}
        }
        if bad != good {
            let before = bad.clone();
            assert!(pull.pull(&mut bad).is_err());
            assert_eq!(bad, before);
        }
        // A message that was refused has changed nothing.
        let mut message = good.clone();
        assert_eq!(pull.pull(&mut message).unwrap(), tag);
        assert_eq!(&message[1..message.len() - MAC], text);
        assert!(pull.pull(&mut good.clone()).is_err(), "a message is read twice");
    }
}
