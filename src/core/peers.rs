//! What a core shows of those it replicates with.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::crypto::keys::Key;

/// Someone who replicates this core with us. Cheap to clone; what it tells is as of when it was asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer(pub(crate) Arc<PeerState>);

#[derive(PartialEq, Eq)]
pub(crate) struct PeerState {
    pub(crate) id: u64,
    pub(crate) remote_public_key: Key,
    pub(crate) remote_address: Option<SocketAddr>,
    pub(crate) remote_length: u64,
    pub(crate) remote_fork: u64,
    pub(crate) remote_can_upgrade: bool,
    pub(crate) remote_uploading: bool,
    pub(crate) remote_downloading: bool,
}

/// What is called with an extension's message and its sender.
pub(crate) type ExtensionHandler = Arc<dyn Fn(&[u8], &Peer) + Send + Sync>;

/// A block that a peer sent us, or that we sent to a peer; see [`on_download`](crate::Hypercore::on_download) and
/// [`on_upload`](crate::Hypercore::on_upload).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BlockTransfer {
    /// The block's index.
    pub index: u64,
    /// The block's length in bytes, without the padding of encrypted blocks.
    pub byte_length: u64,
    /// The other side.
    pub peer: Peer,
}

impl Peer {
    /// A number that no other peer of this core has while both are connected.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The public key that the peer proved to own during the handshake of its connection.
    #[doc(alias = "remotePublicKey")]
    pub fn remote_public_key(&self) -> Key {
        self.0.remote_public_key
    }

    /// Its address, where the connection has one.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.0.remote_address
    }

    /// How long its log is.
    #[doc(alias = "remoteLength")]
    pub fn remote_length(&self) -> u64 {
        self.0.remote_length
    }

    /// The fork its log is on.
    #[doc(alias = "remoteFork")]
    pub fn remote_fork(&self) -> u64 {
        self.0.remote_fork
    }

    /// Whether it can prove its length.
    #[doc(alias = "remoteCanUpgrade")]
    pub fn remote_can_upgrade(&self) -> bool {
        self.0.remote_can_upgrade
    }

    /// Whether it gives blocks.
    #[doc(alias = "remoteUploading")]
    pub fn remote_uploading(&self) -> bool {
        self.0.remote_uploading
    }

    /// Whether it takes blocks.
    #[doc(alias = "remoteDownloading")]
    pub fn remote_downloading(&self) -> bool {
        self.0.remote_downloading
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id())
            .field("remote_public_key", &self.remote_public_key())
            .field("remote_address", &self.remote_address())
            .field("remote_length", &self.remote_length())
            .field("remote_fork", &self.remote_fork())
            .finish_non_exhaustive()
    }
}
