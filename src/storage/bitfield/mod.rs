//! The file `bitfield`, and its pages that changed since the last flush.
//!
//! ```text
//! bitfield   bit i: bit (i & 7) of byte (i >> 3), set when block i is held        in pages of 4096 bytes
//! ```
//!
//! Pages past the end of the file and holes in it are zeros. If the length of the file is not a multiple of four
//! bytes, its last, incomplete word is ignored. Changed pages stay in memory, where readers find them at once, until
//! the next flush writes them to the file.

mod file;
mod plan;
#[cfg(test)]
mod tests;

pub use file::BitfieldFile;
pub use plan::BitsPlan;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use byteorder::{ByteOrder, LE};

use crate::Result;
use crate::bits::{PAGE_BITS, PAGE_BYTES, Page, bits_of};

/// The set of held blocks: the file, overlaid by the pages that changed since the last flush.
///
/// Bits are numbered like blocks. All operations skip areas in which no bit was ever set.
///
/// A clone is a snapshot as long as the file does not change, which [`Bitfield::version`] tells. After such a change
/// each bit of the clone may be the old or a newer one. Changing a bitfield that has a clone first copies its table of
/// dirty pages.
#[derive(Clone)]
pub struct Bitfield {
    file: Arc<BitfieldFile>,
    dirty: Arc<BTreeMap<u64, Arc<Page>>>,
}

impl Bitfield {
    /// The bitfield in `file`, without changes.
    pub fn new(file: Arc<BitfieldFile>) -> Self {
        Bitfield { file, dirty: Arc::default() }
    }

    /// The file of the bitfield.
    pub fn file(&self) -> &Arc<BitfieldFile> {
        &self.file
    }

    /// The version of the file, which grows when a change of the file begins and when it ends.
    pub fn version(&self) -> u64 {
        self.file.version()
    }

    /// Whether this bitfield has not changed since `other` was cloned from it.
    pub fn is(&self, other: &Bitfield) -> bool {
        Arc::ptr_eq(&self.dirty, &other.dirty)
    }

    /// Replaces the handle of the file by `file`, which is the same file. Returns the old handle, which the caller
    /// [retires](BitfieldFile::retire) before the file changes.
    pub fn replace_file(&mut self, file: Arc<BitfieldFile>) -> Arc<BitfieldFile> {
        std::mem::replace(&mut self.file, file)
    }

    /// Whether bit `i` is set.
    pub fn get(&self, i: u64) -> Result<bool> {
        if !self.dirty.is_empty() {
            if let Some(page) = self.dirty.get(&(i / PAGE_BITS)) {
                return Ok(page.get(i % PAGE_BITS));
            }
        }
        let mut byte = [0];
        self.file.read(i / 8, &mut byte)?;
        Ok(byte[0] >> (i % 8) & 1 != 0)
    }

    /// The first set bit in `from..end`.
    pub fn first_set(&self, from: u64, end: u64) -> Result<Option<u64>> {
        let near = self.first_near(from, end, true)?;
        if near.is_some() || end <= (from | 63) {
            return Ok(near);
        }
        let mut next = from / PAGE_BITS;
        while next < end.div_ceil(PAGE_BITS) {
            let found = self.page(next)?.and_then(|page| page.first(&bits_of(next, from, end), true));
            if let Some(bit) = found {
                return Ok(Some(next * PAGE_BITS + bit));
            }
            let Some(page) = self.next_page(next + 1)? else { break };
            next = page;
        }
        Ok(None)
    }

    /// The first clear bit in `from..end`.
    pub fn first_unset(&self, from: u64, end: u64) -> Result<Option<u64>> {
        let near = self.first_near(from, end, false)?;
        if near.is_some() || end <= (from | 63) {
            return Ok(near);
        }
        first_unset_in(from, end, |page| self.page(page))
    }

    /// The last set bit before `end`.
    pub fn last_set_before(&self, end: u64) -> Result<Option<u64>> {
        let mut below = end.div_ceil(PAGE_BITS);
        while let Some(page) = self.last_page(below)? {
            let found = self.page(page)?.and_then(|content| content.last(&bits_of(page, 0, end), true));
            if let Some(bit) = found {
                return Ok(Some(page * PAGE_BITS + bit));
            }
            below = page;
        }
        Ok(None)
    }

