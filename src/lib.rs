//! The Hypercore for programs that do not run an async runtime: a secure, distributed, append-only log.

#![deny(unsafe_code)]

mod codec;
mod core;
mod crypto;
mod error;
mod flat_tree;
mod index;
mod manifest;
mod merkle;
pub mod net;
mod node;
mod oplog;
mod replication;
mod store;
mod sync;
mod wire;

#[cfg(feature = "json")]
pub use core::Json;
pub use core::{
    Appended, Audit, Binary, ByteOptions, ByteStream, Cancel, Cleared, Download, Downloading, Durability, Encoded,
    Encoding, Extension, Fault, FindingPeers, GetOptions, Hypercore, Info, InfoOptions, MAX_BLOCK_SIZE, OpenOptions,
    Peer, Progress, ReadOptions, ReadStream, Repair, SeekOptions, SessionOptions, SignOptions, StorageInfo,
    Subscription, UpdateOptions, Utf8, WriteStream,
};
pub use crypto::keys::{DiscoveryKey, Key, KeyPair};
pub use error::{Error, ErrorKind, Result};
pub use manifest::{Manifest, MultiSignature, PartialSignature, Prologue, Signer};
pub use store::medium::{Access, Disk, File, Medium};
pub use store::memory::Memory;

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
        flat_tree: "Index arithmetic.",
        index: "Node indices.",
        manifest: "Who may sign a log.",
        merkle: "The pure Merkle log.",
        node: "Nodes and roots of the tree.",
        oplog: "The write-ahead log of a core.",
        replication: "The replication protocol.",
        store: "Files of a core.",
        wire: "The encrypted, multiplexed connection.",
    }
}
