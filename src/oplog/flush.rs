//! Writing a header, which voids all entries.

use zeroize::Zeroizing;

use super::external::sync_external;
use super::header::Header;
use super::{ENTRIES, MAX_HEADER, Oplog, SLOT, State, frame};
use crate::codec::Writer;
use crate::{Error, ErrorKind, Result};

impl Oplog {
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
}
