//! Reading and writing the pages of the file `bitfield`.

use std::io;
use std::sync::Arc;

use crate::bits::{PAGE_BYTES, Page};
use crate::storage::backend::{File, Storage};
use crate::storage::lazy_file::{FileOptions, LazyFile};
use crate::storage::mmap::MmapWindows;
use crate::storage::seqlock::SequenceCounter;
use crate::{Error, Result};

/// The most neighbouring pages in one write.
const GATHER_PAGES: usize = 64;

/// The file `bitfield`.
pub struct BitfieldFile {
    file: Arc<LazyFile>,
    windows: MmapWindows,
    sequence: SequenceCounter,
}

impl BitfieldFile {
    /// Opens the file if it exists; the first write creates it.
    pub fn open(storage: &Arc<dyn Storage>, how: FileOptions) -> Result<Self> {
        let file = Arc::new(LazyFile::open(storage, "bitfield", how.writable)?);
        let windows =
            MmapWindows::new(file.clone(), how.mappable, how.map_limit / 4).map_err(|e| file.error(e, "open"))?;
        Ok(BitfieldFile { file, windows: windows.shared(!how.writable), sequence: SequenceCounter::default() })
    }

    /// The same file, closed until its next use. None if this one is not open. The caller drops this one.
    pub fn released(&self) -> Result<Option<Self>> {
        let Some(file) = self.file.released()?.map(Arc::new) else { return Ok(None) };
        Ok(Some(BitfieldFile { windows: self.windows.anew(file.clone()), file, sequence: self.sequence.clone() }))
    }

    /// Drops all maps for good, because another handle changes the file from now on.
    pub fn retire(&self) {
        self.windows.retire();
    }

    /// Opens the file if it is released; see [`LazyFile::reopen`].
    pub fn reopen(&self) -> Result<()> {
        self.file.reopen()
    }

    pub(super) fn version(&self) -> u64 {
        self.sequence.get()
    }

    /// The length of the file without an incomplete last word.
    fn readable(&self) -> u64 {
        self.windows.len() & !3
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let n = self.readable().saturating_sub(offset).min(out.len() as u64) as usize;
        let (there, rest) = out.split_at_mut(n);
        let read = self.windows.read(offset, there).map_err(|e| self.file.error(e, "read"))?;
        // The read is short only if the file was shortened meanwhile, by this process or by the writer whose core this
        // reads.
        there[read..].fill(0);
        rest.fill(0);
        Ok(())
    }

    /// A page of the file; None if it is past the end.
    pub(super) fn page(&self, page: u64) -> Result<Option<Page>> {
        if page >= self.pages() {
            return Ok(None);
        }
        let mut bytes = [0; PAGE_BYTES];
        self.read(page * PAGE_BYTES as u64, &mut bytes)?;
        Ok(Some(Page::from_bytes(&bytes)))
    }

    fn pages(&self) -> u64 {
        self.readable().div_ceil(PAGE_BYTES as u64)
    }

    /// The first page, `page` or later, that may have set bits.
    pub(super) fn next_page(&self, page: u64) -> Result<Option<u64>> {
        if page >= self.pages() {
            return Ok(None);
        }
        let data = self.file.next_data(page * PAGE_BYTES as u64);
        let data = match data {
            // Only a hole follows, or another program shortened the file.
            Ok(None) => self.windows.check().map(|()| None),
            data => data,
        };
        let data = data.map_err(|e| self.file.error(e, "read"))?;
        Ok(data.map(|at| at / PAGE_BYTES as u64).filter(|&p| p < self.pages()))
    }

    /// The last page before `end` that may have set bits.
    pub(super) fn last_page(&self, end: u64) -> Result<Option<u64>> {
        let end = end.min(self.pages());
        let before_end = |page: u64| Ok::<_, Error>(self.next_page(page)?.filter(|&p| p < end));
        // Search from doubled distances before the end, since the page is mostly near it.
        let mut step = 1;
        let mut low = loop {
            let from = end.saturating_sub(step);
            match before_end(from)? {
                Some(page) => break page,
                None if from == 0 => return Ok(None),
                None => step = step.saturating_mul(2),
            }
        };
        // `low` has data. Find the last page with data between `low` and `high` by bisection.
        let mut high = end;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match before_end(middle)? {
                Some(page) => low = page,
                None => high = middle,
            }
        }
        Ok(Some(low))
    }

    /// Writes `pages`, which are sorted by their number. Neighbours share a write.
    pub fn write_pages(&self, pages: &[(u64, Arc<Page>)]) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let _section = self.sequence.change();
        let failed = |e| self.file.error(e, "write");
        // An incomplete last word would count if the file grew over it.
        if self.windows.len() != self.readable() {
            self.windows.set_len(self.readable()).map_err(failed)?;
        }
        let mut bytes = Vec::with_capacity(PAGE_BYTES * pages.len().min(GATHER_PAGES));
        for run in pages.chunk_by(|a, b| b.0.wrapping_sub(a.0) == 1) {
            for part in run.chunks(GATHER_PAGES) {
                bytes.clear();
                part.iter().for_each(|(_, page)| bytes.extend_from_slice(&page.to_bytes()));
                let offset = part[0].0.checked_mul(PAGE_BYTES as u64);
                let offset = offset.ok_or_else(|| failed(io::ErrorKind::FileTooLarge.into()))?;
                self.windows.write_at(offset, &bytes).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Clears all bits.
    pub fn clear(&self) -> Result<()> {
        let _section = self.sequence.change();
        self.windows.set_len(0).map_err(|e| self.file.error(e, "cut"))
    }

    /// Fails if another program shortened the file.
    pub fn check(&self) -> Result<()> {
        self.windows.check().map_err(|e| self.file.error(e, "write"))
    }

    /// Blocks until all writes so far would survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|e| self.file.error(e, "sync"))
    }

    /// The disk space that the file occupies, in bytes.
    pub fn disk_usage(&self) -> Result<u64> {
        self.file.disk_usage().map_err(|e| self.file.error(e, "measure"))
    }
}
