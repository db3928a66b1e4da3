//! The replication protocol as a state machine without I/O.
//!
//! Each core has one [`Replicator`]. Its driver (`net/driver`, or a test) feeds it the messages of peers
//! ([`Replicator::handle`]), the outcomes of earlier actions ([`Replicator::committed`],
//! [`Replicator::fork_verified`] and so on), the changes of the core ([`Replicator::changed`]) and what callers
//! wait for ([`Replicator::wait_for_block`] and so on). [`Replicator::poll`] returns the [`Action`]s that the
//! driver has to carry out. The replicator reads the core through [`Local`] and is given the time as `now`,
//! counted from any fixed moment. It owns no socket, thread, lock or file.
//!
//! ```text
//! bytes -> Message::decode -> handle(peer, message, ..)     for each message of one read of the socket, then
//! while let Some(action) = poll(..) { carry it out }        until there are no more actions;
//! next_deadline()                                           when to poll again if nothing else happens.
//! ```
//!
//! # A channel
//!
//! A peer is one channel of one connection, and so one view of one core. [`Replicator::connecting`] counts it
//! while the channel opens. [`Replicator::opened`] adds the peer: both sides send `Sync` (fork, length, what
//! they can do), and a `Range` of the blocks that they hold from block 0 without a gap. The channel ends by
//! [`Action::Close`], for one of the [`CloseReason`]s, or from outside by [`Replicator::closed`]; what was
//! requested of the peer is then requested of others.
//!
//! # A download
//!
//! 1. A caller registers a waiter (`downloads`). Peers announce blocks by `Range` and `Bitfield` (`remote_bitfield`);
//!    where a peer's blocks are unknown, it is asked by `Want`, a segment of 2^21 blocks at a time.
//! 2. `scheduler` selects the next request for each peer that has room, `requests` records it as in flight and
//!    leaves out the proof nodes that are held or that an earlier request to the same peer will bring.
//! 3. `Data` arrives. `responses` checks that it answers the request, and emits [`Action::Commit`], after the
//!    response of the request that it depends on.
//! 4. The driver verifies and stores it, then reports the change ([`Replicator::changed`] wakes waiters and
//!    announces the blocks to other peers) and the outcome ([`Replicator::committed`] settles the request).
//!
//! A peer on a higher fork is handled by `reorg`. A peer whose proof is invalid is asked to prove its whole tree: if
//! two signed trees of one fork contradict each other, the signer is at fault and replication of the core stops.
//!
//! # An upload
//!
//! A peer's `Request` and `Want` messages wait in its `upload_queue`. [`Action::ResponsesReady`] says that the queue
//! is no longer empty; the driver then takes one [`Response`] after another, whenever its socket has room, so a
//! peer that does not read costs no memory for responses.
//!
//! # Timers and limits
//!
//! ```text
//! request timeout         4 x the fastest peer's response time, within 250 ms to 10 s; 2 s before any response.
//!                         Then the same is requested from another peer, from at most 3 at a time.
//! requests in flight      to one peer 16, growing to 512 while responses take less than 1.5 s and halved by a
//!                         slower one: keep the line full, not the peer's queue.
//! bytes in flight         estimated: 16 MiB from one peer, 64 MiB from all. Two requests to a peer, and one in
//!                         all, are always allowed, so that larger blocks get through.
//! waiting responses       64 MiB of one peer, whose dependency has not arrived: it may hold back the first.
//! pause after a refusal   1 s, doubled to 64 s until the peer sends a new Sync: it could not answer just now.
//! first Sync              20 s, and as long for the upgrade that a Sync promises: a silent peer must not keep an
//!                         update open.
//! answer to Want          1 s, and 8 segments a second: a peer that has none of the blocks sends nothing.
//! conflict proof          5 s after an invalid proof. Unasked and unfounded at most 16: each costs a signature
//!                         check.
//! upload queue            4096 requests, eight times what JavaScript has in flight, and 1024 segments.
//! blocks of a peer        1024 mixed pages (4 MiB) and 1024 runs; the rest is forgotten and asked for again.
//! loss of interest        announced after 20 s, so that channels do not close and open with each session.
//! ```
//!
//! # Files
//!
//! ```text
//! message          the handshake and the ten messages, and their bytes
//! id  action  local  names of peers and waiters; what the driver has to do; the core as the replicator reads it
//! replicator       entry points, timeouts, when waits end
//! announce         Sync, Range, and the interest in more
//! responses        checks of responses, outcomes of commits, retries, misbehaving peers
//! peer             state of one peer
//! upload_queue     a peer's requests until they are answered
//! remote_bitfield  the blocks that a peer has, in bounded memory
//! refusals  request_window  cursor  what a peer refused; how much to request at a time; where its searches stand
//! downloads        what callers wait for
//! in_flight        requests on their way, and which peers a thing was requested from
//! requests         all requests in flight, the nodes they will bring, the budget
//! scheduler        which peer is asked for which block: the order of the peers, the next request for each
//! reorg            following a peer to a higher fork
//! ```

mod action;
mod announce;
mod cursor;
mod downloads;
mod forks;
mod id;
mod in_flight;
mod local;
mod message;
mod peer;
mod refusals;
mod remote_bitfield;
mod replicator;
mod request_window;
mod requests;
mod responses;
mod scheduler;
mod upload_queue;

pub use action::{Action, CloseReason, Response, Woken};
pub use id::{PeerId, WaiterId};
pub use local::{CommitOutcome, Local, LogChange};
pub use message::*;
pub use peer::PeerInfo;
pub use replicator::Replicator;
pub use requests::Config;
