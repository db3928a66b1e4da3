//! An open log: the handle [`Hypercore`] and everything it does on this machine.

// Stays first: rustdoc lists the methods of `Hypercore` in the order of the modules, and its page
// begins with `open`.
mod methods;

mod append;
mod append_queue;
mod apply_entry;
mod change;
mod clear;
mod close;
mod commit;
pub(crate) mod commit_proof;
mod cosign;
mod create;
pub(crate) mod download;
mod durability;
mod encoding;
mod encryption;
pub(crate) mod event_queue;
mod events;
mod extension;
mod finding_peers;
mod flush;
mod handle;
mod holes;
mod info;
mod key_check;
mod leaf_hashes;
mod limits;
mod lock;
mod lost_blocks;
pub(crate) mod network;
mod open;
mod open_options;
mod options;
mod peer_sync;
pub(crate) mod peers;
mod prove;
mod purge;
mod read;
pub(crate) mod reading;
mod rebuild;
mod recovery;
mod recovery_report;
mod release;
pub(crate) mod session;
pub(crate) mod shared;
mod signing;
mod snapshot;
pub(crate) mod state;
mod state_lock;
mod stored_block;
mod streams;
mod synced;
mod truncate;
mod trusted_nodes;
mod user_data;
mod verify;
pub(crate) mod wait_goal;
pub(crate) mod waiters;
mod writer;

pub use append::Appended;
pub use clear::Cleared;
pub use download::{Downloading, Progress};
pub use durability::Durability;
#[cfg(feature = "json")]
pub use encoding::Json;
pub use encoding::{Binary, Encoded, EncodedWriteStream, Encoding, Utf8};
pub use encryption::Encrypted;
pub use event_queue::Subscription;
pub(crate) use event_queue::{Event, ExtensionMessage};
pub use extension::Extension;
pub use finding_peers::FindingPeers;
pub use handle::Hypercore;
pub use info::{Info, StorageInfo};
pub use limits::MAX_BLOCK_SIZE;
pub use open_options::OpenOptions;
pub use options::{
    ByteOptions, GetOptions, InfoOptions, ReadOptions, SeekOptions, SessionOptions, SignOptions, UpdateOptions,
};
pub use peers::{BlockTransfer, Peer};
pub use recovery_report::Recovery;
pub use streams::{ByteStream, ReadStream, WriteStream};
pub use verify::{Audit, Fault};
pub use waiters::Cancel;
