//! When the core is flushed, and what a flush writes; `core/commit.rs` says in which order and why.

use crate::Result;
use crate::core::durability::Durability;
use crate::core::proven;
use crate::core::shared::Shared;
use crate::core::writer::{Preparation, Writer};

/// The oplog is flushed when its entries exceed this many bytes, as in the reference;
const MAX_ENTRY_BYTES: u64 = 64 * 1024;
/// where each flush waits for the disk several times, seldomer;
const MAX_SYNCED_ENTRY_BYTES: u64 = 256 * 1024;
/// or when this many bytes of blocks were written since: what has to be checked again after a crash stays bounded.
const MAX_BLOCK_BYTES: u64 = 16 * 1024 * 1024;

impl Shared {
    /// Opens what was released, for a change that is about to begin. The caller holds the writer.
    pub(crate) fn reopen_files(&self, _: &mut Writer) -> Result<()> {
        let reading = self.reading()?;
        reading.tree.file.reopen()?;
        reading.bits.file().reopen()?;
        reading.blocks.reopen()
    }

    /// Flushes where that is due, behind changes that have happened: what fails now poisons the core. Where there is
    /// no room the entries stay in the oplog, and the next change tries again.
    pub(crate) fn flush_if_due(&self, writer: &mut Writer, is_cut: bool) {
        let most = if self.durability == Durability::None { MAX_ENTRY_BYTES } else { MAX_SYNCED_ENTRY_BYTES };
        // The reference cannot read blocks that were appended behind an unflushed truncation.
        let is_due = is_cut
            || writer.header_is_stale
            || writer.oplog.entries_byte_length() >= most
            || writer.unflushed_bytes >= MAX_BLOCK_BYTES;
        if is_due {
            let flushed = self.flush(writer);
            if let Some(error) = flushed.err().filter(|error| !self.is_clean_out_of_space(writer, error)) {
                self.poison(&error);
            }
        }
    }

    /// Makes the files, before anything is added to them for the first time, what this durability takes them for:
    ///
    /// * `oplog` ends behind its last whole entry;
    /// * what opening gave up, and the cuts it found, are flushed: neither must come back behind the entries to come;
    /// * `data` ends where the log does: what a crash or another implementation left beyond is cut off, so that bytes not yet written read as zeros (see `core/recovery.rs`);
    /// * the space of blocks that were dropped is given back, should a crash have come in between;
    /// * with
    ///   `always`, what was there before is on the disk, names included: whoever wrote it may not have waited for that. (With `flush`
    ///   the next flush sees to it.)
    pub(crate) fn prepare_files(&self, writer: &mut Writer) -> Result<()> {
        let Preparation::Due { flush, holes } = writer.preparation.clone() else { return Ok(()) };
        let sync = self.durability != Durability::None;
        if sync {
            // A process that was killed may have made files whose names are not on the disk.
            self.check_sync(self.sync_dir())?;
        }
        self.check_sync(writer.oplog.cut_tail(sync))?;
        if flush {
            // Syncs the entries before it cuts what they allow to cut.
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
            // The entries that the bytes beyond the end, or in the holes, are no part of any more.
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

    /// Writes what the oplog holds to its places, and the header that makes it void.
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
                proven::end_of_held(&reading.tree(self), &reading.head, &reading.bits, u64::MAX)?
            }
            None => None,
        };
        let written = self.synced.written();
        // What is overwritten below is needed by the old header alone; the entries have to be safe before.
        if sync && !self.synced.is_complete() {
            self.check_sync(blocks.sync())?;
            self.check_sync(writer.oplog.sync())?;
        }
        // A header must not vouch for files that another program cut.
        bits_file.check()?;
        tree_file.check()?;
        if !pages.is_empty() {
            bits_file.write_pages(&pages)?;
        }
        if let Some(pending) = &nodes {
            if let Some(length) = pending.cut {
                tree_file.cut(length)?;
                // What is written there next is told from what was there before by the zeros that it overwrites.
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

    /// A flush has synced what peers were not told of.
    fn announce_flushed(&self) {
        let _announcing = self.announcing.lock();
        let Some(waiting) = self.state.write().unannounced.take() else { return };
        if let Some(network) = self.network.get() {
            network.changed(&waiting.into_changes());
        }
    }

    /// Flushes now, for a caller that is told of an error; the core is poisoned by one.
    pub(crate) fn flush_now(&self, writer: &mut Writer) -> Result<()> {
        self.reopen_files(writer)?;
        self.flush(writer).inspect_err(|error| self.poison_unless_full(writer, error))
    }
}
