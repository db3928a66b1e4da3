//! The file `bitfield`, and the pages of it that changed.
//!
//! ```text
//! bitfield   bit i: bit (i & 7) of byte (i >> 3), set when block i is held        in pages of 4096 bytes
//! ```
//!
//! Pages past the end of the file and holes in it are zeros. A file that is not whole words of four bytes long is read
//! as if its last, broken word were not there. Changed pages are kept in memory, where readers see them at once, and
//! reach the file with the next flush.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use crate::storage::backend::{File, Storage};
use crate::storage::lazy_file::{LazyFile, OpenHow};
use crate::storage::mmap::MmapWindows;
use crate::storage::version::Version;
use crate::{Error, ErrorKind, Result};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Bits of a page.
pub const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

const WORDS: usize = PAGE_BYTES / 8;

/// Changed pages held at most: more than any real change between two flushes, and a bound on what a false one can take.
const MAX_DIRTY: usize = 1 << 20;

/// Pages are gathered into writes of at most this many bytes.
const GATHER_PAGES: usize = 64;

/// A page: bit `i` is bit `i & 63` of word `i >> 6`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page([u64; WORDS]);

impl Page {
    const ZEROS: Page = Page([0; WORDS]);
    const ONES: Page = Page([u64::MAX; WORDS]);

    fn get(&self, bit: u64) -> bool {
        self.0[(bit >> 6) as usize] >> (bit & 63) & 1 != 0
    }

    /// The word `at` with the bits outside of `range` cleared.
    fn word(&self, at: usize, range: &Range<u64>, flip: u64) -> u64 {
        (self.0[at] ^ flip) & mask(at, range)
    }

    fn fill(&mut self, range: &Range<u64>, value: bool) {
        for at in words(range) {
            let mask = mask(at, range);
            if value { self.0[at] |= mask } else { self.0[at] &= !mask }
        }
    }

    fn first(&self, range: &Range<u64>, value: bool) -> Option<u64> {
        let flip = if value { 0 } else { u64::MAX };
        let at = words(range).find(|&at| self.word(at, range, flip) != 0)?;
        Some(at as u64 * 64 + u64::from(self.word(at, range, flip).trailing_zeros()))
    }

    fn last(&self, range: &Range<u64>, value: bool) -> Option<u64> {
        let flip = if value { 0 } else { u64::MAX };
        let at = words(range).rfind(|&at| self.word(at, range, flip) != 0)?;
        Some(at as u64 * 64 + 63 - u64::from(self.word(at, range, flip).leading_zeros()))
    }

    fn count(&self, range: &Range<u64>) -> u64 {
        words(range).map(|at| u64::from(self.word(at, range, 0).count_ones())).sum()
    }

