//! Peers that send more than they should, or read less: memory stays bounded, and other peers are served.

use std::thread;
use std::time::Duration;

use hypercore::lowlevel::merkle::{self, Proof, SeekRequest, UpgradeRequest};
use hypercore::lowlevel::replication::{Bitfield, Data, Extension, Handshake, Message, Range, Span};
use hypercore::lowlevel::wire::frame;
use hypercore::lowlevel::wire::mux::ChannelId;
use hypercore::net::ConnectionOptions;
use hypercore::{Download, ErrorKind, GetOptions, Hypercore};

use super::{MIB, ProcessMemory, assert_still_serves, of_block, request, sync};
use crate::common::machine::{SLOW, one_in};
use crate::cores::{block, connect, copy_of, wait_for_length, writer};
use crate::harness::isolated_test;
use crate::raw_peer::{RawSender, Received, with_raw_peer};

#[test]
fn peer_not_reading_responses_costs_memory_of_one_frame() {
    let Some(_guard) = isolated_test!() else { return };
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..64).map(|i| vec![i as u8; MIB])).unwrap();
    let options = ConnectionOptions::new().idle_timeout(Duration::from_millis(500));
    let (connection, raw, channel) = with_raw_peer(&core, options);
    let memory = ProcessMemory::now();
    for id in 1..=4096 {
        let message = request(id, of_block(id % 64));
        raw.sender.queue(channel, message.kind(), |w| message.encode(w));
    }
    raw.sender.flush();
    let error = connection.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    memory.assert_below(24 * MIB);
    assert!(core.peers().is_empty());
}

#[test]
fn message_floods_cost_bounded_memory() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let extension = Extension { name: "unknown".into(), message: vec![1; 1000] };
    type Make = Box<dyn Fn(u64) -> Message>;
    let floods: Vec<(&str, Make)> = vec![
        ("syncs", Box::new(|i| sync(1 + i))),
        ("requests", Box::new(|i| request(i + 1, of_block(i % 10)))),
        ("requests of one number", Box::new(|i| request(1, of_block(i % 10)))),
        ("requests of blocks beyond the end", Box::new(|i| request(i + 1, of_block(i << 30)))),
        ("cancels", Box::new(Message::Cancel)),
        ("wants", Box::new(|i| Message::Want(Span { start: i << 21, length: 1 << 40 }))),
        ("unwants", Box::new(|i| Message::Unwant(Span { start: i, length: 1 << 40 }))),
        ("ranges", Box::new(|i| Message::Range(Range { drop: i % 2 == 1, start: i * 3, length: 1 }))),
        ("huge ranges", Box::new(|i| Message::Range(Range { drop: i % 3 == 1, start: i * 1001, length: 1 << 40 }))),
        ("bitfields", Box::new(|i| Message::Bitfield(Bitfield { start: i << 21, words: vec![0x5555_5555; 256] }))),
        ("extensions", Box::new(move |_| Message::Extension(extension.clone()))),
        ("answers", Box::new(|_| Message::Data(Box::default()))),
        ("refusals", Box::new(Message::NoData)),
        ("lengths", Box::new(|i| sync((1 << 50) + i))),
    ];
    for (what, make) in floods {
        let (connection, mut raw, channel) = with_raw_peer(&core, ConnectionOptions::default());
        let sender = raw.sender.clone();
        // The peer reads, so replies to it do not pile up.
        let reading = thread::spawn(move || while raw.receive().is_some() {});
        let memory = ProcessMemory::now();
        sender.send(channel, &sync(5));
        for i in 0..60_000 / one_in(4) as u64 {
            let message = make(i);
            sender.queue(channel, message.kind(), |w| message.encode(w));
            if i % 200 == 199 && !sender.flush() {
                break;
            }
        }
        assert_still_serves(&core);
        memory.assert_below_for(48 * MIB, what);
        sender.shut_down();
        connection.close();
        reading.join().unwrap();
    }
    assert_still_serves(&core);
}

/// A frame of 16 MiB holds millions of messages, each of which makes us send or store something larger.
#[test]
fn million_messages_in_one_frame_cost_bounded_memory() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let name = "x".repeat(1000);
    let extension = |i: u64| {
        let name = if i == 0 { name.clone() } else { String::new() };
        Message::Extension(Extension { name, message: Vec::new() })
    };
    let frames: [(&str, &dyn Fn(u64) -> Message); 3] = [
        ("messages of one extension", &extension),
        ("lengths that have to be answered", &|i| sync(1 + i % 2)),
        ("requests", &|i| request(i % 4000 + 1, of_block(i % 10))),
    ];
    for (what, make) in frames {
        let (connection, mut raw, channel) = with_raw_peer(&core, ConnectionOptions::default());
        let sender = raw.sender.clone();
        let reading = thread::spawn(move || while raw.receive().is_some() {});
        let memory = ProcessMemory::now();
        sender.send_in_one_frame(channel, (0..1_000_000 / one_in(4) as u64).map(make));
        assert_still_serves(&core);
        sender.shut_down();
        _ = connection.wait();
        connection.close();
        reading.join().unwrap();
        memory.assert_below_for(128 * MIB, what);
    }
    assert_still_serves(&core);
}

