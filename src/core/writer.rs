//! The part of an open core that only the holder of the writer lock uses, and the failure that stops all writing.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::oplog::{Oplog, StoredKeyPair};

/// The state that only the thread which changes the core needs.
pub(crate) struct Writer {
    pub(crate) oplog: Oplog,
    pub(crate) key_pair: Option<StoredKeyPair>,
    /// Whether this core may sign, with the stored key pair or with one given at opening.
    pub(crate) signs: bool,
    /// Bytes of blocks written since the last flush.
    pub(crate) unflushed_bytes: u64,
    /// Whether entries were appended since the last flush. Entries found at opening do not count: a session that
    /// only reads writes nothing on closing either.
    pub(crate) has_unflushed: bool,
    /// Whether the core has learnt something that only the header can hold.
    pub(crate) header_is_stale: bool,
    /// Whether the last entry was not waited for and no later entry says that it is on the disk.
    pub(crate) has_unmarked_tail: bool,
    /// The work on the files that comes before the first change; see
    /// [`Shared::prepare_files`](crate::core::shared::Shared::prepare_files).
    pub(crate) preparation: Preparation,
}

/// The work on the files of an earlier session that has to be done before the first change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Preparation {
    /// Not done yet. With `flush`, the entries have to be flushed first, because some were discarded or truncated the
    /// log. `holes` are blocks that entries dropped and whose disk space may not have been given back.
    Due {
        flush: bool,
        holes: Vec<Range<u64>>,
    },
    Done,
}

impl Writer {
    /// Whether opening found something that has to be flushed before a peer sees the log.
    pub(crate) fn has_unflushed_recovery(&self) -> bool {
        matches!(self.preparation, Preparation::Due { flush: true, .. })
    }
}

/// The first failure after bytes may have moved. From then on the core refuses writes until it is opened again.
#[derive(Default)]
pub(crate) struct Poison {
    why: OnceLock<Error>,
    /// Whether a call has returned it.
    reported: AtomicBool,
}

impl Poison {
    pub(crate) fn get(&self) -> Option<&Error> {
        self.why.get()
    }

    /// Sets the failure, unless one is set already.
    pub(crate) fn set(&self, error: &Error) {
        let _ = self.why.set(error.clone());
    }

    /// Notes that a call returns the failure.
    pub(crate) fn set_reported(&self) {
        self.reported.store(true, Ordering::SeqCst);
    }

    /// The failure, if no call has returned it yet. Closing returns it then.
    pub(crate) fn take_unreported(&self) -> Option<&Error> {
        self.why.get().filter(|_| !self.reported.swap(true, Ordering::SeqCst))
    }
}
