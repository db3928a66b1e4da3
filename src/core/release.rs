//! Releasing the handles of an idle core's files, and opening the files again.
//!
//! The handles of `tree`, `bitfield` and `data` are released, with all maps. That of `oplog` stays, because it
//! holds the lock. Each file is opened again by the first read that needs it (see `storage/lazy_file.rs`), and all
//! of them before a change, so that a lack of handles makes the change fail before it has begun.
//!
//! Only the holder of the writer lock changes files and replaces their handles. A reader may continue to read
//! through a handle that was replaced; the handle is closed when that read ends.

use std::sync::Arc;

use crate::Result;
use crate::core::handle::Hypercore;
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::core::state::closed;

/// Files of an idle core.
impl Hypercore {
    /// Flushes the core and closes its files until they are next used. An idle core then has no maps and one
    /// descriptor, that of `oplog`, which holds the lock. Use this in programs that keep many cores open. The call
    /// costs nothing if no file was used since the last call.
    ///
    /// All methods and replication work as before: the first read opens the files that it needs, the first change
    /// all of them. Until then the files have to stay as they are. If one was removed, replaced or changed in
    /// length, the call that opens it fails with an [`Io`](crate::ErrorKind::Io) error that names it, nothing is
    /// made or overwritten in its place, and the core works again once the file is back. The same holds if the
    /// process has no descriptor left at that time.
    ///
    /// Blocks for the flush, as the durability says, and while other threads change or
    /// [`verify`](Hypercore::verify) the core.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// # let tmp = tempfile::tempdir()?;
    /// # let dir = tmp.path();
    /// let core = Hypercore::open(dir)?;
    /// core.append(b"kept")?;
    /// core.release_files()?;
    /// assert_eq!(core.get(0)?, b"kept");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release_files(&self) -> Result<()> {
        self.session.release_files()
    }
}

impl Session {
    /// See [`crate::Hypercore::release_files`].
    pub(crate) fn release_files(&self) -> Result<()> {
        self.check_open()?;
        let shared = &*self.shared;
        if shared.read_only {
            let slot = shared.writer.lock();
            return slot.as_ref().ok_or_else(closed).and_then(|_| shared.replace_files());
        }
        let mut writer = shared.writer()?;
        if writer.has_unflushed {
            shared.flush_now(&mut writer)?;
        }
        shared.replace_files()
    }
}

impl Shared {
    /// Replaces each open file by one that is not open. The caller holds the writer lock.
    fn replace_files(&self) -> Result<()> {
        let (tree, bits, blocks) = {
            let reading = self.reading()?;
            (reading.tree.file.released()?, reading.bits.file().released()?, reading.blocks.released()?)
        };
        let mut state = self.state.write();
        let files = state.files_mut()?;
        let tree = tree.map(|tree| files.tree.replace_file(Arc::new(tree)));
        let bits = bits.map(|bits| files.bits.replace_file(Arc::new(bits)));
        let blocks = blocks.map(|blocks| std::mem::replace(&mut files.blocks, Arc::new(blocks)));
        drop(state);
        // This waits for readers of the maps. Readers that start now use the new files.
        tree.iter().for_each(|file| file.retire());
        bits.iter().for_each(|file| file.retire());
        // The handles are closed here, where no reader waits for that.
        drop((tree, bits, blocks));
        Ok(())
    }
}
