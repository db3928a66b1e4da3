//! The Hypercore for programs that do not run an async runtime: a secure, distributed, append-only log.

#![deny(unsafe_code)]

mod codec;
mod crypto;
mod error;
mod flat_tree;
mod index;
mod manifest;
mod node;
mod wire;

pub use crypto::keys::{DiscoveryKey, Key, KeyPair};
pub use error::{Error, ErrorKind, Result};

/// The parts below the surface, for tests, benches and people with a transport of their own.
///
/// Not covered by semantic versioning.
pub mod lowlevel {
    pub use crate::codec;
    pub use crate::crypto;
    pub use crate::index;
    pub use crate::flat_tree;
    pub use crate::manifest;
    pub use crate::node;
    pub use crate::wire;
}
