//! Overwriting a replaced header.

use zeroize::Zeroizing;

use super::frame_reader::CHUNK;
use super::{Oplog, SLOT, frame};
use crate::storage::backend::Access;
use crate::{Error, Result};

impl Oplog {
    /// Overwrites the header that the current one replaced, with its secret key and user data, in `oplog` and
    /// `header`.
    ///
    /// If a power cut must not lose the core, the current header must be synced already.
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
}
