//! Flushing: writing a header, which makes all entries void.

use zeroize::Zeroizing;

use super::external::sync_external;
use super::header::Header;
use super::{ENTRIES, MAX_HEADER, Oplog, SLOT, State, frame};
use crate::codec::Writer;
use crate::{Error, ErrorKind, Result};

impl Oplog {
    /// Writes `header`, which makes all entries void. The other files must contain the changes of the entries. With
    /// `sync`, the caller has synced those files, and each step of the flush is synced before the next.
    ///
    /// # Errors
    /// After an error at the slot write or later, only the next open finds out which header is current, and all
    /// further writes fail with [`ErrorKind::Failed`].
    pub fn flush(&mut self, header: &Header, sync: bool) -> Result<()> {
        if self.state == State::Failed {
            return Err(self.failed());
        }
        let is_new = self.state == State::New;
        self.cut_tail(sync)?;
        // The buffer is allocated once: growing would leave a copy of the secret key in freed memory.
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

        // Up to here the live slot and its entries are untouched; a failure from here on stops all further writes.
        self.state = State::Failed;
        if sync && external.is_some() {
            sync_external(&self.storage)?;
            self.storage.sync_dir().map_err(|e| Error::from_io(e, "sync", self.storage.path("header")))?;
        }
        // The entries before the last flush have the bit that entries after this flush have. If the last flush's cut
        // of them is not synced, they must not come back after a power cut.
        if sync && self.cut_is_unsynced && !is_new {
            self.sync()?;
        }
        let slot = usize::from(!self.current());
        // The first flush writes slot 0: a new oplog starts with the bits that make slot 1 current.
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
        self.cut_is_unsynced = true;
        self.bits[slot] = bit;
        self.external = external;
        self.byte_length = 0;
        self.state = State::Good;
        Ok(())
    }
}
