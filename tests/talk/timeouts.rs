//! Slow connections and peers that only look slow: what ends by the idle or handshake timeout, and what does not.

use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hypercore::ErrorKind;
use hypercore::lowlevel::replication::{Extension, Message};
use hypercore::lowlevel::wire::frame;
use hypercore::net::{Connection, ConnectionOptions, Halves};

use crate::common::Gate;
use crate::cores::{block, copy_of, tcp, writer};
use crate::harness::parallel_test;
use crate::raw_peer::{gated_stream, with_raw_peer, with_raw_peer_over};

const SHORT: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(5);

/// Calls `often` until the connection is closed, at most `times` times.
fn until_closed(connection: &Connection, times: u32, mut often: impl FnMut()) {
    for _ in 0..times {
        often();
        _ = connection.wait_timeout(TICK);
        if connection.is_closed() {
            break;
        }
    }
}

/// The peer sends a message without end, one byte at a time.
#[test]
fn peer_trickling_one_message_times_out() {
    let _guard = parallel_test!();
    let core = writer(1);
    let began = Instant::now();
    let (connection, raw, _) = with_raw_peer(&core, ConnectionOptions::new().idle_timeout(SHORT));
    raw.sender.send_bytes(&frame::prefix(1 << 20));
    until_closed(&connection, 4000, || _ = raw.sender.send_bytes(&[7]));
    assert!(connection.is_closed());
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() >= SHORT);
    // A connection with a busy writer checks its deadlines, too.
    let ours = core.register_extension("talk", |_, _| ()).unwrap();
    let (connection, mut raw, _) = with_raw_peer(&core, ConnectionOptions::new().idle_timeout(SHORT));
    raw.sender.send_bytes(&frame::prefix(1 << 20));
    let sender = raw.sender.clone();
    let reading = std::thread::spawn(move || while raw.receive().is_some() {});
    until_closed(&connection, 4000, || {
        sender.send_bytes(&[7]);
        (0..100).for_each(|_| _ = ours.broadcast(&[1; 1000]));
    });
    assert!(connection.is_closed());
    reading.join().unwrap();
}

