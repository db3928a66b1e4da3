//! Replication over byte streams, with a reader thread and a writer thread for each connection.
//!
//! ```text
//! duplex        the byte streams: TCP, Unix sockets, a pipe in memory, halves of your own
//! connection/   one connection: its two threads, and the channels of its cores
//! driver/       one core on its connections: carries out what the replicator decides
//! server        a listener that serves cores to everyone who connects
//! ```
//!
//! # The flow of a message
//!
//! ```text
//! reader thread   socket -> decrypt -> mux -> driver of the core -> replicator.handle
//!                 end of the read: driver polls actions; proofs of that read are verified and committed together
//! writer thread   queued messages -> one frame -> encrypt -> socket
//!                 room left: takes responses to the peer's requests, one frame at a time
//! ```
//!
//! The **reader** never writes to the socket, so two peers with full buffers cannot wait for each other. The
//! **writer** also sends keep-alives, checks deadlines, and carries out what callers' threads leave to it. Both
//! threads end when the connection does. Their stacks have [`ConnectionOptions::stack_size`] bytes.

mod connection;
mod driver;
mod duplex;
mod server;

pub use connection::{Connection, ConnectionOptions, Counters, Replication};
pub use duplex::{Duplex, Halves, Pipe, pipe};
pub use server::{Server, ServerOptions};

pub use crate::wire::noise::Role;
