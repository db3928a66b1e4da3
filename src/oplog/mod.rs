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

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::storage::backend::{Access, File, Storage};
use crate::{Error, ErrorKind, Result};

pub mod entry;
pub mod frame;
pub mod header;
mod tail;
#[cfg(test)]
mod tests;

pub use entry::{BitfieldUpdate, Entry, EntryRef, Marks, TreeUpgrade};
use tail::Tail;

pub use header::{External, Header, ReorgHint, Slot, StoredKeyPair, TreeHeader};

/// Bytes of a slot.
const SLOT: usize = 4096;

/// Where the entries begin.
const ENTRIES: u64 = 2 * SLOT as u64;

/// Entries are read in pieces of this many bytes.
const CHUNK: usize = 64 << 10;

/// The longest header, with its frame. Nothing but user data could make it so long, and it has no checksum that were
/// to be checked before memory is taken.
const MAX_HEADER: u64 = 256 << 20;

/// The most bytes that the values and keys of user data may have together: what else a header holds fits beside them.
pub const MAX_USER_DATA: u64 = MAX_HEADER - (16 << 20);

/// Disk space is reserved ahead of the entries in steps of this many bytes, and this much of it is kept for an entry
/// that gives space back: on a full disk blocks can still be cleared.
const ROOM_STEP: u64 = 32 << 10;
const ROOM_KEPT: u64 = 4 << 10;

/// So much of what stands behind the entries is looked at: more than there is between two flushes.
const MAX_TAIL: u64 = 1 << 20;

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

/// What an oplog held.
#[derive(Debug)]
pub struct Recovered {
    /// The current header.
    pub header: Header,
    /// The changes since, oldest first.
    pub entries: Vec<Entry>,
    /// How long the log was, where an entry behind these was lost that others follow on.
    pub lost_length: Option<u64>,
    /// Whether the other header cannot be read, though something stands in its place, or the file ends before that:
    /// this one may be the older of the two.
    pub may_be_outdated: bool,
}

impl Oplog {
    /// Opens the oplog `file` and says what it held: nothing where no core was made yet. The file stays as it is: what
    /// follows the last whole batch is cut off before anything is written, by [`Oplog::cut_tail`] at the latest.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where no header, or not the current one, can be read.
    pub fn open(storage: &Arc<dyn Storage>, file: Arc<dyn File>) -> Result<(Self, Option<Recovered>)> {
        let mut oplog = Oplog {
            storage: storage.clone(),
            file,
            bits: [true, false],
            external: None,
            byte_length: 0,
            reserved: 0,
            // Whoever wrote the file may not have waited for the disk.
            cut_is_loose: true,
            state: State::New,
        };
        let len = oplog.file.len().map_err(|e| oplog.error(e, "read"))?;
        let mut slots = Zeroizing::new([0; ENTRIES as usize]);
        let n = oplog.file.read_at(0, &mut slots[..]).map_err(|e| oplog.error(e, "read"))?;
        let slots = &slots[..n];
        let first = frame::decode(slots);
        let second = slots.get(SLOT..).and_then(frame::decode);
        let (bits, message) = match (first, second) {
            (Some((a, first)), Some((b, second))) => {
                ([a.bit(), b.bit()], if a.bit() == b.bit() { first } else { second })
            }
            (Some((a, first)), None) => ([a.bit(), a.bit()], first),
            (None, Some((b, second))) => ([!b.bit(), b.bit()], second),
            (None, None) if len < ENTRIES => return Ok((oplog, None)),
            (None, None) => {
                let what =
                    "neither header of the core can be read; restore the file from a copy, or replicate the core anew";
                return Err(Error::corrupt(what).at(oplog.path()));
            }
        };
        oplog.bits = bits;
        oplog.state = State::Good;
        let header = match Slot::decode(&mut Reader::new(message)) {
            Ok(Slot::Inline(header)) => *header,
            Ok(Slot::External(place)) => oplog.load_external(place)?,
            Err(e) => return Err(Error::corrupt(format!("the header cannot be read: {e}")).at(oplog.path())),
        };
        let entries = oplog.read_entries(len)?;
        let end = ENTRIES + oplog.byte_length;
        let mut lost_length = None;
        if end != len {
            oplog.state = State::Torn;
            lost_length = oplog.judge_tail(end, len, &entries)?;
        }
        let is_empty = |slot: &[u8]| slot.iter().all(|&byte| byte == 0);
        let may_be_outdated = match (first.is_some(), second.is_some()) {
            (true, false) => len < ENTRIES || !is_empty(&slots[SLOT..]),
            (false, true) => !is_empty(&slots[..SLOT]),
            _ => false,
        };
        Ok((oplog, Some(Recovered { header, entries, lost_length, may_be_outdated })))
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
        self.cut_failed_append()?;
        self.cut_is_loose = true;
        if sync { self.sync() } else { Ok(()) }
    }

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

