//! How fast does replication run? Clones of small and of large blocks with the client's peak memory, the time until
//! a peer hears of an append, many clients at once, and a reader of a few blocks of a huge log.

#![allow(clippy::print_stdout)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::huge::Log;
use common::{Figure, block, child, dir, figure, filled, floor, open, plain, process, rounds, size, span, time, title};
use hypercore::net::{Role, Server};
use hypercore::{Download, Durability, Hypercore, Memory, OpenOptions};

fn main() {
    match common::role().as_deref() {
        Some("clone") => return clone(),
        Some("sparse") => return sparse(),
        _ => {}
    }
    if common::chosen("small") {
        clones(size(100_000, 300), 100);
    }
    if common::chosen("large") {
        clones(size(1024, 8), 64 << 10);
    }
    if common::chosen("live") {
        live(size(2_000, 20));
    }
    if common::chosen("eight") {
        eight(size(20_000, 100));
    }
    if common::chosen("sparse") {
        sparse_reader();
    }
}

/// Clones over loopback TCP, each in a process of its own, to measure its peak memory.
fn clones(count: usize, size: usize) {
    title(&format!("clone: {count} blocks of {size} bytes over loopback TCP"));
    let dir = dir();
    filled(dir.path(), count, size);
    let core = open(dir.path());
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let arguments = [core.key().to_string(), server.local_addr().to_string(), count.to_string()];
    let (mut ours, mut peak, mut tcp) = (Duration::MAX, None, Duration::MAX);
    for _ in 0..rounds() {
        let said = child("clone", &arguments);
        let mut words = said.split_whitespace();
        ours = ours.min(Duration::from_nanos(words.next().unwrap().parse().unwrap()));
        peak = words.next().and_then(|word| word.parse().ok()).max(peak);
        tcp = tcp.min(tcp_copy(count * size));
    }
    let ours = Figure::new(count, ours);
    figure("clone", ours, "blocks");
    plain("", &format!("{:.0} MB/s", ours.per_second() * size as f64 / 1e6));
    floor("plain TCP copy of the same bytes", Figure::new(count, tcp), ours);
    floor(
        "bare BLAKE2b of blocks and parents",
        Figure::new(count, common::bare::leaves_and_parents(count, size)),
        ours,
    );
    plain("most memory of the client", &process::bytes(peak));
}

/// The child process: downloads all blocks, and prints its peak memory and the nanoseconds from connecting to the
/// last commit.
fn clone() {
    let arguments: Vec<String> = std::env::args().collect();
    let count: u64 = arguments[arguments.len() - 1].parse().unwrap();
    let (key, address) = (&arguments[arguments.len() - 3], &arguments[arguments.len() - 2]);
    let dir = dir();
    let options = || Hypercore::options().key(key.parse().unwrap()).durability(Durability::None);
    let took = time(|| {
        let copy = brought(options(), dir.path(), address, count);
        copy.close().unwrap();
    });
    println!("{} {}", took.as_nanos(), process::peak().map_or(String::new(), |n| n.to_string()));
}

fn brought(options: OpenOptions, dir: &std::path::Path, address: &str, count: u64) -> Hypercore {
    let copy = options.open(dir).unwrap();
    let download = copy.download(Download::range(0..count)).unwrap();
    let _replication = copy.replicate(TcpStream::connect(address).unwrap(), Role::Initiator).unwrap();
    download.wait().unwrap();
    assert_eq!(copy.contiguous_length().unwrap(), count);
    copy
}

/// Sends bytes over loopback TCP.
fn tcp_copy(bytes: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    time(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let piece = block(64 << 10);
                let mut left = bytes;
                while left > 0 {
                    let n = left.min(piece.len());
                    stream.write_all(&piece[..n]).unwrap();
                    left -= n;
                }
            });
            let mut stream = TcpStream::connect(address).unwrap();
            let mut piece = vec![0; 64 << 10];
            while stream.read(&mut piece).unwrap() > 0 {}
        });
    })
}

