//! Reading: blocks, which blocks are held, seeks, and the properties of the log.
//!
//! A read takes a [`Reading`](crate::core::reading::Reading) of the state. Without any lock it then reads whether
//! the block is held, where it lies, and its bytes. If blocks were freed meanwhile, it begins again. It compares
//! the block with its leaf's hash, so that wrong data from a failing disk is an error and never returned.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::codec::MAX_SAFE_INTEGER;
use crate::core::limits::check_range;
use crate::core::options::{GetOptions, SeekOptions, UpdateOptions};
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::core::state::SnapshotView;
use crate::core::wait_goal::WaitGoal;
use crate::core::waiters::{Cancel, Waiting};
use crate::crypto::hash::{self, Hash};
use crate::flat_tree::full_roots;
use crate::merkle::{self, NodeSource};
use crate::node::Node;
use crate::sync::deadline;
use crate::{Error, ErrorKind, Result};

impl Session {
    /// See [`crate::Hypercore::get_with`].
    pub(crate) fn get(&self, index: u64, options: &GetOptions) -> Result<Option<Vec<u8>>> {
        check_range(&(index..index.saturating_add(1)))?;
        let shared = &*self.shared;
        if !options.raw && self.encryption().is_none() {
            shared.check_without_key()?;
        }
        let mut view = self.view();
        let stored = match self.read_in_view(index, view.as_deref())? {
            Some(stored) => stored,
            None if !options.wait.unwrap_or(self.wait) => return Ok(None),
            None => {
                if !options.raw {
                    self.check_encryption()?;
                }
                // A wait for a block of the present log must not return a block that replaces it after a truncation.
                // The snapshot makes the truncation an error.
                if view.is_none() && index < shared.state.read().head.length() {
                    view = Some(shared.take_view(true)?).filter(|view| index < view.length);
                }
                for on_wait in options.on_wait.iter().chain(&self.on_wait) {
                    on_wait(index);
                }
                let until = options.timeout.unwrap_or(self.timeout).and_then(deadline);
                let look = || self.read_in_view(index, view.as_deref());
                self.wait_for_block(index, until, options.cancel.as_ref(), look)?
            }
        };
        // A truncation may have come between finding the block and reading it, and a new block may have its index.
        if let Some(view) = &view {
            if index >= view.compat_length.load(Ordering::SeqCst) {
                self.read_in_view(index, Some(view))?;
            }
        }
        if options.raw { Ok(Some(stored)) } else { self.decrypt(index, stored).map(Some) }
    }

    /// Returns the stored form of block `index`, or `None` if it is not held. Fails if the block is not
    /// part of `view`.
    fn read_in_view(&self, index: u64, view: Option<&SnapshotView>) -> Result<Option<Vec<u8>>> {
        if view.is_some_and(|view| index >= view.compat_length.load(Ordering::SeqCst)) {
            return Err(Error::new(
                ErrorKind::SnapshotNotAvailable,
                format!("block {index} is not part of this snapshot, or was cut from the log since"),
            ));
        }
        self.check_open()?;
        self.shared.read_block(index)
    }

    fn wait_for_block(
        &self,
        index: u64,
        until: Option<Instant>,
        cancel: Option<&Cancel>,
        look: impl Fn() -> Result<Option<Vec<u8>>>,
    ) -> Result<Vec<u8>> {
        let shared = &*self.shared;
        loop {
            let waiting = self.register(WaitGoal::Block(index), cancel)?;
            if let Some(stored) = look()? {
                return Ok(stored);
            }
            shared.ask(&waiting, &WaitGoal::Block(index));
            waiting.wait(until).map_err(|error| match error.kind() {
                ErrorKind::Timeout => Error::new(
                    ErrorKind::Timeout,
                    format!("block {index} did not come before the timeout: try again, or allow more time"),
                ),
                _ => error,
            })?;
        }
    }

    /// Length and fork as a session of this kind counts them, ignoring the fixed state of a snapshot.
    pub(crate) fn session_head(&self) -> Result<(u64, u64)> {
        if !self.sparse {
            let contiguous = self.shared.contiguous_length()?;
            let head = &self.shared.state.read().head;
            return Ok((contiguous.min(head.length()), head.fork));
        }
        let state = self.shared.state.read();
        Ok((state.head.length(), state.head.fork))
    }

    fn register(&self, goal: WaitGoal, cancel: Option<&Cancel>) -> Result<Waiting> {
        self.shared.waiters.register(self.id, goal, cancel, &self.shared.network)
    }

    pub(crate) fn length(&self) -> u64 {
        match self.view() {
            Some(view) => view.length,
            None => self.session_head().map_or(0, |(length, _)| length),
        }
    }

    pub(crate) fn byte_length(&self) -> u64 {
        let (length, bytes) = match self.view() {
            Some(view) => (view.length, view.byte_length),
            None if self.sparse => {
                let state = self.shared.state.read();
                (state.head.length(), state.head.byte_length())
            }
            None => self.shared.contiguous_part().map_or((0, 0), |(_, length, bytes)| (length, bytes)),
        };
        bytes.saturating_sub(length.saturating_mul(self.padding()))
    }

