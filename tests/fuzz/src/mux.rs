//! Frames, batches and channels. The first byte says what follows: 0 frames, 1 a batch, 2 a hostile peer's frames
//! with operations of ours, 3 operations of two honest sides.

use std::collections::HashMap;

use hypercore::lowlevel::wire::batch::{Batch, messages};
use hypercore::lowlevel::wire::frame::{self, Decoder};
use hypercore::lowlevel::wire::mux::{ChannelId, Event, Mux};

use crate::input::{Input, part};
use crate::memory::within;
use crate::written;

const MAX_FRAME: usize = 2000;

pub fn run(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    within(512 * bytes.len() + (256 << 10), || match which % 4 {
        0 => frames(bytes),
        1 => batches(&mut Input(bytes)),
        2 => hostile(&mut Input(bytes)),
        _ => both(&mut Input(bytes)),
    });
}

pub fn line(bytes: &[u8]) -> Option<(&'static str, &[u8])> {
    match bytes {
        [which, bytes @ ..] if which % 4 == 0 => Some(("frame", bytes)),
        [which, bytes @ ..] if which % 4 == 1 => Some(("batch", bytes)),
        _ => None,
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let of = |sizes: &[usize]| -> Vec<u8> {
        sizes.iter().flat_map(|&size| [&frame::prefix(size)[..], &vec![size as u8; size]].concat()).collect()
    };
    let mut all = vec![
        [&[0, 1], &of(&[1, 2, 300])[..]].concat(),
        [&[0, 7], &of(&[70, 1000, 0, 5])[..]].concat(),
        [&[1], &part(&[5, 0, 0, 1, 1, 1, 112])[..], &part(&[0, 3, 0, 1, 0, 9])].concat(),
        (0..60_u32).map(|i| if i == 0 { 3 } else { (i * 37 % 101) as u8 }).collect(),
    ];
    let mut batch = written(|_| ());
    batch.extend(written(|w| {
        let mut batch = Batch::new(w);
        batch.push(1, 2, 3, |w| _ = w.bytes(b"abc")).unwrap();
        batch.push(7, 0, 0, |_| ()).unwrap();
    }));
    all.push([&[1], &part(&batch)[..]].concat());
    // One side of each conversation of the reference.
    let mut talk: Vec<Vec<u8>> = Vec::new();
    let mut flush = |talk: &mut Vec<Vec<u8>>| {
        for side in 0..2 {
            let frames = talk.iter().skip(side).step_by(2);
            let mut hostile = vec![2];
            let mut batch = vec![1];
            for (number, frame) in frames.enumerate() {
                hostile.extend([&[0], &part(frame)[..], &[3 + (number % 5) as u8, number as u8]].concat());
                batch.extend(part(frame));
            }
            all.extend([hostile, batch]);
        }
        talk.clear();
    };
    for line in include_str!("../../vectors/protomux.txt").lines().filter(|line| !line.starts_with('#')) {
        match line.split_once('|') {
            Some(("scenario", _)) => flush(&mut talk),
            Some((_, hex)) => {
                let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
                talk.push((0..hex.len() / 2).map(byte).collect());
            }
            None => {}
        }
    }
    flush(&mut talk);
    all
}

/// Frames are the same in whatever pieces they arrive.
fn frames(bytes: &[u8]) {
    let [step, bytes @ ..] = bytes else { return };
    let read = |step: usize| {
        let mut decoder = Decoder::new(MAX_FRAME);
        let mut read = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.feed(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => read.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(_) => return (read, false),
                }
            }
            assert!(decoder.capacity() <= 128 << 10, "{} bytes for frames of {MAX_FRAME}", decoder.capacity());
        }
        (read, true)
    };
    let pieces = read(usize::from(*step).max(1));
    assert_eq!(pieces, read(bytes.len().max(1)));
    assert!(pieces.0.iter().all(|frame| frame.len() <= MAX_FRAME));
}

/// The messages of a batch encode and decode to equal ones.
fn batches(input: &mut Input) {
    while !input.is_empty() {
        let frame = input.part();
        let Ok(read) = messages(frame).collect::<Result<Vec<_>, _>>() else { return };
        assert!(read.iter().map(|message| message.payload.len()).sum::<usize>() <= frame.len());
        let again = written(|w| {
            let mut batch = Batch::new(w);
            for message in &read {
                let written = batch.push(message.channel, message.kind, 0, |w| _ = w.bytes(message.payload));
                written.unwrap();
            }
        });
        assert_eq!(messages(&again).collect::<Result<Vec<_>, _>>().unwrap(), read);
    }
}

const NAMES: [&[&str]; 3] = [&["hypercore/alpha", "hypercore"], &["other"], &["p"]];
const IDS: [&[u8]; 3] = [&[], &[0xaa; 32], &[1]];

