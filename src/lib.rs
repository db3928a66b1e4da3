//! Hypercore for programs without an async runtime: a secure, distributed, append-only log.
//!
//! A **core** is a log of blocks. Its writer holds a key pair; readers need only the public key. A tree of hashes
//! covers the blocks. The writer signs the *head*: the length of the log, its fork and a hash over the roots of the
//! tree. A reader that has the key can therefore verify any single block with a few hashes, whichever peer sent it: it
//! can download blocks from several peers that it does not trust, and serve them to others. A block is *held* if it is
//! stored in this copy of the log. Appending keeps the *fork*, a number that starts at 0. Truncating raises it, and
//! readers follow to the new fork.
//!
//! Files and wire protocol are those of JavaScript Hypercore 10. Calls block, and never poll: a call returns when its
//! result is there, its deadline passes, or the core closes.
//!
//! ```
//! use hypercore::Hypercore;
//! use hypercore::net::{Role, Server};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let dir = tempfile::tempdir()?;
//!     // The writer creates a core, appends to it, and serves it to every peer that connects.
//!     let core = Hypercore::open(dir.path().join("log"))?;
//!     core.append("hello")?;
//!     core.append_batch(["brave", "new", "world"])?;
//!     let server = Server::listen("127.0.0.1:0", [core.clone()])?;
//!
//!     // The reader needs the key. It verifies and stores each block that it gets, and can serve it in turn.
//!     let copy = Hypercore::options().key(core.key()).open(dir.path().join("copy"))?;
//!     let stream = std::net::TcpStream::connect(server.local_addr())?;
//!     let _replication = copy.replicate(stream, Role::Initiator)?;
//!     assert_eq!(copy.get(3)?, b"world");
//!
//!     // Replication is live: each append reaches the reader, and wakes it.
//!     let (appended, news) = std::sync::mpsc::channel();
//!     let _subscription = copy.on_append(move || appended.send(()).unwrap_or(()));
//!     core.append("!")?;
//!     news.recv()?;
//!     assert_eq!(copy.get(4)?, b"!");
//!     Ok(())
//! }
//! ```
//!
//! Start with [`Hypercore`]. The module [`net`] replicates cores. The [`guide`] explains storage, threads and keys,
//! and has a table of JavaScript's names. All errors have the type [`Error`], which has a [kind](ErrorKind).
//!
//! The crate has five features. `cli`, on by default, builds the command; a library does not need it. `fast-sign`, on
//! by default, signs three times as fast and adds three crates. `json` adds the `Json` encoding of values. `serde`
//! implements `Serialize` and `Deserialize` for keys. `log` reports connections, recoveries and refused peers to the
//! crate `log`.
//!
//! # The two flows
//!
//! **append**, on the caller's thread: the leaves are hashed (`core/append`), the tree grows (`merkle/append`), the
//! new head is signed (`manifest`), and the change is committed (`core/commit`): bytes to `data`, an entry to
//! `oplog`, then memory. After that, waiters wake, callbacks run, and peers are notified.
//!
//! **replicate**, on a connection's reader thread: bytes are decrypted and split into messages (`wire`), and the
//! protocol's state machine (`replication`) returns actions for them. `net/driver` carries these out: it verifies
//! proofs (`merkle/verify`) and commits them through the same `core/commit`. The writer thread makes the answers to
//! the peer's requests when the socket has room.
//!
//! # Map of the source
//!
//! ```text
//! error  sync  logging                               the error type; all locks and their order, threads; log events
//! codec  bits  index  flat_tree  download  crypto  node  manifest      values, without I/O
//! merkle                                             the log, without I/O: append, prove, verify, seek, forks
//! storage  oplog                                     bytes on disk
//! core                                               an open log: the types that a program uses
//! wire  replication                                  the protocol, without I/O: encryption, channels, requests
//! net                                                the threads and sockets of connections
//! cli                                                the command, which uses the public interface alone
//! ```

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod bits;
mod codec;
mod core;
mod crypto;
mod download;
mod error;
mod flat_tree;
pub mod guide;
mod index;
mod logging;
mod manifest;
mod merkle;
pub mod net;
mod node;
mod oplog;
mod replication;
mod storage;
mod sync;
mod wire;

