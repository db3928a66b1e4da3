//! Whether a log is encrypted, with which key, and how a call can tell. `core/key_check.rs` does the checks.
//!
//! Nothing in the files of the reference says that a log is encrypted. Two things tell:
//!
//! * **The padding of a held block.** It holds a fork, blinded with the key. Unblinded with the right key it is at
//!   most the present fork; unblinded with another key, or taken from a plain block, it is a random number. A padding
//!   that fits therefore proves the key. One that does not fit proves nothing by itself, for the block may be damaged:
//!   the whole block is compared with its hash before a key is refused.
//! * **The marker**, an entry of the core's user data, which other implementations keep and ignore. It holds a
//!   fingerprint of the encryption key or, for a log that this library began without a key, one byte. An open without
//!   the key goes by it. The fingerprint is stored only for a key that is state to be right: that of a new core with
//!   a key pair, that of the first append to an empty log, or one that a held block proves. The one byte of a plain
//!   log counts only while the log has blocks.
//!
//! Held blocks decide; the marker does only where no held block can be read. A marker that a held block contradicts is
//! replaced: it was made with a new core that was then filled from a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::block_cipher::BlockCipher;
use crate::crypto::hash::{self, Hash};
use crate::crypto::keys::{Key, KeyPair};
use crate::{Error, Result};

/// The user data that holds the marker.
pub(crate) const MARKER: &str = "hypercore-blocking/encryption";

/// User data under names that begin like this is the library's own.
const RESERVED: &str = "hypercore-blocking/";

/// The marker of a log that was begun without a key. No fingerprint has its length.
pub(crate) const PLAIN_MARKER: &[u8] = &[0];

/// Keeps the fingerprint apart from every other hash that is keyed with an encryption key.
const DOMAIN: &[u8] = b"hypercore-blocking encryption key fingerprint";

/// Whether the blocks of a log are encrypted, as far as this core knows; see
/// [`Hypercore::is_encrypted`](crate::Hypercore::is_encrypted).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Encrypted {
    /// They are: the core was made with a key, or a key was shown to be right.
    Yes,
    /// They are not: this library began the log without a key.
    No,
    /// Nothing tells. A log that another implementation wrote is unknown until it is opened with its key.
    Unknown,
}

/// An encryption key with both ciphers it may mean: which one, the manifest tells, and that may come late.
pub(crate) struct Encryption {
    key: Zeroizing<[u8; 32]>,
    compat: BlockCipher,
    manifest: BlockCipher,
    pub(crate) fingerprint: Hash,
    /// Whether a held block has shown that the key is right.
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

    /// Whether both are of the same key.
    pub(crate) fn is_same(&self, other: &Encryption) -> bool {
        self.fingerprint.ct_eq(&other.fingerprint).into()
    }

    pub(crate) fn matches_marker(&self, marker: Option<&[u8]>) -> bool {
        marker.is_some_and(|marker| marker.ct_eq(&self.fingerprint).into())
    }
}

/// A fingerprint of `key` as the encryption key of the core `core_key`. It tells nothing of the key, and another core
/// has another one.
fn fingerprint(key: &[u8; 32], core_key: &[u8; 32]) -> Hash {
    hash::keyed_hash(key, &[DOMAIN, core_key])
}

/// What the marker says, for calls that are too frequent to look it up.
pub(crate) struct EncryptionState {
    kind: AtomicU8,
    /// Whether the files say it too. If not, the next append or flush writes it, or closing does.
    is_stored: AtomicBool,
}

pub(crate) const UNKNOWN_LOG: u8 = 0;
pub(crate) const PLAIN_LOG: u8 = 1;
pub(crate) const ENCRYPTED_LOG: u8 = 2;

impl EncryptionState {
    /// What the files of a core say, which have this user data.
    pub(crate) fn of(user_data: &[(String, Vec<u8>)]) -> Self {
        let state = EncryptionState { kind: AtomicU8::new(UNKNOWN_LOG), is_stored: AtomicBool::new(true) };
        user_data.iter().for_each(|(key, value)| state.user_data_changed(key, value));
        state
    }

    /// Follows a change of the user data that was committed.
    pub(crate) fn user_data_changed(&self, key: &str, value: &[u8]) {
        if key == MARKER {
            self.set_marker(value, true);
        }
    }

    pub(crate) fn set_marker(&self, marker: &[u8], is_stored: bool) {
        let kind = match marker {
            PLAIN_MARKER => PLAIN_LOG,
            _ if marker.len() == size_of::<Hash>() => ENCRYPTED_LOG,
            // Removed, or of a form that a later version may write.
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

/// The user data that a new core begins with. A reader's key may still turn out to be wrong.
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

/// Fails for a name of user data that is the library's own.
pub(crate) fn check_user_data_key(key: &str) -> Result<()> {
    if key.starts_with(RESERVED) {
        return Err(Error::bad_argument(format!(
            "user data {key:?}: names that begin with {RESERVED:?} are the library's own: take another name"
        )));
    }
    Ok(())
}

/// The marker among the user data of a core, if it is there in a form that this version knows.
pub(crate) fn marker_in(user_data: &[(String, Vec<u8>)]) -> Option<&[u8]> {
    let marker = user_data.iter().find(|(key, _)| key == MARKER).map(|(_, value)| value.as_slice());
    marker.filter(|marker| *marker == PLAIN_MARKER || marker.len() == size_of::<Hash>())
}