    fn to_bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(&self.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// The words that the bits of `range` touch.
fn words(range: &Range<u64>) -> Range<usize> {
    (range.start / 64) as usize..range.end.div_ceil(64) as usize
}

/// Which bits of word `at` are in `range`.
fn mask(at: usize, range: &Range<u64>) -> u64 {
    let base = at as u64 * 64;
    let from = range.start.saturating_sub(base).min(64);
    let to = range.end.saturating_sub(base).min(64);
    let below = |n: u64| if n == 64 { u64::MAX } else { (1 << n) - 1 };
    below(to) & !below(from)
}

/// The file `bitfield`.
pub struct BitfieldFile {
    file: Arc<LazyFile>,
    windows: MmapWindows,
    version: Version,
}

impl BitfieldFile {
    /// Opens the file; it is made with the first write.
    pub fn open(storage: &Arc<dyn Storage>, how: OpenHow) -> Result<Self> {
        let file = Arc::new(LazyFile::open(storage, "bitfield", how.writable)?);
        let windows =
            MmapWindows::new(file.clone(), how.mappable, how.map_limit / 4).map_err(|e| file.error(e, "open"))?;
        Ok(BitfieldFile { file, windows: windows.shared(!how.writable), version: Version::default() })
    }

    /// The same file, not open until it is used; none where this one is not open itself, and can stay what it is. This one is to be dropped.
    pub fn released(&self) -> Result<Option<Self>> {
        let Some(file) = self.file.released()?.map(Arc::new) else { return Ok(None) };
        Ok(Some(BitfieldFile { windows: self.windows.anew(file.clone()), file, version: self.version.clone() }))
    }

    /// Gives up all maps: another handle of the file changes it from now on.
    pub fn retire(&self) {
        self.windows.retire();
    }

    /// Opens the file again, if it was released.
    pub fn reopen(&self) -> Result<()> {
        self.file.reopen()
    }

    /// How many bytes of the file count.
    fn readable(&self) -> u64 {
        self.windows.len() & !3
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let n = self.readable().saturating_sub(offset).min(out.len() as u64) as usize;
        let (there, rest) = out.split_at_mut(n);
        let read = self.windows.read(offset, there).map_err(|e| self.file.error(e, "read"))?;
        // Fewer only where the file was cut meanwhile, by us or by the writer that we read beside.
        there[read..].fill(0);
        rest.fill(0);
        Ok(())
    }

    /// A page of the file; None where it is known to be past the end.
    fn page(&self, page: u64) -> Result<Option<Page>> {
        if page >= self.pages() {
            return Ok(None);
        }
        let mut bytes = [0; PAGE_BYTES];
        self.read(page * PAGE_BYTES as u64, &mut bytes)?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut le = [0; 8];
            le.copy_from_slice(bytes);
            *word = u64::from_le_bytes(le);
        }
        Ok(Some(Page(words)))
    }

    fn pages(&self) -> u64 {
        self.readable().div_ceil(PAGE_BYTES as u64)
    }

    /// The first page from `page` on that may have bits set.
    fn next_page(&self, page: u64) -> Result<Option<u64>> {
        if page >= self.pages() {
            return Ok(None);
        }
        let data = self.file.next_data(page * PAGE_BYTES as u64);
        let data = match data {
            // It may be that all from here on is a hole, or that it was cut off.
            Ok(None) => self.windows.check().map(|()| None),
            data => data,
        };
        let data = data.map_err(|e| self.file.error(e, "read"))?;
        Ok(data.map(|at| at / PAGE_BYTES as u64).filter(|&p| p < self.pages()))
    }

    /// The last page before `end` that may have bits set.
    fn last_page(&self, end: u64) -> Result<Option<u64>> {
        let end = end.min(self.pages());
        let before_end = |page: u64| Ok::<_, Error>(self.next_page(page)?.filter(|&p| p < end));
        // From further and further back, for what is looked for is mostly near.
        let mut step = 1;
        let mut low = loop {
            let from = end.saturating_sub(step);
            match before_end(from)? {
                Some(page) => break page,
                None if from == 0 => return Ok(None),
                None => step = step.saturating_mul(2),
            }
        };
        // `low` is data. Halve what may follow it.
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

    /// Writes `pages`, in their order; neighbours together.
    pub fn write_pages(&self, pages: &[(u64, Arc<Page>)]) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let _changing = self.version.change();
        let failed = |e| self.file.error(e, "write");
        // A broken last word would count once the file is longer.
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

    /// Removes all bits.
    pub fn clear(&self) -> Result<()> {
        let _changing = self.version.change();
        self.windows.set_len(0).map_err(|e| self.file.error(e, "cut"))
    }

    /// An error where another program cut the file.
    pub fn check(&self) -> Result<()> {
        self.windows.check().map_err(|e| self.file.error(e, "write"))
    }

    /// Returns when what was written would survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|e| self.file.error(e, "sync"))
    }

    /// How many bytes the file takes up.
    pub fn disk_usage(&self) -> Result<u64> {
        self.file.disk_usage().map_err(|e| self.file.error(e, "measure"))
    }
}

/// Which blocks are held: the file, and over it the pages that changed since the last flush.
///
/// Bits are numbered like blocks. Searches stay below the end they are given; they and all else pass quickly over areas
/// where no bit was ever set.
///
/// A clone shows what was when it was made, as long as the file does not change, which [`Bitfield::version`] tells;
/// after that each of its bits may be either the old one or a newer one. Changing a bitfield of which there is a
/// clone costs as much as it has dirty pages.
#[derive(Clone)]
pub struct Bitfield {
    file: Arc<BitfieldFile>,
    dirty: Arc<BTreeMap<u64, Arc<Page>>>,
}

/// What whole pages are set to, shared between them and by all cores.
static WHOLE_PAGES: LazyLock<[Arc<Page>; 2]> = LazyLock::new(|| [Page::ZEROS, Page::ONES].map(Arc::new));

impl Bitfield {
    /// What `file` holds.
    pub fn new(file: Arc<BitfieldFile>) -> Self {
        Bitfield { file, dirty: Arc::default() }
    }