/// Measures from before an append on one side until after the event on the other.
fn live(count: usize) {
    title(&format!("live: {count} times an append on one side until its event on the other, loopback TCP"));
    let dir = dir();
    let core = open(dir.path());
    core.append(b"first").unwrap();
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let copy = Hypercore::options().key(core.key()).open_in(Memory::new()).unwrap();
    let (sender, heard) = mpsc::channel();
    let _subscription = copy.on_append(move || sender.send(Instant::now()).unwrap_or(()));
    let _replication = copy.replicate(TcpStream::connect(server.local_addr()).unwrap(), Role::Initiator).unwrap();
    heard.recv().unwrap();
    let mut took: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            core.append(b"more").unwrap();
            heard.recv().unwrap() - start
        })
        .collect();
    took.sort();
    let mut echoes = echoes(count);
    echoes.sort();
    let ours = Figure::new(1, took[count / 2]);
    plain("median", &span(took[count / 2].as_nanos() as f64));
    plain("99 of 100", &span(took[count * 99 / 100].as_nanos() as f64));
    // Three messages: the announcement of the new length, the request for the head, and the response.
    floor("three messages over plain TCP, median", Figure::new(1, echoes[count / 2] * 3 / 2), ours);
}

/// Measures one byte's round trip over loopback TCP.
fn echoes(count: usize) -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.set_nodelay(true).unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() > 0 {
                stream.write_all(&byte).unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        (0..count)
            .map(|_| {
                time(|| {
                    stream.write_all(&[1]).unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                })
            })
            .collect()
    })
}

/// Eight clients of one server, all in this process, and one alone for comparison.
fn eight(count: usize) {
    title(&format!("eight clients at once, each {count} blocks of 100 bytes"));
    let dir = dir();
    filled(dir.path(), count, 100);
    let core = open(dir.path());
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let address = server.local_addr().to_string();
    let options = || Hypercore::options().key(core.key()).durability(Durability::None);
    let run = |clients: usize| -> (Duration, Vec<Duration>) {
        let dirs: Vec<_> = (0..clients).map(|_| common::dir()).collect();
        let start = Instant::now();
        let each = std::thread::scope(|scope| {
            let clients: Vec<_> = dirs
                .iter()
                .map(|dir| {
                    scope.spawn(|| {
                        let copy = brought(options(), dir.path(), &address, count as u64);
                        let took = start.elapsed();
                        copy.close().unwrap();
                        took
                    })
                })
                .collect();
            clients.into_iter().map(|c| c.join().unwrap()).collect()
        });
        (start.elapsed(), each)
    };
    let (mut one, mut all, mut spread) = (Duration::MAX, Duration::MAX, 0.0);
    for _ in 0..rounds().min(3) {
        one = one.min(run(1).0);
        let (took, each) = run(8);
        if took < all {
            let (first, last) = (each.iter().min().unwrap(), each.iter().max().unwrap());
            (all, spread) = (took, last.as_secs_f64() / first.as_secs_f64());
        }
    }
    let (one, all) = (Figure::new(count, one), Figure::new(count * 8, all));
    figure("eight clients together", all, "blocks");
    floor("one client alone", one, all);
    plain("last client done after the first", &format!("{spread:.2} x"));
}

/// A reader of a few blocks of a log of 10⁹ blocks.
fn sparse_reader() {
    let (length, gets) = (1_000_000_000, size(1_000, 10));
    title(&format!("sparse reader: {gets} random blocks of a log of {length}"));
    let log = Log::new(length, 100);
    let core = Hypercore::options().durability(Durability::None).open_in(log.storage()).unwrap();
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let arguments = [core.key().to_string(), server.local_addr().to_string(), gets.to_string(), length.to_string()];
    let said = child("sparse", &arguments);
    let mut words = said.split_whitespace();
    let took = Duration::from_nanos(words.next().unwrap().parse().unwrap());
    figure("get, one after the other", Figure::new(gets, took), "blocks");
    plain("most memory of the client", &process::bytes(words.next().and_then(|word| word.parse().ok())));
}

fn sparse() {
    let arguments: Vec<String> = std::env::args().collect();
    let [.., key, address, gets, length] = arguments.as_slice() else { panic!("four arguments") };
    let (gets, length): (usize, u64) = (gets.parse().unwrap(), length.parse().unwrap());
    let dir = dir();
    let copy = Hypercore::options().key(key.parse().unwrap()).durability(Durability::None).open(dir.path()).unwrap();
    let _replication = copy.replicate(TcpStream::connect(address).unwrap(), Role::Initiator).unwrap();
    let mut random = common::random(5);
    let took = time(|| (0..gets).for_each(|_| assert_eq!(copy.get(random(length)).unwrap().len(), 100)));
    println!("{} {}", took.as_nanos(), process::peak().map_or(String::new(), |n| n.to_string()));
}
