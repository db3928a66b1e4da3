//! Three and more cores: a peer announces the blocks it downloads and clears, and serves what it holds. Also several
//! cores, sessions and extensions on one connection.

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use hypercore::lowlevel::codec::Writer;
use hypercore::lowlevel::replication::Handshake;
use hypercore::lowlevel::wire::mux::Mux;
use hypercore::lowlevel::wire::noise_stream::{Established, NoiseStream};
use hypercore::net::{ConnectionOptions, Role, Server};
use hypercore::{Download, ErrorKind, GetOptions, Hypercore, KeyPair, Memory, SessionOptions};

use crate::cores::{
    Events, ask_for_head, connect, connection, copy_of, disconnect, wait_for_length, wait_for_peer, writer_of,
};
use crate::harness::parallel_test;

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn get_of_block_cleared_by_writer_fetches_it_from_copy() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    writer.append_batch(FIVE).unwrap();
    copy.download(Download::range(0..5)).unwrap().wait().unwrap();
    writer.clear(1..2).unwrap();
    assert!(!writer.has(1).unwrap() && copy.has(1).unwrap());
    assert_eq!(writer.get(1).unwrap(), b"b");
    writer.clear(..).unwrap();
    assert!(!writer.has(2).unwrap());
    assert_eq!(writer.get(2).unwrap(), b"c");
}

#[test]
fn block_cleared_by_relay_is_served_after_refetch() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let (middle, last) = (copy_of(&writer), copy_of(&writer));
    connect(&writer, &middle);
    connect(&middle, &last);
    writer.append_batch(["a", "b", "c"]).unwrap();
    middle.download(Download::range(0..3)).unwrap().wait().unwrap();
    wait_for_length(&last, 3);
    middle.clear(1..2).unwrap();
    assert!(writer.has(1).unwrap() && !middle.has(1).unwrap());
    let (tell, waits) = channel();
    thread::scope(|s| {
        let options = GetOptions::new().on_wait(move |_| tell.send(()).unwrap());
        let get = s.spawn(|| last.get_with(1, options));
        waits.recv().unwrap();
        assert_eq!(middle.get(1).unwrap(), b"b");
        assert_eq!(get.join().unwrap().unwrap(), Some(b"b".to_vec()));
    });
}

#[test]
fn clear_of_absent_block_succeeds() {
    let _guard = parallel_test!();
    let dir = tempfile::tempdir().unwrap();
    let writer = Hypercore::open(dir.path().join("log")).unwrap();
    writer.append_batch(["a", "b", "c", "d"]).unwrap();
    let copy = Hypercore::options().key(writer.key()).open(dir.path().join("copy")).unwrap();
    connect(&writer, &copy);
    copy.clear(0..1).unwrap();
    wait_for_length(&copy, 4);
    (0..4).for_each(|i| _ = copy.clear(i..i + 1).unwrap());
    assert_eq!(copy.get(3).unwrap(), b"d");
    copy.clear(0..3).unwrap();
    assert!(copy.has(3).unwrap());
}

#[test]
fn downloaded_block_is_announced_to_other_peers() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let (middle, last) = (copy_of(&writer), copy_of(&writer));
    connect(&writer, &middle);
    connect(&middle, &last);
    // More blocks than one page of the bitfield holds, so that the last ones lie in the second page.
    let count = (1 << 15) + 10;
    writer.append_batch((0..count).map(|i| format!("block-{i}"))).unwrap();
    wait_for_length(&last, count);
    let (tell, waits) = channel();
    thread::scope(|s| {
        let options = GetOptions::new().on_wait(move |_| tell.send(()).unwrap());
        let get = s.spawn(|| last.get_with(count - 1, options));
        waits.recv().unwrap();
        middle.get(count - 1).unwrap();
        assert_eq!(get.join().unwrap().unwrap(), Some(b"block-32777".to_vec()));
    });
    // The relay fetches nothing on behalf of its peers.
    let options = GetOptions::new().timeout(Duration::from_millis(20));
    assert_eq!(last.get_with(count - 2, options).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(!middle.has(count - 2).unwrap());
}

