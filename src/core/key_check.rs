//! Checking an encryption key, or that none is given, against held blocks and the marker;
//! `core/encryption.rs` describes both.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::change::Change;
use crate::core::durability::Durability;
use crate::core::encryption::{
    ENCRYPTED_LOG, Encrypted, Encryption, MARKER, PLAIN_LOG, PLAIN_MARKER, UNKNOWN_LOG, marker_in,
};
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::crypto::block_cipher::{PADDING, wrong_key};
use crate::merkle;
use crate::{Error, ErrorKind, Result};

/// The most held blocks that are checked from each end of the log. More than one is checked because blocks may be
/// damaged, and because an older version could append plain blocks to an encrypted log.
const CHECKED_BLOCKS: usize = 4;

/// The result of checking a key against held blocks.
enum KeyCheck {
    Right,
    /// This undamaged block was not encrypted with the key, and no checked block was.
    Wrong(u64),
    /// No block could be checked.
    Unknown,
}

impl Shared {
    /// Fails if the log is known to be encrypted.
    pub(crate) fn check_without_key(&self) -> Result<()> {
        if self.encryption_state.kind() != ENCRYPTED_LOG {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Encryption,
            "the blocks of this log are encrypted, and no encryption key is given: give the key that they were \
             encrypted with",
        ))
    }

    /// Fails if `encryption`, or the lack of it, is known not to fit the log. Reads nothing once a held block has
    /// proven the key.
    pub(crate) fn check_encryption(&self, encryption: Option<&Encryption>) -> Result<()> {
        let Some(encryption) = encryption else { return self.check_without_key() };
        if encryption.is_proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let why = match self.check_held_blocks(encryption)? {
            KeyCheck::Right => {
                self.set_key_proven(encryption);
                return Ok(());
            }
            KeyCheck::Wrong(index) => return Err(wrong_key(index)),
            KeyCheck::Unknown => {
                let state = self.state.read();
                match marker_in(&state.user_data) {
                    marker if encryption.matches_marker(marker) => return Ok(()),
                    Some(PLAIN_MARKER) if state.head.length() > 0 => {
                        "the blocks of this log are plain, and an encryption key is given: open the core without it"
                    }
                    Some(PLAIN_MARKER) | None => return Ok(()),
                    Some(_) => {
                        "this log is encrypted with another key than the one given: give the key that the core was \
                         made or begun with"
                    }
                }
            }
        };
        Err(Error::new(ErrorKind::Encryption, why))
    }

    /// Checks the key against a few held blocks from both ends of the log. One that fits is enough.
    fn check_held_blocks(&self, encryption: &Encryption) -> Result<KeyCheck> {
        let held = self.outermost_held_blocks()?;
        for &index in &held {
            // A padding that cannot be read or does not fit may be damaged, or its block was freed: the loop
            // below checks the whole block.
            let Ok(padding) = self.read_padding(index) else { continue };
            if self.fits(encryption, index, &padding)? {
                return Ok(KeyCheck::Right);
            }
        }
        for &index in &held {
            match self.read_block(index) {
                Ok(Some(stored)) if self.fits(encryption, index, &stored)? => return Ok(KeyCheck::Right),
                Ok(Some(_)) => return Ok(KeyCheck::Wrong(index)),
                _ => {}
            }
        }
        Ok(KeyCheck::Unknown)
    }

    fn fits(&self, encryption: &Encryption, index: u64, stored: &[u8]) -> Result<bool> {
        // The fork only grows, so it is at least what it was when the block was read.
        let state = self.state.read();
        Ok(encryption.cipher(state.verifier.is_compat()).fits(index, state.head.fork, stored))
    }

    fn outermost_held_blocks(&self) -> Result<Vec<u64>> {
        let state = self.state.read();
        let (bits, length) = (&state.files()?.bits, state.head.length());
        let mut held = Vec::new();
        let mut end = length;
        while held.len() < CHECKED_BLOCKS {
            let Some(index) = bits.last_set_before(end)? else { return Ok(held) };
            held.push(index);
            end = index;
        }
        let mut start = 0;
        while held.len() < 2 * CHECKED_BLOCKS {
            let Some(index) = bits.first_set(start, end)? else { return Ok(held) };
            held.push(index);
            start = index + 1;
        }
        Ok(held)
    }

    /// The first bytes of block `index`, without a comparison with its hash.
    fn read_padding(&self, index: u64) -> Result<Vec<u8>> {
        let (offset, size, blocks) = {
            let state = self.state.read();
            let files = state.files()?;
            let (offset, size) = merkle::byte_range(&files.tree, &state.head, index)?;
            (offset, size, files.blocks.clone())
        };
        blocks.read(offset, size.min(PADDING as u64) as usize)
    }

    /// Notes that a held block has proven the key. Only memory changes, because a read must not wait for a writer,
    /// nor fail for lack of disk space.
    pub(crate) fn set_key_proven(&self, encryption: &Encryption) {
        if encryption.is_proven.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.write();
        if !encryption.matches_marker(marker_in(&state.user_data)) {
            state.set_user_data(MARKER, &encryption.fingerprint);
            self.encryption_state.set_marker(&encryption.fingerprint, false);
        }
    }

    /// The user data that an append with `encryption` has to store with its blocks, if any. The caller holds the
    /// writer lock and checked the key under it.
    pub(crate) fn marker_of_append(&self, encryption: Option<&Encryption>) -> Option<(String, Vec<u8>)> {
        let state = self.state.read();
        let marker = marker_in(&state.user_data);
        let is_empty = state.head.length() == 0;
        let value = match encryption {
            Some(key) if key.matches_marker(marker) && self.encryption_state.is_stored() => return None,
            // No held block contradicts the key, and from now on one is encrypted with it.
            Some(key) => key.fingerprint.to_vec(),
            // With `Durability::None` the files of a plain log stay byte for byte those of JavaScript Hypercore.
            None if is_empty && marker.is_none() && self.durability != Durability::None => PLAIN_MARKER.to_vec(),
            _ => return None,
        };
        Some((MARKER.to_owned(), value))
    }
}

