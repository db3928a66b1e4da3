//! Whether a log is encrypted, with which key, and how a call can tell.
//!
//! Nothing in the files of the reference says that a log is encrypted. Two things tell:
//!
//! * **The padding of a held block.** It holds a fork, blinded with the key: unblinded with the right key it is at most the present fork,
//!   with another key, or in a plain block, it is random. A padding that fits proves the key, except once in 2^64 divided by the fork.
//!   One that does not fit proves nothing by itself: the block may be damaged. So the whole block is compared with its hash first.
//! * **The marker**, an entry of the core's user data, which other implementations keep and ignore. It holds a fingerprint of the encryption
//!   key or, for a log that this library began without a key, one byte that says so. It is what an open without the key goes by. The
//!   fingerprint is stored only for a key that is known to be right: that of a new core with a key pair, of the first append to an
//!   empty log, or one that a held block proves. The other byte counts only while the log has blocks.
//!
//! Held blocks decide; only where none of them can be read, the marker does. A marker that they contradict is replaced: it was made with
//! a core that was then filled from a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::core::commit::{Change, set_user_data};
use crate::core::options::{Durability, OpenOptions};
use crate::core::session::Session;
use crate::core::state::Shared;
use crate::crypto::block_cipher::{BlockCipher, PADDING};
use crate::crypto::hash::{self, Hash};
use crate::crypto::keys::{Key, KeyPair};
use crate::merkle;
use crate::{Error, ErrorKind, Result};

/// The user data that holds the marker.
const MARKER: &str = "hypercore-blocking/encryption";

/// User data under names that begin like this is the library's own.
const RESERVED: &str = "hypercore-blocking/";

/// The marker of a log that was begun without a key. No fingerprint has its length.
const PLAIN: &[u8] = &[0];

/// Keeps the fingerprint apart from every other hash that is keyed with an encryption key.
const DOMAIN: &[u8] = b"hypercore-blocking encryption key fingerprint";

/// The most held blocks that are looked at from each end of the log: some may be damaged, and an older version could append plain
/// blocks to an encrypted log.
const LOOKS: usize = 4;

/// Whether the blocks of a log are encrypted, as far as this core knows; see [`Hypercore::is_encrypted`](crate::Hypercore::is_encrypted).
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
    fingerprint: Hash,
    /// Whether a held block has shown that the key is right.
    is_proven: AtomicBool,
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

    fn is_marked_by(&self, marker: Option<&[u8]>) -> bool {
        marker.is_some_and(|marker| marker.ct_eq(&self.fingerprint).into())
    }
}

/// A fingerprint of `key` as the encryption key of the core `core_key`. It tells nothing of the key, and another core has another one.
fn fingerprint(key: &[u8; 32], core_key: &[u8; 32]) -> Hash {
    hash::keyed_hash(key, &[DOMAIN, core_key])
}

/// What the marker says, for calls that are too frequent to look it up.
pub(crate) struct Known {
    kind: AtomicU8,
    /// Whether the files say it too. If not, the next append or flush writes it, or closing does.
    is_stored: AtomicBool,
}

const NOTHING: u8 = 0;
const PLAIN_LOG: u8 = 1;
const ENCRYPTED_LOG: u8 = 2;

impl Known {
    /// What the files of a core say, which have this user data.
    pub(crate) fn of(user_data: &[(String, Vec<u8>)]) -> Self {
        let known = Known { kind: AtomicU8::new(NOTHING), is_stored: AtomicBool::new(true) };
        user_data.iter().for_each(|(key, value)| known.follow(key, value));
        known
    }

    /// Follows a change of the user data that was committed.
    pub(crate) fn follow(&self, key: &str, value: &[u8]) {
        if key == MARKER {
            self.set(value, true);
        }
    }

    fn set(&self, marker: &[u8], is_stored: bool) {
        let kind = match marker {
            PLAIN => PLAIN_LOG,
            _ if marker.len() == size_of::<Hash>() => ENCRYPTED_LOG,
            // Removed, or of a form that a later version may write.
            _ => NOTHING,
        };
        self.is_stored.store(is_stored, Ordering::SeqCst);
        self.kind.store(kind, Ordering::SeqCst);
    }