/// For any frames of the peer, events name channels that are open here.
fn hostile(input: &mut Input) {
    let mut mux = Mux::new();
    let mut open: Vec<ChannelId> = Vec::new();
    while !input.is_empty() {
        let how = input.u8() % 8;
        if how < 3 {
            for message in messages(input.part()) {
                let Ok(message) = message else { return };
                match mux.receive(message) {
                    Err(_) => return,
                    Ok(Event::RemoteOpen { protocol, id }) => match input.u8() % 3 {
                        0 => mux.reject(protocol, id).unwrap(),
                        1 => open.extend(mux.open(&[protocol], id, &[]).ok().map(|opening| opening.channel)),
                        _ => {}
                    },
                    Ok(Event::Closed { channel } | Event::Rejected { channel }) => {
                        assert!(open.contains(&channel) && !mux.is_open(channel));
                    }
                    Ok(Event::Message { channel, .. } | Event::Opened { channel, .. }) => {
                        assert!(open.contains(&channel) && mux.is_open(channel));
                    }
                    Ok(Event::Nothing) => {}
                }
            }
            continue;
        }
        let number = usize::from(input.u8());
        let (names, id) = (NAMES[number % 3], IDS[number / 3 % 3]);
        let channel = open.get(number % open.len().max(1)).copied();
        match (how, channel) {
            (3, _) => open.extend(mux.open(names, id, b"hi").ok().map(|opening| opening.channel)),
            (4, Some(channel)) => {
                let was = mux.is_open(channel);
                assert_eq!(mux.close(channel).unwrap(), was);
                assert!(!mux.is_open(channel) && mux.wire_id(channel).is_none());
            }
            (5, Some(channel)) => {
                let sent = mux.send(channel, 3, 2, |w| _ = w.bytes(b"ho"));
                assert_eq!(sent.is_ok(), mux.is_open(channel));
            }
            (6, _) => {
                let before = mux.queued_bytes();
                let taken = mux.take().map_or(0, |frame| frame.len());
                assert_eq!(mux.queued_bytes(), before - taken);
            }
            (7, _) => mux.reject(names[0], id).unwrap(),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Side {
    mux: Mux,
    /// The topic of each channel, and the number of the last message that arrived on it.
    channels: HashMap<ChannelId, (u8, u32)>,
    order: Vec<ChannelId>,
    sent: u32,
}

impl Side {
    fn open(&mut self, topic: u8) {
        let Ok(opening) = self.mux.open(&["p"], &[topic], &[topic]) else { return };
        self.channels.insert(opening.channel, (topic, 0));
        self.order.push(opening.channel);
        if let Some(accepted) = opening.accepted {
            assert_eq!(accepted.handshake, [topic]);
            for (kind, payload) in accepted.messages {
                self.hear(opening.channel, kind, &payload);
            }
        }
    }

    fn hear(&mut self, channel: ChannelId, kind: u64, payload: &[u8]) {
        let (topic, last) = self.channels.get_mut(&channel).unwrap();
        let number = u32::from_le_bytes(payload.try_into().unwrap());
        assert!(kind == u64::from(*topic) && number > *last, "message {number} of {kind} after {last} of {topic}");
        *last = number;
    }

    fn deliver(&mut self, frame: &[u8], input: &mut Input) {
        for message in messages(frame) {
            match self.mux.receive(message.unwrap()).unwrap() {
                Event::RemoteOpen { protocol, id } => match input.u8() % 3 {
                    0 => self.mux.reject(protocol, id).unwrap(),
                    1 => self.open(id[0]),
                    _ => {}
                },
                Event::Opened { channel, handshake } => assert_eq!(handshake, [self.channels[&channel].0]),
                Event::Message { channel, kind, payload } => self.hear(channel, kind, payload),
                Event::Rejected { channel } | Event::Closed { channel } => assert!(!self.mux.is_open(channel)),
                Event::Nothing => {}
            }
        }
    }
}

/// Two correct sides never end in a protocol error, and messages arrive on their channel in order.
fn both(input: &mut Input) {
    let mut sides = [Side::default(), Side::default()];
    while !input.is_empty() {
        let how = input.u8();
        let number = how >> 4;
        let at = usize::from(how & 1);
        let side = &mut sides[at];
        let channel = side.order.get(usize::from(number) % side.order.len().max(1)).copied();
        match (how >> 1 & 7, channel) {
            (0 | 1, _) => side.open(number % 4),
            (2, Some(channel)) => _ = side.mux.close(channel).unwrap(),
            (3 | 4, Some(channel)) if side.mux.is_open(channel) => {
                side.sent += 1;
                let number = side.sent.to_le_bytes();
                side.mux.send(channel, side.channels[&channel].0.into(), 4, |w| _ = w.bytes(&number)).unwrap();
            }
            (5, _) => side.mux.reject("p", &[number % 4]).unwrap(),
            _ => {
                if let Some(frame) = side.mux.take() {
                    sides[1 - at].deliver(&frame, input);
                }
            }
        }
    }
    // Deliver all frames in flight.
    let mut rounds = 0;
    while let Some(at) = (0..2).find(|at| sides[*at].mux.has_outgoing()) {
        let frame = sides[at].mux.take().unwrap();
        sides[1 - at].deliver(&frame, &mut Input(&[]));
        rounds += 1;
        assert!(rounds < 10_000, "the two never come to rest");
    }
}
