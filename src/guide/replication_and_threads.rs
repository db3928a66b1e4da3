//! How cores meet, which threads there are, and what may be called from where.
//!
//! # Connections
//!
//! Any byte stream will do: a [`TcpStream`](std::net::TcpStream), a Unix socket, a [`pipe`](crate::net::pipe) in memory, or
//! [halves of your own](crate::net::Halves). One side must be the [initiator](crate::net::Role). The stream is encrypted, and
//! each side proves to know the core's key before anything of the core is said.
//!
//! [`Hypercore::replicate`](crate::Hypercore::replicate) runs a connection for one core. To carry several, open a
//! [`Connection`](crate::net::Connection) and call [`replicate_on`](crate::Hypercore::replicate_on) for each, at any time. A
//! [`Server`](crate::net::Server) listens, and gives each peer the cores it asks for.
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
//! # What is asked for
//!
//! A core asks for what somebody wants: a [`get`](crate::Hypercore::get) of a block that is not here, a
//! [`download`](crate::Hypercore::download), a [`seek`](crate::Hypercore::seek). The longer head of a peer is taken as soon as it is
//! known. Requests are spread over all peers that have the block, many at a time; what a slow or vanished peer owes goes to the others,
//! and one that lies is cut off.
//!
//! # Waiting
//!
//! | call | waits for | ends early with an error |
//! |---|---|---|
//! | [`get`](crate::Hypercore::get), [`seek`](crate::Hypercore::seek) | the block, the nodes | timeout, cancel, closing of the session |
//! | [`update`](crate::Hypercore::update) | the peers' word, while [peers are being looked for](crate::Hypercore::finding_peers) | timeout, cancel, closing |
//! | [`Downloading::wait`](crate::Downloading::wait) | all of the range | timeout, cancel, closing |
//! | [`append`](crate::Hypercore::append) and other changes | other changes before it; the disk, as the durability says | never waits for the network |
//! | [`Connection::wait`](crate::net::Connection::wait) | the end of the connection | |
//!
//! # Threads
//!
//! A connection has two, a reader and a writer; a server one more to accept. Their stacks are small
//! ([`ConnectionOptions::stack_size`](crate::net::ConnectionOptions::stack_size)). Callbacks run on the thread that changed the core, or, where
//! that is a connection's, on one that ends when there is nothing more to tell, with a stack of
//! [`OpenOptions::callback_stack_size`](crate::OpenOptions::callback_stack_size) bytes. One core's callbacks run one at a time: while one
//! takes its time the next event waits, and replication goes on.
//!
//! Every method may be called from any thread, and from inside a callback, which may also wait for the network; no lock is held while
//! one runs. Closing waits for the connection's threads, not for callbacks.
//!
//! # Limits
//!
//! A peer that does not finish the handshake, says nothing, or does not read is dropped after a deadline
//! ([`ConnectionOptions`](crate::net::ConnectionOptions)). What it can make us keep is bounded, and a proof that does not hold costs it the
//! connection.
