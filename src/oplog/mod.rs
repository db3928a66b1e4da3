//! The write-ahead log of a core: the file `oplog`, and the file `header` if a header is too long for `oplog`.
//!
//! ```text
//! oplog     0 ┌───────────────┐
//!             │ slot 0: frame │  a header, or its place in the file `header`
//!        4096 ├───────────────┤
//!             │ slot 1: frame │  a header, or its place in the file `header`
//!        8192 ├───────────────┤
//!             │ entry: frame  │  a change since the current header
//!             │ entry: frame  │
//!             │ …             │
//!             └───────────────┘
//!
//! header    ┌─────────┬─────────┐
//!           │ a header│ a header│  the places of the current and the next header never overlap; each starts a page
//!           └─────────┴─────────┘
//! ```
//!
//! The fields of a frame are drawn in [`frame`], those of a header in [`header`], those of an entry in [`entry`].
//!
//! A frame has a checksum and a bit. Let b0 and b1 be the bits of the two slots. The current header is in slot
//! b0 xor b1, and an entry counts only if its own bit is b0 xor b1. A flush writes the slot that is not current, with
//! the bit that it did not have: this one write makes that slot current and all entries void. A slot with a broken
//! frame is given the bit that makes the other slot current.
//!
//! # The order of writes, and the state after a crash
//!
//! An append writes: block bytes to `data` → **entry to `oplog`, the commit point** → memory.
//!
//! A flush writes: bitfield pages, after a truncation the cuts of `tree` and `data`, tree nodes → header to `header`,
//! if it is too long for a slot → **slot of `oplog`, the commit point** → cut of `oplog` to 8192 bytes.
//!
//! A crash leaves:
//!
//! * before or in the write of the entry: an entry that is short or fails its checksum. It is cut off before the next
//!   change, together with entries before it that belong to the same batch. The block bytes in `data` lie past the end
//!   of the log or where no bit is set, and no reader uses them.
//! * between the entry and the flush: a valid entry. The next open applies it again.
//! * in the writes of `bitfield`, `tree` and `data`: some of the pages, nodes and cuts. The entries still contain all of
//!   them, and the next open applies them again, which sets the same bits, puts the same nodes and makes the same cuts.
//!   But if the tree was already cut or overwritten for the last of the entries, it may lack the roots of the length
//!   before the first: replaying the entries may rely on the roots of the last length alone.
//! * in the write of `header`: a broken header that no slot points at, since the current slot points at the other
//!   place.
//! * in the write of the slot: a slot that fails its checksum. The other slot is current, and the entries count.
//! * between the slot and the cut of `oplog`: entries with the wrong bit. They are void, and are cut off before the
//!   next change.
//! * in the very first flush, which creates the core: a file without a valid slot that is shorter than two slots. It
//!   counts as no core.
//!
//! If the machine fails and not just the process, this order holds only as far as syncs enforce it: by
//! [`Oplog::flush`] with `sync`, before which the caller has synced the other files, and by a sync of [`Oplog::file`]
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
pub use header::{ExternalHeader, Header, ReorgHint, Slot, StoredKeyPair, TreeHeader};
pub use open::OpenedOplog;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::storage::backend::{File, Storage};
use crate::{Error, ErrorKind, Result};

/// The size of a slot in bytes.
const SLOT: usize = 4096;

/// The offset of the first entry.
const ENTRIES: u64 = 2 * SLOT as u64;

/// The longest header, with its frame. Only user data can make a header so long. The limit bounds the memory for
/// reading the file `header`, which has no checksum that could be verified first.
const MAX_HEADER: u64 = 256 << 20;

/// The most bytes that the keys and values of user data may have in total. The other parts of a header fit into the
/// rest of [`MAX_HEADER`].
pub const MAX_USER_DATA: u64 = MAX_HEADER - (16 << 20);

/// An open oplog.
pub struct Oplog {
    storage: Arc<dyn Storage>,
    file: Arc<dyn File>,
    /// The bits of the two slots.
    bits: [bool; 2],
    /// The place of the current header, if it is in the file `header`.
    external: Option<ExternalHeader>,
    /// The length of all entries that count, in bytes.
    byte_length: u64,
    /// The end of the disk space that this process reserved for the file; 0 if it reserved none.
    reserved: u64,
    /// Whether the last cut of the file is not synced, so that the cut bytes may come back after a power cut.
    cut_is_unsynced: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No header was written yet.
    New,
    /// The file ends with its last entry.
    Good,
    /// The file may have bytes after the last entry: an append failed, or it was opened so.
    Torn,
    /// A flush failed, and the header that is current on the disk is unknown.
    Failed,
}

impl Oplog {
    /// The file `oplog`, which a caller may sync without holding this value.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Blocks until all appended entries would survive a power cut.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|e| self.error(e, "sync"))?;
        self.cut_is_unsynced = false;
        Ok(())
    }

    /// The length of all entries since the last flush, in bytes.
    pub fn entries_byte_length(&self) -> u64 {
        self.byte_length
    }

    /// The current slot, which is also the bit of entries that count.
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
