//! Local changes: append, truncate, clear, user data, purge.
//!
//! Several threads that append at once share a commit: one of them leads, the others leave a copy of their blocks in a queue and wait
//! for their turn, which is that their blocks were committed or that the lead is theirs. Who leads commits what has come by the
//! time the writer is free under one signature, one oplog entry and, where the durability asks for it, one pair of syncs, and
//! then hands the lead to the first who waits. Each caller's blocks are still all there or not at all, and in one piece.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::commit::{BlockBytes, Change};
use crate::core::encryption::{Encryption, check_user_data_key};
use crate::core::options::{Durability, SignOptions, check_block};
use crate::core::proven;
use crate::core::session::Session;
use crate::core::state::{Shared, State, WriterGuard};
use crate::crypto::block_cipher::PADDING;
use crate::crypto::hash::{self, Hash};
use crate::crypto::keys::{Key, KeyPair};
use crate::index::NodeIndex;
use crate::manifest::{Manifest, PartialSignature, SignableTree, Verifier};
use crate::merkle::{self, Head, Patch, Request, UpgradeRequest};
use crate::node::{Node, Roots};
use crate::oplog::{BitfieldUpdate, MAX_USER_DATA};
use crate::sync::{Condvar, Mutex, Rank, Signal};
use crate::{Error, ErrorKind, Result};

/// Batches of at least this many bytes are hashed on several threads: below it, starting one costs more than it saves.
const PARALLEL_BYTES: usize = 256 * 1024;

/// So many bytes of a large batch are hashed in one go.
const PIECE_BYTES: usize = 64 * 1024;

/// Stack of a hashing thread: it calls nothing deep.
const HASH_STACK: usize = 64 * 1024;

/// The most blocks of one batch: all of them stand in one entry of the oplog, which has to be read into memory again.
const MAX_BATCH_BLOCKS: usize = 1 << 20;

/// Where each commit waits for the disk, such a part of the time that the last one took is waited for others to join.
const PATIENCE: u32 = 4;

/// What an append did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The length of the log after the last of the appended blocks.
    pub length: u64,
    /// The byte length after it, as the session counts it.
    #[doc(alias = "byteLength")]
    pub byte_length: u64,
}

/// Appends that wait to be committed together.
pub(crate) struct AppendQueue {
    appends: Mutex<Appends>,
    joined: Condvar,
}

#[derive(Default)]
struct Appends {
    /// Whether somebody commits, or is about to.
    led: bool,
    waiting: VecDeque<Arc<Queued>>,
    /// How many had something to append the last time, and how long it pays to wait for as many again: those whose appends were just
    /// committed mostly come at once with the next.
    expected: usize,
    patience: Duration,
}

struct Queued {
    blocks: Vec<Vec<u8>>,
    leaves: Vec<(u64, Hash)>,
    encryption: Option<Arc<Encryption>>,
    key_pair: KeyPair,
    turn: Signal<Turn>,
}

/// What a queued append waits for.
#[derive(Clone)]
enum Turn {
    /// Another thread committed it; length and byte length after it.
    Done(Result<(u64, u64)>),
    /// It is to be committed by its own thread, with those that wait behind it.
    Lead,
}

/// Appends that are committed together. Whatever comes of it, nobody waits for ever.
struct Group(Vec<Arc<Queued>>);

impl Drop for Group {
    fn drop(&mut self) {
        let lost = || Error::new(ErrorKind::Failed, "the thread that was to commit this append panicked");
        // Who has an answer keeps it.
        self.0.iter().for_each(|q| q.turn.set(Turn::Done(Err(lost()))));
    }
}

/// The lead, which goes on to the next when this one is done with it, whatever comes of it.
struct Lead<'a>(&'a AppendQueue);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut appends = self.0.appends.lock();
        match appends.waiting.pop_front() {
            Some(next) => next.turn.set(Turn::Lead),
            None => appends.led = false,
        }
    }
}

impl AppendQueue {
    pub(crate) fn new() -> Self {
        AppendQueue { appends: Mutex::new(Rank::Queue, Appends::default()), joined: Condvar::new() }
    }