    pub(crate) fn is_stored(&self) -> bool {
        self.is_stored.load(Ordering::SeqCst)
    }

    fn kind(&self) -> u8 {
        self.kind.load(Ordering::SeqCst)
    }
}

/// The user data that a new core begins with. A reader's key may still turn out to be wrong.
pub(crate) fn user_data_of_new_core(
    options: &OpenOptions,
    key: Key,
    key_pair: Option<&KeyPair>,
) -> Vec<(String, Vec<u8>)> {
    match (&options.encryption_key, key_pair) {
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

/// What the held blocks say of a key.
enum Found {
    Fits,
    /// This undamaged block speaks against it, and none speaks for it.
    Against(u64),
    /// No block could be looked at.
    Nothing,
}

impl Shared {
    /// Fails if the log is known to be encrypted.
    pub(crate) fn check_without_key(&self) -> Result<()> {
        if self.encrypted.kind() != ENCRYPTED_LOG {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Encryption,
            "the blocks of this log are encrypted, and no encryption key is given: give the key that they were encrypted with",
        ))
    }

    /// Fails if `encryption`, or that there is none, is known not to fit the log. Costs nothing once a held block has shown that the
    /// key is right.
    pub(crate) fn check_encryption(&self, encryption: Option<&Encryption>) -> Result<()> {
        let Some(encryption) = encryption else { return self.check_without_key() };
        if encryption.is_proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let why = match self.ask_held_blocks(encryption)? {
            Found::Fits => {
                self.key_is_proven(encryption);
                return Ok(());
            }
            Found::Against(index) => return Err(crate::crypto::block_cipher::wrong_key(index)),
            Found::Nothing => {
                let state = self.state.read();
                match marker_in(&state.user_data) {
                    marker if encryption.is_marked_by(marker) => return Ok(()),
                    Some(PLAIN) if state.head.length() > 0 => {
                        "the blocks of this log are plain, and an encryption key is given: open the core without it"
                    }
                    Some(PLAIN) | None => return Ok(()),
                    Some(_) => {
                        "this log is encrypted with another key than the one given: give the key that its first block was, or was \
                         to be, encrypted with"
                    }
                }
            }
        };
        Err(Error::new(ErrorKind::Encryption, why))
    }

    /// Looks at a few held blocks from both ends of the log: whether `encryption` is the key of one of them.
    fn ask_held_blocks(&self, encryption: &Encryption) -> Result<Found> {
        let held = self.outermost_held_blocks()?;
        for &index in &held {
            // What cannot be read or does not fit may be damaged, or given up meanwhile: the whole block tells below.
            let Ok(padding) = self.read_padding(index) else { continue };
            if self.fits(encryption, index, &padding)? {
                return Ok(Found::Fits);
            }
        }
        for &index in &held {
            match self.read_block(index) {
                Ok(Some(stored)) if self.fits(encryption, index, &stored)? => return Ok(Found::Fits),
                Ok(Some(_)) => return Ok(Found::Against(index)),
                _ => {}
            }
        }
        Ok(Found::Nothing)
    }

    fn fits(&self, encryption: &Encryption, index: u64, stored: &[u8]) -> Result<bool> {
        // The fork only grows: it is at least what it was when the block was read.
        let state = self.state.read();
        Ok(encryption.cipher(state.authority.is_compat()).fits(index, state.head.fork, stored))
    }

    fn outermost_held_blocks(&self) -> Result<Vec<u64>> {
        let state = self.state.read();
        let (bits, length) = (&state.files()?.bits, state.head.length());
        let mut held = Vec::new();
        let mut end = length;
        while held.len() < LOOKS {
            let Some(index) = bits.last_set_before(end)? else { return Ok(held) };
            held.push(index);
            end = index;
        }
        let mut start = 0;
        while held.len() < 2 * LOOKS {
            let Some(index) = bits.first_set(start, end)? else { return Ok(held) };
            held.push(index);
            start = index + 1;
        }
        Ok(held)
    }

    /// The first bytes of block `index`, which were not compared with any hash.
    fn read_padding(&self, index: u64) -> Result<Vec<u8>> {
        let (offset, size, blocks) = {
            let state = self.state.read();
            let files = state.files()?;
            let (offset, size) = merkle::byte_range(&files.tree, &state.head, index)?;
            (offset, size, files.blocks.clone())
        };
        blocks.read(offset, size.min(PADDING as u64) as usize)
    }

    /// Follows that a held block has shown `encryption` to be right. Only memory changes: a read must not wait for a writer, nor fail
    /// for want of disk space.
    pub(crate) fn key_is_proven(&self, encryption: &Encryption) {
        if encryption.is_proven.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.write();
        if !encryption.is_marked_by(marker_in(&state.user_data)) {
            set_user_data(&mut state.user_data, MARKER.to_owned(), encryption.fingerprint.to_vec());
            self.encrypted.set(&encryption.fingerprint, false);
        }
    }

    /// The user data that an append with `encryption` has to store with its blocks, if any. The caller holds the writer, and checked
    /// the key under it.
    pub(crate) fn marker_of_append(&self, encryption: Option<&Encryption>) -> Option<(String, Vec<u8>)> {
        let state = self.state.read();
        let marker = marker_in(&state.user_data);
        let is_empty = state.head.length() == 0;
        let value = match encryption {
            Some(key) if key.is_marked_by(marker) && self.encrypted.is_stored() => return None,
            Some(key) if is_empty || key.is_proven.load(Ordering::Relaxed) => key.fingerprint.to_vec(),
            // With this durability the files of a plain log are byte for byte those of the reference.
            None if is_empty && marker.is_none() && self.durability != Durability::None => PLAIN.to_vec(),
            _ => return None,
        };
        Some((MARKER.to_owned(), value))
    }
}

fn marker_in(user_data: &[(String, Vec<u8>)]) -> Option<&[u8]> {
    user_data.iter().find(|(key, _)| key == MARKER).map(|(_, value)| value.as_slice())
}

impl Session {
    /// Fails if the session's encryption key, or that it has none, is known not to fit the log.
    pub(crate) fn check_encryption(&self) -> Result<()> {
        self.shared.check_encryption(self.encryption().map(Arc::as_ref))
    }

    /// The stored block `index`, decrypted if the session has a key.
    pub(crate) fn decrypt(&self, index: u64, stored: Vec<u8>) -> Result<Vec<u8>> {
        let Some(encryption) = self.encryption() else { return Ok(stored) };
        let (compat, fork) = {
            let state = self.shared.state.read();
            (state.authority.is_compat(), state.head.fork)
        };
        let block = encryption.cipher(compat).decrypt(index, fork, stored)?;
        self.shared.key_is_proven(encryption);
        Ok(block)
    }

    /// Where the core has no marker and the session a key that a held block proves, stores the marker. No reason to fail: a wrong key
    /// is for the calls that need the right one, and what cannot be stored is kept in memory.
    pub(crate) fn mark_at_opening(&self) {
        let shared = &*self.shared;
        let Some(encryption) = self.encryption().filter(|_| shared.encrypted.kind() == NOTHING) else { return };
        if !matches!(shared.ask_held_blocks(encryption), Ok(Found::Fits)) {
            return;
        }
        shared.key_is_proven(encryption);
        let Ok(mut writer) = shared.writer() else { return };
        let user_data = Some((MARKER.to_owned(), encryption.fingerprint.to_vec()));
        // A failure is told by the next change.
        let _ = shared.commit(&mut writer, &[], vec![Change { user_data, ..Change::default() }]);
    }

    /// See [`crate::Hypercore::is_encrypted`].
    pub(crate) fn is_encrypted(&self) -> Encrypted {
        match self.shared.encrypted.kind() {
            ENCRYPTED_LOG => Encrypted::Yes,
            PLAIN_LOG if self.shared.state.read().head.length() > 0 => Encrypted::No,
            _ => Encrypted::Unknown,
        }
    }
}
