//! Changes of a bitfield that are worked out first and made later, without an error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use super::{Bitfield, first_unset_in};
use crate::bits::{PAGE_BITS, Page, WHOLE, bits_of};
use crate::{Error, ErrorKind, Result};

/// Changed pages held at most: more than any real change between two flushes, and a bound on what a false one can take.
const MAX_DIRTY: usize = 1 << 20;

/// What whole pages are set to, shared between them and by all cores.
static WHOLE_PAGES: LazyLock<[Arc<Page>; 2]> = LazyLock::new(|| [Page::ZEROS, Page::ONES].map(Arc::new));

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

impl Bitfield {
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
}

/// The page all whose bits are `value`.
fn whole(value: bool) -> Arc<Page> {
    WHOLE_PAGES[usize::from(value)].clone()
}
