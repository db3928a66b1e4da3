//! The replication protocol as a machine without I/O.
//!
//! One [`Replicator`] stands beside each core. It is told what arrives ([`Replicator::handle`]), what became of what it asked for
//! ([`Replicator::committed`] and its like), what the core did ([`Replicator::changed`]) and what callers wait for
//! ([`Replicator::wait_for_block`] and its like); it answers, when polled, with [`Action`]s, which somebody else carries out. It reads the
//! core through [`Local`] and the clock through `now`, the time since any fixed moment; it owns no socket, thread, lock or file.
//!
//! ```text
//! message.rs   the ten messages and the handshake, and their bytes
//! machine.rs   the machine: who takes part, what is waited for, what is due
//! gossip.rs    what peers tell each other of their logs
//! answers.rs   answers, what is done with them, and what became of it
//! peer.rs      one peer: its state, what we asked of it
//! inbox.rs     what a peer asks of us
//! remote.rs    what a peer has: a bounded set of blocks
//! downloads.rs     what callers wait for
//! scheduler.rs      what was asked, of whom, and what it will bring
//! pick.rs      which block is asked of whom
//! reorg.rs     following a peer to a higher fork
//! ```
//!
//! # Driving it
//!
//! ```text
//! bytes -> Message::decode -> handle(peer, message, ..)        for each message of what was read, then
//! while let Some(action) = poll(..)  { carry it out }          until it has nothing to say;
//! next_deadline()                                              when to poll again though nothing happened.
//! ```

mod action;
mod announce;
mod cursor;
mod downloads;
mod id;
mod in_flight;
mod inbox;
mod local;
mod message;
mod peer;
mod picker;
mod refusals;
mod remote_bitfield;
mod reorg;
mod replicator;
mod request_window;
mod responses;
mod scheduler;

pub use action::{Action, CloseReason, Response, Woken};
pub use id::{PeerId, WaiterId};
pub use local::{CommitOutcome, Local, LogChange};
pub use message::*;
pub use peer::PeerInfo;
pub use replicator::Replicator;
pub use scheduler::Config;