    /// The lead, or none where somebody has it.
    fn try_lead(&self) -> Option<Lead<'_>> {
        let led = std::mem::replace(&mut self.appends.lock().led, true);
        (!led).then(|| Lead(self))
    }

    /// Waits for as many as had something to append the last time, but a moment only.
    fn gather(&self) {
        let mut appends = self.appends.lock();
        let until = Instant::now() + appends.patience;
        while appends.waiting.len() + 1 < appends.expected {
            let (guard, late) = self.joined.wait_until(appends, Some(until));
            appends = guard;
            if late {
                return;
            }
        }
    }

    /// Has `queued` wait behind who leads; where nobody does any more, the lead.
    fn join(&self, queued: &Arc<Queued>) -> Option<Lead<'_>> {
        let mut appends = self.appends.lock();
        if appends.led {
            appends.waiting.push_back(queued.clone());
            self.joined.notify_all();
            return None;
        }
        appends.led = true;
        Some(Lead(self))
    }
}

/// One caller's part of a commit.
struct Part<'a> {
    blocks: Vec<&'a [u8]>,
    /// Size and hash of each block as stored; empty for an encrypted core, whose blocks are sealed when their index is known.
    leaves: &'a [(u64, Hash)],
    encryption: Option<&'a Encryption>,
}

