//! Messages and events that pile up behind slow handlers and slow peers are bounded.

use std::sync::Arc;
use std::thread;

use hypercore::ErrorKind;
use hypercore::lowlevel::replication::{Extension, Message};
use hypercore::net::ConnectionOptions;

use super::{MIB, ProcessMemory, assert_still_serves, of_block, request};
use crate::common::Gate;
use crate::common::machine::{SLOW, one_in};
use crate::cores::{Events, block, connect, copy_of, tcp, writer};
use crate::harness::isolated_test;
use crate::raw_peer::{Received, gated_stream, with_raw_peer, with_raw_peer_over};

#[test]
fn unhandled_extension_messages_are_bounded() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(1);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.register_extension("slow", move |_, _| _ = held.lock().unwrap().recv()).unwrap();
    let (connection, raw, channel) = with_raw_peer(&core, ConnectionOptions::default());
    let memory = ProcessMemory::now();
    let message = Message::Extension(Extension { name: "slow".into(), message: vec![3; MIB] });
    for _ in 0..200 {
        if !raw.sender.send(channel, &message) {
            break;
        }
    }
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Protocol);
    memory.assert_below(96 * MIB);
    drop((release, slow));
    assert_still_serves(&core);
}

/// The peer also closes its channel and opens it again, which does not raise the bound.
#[test]
fn extension_messages_of_reconnecting_peer_are_bounded() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(1);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.register_extension("slow", move |_, _| _ = held.lock().unwrap().recv()).unwrap();
    let memory = ProcessMemory::now();
    let message = Message::Extension(Extension { name: "slow".into(), message: vec![3; MIB] });
    for _ in 0..if SLOW { 3 } else { 8 } {
        let (connection, raw, mut channel) = with_raw_peer(&core, ConnectionOptions::default());
        for i in 0..100 {
            if i % 10 == 9 {
                raw.sender.close(channel);
                channel = raw.sender.open(&core.key());
            }
            if !raw.sender.send(channel, &message) {
                break;
            }
        }
        assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Protocol);
    }
    memory.assert_below(256 * MIB);
    drop((release, slow));
    assert_still_serves(&core);
}

/// Messages to a peer that does not read are refused from a bound on. Other peers get theirs.
#[test]
fn own_extension_messages_to_slow_peer_are_bounded() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(1);
    let ours = core.register_extension("much", |_, _| ()).unwrap();
    let (a, b) = tcp();
    let gate = Arc::new(Gate::default());
    let halves = gated_stream(&gate, a.try_clone().unwrap(), a);
    let (connection, raw, _) = with_raw_peer_over(halves, b, &core, ConnectionOptions::default());
    let slow = core.peers().pop().unwrap();
    gate.shut();
    ours.send(b"being written", &slow).unwrap();
    gate.wait_for(1);
    let memory = ProcessMemory::now();
    let message = vec![3; MIB];
    let sent = (0..200).take_while(|_| ours.send(&message, &slow).is_ok()).count();
    assert_eq!(sent, 16);
    assert_eq!(ours.send(b"more", &slow).unwrap_err().kind(), ErrorKind::InvalidOperation);
    memory.assert_below(64 * MIB);

    // A second peer reads.
    let copy = copy_of(&core);
    let (tell, told) = std::sync::mpsc::channel();
    let _theirs = copy.register_extension("much", move |message, _| _ = tell.send(message.to_vec())).unwrap();
    let joined = Events::new(|tell| core.on_peer_add(move |_| _ = tell.send(())));
    let (theirs, _ours) = connect(&copy, &core);
    joined.next();
    assert_eq!(ours.broadcast(b"to all").unwrap_err().kind(), ErrorKind::InvalidOperation);
    assert_eq!(told.recv().unwrap(), b"to all");
    theirs.close();

    // When the slow peer has read, it is sent more. Its connection stays open throughout.
    gate.open();
    let (tell, told) = std::sync::mpsc::channel();
    let mut raw = raw;
    let reading = thread::spawn(move || {
        while let Some(heard) = raw.receive() {
            if let Received::Message(Message::Extension(extension)) = heard {
                tell.send(extension.message.len()).unwrap();
            }
        }
    });
    assert_eq!(told.recv().unwrap(), "being written".len());
    (0..sent).for_each(|_| assert_eq!(told.recv().unwrap(), MIB));
    ours.send(b"more", &slow).unwrap();
    assert_eq!(told.recv().unwrap(), 4);
    connection.close();
    reading.join().unwrap();
}

/// The peer requests more blocks than the upload callback takes in.
#[test]
fn upload_events_behind_slow_callback_are_bounded() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.on_upload(move |_| _ = held.lock().unwrap().recv());
    let (connection, mut raw, channel) = with_raw_peer(&core, ConnectionOptions::default());
    let memory = ProcessMemory::now();
    let sender = raw.sender.clone();
    for round in 0..200 / one_in(4) as u64 {
        sender.send_in_one_frame(channel, (1..=2000).map(|i| request(round * 2000 + i, of_block(i % 10))));
        let last = round * 2000 + 2000;
        let is_last = |heard| matches!(heard, Received::Message(Message::Data(data)) if data.request == last);
        raw.receive_until(|heard| is_last(heard).then_some(())).unwrap();
    }
    memory.assert_below(48 * MIB);
    // The full queue of one peer does not hold up another.
    assert_still_serves(&core);
    drop((release, slow));
    assert_still_serves(&core);
    connection.close();
}

/// The peer joins and leaves more often than the callback takes in.
#[test]
fn peer_rejoining_faster_than_callbacks_is_closed() {
    let Some(_guard) = isolated_test!() else { return };
    let core = writer(10);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.on_peer_add(move |_| _ = held.lock().unwrap().recv());
    let (connection, mut raw, mut channel) = with_raw_peer(&core, ConnectionOptions::default());
    let memory = ProcessMemory::now();
    let sender = raw.sender.clone();
    let reading = thread::spawn(move || while raw.receive().is_some() {});
    for _ in 0..100_000 {
        sender.close(channel);
        channel = sender.open(&core.key());
        if connection.is_closed() {
            break;
        }
    }
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Protocol);
    reading.join().unwrap();
    memory.assert_below(64 * MIB);
    drop((release, slow));
    // A peer that joins before the queue has drained is closed, too. Events are delivered in order.
    let drained = Events::new(|tell| core.on_append(move || _ = tell.send(())));
    core.append(block(10)).unwrap();
    drained.next();
    assert_still_serves(&core);
}