impl Session {
    /// Fails if the session's encryption key, or the lack of one, is known not to fit the log.
    pub(crate) fn check_encryption(&self) -> Result<()> {
        self.shared.check_encryption(self.encryption().map(Arc::as_ref))
    }

    /// The stored block `index`, decrypted if the session has a key.
    pub(crate) fn decrypt(&self, index: u64, stored: Vec<u8>) -> Result<Vec<u8>> {
        let Some(encryption) = self.encryption() else { return Ok(stored) };
        let (compat, fork) = {
            let state = self.shared.state.read();
            (state.verifier.is_compat(), state.head.fork)
        };
        let block = encryption.cipher(compat).decrypt(index, fork, stored)?;
        self.shared.set_key_proven(encryption);
        Ok(block)
    }

    /// Stores the marker if the core has none and a held block proves the session's key. This never fails: calls
    /// that need the right key report a wrong one, and a marker that cannot be stored is kept in memory.
    pub(crate) fn store_marker_at_open(&self) {
        let shared = &*self.shared;
        let Some(encryption) = self.encryption().filter(|_| shared.encryption_state.kind() == UNKNOWN_LOG) else {
            return;
        };
        if !matches!(shared.check_held_blocks(encryption), Ok(KeyCheck::Right)) {
            return;
        }
        shared.set_key_proven(encryption);
        let Ok(mut writer) = shared.writer() else { return };
        let user_data = Some((MARKER.to_owned(), encryption.fingerprint.to_vec()));
        // The next change reports a failure.
        let _ = shared.commit(&mut writer, &[], vec![Change { user_data, ..Change::default() }]);
    }

    /// See [`crate::Hypercore::is_encrypted`].
    pub(crate) fn is_encrypted(&self) -> Encrypted {
        match self.shared.encryption_state.kind() {
            ENCRYPTED_LOG => Encrypted::Yes,
            PLAIN_LOG if self.shared.state.read().head.length() > 0 => Encrypted::No,
            _ => Encrypted::Unknown,
        }
    }
}
