//! Each message, malformed, too long, out of order or repeated, at every stage of a connection: it ends at
//! most the connection.

use hypercore::lowlevel::codec::Writer;
use hypercore::lowlevel::replication::Message;
use hypercore::lowlevel::wire::noise::Role;
use hypercore::net::{Connection, ConnectionOptions};
use hypercore::{Download, ErrorKind, Hypercore};

use crate::common::machine::{SLOW, one_in};
use crate::cores::{block, connect, copy_of, tcp, writer};
use crate::harness::exclusive_test;
use crate::messages;
use crate::raw_peer::{RawPeer, Received};

/// The stage of the connection at which the message arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    BeforeAnyChannel,
    BeforeTheAnswer,
    Opened,
    Synced,
    Closed,
}

const STAGES: [Stage; 5] =
    [Stage::BeforeAnyChannel, Stage::BeforeTheAnswer, Stage::Opened, Stage::Synced, Stage::Closed];

/// Ways to spoil a message: a name, and the payloads that are sent one after the other.
fn forms(good: &[u8]) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("unchanged", vec![good.to_vec()]),
        ("repeated", vec![good.to_vec(); 3]),
        ("cut short", vec![good[..good.len() / 2].to_vec()]),
        ("empty", vec![Vec::new()]),
        ("too long", vec![[good, &[0xff; 5000]].concat()]),
        ("with huge numbers", vec![vec![0xff; good.len() + 9]]),
        ("reversed behind large numbers", vec![[good, &[0xfe; 9]].concat().iter().rev().copied().collect()]),
    ]
}

/// Sends `payloads` to `core` at this stage and shuts the stream down; returns how the connection ended on
/// the core's side.
fn send_at(core: &Hypercore, stage: Stage, kind: u64, payloads: &[Vec<u8>]) -> Result<(), hypercore::Error> {
    let (here, there) = tcp();
    let connection = Connection::open(here, Role::Responder, ConnectionOptions::default()).unwrap();
    core.replicate_on(&connection).unwrap();
    let mut raw = RawPeer::new(there, Role::Initiator);
    if stage != Stage::BeforeAnyChannel {
        let channel = raw.sender.open(&core.key());
        if stage != Stage::BeforeTheAnswer {
            raw.receive_until(|heard| matches!(heard, Received::Opened(opened) if opened == channel).then_some(()))
                .unwrap();
        }
        if stage == Stage::Synced {
            raw.sender.send(channel, &messages::samples()[0].1);
        }
        if stage == Stage::Closed {
            raw.sender.close(channel);
        }
    }
    for payload in payloads {
        let mut frame = Writer::new();
        // The number of the first channel.
        frame.uint(1).uint(kind).bytes(payload);
        raw.sender.send_frame(frame.as_slice());
    }
    raw.sender.shut_down();
    connection.wait()
}

#[test]
fn malformed_message_ends_only_its_connection() {
    let _guard = exclusive_test!();
    let core = writer(20);
    let reader = copy_of(&core);
    // Keeps the reader waiting for blocks the whole time.
    let wanted = reader.download(Download::range(0..20)).unwrap();
    let (mut sent, mut refused) = (0, 0);
    let stages = if SLOW { &STAGES[2..4] } else { &STAGES[..] };
    for &stage in stages {
        for (name, message) in messages::samples() {
            let mut w = Writer::new();
            message.encode(&mut w);
            for (form, payloads) in forms(w.as_slice()).into_iter().skip(sent % one_in(2)).step_by(one_in(2)) {
                for attacked in [&core, &reader] {
                    let outcome = send_at(attacked, stage, message.kind(), &payloads);
                    sent += 1;
                    let Err(error) = outcome else { continue };
                    refused += usize::from(error.kind() == ErrorKind::Protocol);
                    // The kind of a connection whose thread panicked.
                    assert_ne!(error.kind(), ErrorKind::Failed, "{name} {form}, {stage:?}: {error}");
                }
            }
        }
        // An unknown message type.
        assert!(Message::decode(10, &[]).unwrap().is_none());
        send_at(&core, stage, 10, &[vec![1; 100]]).unwrap_or_else(|e| assert_ne!(e.kind(), ErrorKind::Failed));
    }
    assert!(
        sent > 190 * stages.len() / one_in(3) && refused > 20 * stages.len() / one_in(3),
        "{refused} of {sent} were refused"
    );
    // No message was believed or stored, and an honest peer still completes the download.
    assert_eq!((core.len(), core.fork()), (20, 0));
    assert_eq!((reader.len(), reader.fork()), (0, 0));
    let lines = connect(&reader, &core);
    wanted.wait().unwrap();
    assert!((0..20).all(|index| reader.get(index).unwrap() == block(index)));
    assert_eq!(reader.verify().unwrap().faults, []);
    drop(lines);
}
