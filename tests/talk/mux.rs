//! Channels open, pair, carry messages and close as in the reference, and a peer cannot make us keep much.

use std::collections::VecDeque;

use hypercore::ErrorKind;
use hypercore::lowlevel::wire::batch::{Batch, FULL, MAX_ITEM, messages};
use hypercore::lowlevel::wire::mux::{ChannelId, Event, MAX_CHANNELS, MAX_HELD, Mux, Opening};

use crate::common::{Random, unhex};

const NAMES: &[&str] = &["hypercore/alpha", "hypercore"];
const ID: [u8; 32] = [0xaa; 32];

/// An [`Event`] with owned data.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    RemoteOpen(String, Vec<u8>),
    Opened(ChannelId, Vec<u8>),
    Message(ChannelId, u64, Vec<u8>),
    Rejected(ChannelId),
    Closed(ChannelId),
}

impl Seen {
    fn of(event: Event) -> Option<Seen> {
        match event {
            Event::Nothing => None,
            Event::RemoteOpen { protocol, id } => Some(Seen::RemoteOpen(protocol.into(), id.into())),
            Event::Opened { channel, handshake } => Some(Seen::Opened(channel, handshake.into())),
            Event::Message { channel, kind, payload } => Some(Seen::Message(channel, kind, payload.into())),
            Event::Rejected { channel } => Some(Seen::Rejected(channel)),
            Event::Closed { channel } => Some(Seen::Closed(channel)),
        }
    }
}

/// Feeds all messages of a frame to `mux`; returns their events.
fn receive(mux: &mut Mux, frame: &[u8]) -> hypercore::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for message in messages(frame) {
        seen.extend(Seen::of(mux.receive(message?)?));
    }
    Ok(seen)
}

/// All outgoing messages of `mux`: channel, type and payload.
fn sent(mux: &mut Mux) -> Vec<(u64, u64, Vec<u8>)> {
    std::iter::from_fn(|| mux.take()).flat_map(|frame| flat(&frame)).collect()
}

fn flat(frame: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    messages(frame).map(|m| m.unwrap()).map(|m| (m.channel, m.kind, m.payload.to_vec())).collect()
}

/// The frames that the two sides of the reference sent each other in a scenario, in order.
struct Script(VecDeque<(bool, Vec<u8>)>);

impl Script {
    fn new(name: &str) -> Self {
        let lines = include_str!("../vectors/protomux.txt").lines().filter(|line| !line.starts_with('#'));
        let lines = lines.skip_while(|line| *line != format!("scenario|{name}")).skip(1);
        let lines = lines.take_while(|line| !line.starts_with("scenario|"));
        Script(lines.map(|line| line.split_once('|').unwrap()).map(|(side, hex)| (side == "a", unhex(hex))).collect())
    }

    /// The next frame of the script, which this side must have sent.
    fn frame(&mut self, by_a: bool) -> Vec<u8> {
        let (side, frame) = self.0.pop_front().unwrap();
        assert_eq!(side, by_a, "the script is read out of turn");
        frame
    }

    /// Fails unless `mux` sends the next frame of the script, which this side must have sent.
    fn expect(&mut self, by_a: bool, mux: &mut Mux) {
        assert_eq!(sent(mux), flat(&self.frame(by_a)));
    }
}

fn opened(mux: &mut Mux, handshake: &[u8]) -> ChannelId {
    let Opening { channel, accepted } = mux.open(NAMES, &ID, handshake).unwrap();
    assert!(accepted.is_none());
    channel
}

fn send(mux: &mut Mux, channel: ChannelId, kind: u64, payload: &[u8]) {
    mux.send(channel, kind, payload.len(), |w| _ = w.bytes(payload)).unwrap();
}