    /// The file.
    pub fn file(&self) -> &Arc<BitfieldFile> {
        &self.file
    }

    /// Grows when the file begins to change and when that ends.
    pub fn version(&self) -> u64 {
        self.file.version.get()
    }

    /// Whether `other`, a clone, was made since this last changed.
    pub fn is(&self, other: &Bitfield) -> bool {
        Arc::ptr_eq(&self.dirty, &other.dirty)
    }

    /// Reads from `file` from now on, which is the same one; gives back what it read from before, which the caller
    /// [retires](BitfieldFile::retire) before the file changes.
    pub fn replace_file(&mut self, file: Arc<BitfieldFile>) -> Arc<BitfieldFile> {
        std::mem::replace(&mut self.file, file)
    }

    /// Bit `i`.
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

    /// Sets `len` bits from `start` on to `value`. On an error nothing has changed.
    pub fn set_range(&mut self, start: u64, len: u64, value: bool) -> Result<()> {
        let mut plan = BitsPlan::default();
        plan.set_range(self, start, len, value)?;
        self.apply(plan);
        Ok(())
    }

    /// Makes the changes of `plan`, which was made on this bitfield as it is. Nothing is read for that, and it cannot
    /// fail.
    pub fn apply(&mut self, plan: BitsPlan) {
        let BitsPlan { pages, fills } = plan;
        let dirty = Arc::make_mut(&mut self.dirty);
        dirty.extend(pages);
        for Fill { page, bits, value } in fills {
            if let Some(page) = dirty.get_mut(&page) {
                Arc::make_mut(page).fill(&bits, value);
            }
        }
    }

    /// The first bit from `from` on and below `end` that is set.
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

    /// The first bit from `from` on and below `end` that is not set.
    pub fn first_unset(&self, from: u64, end: u64) -> Result<Option<u64>> {
        let near = self.first_near(from, end, false)?;
        if near.is_some() || end <= (from | 63) {
            return Ok(near);
        }
        first_unset_in(from, end, |page| self.page(page))
    }

    /// The last bit below `end` that is set.
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

    /// The last bit below `end` that is not set.
    pub fn last_unset_before(&self, end: u64) -> Result<Option<u64>> {
        for page in (0..end.div_ceil(PAGE_BITS)).rev() {
            let bits = bits_of(page, 0, end);
            let found = match self.page(page)? {
                Some(content) => content.last(&bits, false),
                None => bits.end.checked_sub(1),
            };
            if let Some(bit) = found {
                return Ok(Some(page * PAGE_BITS + bit));
            }
        }
        Ok(None)
    }

    /// How many bits of `range` are set.
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

    /// Fills `out` with the bits from `start` on, eight to a byte as in the file; `start` is a multiple of eight.
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

    /// The pages to be flushed, as they are now.
    pub fn dirty_pages(&self) -> Vec<(u64, Arc<Page>)> {
        self.dirty.iter().map(|(&page, content)| (page, content.clone())).collect()
    }

    /// Lets go of the pages that were `written` to the file and have not changed since.
    pub fn forget(&mut self, written: &[(u64, Arc<Page>)]) {
        if written.is_empty() {
            return;
        }
        let dirty = Arc::make_mut(&mut self.dirty);
        for (page, content) in written {
            // The same allocation is the same content: what a snapshot shares is copied before it is changed.
            if dirty.get(page).is_some_and(|now| Arc::ptr_eq(now, content)) {
                dirty.remove(page);
            }
        }
    }

    /// The first bit of this value from `from` on and below `end`, if it is in the same word: what is looked for often
    /// is right there, and a word costs much less to look at than a page.
    fn first_near(&self, from: u64, end: u64, value: bool) -> Result<Option<u64>> {
        let first = from & !63;
        let mut word = [0; 8];
        match self.dirty.get(&(from / PAGE_BITS)) {
            Some(page) => word = page.0[(from % PAGE_BITS / 64) as usize].to_le_bytes(),
            None => self.file.read(first / 8, &mut word)?,
        }
        let word = u64::from_le_bytes(word);
        let wanted = if value { word } else { !word } & (u64::MAX << (from - first));
        let found = first + u64::from(wanted.trailing_zeros());
        Ok((wanted != 0 && found < end).then_some(found))
    }

