//! Purging a core: deleting its files while its lock is held.

use std::sync::Arc;

use crate::core::shared::Shared;
use crate::storage::backend::{Access, File};
use crate::{Error, ErrorKind, Result};

impl Shared {
    /// Deletes the files of a core that no session reads any more, while `oplog` holds its lock.
    ///
    /// `oplog` is deleted last, and its lock ends with it: a process that finds no such name makes a new core, of
    /// which nothing may be deleted here. `oplog` is emptied as soon as another file is deleted, so that the
    /// remains of an interrupted purge are no core. Before that nothing has changed: if names cannot be removed,
    /// the core stays as it is.
    pub(crate) fn remove_files(&self, oplog: &Arc<dyn File>) -> Result<()> {
        let failed = |what, name| move |e| Error::from_io(e, what, self.storage.path(name));
        if !self.storage.is_current("oplog", &**oplog).map_err(failed("look for", "oplog"))? {
            let why =
                "the file was deleted or replaced while the core was open; delete the other files of the core by hand";
            return Err(Error::new(ErrorKind::StorageConflict, why).at(self.storage.path("oplog")));
        }
        let mut is_cut = false;
        for name in ["tree", "bitfield", "data", "header"] {
            let access = if name == "header" { Access::Write } else { Access::Read };
            let Some(file) = self.storage.open(name, access).map_err(failed("open", name))? else { continue };
            if name == "header" {
                // This file holds the secret key, and may have another name (a hard link).
                let len = file.len().map_err(failed("read", name))?;
                let zeros = vec![0; 64 << 10];
                for at in (0..len).step_by(zeros.len()) {
                    let n = zeros.len().min((len - at) as usize);
                    file.write_at(at, &zeros[..n]).map_err(failed("wipe", name))?;
                }
            }
            drop(file);
            self.storage.remove(name).map_err(failed("delete", name))?;
            if !is_cut {
                oplog.set_len(0).map_err(failed("cut", "oplog"))?;
                is_cut = true;
            }
        }
        self.storage.remove("oplog").map_err(failed("delete", "oplog"))
    }
}
