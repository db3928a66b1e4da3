//! The Hypercore for programs that do not run an async runtime: a secure, distributed, append-only log.
//!
//! A **core** is a log of blocks. Its writer holds a key pair; everybody else needs the public key alone. Over the blocks stands a
//! tree of hashes whose root the writer signs, so whoever has the key can check any block by a few hashes, wherever it came
//! from. A reader can therefore take single blocks, from several peers that it need not trust, and pass them on to others. The log
//! only grows; a writer that does cut it raises its *fork*, and readers follow.
//!
//! Files and wire protocol are those of JavaScript Hypercore 10. Everything here blocks and nothing polls: a call waits until what
//! it waits for is there, its deadline passes, or the core closes.
//!
//! ```
//! use hypercore::Hypercore;
//! use hypercore::net::{Role, Server};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let dir = tempfile::tempdir()?;
//!     // A writer makes a core, appends to it, and serves it to whoever connects.
//!     let core = Hypercore::open(dir.path().join("log"))?;
//!     core.append("hello")?;
//!     core.append_batch(["brave", "new", "world"])?;
//!     let server = Server::listen("127.0.0.1:0", [core.clone()])?;
//!
//!     // A reader needs the key. What it gets it checks, keeps, and can serve itself.
//!     let copy = Hypercore::options().key(core.key()).open(dir.path().join("copy"))?;
//!     let stream = std::net::TcpStream::connect(server.local_addr())?;
//!     let _replication = copy.replicate(stream, Role::Initiator)?;
//!     assert_eq!(copy.get(3)?, b"world");
//!
//!     // The log is live: what is appended there is heard of here.
//!     let (heard, news) = std::sync::mpsc::channel();
//!     let _subscription = copy.on_append(move || heard.send(()).unwrap_or(()));
//!     core.append("!")?;
//!     news.recv()?;
//!     assert_eq!(copy.get(4)?, b"!");
//!     Ok(())
//! }
//! ```
//!
//! Begin with [`Hypercore`]; [`net`] is replication; the [`guide`] explains storage, threads and keys, and has a table of names for
//! those who know the JavaScript one. Errors are one type, [`Error`], with a kind.
//!
//! Features: `cli` is the command, which a library does without; `fast-sign` signs in a third of the time, for three crates more; `json`
//! is the `Json` encoding of values. The first two are on by default.
//!
//! # The two flows
//!
//! **append**, on the caller's thread: leaves are hashed (`core/append`), the tree grows (`merkle/append`), the head is signed
//! (`manifest`), all of it is committed (`core/commit`): bytes to `data`, an entry to `oplog`, memory; then waiters, callbacks and peers
//! are told.
//!
//! **replicate**, on a connection's reader thread: bytes are framed and decrypted (`wire`), messages go to the machine
//! (`replication`), which decides; `net/driver` carries out: proofs are verified (`merkle/verify`) and committed by the same
//! `core/commit`. Answers to the peer's requests are made on the writer thread, when the socket has room.
//!
//! # Map of the source
//!
//! ```text
//! error  sync                          the one error; the only door to locks and threads
//! codec  index  flat_tree  crypto  node  manifest    pure vocabulary
//! merkle                               the pure log: append, prove, verify, seek, follow forks
//! store  oplog                         bytes on disk
//! core                                 a log that is open: what users hold
//! wire  replication                    the pure conversation: encryption and channels; who asks whom for what
//! net                                  threads and sockets
//! cli                                  the command, over the public API alone
//! ```

#![deny(unsafe_code)]

mod codec;
mod core;
mod crypto;
mod download;
mod error;
mod flat_tree;
pub mod guide;
mod index;
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
pub use storage::backend::{Access, Disk, File, Storage};
pub use storage::memory::Memory;

/// The program in the README is compiled and run with the examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The parts below the surface, for tests, benches and people with a transport of their own.
///
/// Not covered by semantic versioning.
pub mod lowlevel {
    macro_rules! reexport {
        ($($name:ident: $what:literal,)*) => {$(
            #[doc = $what]
            pub mod $name {
                pub use crate::$name::*;
            }
        )*};
    }

    reexport! {
        codec: "Compact encoding.",
        crypto: "Hashes, keys and block encryption.",
        download: "What to download.",
        flat_tree: "Index arithmetic.",
        index: "Node indices.",
        manifest: "Who may sign a log.",
        merkle: "The pure Merkle log.",
        node: "Nodes and roots of the tree.",
        oplog: "The write-ahead log of a core.",
        replication: "The replication protocol.",
        storage: "Files of a core.",
        wire: "The encrypted, multiplexed connection.",
    }
}