    /// As [`Oplog::sync`], and for a header in a file of its own, too, whoever wrote it.
    pub fn sync_all(&mut self) -> Result<()> {
        if self.external.is_some() {
            sync_external(&self.storage)?;
        }
        self.sync()
    }

    /// Bytes of the entries since the last flush.
    pub fn entries_byte_length(&self) -> u64 {
        self.byte_length
    }

    /// Appends `entries` with one write, without waiting for the disk. If `atomic`, a crash leaves all of them or
    /// none; else it may leave the first ones. Some disk space stays reserved behind them for
    /// [`Oplog::append_to_free`].
    ///
    /// # Errors
    /// After an error of the disk, none of the entries counts for this process, yet some may be found by the next
    /// open. The caller must write nothing that contradicts them and had better stop writing. A later append first
    /// removes them.
    pub fn append(&mut self, entries: &[EntryRef<'_>], atomic: bool) -> Result<()> {
        self.append_with(entries, atomic, true)
    }

    /// As [`Oplog::append`], for an entry that gives disk space back: it may use the space that is kept for it.
    pub fn append_to_free(&mut self, entry: EntryRef<'_>) -> Result<()> {
        self.append_with(&[entry], false, false)
    }

    fn append_with(&mut self, entries: &[EntryRef<'_>], atomic: bool, keep_room: bool) -> Result<()> {
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
        for (i, entry) in entries.iter().enumerate() {
            let start = out.len();
            let mut w = Writer::append_to(out);
            entry.encode(w.bytes(&[0; frame::PREFIX]));
            out = w.into_vec();
            frame::seal(&mut out, start, atomic && i + 1 < entries.len(), bit)?;
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

    /// Takes back what an append that failed may have left behind the entries.
    pub fn cut_failed_append(&mut self) -> Result<()> {
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

    /// Overwrites what the current header replaced, in this file and in `header`: an older secret key and older user
    /// data.
    ///
    /// The current header must be on the disk already, where a power cut counts.
    pub fn wipe_former(&mut self, sync: bool) -> Result<()> {
        let current = usize::from(self.current());
        let mut slot = Zeroizing::new([0; SLOT]);
        let n = self.file.read_at((current * SLOT) as u64, &mut slot[..]).map_err(|e| self.error(e, "read"))?;
        let used = frame::decode(&slot[..n]).map_or(n, |(prefix, _)| frame::PREFIX + prefix.message_len());
        let rest = (current * SLOT + used, SLOT - used.min(SLOT));
        for (at, n) in [((1 - current) * SLOT, SLOT), rest] {
            self.file.write_at(at as u64, &vec![0; n]).map_err(|e| self.error(e, "write"))?;
        }
        if sync {
            self.sync()?;
        }
        let path = self.storage.path("header");
        let failed = |e| Error::from_io(e, "wipe", &path);
        let Some(file) = self.storage.open("header", Access::Write).map_err(failed)? else { return Ok(()) };
        let len = file.len().map_err(failed)?;
        let kept = self.external.map_or(0..0, |place| place.start..(place.start + place.length).min(len));
        let mut at = 0;
        while at < len {
            if kept.contains(&at) {
                at = kept.end;
                continue;
            }
            let end = if at < kept.start { kept.start } else { len };
            let n = (end - at).min(CHUNK as u64);
            file.write_at(at, &vec![0; n as usize]).map_err(failed)?;
            at += n;
        }
        if sync {
            file.sync().map_err(failed)?;
        }
        if self.external.is_none() {
            self.storage.remove("header").map_err(failed)?;
        }
        Ok(())
    }

    /// Writes `header`, which voids all entries. What they said must be in the other files; with `sync` these must be
    /// synced, and each step of this waits for the disk before the next.
    ///
    /// # Errors
    /// After an error nothing more can be written: which header is current is known only after the next open.
    pub fn flush(&mut self, header: &Header, sync: bool) -> Result<()> {
        if self.state == State::Failed {
            return Err(self.failed());
        }
        let is_new = self.state == State::New;
        self.cut_tail(sync)?;
        // Allocated once: what is left behind by growing would keep the secret key.
        let mut w = Writer::append_to(Vec::with_capacity(header.size_hint()));
        header.encode(w.bytes(&[0; frame::PREFIX]));
        let mut frame = Zeroizing::new(w.into_vec());
        if frame.len() as u64 > MAX_HEADER {
            let what = format!("a header of {} bytes is too long; keep less user data with the core", frame.len());
            return Err(Error::new(ErrorKind::Encoding, what).at(self.path()));
        }
        let mut external = None;
        if frame.len() > SLOT {
            let place = self.write_external(&frame[frame::PREFIX..])?;
            let mut w = Writer::new();
            place.encode(w.bytes(&[0; frame::PREFIX]));
            frame = Zeroizing::new(w.into_vec());
            external = Some(place);
        }

        // Up to here nothing has changed that counts.
        self.state = State::Failed;
        if sync && external.is_some() {
            sync_external(&self.storage)?;
            self.storage.sync_dir().map_err(|e| Error::from_io(e, "sync", self.storage.path("header")))?;
        }
        // Entries have the bit of the flush after the next: what the last one cut off must not come back to be those
        // of this.
        if sync && self.cut_is_loose && !is_new {
            self.sync()?;
        }
        let slot = usize::from(!self.current());
        // Never both unwritten: a new oplog's bits are those that make slot 0 the one to write.
        let bit = !self.bits[slot];
        frame::seal(&mut frame, 0, false, bit)?;
        self.file.write_at((slot * SLOT) as u64, &frame).map_err(|e| self.error(e, "write"))?;
        if sync {
            self.file.sync().map_err(|e| self.error(e, "sync"))?;
            if is_new {
                self.storage.sync_dir().map_err(|e| self.error(e, "sync the directory of"))?;
            }
        }
        self.file.set_len(ENTRIES).map_err(|e| self.error(e, "cut"))?;
        self.reserved = 0;
        self.cut_is_loose = true;
        self.bits[slot] = bit;
        self.external = external;
        self.byte_length = 0;
        self.state = State::Good;
        Ok(())
    }

    /// Which slot is current, and which bit entries have.
    fn current(&self) -> bool {
        self.bits[0] != self.bits[1]
    }

    fn read_entries(&mut self, len: u64) -> Result<Vec<Entry>> {
        let (mut entries, mut whole) = (Vec::new(), 0);
        let mut frames =
            Frames { file: &*self.file, at: ENTRIES, end: len, chunk: Vec::new(), start: 0, large: Vec::new() };
        let current = self.current();
        while let Some((prefix, message)) = frames.next(current).map_err(|e| self.error(e, "read"))? {
            let Ok(entry) = Entry::decode(&mut Reader::new(message)) else { break };
            entries.push(entry);
            if !prefix.partial() {
                whole = entries.len();
                self.byte_length = frames.at - ENTRIES;
            }
        }
        entries.truncate(whole);
        Ok(entries)
    }

    /// Looks at what stands behind the entries: how long the log was that it speaks of, if an entry of it was lost.
    fn judge_tail(&self, end: u64, len: u64, entries: &[Entry]) -> Result<Option<u64>> {
        let mut bytes = zeros((len - end.min(len)).min(MAX_TAIL)).map_err(|e| self.error(e, "read"))?;
        let n = self.file.read_at(end, &mut bytes).map_err(|e| self.error(e, "read"))?;
        let all_marked = entries.iter().all(|entry| entry.marks != Marks::default());
        match tail::judge(&bytes[..n], self.current(), all_marked) {
            Tail::Void => Ok(None),
            Tail::Lost { length } => Ok(Some(length)),
            Tail::Damaged => {
                let what = format!(
                    "the entry at byte {end} of the log of changes is damaged, and what it says was on the disk: nothing is \
                     changed here; restore the file from a copy, or make the core anew (`overwrite`) and fetch the log from a peer"
                );
                Err(Error::corrupt(what).at(self.path()))
            }
        }
    }

    fn load_external(&mut self, place: External) -> Result<Header> {
        let path = self.storage.path("header");
        let corrupt = |what: String| Err(Error::corrupt(what).at(&path));
        let file = match self.storage.open("header", Access::Read) {
            Ok(Some(file)) => file,
            Ok(None) => return corrupt("the file is missing, and with it the header of the core".into()),
            Err(e) => return Err(Error::from_io(e, "open", path)),
        };
        let read = |e| Error::from_io(e, "read", &path);
        let len = file.len().map_err(read)?;
        if place.start.checked_add(place.length).is_none_or(|end| end > len) {
            return corrupt(format!("the header of {} bytes at {} is past the file's end", place.length, place.start));
        }
        if place.length > MAX_HEADER {
            return corrupt(format!("a header of {} bytes is too long", place.length));
        }
        let mut bytes = Zeroizing::new(zeros(place.length).map_err(read)?);
        let n = file.read_at(place.start, &mut bytes).map_err(read)?;
        let mut r = Reader::new(&bytes[..n]);
        match Slot::decode(&mut r) {
            Ok(Slot::Inline(header)) if r.is_empty() => {
                self.external = Some(place);
                Ok(*header)
            }
            Ok(Slot::Inline(_)) => corrupt(format!("{} bytes follow the header", r.len())),
            Ok(Slot::External(_)) => corrupt("the header points at a further place".into()),
            Err(e) => corrupt(format!("the header cannot be read: {e}")),
        }
    }

    /// Writes a header to where the current one is not.
    fn write_external(&self, header: &[u8]) -> Result<External> {
        let length = header.len() as u64;
        let current = self.external.unwrap_or_default();
        let start = if length <= current.start {
            0
        } else {
            // The current place was read or written, so that it is within the lengths of files.
            (current.start + current.length).next_multiple_of(SLOT as u64)
        };
        let path = self.storage.path("header");
        let made = self.storage.open("header", Access::Create).and_then(|f| f.ok_or(io::ErrorKind::NotFound.into()));
        let file = made.map_err(|e| Error::from_io(e, "make", &path))?;
        file.write_at(start, header).map_err(|e| Error::from_io(e, "write", &path))?;
        Ok(External { start, length })
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

/// Waits until the file `header`, if there is one, is on the disk, whoever wrote it.
pub fn sync_external(storage: &Arc<dyn Storage>) -> Result<()> {
    let path = storage.path("header");
    let file = storage.open("header", Access::Read).map_err(|e| Error::from_io(e, "open", &path))?;
    file.map_or(Ok(()), |file| file.sync()).map_err(|e| Error::from_io(e, "sync", &path))
}

/// Reads frames one after the other, whatever the file's length claims.
struct Frames<'a> {
    file: &'a dyn File,
    /// Where the next frame starts.
    at: u64,
    end: u64,
    /// A piece of the file; what of it is at `at` begins at `start`.
    chunk: Vec<u8>,
    start: usize,
    /// A frame's message that is too long for a piece.
    large: Vec<u8>,
}

impl Frames<'_> {
    /// The next whole frame with this bit.
    fn next(&mut self, bit: bool) -> io::Result<Option<(frame::Prefix, &[u8])>> {
        let left = self.end.saturating_sub(self.at);
        let mut prefix = [0; frame::PREFIX];
        if left < frame::PREFIX as u64 || !self.fill(frame::PREFIX)? {
            return Ok(None);
        }
        prefix.copy_from_slice(&self.chunk[self.start..self.start + frame::PREFIX]);
        let prefix = frame::Prefix::decode(prefix);
        let size = frame::PREFIX + prefix.message_len();
        if size as u64 > left || prefix.bit() != bit {
            return Ok(None);
        }
        if size > CHUNK {
            // No memory is taken for a long message before its checksum is known to be right.
            if !self.checks(&prefix)? {
                return Ok(None);
            }
            self.large = zeros(prefix.message_len() as u64)?;
            if self.file.read_at(self.at + frame::PREFIX as u64, &mut self.large)? < self.large.len() {
                return Ok(None);
            }
            self.at += size as u64;
            self.chunk.clear();
            self.start = 0;
            return Ok(Some((prefix, &self.large)));
        }
        if !self.fill(size)? {
            return Ok(None);
        }
        self.large = Vec::new();
        self.at += size as u64;
        self.start += size;
        Ok(frame::decode(&self.chunk[self.start - size..self.start]))
    }

    /// Reads until `n` bytes of the next frame are there.
    fn fill(&mut self, n: usize) -> io::Result<bool> {
        if self.chunk.len() - self.start < n {
            self.chunk.resize(CHUNK, 0);
            let read = self.file.read_at(self.at, &mut self.chunk)?;
            self.chunk.truncate(read);
            self.start = 0;
        }
        Ok(self.chunk.len() - self.start >= n)
    }

    fn checks(&self, prefix: &frame::Prefix) -> io::Result<bool> {
        let mut hasher = prefix.hasher();
        let (mut at, mut left) = (self.at + frame::PREFIX as u64, prefix.message_len());
        let mut piece = vec![0; CHUNK];
        while left > 0 {
            let n = self.file.read_at(at, &mut piece[..left.min(CHUNK)])?;
            if n == 0 {
                return Ok(false);
            }
            hasher.update(&piece[..n]);
            at += n as u64;
            left -= n;
        }
        Ok(hasher.finalize() == prefix.checksum)
    }
}

/// Memory for `n` bytes, or an error where there is not so much.
fn zeros(n: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let n = usize::try_from(n).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(n).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(n, 0);
    Ok(bytes)
}
