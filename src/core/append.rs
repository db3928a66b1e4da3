//! Append: hash the leaves, compute the tree, sign and commit, together with the appends of other
//! threads that wait.

use std::sync::Arc;
use std::time::Instant;

use crate::core::append_queue::{Follower, Joined, Leader};
use crate::core::change::{BlockBytes, Change};
use crate::core::durability::Durability;
use crate::core::encryption::Encryption;
use crate::core::leaf_hashes::hash_leaves;
use crate::core::limits::check_block;
use crate::core::options::SignOptions;
use crate::core::session::Session;
use crate::core::shared::{Shared, WriterGuard};
use crate::core::signing::{sign_or_prologue, signing_verifier};
use crate::crypto::block_cipher::PADDING;
use crate::crypto::hash::Hash;
use crate::crypto::keys::KeyPair;
use crate::index::NodeIndex;
use crate::manifest::{SignableTree, Verifier};
use crate::merkle::{self, Head, Patch};
use crate::node::{Node, Roots};
use crate::oplog::BitfieldUpdate;
use crate::{Error, ErrorKind, Result};

/// The most blocks of one batch: one oplog entry holds them all, and opening reads an entry into memory whole.
const MAX_BATCH_BLOCKS: usize = 1 << 20;

/// The position of appended blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// The index of the first appended block. The others follow it without a gap.
    pub index: u64,
    /// The length of the log after the last appended block.
    pub length: u64,
    /// The byte length of the log after the last appended block, without the padding of encrypted blocks.
    #[doc(alias = "byteLength")]
    pub byte_length: u64,
}

/// One caller's part of a commit.
pub(crate) struct Part<'a> {
    pub(crate) blocks: Vec<&'a [u8]>,
    /// Size and hash of each block as stored. Empty for an encrypted core: its blocks are encrypted once their
    /// index is known.
    pub(crate) leaves: &'a [(u64, Hash)],
    pub(crate) encryption: Option<&'a Encryption>,
}

impl Session {
    /// See [`crate::Hypercore::append_batch`].
    pub(crate) fn append(&self, blocks: &[&[u8]], options: SignOptions) -> Result<Appended> {
        blocks.iter().try_for_each(|block| check_block(block))?;
        if blocks.len() > MAX_BATCH_BLOCKS {
            return Err(Error::bad_argument(format!(
                "a batch of {} blocks is larger than the {MAX_BATCH_BLOCKS} that one commit takes: append it in parts",
                blocks.len()
            )));
        }
        let padding = self.padding();
        let appended = if options.signature.is_some() {
            self.check_writable(true)?;
            self.append_signed(blocks, &options)?
        } else {
            let key_pair = self.signing_key_pair(options.key_pair.as_ref())?;
            self.check_encryption()?;
            self.append_in_group(blocks, key_pair)?
        };
        self.shared.deliver();
        let (length, byte_length) = appended;
        Ok(Appended {
            index: length.saturating_sub(blocks.len() as u64),
            length,
            byte_length: byte_length.saturating_sub(length.saturating_mul(padding)),
        })
    }

    fn append_in_group(&self, blocks: &[&[u8]], key_pair: KeyPair) -> Result<(u64, u64)> {
        let shared = &*self.shared;
        let encryption = self.encryption();
        let leaves = if encryption.is_some() { Vec::new() } else { hash_leaves(blocks) };
        let own = Part { blocks: blocks.to_vec(), leaves: &leaves, encryption: encryption.map(Arc::as_ref) };
        if let Some(leader) = shared.queue.try_lead() {
            return shared.append_as_leader(leader, own, &key_pair);
        }
        let copies = blocks.iter().map(|b| b.to_vec()).collect();
        let follower = Arc::new(Follower::new(copies, leaves.clone(), encryption.cloned(), key_pair.clone()));
        match shared.queue.join(&follower) {
            Joined::Committed(lengths) => lengths,
            Joined::Leads(leader) => shared.append_as_leader(leader, own, &key_pair),
        }
    }