    /// A page, None where no bit of it was ever set.
    fn page(&self, page: u64) -> Result<Option<Cow<'_, Page>>> {
        match self.dirty.get(&page) {
            Some(page) => Ok(Some(Cow::Borrowed(page))),
            None => Ok(self.file.page(page)?.map(Cow::Owned)),
        }
    }

    /// The first page from `page` on that may have bits set.
    fn next_page(&self, page: u64) -> Result<Option<u64>> {
        let dirty = self.dirty.range(page..).next().map(|(&page, _)| page);
        if dirty == Some(page) {
            return Ok(dirty);
        }
        Ok(self.file.next_page(page)?.into_iter().chain(dirty).min())
    }

    /// The last page before `end` that may have bits set.
    fn last_page(&self, end: u64) -> Result<Option<u64>> {
        let dirty = self.dirty.range(..end).next_back().map(|(&page, _)| page);
        if dirty.is_some_and(|page| page + 1 == end) {
            return Ok(dirty);
        }
        Ok(self.file.last_page(end)?.max(dirty))
    }
}

/// Changes of a [`Bitfield`], for which all that has to be read of the file was read: making them is a matter of
/// memory.
///
/// A plan holds for the bitfield that it was made on, as that one was. While a plan is made and until it is applied
/// nobody else may change or flush the bitfield, which is for the holder of the core's writer to see to.
#[derive(Default, Debug)]
pub struct BitsPlan {
    /// Pages that take the place of those that are there.
    pages: BTreeMap<u64, Arc<Page>>,
    /// What changes of pages that are dirty already, which are not copied for it. No page of `pages` is among them.
    fills: Vec<Fill>,
}

#[derive(Debug)]
struct Fill {
    page: u64,
    bits: Range<u64>,
    value: bool,
}

impl BitsPlan {
    /// The pages that change, in order, where the bitfield had none that waited to be written.
    pub fn into_pages(self) -> Vec<(u64, Arc<Page>)> {
        self.pages.into_iter().collect()
    }

    /// Adds that `len` bits from `start` on are set to `value`, after what was added before. After an error the plan
    /// is to be dropped: some of the pages may be in it.
    pub fn set_range(&mut self, bitfield: &Bitfield, start: u64, len: u64, value: bool) -> Result<()> {
        let too_much = || {
            let what = if value { "set" } else { "cleared" };
            let why = format!("{len} blocks from {start} on are more than can be {what} at once");
            Error::new(ErrorKind::InvalidOperation, why)
        };
        let end = start.checked_add(len).ok_or_else(too_much)?;
        if len == 0 {
            return Ok(());
        }
        let pages = start / PAGE_BITS..end.div_ceil(PAGE_BITS);
        let mut next = pages.start;
        while next < pages.end {
            // To clear bits, only pages that may have any are of interest.
            let page = if value { Some(next) } else { self.next_page(bitfield, next)? };
            let Some(page) = page.filter(|&page| page < pages.end) else { break };
            next = page + 1;
            let bits = bits_of(page, start, end);
            if let Some(planned) = self.pages.get_mut(&page) {
                if bits == WHOLE {
                    *planned = whole(value)
                } else {
                    Arc::make_mut(planned).fill(&bits, value)
                }
                continue;
            }
            let is_dirty = bitfield.dirty.contains_key(&page);
            if is_dirty && bits != WHOLE {
                self.fills.push(Fill { page, bits, value });
                continue;
            }
            let mut changed = if is_dirty || value && bits == WHOLE {
                whole(value)
            } else {
                match bitfield.file.page(page)? {
                    None if !value => continue,
                    Some(before) if !value && before.first(&bits, true).is_none() => continue,
                    Some(before) if bits != WHOLE => Arc::new(before),
                    _ => whole(false),
                }
            };
            if bits != WHOLE {
                Arc::make_mut(&mut changed).fill(&bits, value);
            }
            if self.pages.len() + bitfield.dirty.len() >= MAX_DIRTY {
                return Err(too_much());
            }
            if is_dirty {
                self.fills.retain(|fill| fill.page != page);
            }
            self.pages.insert(page, changed);
        }
        Ok(())
    }

