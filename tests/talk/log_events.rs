//! Events that the library writes to the `log` crate.

use std::net::TcpStream;
use std::sync::{Mutex, Once};

use hypercore::net::{Role, Server, ServerOptions};

use crate::cores::{copy_of, writer};
use crate::harness::parallel_test;

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "hypercore"
    }
    fn log(&self, record: &log::Record<'_>) {
        EVENTS.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
    }
    fn flush(&self) {}
}

/// The events so far that name `address`. The other tests of this process write events as well.
fn events_of(address: &str) -> Vec<String> {
    let names = |event: &&String| event.split(' ').any(|word| word.trim_end_matches(':') == address);
    EVENTS.lock().unwrap().iter().filter(names).cloned().collect()
}

fn collect_events() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
    });
}

#[test]
fn connection_writes_events_when_it_opens_and_closes() {
    let _guard = parallel_test!();
    collect_events();
    let core = writer(3);
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let copy = copy_of(&core);
    let address = server.local_addr().to_string();
    let replication = copy.replicate(TcpStream::connect(&address).unwrap(), Role::Initiator).unwrap();
    copy.get(2).unwrap();
    let key = replication.remote_public_key().unwrap();
    assert_eq!(events_of(&address), [format!("DEBUG connection to {address} ({key}): handshake done")]);
    replication.close();
    assert_eq!(events_of(&address)[1..], [format!("DEBUG connection to {address} ({key}): closed")]);
}

#[test]
fn full_server_writes_event_about_refused_connection() {
    let _guard = parallel_test!();
    collect_events();
    let options = ServerOptions::new().max_connections(0);
    let server = Server::listen_with("127.0.0.1:0", [writer(1)], options).unwrap();
    let stream = TcpStream::connect(server.local_addr()).unwrap();
    let ours = stream.local_addr().unwrap().to_string();
    // The server closes the stream after it has written the event.
    let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    let refused = format!("WARN connection from {ours}: refused, because 0 connections are open already");
    assert_eq!(events_of(&ours), [refused]);
}