    pub(crate) fn fork(&self) -> u64 {
        self.view().map_or_else(|| self.shared.state.read().head.fork, |view| view.fork)
    }

    /// See [`crate::Hypercore::contiguous_length`].
    pub(crate) fn contiguous_length(&self) -> Result<u64> {
        self.shared.contiguous_length()
    }

    /// See [`crate::Hypercore::has_range`].
    pub(crate) fn has(&self, start: u64, end: u64) -> Result<bool> {
        self.check_open()?;
        if start >= end {
            return Ok(true);
        }
        self.shared.read_bits(|reading| Ok(end <= reading.length() && reading.bits.first_unset(start, end)?.is_none()))
    }

    /// See [`crate::Hypercore::held_from`].
    pub(crate) fn held_from(&self, from: u64) -> Result<Option<Range<u64>>> {
        self.check_open()?;
        self.shared.read_bits(|reading| {
            if from >= reading.length() {
                return Ok(None);
            }
            let Some(start) = reading.bits.first_set(from, reading.length())? else { return Ok(None) };
            Ok(Some(start..reading.first_unset(start)?))
        })
    }

    /// See [`crate::Hypercore::seek_with`].
    pub(crate) fn seek(&self, bytes: u64, options: &SeekOptions) -> Result<Option<(u64, u64)>> {
        // Peers would end the connection over a request with a larger number.
        if bytes > MAX_SAFE_INTEGER {
            return Err(Error::bad_argument(format!("byte {bytes} is beyond any log")));
        }
        // The padding, and with it the byte's place, depends on the encryption key.
        self.check_encryption()?;
        let until = options.timeout.unwrap_or(self.timeout).and_then(deadline);
        let shared = &*self.shared;
        let goal = WaitGoal::Seek { bytes, padding: self.padding() };
        loop {
            let waiting = self.register(goal.clone(), options.cancel.as_ref())?;
            // Checked after registering: a close from here on finds the waiter.
            self.check_open()?;
            if let Some(found) = shared.seek_held(bytes, self.padding())? {
                return Ok(Some(found));
            }
            if !options.wait.unwrap_or(self.wait) {
                return Ok(None);
            }
            shared.ask(&waiting, &goal);
            waiting.wait(until)?;
        }
    }

    /// See [`crate::Hypercore::update_with`].
    pub(crate) fn update(&self, options: &UpdateOptions) -> Result<bool> {
        self.check_open()?;
        if self.is_writable() && !options.force {
            return self.refresh_view();
        }
        let shared = &*self.shared;
        let finding = *shared.finders.lock() > 0;
        if !options.wait.unwrap_or(finding) {
            return self.finish_update(false);
        }
        let before = self.session_head()?;
        let waiting = self.register(WaitGoal::Upgrade, options.cancel.as_ref())?;
        self.check_open()?;
        // The end of the search wakes the waiter. Without a search and a network, no thread would.
        if shared.network.get().is_none() && *shared.finders.lock() == 0 {
            return self.finish_update(false);
        }
        shared.ask(&waiting, &WaitGoal::Upgrade);
        waiting.wait(options.timeout.and_then(deadline))?;
        self.finish_update(self.session_head()? != before)
    }

    /// Ends an `update`: moves a snapshot and returns whether that changed it; for other sessions returns `changed`.
    fn finish_update(&self, changed: bool) -> Result<bool> {
        if self.is_snapshot() { self.refresh_view() } else { Ok(changed) }
    }

    /// See [`crate::Hypercore::tree_hash_at`].
    pub(crate) fn tree_hash(&self, length: Option<u64>) -> Result<Hash> {
        self.check_open()?;
        let view = self.view();
        let length = length.or_else(|| view.as_ref().map(|v| v.length));
        self.shared.read_tree(|reading, tree| {
            if let (Some(view), Some(length)) = (&view, length) {
                if length > view.compat_length.load(Ordering::SeqCst) {
                    return Err(Error::new(
                        ErrorKind::SnapshotNotAvailable,
                        format!(
                            "the tree of {length} blocks is not part of this snapshot, or was cut from the log since"
                        ),
                    ));
                }
            }
            let length = length.unwrap_or(reading.length());
            if length > reading.length() {
                return Err(Error::new(
                    ErrorKind::OutOfBounds,
                    format!("the log has {} blocks; it has no tree hash at {length}", reading.length()),
                ));
            }
            let roots: Vec<Node> = full_roots(length).map(|index| tree.require(index)).collect::<Result<_>>()?;
            Ok(hash::tree(roots.iter().map(|n| (&n.hash, n.index.0, n.size))))
        })
    }
}

impl Shared {
    fn seek_held(&self, bytes: u64, padding: u64) -> Result<Option<(u64, u64)>> {
        self.read_stable(|reading, tree| match merkle::seek_local(tree, &reading.head, bytes, padding)? {
            merkle::Seek::Found { block, offset } => Ok(Some((block, offset))),
            _ => Ok(None),
        })
    }
}
