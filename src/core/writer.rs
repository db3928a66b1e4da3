//! What only the one who changes the core needs, and why nothing is written any more once a write failed.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::oplog::{Oplog, StoredKeyPair};

/// What only the one who changes the core needs.
pub(crate) struct Writer {
    pub(crate) oplog: Oplog,
    pub(crate) key_pair: Option<StoredKeyPair>,
    /// Whether this core may sign: with the stored key pair, or one given at opening.
    pub(crate) signs: bool,
    /// Bytes of blocks written since the last flush.
    pub(crate) unflushed_bytes: u64,
    /// Whether entries were appended since the last flush. Those that were found at opening do not count: who only
    /// reads, writes nothing on closing either.
    pub(crate) has_unflushed: bool,
    /// Whether something was learnt that only the header can hold.
    pub(crate) header_is_stale: bool,
    /// Whether the last entry was not waited for, and none behind it says that it is on the disk.
    pub(crate) has_unmarked_tail: bool,
    /// What has to be done to the files before anything is added to them; see [`Shared::prepare_files`](crate::core::shared::Shared::prepare_files).
    pub(crate) preparation: Preparation,
}

/// What has to be done to the files of an earlier session before the first change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Preparation {
    /// To be done: with
    /// `flush`, the entries are flushed first, for some were given up, or cut the log. Blocks that entries dropped (`holes`)
    /// may still take up space.
    Due {
        flush: bool,
        holes: Vec<Range<u64>>,
    },
    Done,
}

impl Writer {
    /// Whether opening found something that is to be made final before anybody else sees the log.
    pub(crate) fn has_unflushed_recovery(&self) -> bool {
        matches!(self.preparation, Preparation::Due { flush: true, .. })
    }
}

/// The first failure after bytes may have moved: from then on the core is read only, until it is opened again.
#[derive(Default)]
pub(crate) struct Poison {
    why: OnceLock<Error>,
    /// Whether a caller was told of it.
    reported: AtomicBool,
}

impl Poison {
    pub(crate) fn get(&self) -> Option<&Error> {
        self.why.get()
    }

    /// The first error stays.
    pub(crate) fn set(&self, error: &Error) {
        let _ = self.why.set(error.clone());
    }

    /// A caller is told of it now.
    pub(crate) fn is_reported(&self) {
        self.reported.store(true, Ordering::SeqCst);
    }

    /// What closing has to say: a failure that no caller was told of.
    pub(crate) fn take_unreported(&self) -> Option<&Error> {
        self.why.get().filter(|_| !self.reported.swap(true, Ordering::SeqCst))
    }
}
