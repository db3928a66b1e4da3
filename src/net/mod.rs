//! Conversations: cores replicated over byte streams, with a reader and a writer thread for each connection.
//!
//! ```text
//! duplex.rs       the byte streams
//! connection/     one connection: its two threads, its channels
//! session/        one core in its conversations: carries out what the replication machine decides
//! server.rs       a listener that serves cores to whoever connects
//! ```
//!
//! # Threads
//!
//! The **reader** of a connection decrypts what arrives, tells the machine of the core it is for, verifies and commits the proofs that came
//! in one read of the socket together, and never writes to the socket. The **writer** sends what is queued and, when the socket
//! has room, turns queued requests into answers. So two peers whose buffers are full cannot wait for each other. Both end when the
//! connection does. Their stacks are [`ConnectionOptions::stack_size`] bytes.

mod connection;
mod driver;
mod duplex;
mod server;

pub use connection::{Connection, ConnectionOptions, Counters, Replication};
pub use duplex::{Duplex, Halves, Pipe, pipe};
pub use server::{Server, ServerOptions};

pub use crate::wire::noise::Role;