    fn append_signed(&self, blocks: &[&[u8]], options: &SignOptions) -> Result<(u64, u64)> {
        let shared = &*self.shared;
        let mut writer = shared.writer()?;
        self.check_encryption()?;
        let encryption = self.encryption().map(Arc::as_ref);
        let leaves = if encryption.is_some() { Vec::new() } else { hash_leaves(blocks) };
        let prepared = shared.prepare_append(&[Part { blocks: blocks.to_vec(), leaves: &leaves, encryption }])?;
        let verifier = shared.state.read().verifier.clone();
        let signature = options.signature.as_deref().unwrap_or_default();
        verifier.check(SignableTree { roots: &prepared.roots, fork: prepared.fork }, signature)?;
        let marker = shared.marker_of_append(encryption);
        shared.commit_prepared(&mut writer, prepared, signature.to_vec(), None, marker)
    }
}

/// A batch whose tree is computed and whose blocks are encrypted, not yet signed.
pub(crate) struct Prepared<'a> {
    patch: Patch,
    pub(crate) roots: Roots,
    pub(crate) fork: u64,
    byte_offset: u64,
    blocks: PreparedBlocks<'a>,
}

enum PreparedBlocks<'a> {
    Plain(Vec<&'a [u8]>),
    Sealed(Vec<Vec<u8>>),
}

impl Shared {
    /// Commits `own` together with the appends of followers that have the same key pair and encryption key.
    fn append_as_leader(&self, leader: Leader<'_>, own: Part<'_>, key_pair: &KeyPair) -> Result<(u64, u64)> {
        if self.durability == Durability::Always {
            leader.gather();
        }
        let guard = self.writer.lock();
        let start = Instant::now();
        let mut blocks = own.blocks.len();
        let group = leader.take_group(|follower| {
            blocks += follower.blocks.len();
            let same_encryption = match (&follower.encryption, own.encryption) {
                (Some(theirs), Some(ours)) => theirs.is_same(ours),
                (theirs, ours) => theirs.is_none() && ours.is_none(),
            };
            same_encryption && follower.key_pair.public_key() == key_pair.public_key() && blocks <= MAX_BATCH_BLOCKS
        });
        let others = group.followers().map(|follower| Part {
            blocks: follower.blocks.iter().map(Vec::as_slice).collect(),
            leaves: &follower.leaves,
            encryption: follower.encryption.as_deref(),
        });
        let parts: Vec<Part<'_>> = std::iter::once(own).chain(others).collect();
        let committed =
            self.check_writer(guard).and_then(|mut writer| self.commit_append(&mut writer, &parts, key_pair));
        leader.committed(parts.len(), start.elapsed());
        // The writer lock is free. Give up the lead too before the followers wake and append again.
        drop(leader);
        drop(parts);
        let length = |at: usize| committed.as_ref().map(|lengths| lengths[at]).map_err(Error::clone);
        group.finish(|at| length(at + 1));
        length(0)
    }

