//! Truncating the log to an earlier length, on a higher fork.

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::change::Change;
use crate::core::handle::Hypercore;
use crate::core::options::SignOptions;
use crate::core::session::Session;
use crate::core::signing::{sign_or_prologue, signing_verifier};
use crate::core::trusted_nodes;
use crate::merkle;
use crate::oplog::BitfieldUpdate;
use crate::{Error, ErrorKind, Result};

/// Truncating.
impl Hypercore {
    /// Cuts the log to `length` blocks and raises the fork by one. Returns the new fork.
    ///
    /// The blocks from index `length` on are gone, here and for every reader that follows the fork. Blocks for the
    /// commit, which is synced unless the durability is [`None`](crate::Durability::None).
    ///
    /// # Errors
    /// * [`OutOfBounds`](ErrorKind::OutOfBounds) if the log is shorter than `length`.
    /// * [`NotWritable`](ErrorKind::NotWritable) without a secret key, or if the session or core is read-only.
    /// * [`InvalidOperation`](ErrorKind::InvalidOperation) if it would cut the manifest's prologue.
    /// * [`Corrupt`](ErrorKind::Corrupt) if a tree node at the cut is damaged:
    ///   [`repair`](Hypercore::repair) it first.
    /// * [`Failed`](ErrorKind::Failed) after an earlier write failed, until the core is opened again.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// core.append_batch(["a", "b", "c"])?;
    /// assert_eq!(core.truncate(1)?, 1);
    /// assert_eq!((core.len(), core.fork()), (1, 1));
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    pub fn truncate(&self, length: u64) -> Result<u64> {
        self.truncate_with(length, SignOptions::default())
    }

    /// Like [`Hypercore::truncate`], to a fork of your choice above the present one.
    ///
    /// Fails with [`BadArgument`](ErrorKind::BadArgument) if `fork` is not above it or exceeds 2^53 - 1.
    pub fn truncate_to(&self, length: u64, fork: u64) -> Result<u64> {
        self.truncate_with(length, SignOptions::new().fork(fork))
    }

    /// Like [`Hypercore::truncate`], with another key pair, a finished signature or a fork of your choice.
    pub fn truncate_with(&self, length: u64, options: SignOptions) -> Result<u64> {
        self.session.truncate(length, options)
    }
}

impl Session {
    /// See [`crate::Hypercore::truncate`].
    pub(crate) fn truncate(&self, length: u64, options: SignOptions) -> Result<u64> {
        let shared = &*self.shared;
        let has_signature = options.signature.is_some();
        let key_pair = if has_signature {
            self.check_writable(true)?;
            None
        } else {
            Some(self.signing_key_pair(options.key_pair.as_ref())?)
        };
        let mut writer = shared.writer()?;
        let (patch, new_verifier) = {
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
                    "fork {fork} is not above the present fork {} and at most {MAX_SAFE_INTEGER}: give one that is",
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
                // A damaged node must not be signed.
                if trusted_nodes::node(&reading.tree(shared), head, root.index)?.is_none_or(|(_, node)| node != *root) {
                    let what = format!(
                        "node {} of the tree is damaged, and the log cannot be cut there before it is repaired: \
                         `verify --repair`",
                        root.index
                    );
                    return Err(Error::corrupt(what).at(shared.storage.path("tree")));
                }
            }
            let (verifier, new_verifier) = signing_verifier(&shared.state.read(), shared.key, key_pair.as_ref())?;
            if let Some(new_head) = patch.upgrade.as_mut().filter(|h| h.length() > 0) {
                new_head.signature = match (&options.signature, &key_pair) {
                    (Some(signature), _) => verifier.check(new_head.tree(), signature).map(|()| signature.clone())?,
                    (None, Some(key_pair)) => sign_or_prologue(&verifier, new_head.tree(), key_pair)?,
                    (None, None) => unreachable!("without a signature there is a key pair"),
                };
            }
            (patch, new_verifier)
        };
        let fork = patch.upgrade.as_ref().map_or(0, |h| h.fork);
        let bits = BitfieldUpdate { drop: true, start: length, length: patch.base_length - length };
        let change = Change { patch: Some(patch), bits: Some(bits), verifier: new_verifier, ..Change::default() };
        let committed = shared.commit(&mut writer, &[], vec![change]);
        drop(writer);
        shared.deliver();
        committed.map(|()| fork)
    }
}