#[test]
fn channel_conversation_matches_reference() {
    // First as the side that opens, then as the other.
    let (mut a, mut script) = (Mux::new(), Script::new("talk"));
    let x = opened(&mut a, b"hello");
    script.expect(true, &mut a);
    assert_eq!(receive(&mut a, &script.frame(false)).unwrap(), [Seen::Opened(x, b"world".into())]);
    send(&mut a, x, 0, b"plain");
    script.expect(true, &mut a);
    let x2 = a.open(&["other"], &[], &[]).unwrap().channel;
    script.expect(true, &mut a);
    assert_eq!(receive(&mut a, &script.frame(false)).unwrap(), [Seen::Opened(x2, b"z".into())]);
    send(&mut a, x, 1, b"one");
    send(&mut a, x, 2, &[7; 300]);
    send(&mut a, x2, 0, &[]);
    send(&mut a, x, 0, b"x");
    assert!(a.close(x2).unwrap());
    assert_eq!(a.take().unwrap(), script.frame(true), "the batch is the reference's to the byte");
    assert_eq!(receive(&mut a, &script.frame(false)).unwrap(), [Seen::Message(x, 0, b"bye".into()), Seen::Closed(x)]);
    assert!(!a.is_open(x) && !a.has_outgoing());

    let (mut b, mut script) = (Mux::new(), Script::new("talk"));
    let y = opened(&mut b, b"world");
    assert_eq!(receive(&mut b, &script.frame(true)).unwrap(), [Seen::Opened(y, b"hello".into())]);
    script.expect(false, &mut b);
    assert_eq!(receive(&mut b, &script.frame(true)).unwrap(), [Seen::Message(y, 0, b"plain".into())]);
    let y2 = b.open(&["other"], &[], b"z").unwrap().channel;
    assert_eq!(receive(&mut b, &script.frame(true)).unwrap(), [Seen::Opened(y2, vec![])]);
    script.expect(false, &mut b);
    assert_eq!(
        receive(&mut b, &script.frame(true)).unwrap(),
        [
            Seen::Message(y, 1, b"one".into()),
            Seen::Message(y, 2, vec![7; 300]),
            Seen::Message(y2, 0, vec![]),
            Seen::Message(y, 0, b"x".into()),
            Seen::Closed(y2)
        ]
    );
    send(&mut b, y, 0, b"bye");
    b.close(y).unwrap();
    assert_eq!(b.take().unwrap(), script.frame(false));
}

#[test]
fn rejected_channel_can_be_opened_again() {
    let (mut a, mut script) = (Mux::new(), Script::new("reject"));
    for handshake in ["hi", "again"] {
        let x = opened(&mut a, handshake.as_bytes());
        script.expect(true, &mut a);
        assert_eq!(receive(&mut a, &script.frame(false)).unwrap(), [Seen::Rejected(x)]);
        assert!(!a.is_open(x));
    }

    let (mut b, mut script) = (Mux::new(), Script::new("reject"));
    for _ in 0..2 {
        let event = Seen::RemoteOpen("hypercore/alpha".into(), ID.into());
        assert_eq!(receive(&mut b, &script.frame(true)).unwrap(), [event]);
        assert!(!b.has_outgoing());
        b.reject("hypercore/alpha", &ID).unwrap();
        script.expect(false, &mut b);
    }
}

#[test]
fn channel_opened_after_peer_delivers_earlier_messages() {
    let (mut b, mut script) = (Mux::new(), Script::new("demand"));
    let event = Seen::RemoteOpen("hypercore/alpha".into(), ID.into());
    assert_eq!(receive(&mut b, &script.frame(true)).unwrap(), [event]);
    let Opening { channel, accepted } = b.open(NAMES, &ID, b"late").unwrap();
    script.expect(false, &mut b);
    let accepted = accepted.unwrap();
    assert_eq!((&accepted.handshake[..], accepted.messages), (&b"hi"[..], vec![(0, b"early".to_vec())]));
    assert_eq!(receive(&mut b, &[1, 4, 5]).unwrap(), [Seen::Message(channel, 4, vec![5])]);

    let (mut a, mut script) = (Mux::new(), Script::new("demand"));
    let x = opened(&mut a, b"hi");
    send(&mut a, x, 0, b"early");
    script.expect(true, &mut a);
    assert_eq!(receive(&mut a, &script.frame(false)).unwrap(), [Seen::Opened(x, b"late".into())]);
}

