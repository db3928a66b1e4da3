//! Truncating: the log is cut to an earlier length, on a higher fork.

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::change::Change;
use crate::core::handle::Hypercore;
use crate::core::options::SignOptions;
use crate::core::proven;
use crate::core::session::Session;
use crate::core::signing::{sign_or_prologue, signing_verifier};
use crate::merkle;
use crate::oplog::BitfieldUpdate;
use crate::{Error, ErrorKind, Result};

/// Truncating.
impl Hypercore {
    /// Cuts the log to `length` blocks and raises the fork by one; gives the new fork. What is cut is gone here, and for every
    /// reader that follows the fork. Blocks for the commit, which is synced unless the durability is `None`.
    pub fn truncate(&self, length: u64) -> Result<u64> {
        self.truncate_with(length, SignOptions::default())
    }

    /// As [`Hypercore::truncate`], to a fork of your choice above the present one.
    pub fn truncate_to(&self, length: u64, fork: u64) -> Result<u64> {
        self.truncate_with(length, SignOptions::new().fork(fork))
    }

    /// As [`Hypercore::truncate`], signed otherwise than by the session's key pair.
    pub fn truncate_with(&self, length: u64, options: SignOptions) -> Result<u64> {
        self.session.truncate(length, options)
    }
}

impl Session {
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
}