/// The message takes longer than the idle timeout, but keeps making progress.
#[test]
fn long_message_over_slow_connection_arrives() {
    let _guard = parallel_test!();
    let core = writer(1);
    let (tell, told) = std::sync::mpsc::channel();
    let _ours = core.register_extension("long", move |message, _| tell.send(message.len()).unwrap()).unwrap();
    let limit = Duration::from_millis(800);
    let (connection, raw, channel) = with_raw_peer(&core, ConnectionOptions::new().idle_timeout(limit));
    let message = Message::Extension(Extension { name: "long".into(), message: vec![3; 1 << 20] });
    raw.sender.queue(channel, message.kind(), |w| message.encode(w));
    let bytes = raw.sender.take();
    let began = Instant::now();
    for part in bytes.chunks(17 * 1024) {
        assert!(raw.sender.send_bytes(part));
        assert_eq!(connection.wait_timeout(limit / 40).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(!connection.is_closed());
    }
    assert_eq!(told.recv().unwrap(), 1 << 20);
    assert!(began.elapsed() > limit);
    connection.close();
}

/// The peer reads what it is sent one byte at a time.
#[test]
fn peer_reading_single_bytes_times_out() {
    let _guard = parallel_test!();
    let core = writer(1);
    let (a, b) = tcp();
    let drip = Drip::default();
    let (closer, closing) = (a.try_clone().unwrap(), drip.clone());
    let dripping = Dripping { drip: drip.clone(), line: a.try_clone().unwrap() };
    let halves = Halves::new(a, dripping, move || {
        _ = closer.shutdown(std::net::Shutdown::Both);
        closing.set(false);
    });
    let ours = core.register_extension("long", |_, _| ()).unwrap();
    let (connection, raw, _) = with_raw_peer_over(halves, b, &core, ConnectionOptions::new().idle_timeout(SHORT));
    drip.set(true);
    ours.broadcast(&[3; 1 << 20]).unwrap();
    until_closed(&connection, 4000, || _ = raw.sender.send_frame(&[]));
    assert!(connection.is_closed());
    let error = connection.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

/// The writes of this stream have no timeout. The reader thread detects the blocked writer when the
/// peer sends something.
#[test]
fn peer_that_sends_without_reading_times_out() {
    let _guard = parallel_test!();
    let core = writer(1);
    let (a, b) = tcp();
    let gate = Arc::new(Gate::default());
    let halves = gated_stream(&gate, a.try_clone().unwrap(), a);
    let ours = core.register_extension("x", |_, _| ()).unwrap();
    let (connection, raw, _) = with_raw_peer_over(halves, b, &core, ConnectionOptions::new().idle_timeout(SHORT));
    gate.shut();
    ours.broadcast(b"unread").unwrap();
    gate.wait_for(1);
    until_closed(&connection, 4000, || _ = raw.sender.send_frame(&[]));
    assert!(connection.is_closed());
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
}

/// The reads of this stream time out, as a serial line's do. That is no error; the deadlines are checked and the
/// read is repeated.
#[test]
fn timed_out_read_of_stream_is_retried() {
    let _guard = parallel_test!();
    let core = writer(3);
    let (a, b) = tcp();
    let gate = Arc::new(Gate::default());
    let halves = gated_stream(&gate, GivesUp { stream: a.try_clone().unwrap(), times: Arc::default() }, a);
    let given_up = {
        let reader = GivesUp { stream: b.try_clone().unwrap(), times: Arc::default() };
        let times = reader.times.clone();
        let closer = b.try_clone().unwrap();
        let theirs = Halves::new(reader, b, move || _ = closer.shutdown(std::net::Shutdown::Both));
        let copy = copy_of(&core);
        let _replication = copy.replicate(theirs, hypercore::net::Role::Initiator).unwrap();
        let connection = Connection::open(halves, hypercore::net::Role::Responder, ConnectionOptions::new()).unwrap();
        core.replicate_on(&connection).unwrap();
        assert_eq!(copy.get(2).unwrap(), block(2));
        let seen = *times.0.lock().unwrap();
        drop(times.1.wait_while(times.0.lock().unwrap(), |times| *times < seen + 5).unwrap());
        core.append(block(3)).unwrap();
        assert_eq!(copy.get(3).unwrap(), block(3));
        connection.close();
        *times.0.lock().unwrap()
    };
    assert!(given_up >= 5);

    // Nothing arrives, and nothing can be written.
    let (a, b) = tcp();
    let gate = Arc::new(Gate::default());
    let halves = gated_stream(&gate, GivesUp { stream: a.try_clone().unwrap(), times: Arc::default() }, a);
    let (connection, _raw, _) = with_raw_peer_over(halves, b, &core, ConnectionOptions::new().idle_timeout(SHORT));
    gate.shut();
    core.append(block(4)).unwrap();
    gate.wait_for(1);
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);

    // The same during the handshake.
    let (a, _b) = tcp();
    let gate = Arc::new(Gate::default());
    gate.shut();
    let halves = gated_stream(&gate, GivesUp { stream: a.try_clone().unwrap(), times: Arc::default() }, a);
    let options = ConnectionOptions::new().handshake_timeout(SHORT);
    let connection = Connection::open(halves, hypercore::net::Role::Initiator, options).unwrap();
    gate.wait_for(1);
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
}

/// The reference's peers expect it of an idle connection.
#[test]
fn keep_alive_by_default_comes_after_five_seconds() {
    let _guard = parallel_test!();
    let core = writer(1);
    let (connection, mut raw, _) = with_raw_peer(&core, ConnectionOptions::default());
    let silence = raw.wait_for_keep_alive().unwrap();
    assert!((Duration::from_millis(4500)..Duration::from_secs(12)).contains(&silence), "after {silence:?}");
    connection.close();
}

/// A stream whose reads time out after [`TICK`], and which counts the timeouts.
struct GivesUp {
    stream: std::net::TcpStream,
    times: Arc<(Mutex<u32>, Condvar)>,
}

impl Read for GivesUp {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(TICK))?;
        let read = self.stream.read(out);
        if matches!(&read, Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)) {
            *self.times.0.lock().unwrap() += 1;
            self.times.1.notify_all();
            return Err(io::ErrorKind::TimedOut.into());
        }
        read
    }
}

/// Whether a stream accepts only single bytes, each after [`TICK`].
#[derive(Clone, Default)]
struct Drip(Arc<(Mutex<bool>, Condvar)>);

impl Drip {
    fn set(&self, slow: bool) {
        *self.0.0.lock().unwrap() = slow;
        self.0.1.notify_all();
    }
}

struct Dripping {
    drip: Drip,
    line: std::net::TcpStream,
}

impl Write for Dripping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let slow = self.drip.0.0.lock().unwrap();
        let (slow, _) = self.drip.0.1.wait_timeout_while(slow, TICK, |slow| *slow).unwrap();
        let most = if *slow { 1 } else { bytes.len() };
        drop(slow);
        self.line.write(&bytes[..most.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
