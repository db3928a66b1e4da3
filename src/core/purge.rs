//! Purging a core: deleting its files while its lock is held.

use std::io;
use std::sync::Arc;

use crate::core::shared::Shared;
use crate::storage::backend::{Access, File};
use crate::{Error, ErrorKind, Result};

/// The two headers at the start of `oplog`, which hold the secret key. Its entries do not.
const HEADERS: u64 = 8192;

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
                wipe(&*file, u64::MAX).map_err(failed("wipe", name))?;
            }
            drop(file);
            self.storage.remove(name).map_err(failed("delete", name))?;
            if !is_cut {
                // A disk that cannot be overwritten must not leave half a core: an empty `oplog` can be purged again.
                let wiped = wipe(&**oplog, HEADERS);
                oplog.set_len(0).map_err(failed("cut", "oplog"))?;
                wiped.map_err(failed("wipe", "oplog"))?;
                is_cut = true;
            }
        }
        self.storage.remove("oplog").map_err(failed("delete", "oplog"))?;
        if !is_cut {
            wipe(&**oplog, HEADERS).map_err(failed("wipe", "oplog"))?;
        }
        self.sync_dir()
    }
}

/// Overwrites up to `most` bytes at the start of a file that holds the secret key, which would stay in free disk space
/// or under another name of the file (a hard link). Without the sync, zeros in a deleted file need not reach the disk.
///
/// Holes are skipped: they hold no key, a full disk has no room to fill them, and a damaged file may claim any length.
fn wipe(file: &dyn File, most: u64) -> io::Result<()> {
    const PAGE: u64 = 4096;
    let len = file.len()?.min(most);
    let mut at = 0;
    while at < len {
        let Some(data) = file.next_data(at)?.filter(|&data| data < len) else { break };
        at = data - data % PAGE;
        let n = PAGE.min(len - at);
        file.write_at(at, &[0; PAGE as usize][..n as usize])?;
        at += n;
    }
    file.sync()
}
