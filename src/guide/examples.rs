//! One program for each job. Each is complete, and runs as a test of this documentation.
//!
//! The programs use temporary directories (crate `tempfile`) and loopback TCP, and play both sides of a
//! connection. In a real system the sides are separate programs, and the reader gets the core's key as an argument
//! or from a configuration.
//!
//! | job | uses |
//! |---|---|
//! | [Logger](#logger) | [`append`](crate::Hypercore::append), [`Durability::Always`](crate::Durability::Always), [`recovery`](crate::Hypercore::recovery) |
//! | [Follower](#follower) | [`read_stream`](crate::Hypercore::read_stream), [`ReadOptions::live`](crate::ReadOptions::live) |
//! | [Mirror](#mirror) | [`download`](crate::Hypercore::download), [`Server`](crate::net::Server) |
//! | [Worker pool](#worker-pool) | [`get`](crate::Hypercore::get) on several threads, [`OpenOptions::timeout`](crate::OpenOptions::timeout) |
//! | [Many cores over one connection](#many-cores-over-one-connection) | [`Connection`](crate::net::Connection), [`replicate_on`](crate::Hypercore::replicate_on) |
//! | [Encrypted log](#encrypted-log) | [`OpenOptions::encryption_key`](crate::OpenOptions::encryption_key) |
//!
//! # Logger
//!
//! Several threads write lines to one log. With `Always` each line is on the disk when `append` returns; threads
//! that append at the same time share their syncs. After the threads have ended, the program opens the core again,
//! as it would after a crash, reports what was lost (here nothing), and ends after it has counted the lines.
//!
//! ```
//! use hypercore::{Durability, Hypercore, ReadOptions, Result};
//! use std::path::Path;
//! use std::thread;
//!
//! fn open(dir: &Path) -> Result<Hypercore> {
//!     let log = Hypercore::options().durability(Durability::Always).open(dir)?;
//!     if let Some(lost) = log.recovery() {
//!         eprintln!("warning: {lost}");
//!     }
//!     Ok(log)
//! }
//!
//! fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//!     let dir = tempfile::tempdir()?;
//!     let log = open(dir.path())?;
//!     thread::scope(|scope| {
//!         for worker in 0..4 {
//!             let log = log.clone();
//!             scope.spawn(move || {
//!                 for i in 0..5 {
//!                     log.append(format!("worker {worker}: line {i}")).expect("the line is not on the disk");
//!                 }
//!             });
//!         }
//!     });
//!     log.close()?;
//!
//!     let log = open(dir.path())?;
//!     let lines = log.read_stream(ReadOptions::new())?.collect::<Result<Vec<_>>>()?;
//!     assert_eq!(lines.len(), 20);
//!     assert_eq!(lines.iter().filter(|line| line.starts_with(b"worker 3: ")).count(), 5);
//!     Ok(())
//! }
//! ```
//!
//! # Follower
//!
//! A reader prints each block of a remote log, first the existing ones and then each new one, like `tail -f`. The live
//! stream waits at the end of the log for the next block. The loop ends when the core is closed; here the block `stop`
//! closes it.
//!
//! ```
//! use hypercore::net::{Role, Server};
//! use hypercore::{Hypercore, Key, Memory, ReadOptions};
//! use std::net::{SocketAddr, TcpStream};
//! use std::thread;
//!
//! fn follow(key: Key, address: SocketAddr) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
//!     let log = Hypercore::options().key(key).open_in(Memory::new())?;
//!     let _replication = log.replicate(TcpStream::connect(address)?, Role::Initiator)?;
//!     let mut seen = Vec::new();
//!     for block in log.read_stream(ReadOptions::new().live(true))? {
//!         let line = String::from_utf8(block?)?;
//!         if line == "stop" {
//!             log.close()?;
//!         } else {
//!             println!("{line}");
//!             seen.push(line);
//!         }
//!     }
//!     Ok(seen)
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let log = Hypercore::in_memory()?;
//!     log.append_batch(["begun before the follower came", "still before"])?;
//!     let server = Server::listen("127.0.0.1:0", [log.clone()])?;
//!     let (key, address) = (log.key(), server.local_addr());
//!     let follower = thread::spawn(move || follow(key, address));
//!     log.append("perhaps during its connect")?;
//!     log.append("stop")?;
//!     let seen = follower.join().expect("the follower panicked").map_err(|error| error.to_string())?;
//!     assert_eq!(seen.len(), 3);
//!     Ok(())
//! }
//! ```
//!
//! # Mirror
//!
//! A mirror copies a log completely and serves the copy. Its readers need not trust the mirror: they check every
//! block against the writer's signature. The mirror's download has an end, so that `wait` returns;
//! [`Download::all`](crate::Download::all) would follow the log for ever. The program ends after a reader has
//! fetched a block from the mirror while the writer is offline.
//!
//! ```
//! use hypercore::net::{Role, Server};
//! use hypercore::{Download, Hypercore, Memory};
//! use std::net::TcpStream;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let dir = tempfile::tempdir()?;
//!     let writer = Hypercore::in_memory()?;
//!     writer.append_batch((0..1000).map(|i| format!("block {i}")))?;
//!     let origin = Server::listen("127.0.0.1:0", [writer.clone()])?;
//!
//!     // The mirror waits for the first block, which also brings the length of the log, and then downloads all of it.
//!     let mirror = Hypercore::options().key(writer.key()).open(dir.path().join("mirror"))?;
//!     let replication = mirror.replicate(TcpStream::connect(origin.local_addr())?, Role::Initiator)?;
//!     mirror.get(0)?;
//!     let download = mirror.download(Download::range(..mirror.len()))?;
//!     download.wait()?;
//!     assert_eq!(download.progress()?.blocks, 1000);
//!
//!     // The writer goes offline. The mirror serves what it has.
//!     replication.close();
//!     origin.close();
//!     let server = Server::listen("127.0.0.1:0", [mirror.clone()])?;
//!
//!     let reader = Hypercore::options().key(writer.key()).open_in(Memory::new())?;
//!     let _replication = reader.replicate(TcpStream::connect(server.local_addr())?, Role::Initiator)?;
//!     assert_eq!(reader.get(777)?, b"block 777");
//!     Ok(())
//! }
//! ```
//!
//! # Worker pool
//!
//! Threads share the blocks of a remote log as jobs, and append their results to a log of their own. A handle is
//! cheap to clone, and `get` blocks only the thread that calls it. The timeout turns a peer that never answers into
//! an error. Each worker ends when no job is left.
//!
//! ```
//! use hypercore::net::{Role, Server};
//! use hypercore::{Hypercore, Memory, ReadOptions, Result};
//! use std::net::TcpStream;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use std::thread;
//! use std::time::Duration;
//!
//! fn work(jobs: &Hypercore, results: &Hypercore, next: &AtomicU64, count: u64) -> Result<u64> {
//!     let mut done = 0;
//!     loop {
//!         let index = next.fetch_add(1, Ordering::Relaxed);
//!         if index >= count {
//!             return Ok(done);
//!         }
//!         let job = jobs.get(index)?; // waits until a peer brings the block
//!         let sum: u64 = job.iter().map(|byte| u64::from(*byte)).sum();
//!         results.append(format!("{index} {sum}"))?;
//!         done += 1;
//!     }
//! }
//!
//! fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//!     let source = Hypercore::in_memory()?;
//!     source.append_batch((0..200_u8).map(|i| vec![i; 1000]))?;
//!     let server = Server::listen("127.0.0.1:0", [source.clone()])?;
//!
//!     let options = Hypercore::options().key(source.key()).timeout(Duration::from_secs(30));
//!     let jobs = options.open_in(Memory::new())?;
//!     let _replication = jobs.replicate(TcpStream::connect(server.local_addr())?, Role::Initiator)?;
//!     let (results, next) = (Hypercore::in_memory()?, AtomicU64::new(0));
//!
//!     let done = thread::scope(|scope| {
//!         let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&jobs, &results, &next, 200))).collect();
//!         workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).sum::<Result<u64>>()
//!     })?;
//!     assert_eq!(done, 200);
//!     let lines = results.read_stream(ReadOptions::new())?.collect::<Result<Vec<_>>>()?;
//!     assert!(lines.contains(&b"199 199000".to_vec()));
//!     Ok(())
//! }
//! ```
//!
//! # Many cores over one connection
//!
//! A server has one log for each sensor. The client reads all of them over a single connection, which has two
//! threads however many cores it carries. The server gives a peer only the cores whose keys the peer knows. The
//! program ends with the connection: `close` wakes the threads and waits for them.
//!
//! ```
//! use hypercore::net::{Connection, ConnectionOptions, Role, Server};
//! use hypercore::{Hypercore, Memory, Result};
//! use std::net::TcpStream;
//!
//! fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//!     let sensors = (0..10).map(|_| Hypercore::in_memory()).collect::<Result<Vec<_>>>()?;
//!     for (i, sensor) in sensors.iter().enumerate() {
//!         sensor.append(format!("sensor {i}: 21.5 degrees"))?;
//!     }
//!     let server = Server::listen("127.0.0.1:0", sensors.clone())?;
//!
//!     let stream = TcpStream::connect(server.local_addr())?;
//!     let connection = Connection::open(stream, Role::Initiator, ConnectionOptions::new())?;
//!     let mut copies = Vec::new();
//!     for sensor in &sensors {
//!         let copy = Hypercore::options().key(sensor.key()).open_in(Memory::new())?;
//!         copy.replicate_on(&connection)?;
//!         copies.push(copy);
//!     }
//!     for (i, copy) in copies.iter().enumerate() {
//!         assert_eq!(copy.get(0)?, format!("sensor {i}: 21.5 degrees").into_bytes());
//!     }
//!     assert_eq!(server.connections().len(), 1);
//!
//!     // A core that the server opens later is replicated on the same connection.
//!     let late = Hypercore::in_memory()?;
//!     late.append("sensor 10: 19.0 degrees")?;
//!     server.add(late.clone());
//!     let copy = Hypercore::options().key(late.key()).open_in(Memory::new())?;
//!     copy.replicate_on(&connection)?;
//!     assert_eq!(copy.get(0)?, b"sensor 10: 19.0 degrees");
//!     connection.close();
//!     Ok(())
//! }
//! ```
//!
//! # Encrypted log
//!
//! A writer encrypts its blocks. A relay stores and serves them without the encryption key, and can check but not
//! read them. A reader with both keys reads them from the relay. The program ends after the relay has tried to read
//! a block and got an error.
//!
//! ```
//! use hypercore::net::{Role, pipe};
//! use hypercore::{Download, ErrorKind, GetOptions, Hypercore, Memory};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let encryption_key = [42; 32]; // in a real program: 32 random bytes from a file that only its user can read
//!     let writer = Hypercore::options().encryption_key(encryption_key).open_in(Memory::new())?;
//!     writer.append_batch(["meet at noon", "bring the map"])?;
//!
//!     let relay = Hypercore::options().key(writer.key()).open_in(Memory::new())?;
//!     let (a, b) = pipe();
//!     let _to_relay = writer.replicate(a, Role::Responder)?;
//!     let _from_writer = relay.replicate(b, Role::Initiator)?;
//!     relay.download(Download::range(0..2))?.wait()?;
//!
//!     let reader = Hypercore::options().key(writer.key()).encryption_key(encryption_key).open_in(Memory::new())?;
//!     let (a, b) = pipe();
//!     let _to_reader = relay.replicate(a, Role::Responder)?;
//!     let _from_relay = reader.replicate(b, Role::Initiator)?;
//!     assert_eq!(reader.get(1)?, b"bring the map");
//!
//!     // The relay holds the blocks as they are stored: 8 bytes of padding, then bytes that look random.
//!     let stored = relay.get_with(1, GetOptions::new().decrypt(false))?.expect("the block is held");
//!     assert_eq!(stored.len(), 8 + b"bring the map".len());
//!
//!     // With a wrong encryption key it gets an error, and not other data.
//!     let session = relay.session(hypercore::SessionOptions::new().encryption_key([0; 32]))?;
//!     assert_eq!(session.get(1).unwrap_err().kind(), ErrorKind::Encryption);
//!     Ok(())
//! }
//! ```
