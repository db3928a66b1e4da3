//! The write-ahead log of a core: the file `oplog`, and `header` where it is needed.
//!
//! ```text
//! oplog     0 ┌───────────────┐
//!             │ slot 0: frame │  a header, or where in the file `header` it is
//!        4096 ├───────────────┤
//!             │ slot 1: frame │  the same
//!        8192 ├───────────────┤
//!             │ entry: frame  │  a change since the current header
//!             │ entry: frame  │
//!             │ …             │
//!             └───────────────┘
//!
//! header    ┌─────────┬─────────┐
//!           │ a header│ a header│  the current one's place and the next one's never overlap; each starts a page
//!           └─────────┴─────────┘
//! ```
//!
//! A [frame] has a checksum and a bit. With b0 and b1 the bits of the slots, slot b0 xor b1 is current, and an entry
//! counts only if its own bit is b0 xor b1. One write flips it all: the slot that is not current is written with the
//! bit it did not have, which makes it current and every entry void. A slot whose frame is broken takes the bit that
//! makes the other one current.
//!
//! # What a crash leaves
//!
//! The order of an append is: block bytes to `data` → **entry to `oplog`** → memory. That of a flush: bitfield pages
//! and tree nodes, after the tree's cut → header to `header`, if it needs it → **slot** → `oplog` cut to 8192 bytes. A
//! crash
//!
//! * before or in the entry: the entry is short or fails its checksum and is cut off before the next change, so are
//!   entries before it that belong to the same batch. The bytes in `data` lie past the end of the log or where no bit
//!   is set: nobody looks.
//! * between entry and flush: the entry is read and carried out again.
//! * within bitfield and tree: the entries are still there and say all of it again. Setting bits, putting nodes and
//!   cutting the tree twice come to the same as once. But a tree that was cut or overwritten for what the entries end
//!   in may lack the roots of what they began with: replaying them may rely on the roots of the last length alone.
//! * within `header`: the current slot points at the other place.
//! * within the slot: it fails its checksum; the other slot is current, its entries count.
//! * before the cut: the entries have the wrong bit and are cut off before the next change.
//! * in the very first flush, which makes the core: a file shorter than two slots without a valid one is a core that
//!   never was.
//!
//! Where the machine dies and not just the process, this order holds only as far as it is forced on the disk: by
//! [`Oplog::flush`] with `sync`, for which the caller has synced the other files, and by a sync of [`Oplog::file`]
//! after an append.

mod append;
pub mod entry;
mod external;
mod flush;
pub mod frame;
mod frame_reader;
pub mod header;
mod open;
mod tail;
#[cfg(test)]
mod tests;
mod wipe;

pub use entry::{BitfieldUpdate, Entry, EntryRef, Marks, TreeUpgrade};
pub use header::{External, Header, ReorgHint, Slot, StoredKeyPair, TreeHeader};
pub use open::Recovered;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::storage::backend::{File, Storage};
use crate::{Error, ErrorKind, Result};

/// Bytes of a slot.
const SLOT: usize = 4096;

/// Where the entries begin.
const ENTRIES: u64 = 2 * SLOT as u64;

/// The longest header, with its frame. Nothing but user data could make it so long, and it has no checksum that were
/// to be checked before memory is taken.
const MAX_HEADER: u64 = 256 << 20;

/// The most bytes that the values and keys of user data may have together: what else a header holds fits beside them.
pub const MAX_USER_DATA: u64 = MAX_HEADER - (16 << 20);

/// An open oplog.
pub struct Oplog {
    storage: Arc<dyn Storage>,
    file: Arc<dyn File>,
    /// The bits of the slots.
    bits: [bool; 2],
    /// Where the current header is, if not in its slot.
    external: Option<External>,
    /// Bytes of the entries that count.
    byte_length: u64,
    /// Up to where this process reserved disk space for the file; zero where it did not.
    reserved: u64,
    /// Whether what the file was last cut by may come back in a power cut.
    cut_is_loose: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No header was ever written.
    New,
    Good,
    /// Bytes may stand behind the entries: an append failed, or the file was found so.
    Torn,
    /// A flush failed: which header is current on the disk is not known.
    Failed,
}

impl Oplog {
    /// The file, for syncing what was appended.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Waits until what was appended is on the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|e| self.error(e, "sync"))?;
        self.cut_is_loose = false;
        Ok(())
    }

    /// Bytes of the entries since the last flush.
    pub fn entries_byte_length(&self) -> u64 {
        self.byte_length
    }

    /// Which slot is current, and which bit entries have.
    fn current(&self) -> bool {
        self.bits[0] != self.bits[1]
    }

    fn path(&self) -> PathBuf {
        self.storage.path("oplog")
    }

    fn error(&self, source: io::Error, what: &str) -> Error {
        Error::from_io(source, what, self.path())
    }

    fn failed(&self) -> Error {
        Error::new(ErrorKind::Failed, "an earlier write of the header failed; open the core again").at(self.path())
    }
}
