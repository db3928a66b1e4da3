//! Peers that stop sending: in the handshake, after it, or when they owe an answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use hypercore::lowlevel::replication::Message;
use hypercore::net::{Connection, ConnectionOptions, Role, Server, ServerOptions};
use hypercore::{ErrorKind, UpdateOptions};

use super::sync;
use crate::cores::{Events, block, copy_of, tcp, writer};
use crate::harness::parallel_test;
use crate::raw_peer::{Received, with_raw_peer};

#[test]
fn peer_silent_in_handshake_times_out() {
    let _guard = parallel_test!();
    let options = ConnectionOptions::new().handshake_timeout(Duration::from_millis(100));
    for role in [Role::Initiator, Role::Responder] {
        for half in [&[][..], &[32][..], &[32, 0, 0, 9, 9, 9][..]] {
            let (a, mut b) = tcp();
            let connection = Connection::open(a, role, options.clone()).unwrap();
            b.write_all(half).unwrap();
            assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
            connection.close();
        }
    }
    // Single bytes do not prolong the deadline.
    let (a, mut b) = tcp();
    let connection = Connection::open(a, Role::Responder, options).unwrap();
    let dripping = thread::spawn(move || {
        b.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        b.write_all(&[49, 0, 0]).unwrap();
        while b.write_all(&[0]).is_ok() && !matches!(b.read(&mut [0]), Ok(0)) {}
    });
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
    dripping.join().unwrap();
}

#[test]
fn silent_peer_times_out_and_keep_alives_prevent_it() {
    let _guard = parallel_test!();
    let core = writer(1);
    let every = Duration::from_millis(40);
    let options = ConnectionOptions::new().keep_alive(every).idle_timeout(Duration::from_millis(400));
    let began = Instant::now();
    let (connection, raw, _) = with_raw_peer(&core, options.clone());
    let sent = connection.counters().sent;
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() >= Duration::from_millis(400));
    // A keep-alive is an empty message of 20 bytes.
    let alive = (connection.counters().sent - sent) / 20;
    // A few other short messages may be sent, and the connection may live longer on a busy machine.
    let most = began.elapsed().as_millis() as u64 / 40 + 20;
    assert!((3..=most).contains(&alive), "{alive} keep-alives");
    raw.wait_for_end();

    // A peer that sends only keep-alives stays connected.
    let (connection, raw, _) = with_raw_peer(&core, options);
    for _ in 0..12 {
        assert!(raw.sender.send_frame(&[]));
        assert_eq!(connection.wait_timeout(Duration::from_millis(60)).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(!connection.is_closed());
    }
    connection.close();
}

/// A peer that owes us its head keeps an update waiting until it leaves.
#[test]
fn update_ends_when_asked_peer_leaves() {
    let _guard = parallel_test!();
    let copy = copy_of(&writer(3));
    let added = Events::new(|tell| copy.on_peer_add(move |_| tell.send(()).unwrap()));
    let (connection, mut raw, channel) = with_raw_peer(&copy, ConnectionOptions::default());
    added.next();
    raw.sender.send(channel, &sync(3));
    // It ignores the request for the head that it announced.
    raw.receive_until(|heard| matches!(heard, Received::Message(Message::Request(_))).then_some(())).unwrap();
    let update = |options: UpdateOptions| copy.update_with(options.wait(true));
    let timeout = UpdateOptions::new().timeout(Duration::from_millis(50));
    assert_eq!(update(timeout).unwrap_err().kind(), ErrorKind::Timeout);
    thread::scope(|s| {
        let updating = s.spawn(|| update(UpdateOptions::new()).unwrap());
        raw.sender.shut_down();
        assert!(!updating.join().unwrap());
    });
    connection.close();
}

/// Silent connections fill the server until they time out. Then there is room for others.
#[test]
fn server_full_of_silent_peers_accepts_again_after_timeout() {
    let _guard = parallel_test!();
    let core = writer(1);
    let connections = ConnectionOptions::new().handshake_timeout(Duration::from_millis(200));
    let options = ServerOptions::new().connection(connections).max_connections(4);
    let server = Server::listen_with("127.0.0.1:0", [core.clone()], options).unwrap();
    let mut silent: Vec<_> = (0..4).map(|_| TcpStream::connect(server.local_addr()).unwrap()).collect();
    let mut turned_away = TcpStream::connect(server.local_addr()).unwrap();
    assert!(matches!(turned_away.read(&mut [0]), Ok(0) | Err(_)));
    for stream in &mut silent {
        // Each silent connection times out by its own deadline.
        let mut rest = Vec::new();
        _ = stream.read_to_end(&mut rest);
    }
    for connection in server.connections() {
        _ = connection.wait();
    }
    let copy = copy_of(&core);
    let _replication = copy.replicate(TcpStream::connect(server.local_addr()).unwrap(), Role::Initiator).unwrap();
    assert_eq!(copy.get(0).unwrap(), block(0));
}
