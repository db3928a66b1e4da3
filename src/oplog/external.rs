//! Headers that are too long for a slot, which stand in the file `header`.

use std::io;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::frame_reader::zeros;
use super::header::{ExternalHeader, Header, Slot};
use super::{MAX_HEADER, Oplog, SLOT};
use crate::codec::Reader;
use crate::storage::backend::{Access, Storage};
use crate::{Error, Result};

impl Oplog {
    /// [`Oplog::sync`] that also syncs the file `header` if the current header is in it, even if another process wrote
    /// it.
    pub fn sync_all(&mut self) -> Result<()> {
        if self.external.is_some() {
            sync_external(&self.storage)?;
        }
        self.sync()
    }

    pub(super) fn load_external(&mut self, place: ExternalHeader) -> Result<Header> {
        let path = self.storage.path("header");
        let corrupt = |what: String| Err(Error::corrupt(what).at(&path));
        let file = match self.storage.open("header", Access::Read) {
            Ok(Some(file)) => file,
            Ok(None) => {
                return corrupt("the file with the header of the core is missing; restore it from a copy".into());
            }
            Err(e) => return Err(Error::from_io(e, "open", path)),
        };
        let read = |e| Error::from_io(e, "read", &path);
        let len = file.len().map_err(read)?;
        if place.start.checked_add(place.length).is_none_or(|end| end > len) {
            return corrupt(format!(
                "the header of {} bytes at {} lies past the end of the file; restore it from a copy",
                place.length, place.start
            ));
        }
        if place.length > MAX_HEADER {
            return corrupt(format!(
                "a header of {} bytes is longer than any; restore the file from a copy",
                place.length
            ));
        }
        let mut bytes = Zeroizing::new(zeros(place.length).map_err(read)?);
        let n = file.read_at(place.start, &mut bytes).map_err(read)?;
        let mut r = Reader::new(&bytes[..n]);
        match Slot::decode(&mut r) {
            Ok(Slot::Inline(header)) if r.is_empty() => {
                self.external = Some(place);
                Ok(*header)
            }
            Ok(Slot::Inline(_)) => {
                corrupt(format!("{} bytes follow the header; restore the file from a copy", r.len()))
            }
            Ok(Slot::External(_)) => corrupt("the header refers to a further one; restore the file from a copy".into()),
            Err(e) => corrupt(format!("the header cannot be read: {e}; restore the file from a copy")),
        }
    }

    /// Writes a header to a place of `header` that does not overlap the current one.
    pub(super) fn write_external(&self, header: &[u8]) -> Result<ExternalHeader> {
        let length = header.len() as u64;
        let current = self.external.unwrap_or_default();
        let start = if length <= current.start {
            0
        } else {
            // The sum does not overflow: the current place was read or written, so it is in the file.
            (current.start + current.length).next_multiple_of(SLOT as u64)
        };
        let path = self.storage.path("header");
        let made = self.storage.open("header", Access::Create).and_then(|f| f.ok_or(io::ErrorKind::NotFound.into()));
        let file = made.map_err(|e| Error::from_io(e, "create", &path))?;
        file.write_at(start, header).map_err(|e| Error::from_io(e, "write", &path))?;
        Ok(ExternalHeader { start, length })
    }
}

/// Blocks until the file `header`, if it exists, would survive a power cut.
pub(super) fn sync_external(storage: &Arc<dyn Storage>) -> Result<()> {
    let path = storage.path("header");
    let file = storage.open("header", Access::Read).map_err(|e| Error::from_io(e, "open", &path))?;
    file.map_or(Ok(()), |file| file.sync()).map_err(|e| Error::from_io(e, "sync", &path))
}