#[test]
fn sparse_copy_serves_blocks_it_holds() {
    let _guard = parallel_test!();
    let writer = writer_of(["a", "b", "c"]);
    let middle = copy_of(&writer);
    let both = connect(&writer, &middle);
    middle.download(Download::range(0..3)).unwrap().wait().unwrap();
    disconnect(&both);
    writer.append_batch(["d", "e", "f", "d"]).unwrap();
    let both = connect(&writer, &middle);
    middle.download(Download::range(4..7)).unwrap().wait().unwrap();
    disconnect(&both);

    let fresh = || {
        let copy = copy_of(&writer);
        connect(&middle, &copy);
        copy
    };
    assert_eq!(fresh().get(4).unwrap(), b"e");
    let copy = fresh();
    copy.download(Download::range(4..6)).unwrap().wait().unwrap();
    assert!(copy.has_range(4..6).unwrap());
    let copy = fresh();
    copy.download(Download::blocks([4, 6])).unwrap().wait().unwrap();
    assert!(copy.has(4).unwrap() && copy.has(6).unwrap());
    let copy = fresh();
    assert!(ask_for_head(&copy));
    assert_eq!(copy.seek(4).unwrap(), (4, 0));
}

#[test]
fn copy_with_longer_head_gets_provable_blocks_of_shorter_copy() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let (shorter, longer) = (copy_of(&writer), copy_of(&writer));
    let both = connect(&writer, &shorter);
    shorter.download(Download::range(2..5)).unwrap().wait().unwrap();
    disconnect(&both);
    writer.append("f").unwrap();
    let both = connect(&writer, &longer);
    wait_for_length(&longer, 6);
    disconnect(&both);
    connect(&shorter, &longer);
    let session = longer.session(SessionOptions::new()).unwrap();
    let (tell, waits) = channel();
    thread::scope(|s| {
        let options = GetOptions::new().on_wait(move |_| tell.send(()).unwrap());
        // The shorter copy lacks block 5, the sibling of block 4 in the longer tree, so it cannot prove block 4: the
        // get waits until its session closes.
        let get = s.spawn(|| session.get_with(4, options));
        waits.recv().unwrap();
        assert_eq!([2, 3].map(|i| longer.get(i).unwrap()), [b"c", b"d"]);
        session.close().unwrap();
        assert_eq!(get.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn connection_carries_cores_that_join_at_any_time() {
    let _guard = parallel_test!();
    let (one, other) = (Hypercore::in_memory().unwrap(), Hypercore::in_memory().unwrap());
    let (copy_of_one, copy_of_other) = (copy_of(&one), copy_of(&other));
    let (ours, theirs) = connection();
    one.replicate_on(&ours).unwrap();
    copy_of_one.replicate_on(&theirs).unwrap();
    one.append("hi").unwrap();
    assert_eq!(copy_of_one.get(0).unwrap(), b"hi");

    // One side joins first. The other rejects its channel, and accepts it when it joins later.
    other.append("ho").unwrap();
    other.replicate_on(&ours).unwrap();
    copy_of_other.replicate_on(&theirs).unwrap();
    wait_for_peer(&copy_of_other);
    assert_eq!(copy_of_other.peers().len(), 1);
    assert_eq!(copy_of_other.get(0).unwrap(), b"ho");
    assert_eq!(ours.remote_public_key().is_some(), theirs.remote_public_key().is_some());
    ours.close();
    theirs.wait().unwrap();
    assert!(copy_of_one.readable() && copy_of_other.readable());
}

#[test]
fn server_serves_core_whose_channel_peer_opens() {
    let _guard = parallel_test!();
    let (one, other) = (writer_of(["hi"]), writer_of(["ho"]));
    let stranger = writer_of(["not here"]);
    let server = Server::listen("127.0.0.1:0", [one.clone(), other.clone()]).unwrap();
    let stream = std::net::TcpStream::connect(server.local_addr()).unwrap();
    let line = hypercore::net::Connection::open(stream, Role::Initiator, ConnectionOptions::new()).unwrap();
    let copies = [&one, &other, &stranger].map(|core| {
        let copy = copy_of(core);
        copy.replicate_on(&line).unwrap();
        copy
    });
    assert_eq!(copies[0].get(0).unwrap(), b"hi");
    assert_eq!(copies[1].get(0).unwrap(), b"ho");
    assert!(copies[2].peers().is_empty() && !line.is_closed());
    server.close();
    line.wait().unwrap_or(());
}

#[test]
fn session_keeps_core_replicating_after_first_handle_closes() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let both = connect(&writer, &copy);
    let session = writer.session(SessionOptions::new()).unwrap();
    writer.close().unwrap();
    assert_eq!(copy.get(2).unwrap(), b"c");
    assert!(!both.0.connection().is_closed());
    session.close().unwrap();
    both.1.wait().unwrap_or(());
    assert!(copy.peers().is_empty());
    assert_eq!(copy.get(2).unwrap(), b"c");
}

#[test]
fn core_closes_with_last_session_after_connections_end() {
    let _guard = parallel_test!();
    let writer = writer_of(["a"]);
    let copies = [copy_of(&writer), copy_of(&writer)];
    let lines = copies.each_ref().map(|copy| connect(&writer, copy));
    let sessions = [&writer, &copies[0], &copies[1]].map(|core| core.session(SessionOptions::new()).unwrap());
    let closed = sessions.each_ref().map(|s| Events::new(|tell| s.on_close(move || tell.send(()).unwrap_or(()))));
    copies.iter().for_each(|copy| assert_eq!(copy.get(0).unwrap(), b"a"));
    lines.iter().for_each(disconnect);
    assert!(writer.peers().is_empty() && copies[0].peers().is_empty());
    writer.close().unwrap();
    copies.iter().for_each(|copy| copy.close().unwrap());
    for (session, events) in sessions.iter().zip(&closed) {
        assert_eq!(session.get(0).unwrap(), b"a");
        session.close().unwrap();
        events.next();
    }
}

#[test]
fn extension_message_reaches_peer_that_registered_it() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    let (tell, heard) = channel();
    let told = tell.clone();
    let _known = writer
        .register_extension("known", move |message, peer| told.send((message.to_vec(), peer.id())).unwrap())
        .unwrap();
    let (known, unknown) =
        (copy.register_extension("known", |_, _| ()).unwrap(), copy.register_extension("unknown", |_, _| ()).unwrap());
    assert_eq!(known.name(), "known");
    connect(&writer, &copy);
    wait_for_peer(&copy);
    let peer = copy.peers()[0].clone();
    unknown.send(b"lost", &peer).unwrap();
    known.send(b"hello", &peer).unwrap();
    known.broadcast(b"world").unwrap();
    let first = heard.recv().unwrap();
    assert_eq!(first.0, b"hello");
    assert_eq!((heard.recv().unwrap().0, writer.peers()[0].id()), (b"world".to_vec(), first.1));

    // Registered from now on: messages sent later arrive, those sent before were dropped.
    let _late = writer.register_extension("unknown", move |message, _| tell.send((message.to_vec(), 0)).unwrap());
    unknown.send(b"found", &peer).unwrap();
    assert_eq!(heard.recv().unwrap().0, b"found");
    drop(known);
    unknown.broadcast(b"end").unwrap();
    assert_eq!(heard.recv().unwrap().0, b"end");
    assert!(heard.try_recv().is_err());
}

#[test]
fn copy_of_another_core_gets_no_peer() {
    let _guard = parallel_test!();
    let (writer, stranger) = (writer_of(["mine"]), writer_of(["theirs"]));
    let other = Hypercore::options().key(stranger.key()).open_in(Memory::new()).unwrap();
    connect(&writer, &other);
    let options = GetOptions::new().timeout(Duration::from_millis(20));
    assert_eq!(other.get_with(0, options).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(writer.peers().is_empty() && other.peers().is_empty());
}

/// The peer knows the discovery key of the core, but not its key.
#[test]
fn peer_without_key_is_refused() {
    let _guard = parallel_test!();
    let writer = writer_of(["for readers"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut line = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let replication = writer.replicate(listener.accept().unwrap().0, Role::Responder).unwrap();

    let mut channel = NoiseStream::new(Role::Initiator, &KeyPair::from_seed(&[1; 32])).unwrap();
    line.write_all(&channel.take_output()).unwrap();
    let mut bytes = [0; 4096];
    while !channel.advance().unwrap() {
        let n = line.read(&mut bytes).unwrap();
        channel.feed(&bytes[..n]);
    }
    let Established { mut sender, mut output, .. } = channel.split().unwrap();
    let mut handshake = Writer::new();
    Handshake { seeks: true, capability: [7; 32] }.encode(&mut handshake);
    let mut mux = Mux::new();
    mux.open(&["hypercore/alpha"], writer.discovery_key().as_bytes(), handshake.as_slice()).unwrap();
    while let Some(frame) = mux.take() {
        sender.seal(&mut output, |w| _ = w.bytes(&frame)).unwrap();
    }
    line.write_all(&output).unwrap();
    assert_eq!(replication.wait().unwrap_err().kind(), ErrorKind::Protocol);
    assert!(writer.peers().is_empty());
}
