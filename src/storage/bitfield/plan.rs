//! Changes of a bitfield that are prepared first, with all reads and errors, and applied later without either.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use super::{Bitfield, first_unset_in};
use crate::bits::{PAGE_BITS, Page, WHOLE, bits_of};
use crate::{Error, ErrorKind, Result};

/// The most changed pages held in memory. No real change between two flushes has more, and a forged one can take no
/// more memory.
const MAX_DIRTY: usize = 1 << 20;

/// The two pages of equal bits, shared by all pages of all cores that are set or cleared as a whole.
static WHOLE_PAGES: LazyLock<[Arc<Page>; 2]> = LazyLock::new(|| [Page::ZEROS, Page::ONES].map(Arc::new));

/// Prepared changes of a [`Bitfield`]. All reads of the file are done, so applying them only changes memory.
///
/// A plan is valid only for the state of the bitfield on which it was made. From the first change of the plan until it
/// is applied, nothing else may change or flush the bitfield; the core's writer lock ensures that.
#[derive(Default, Debug)]
pub struct BitsPlan {
    /// Pages that replace those of the bitfield.
    pages: BTreeMap<u64, Arc<Page>>,
    /// Changes in pages that are dirty already, which the plan does not copy. None of them is in `pages`.
    fills: Vec<Fill>,
}

#[derive(Debug)]
struct Fill {
    page: u64,
    bits: Range<u64>,
    value: bool,
}

impl BitsPlan {
    /// The changed pages, in order, of a plan on a bitfield without dirty pages.
    pub fn into_pages(self) -> Vec<(u64, Arc<Page>)> {
        self.pages.into_iter().collect()
    }

    /// Adds setting `len` bits from `start` on to `value`, after the changes added before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidOperation`] if the range or the number of changed pages is too large. After an error the
    /// plan may contain a part of the range, and the caller drops it.
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
            // Clearing bits skips pages without set bits.
            let page = if value { Some(next) } else { self.next_page(bitfield, next)? };
            let Some(page) = page.filter(|&page| page < pages.end) else { break };
            next = page + 1;
            let bits = bits_of(page, start, end);
            if let Some(planned) = self.pages.get_mut(&page) {
                if bits == WHOLE {
                    *planned = whole(value);
                } else {
                    Arc::make_mut(planned).fill(&bits, value);
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

    /// The first bit in `from..end` that is clear after the plan is applied.
    pub fn first_unset(&self, bitfield: &Bitfield, from: u64, end: u64) -> Result<Option<u64>> {
        first_unset_in(from, end, |page| self.page(bitfield, page))
    }

    /// The page `page` after the plan is applied; None if no bit of it was ever set.
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

    /// The first page, `page` or later, that may have set bits after the plan is applied.
    fn next_page(&self, bitfield: &Bitfield, page: u64) -> Result<Option<u64>> {
        let planned = self.pages.range(page..).next().map(|(&page, _)| page);
        if planned == Some(page) {
            return Ok(planned);
        }
        Ok(bitfield.next_page(page)?.into_iter().chain(planned).min())
    }
}

impl Bitfield {
    /// Sets `len` bits from `start` on to `value`. An error leaves the bitfield unchanged.
    pub fn set_range(&mut self, start: u64, len: u64, value: bool) -> Result<()> {
        let mut plan = BitsPlan::default();
        plan.set_range(self, start, len, value)?;
        self.apply(plan);
        Ok(())
    }

    /// Applies `plan`, which was made on the current state of this bitfield. This reads no file and cannot fail.
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
}

/// The page whose bits are all `value`.
fn whole(value: bool) -> Arc<Page> {
    WHOLE_PAGES[usize::from(value)].clone()
}
