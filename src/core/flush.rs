//! When a core is flushed, what a flush writes, and what is repaired in the files before the first change
//! (`prepare_files`). `core/commit.rs` gives the order of the writes and the reasons.

use crate::Result;
use crate::core::durability::Durability;
use crate::core::shared::Shared;
use crate::core::trusted_nodes;
use crate::core::writer::{Preparation, Writer};

/// With [`Durability::None`], the core is flushed when the entries in the oplog reach this many bytes, as
/// in JavaScript Hypercore.
const MAX_ENTRY_BYTES: u64 = 64 * 1024;
/// The same limit with the other durabilities. It is larger because each flush waits for the disk several times.
const MAX_SYNCED_ENTRY_BYTES: u64 = 256 * 1024;
/// The core is also flushed after this many bytes of blocks, which bounds what has to be checked again
/// after a crash.
const MAX_BLOCK_BYTES: u64 = 16 * 1024 * 1024;

impl Shared {
    /// Opens again the files that [`release_files`](crate::Hypercore::release_files) closed, before a change
    /// begins. The argument shows that the caller holds the writer lock.
    pub(crate) fn reopen_files(&self, _: &mut Writer) -> Result<()> {
        let reading = self.reading()?;
        reading.tree.file.reopen()?;
        reading.bits.file().reopen()?;
        reading.blocks.reopen()
    }

    /// Flushes if a flush is due. The changes before it have happened, so a failure is not their error: it poisons
    /// the core. If only disk space is missing, the entries stay in the oplog and the next change tries again.
    pub(crate) fn flush_if_due(&self, writer: &mut Writer, is_cut: bool) {
        let limit = if self.durability == Durability::None { MAX_ENTRY_BYTES } else { MAX_SYNCED_ENTRY_BYTES };
        // JavaScript Hypercore cannot read blocks that were appended after an unflushed truncation.
        let is_due = is_cut
            || writer.header_is_stale
            || writer.oplog.entries_byte_length() >= limit
            || writer.unflushed_bytes >= MAX_BLOCK_BYTES;
        if is_due {
            let flushed = self.flush(writer);
            if let Some(error) = flushed.err().filter(|error| !self.is_clean_out_of_space(writer, error)) {
                self.poison(&error);
            }
        }
    }

    /// Brings the files of an earlier session into the state that the first change and this durability rely on. It
    /// does nothing after the first success. Afterwards:
    ///
    /// * `oplog` ends after its last whole entry.
    /// * The entries that opening discarded, and the truncations that it found, are flushed: neither may come back
    ///   once new entries follow.
    /// * `data` ends where the log ends. Bytes beyond, left by a crash or by another implementation, are cut off,
    ///   so that bytes not yet written read as zeros (see `core/recovery.rs`).
    /// * The disk space of dropped blocks is given back; a crash may have come before that.
    /// * With [`Durability::Always`], everything found is on the disk, file names included: the session that wrote
    ///   it may not have waited for that. (With [`Durability::Flush`] the next flush does this.)
    pub(crate) fn prepare_files(&self, writer: &mut Writer) -> Result<()> {
        let Preparation::Due { flush, holes } = writer.preparation.clone() else { return Ok(()) };
        let sync = self.durability != Durability::None;
        if sync {
            // A process that was killed may have made files whose names are not on the disk.
            self.check_sync(self.sync_dir())?;
        }
        self.check_sync(writer.oplog.cut_tail(sync))?;
        if flush {
            // This syncs the entries before it shortens the files as these entries allow.
            self.flush_prepared(writer)?;
        }
        let (tree, bits, blocks, end) = {
            let state = self.state.read();
            let files = state.files()?;
            (files.tree.file().clone(), files.bits.file().clone(), files.blocks.clone(), state.head.byte_length())
        };
        let is_longer = blocks.len()? > end;
        if self.durability == Durability::Always {
            self.check_sync(blocks.sync())?;
            self.check_sync(bits.sync())?;
            self.check_sync(tree.sync())?;
            self.check_sync(writer.oplog.sync_all())?;
        } else if sync && (is_longer || !holes.is_empty()) {
            // Only these entries say that the bytes beyond the end, or in the holes, are not needed any more.
            self.check_sync(writer.oplog.sync())?;
        }
        if is_longer {
            blocks.set_len(end)?;
            if sync {
                self.check_sync(blocks.sync())?;
            }
        }
        for hole in holes {
            self.punch_unheld(hole)?;
        }
        if self.durability == Durability::Always {
            self.synced.mark_synced(self.synced.written());
        }
        writer.preparation = Preparation::Done;
        Ok(())
    }

