//! The file `oplog` and its lock, which keeps other processes out of an open core.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::core::open_options::OpenOptions;
use crate::core::state::storage_path;
use crate::storage::backend::{Access, File, Storage};
use crate::{Error, ErrorKind, Result};

/// How often opening starts again because another process removed `oplog` before it was locked.
const LOCK_TRIES: usize = 64;

/// Opens or makes the file `oplog`, and takes its lock if the options ask for one.
///
/// Between opening and locking, another process may remove the file, or even make the next one, and a lock on a
/// file without a name keeps no process out. So the name is checked again under the lock. From then on the name
/// stays: only the holder of the lock removes the file, and removes it after all others of the core.
pub(crate) fn open_oplog(storage: &Arc<dyn Storage>, options: &OpenOptions) -> Result<Arc<dyn File>> {
    let path = storage.path("oplog");
    let open = |access| storage.open("oplog", access).map_err(|e| Error::from_io(e, "open", &path));
    let mut conflict = None;
    for _ in 0..LOCK_TRIES {
        let file = match open(if options.read_only { Access::Read } else { Access::Write })? {
            Some(file) => file,
            None if options.read_only || !options.create_if_missing => return Err(no_core(storage)),
            None => match refuse_existing_files(storage, options) {
                Ok(()) => open(Access::Create)?.ok_or_else(|| no_core(storage))?,
                // These files may belong to a core that was made just now, whose `oplog` exists by now.
                Err(error) if error.kind() == ErrorKind::StorageConflict => {
                    conflict = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        if options.read_only || !options.lock {
            return Ok(file);
        }
        lock(&*file, &path)?;
        if storage.is_current("oplog", &*file).map_err(|e| Error::from_io(e, "look for", &path))? {
            return Ok(file);
        }
        conflict = None;
    }
    Err(conflict.unwrap_or_else(|| {
        let why = "other processes deleted the file each time before it was locked: end them, or try again";
        Error::new(ErrorKind::Locked, why).at(&path)
    }))
}

/// Takes the exclusive lock on `oplog`.
fn lock(file: &dyn File, path: &Path) -> Result<()> {
    let why = match file.lock(true) {
        Ok(true) => return Ok(()),
        Ok(false) => {
            "another process, or another handle of this one, has this core open and locked: close it there (`fuser` \
             and `lsof` name the process), or open read-only"
        }
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            "this file system has no locks: open with `lock(false)` if no other process can open this core"
        }
        Err(e) => return Err(Error::from_io(e, "lock", path)),
    };
    Err(Error::new(ErrorKind::Locked, why).at(path))
}

pub(crate) fn no_core(storage: &Arc<dyn Storage>) -> Error {
    Error::new(ErrorKind::StorageEmpty, "no core is stored here").at(storage_path(storage))
}

/// Fails if a new core would overwrite files with bytes that belong to no core, or to one that lost its `oplog`.
pub(crate) fn refuse_existing_files(storage: &Arc<dyn Storage>, options: &OpenOptions) -> Result<()> {
    for name in ["tree", "bitfield", "data", "header"] {
        let path = storage.path(name);
        let found = storage.open(name, Access::Read).map_err(|e| Error::from_io(e, "open", &path))?;
        let len = found.map_or(Ok(0), |file| file.len()).map_err(|e| Error::from_io(e, "read", &path))?;
        if len > 0 && !options.overwrite {
            return Err(Error::new(
                ErrorKind::StorageConflict,
                "a new core would overwrite this file, and there is no `oplog` beside it that makes it a core's: put \
                 `oplog` back, take another directory, or `overwrite`, which destroys this file (to finish an \
                 interrupted purge, purge again)",
            )
            .at(path));
        }
    }
    Ok(())
}
