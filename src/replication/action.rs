//! What the replicator asks its driver to do.

use super::id::{PeerId, WaiterId};
use super::message::{Data, Message, Request};
use crate::error::{Error, Result};
use crate::merkle::Verified;

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
    /// The peer waits for answers: take them by [`Replicator::next_response`] whenever there is room to send.
    ///
    /// Said when the queue stops being empty, not for each request.
    ResponsesReady {
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
        waiter: WaiterId,
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

/// What is to be sent next to a peer that waits for answers.
#[derive(Debug)]
pub enum Response {
    /// Answer this. When its fork is not that of the log, or the proof fails: [`Message::NoData`], or [`Message::Data`] with nothing but
    /// the manifest where that was asked for and is known. Where the proof succeeds and the manifest was asked for: add it, unless the core is compat.
    Prove(Request),
    /// Send this.
    Message(Message),
}