impl Session {
    /// Appends `blocks`; see [`crate::Hypercore::append_batch`].
    pub(crate) fn append(&self, blocks: &[&[u8]], options: SignOptions) -> Result<Appended> {
        blocks.iter().try_for_each(|block| check_block(block))?;
        if blocks.len() > MAX_BATCH_BLOCKS {
            return Err(Error::bad_argument(format!(
                "a batch of {} blocks is larger than the {MAX_BATCH_BLOCKS} that are committed at once: append it in parts",
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
            self.append_shared(blocks, key_pair)?
        };
        self.shared.deliver();
        let (length, byte_length) = appended;
        Ok(Appended { length, byte_length: byte_length.saturating_sub(length.saturating_mul(padding)) })
    }

    fn append_shared(&self, blocks: &[&[u8]], key_pair: KeyPair) -> Result<(u64, u64)> {
        let shared = &*self.shared;
        let encryption = self.encryption();
        let leaves = if encryption.is_some() { Vec::new() } else { hash_leaves(blocks) };
        let own = Part { blocks: blocks.to_vec(), leaves: &leaves, encryption: encryption.map(Arc::as_ref) };
        if let Some(lead) = shared.queue.try_lead() {
            return shared.lead_append(lead, own, &key_pair);
        }
        let queued = Arc::new(Queued {
            blocks: blocks.iter().map(|b| b.to_vec()).collect(),
            leaves: leaves.clone(),
            encryption: encryption.cloned(),
            key_pair: key_pair.clone(),
            turn: Signal::new(),
        });
        match shared.queue.join(&queued) {
            // Who led is done by now.
            Some(lead) => shared.lead_append(lead, own, &key_pair),
            None => match queued.turn.wait(None) {
                Some(Turn::Done(lengths)) => lengths,
                Some(Turn::Lead) => shared.lead_append(Lead(&shared.queue), own, &key_pair),
                None => Err(crate::core::state::closed()),
            },
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

    /// One signer's share of the signature over the log with `blocks` appended.
    pub(crate) fn sign_append(&self, blocks: &[&[u8]], key_pair: &KeyPair) -> Result<PartialSignature> {
        let _writer = self.shared.writer()?;
        self.check_encryption()?;
        let encryption = self.encryption().map(Arc::as_ref);
        let leaves = if encryption.is_some() { Vec::new() } else { hash_leaves(blocks) };
        let prepared = self.shared.prepare_append(&[Part { blocks: blocks.to_vec(), leaves: &leaves, encryption }])?;
        let verifier = self.shared.state.read().verifier.clone();
        verifier.sign_partial(SignableTree { roots: &prepared.roots, fork: prepared.fork }, key_pair)
    }

    /// The share of the signer `signer` that this core's own signature is, for a log of `from` blocks that is to be signed.
    pub(crate) fn partial_signature(&self, signer: u64, from: u64) -> Result<PartialSignature> {
        let shared = &*self.shared;
        let reading = shared.reading()?;
        let head = &reading.head;
        let length = head.length();
        if from > length {
            return Err(Error::new(
                ErrorKind::OutOfBounds,
                format!("the log has {length} blocks; it cannot vouch for {from}"),
            ));
        }
        let stored = head.signature.as_slice();
        let version = shared.state.read().verifier.manifest().map_or(1, |manifest| manifest.version);
        let signature = match <[u8; 64]>::try_from(stored) {
            Ok(signature) => signature,
            Err(_) => *crate::manifest::MultiSignature::decode(version, stored)?
                .first()
                .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the log is not signed yet"))?,
        };
        let nodes = if from == length {
            Vec::new()
        } else {
            let upgrade = Some(UpgradeRequest { start: from, length: length - from });
            let request = Request { upgrade, ..Request::default() };
            // Of a log that was cut meanwhile the nodes may be others, which nobody accepts with this signature.
            let proof = merkle::prove(&reading.tree(shared), head, None, &request)?;
            proof.upgrade.map(|u| u.nodes).unwrap_or_default()
        };
        Ok(PartialSignature { signer, signature, patch: length - from, nodes })
    }

    /// Cuts the log to `length` blocks; see [`crate::Hypercore::truncate`].
    pub(crate) fn truncate(&self, length: u64, options: SignOptions) -> Result<u64> {
        let shared = &*self.shared;
        let given = options.signature.is_some();
        let key_pair = if given {
            self.check_writable(true)?;
            None
        } else {
            Some(self.signing_key_pair(options.key_pair.as_ref())?)
        };
        let mut writer = shared.writer()?;
        let (patch, learnt) = {
            let reading = shared.reading()?;
            let head = &reading.head;
            if length > head.length() {
                return Err(Error::new(
                    ErrorKind::OutOfBounds,
                    format!("the log has {} blocks; it cannot be cut to {length}", head.length()),
                ));
            }
            let fork = options.fork.unwrap_or(head.fork + 1);
            if fork <= head.fork || fork > MAX_SAFE_INTEGER {
                return Err(Error::bad_argument(format!(
                    "a truncation raises the fork, which is {}, to at most {MAX_SAFE_INTEGER}: {fork} is not between them",
                    head.fork
                )));
            }
            if let Some(prologue) = reading.prologue.filter(|p| length < p.length) {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("the first {} blocks are the manifest's prologue and cannot be cut", prologue.length),
                ));
            }
            let mut patch = merkle::truncate(&reading.tree(shared), head, length, fork)?;
            for root in patch.upgrade.iter().flat_map(|head| head.roots.nodes()) {
                // What is damaged must not be signed.
                if proven::node(&reading.tree(shared), head, root.index)?.is_none_or(|(_, node)| node != *root) {
                    let what = format!(
                        "node {} of the tree is damaged, and the log cannot be cut there before it is repaired: `verify --repair`",
                        root.index
                    );
                    return Err(Error::corrupt(what).at(shared.storage.path("tree")));
                }
            }
            let (verifier, learnt) = signing_verifier(&shared.state.read(), shared.key, key_pair.as_ref())?;
            if let Some(new_head) = patch.upgrade.as_mut().filter(|h| h.length() > 0) {
                new_head.signature = match (&options.signature, &key_pair) {
                    (Some(signature), _) => verifier.check(new_head.tree(), signature).map(|()| signature.clone())?,
                    (None, Some(key_pair)) => sign_or_prologue(&verifier, new_head.tree(), key_pair)?,
                    (None, None) => unreachable!("without a signature there is a key pair"),
                };
            }
            (patch, learnt)
        };
        let fork = patch.upgrade.as_ref().map_or(0, |h| h.fork);
        let bits = BitfieldUpdate { drop: true, start: length, length: patch.base_length - length };
        let change = Change { patch: Some(patch), bits: Some(bits), verifier: learnt, ..Change::default() };
        let done = shared.commit(&mut writer, &[], vec![change]);
        drop(writer);
        shared.deliver();
        done.map(|()| fork)
    }

    /// Sets or, with an empty value, deletes user data.
    pub(crate) fn set_user_data(&self, key: &str, value: &[u8]) -> Result<()> {
        self.check_open()?;
        check_user_data_key(key)?;
        let shared = &*self.shared;
        let mut writer = shared.writer()?;
        {
            let state = shared.state.read();
            let old = state.user_data.iter().find(|(k, _)| k == key);
            if old.map_or(value.is_empty(), |(_, old)| old == value) {
                return Ok(());
            }
            // All values stand in one header, which has to be read again.
            let others = state.user_data.iter().filter(|(k, _)| k != key).map(|(k, value)| k.len() + value.len());
            let total = others.sum::<usize>().saturating_add(key.len()).saturating_add(value.len()) as u64;
            if total > MAX_USER_DATA {
                return Err(Error::bad_argument(format!(
                    "user data of {total} bytes in all is more than the {MAX_USER_DATA} that a core can keep: append it as blocks"
                )));
            }
        }
        let change = Change { user_data: Some((key.to_owned(), value.to_vec())), ..Change::default() };
        shared.commit(&mut writer, &[], vec![change])
    }

    /// Stores a manifest that has to be the core's.
    pub(crate) fn set_manifest(&self, manifest: Manifest) -> Result<()> {
        self.check_open()?;
        let shared = &*self.shared;
        let mut writer = shared.writer()?;
        let verifier = {
            let state = shared.state.read();
            if state.verifier.manifest().is_some() {
                return Ok(());
            }
            state.verifier.with_manifest(manifest)?
        };
        let done = shared.commit(&mut writer, &[], vec![Change { verifier: Some(verifier), ..Change::default() }]);
        drop(writer);
        shared.deliver();
        done
    }
}

/// A batch whose tree is computed and whose blocks are sealed, waiting for a signature.
struct Prepared<'a> {
    patch: Patch,
    roots: Roots,
    fork: u64,
    byte_offset: u64,
    blocks: PreparedBlocks<'a>,
}

enum PreparedBlocks<'a> {
    Plain(Vec<&'a [u8]>),
    Sealed(Vec<Vec<u8>>),
}

impl Shared {
    /// Commits `own` and, with it, what waits behind it to be signed by the same key pair.
    fn lead_append(&self, lead: Lead<'_>, own: Part<'_>, key_pair: &KeyPair) -> Result<(u64, u64)> {
        let always = self.durability == Durability::Always;
        if always {
            self.queue.gather();
        }
        let guard = self.writer.lock();
        let start = Instant::now();
        let mut blocks = own.blocks.len();
        let fits = |q: &&Arc<Queued>| {
            blocks += q.blocks.len();
            let same_key = match (&q.encryption, own.encryption) {
                (Some(theirs), Some(ours)) => theirs.is_same(ours),
                (theirs, ours) => theirs.is_none() && ours.is_none(),
            };
            same_key && q.key_pair.public_key() == key_pair.public_key() && blocks <= MAX_BATCH_BLOCKS
        };
        let group = Group({
            let mut appends = lead.0.appends.lock();
            let count = appends.waiting.iter().take_while(fits).count();
            appends.waiting.drain(..count).collect()
        });
        let others = group.0.iter().map(|q| Part {
            blocks: q.blocks.iter().map(Vec::as_slice).collect(),
            leaves: &q.leaves,
            encryption: q.encryption.as_deref(),
        });
        let parts: Vec<Part<'_>> = std::iter::once(own).chain(others).collect();
        let done = self.check_writer(guard).and_then(|mut writer| self.commit_append(&mut writer, &parts, key_pair));
        {
            let mut appends = self.queue.appends.lock();
            appends.expected = parts.len() + appends.waiting.len();
            appends.patience = start.elapsed() / PATIENCE;
        }
        // The writer is free again; so is the lead, before the others wake and come with more.
        drop(lead);
        let length = |at: usize| done.as_ref().map(|lengths| lengths[at]).map_err(Error::clone);
        group.0.iter().enumerate().for_each(|(i, q)| q.turn.set(Turn::Done(length(i + 1))));
        length(0)
    }

    /// Signs and commits `parts` as one change; gives length and byte length at the end of each.
    fn commit_append(
        &self,
        writer: &mut WriterGuard<'_>,
        parts: &[Part<'_>],
        key_pair: &KeyPair,
    ) -> Result<Vec<(u64, u64)>> {
        let (mut length, mut byte_length, verifier, learnt) = {
            let state = self.state.read();
            let (verifier, learnt) = signing_verifier(&state, self.key, Some(key_pair))?;
            (state.head.length(), state.head.byte_length(), verifier, learnt)
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
        // All parts have one encryption key. Since it was checked another append may have begun the log with another
        // one, or with none.
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
        self.commit_prepared(writer, prepared, signature, learnt, self.marker_of_append(encryption))?;
        Ok(lengths)
    }

    /// Computes the tree that `parts` make of the log. The caller holds the writer.
    fn prepare_append<'a>(&self, parts: &[Part<'a>]) -> Result<Prepared<'a>> {
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
        learnt: Option<Verifier>,
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
        let change = Change { patch: Some(patch), bits: Some(bits), verifier: learnt, user_data, ..Change::default() };
        self.commit(writer, &[BlockBytes { offset: prepared.byte_offset, blocks: &views }], vec![change])?;
        Ok(lengths)
    }
}

/// The verifier to sign with, and the same again if it was not known before: a core that was opened by its public key alone
/// learns its manifest when the key pair of that key signs.
fn signing_verifier(state: &State, key: Key, key_pair: Option<&KeyPair>) -> Result<(Verifier, Option<Verifier>)> {
    let known = state.verifier.manifest().is_some();
    match key_pair {
        Some(key_pair) if !known && key_pair.public_key() == key => {
            let learnt = state.verifier.with_manifest(Manifest::single(key))?;
            Ok((learnt.clone(), Some(learnt)))
        }
        _ => Ok((state.verifier.clone(), None)),
    }
}

/// The signature of `tree` by `key_pair`; a prologue is valid without, but not for other blocks.
fn sign_or_prologue(verifier: &Verifier, tree: SignableTree<'_>, key_pair: &KeyPair) -> Result<Vec<u8>> {
    let signed = verifier.sign(tree, key_pair);
    if tree.fork != 0 || verifier.prologue().is_none_or(|prologue| tree.roots.length() > prologue.length) {
        return signed;
    }
    verifier.check(tree, &[])?;
    Ok(signed.unwrap_or_default())
}

/// Encrypts the blocks of all parts for their places from `start` on.
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

/// Size and hash of each block, on as many threads as pay for themselves.
fn hash_leaves(blocks: &[&[u8]]) -> Vec<(u64, Hash)> {
    let leaf = |block: &&[u8]| (block.len() as u64, hash::leaf(block));
    // A short block costs a whole compression of 128 bytes.
    let work = blocks.iter().fold(0, |work: usize, b| work.saturating_add(b.len().max(128)));
    if work < PARALLEL_BYTES || processors() < 2 {
        return blocks.iter().map(leaf).collect();
    }
    // Whoever is free takes the next piece: a thread that the system lets begin late, or not at all, leaves its work to the others.
    let pieces: Vec<&[&[u8]]> = blocks.chunks((PIECE_BYTES / (work / blocks.len())).max(1)).collect();
    let next = AtomicUsize::new(0);
    let hash_pieces = || {
        let mut hashed: Vec<(usize, Vec<(u64, Hash)>)> = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(at) else { return hashed };
            hashed.push((at, piece.iter().map(leaf).collect()));
        }
    };
    let mut hashed = std::thread::scope(|scope| {
        let others: Vec<_> = (1..processors().min(pieces.len()))
            .filter_map(|_| std::thread::Builder::new().stack_size(HASH_STACK).spawn_scoped(scope, hash_pieces).ok())
            .collect();
        let mut hashed = hash_pieces();
        for other in others {
            match other.join() {
                Ok(theirs) => hashed.extend(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        hashed
    });
    hashed.sort_unstable_by_key(|(at, _)| *at);
    hashed.into_iter().flat_map(|(_, leaves)| leaves).collect()
}

/// How many threads can run at a time. Asked once: the answer is read out of files.
fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}