    /// The first bit from `from` on and below `end` that will not be set.
    pub fn first_unset(&self, bitfield: &Bitfield, from: u64, end: u64) -> Result<Option<u64>> {
        first_unset_in(from, end, |page| self.page(bitfield, page))
    }

    /// A page as it will be, None where no bit of it was ever set.
    fn page<'a>(&'a self, bitfield: &'a Bitfield, page: u64) -> Result<Option<Cow<'a, Page>>> {
        if let Some(planned) = self.pages.get(&page) {
            return Ok(Some(Cow::Borrowed(planned)));
        }
        let mut content = bitfield.page(page)?;
        for fill in self.fills.iter().filter(|fill| fill.page == page) {
            if let Some(content) = &mut content {
                content.to_mut().fill(&fill.bits, fill.value);
            }
        }
        Ok(content)
    }

    /// The first page from `page` on that may have bits set.
    fn next_page(&self, bitfield: &Bitfield, page: u64) -> Result<Option<u64>> {
        let planned = self.pages.range(page..).next().map(|(&page, _)| page);
        if planned == Some(page) {
            return Ok(planned);
        }
        Ok(bitfield.next_page(page)?.into_iter().chain(planned).min())
    }
}

/// The first bit from `from` on and below `end` that is not set in the pages that `read` gives.
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

/// All bits of a page.
const WHOLE: Range<u64> = 0..PAGE_BITS;

/// The page all whose bits are `value`.
fn whole(value: bool) -> Arc<Page> {
    WHOLE_PAGES[usize::from(value)].clone()
}

