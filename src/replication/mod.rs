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

mod announce;
mod downloads;
mod inbox;
mod message;
mod peer;
mod picker;
mod remote_bitfield;
mod reorg;
mod replicator;
mod responses;
mod scheduler;

pub use message::*;
pub use replicator::Replicator;

use crate::error::{Error, Result};
use crate::index::NodeIndex;
use crate::merkle::{Head, NodeSource, Verified};

/// The core as the machine sees it: a consistent view, held for the length of one call.
///
/// Nodes are read through [`NodeSource`]; one that cannot be read counts as absent here, and the commit that needs it reports why.
pub trait Local: NodeSource {
    /// The head: length, fork, roots.
    fn head(&self) -> &Head;
    /// How many blocks from the first on are held without a hole.
    fn contiguous_length(&self) -> u64;
    /// Whether block `index` is held.
    fn has(&self, index: u64) -> bool;
    /// The first block from `from` on that is not held; past the end of the log nothing is.
    fn first_unset(&self, from: u64) -> u64;
    /// The first block from `from` on that is held.
    fn first_set(&self, from: u64) -> Option<u64>;
    /// The bits of the blocks from `start` on (a multiple of 32), lowest bit first; zeros past the end.
    fn words(&self, start: u64, words: &mut [u32]);
    /// Whether the manifest is known.
    fn has_manifest(&self) -> bool;
    /// Whether the core is a compat core, whose manifest is not offered to peers.
    fn is_compat(&self) -> bool;
}

/// One connection's view of one core; the numbers are the caller's and are not to be used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u64);

/// Something a caller waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WaiterId(pub u64);

/// What is to be done outside.
#[derive(Debug)]
pub enum Action {
    /// Send a message. The messages of one peer must keep their order.
    Send {
        /// To whom.
        peer: PeerId,
        /// What.
        message: Message,
    },
    /// The peer waits for answers: take them by [`Replicator::serve`] whenever there is room to send.
    ///
    /// Said when the queue stops being empty, not for each request.
    Serve {
        /// Who waits.
        peer: PeerId,
    },
    /// Verify a proof against the head and store it, then say [`Replicator::changed`] and [`Replicator::committed`].
    ///
    /// The proofs of one peer are to be verified in the order they are given, each against the tree with what those before it brought: a
    /// proof may lead up to a node that only an earlier one brings. Proofs of different peers do not lean on each other.
    Commit {
        /// Whose answer it is.
        peer: PeerId,
        /// The answer.
        data: Box<Data>,
    },
    /// Verify a proof from block 0 on against this core's signers and compare its tree hash with that of the own log at the same length;
    /// then say [`Replicator::conflict_checked`].
    CheckConflict {
        /// Who showed it.
        peer: PeerId,
        /// What it showed.
        data: Box<Data>,
    },
    /// Verify the proof of a higher fork, then say [`Replicator::fork_verified`].
    VerifyFork {
        /// Who showed it.
        peer: PeerId,
        /// What it showed.
        data: Box<Data>,
    },
    /// Cut the log to the common ancestor and take on the new fork, then say [`Replicator::changed`] and [`Replicator::reorganized`].
    Reorganize {
        /// The new head, and where it leaves the old.
        verified: Box<Verified>,
    },
    /// Close the channel of a peer, which is forgotten already.
    Close {
        /// Whose.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
    /// A want came true or failed, and is forgotten already.
    Wake {
        /// The want.
        want: WaiterId,
        /// What came of it.
        result: Result<Woken>,
    },
    /// A peer joined (its handshake is done), or one that had joined left.
    Peer {
        /// Which.
        peer: PeerId,
        /// Whether it joined.
        joined: bool,
    },
    /// A message of an extension arrived.
    Extension {
        /// From whom.
        peer: PeerId,
        /// Of which extension.
        name: String,
        /// What.
        message: Vec<u8>,
    },
    /// Replication of this core has stopped: two signed trees of one fork contradict each other. All peers are closed, all wants failed.
    Conflict {
        /// Who showed it.
        peer: PeerId,
        /// The proof of the other tree.
        data: Box<Data>,
    },
}

/// Why a channel is closed.
#[derive(Clone, Debug)]
pub enum CloseReason {
    /// Neither side wants anything; it may be opened again when that changes.
    Idle,
    /// The core is closed.
    Closed,
    /// The core has a conflict.
    Conflict {
        /// Answer this first, whatever else waits: it shows the peer our side of the contradiction.
        evidence: Option<Request>,
    },
    /// The peer broke the protocol or showed proofs that do not hold: close its connection.
    Misbehaved(Error),
}

/// What came true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// The block is stored.
    Block,
    /// Whether the log got longer or moved to another fork.
    Upgraded(bool),
    /// The download is done: all of it, or, for one of what is available, no more of it is to be had.
    Downloaded,
    /// The byte was found.
    Seek {
        /// In this block.
        index: u64,
        /// So many bytes from its start.
        offset: u64,
    },
}

/// What became of a proof that was to be committed.
#[derive(Clone, Debug)]
pub enum CommitOutcome {
    /// Verified and stored.
    Stored,
    /// Verified, but the head moved before it could be stored: it is asked for again.
    Stale,
    /// It does not verify. Whose fault it is follows from the error's kind and from what happened since it was asked for.
    Rejected(Error),
    /// It was not stored, by a fault of the core. No more is asked for until [`Replicator::resume`].
    Failed,
}

/// What the core did, by whomever: said once for each commit, after it.
#[derive(Clone, Default, Debug)]
pub struct LogChange {
    /// Blocks that are held now, as disjoint ranges from the left.
    pub have: Vec<std::ops::Range<u64>>,
    /// Blocks that are held no more, by clearing or truncating.
    pub dropped: Option<std::ops::Range<u64>>,
    /// Whether length or fork changed.
    pub upgraded: bool,
    /// Where the log was cut, with the length it had.
    pub truncated: Option<std::ops::Range<u64>>,
    /// Whether the manifest has become known.
    pub manifest: bool,
}

/// What is to be sent next to a peer that waits for answers.
#[derive(Debug)]
pub enum Serve {
    /// Answer this. When its fork is not that of the log, or the proof fails: [`Message::NoData`], or [`Message::Data`] with nothing but
    /// the manifest where that was asked for and is known. Where the proof succeeds and the manifest was asked for: add it, unless the core is compat.
    Request(Request),
    /// Send this.
    Message(Message),
}

/// How a core replicates.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether a longer head is asked for as soon as a peer has one, or only while somebody waits for it.
    pub eager_upgrade: bool,
    /// Whether peers are followed to higher forks.
    pub allow_fork: bool,
    /// The fewest and the most requests in flight with one peer.
    pub in_flight: (usize, usize),
    /// Where the choice among equals starts from.
    pub seed: u64,
}

/// What is known of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// Whose.
    pub peer: PeerId,
    /// The fork of its log.
    pub fork: u64,
    /// The length of its log.
    pub length: u64,
    /// How many blocks from the first on it is known to have.
    pub contiguous_length: u64,
    /// Whether it says it can prove its head to us.
    pub can_upgrade: bool,
    /// Whether it says it answers requests.
    pub uploading: bool,
    /// Whether it says it is interested in more.
    pub downloading: bool,
    /// How many requests it has not answered.
    pub in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { eager_upgrade: true, allow_fork: true, in_flight: (16, 512), seed: 0 }
    }
}

/// Whether the node is in the own tree.
fn is_held(local: &dyn Local, index: NodeIndex) -> bool {
    let root = local.head().roots.nodes().iter().any(|root| root.index == index);
    root || local.node(index).is_ok_and(|node| node.is_some())
}