    /// Writes the changes that the oplog holds to their files, then the header that outdates the entries.
    pub(crate) fn flush(&self, writer: &mut Writer) -> Result<()> {
        self.prepare_files(writer)?;
        self.flush_prepared(writer)
    }

    fn flush_prepared(&self, writer: &mut Writer) -> Result<()> {
        let sync = self.durability != Durability::None;
        let (tree_file, bits_file, blocks, nodes, pages) = {
            let state = self.state.read();
            let files = state.files()?;
            (
                files.tree.file().clone(),
                files.bits.file().clone(),
                files.blocks.clone(),
                files.tree.pending(),
                files.bits.dirty_pages(),
            )
        };
        let bytes_kept = match nodes.as_ref().and_then(|nodes| nodes.cut) {
            Some(_) => {
                let reading = self.reading()?;
                trusted_nodes::end_of_held(&reading.tree(self), &reading.head, &reading.bits, u64::MAX)?
            }
            None => None,
        };
        let written = self.synced.written();
        // The old header needs what is overwritten below, unless the entries are on the disk.
        if sync && !self.synced.is_complete() {
            self.check_sync(blocks.sync())?;
            self.check_sync(writer.oplog.sync())?;
        }
        // The new header must not vouch for files that another program shortened.
        bits_file.check()?;
        tree_file.check()?;
        if !pages.is_empty() {
            bits_file.write_pages(&pages)?;
        }
        if let Some(pending) = &nodes {
            if let Some(length) = pending.cut {
                tree_file.cut(length)?;
                // Recovery finds blocks that did not reach the disk by the zeros that they overwrite.
                if let Some(kept) = bytes_kept.filter(|&kept| blocks.len().is_ok_and(|len| len > kept)) {
                    blocks.set_len(kept)?;
                }
                if sync {
                    self.check_sync(blocks.sync())?;
                }
            }
            tree_file.write(&pending.nodes)?;
        }
        if sync {
            self.check_sync(bits_file.sync())?;
            self.check_sync(tree_file.sync())?;
        }
        let contiguous = self.contiguous_length()?;
        let header = {
            let mut state = self.state.write();
            state.stored_contiguous = Some(contiguous);
            state.repaired.clear();
            let files = state.files_mut()?;
            files.bits.forget(&pages);
            if let Some(pending) = &nodes {
                files.tree.forget(pending);
            }
            state.header(self.key, writer.key_pair.as_ref())
        };
        writer.oplog.flush(&header, sync)?;
        writer.unflushed_bytes = 0;
        writer.has_unflushed = false;
        writer.has_unmarked_tail = false;
        writer.header_is_stale = false;
        if sync {
            self.synced.mark_synced(written);
            self.announce_flushed();
        }
        Ok(())
    }

    /// Tells peers of the changes that waited for a sync, which a flush has done.
    fn announce_flushed(&self) {
        let _notifying = self.notifying.lock();
        let Some(waiting) = self.state.write().unannounced.take() else { return };
        if let Some(network) = self.network.get() {
            network.changed(&waiting.into_changes());
        }
    }

    /// Flushes now and returns the error, which also poisons the core unless only disk space was missing.
    pub(crate) fn flush_now(&self, writer: &mut Writer) -> Result<()> {
        self.reopen_files(writer)?;
        self.flush(writer).inspect_err(|error| self.poison_unless_full(writer, error))
    }
}