    /// The number of set bits in `range`.
    pub fn count_set(&self, range: Range<u64>) -> Result<u64> {
        let mut count = 0;
        let mut next = range.start / PAGE_BITS;
        while next < range.end.div_ceil(PAGE_BITS) {
            let bits = bits_of(next, range.start, range.end);
            let n = self.page(next)?.map_or(0, |content| content.count(&bits));
            count += n;
            next += 1;
            if n == 0 {
                let Some(page) = self.next_page(next)? else { break };
                next = page;
            }
        }
        Ok(count)
    }

    /// Fills `out` with the bits from `start` on, eight to a byte as in the file. `start` must be a multiple of eight.
    pub fn copy(&self, start: u64, out: &mut [u8]) -> Result<()> {
        let from = start / 8;
        self.file.read(from, out)?;
        let end = from.saturating_add(out.len() as u64);
        for (&page, content) in self.dirty.range(from / PAGE_BYTES as u64..end.div_ceil(PAGE_BYTES as u64)) {
            let base = page * PAGE_BYTES as u64;
            let (low, high) = (from.max(base), end.min(base + PAGE_BYTES as u64));
            let bytes = &content.to_bytes()[(low - base) as usize..(high - base) as usize];
            out[(low - from) as usize..(high - from) as usize].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// The pages that changed since the last flush, in order.
    pub fn dirty_pages(&self) -> Vec<(u64, Arc<Page>)> {
        self.dirty.iter().map(|(&page, content)| (page, content.clone())).collect()
    }

    /// Drops the changed pages that a flush has `written` to the file, except those that have changed since.
    pub fn forget(&mut self, written: &[(u64, Arc<Page>)]) {
        if written.is_empty() {
            return;
        }
        let dirty = Arc::make_mut(&mut self.dirty);
        for (page, content) in written {
            // The same allocation has the same content, since a page shared with a snapshot is copied before a change.
            if dirty.get(page).is_some_and(|now| Arc::ptr_eq(now, content)) {
                dirty.remove(page);
            }
        }
    }

    /// The first bit of this value in `from..end`, if it is in the word of `from`. Searches often end in that word,
    /// and reading a word costs much less than reading a page.
    fn first_near(&self, from: u64, end: u64, value: bool) -> Result<Option<u64>> {
        let first = from & !63;
        let word = match self.dirty.get(&(from / PAGE_BITS)) {
            Some(page) => page.words()[(from % PAGE_BITS / 64) as usize],
            None => {
                let mut bytes = [0; 8];
                self.file.read(first / 8, &mut bytes)?;
                LE::read_u64(&bytes)
            }
        };
        let wanted = if value { word } else { !word } & (u64::MAX << (from - first));
        let found = first + u64::from(wanted.trailing_zeros());
        Ok((wanted != 0 && found < end).then_some(found))
    }

    /// The page `page`; None if no bit of it was ever set.
    fn page(&self, page: u64) -> Result<Option<Cow<'_, Page>>> {
        match self.dirty.get(&page) {
            Some(page) => Ok(Some(Cow::Borrowed(page))),
            None => Ok(self.file.page(page)?.map(Cow::Owned)),
        }
    }

    /// The first page, `page` or later, that may have set bits.
    fn next_page(&self, page: u64) -> Result<Option<u64>> {
        let dirty = self.dirty.range(page..).next().map(|(&page, _)| page);
        if dirty == Some(page) {
            return Ok(dirty);
        }
        Ok(self.file.next_page(page)?.into_iter().chain(dirty).min())
    }

    /// The last page before `end` that may have set bits.
    fn last_page(&self, end: u64) -> Result<Option<u64>> {
        let dirty = self.dirty.range(..end).next_back().map(|(&page, _)| page);
        if dirty.is_some_and(|page| page + 1 == end) {
            return Ok(dirty);
        }
        Ok(self.file.last_page(end)?.max(dirty))
    }
}

/// The first clear bit in `from..end`, with the pages that `read` returns.
fn first_unset_in<'a>(from: u64, end: u64, read: impl Fn(u64) -> Result<Option<Cow<'a, Page>>>) -> Result<Option<u64>> {
    for page in from / PAGE_BITS..end.div_ceil(PAGE_BITS) {
        let bits = bits_of(page, from, end);
        let found = match read(page)? {
            Some(content) => content.first(&bits, false),
            None => Some(bits.start).filter(|_| !bits.is_empty()),
        };
        if let Some(bit) = found {
            return Ok(Some(page * PAGE_BITS + bit));
        }
    }
    Ok(None)
}
