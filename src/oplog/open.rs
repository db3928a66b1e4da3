//! Opening an oplog: reading its current header and the entries since.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::entry::{Entry, Marks};
use super::frame_reader::{FrameReader, zeros};
use super::header::{Header, Slot};
use super::tail::{self, Tail};
use super::{ENTRIES, Oplog, SLOT, State, frame};
use crate::codec::Reader;
use crate::storage::backend::{File, Storage};
use crate::{Error, Result};

/// The most bytes after the entries that an open examines: more than the entries between two flushes have.
const MAX_TAIL: u64 = 1 << 20;

/// The content of an oplog when it was opened.
#[derive(Debug)]
pub struct OpenedOplog {
    /// The current header.
    pub header: Header,
    /// The changes since the header, oldest first.
    pub entries: Vec<Entry>,
    /// The length of the log according to the last whole entry after a lost one; None if no entry was lost.
    pub lost_length: Option<u64>,
    /// Whether this header may be the older of the two: the other slot holds bytes that cannot be read, or the file
    /// ends in it.
    pub may_be_outdated: bool,
}

impl Oplog {
    /// Opens the oplog `file` and returns its content, or None if no core was created yet. This does not change the
    /// file: bytes after the last whole batch are cut off before the next write, by [`Oplog::cut_tail`] at the latest.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if no header can be read, or the current one cannot, or if an
    /// entry that was on the disk is damaged.
    pub fn open(storage: &Arc<dyn Storage>, file: Arc<dyn File>) -> Result<(Self, Option<OpenedOplog>)> {
        let mut oplog = Oplog {
            storage: storage.clone(),
            file,
            bits: [true, false],
            external: None,
            byte_length: 0,
            reserved: 0,
            // The process that wrote the file may not have synced it.
            cut_is_unsynced: true,
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
            Err(e) => {
                return Err(Error::corrupt(format!(
                    "the header cannot be read: {e}; restore the file from a copy, or replicate the core anew"
                ))
                .at(oplog.path()));
            }
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
        Ok((oplog, Some(OpenedOplog { header, entries, lost_length, may_be_outdated })))
    }

    fn read_entries(&mut self, len: u64) -> Result<Vec<Entry>> {
        let (mut entries, mut whole) = (Vec::new(), 0);
        let mut frames = FrameReader::new(&*self.file, ENTRIES, len);
        let current = self.current();
        while let Some((prefix, message)) = frames.next(current).map_err(|e| self.error(e, "read"))? {
            let Ok(entry) = Entry::decode(&mut Reader::new(message)) else { break };
            entries.push(entry);
            if !prefix.partial() {
                whole = entries.len();
                self.byte_length = frames.at() - ENTRIES;
            }
        }
        entries.truncate(whole);
        Ok(entries)
    }

    /// Examines the bytes between the last entry and `len`; see [`OpenedOplog::lost_length`].
    fn judge_tail(&self, end: u64, len: u64, entries: &[Entry]) -> Result<Option<u64>> {
        let mut bytes = zeros((len - end.min(len)).min(MAX_TAIL)).map_err(|e| self.error(e, "read"))?;
        let n = self.file.read_at(end, &mut bytes).map_err(|e| self.error(e, "read"))?;
        let all_marked = entries.iter().all(|entry| entry.marks != Marks::default());
        match tail::judge(&bytes[..n], self.current(), all_marked) {
            Tail::Void => Ok(None),
            Tail::Lost { length } => Ok(Some(length)),
            Tail::Damaged => {
                let what = format!(
                    "the entry at byte {end}, which had reached the disk, is damaged. The files are unchanged: restore \
                     the file from a copy, or create the core anew (`overwrite`) and fetch the log from a peer"
                );
                Err(Error::corrupt(what).at(self.path()))
            }
        }
    }
}