    /// Signs and commits `parts` as one change. Returns length and byte length after each part.
    fn commit_append(
        &self,
        writer: &mut WriterGuard<'_>,
        parts: &[Part<'_>],
        key_pair: &KeyPair,
    ) -> Result<Vec<(u64, u64)>> {
        let (mut length, mut byte_length, verifier, new_verifier) = {
            let state = self.state.read();
            let (verifier, new_verifier) = signing_verifier(&state, self.key, Some(key_pair))?;
            (state.head.length(), state.head.byte_length(), verifier, new_verifier)
        };
        let lengths = parts
            .iter()
            .map(|part| {
                length += part.blocks.len() as u64;
                let padding = if part.encryption.is_some() { PADDING } else { 0 };
                byte_length += part.blocks.iter().map(|b| (b.len() + padding) as u64).sum::<u64>();
                (length, byte_length)
            })
            .collect();
        if parts.iter().all(|p| p.blocks.is_empty()) {
            return Ok(lengths);
        }
        // All parts have one encryption key. It is checked again under the writer lock: another append may have
        // begun the log with another key, or without one.
        let encryption = parts.first().and_then(|part| part.encryption);
        self.check_encryption(encryption)?;
        let prepared = self.prepare_append(parts)?;
        if let Some(prologue) = verifier.prologue().filter(|p| prepared.roots.length() < p.length) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("the first {} blocks are the manifest's prologue: append them in one batch", prologue.length),
            ));
        }
        let signature =
            sign_or_prologue(&verifier, SignableTree { roots: &prepared.roots, fork: prepared.fork }, key_pair)?;
        self.commit_prepared(writer, prepared, signature, new_verifier, self.marker_of_append(encryption))?;
        Ok(lengths)
    }

    /// Computes the log's tree with `parts` appended. The caller holds the writer lock.
    pub(crate) fn prepare_append<'a>(&self, parts: &[Part<'a>]) -> Result<Prepared<'a>> {
        let state = self.state.read();
        let head = &state.head;
        let start = head.length();
        let is_sealed = parts.iter().any(|p| p.encryption.is_some());
        let sealed = is_sealed.then(|| seal(parts, start, head.fork, state.verifier.is_compat()));
        let leaf = |(i, &(size, hash)): (usize, &(u64, Hash))| Node {
            index: NodeIndex::of_block(start + i as u64),
            size,
            hash,
        };
        let (patch, blocks) = match sealed {
            Some(blocks) => {
                let views: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
                let leaves = hash_leaves(&views);
                (merkle::append(head, leaves.iter().enumerate().map(leaf))?, PreparedBlocks::Sealed(blocks))
            }
            None => {
                let leaves = parts.iter().flat_map(|p| p.leaves).enumerate().map(leaf);
                let patch = merkle::append(head, leaves)?;
                (patch, PreparedBlocks::Plain(parts.iter().flat_map(|p| p.blocks.iter().copied()).collect()))
            }
        };
        let roots = patch.upgrade.as_ref().map_or_else(|| head.roots.clone(), |h| h.roots.clone());
        Ok(Prepared { patch, roots, fork: head.fork, byte_offset: head.byte_length(), blocks })
    }

    fn commit_prepared(
        &self,
        writer: &mut WriterGuard<'_>,
        prepared: Prepared<'_>,
        signature: Vec<u8>,
        new_verifier: Option<Verifier>,
        user_data: Option<(String, Vec<u8>)>,
    ) -> Result<(u64, u64)> {
        let mut patch = prepared.patch;
        if let Some(Head { signature: slot, .. }) = &mut patch.upgrade {
            *slot = signature;
        }
        let views: Vec<&[u8]> = match &prepared.blocks {
            PreparedBlocks::Plain(blocks) => blocks.clone(),
            PreparedBlocks::Sealed(blocks) => blocks.iter().map(Vec::as_slice).collect(),
        };
        let bits = BitfieldUpdate { drop: false, start: patch.base_length, length: views.len() as u64 };
        let lengths = (prepared.roots.length(), prepared.roots.byte_length());
        let change =
            Change { patch: Some(patch), bits: Some(bits), verifier: new_verifier, user_data, ..Change::default() };
        self.commit(writer, &[BlockBytes { offset: prepared.byte_offset, blocks: &views }], vec![change])?;
        Ok(lengths)
    }
}

/// Encrypts the blocks of all parts; the first has the index `start`.
fn seal(parts: &[Part<'_>], start: u64, fork: u64, compat: bool) -> Vec<Vec<u8>> {
    let blocks = parts.iter().flat_map(|p| p.blocks.iter().map(|b| (*b, p.encryption)));
    blocks
        .zip(start..)
        .map(|((block, encryption), index)| match encryption {
            Some(encryption) => encryption.cipher(compat).encrypt(index, fork, block),
            None => block.to_vec(),
        })
        .collect()
}
