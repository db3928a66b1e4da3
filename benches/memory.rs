//! How much memory does it take to clone a log of a gigabyte, and to serve a hundred idle cores?
//! Parts: `clone idle`.

#![allow(clippy::print_stdout)]

mod common;

use std::net::TcpStream;

use common::{block, child, dir, filled, open, plain, process, size, title};
use hypercore::net::{Role, Server};
use hypercore::{Download, Durability, Hypercore};

fn main() {
    match common::role().as_deref() {
        Some("clone") => return clone(),
        Some("idle") => return idle(),
        _ => {}
    }
    if common::chosen("clone") {
        let count = size(16_384, 16);
        title(&format!("clone: {count} blocks of 65536 bytes over loopback TCP"));
        let dir = dir();
        filled(dir.path(), count, 64 << 10);
        let core = open(dir.path());
        let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
        let said = child("clone", &[core.key().to_string(), server.local_addr().to_string(), count.to_string()]);
        plain("most memory of the client, of at most 12 MB", &process::bytes(said.trim().parse().ok()));
    }
    if common::chosen("idle") {
        let (cores, connections) = (100, 10);
        title(&format!("a server of {cores} cores with {connections} connections"));
        let said = child("idle", &[cores.to_string(), connections.to_string()]);
        plain("most memory, the clients' part included", &process::bytes(said.trim().parse().ok()));
    }
}

/// The child process: downloads all blocks, and prints its peak memory.
fn clone() {
    let arguments: Vec<String> = std::env::args().collect();
    let [.., key, address, count] = arguments.as_slice() else { panic!("three arguments") };
    let count = count.parse().unwrap();
    let dir = dir();
    let options = Hypercore::options().key(key.parse().unwrap()).durability(Durability::None);
    let copy = options.open(dir.path()).unwrap();
    let download = copy.download(Download::range(0..count)).unwrap();
    let _replication = copy.replicate(TcpStream::connect(address).unwrap(), Role::Initiator).unwrap();
    download.wait().unwrap();
    assert_eq!(copy.contiguous_length().unwrap(), count);
    say_peak();
}

/// The child process: opens the cores, serves them, and connects copies in memory to them, one connection after
/// the other.
fn idle() {
    let arguments: Vec<String> = std::env::args().collect();
    let [.., cores, connections] = arguments.as_slice() else { panic!("two arguments") };
    let [cores, connections] = [cores, connections].map(|n| n.parse::<usize>().unwrap());
    let dir = dir();
    let cores: Vec<Hypercore> = (0..cores).map(|i| open(dir.path().join(i.to_string()))).collect();
    cores.iter().for_each(|core| _ = core.append_batch(vec![block(100); 100]).unwrap());
    let server = Server::listen("127.0.0.1:0", cores.clone()).unwrap();
    let copies: Vec<_> = (0..connections)
        .map(|i| {
            let core = &cores[i];
            let copy = Hypercore::options().key(core.key()).open_in(hypercore::Memory::new()).unwrap();
            let replication =
                copy.replicate(TcpStream::connect(server.local_addr()).unwrap(), Role::Initiator).unwrap();
            assert_eq!(copy.get(7).unwrap(), core.get(7).unwrap());
            (copy, replication)
        })
        .collect();
    assert_eq!(server.connections().len(), copies.len());
    say_peak();
}

fn say_peak() {
    println!("{}", process::peak().map_or(String::new(), |n| n.to_string()));
}
