//! Appending entries, and cutting off bytes after the last entry.

use super::entry::{self, EntryRef};
use super::{ENTRIES, Oplog, State, frame};
use crate::codec::Writer;
use crate::{Error, ErrorKind, Result};

/// Disk space is reserved ahead of the entries in steps of this many bytes.
const ROOM_STEP: u64 = 32 << 10;

/// Reserved bytes that only [`Oplog::append_to_free`] uses, so that blocks can be cleared on a full disk.
const ROOM_KEPT: u64 = 4 << 10;

impl Oplog {
    /// Appends `entries` with one write and does not sync it. A crash may leave the first of them without the rest.
    /// Some disk space stays reserved after them for [`Oplog::append_to_free`].
    ///
    /// # Errors
    /// After a failed write, no entry counts in this process, but the next open may find some of them. The caller must
    /// not write anything that contradicts them, and should stop writing. A later append first removes them.
    pub fn append(&mut self, entries: &[EntryRef<'_>]) -> Result<()> {
        self.append_with(entries, true)
    }

    /// [`Oplog::append`] of an entry after which the caller frees disk space. It may use the space reserved for that.
    pub fn append_to_free(&mut self, entry: EntryRef<'_>) -> Result<()> {
        self.append_with(&[entry], false)
    }

    fn append_with(&mut self, entries: &[EntryRef<'_>], keep_room: bool) -> Result<()> {
        match self.state {
            State::Good | State::Torn => {}
            State::New => {
                return Err(Error::new(ErrorKind::InvalidOperation, "the core has no header yet").at(self.path()));
            }
            State::Failed => return Err(self.failed()),
        }
        if entries.is_empty() {
            return Ok(());
        }
        let bit = self.current();
        let mut out = Vec::with_capacity(entry::size_hint(entries));
        for entry in entries {
            let start = out.len();
            let mut w = Writer::append_to(out);
            entry.encode(w.bytes(&[0; frame::PREFIX]));
            out = w.into_vec();
            frame::seal(&mut out, start, false, bit)?;
        }
        let end = ENTRIES + self.byte_length;
        if self.state == State::Torn {
            self.file.set_len(end).map_err(|e| self.error(e, "cut"))?;
            self.reserved = 0;
        }
        if keep_room {
            self.reserve(end + out.len() as u64 + ROOM_KEPT)?;
        }
        self.state = State::Torn;
        self.file.write_at(end, &out).map_err(|e| self.error(e, "write"))?;
        self.state = State::Good;
        self.byte_length += out.len() as u64;
        Ok(())
    }

    /// Whether the file ends with the last entry that was appended successfully.
    pub fn is_good(&self) -> bool {
        self.state == State::Good
    }

    /// Cuts off the bytes after the last entry: an incomplete batch, or void entries of a flush that crashed before it
    /// cut them.
    ///
    /// With `sync`, the current header is synced before the cut, since a power cut could otherwise leave neither the
    /// header nor the entries that it made void. The cut is synced before new entries take the place of the cut bytes,
    /// since a whole entry may stand after a torn one.
    pub fn cut_tail(&mut self, sync: bool) -> Result<()> {
        if self.state != State::Torn {
            return Ok(());
        }
        if sync {
            self.sync_all()?;
        }
        self.cut_failed_append()?;
        self.cut_is_unsynced = true;
        if sync { self.sync() } else { Ok(()) }
    }

    /// Cuts off the bytes that a failed append may have left after the last entry, without a sync.
    pub fn cut_failed_append(&mut self) -> Result<()> {
        if self.state == State::Torn {
            self.file.set_len(ENTRIES + self.byte_length).map_err(|e| self.error(e, "cut"))?;
            self.reserved = 0;
            self.state = State::Good;
        }
        Ok(())
    }

    /// Reserves disk space up to offset `end` of the file.
    fn reserve(&mut self, end: u64) -> Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let from = self.reserved.max(ENTRIES + self.byte_length);
        let ahead = end.max(from + ROOM_STEP);
        // On a nearly full disk there may be no space for a step, but enough for this entry.
        let reserved = match self.file.reserve(from, ahead - from) {
            Ok(()) => Ok(ahead),
            Err(_) => self.file.reserve(from, end - from).map(|()| end),
        };
        self.reserved = reserved.map_err(|e| self.error(e, "write"))?;
        Ok(())
    }
}