/// Which bits of `page` are those from `start` to `end`.
fn bits_of(page: u64, start: u64, end: u64) -> Range<u64> {
    let base = page * PAGE_BITS;
    start.saturating_sub(base).min(PAGE_BITS)..end.saturating_sub(base).min(PAGE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::Access;
    use crate::storage::testing::{random, storages};

    fn open(storage: &Arc<dyn Storage>, how: OpenHow) -> Bitfield {
        Bitfield::new(Arc::new(BitfieldFile::open(storage, how).unwrap()))
    }

    fn flush(bitfield: &mut Bitfield) {
        let pages = bitfield.dirty_pages();
        bitfield.file().write_pages(&pages).unwrap();
        bitfield.forget(&pages);
        assert!(bitfield.dirty.is_empty());
    }

    #[test]
    fn bits_are_what_was_set_and_searches_find_what_a_loop_finds() {
        const BITS: u64 = 5 * PAGE_BITS + 77;
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut bitfield = open(&storage, how);
            let mut expected = vec![false; BITS as usize];
            let mut random = random(5);
            for _ in 0..200 {
                let start = random(BITS);
                let len = match random(3) {
                    0 => random(BITS),
                    1 => random(200),
                    _ => random(3),
                }
                .min(BITS - start);
                match random(4) {
                    0 => flush(&mut bitfield),
                    1 => {
                        flush(&mut bitfield);
                        bitfield = open(&storage, how);
                    }
                    n => {
                        bitfield.set_range(start, len, n == 2).unwrap();
                        expected[start as usize..(start + len) as usize].fill(n == 2);
                    }
                }
                let (from, end) = (random(BITS), random(BITS) + 1);
                let area = &expected[from as usize..end.max(from) as usize];
                let first = |value| area.iter().position(|&b| b == value).map(|i| from + i as u64);
                let last = |value| expected[..end as usize].iter().rposition(|&b| b == value).map(|i| i as u64);
                assert_eq!(bitfield.get(from).unwrap(), expected[from as usize]);
                assert_eq!(bitfield.first_set(from, end).unwrap(), first(true));
                assert_eq!(bitfield.first_unset(from, end).unwrap(), first(false));
                assert_eq!(bitfield.last_set_before(end).unwrap(), last(true));
                assert_eq!(bitfield.last_unset_before(end).unwrap(), last(false));
                assert_eq!(bitfield.count_set(from..end).unwrap(), area.iter().filter(|&&b| b).count() as u64);
                let mut out = vec![0xaa; random(9000) as usize];
                let start = from & !7;
                bitfield.copy(start, &mut out).unwrap();
                for i in 0..out.len() as u64 * 8 {
                    let bit = out[(i / 8) as usize] >> (i % 8) & 1 != 0;
                    assert_eq!(bit, expected.get((start + i) as usize).copied().unwrap_or(false));
                }
            }
        }
    }

    /// The figures of the reference's own tests: pages of 2^15 bits, segments of 2^21.
    #[test]
    fn searches_end_at_the_edges_of_pages() {
        let edges = [15, 16, 21, 22].map(|exponent| 1_u64 << exponent);
        let edges = edges.iter().flat_map(|&edge| [edge, edge - 1, edge + 1]);
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut bitfield = open(&storage, how);
            let far = 1 << 40;
            assert_eq!((bitfield.first_unset(0, far).unwrap(), bitfield.first_set(0, far).unwrap()), (Some(0), None));
            for edge in edges.clone() {
                assert_eq!(bitfield.first_unset(edge, far).unwrap(), Some(edge));
                assert_eq!(bitfield.last_unset_before(edge + 1).unwrap(), Some(edge));
                assert_eq!(bitfield.last_set_before(edge + 1).unwrap(), None);
            }
            bitfield.set_range(2032, 26, true).unwrap();
            assert_eq!(bitfield.first_set(2048, far).unwrap(), Some(2048));
            bitfield.set_range(32_767, 2, true).unwrap();
            assert_eq!(bitfield.last_unset_before(32_769).unwrap(), Some(32_766));
            assert_eq!(bitfield.last_unset_before(32_770).unwrap(), Some(32_769));
            bitfield.set_range((1 << 21) - 2, 2, true).unwrap();
            assert_eq!(bitfield.first_unset((1 << 21) - 2, far).unwrap(), Some(1 << 21));
            let all = 1 << 24;
            bitfield.set_range(0, all, true).unwrap();
            assert_eq!((bitfield.first_set(0, far).unwrap(), bitfield.first_set(all, far).unwrap()), (Some(0), None));
            assert_eq!(bitfield.first_unset(0, far).unwrap(), Some(all));
            assert_eq!(bitfield.last_unset_before(1).unwrap(), None);
            assert_eq!(bitfield.last_set_before(all + 1).unwrap(), Some(all - 1));
            for edge in edges.clone() {
                assert_eq!(bitfield.first_set(edge, far).unwrap(), Some(edge));
                assert_eq!(bitfield.last_set_before(edge + 1).unwrap(), Some(edge));
            }
        }
    }

    #[test]
    fn what_changes_during_a_flush_is_flushed_again() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut bitfield = open(&storage, how);
            bitfield.set_range(3, 1, true).unwrap();
            bitfield.set_range(PAGE_BITS, PAGE_BITS, true).unwrap();
            let pages = bitfield.dirty_pages();
            bitfield.set_range(5, 1, true).unwrap();
            bitfield.file().write_pages(&pages).unwrap();
            bitfield.forget(&pages);
            assert_eq!(bitfield.dirty.keys().collect::<Vec<_>>(), [&0]);
            flush(&mut bitfield);
            let bitfield = open(&storage, how);
            assert_eq!(bitfield.count_set(0..PAGE_BITS).unwrap(), 2);
            assert_eq!(bitfield.count_set(0..u64::MAX).unwrap(), 2 + PAGE_BITS);
        }
    }

    #[test]
    fn plan_of_several_ranges_equals_the_ranges_set_one_by_one() {
        const BITS: u64 = 4 * PAGE_BITS + 77;
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut bitfield = open(&storage, how);
            let mut expected = vec![false; BITS as usize];
            let mut random = random(8);
            for _ in 0..150 {
                let mut plan = BitsPlan::default();
                let before = expected.clone();
                for _ in 0..random(5) {
                    let start = random(BITS);
                    let start = if random(3) == 0 { start / PAGE_BITS * PAGE_BITS } else { start };
                    let len = match random(3) {
                        0 => random(BITS),
                        1 => PAGE_BITS * random(3),
                        _ => random(90),
                    }
                    .min(BITS - start);
                    let value = random(2) == 0;
                    plan.set_range(&bitfield, start, len, value).unwrap();
                    expected[start as usize..(start + len) as usize].fill(value);
                    let (from, end) = (random(BITS), random(BITS) + 1);
                    let first = expected[from as usize..end.max(from) as usize].iter().position(|&b| !b);
                    let told = plan.first_unset(&bitfield, from, end).unwrap();
                    assert_eq!(told, first.map(|i| from + i as u64));
                }
                assert!((0..60).map(|_| random(BITS)).all(|i| bitfield.get(i).unwrap() == before[i as usize]));
                bitfield.apply(plan);
                for i in (0..BITS).step_by(61) {
                    assert_eq!(bitfield.get(i).unwrap(), expected[i as usize], "bit {i}");
                }
                assert_eq!(bitfield.count_set(0..BITS).unwrap(), expected.iter().filter(|&&b| b).count() as u64);
                if random(3) == 0 {
                    flush(&mut bitfield);
                }
            }
        }
    }

    #[test]
    fn plan_that_fails_leaves_the_bitfield_as_it_was() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut bitfield = open(&storage, how);
            bitfield.set_range(5, 3, true).unwrap();
            let mut plan = BitsPlan::default();
            plan.set_range(&bitfield, 0, 100, true).unwrap();
            assert!(plan.set_range(&bitfield, 0, 1 << 50, true).is_err());
            drop(plan);
            assert_eq!(bitfield.count_set(0..u64::MAX).unwrap(), 3);
        }
    }

    #[test]
    fn areas_where_no_bit_was_ever_set_cost_nothing() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut bitfield = open(&storage, how);
            // Files have no holes on Windows.
            let far = if cfg!(windows) { 1 << 30 } else { 1 << 44 };
            bitfield.set_range(0, 1 << 50, false).unwrap();
            assert!(bitfield.dirty.is_empty());
            bitfield.set_range(far, 2, true).unwrap();
            for _ in 0..2 {
                assert_eq!(bitfield.first_set(0, 1 << 50).unwrap(), Some(far));
                assert_eq!(bitfield.first_set(0, far).unwrap(), None);
                assert_eq!(bitfield.last_set_before(1 << 50).unwrap(), Some(far + 1));
                assert_eq!(bitfield.last_set_before(far).unwrap(), None);
                assert_eq!(bitfield.first_unset(far, 1 << 50).unwrap(), Some(far + 2));
                assert_eq!(bitfield.last_unset_before(far + 2).unwrap(), Some(far - 1));
                assert_eq!(bitfield.count_set(0..1 << 50).unwrap(), 2);
                flush(&mut bitfield);
            }
            bitfield.set_range(7, 1 << 50, false).unwrap();
            assert_eq!(bitfield.dirty.len(), 1);
            assert_eq!(bitfield.count_set(0..u64::MAX).unwrap(), 0);
        }
    }

    #[test]
    fn a_range_that_no_log_has_is_refused_and_changes_nothing() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut bitfield = open(&storage, how);
            assert!(bitfield.set_range(0, 1 << 50, true).is_err());
            assert!(bitfield.set_range(u64::MAX, 2, true).is_err());
            assert!(bitfield.dirty.is_empty());
            bitfield.set_range(u64::MAX - 1, 1, true).unwrap();
            assert_eq!(bitfield.first_set(0, u64::MAX).unwrap(), Some(u64::MAX - 1));
        }
    }

    #[test]
    fn a_broken_last_word_does_not_count() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let file = storage.open("bitfield", Access::Create).unwrap().unwrap();
            file.write_at(0, &[255; 4096 + 7]).unwrap();
            let mut bitfield = open(&storage, how);
            assert_eq!(bitfield.count_set(0..u64::MAX).unwrap(), 8 * (4096 + 4));
            assert!(!bitfield.get(8 * (4096 + 4)).unwrap());
            bitfield.set_range(5 * PAGE_BITS, 1, true).unwrap();
            flush(&mut bitfield);
            assert_eq!(bitfield.count_set(0..u64::MAX).unwrap(), 8 * (4096 + 4) + 1);
            assert_eq!(open(&storage, how).count_set(0..u64::MAX).unwrap(), 8 * (4096 + 4) + 1);
        }
    }
}