#[test]
fn crossing_opens_and_closes_match_reference() {
    for (me, mine, theirs) in [(0, "A", "B"), (1, "B", "A")] {
        let (mut mux, mut script) = (Mux::new(), Script::new("cross"));
        for round in 0..2 {
            let x = opened(&mut mux, format!("{mine}{round}").as_bytes());
            let lines = [script.frame(true), script.frame(false)];
            assert_eq!(sent(&mut mux), flat(&lines[me]));
            let event = Seen::Opened(x, format!("{theirs}{round}").into());
            assert_eq!(receive(&mut mux, &lines[1 - me]).unwrap(), [event]);
            mux.close(x).unwrap();
            let lines = [script.frame(true), script.frame(false)];
            assert_eq!(sent(&mut mux), flat(&lines[me]));
            assert_eq!(receive(&mut mux, &lines[1 - me]).unwrap(), []);
        }
    }
}

/// Passes all outgoing frames of `from` to `to`.
fn pass(from: &mut Mux, to: &mut Mux) -> Vec<Seen> {
    std::iter::from_fn(|| from.take()).flat_map(|frame| receive(to, &frame).unwrap()).collect()
}

#[test]
fn open_under_alias_is_answered_under_same_alias() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let x = a.open(&["hypercore"], &ID, b"old").unwrap().channel;
    assert_eq!(pass(&mut a, &mut b), [Seen::RemoteOpen("hypercore".into(), ID.into())]);
    let opening = b.open(NAMES, &ID, b"new").unwrap();
    assert_eq!(opening.accepted.unwrap().handshake, b"old");
    assert_eq!(pass(&mut b, &mut a), [Seen::Opened(x, b"new".into())]);

    // The same when our open under the new name is already on its way.
    let (mut a, mut b) = (Mux::new(), Mux::new());
    a.open(&["hypercore"], &ID, b"old").unwrap();
    let y = opened(&mut b, b"new");
    assert_eq!(pass(&mut a, &mut b), [Seen::Opened(y, b"old".into())]);
    // Both names are in use, so a second open of the peer is rejected.
    receive(&mut b, &control_open(2, "hypercore/alpha", &ID)).unwrap();
    assert_eq!(sent(&mut b).last().unwrap(), &(0, 2, vec![2]));
    assert!(b.is_open(y));
}

/// A frame with one open message of the peer.
fn control_open(id: u8, protocol: &str, about: &[u8]) -> Vec<u8> {
    [&[0, 1, id, protocol.len() as u8][..], protocol.as_bytes(), &[about.len() as u8], about].concat()
}

#[test]
fn channel_closed_before_answer_can_be_opened_again() {
    // The peer answers a channel that we closed. We send the close again, and the number is free.
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let x = opened(&mut a, b"1");
    let open = a.take().unwrap();
    assert!(a.close(x).unwrap() && !a.close(x).unwrap());
    assert!(!a.is_open(x));
    assert_eq!(a.send(x, 0, 0, |_| {}).unwrap_err().kind(), ErrorKind::Closed);
    receive(&mut b, &open).unwrap();
    let y = b.open(NAMES, &ID, b"2").unwrap().channel;
    let again = opened(&mut a, b"3");
    assert_ne!(again, x);
    assert_eq!(a.wire_id(again), Some(2), "number 1 waits for its answer");
    // b receives the close, then the new open.
    assert_eq!(pass(&mut a, &mut b), [Seen::Closed(y), Seen::RemoteOpen(NAMES[0].into(), ID.into())]);
    let y = b.open(NAMES, &ID, b"4").unwrap().channel;
    // The first answer of b is for the closed channel, the second for the new one.
    assert_eq!(pass(&mut b, &mut a), [Seen::Opened(again, b"4".into())]);
    assert_eq!(pass(&mut a, &mut b), [], "the second close meets nothing");
    send(&mut a, again, 5, b"now");
    assert_eq!(pass(&mut a, &mut b), [Seen::Message(y, 5, b"now".into())]);
    let other = a.open(&["other"], &[], &[]).unwrap().channel;
    assert_eq!(a.wire_id(other), Some(1), "number 1 is free");
}

