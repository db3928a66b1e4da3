//! The actions that the replicator asks its driver to carry out, and the responses it has for peers.

use super::id::{PeerId, WaiterId};
use super::message::{Data, Message, Request};
use crate::error::{Error, Result};
use crate::merkle::Verified;

/// An action for the driver. Actions are carried out in the order in which
/// [`Replicator::poll`](super::Replicator::poll) returns it.
#[derive(Debug)]
pub enum Action {
    /// Send a message. Messages to one peer must keep their order.
    Send {
        /// The receiver.
        peer: PeerId,
        /// The message.
        message: Message,
    },
    /// The peer's upload queue is no longer empty: call
    /// [`Replicator::next_response`](super::Replicator::next_response) whenever there is room to send, until it
    /// returns none. Emitted once until then, not for each request.
    ResponsesReady {
        /// The peer whose requests wait.
        peer: PeerId,
    },
    /// Verify a proof against the head and store it; then call
    /// [`Replicator::changed`](super::Replicator::changed) and
    /// [`Replicator::committed`](super::Replicator::committed).
    ///
    /// Verify the proofs of one peer in the order given, each against the tree with the nodes of those before
    /// it: a proof may lead up to a node that only an earlier one brings. Proofs of different peers do not
    /// depend on each other.
    Commit {
        /// The peer that sent the proof.
        peer: PeerId,
        /// The response with the proof.
        data: Box<Data>,
    },
    /// Verify a proof that starts at block 0 against this core's signers, and compare its tree hash with the local
    /// one at the same length; then call [`Replicator::conflict_checked`](super::Replicator::conflict_checked).
    CheckConflict {
        /// The peer that sent the proof.
        peer: PeerId,
        /// The message with the proof.
        data: Box<Data>,
    },
    /// Verify the proof of a higher fork; then call [`Replicator::fork_verified`](super::Replicator::fork_verified).
    VerifyFork {
        /// The peer that sent the proof.
        peer: PeerId,
        /// The response with the proof.
        data: Box<Data>,
    },
    /// Truncate the log to the common ancestor and take the head of the new fork; then call
    /// [`Replicator::changed`](super::Replicator::changed) and
    /// [`Replicator::reorganized`](super::Replicator::reorganized).
    Reorganize {
        /// The new head, and the length up to which the logs agree.
        verified: Box<Verified>,
    },
    /// Close the channel of a peer. The replicator has removed the peer already.
    Close {
        /// The peer.
        peer: PeerId,
        /// Why the channel is closed.
        reason: CloseReason,
    },
    /// End a wait. The replicator has removed the waiter already.
    Wake {
        /// The waiter.
        waiter: WaiterId,
        /// The result of the wait, or the reason why it cannot come.
        result: Result<Woken>,
    },
    /// A peer joined (its handshake is done), or one that had joined left.
    Peer {
        /// The peer.
        peer: PeerId,
        /// True if it joined, false if it left.
        joined: bool,
    },
    /// Deliver a message of an extension.
    Extension {
        /// The peer that sent it.
        peer: PeerId,
        /// The extension's name.
        name: String,
        /// The message's bytes.
        message: Vec<u8>,
    },
    /// Report a conflict: two signed trees of one fork contradict each other. Replication of this core has
    /// stopped; a `Close` for each peer and a `Wake` with an error for each waiter follow.
    Conflict {
        /// The peer that proved the other tree.
        peer: PeerId,
        /// The proof of the other tree.
        data: Box<Data>,
    },
}

/// Why a channel is closed.
#[derive(Clone, Debug)]
pub enum CloseReason {
    /// Neither side wants blocks. The channel may be opened again when that changes.
    Idle,
    /// The core is closed.
    Closed,
    /// The core has a conflict.
    Conflict {
        /// Answer this request before closing the channel: the response proves our tree, so the peer finds
        /// the conflict too.
        request: Option<Request>,
    },
    /// The peer broke the protocol or sent invalid proofs: close its connection.
    Misbehaved(Error),
}

/// The result of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// The block is stored.
    Block,
    /// True if the log became longer or moved to another fork; false if no peer can offer that.
    Upgraded(bool),
    /// All blocks of the download are stored or, with `if_available`, no peer has more of them.
    Downloaded,
    /// The byte was found.
    Seek {
        /// The block that holds it.
        index: u64,
        /// The byte's offset from the start of that block.
        offset: u64,
    },
}

/// The next thing to send to a peer that waits for responses.
#[derive(Debug)]
pub enum Response {
    /// Answer this request: [`Message::Data`] with the proof, and with the manifest if that was requested, is
    /// known and the core is not a compat core. If the request's fork is not the log's, or the proof cannot be
    /// made: `Data` with the manifest alone where that applies, else [`Message::NoData`].
    Prove(Request),
    /// Send this message.
    Message(Message),
}
