//! Purging: the core's files are deleted while its lock is held.

use std::sync::Arc;

use crate::core::shared::Shared;
use crate::storage::backend::{Access, File};
use crate::{Error, ErrorKind, Result};

impl Shared {
    /// Deletes the files of a core that nobody reads any more, while `oplog` holds its lock.
    ///
    /// `oplog` goes last, and the lock with it: an opener that finds no such name makes a new core, of which nothing
    /// may be deleted here. It is cut as soon as another file is gone, so that what is left of a purge that is stopped
    /// there is no core. Before that nothing has changed: where names cannot be removed, the core stays as it is.
    pub(crate) fn remove_files(&self, oplog: &Arc<dyn File>) -> Result<()> {
        let failed = |what, name| move |e| Error::from_io(e, what, self.storage.path(name));
        if !self.storage.is_current("oplog", &**oplog).map_err(failed("look for", "oplog"))? {
            let why = "the file was deleted or replaced while the core was open; delete the others by hand";
            return Err(Error::new(ErrorKind::StorageConflict, why).at(self.storage.path("oplog")));
        }
        let mut is_cut = false;
        for name in ["tree", "bitfield", "data", "header"] {
            let access = if name == "header" { Access::Write } else { Access::Read };
            let Some(file) = self.storage.open(name, access).map_err(failed("open", name))? else { continue };
            if name == "header" {
                // It holds the secret key, and may have another name.
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