#[test]
fn close_received_before_answer_is_rejected() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let x = opened(&mut a, b"");
    a.close(x).unwrap();
    assert_eq!(pass(&mut a, &mut b), [Seen::RemoteOpen(NAMES[0].into(), ID.into())]);
    // The reject frees the number at a. The offered channel is gone at b.
    assert_eq!(pass(&mut b, &mut a), []);
    assert!(b.open(NAMES, &ID, b"").unwrap().accepted.is_none());
    let again = opened(&mut a, b"second");
    assert_eq!(a.wire_id(again), Some(1));
    pass(&mut b, &mut a);
    assert!(matches!(pass(&mut a, &mut b)[..], [Seen::Opened(_, ref handshake)] if handshake == b"second"));
}

#[test]
fn reused_channel_number_ignores_late_messages() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (x, y) = (opened(&mut a, b""), opened(&mut b, b""));
    assert_eq!(pass(&mut a, &mut b), [Seen::Opened(y, vec![])]);
    assert_eq!(pass(&mut b, &mut a), [Seen::Opened(x, vec![])]);
    a.close(x).unwrap();
    let next = a.open(&["other"], b"7", &[]).unwrap().channel;
    assert_eq!((a.wire_id(x), a.wire_id(next)), (None, Some(1)));
    // Messages of b on the closed channel are dropped.
    send(&mut b, y, 0, b"late");
    assert_eq!(pass(&mut b, &mut a), []);
    assert_eq!(pass(&mut a, &mut b), [Seen::Closed(y), Seen::RemoteOpen("other".into(), b"7".into())]);
}

/// Two multiplexers over a slow line, and the channels that each side has open, by id.
struct Pair {
    mux: [Mux; 2],
    open: [[Option<ChannelId>; 8]; 2],
    received: usize,
    random: Random,
}

impl Pair {
    fn random(&mut self, n: u64) -> usize {
        self.random.below(n) as usize
    }

    /// Moves one frame across the line to `side`, which reacts to each message before it reads the next; false if there
    /// is no frame.
    fn pass(&mut self, side: usize) -> bool {
        let Some(frame) = self.mux[1 - side].take() else { return false };
        for message in messages(&frame) {
            let Some(event) = Seen::of(self.mux[side].receive(message.unwrap()).unwrap()) else { continue };
            let open = self.open[side];
            let of = |channel| (0..8).find(|&id| open[id] == Some(channel)).unwrap();
            match event {
                Seen::Message(channel, kind, payload) => {
                    assert_eq!((of(channel) as u64, of(channel) as u8), (kind, payload[0]));
                    self.received += 1;
                }
                Seen::Closed(channel) | Seen::Rejected(channel) => self.open[side][of(channel)] = None,
                Seen::Opened(channel, _) => _ = of(channel),
                Seen::RemoteOpen(protocol, id) => match self.random(3) {
                    0 => self.mux[side].reject(&protocol, &id).unwrap(),
                    1 => self.open(side, id[0] as usize - 1),
                    _ => {}
                },
            }
        }
        true
    }

    fn open(&mut self, side: usize, id: usize) {
        let opening = self.mux[side].open(&["p"], &[id as u8 + 1], &[]).unwrap();
        self.open[side][id] = Some(opening.channel);
        for (kind, payload) in opening.accepted.into_iter().flat_map(|accepted| accepted.messages) {
            assert_eq!((kind as usize, payload[0] as usize), (id, id));
        }
    }