#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
pub use core::Json;
pub use core::{
    Appended, Audit, Binary, BlockTransfer, ByteOptions, ByteStream, Cancel, Cleared, Downloading, Durability, Encoded,
    EncodedWriteStream, Encoding, Encrypted, Extension, Fault, FindingPeers, GetOptions, Hypercore, Info, InfoOptions,
    MAX_BLOCK_SIZE, OpenOptions, Peer, Progress, ReadOptions, ReadStream, Recovery, SeekOptions, SessionOptions,
    SignOptions, StorageInfo, Subscription, UpdateOptions, Utf8, WriteStream,
};
pub use crypto::keys::{DiscoveryKey, Key, KeyPair};
pub use download::Download;
pub use error::{Error, ErrorKind, Result};
pub use manifest::{Manifest, MultiSignature, PartialSignature, Prologue, Signer};
pub use storage::backend::{Access, File, Storage};
pub use storage::disk::Disk;
pub use storage::memory::Memory;

/// The doc tests compile and run the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The internal modules, for tests, benches and programs with a transport of their own.
///
/// Not covered by semantic versioning.
pub mod lowlevel {
    // Names are exported one by one, so that the compiler reports items that nothing uses. They are hidden, so that a
    // search of the documentation finds the public interface first.

    #[doc(hidden)]
    pub mod codec {
        pub use crate::codec::{Reader, Writer};
    }

    #[doc(hidden)]
    pub mod crypto {
        pub mod block_cipher {
            pub use crate::crypto::block_cipher::BlockCipher;
        }
        pub mod hash {
            pub use crate::crypto::hash::{Hash, capability, hash, keyed_hash, leaf, namespaces, parent, stream_id};
        }
        pub mod keys {
            pub use crate::crypto::keys::verify;
        }
    }

    #[doc(hidden)]
    pub mod flat_tree {
        pub use crate::flat_tree::{full_roots, root_of, straddling};
    }

    #[doc(hidden)]
    pub mod index {
        pub use crate::index::NodeIndex;
    }

    #[doc(hidden)]
    pub mod manifest {
        pub use crate::manifest::{SignableTree, Verifier};
    }

    #[doc(hidden)]
    pub mod merkle {
        pub use crate::merkle::{
            BlockProof, Conflict, HashProof, Head, NodeRequest, NodeSource, Overlay, Patch, Proof, Reorg, Request,
            Seek, SeekProof, SeekRequest, TreeChange, UpgradeProof, UpgradeRequest, Verified, append, byte_offset,
            byte_range, conflict, prove, seek_local, truncate, verify,
        };
    }

    #[doc(hidden)]
    pub mod node {
        pub use crate::node::{Node, Roots};
    }

    #[doc(hidden)]
    pub mod oplog {
        pub use crate::oplog::{Entry, EntryRef, ExternalHeader, Header, Oplog, Slot, StoredKeyPair, TreeHeader};
        pub mod frame {
            pub use crate::oplog::frame::{PREFIX, Prefix, decode, seal};
        }
    }

    #[doc(hidden)]
    pub mod replication {
        pub use crate::replication::{
            Action, Bitfield, CloseReason, CommitOutcome, Config, Data, Extension, Handshake, Local, LogChange,
            MAX_BITFIELD_WORDS, MAX_NODES, Message, PeerId, Range, Replicator, Request, Response, SEGMENT, Span, Sync,
            WaiterId, Woken,
        };
    }

    #[doc(hidden)]
    pub mod wire {
        pub mod batch {
            pub use crate::wire::batch::{Batch, FULL, MAX_ITEM, messages};
        }
        pub mod edwards {
            pub use crate::wire::edwards::shared_point;
        }
        pub mod frame {
            pub use crate::wire::frame::{Decoder, MAX, prefix};
        }
        pub mod mux {
            pub use crate::wire::mux::{ChannelId, Event, MAX_CHANNELS, MAX_HELD, Mux, Opening};
        }
        pub mod noise {
            pub use crate::wire::noise::{Initiator, Responder, Role};
        }
        pub mod noise_stream {
            pub use crate::wire::noise_stream::{Established, MAX_MESSAGE, NoiseStream, Receiver, Sender};
        }
        pub mod secretstream {
            pub use crate::wire::secretstream::{MAC, OVERHEAD, Pull, Push};
        }
    }
}
