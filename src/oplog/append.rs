//! Appending entries, and cutting off what stands behind them.

use super::entry::{self, EntryRef};
use super::{ENTRIES, Oplog, State, frame};
use crate::codec::Writer;
use crate::{Error, ErrorKind, Result};

/// Disk space is reserved ahead of the entries in steps of this many bytes, and this much of it is kept for an entry
/// that gives space back: on a full disk blocks can still be cleared.
const ROOM_STEP: u64 = 32 << 10;
const ROOM_KEPT: u64 = 4 << 10;

impl Oplog {
    /// Appends `entries` with one write, without waiting for the disk. A crash may leave the first of them without
    /// the rest. Some disk space stays reserved behind them for [`Oplog::append_to_free`].
    ///
    /// # Errors
    /// After an error of the disk, none of the entries counts for this process, yet some may be found by the next
    /// open. The caller must write nothing that contradicts them and had better stop writing. A later append first
    /// removes them.
    pub fn append(&mut self, entries: &[EntryRef<'_>]) -> Result<()> {
        self.append_with(entries, true)
    }

    /// As [`Oplog::append`], for an entry that gives disk space back: it may use the space that is kept for it.
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

    /// Whether the file is as it was after the last write that succeeded.
    pub fn is_good(&self) -> bool {
        self.state == State::Good
    }

    /// Cuts off what stands behind the entries: a batch that is not whole, or entries that a header made void whose
    /// flush was cut short.
    ///
    /// With `sync` the header is on the disk before the entries go that it made void, or a power cut could leave
    /// neither. The cut is on the disk before others are written in their place: a whole entry may stand behind a
    /// torn one.
    pub fn cut_tail(&mut self, sync: bool) -> Result<()> {
        if self.state != State::Torn {
            return Ok(());
        }
        if sync {
            self.sync_all()?;
        }
        self.take_back()?;
        self.cut_is_loose = true;
        if sync { self.sync() } else { Ok(()) }
    }

    /// Takes back what an append that failed may have left behind the entries.
    pub fn take_back(&mut self) -> Result<()> {
        if self.state == State::Torn {
            self.file.set_len(ENTRIES + self.byte_length).map_err(|e| self.error(e, "cut"))?;
            self.reserved = 0;
            self.state = State::Good;
        }
        Ok(())
    }

    /// Reserves disk space up to the byte `end` of the file.
    fn reserve(&mut self, end: u64) -> Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let from = self.reserved.max(ENTRIES + self.byte_length);
        let ahead = end.max(from + ROOM_STEP);
        // Near the end of the space there may still be what is needed now.
        let reserved = match self.file.reserve(from, ahead - from) {
            Ok(()) => Ok(ahead),
            Err(_) => self.file.reserve(from, end - from).map(|()| end),
        };
        self.reserved = reserved.map_err(|e| self.error(e, "write"))?;
        Ok(())
    }
}