    fn send(&mut self, side: usize, id: usize) {
        send(&mut self.mux[side], self.open[side][id].unwrap(), id as u64, &[id as u8]);
    }
}

#[test]
fn random_opens_and_closes_keep_channels_apart() {
    (0..20).for_each(|seed| open_and_close(seed, 5000));
}

/// Two sides open, close and send at random; the fuzz target runs it, too.
pub fn open_and_close(seed: u32, steps: usize) {
    let mut pair =
        Pair { mux: Default::default(), open: Default::default(), received: 0, random: Random::new(seed.into()) };
    for _ in 0..steps {
        let (id, side) = (pair.random(8), pair.random(2));
        match (pair.open[side][id], pair.random(4)) {
            (None, 0) => pair.open(side, id),
            (Some(channel), 0) => {
                assert!(pair.mux[side].close(channel).unwrap());
                pair.open[side][id] = None;
            }
            (Some(_), 1) => pair.send(side, id),
            _ => _ = pair.pass(side),
        }
        for side in [0, 1] {
            let open = pair.open[side].iter().flatten();
            assert!(open.clone().all(|&channel| pair.mux[side].is_open(channel)));
        }
    }
    assert!(steps < 5000 || pair.received > 100, "{} messages were received", pair.received);

    // When all frames have arrived, a channel that both sides have open is paired.
    while pair.pass(0) | pair.pass(1) {}
    pair.received = 0;
    let both = (0..8).filter(|&id| pair.open[0][id].is_some() && pair.open[1][id].is_some());
    let both: Vec<usize> = both.collect();
    both.iter().for_each(|&id| (0..2).for_each(|side| pair.send(side, id)));
    while pair.pass(0) | pair.pass(1) {}
    assert_eq!(pair.received, both.len() * 2, "of {both:?}");
}

#[test]
fn messages_are_batched_into_full_frames() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (x, y) = (opened(&mut a, b""), opened(&mut b, b""));
    pass(&mut b, &mut a);
    let large = vec![3; 15 << 20];
    for _ in 0..300 {
        send(&mut a, x, 1, &[1; 1000]);
    }
    send(&mut a, x, 2, &large);
    send(&mut a, x, 3, b"end");
    let e = a.send(x, 4, 0, |w| _ = w.bytes(&vec![0; MAX_ITEM])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Encoding);
    let frames: Vec<_> = std::iter::from_fn(|| a.take()).collect();
    assert_eq!(frames.len(), 6);
    assert!(frames[..4].iter().all(|frame| (FULL..FULL + 1100).contains(&frame.len())));
    let seen: Vec<_> = frames.iter().flat_map(|frame| receive(&mut b, frame).unwrap()).collect();
    assert_eq!(seen.len(), 303);
    assert_eq!(seen[301], Seen::Message(y, 2, large));
    assert_eq!(seen[302], Seen::Message(y, 3, b"end".into()));
}

#[test]
fn externally_built_batch_is_received() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (x, y) = (opened(&mut a, b""), opened(&mut b, b""));
    pass(&mut b, &mut a);
    pass(&mut a, &mut b);
    let mut w = hypercore::lowlevel::codec::Writer::new();
    let mut batch = Batch::new(&mut w);
    batch.push(a.wire_id(x).unwrap(), 3, 4, |w| _ = w.bytes(b"data")).unwrap();
    batch.push(a.wire_id(x).unwrap(), 4, 0, |w| _ = w.uint(9)).unwrap();
    let expected = [Seen::Message(y, 3, b"data".into()), Seen::Message(y, 4, vec![9])];
    assert_eq!(receive(&mut b, w.as_slice()).unwrap(), expected);
}

