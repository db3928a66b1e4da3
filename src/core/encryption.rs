//! Whether a log is encrypted, and with which key. `core/key_check.rs` does the checks.
//!
//! The files of JavaScript Hypercore do not record that a log is encrypted. Two things tell:
//!
//! * **The padding of a held block.** It holds a fork, blinded with the key. Unblinded with the right key it is at
//!   most the current fork; unblinded with another key, or taken from a plain block, it is a random number. A
//!   padding that fits therefore proves the key. One that does not fit proves nothing by itself, because the block
//!   may be damaged: the whole block is compared with its hash before a key is refused.
//! * **The marker**, an entry of the core's user data, which other implementations keep and ignore. It holds a
//!   fingerprint of the encryption key or, for a log that this library began without a key, one byte. An open
//!   without the key relies on it. The fingerprint is stored only for a key that is known to be right: that of a
//!   new core with a key pair, that of the first append to an empty log, or one that a held block proves. The one
//!   byte of a plain log counts only while the log has blocks.
//!
//! Held blocks decide. The marker decides only where no held block can be read. A marker that a held block
//! contradicts is replaced: it was stored with a new core that was then filled from a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::block_cipher::BlockCipher;
use crate::crypto::hash::{self, Hash};
use crate::crypto::keys::{Key, KeyPair};
use crate::{Error, Result};

/// The name of the user data that holds the marker.
pub(crate) const MARKER: &str = "hypercore-blocking/encryption";

/// The library keeps names of user data with this prefix for itself.
const RESERVED: &str = "hypercore-blocking/";

/// The marker of a log that was begun without a key. No fingerprint has its length.
pub(crate) const PLAIN_MARKER: &[u8] = &[0];

/// Separates the fingerprint from every other hash that is keyed with an encryption key.
const DOMAIN: &[u8] = b"hypercore-blocking encryption key fingerprint";

/// Whether the blocks of a log are encrypted, as far as this core knows; see
/// [`Hypercore::is_encrypted`](crate::Hypercore::is_encrypted).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Encrypted {
    /// They are: the core was created with an encryption key, or a key was proven to be right.
    Yes,
    /// They are not: this library began the log without a key.
    No,
    /// It is not known. A log that another implementation wrote is unknown until it is opened with its key.
    Unknown,
}

/// An encryption key with both ciphers that it may stand for. The manifest tells which one, and it may come late.
pub(crate) struct Encryption {
    key: Zeroizing<[u8; 32]>,
    compat: BlockCipher,
    manifest: BlockCipher,
    pub(crate) fingerprint: Hash,
    /// Whether a held block has proven that the key is right.
    pub(crate) is_proven: AtomicBool,
}

impl Encryption {
    pub(crate) fn new(key: Zeroizing<[u8; 32]>, core_key: &[u8; 32]) -> Arc<Self> {
        Arc::new(Encryption {
            compat: BlockCipher::new(&key, core_key, true),
            manifest: BlockCipher::new(&key, core_key, false),
            fingerprint: fingerprint(&key, core_key),
            is_proven: AtomicBool::new(false),
            key,
        })
    }

    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(crate) fn cipher(&self, compat: bool) -> &BlockCipher {
        if compat { &self.compat } else { &self.manifest }
    }

    /// Whether both have the same key.
    pub(crate) fn is_same(&self, other: &Encryption) -> bool {
        self.fingerprint.ct_eq(&other.fingerprint).into()
    }

    pub(crate) fn matches_marker(&self, marker: Option<&[u8]>) -> bool {
        marker.is_some_and(|marker| marker.ct_eq(&self.fingerprint).into())
    }
}

/// A fingerprint of `key` as the encryption key of the core `core_key`. It reveals nothing of the key, and
/// differs between cores.
fn fingerprint(key: &[u8; 32], core_key: &[u8; 32]) -> Hash {
    hash::keyed_hash(key, &[DOMAIN, core_key])
}

/// The marker in memory, for calls that are too frequent to look it up in the user data.
pub(crate) struct EncryptionState {
    kind: AtomicU8,
    /// Whether the marker is stored in the files. If not, the next append, flush or close writes it.
    is_stored: AtomicBool,
}

pub(crate) const UNKNOWN_LOG: u8 = 0;
pub(crate) const PLAIN_LOG: u8 = 1;
pub(crate) const ENCRYPTED_LOG: u8 = 2;

impl EncryptionState {
    /// The marker of a core with this user data, which its files hold.
    pub(crate) fn of(user_data: &[(String, Vec<u8>)]) -> Self {
        let state = EncryptionState { kind: AtomicU8::new(UNKNOWN_LOG), is_stored: AtomicBool::new(true) };
        user_data.iter().for_each(|(key, value)| state.user_data_changed(key, value));
        state
    }

    /// Updates the marker after a committed change of the user data.
    pub(crate) fn user_data_changed(&self, key: &str, value: &[u8]) {
        if key == MARKER {
            self.set_marker(value, true);
        }
    }

    pub(crate) fn set_marker(&self, marker: &[u8], is_stored: bool) {
        let kind = match marker {
            PLAIN_MARKER => PLAIN_LOG,
            _ if marker.len() == size_of::<Hash>() => ENCRYPTED_LOG,
            // It was removed, or has a form that a later version may write.
            _ => UNKNOWN_LOG,
        };
        self.is_stored.store(is_stored, Ordering::SeqCst);
        self.kind.store(kind, Ordering::SeqCst);
    }

    pub(crate) fn is_stored(&self) -> bool {
        self.is_stored.load(Ordering::SeqCst)
    }

    pub(crate) fn kind(&self) -> u8 {
        self.kind.load(Ordering::SeqCst)
    }
}

/// The user data of a new core. A core without a key pair gets no marker, because its key is unverified until a block
/// is read.
pub(crate) fn user_data_of_new_core(
    encryption_key: Option<&[u8; 32]>,
    key: Key,
    key_pair: Option<&KeyPair>,
) -> Vec<(String, Vec<u8>)> {
    match (encryption_key, key_pair) {
        (Some(encryption_key), Some(_)) => {
            vec![(MARKER.to_owned(), fingerprint(encryption_key, key.as_bytes()).to_vec())]
        }
        _ => Vec::new(),
    }
}

/// Fails if the library keeps the user data name `key` for itself.
pub(crate) fn check_user_data_key(key: &str) -> Result<()> {
    if key.starts_with(RESERVED) {
        return Err(Error::bad_argument(format!(
            "user data {key:?}: names that begin with {RESERVED:?} belong to the library: take another name"
        )));
    }
    Ok(())
}

/// The marker in the user data of a core, if it has a form that this version knows.
pub(crate) fn marker_in(user_data: &[(String, Vec<u8>)]) -> Option<&[u8]> {
    let marker = user_data.iter().find(|(key, _)| key == MARKER).map(|(_, value)| value.as_slice());
    marker.filter(|marker| *marker == PLAIN_MARKER || marker.len() == size_of::<Hash>())
}