/// The peer provokes replies and does not read them.
#[test]
fn unread_replies_cost_bounded_memory() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let (connection, raw, channel) = with_raw_peer(&core, ConnectionOptions::default());
    let memory = ProcessMemory::now();
    for i in 0..3_000_000 / one_in(4) as u64 {
        let message = sync(20 + i % 7);
        raw.sender.queue(channel, message.kind(), |w| message.encode(w));
        if i % 4000 == 3999 && !raw.sender.flush() {
            break;
        }
    }
    memory.assert_below(96 * MIB);
    raw.sender.shut_down();
    _ = connection.wait();
    assert_still_serves(&core);
}

#[test]
fn invalid_frames_end_connection_with_protocol_error() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let memory = ProcessMemory::now();
    let end = |what: &str, attack: &dyn Fn(&RawSender, ChannelId)| {
        let (connection, raw, channel) = with_raw_peer(&core, ConnectionOptions::default());
        attack(&raw.sender, channel);
        let error = connection.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
        raw.wait_for_end();
    };
    end("a frame of 16 MiB that is announced", &|sender, _| {
        sender.send_bytes(&frame::prefix(frame::MAX));
        sender.send_bytes(&[0; 100]);
        // The rest of the frame never comes.
        sender.shut_down();
    });
    end("bytes that are not encrypted", &|sender, _| {
        sender.send_bytes(&[20, 0, 0]);
        sender.send_bytes(&[7; 20]);
    });
    end("a message that is none", &|sender, channel| _ = sender.send_payload(channel, 1, |w| _ = w.bytes(&[255; 3])));
    end("a batch cut short", &|sender, _| _ = sender.send_frame(&[0, 0, 1, 200, 1]));
    let other = writer(1).key();
    end("the wrong key", &|sender, channel| {
        sender.close(channel);
        sender.open_with(&core.key(), Handshake { seeks: true, capability: [1; 32] });
    });
    end("the key of another core", &|sender, channel| {
        sender.close(channel);
        let wrong = hypercore::lowlevel::crypto::hash::capability(true, other.as_bytes(), &[0; 64]);
        sender.open_with(&core.key(), Handshake { seeks: false, capability: wrong });
    });
    end("an answer to nothing", &|sender, channel| {
        sender.send(channel, &Message::Data(Box::new(Data { request: 77, proof: Proof::default() })));
    });
    memory.assert_below(64 * MIB);
    assert_still_serves(&core);
}

/// Channels of unknown cores are rejected one by one, and nothing of them is kept.
#[test]
fn unknown_channels_cost_no_memory() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let (connection, raw, _) = with_raw_peer(&core, ConnectionOptions::default());
    let memory = ProcessMemory::now();
    for id in 0..if SLOW { 30_000 } else { 60_000u16 } {
        // An open message of 1000 bytes: channel 0, type, number, protocol, id and handshake.
        let mut open = vec![0, 1, 0xfd];
        open.extend((2 + id).to_le_bytes());
        open.extend([1, b'x', 32]);
        open.extend([id as u8; 32]);
        open.resize(1000, 0);
        assert!(raw.sender.send_frame(&open));
    }
    assert_still_serves(&core);
    memory.assert_below(24 * MIB);
    raw.sender.shut_down();
    _ = connection.wait();
}

/// The peer announces 2^50 blocks and serves none.
#[test]
fn claim_of_two_to_power_50_blocks_costs_no_memory() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let copy = copy_of(&core);
    let (connection, mut raw, channel) = with_raw_peer(&copy, ConnectionOptions::default());
    let memory = ProcessMemory::now();
    raw.sender.send(channel, &sync(1 << 50));
    raw.sender.send(channel, &Message::Range(Range { drop: false, start: 0, length: 1 << 50 }));
    // The peer ignores our request for its head, and requests everything itself.
    raw.receive_until(|heard| matches!(heard, Received::Message(Message::Request(_))).then_some(())).unwrap();
    raw.sender.send(channel, &Message::Want(Span { start: 0, length: 1 << 50 }));
    let upgrade = Some(UpgradeRequest { start: 0, length: 1 << 50 });
    let seek = Some(SeekRequest { bytes: 1 << 52, padding: 0 });
    raw.sender.send(channel, &request(1, merkle::Request { upgrade, seek, ..of_block(1 << 50) }));
    let download = copy.download(Download::all()).unwrap();
    let listed = copy.download(Download::range(0..1 << 50)).unwrap();
    let timeout = GetOptions::new().timeout(Duration::from_millis(50));
    assert_eq!(copy.get_with(1 << 49, timeout).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(copy.len(), 0);
    let _connected = connect(&copy, &core);
    wait_for_length(&copy, 10);
    assert_eq!(copy.get(9).unwrap(), block(9));
    listed.cancel();
    download.cancel();
    memory.assert_below(32 * MIB);
    connection.close();
}

#[test]
fn channel_reopened_repeatedly_costs_no_memory() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let (connection, mut raw, mut channel) = with_raw_peer(&core, ConnectionOptions::default());
    let memory = ProcessMemory::now();
    for _ in 0..500 {
        raw.sender.close(channel);
        channel = raw.sender.open(&core.key());
        let opened = raw.receive_until(|heard| matches!(heard, Received::Opened(it) if it == channel).then_some(()));
        opened.unwrap();
    }
    assert!(core.peers().len() <= 1);
    memory.assert_below(16 * MIB);
    assert_still_serves(&core);
    connection.close();
}