#[test]
fn keep_alives_and_unknown_messages_are_ignored() {
    let mut mux = Mux::new();
    for frame in [&[][..], &[7, 0, 1, 2], &[0, 9, 1], &[0, 3, 0], &[0, 3, 200], &[0, 0, 5]] {
        assert_eq!(receive(&mut mux, frame).unwrap(), [], "{frame:?}");
    }
    assert!(!mux.has_outgoing());
    // Number 0 is the control channel, which cannot be opened.
    assert_eq!(receive(&mut mux, &control_open(0, "p", &[])).unwrap(), []);
    assert_eq!(sent(&mut mux), [(0, 2, vec![0])]);
}

#[test]
fn protocol_violations_are_refused() {
    let refused = |frames: &[&[u8]]| {
        let mut mux = Mux::new();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            receive(&mut mux, frame).unwrap();
        }
        let e = receive(&mut mux, last).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{e:?}");
    };
    // Numbers that skip one or are in use; a reject of nothing; control messages that are cut short or are not UTF-8.
    refused(&[&control_open(2, "p", &[])]);
    refused(&[&control_open(1, "p", &[]), &control_open(1, "q", &[])]);
    refused(&[&[0, 2, 1]]);
    refused(&[&[0, 2, 0]]);
    refused(&[&[0, 2]]);
    refused(&[&[0, 3]]);
    refused(&[&[0, 1, 1]]);
    refused(&[&[0, 1, 1, 200, 1]]);
    refused(&[&[0, 1, 1, 1, 0xff, 0]]);
    refused(&[&[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 112, 0]]);
}

#[test]
fn state_held_for_peer_is_bounded() {
    // Messages on a channel that is not answered.
    let mut mux = Mux::new();
    receive(&mut mux, &control_open(1, "p", &[])).unwrap();
    let message = [&[1, 0][..], &[0; 100_000]].concat();
    let held = (0..).take_while(|_| receive(&mut mux, &message).is_ok()).count();
    assert_eq!(held, MAX_HELD / 100_512);
    // Empty messages count, too.
    let mut mux = Mux::new();
    receive(&mut mux, &control_open(1, "p", &[])).unwrap();
    assert!((0..).take_while(|_| receive(&mut mux, &[1, 0]).is_ok()).count() < 10_000);
    // A reject releases what is held.
    let mut mux = Mux::new();
    for _ in 0..100 {
        receive(&mut mux, &control_open(1, "p", &[])).unwrap();
        receive(&mut mux, &message).unwrap();
        mux.reject("p", &[]).unwrap();
    }

    // Channels that are not answered.
    let mut mux = Mux::new();
    let open = |mux: &mut Mux, id: u64| {
        let mut w = hypercore::lowlevel::codec::Writer::new();
        w.uint(0).uint(1).uint(id).string("p").buffer(&id.to_le_bytes());
        receive(mux, w.as_slice())
    };
    assert!((1..).take_while(|&id| open(&mut mux, id).is_ok()).count() < 10_000);

    // Channel numbers.
    let mut mux = Mux::new();
    let opened = (1..).take_while(|&id| {
        let result = open(&mut mux, id);
        let rejected = mux.reject("p", &id.to_le_bytes());
        mux.take();
        result.is_ok() && rejected.is_ok()
    });
    assert_eq!(opened.count(), MAX_CHANNELS);

    // Rejects that the peer does not read.
    let mut mux = Mux::new();
    let ends = (0..1 << 20).find(|_| receive(&mut mux, &control_open(0, "p", &[])).is_err()).unwrap();
    assert!(ends <= MAX_CHANNELS);
}

#[test]
fn second_open_of_channel_is_refused() {
    let mut mux = Mux::new();
    let x = opened(&mut mux, b"");
    for names in [NAMES, &["hypercore"], &["hypercore/alpha"]] {
        assert_eq!(mux.open(names, &ID, &[]).unwrap_err().kind(), ErrorKind::InvalidOperation);
    }
    assert_eq!(mux.open(&[], &ID, &[]).unwrap_err().kind(), ErrorKind::BadArgument);
    mux.open(NAMES, &[1], &[]).unwrap();
    mux.close(x).unwrap();
    opened(&mut mux, b"");
}
