//! The public view of the peers of a core.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::crypto::keys::Key;

/// A peer that replicates this core. Cheap to clone. Its values are those of the time when it was obtained.
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

/// Called with a message of an extension and its sender.
pub(crate) type ExtensionHandler = Arc<dyn Fn(&[u8], &Peer) + Send + Sync>;

/// A block that a peer sent us, or that we sent to a peer; see
/// [`on_download`](crate::Hypercore::on_download) and [`on_upload`](crate::Hypercore::on_upload).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BlockTransfer {
    /// The block's index.
    pub index: u64,
    /// The block's length in bytes, without the padding of encrypted blocks.
    pub byte_length: u64,
    /// The peer that sent or received the block.
    pub peer: Peer,
}

impl Peer {
    /// The peer's number, unique among the connected peers of this core.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The public key that the peer proved to own during the handshake of its connection.
    #[doc(alias = "remotePublicKey")]
    pub fn remote_public_key(&self) -> Key {
        self.0.remote_public_key
    }

    /// The peer's address, or `None` if its connection has none.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.0.remote_address
    }

    /// The length of the peer's log in blocks.
    #[doc(alias = "remoteLength")]
    pub fn remote_length(&self) -> u64 {
        self.0.remote_length
    }

    /// The fork of the peer's log.
    #[doc(alias = "remoteFork")]
    pub fn remote_fork(&self) -> u64 {
        self.0.remote_fork
    }

    /// Whether the peer can prove its length.
    #[doc(alias = "remoteCanUpgrade")]
    pub fn remote_can_upgrade(&self) -> bool {
        self.0.remote_can_upgrade
    }

    /// Whether the peer sends blocks.
    #[doc(alias = "remoteUploading")]
    pub fn remote_uploading(&self) -> bool {
        self.0.remote_uploading
    }

    /// Whether the peer requests blocks.
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
