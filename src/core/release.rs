//! Giving up the handles of a core's files while nobody uses it, and taking them up again.
//!
//! The handles of `tree`, `bitfield` and `data` go, with all maps; that of `oplog` stays, for it holds the lock. Each file is opened
//! again by the first read that needs it (see `storage/lazy_file.rs`), and all of them before a change, so that a change fails for want of
//! a handle before it has begun.
//!
//! Whoever holds the writer alone changes files and replaces their handles: what a reader still has of a handle that was replaced is
//! good for reading, and goes with the read.

use std::sync::Arc;

use crate::Result;
use crate::core::handle::Hypercore;
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::core::state::closed;

/// Files of an idle core.
impl Hypercore {
    /// Flushes, and closes the core's files until they are next used: an idle core then has one descriptor, that of the `oplog`,
    /// which holds the lock, and no maps. For programs that keep many cores open; where nothing was used since the last time, it
    /// costs nothing.
    ///
    /// Everything works on as before, replication too: the first read opens the files it needs, the first change all of them. Until
    /// then they have to stay what they are: a file that was removed, replaced or changed in length meanwhile is an
    /// [`Io`](crate::ErrorKind::Io) error that names it, nothing is made or overwritten in its place, and once it is back the core
    /// goes on. The same goes for a process that has no more descriptors just then.
    ///
    /// Blocks for the flush, as the durability says, and while others change or [`verify`](Hypercore::verify) the core.
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
    /// Puts a file that is not open in the place of each that is. The caller holds the writer.
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
        // That waits for who reads through a map; readers that come now read the new files.
        tree.iter().for_each(|file| file.retire());
        bits.iter().for_each(|file| file.retire());
        // They are closed when no reader waits for it.
        drop((tree, bits, blocks));
        Ok(())
    }
}
