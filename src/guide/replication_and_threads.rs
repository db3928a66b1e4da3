//! How to connect cores, which call blocks on what, and which threads run.
//!
//! # Connections
//!
//! A connection runs over any byte stream: a [`TcpStream`](std::net::TcpStream), a Unix socket, a
//! [`pipe`](crate::net::pipe) in memory, or [reader and writer halves](crate::net::Halves) of your own. One side must
//! be the [initiator](crate::net::Role). The stream is encrypted. Before the two sides exchange anything about a core,
//! each proves that it knows the core's key.
//!
//! [`Hypercore::replicate`](crate::Hypercore::replicate) opens a connection for one core. A connection can also
//! carry several cores: open a [`Connection`](crate::net::Connection) and call
//! [`replicate_on`](crate::Hypercore::replicate_on) for each core, at any time. A [`Server`](crate::net::Server)
//! listens on a TCP address and gives each peer those of its cores that the peer asks for.
//!
//! ```
//! use hypercore::Hypercore;
//! use hypercore::net::{Connection, ConnectionOptions, Role, pipe};
//!
//! let (one, two) = (Hypercore::in_memory()?, Hypercore::in_memory()?);
//! one.append("first")?;
//! two.append("second")?;
//! let reader = |key| Hypercore::options().key(key).open_in(hypercore::Memory::new());
//! let (copy_one, copy_two) = (reader(one.key())?, reader(two.key())?);
//!
//! let (a, b) = pipe();
//! let here = Connection::open(a, Role::Responder, ConnectionOptions::new())?;
//! let there = Connection::open(b, Role::Initiator, ConnectionOptions::new())?;
//! (one.replicate_on(&here)?, two.replicate_on(&here)?);
//! (copy_one.replicate_on(&there)?, copy_two.replicate_on(&there)?);
//! assert_eq!(copy_one.get(0)?, b"first");
//! assert_eq!(copy_two.get(0)?, b"second");
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! # Which blocks are requested
//!
//! A core requests blocks only for a call that needs them: a [`get`](crate::Hypercore::get) of a block that is not
//! held, a [`download`](crate::Hypercore::download) or a [`seek`](crate::Hypercore::seek). A core that was opened
//! with [`sparse(false)`](crate::OpenOptions::sparse) downloads all blocks. Without any call, the core fetches the
//! head of a peer (length, fork and signature) as soon as the peer announces a longer one.
//!
//! The core sends many requests at a time, to all peers that have the blocks. If a peer is slow or disconnects, the
//! core sends the requests to the other peers.
//!
//! # What blocks on what
//!
//! | call | waits for | returns early with an error on |
//! |---|---|---|
//! | [`get`](crate::Hypercore::get), [`seek`](crate::Hypercore::seek) | the block, or the tree nodes | timeout, cancel, close of the session |
//! | [`update`](crate::Hypercore::update) | a peer's answer, but only during a [search for peers](crate::Hypercore::finding_peers) | timeout, cancel, close |
//! | [`Downloading::wait`](crate::Downloading::wait) | all blocks of the range | timeout, cancel, close |
//! | [`append`](crate::Hypercore::append) and other changes | earlier changes, and the disk as far as the durability requires | (never waits for the network) |
//! | [`Connection::wait`](crate::net::Connection::wait) | the end of the connection | |
//!
//! # Threads
//!
//! A connection has two threads, a reader and a writer. A server has one more, which accepts connections. Their
//! stacks are small ([`ConnectionOptions::stack_size`](crate::net::ConnectionOptions::stack_size)).
//!
//! Callbacks run on the thread that changed the core. If that thread belongs to a connection, they run on a
//! separate thread instead, which ends when no event is left; its stack has
//! [`OpenOptions::callback_stack_size`](crate::OpenOptions::callback_stack_size) bytes. The callbacks of one core
//! run one at a time. During a slow callback the next event waits, and replication goes on.
//!
//! Every method may be called from any thread and from inside a callback. A callback may also wait for the network:
//! the library holds no lock while it runs. Closing waits for the connection's threads, and not for callbacks.
//!
//! # Limits
//!
//! A peer is disconnected if it does not finish the handshake within 10 seconds, if it sends nothing or reads nothing
//! for 30 seconds ([`ConnectionOptions`](crate::net::ConnectionOptions) changes both limits), or if a proof from it
//! does not verify. The memory that a peer can make this side use is bounded.
