//! The blocks that a peer has, as far as it has announced them, in bounded memory.
//!
//! Most peers have all blocks up to some length, which takes one number. Blocks beyond are kept in pages of
//! 32,768 blocks: runs of full pages as intervals, mixed pages as bits. A claim of 2^50 blocks takes one
//! interval. What exceeds the limits is forgotten, which is safe: the block is requested from another peer, or
//! this peer is asked by `Want` again.

use std::collections::{BTreeMap, BTreeSet};

use super::local::Local;
use super::message::SEGMENT;
use crate::bits::{self, PAGE_BITS as PAGE, WHOLE};

/// The most mixed pages: 4 KiB each, 4 MiB in all, as many as 16 segments have if every page is mixed.
const MAX_PAGES: usize = 1024;

/// The most runs of full pages; an honest peer has few more than its mixed pages separate.
const MAX_RUNS: usize = 1024;

/// The most segments remembered as asked for. When there are more, all are forgotten and may be asked for again.
const MAX_WANTED: usize = 1024;

/// Block indices are below this.
const LIMIT: u64 = 1 << 53;

#[derive(Default)]
pub(super) struct RemoteBitfield {
    /// All blocks below are held; what runs and pages say about them is ignored.
    contiguous: u64,
    /// Full pages: the first, and the one after the last. Runs neither overlap nor touch.
    runs: BTreeMap<u64, u64>,
    /// Pages of which some blocks are held, but not all. No page is also in a run.
    pages: BTreeMap<u64, Box<Page>>,
    /// The segments that the peer was asked about by `Want`.
    wanted: BTreeSet<u64>,
}

struct Page {
    bits: bits::Page,
    /// How many of them are set.
    count: u64,
}

impl RemoteBitfield {
    /// How many blocks the peer has from block 0 without a gap.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    pub fn contains(&self, index: u64) -> bool {
        self.next_unset(index) != index
    }

    /// Adds the blocks of `start..end`.
    pub fn insert(&mut self, start: u64, end: u64) {
        let end = end.min(LIMIT);
        if start >= end || end <= self.contiguous {
            return;
        }
        if start <= self.contiguous {
            self.contiguous = end;
            self.absorb();
        } else {
            self.insert_above(start, end);
        }
    }

    /// Removes the blocks of `start..end`.
    pub fn remove(&mut self, start: u64, end: u64) {
        let end = end.min(LIMIT);
        if start >= end {
            return;
        }
        let contiguous = self.contiguous;
        if start < contiguous {
            self.contiguous = start;
        }
        self.each_page(start, end, Self::remove_in_page, Self::cut_run);
        if start < contiguous && end < contiguous {
            self.insert_above(end, contiguous);
        }
    }

    /// Replaces the bits of the blocks from `start` on, which must be a multiple of 32 (else nothing changes).
    pub fn replace(&mut self, start: u64, words: &[u32]) {
        if start % 32 != 0 || start >= LIMIT {
            return;
        }
        let words = &words[..(words.len() as u64).min((LIMIT - start) / 32) as usize];
        self.remove(start, start + words.len() as u64 * 32);
        let mut rest = words;
        let mut at = start;
        while !rest.is_empty() {
            let (page, offset) = (at / PAGE, at % PAGE);
            let (words, beyond) = rest.split_at(rest.len().min(((PAGE - offset) / 32) as usize));
            self.insert_words(page, offset, words);
            at += words.len() as u64 * 32;
            rest = beyond;
        }
        self.absorb();
    }

    /// The first block from `from` on that the peer has.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        if from < self.contiguous {
            return Some(from);
        }
        let page = from / PAGE;
        if self.run_of(page).is_some() {
            return Some(from);
        }
        if let Some(bit) = self.pages.get(&page).and_then(|p| p.find(from % PAGE, true)) {
            return Some(page * PAGE + bit);
        }
        let run = self.runs.range(page + 1..).next().map(|(start, _)| start * PAGE);
        let mixed = self.pages.range(page + 1..).next();
        let mixed = mixed.and_then(|(index, page)| Some(index * PAGE + page.find(0, true)?));
        run.into_iter().chain(mixed).min()
    }

    /// The first block from `from` on that the peer is not known to have.
    pub fn next_unset(&self, from: u64) -> u64 {
        let mut from = from.max(self.contiguous);
        loop {
            let page = from / PAGE;
            if let Some((_, end)) = self.run_of(page) {
                from = end * PAGE;
                continue;
            }
            match self.pages.get(&page) {
                None => return from,
                Some(bits) => match bits.find(from % PAGE, false) {
                    Some(bit) => return page * PAGE + bit,
                    None => from = (page + 1) * PAGE,
                },
            }
        }
    }

    /// The first block in `from..end` that the peer has and `local` does not.
    pub fn next_missing(&self, from: u64, end: u64, local: &dyn Local) -> Option<u64> {
        let mut from = from;
        while from < end {
            from = self.next_set(from)?;
            if from >= end {
                return None;
            }
            let page = from / PAGE;
            let full_until = match self.run_of(page) {
                _ if from < self.contiguous => self.contiguous,
                Some((_, run_end)) => run_end * PAGE,
                None => {
                    let missing = self.pages.get(&page)?.missing(page * PAGE, from % PAGE, local);
                    if let Some(bit) = missing {
                        return Some(page * PAGE + bit).filter(|&found| found < end);
                    }
                    from = (page + 1) * PAGE;
                    continue;
                }
            };
            let missing = local.first_unset(from);
            if missing < full_until.min(end) {
                return Some(missing);
            }
            from = full_until;
        }
        None
    }

    /// Whether the peer was asked about `segment`.
    pub fn is_asked(&self, segment: u64) -> bool {
        self.wanted.contains(&segment)
    }

    /// Marks `segment` as asked about. Returns false if that is not needed.
    pub fn want(&mut self, segment: u64) -> bool {
        if self.wanted.contains(&segment) || self.next_unset(segment * SEGMENT) >= (segment + 1) * SEGMENT {
            return false;
        }
        if self.wanted.len() >= MAX_WANTED {
            self.wanted.clear();
        }
        self.wanted.insert(segment)
    }

    /// The peer has to be asked again about the segments of the blocks `start..end`.
    pub fn ask_again(&mut self, start: u64, end: u64) {
        let (first, last) = (start / SEGMENT, end.div_ceil(SEGMENT));
        self.wanted.retain(|segment| *segment < first || *segment >= last);
    }

    /// The first segment within the blocks `start..end` that the peer was not asked about and is not known to have.
    pub fn next_unasked(&self, start: u64, end: u64) -> Option<u64> {
        let mut segment = self.next_unset(start) / SEGMENT;
        // Each step leaves a remembered segment, a run or a page behind, and the numbers of those are bounded.
        while segment * SEGMENT < end {
            if !self.wanted.contains(&segment) {
                return Some(segment);
            }
            segment = (self.next_unset((segment + 1) * SEGMENT) / SEGMENT).max(segment + 1);
        }
        None
    }

    /// If half of the pages are in use, forgets those that have no block which `local` lacks: they are of no
    /// use now, and can be asked for again.
    pub fn evict_held_pages(&mut self, local: &dyn Local) {
        if self.pages.len() < MAX_PAGES / 2 {
            return;
        }
        let useless = self.pages.iter().filter(|(index, page)| page.missing(*index * PAGE, 0, local).is_none());
        let useless: Vec<u64> = useless.map(|(index, _)| *index).collect();
        for index in useless {
            self.pages.remove(&index);
            self.forget_want(index);
        }
    }

    fn run_of(&self, page: u64) -> Option<(u64, u64)> {
        let (start, end) = self.runs.range(..=page).next_back()?;
        (page < *end).then_some((*start, *end))
    }

    fn forget_want(&mut self, page: u64) {
        self.wanted.remove(&(page * PAGE / SEGMENT));
    }

    /// Extends `contiguous` over the blocks that follow it, and drops runs and pages below it.
    fn absorb(&mut self) {
        self.contiguous = self.next_unset(self.contiguous).min(LIMIT);
        let page = self.contiguous / PAGE;
        while self.pages.first_key_value().is_some_and(|(first, _)| *first < page) {
            self.pages.pop_first();
        }
        while self.runs.first_key_value().is_some_and(|(_, end)| *end <= page) {
            self.runs.pop_first();
        }
    }

    fn insert_above(&mut self, start: u64, end: u64) {
        self.each_page(start, end, Self::insert_in_page, Self::insert_run);
    }

    /// Calls `part` for each page that `start..end` covers in part, and `whole` for the run of pages that it covers.
    fn each_page(&mut self, start: u64, end: u64, part: fn(&mut Self, u64, u64, u64), whole: fn(&mut Self, u64, u64)) {
        let (first, last) = (start.div_ceil(PAGE), end / PAGE);
        if start / PAGE == last {
            return part(self, last, start % PAGE, end % PAGE);
        }
        if start % PAGE != 0 {
            part(self, start / PAGE, start % PAGE, PAGE);
        }
        if first < last {
            whole(self, first, last);
        }
        if end % PAGE != 0 {
            part(self, last, 0, end % PAGE);
        }
    }

    fn insert_in_page(&mut self, index: u64, from: u64, to: u64) {
        if self.run_of(index).is_some() {
            return;
        }
        if !self.pages.contains_key(&index) && self.pages.len() >= MAX_PAGES {
            return self.forget_want(index);
        }
        let page = self.pages.entry(index).or_insert_with(|| Box::new(Page::EMPTY));
        page.fill(from, to, true);
        if page.count == PAGE {
            self.insert_run(index, index + 1);
        }
    }

    fn insert_words(&mut self, index: u64, offset: u64, words: &[u32]) {
        if words.iter().all(|word| *word == 0) {
            return;
        }
        if !self.pages.contains_key(&index) && self.pages.len() >= MAX_PAGES {
            return self.forget_want(index);
        }
        let page = self.pages.entry(index).or_insert_with(|| Box::new(Page::EMPTY));
        page.count += page.bits.set_words(offset, words);
        if page.count == PAGE {
            self.insert_run(index, index + 1);
        }
    }

    fn remove_in_page(&mut self, index: u64, from: u64, to: u64) {
        if self.run_of(index).is_some() {
            self.cut_run(index, index + 1);
            if self.pages.len() >= MAX_PAGES {
                return self.forget_want(index);
            }
            self.pages.insert(index, Box::new(Page::FULL));
        }
        if let Some(page) = self.pages.get_mut(&index) {
            page.fill(from, to, false);
            if page.count == 0 {
                self.pages.remove(&index);
            }
        }
    }

    fn insert_run(&mut self, mut start: u64, mut end: u64) {
        self.drop_pages(start, end);
        // Merge with each run that overlaps or touches.
        while let Some((&left, &right)) = self.runs.range(..=end).next_back() {
            if right < start {
                break;
            }
            (start, end) = (start.min(left), end.max(right));
            self.runs.remove(&left);
        }
        if self.runs.len() >= MAX_RUNS {
            return self.forget_want(start);
        }
        self.runs.insert(start, end);
    }

    fn cut_run(&mut self, start: u64, end: u64) {
        self.drop_pages(start, end);
        while let Some((&left, &right)) = self.runs.range(..end).next_back() {
            if right <= start {
                break;
            }
            self.runs.remove(&left);
            if right > end {
                self.insert_run(end, right);
            }
            if left < start {
                self.runs.insert(left, start);
            }
        }
    }

    fn drop_pages(&mut self, start: u64, end: u64) {
        // Removing a page costs no more than inserting it did.
        while let Some((&index, _)) = self.pages.range(start..end).next() {
            self.pages.remove(&index);
        }
    }
}

impl Page {
    const EMPTY: Page = Page { bits: bits::Page::ZEROS, count: 0 };
    const FULL: Page = Page { bits: bits::Page::ONES, count: PAGE };

    fn fill(&mut self, from: u64, to: u64, value: bool) {
        let changed = self.bits.fill(&(from..to), value);
        self.count = if value { self.count + changed } else { self.count - changed };
    }

    /// The first bit from `from` on that equals `value`.
    fn find(&self, from: u64, value: bool) -> Option<u64> {
        self.bits.first(&(from..WHOLE.end), value)
    }

    /// The first bit from `from` on that is set here and not held by `local`; bit 0 is block `start`.
    fn missing(&self, start: u64, from: u64, local: &dyn Local) -> Option<u64> {
        const STEP: usize = 16;
        let mut mask = u64::MAX << (from % 64);
        let mut at = (from / 64) as usize;
        while let Some(ours) = self.bits.words().get(at..).filter(|rest| !rest.is_empty()) {
            let mut held = [0; STEP * 2];
            let ours = &ours[..ours.len().min(STEP)];
            local.words(start + at as u64 * 64, &mut held[..ours.len() * 2]);
            for (i, word) in ours.iter().enumerate() {
                let held = u64::from(held[i * 2]) | u64::from(held[i * 2 + 1]) << 32;
                let found = word & !held & mask;
                if found != 0 {
                    return Some((at + i) as u64 * 64 + u64::from(found.trailing_zeros()));
                }
                mask = u64::MAX;
            }
            at += ours.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::NodeIndex;
    use crate::node::Node;
    use quickcheck::{Arbitrary, Gen, quickcheck};

    /// A core with blocks only.
    #[derive(Clone, Debug)]
    struct Held(Vec<bool>);

    impl crate::merkle::NodeSource for Held {
        fn node(&self, _: NodeIndex) -> crate::Result<Option<Node>> {
            Ok(None)
        }
    }

    impl Local for Held {
        fn head(&self) -> &crate::merkle::Head {
            unreachable!("only the blocks matter")
        }
        fn contiguous_length(&self) -> u64 {
            self.first_unset(0)
        }
        fn has(&self, index: u64) -> bool {
            self.0.get(index as usize) == Some(&true)
        }
        fn first_unset(&self, from: u64) -> u64 {
            (from..).find(|i| !self.has(*i)).unwrap()
        }
        fn first_set(&self, from: u64) -> Option<u64> {
            (from..self.0.len() as u64).find(|i| self.has(*i))
        }
        fn words(&self, start: u64, words: &mut [u32]) {
            for (i, word) in words.iter_mut().enumerate() {
                *word = (0..32).map(|bit| u32::from(self.has(start + i as u64 * 32 + bit)) << bit).sum();
            }
        }
        fn has_manifest(&self) -> bool {
            true
        }
        fn is_compat(&self) -> bool {
            true
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, u64),
        Remove(u64, u64),
        Replace(u64, Vec<u32>),
    }

    const TOTAL: u64 = PAGE * 4;

    impl Arbitrary for Op {
        fn arbitrary(g: &mut Gen) -> Self {
            // More often near the borders of pages than elsewhere.
            let place = |g: &mut Gen| {
                let near = u64::arbitrary(g) % 4 * PAGE + u64::arbitrary(g) % 64;
                let anywhere = u64::arbitrary(g) % TOTAL;
                *g.choose(&[near.saturating_sub(32), near, anywhere]).unwrap()
            };
            let (a, b) = (place(g), place(g));
            match u8::arbitrary(g) % 3 {
                0 => Op::Insert(a.min(b), a.max(b)),
                1 => Op::Remove(a.min(b), a.max(b)),
                _ => {
                    let start = a / 32 * 32;
                    let len = (b % 2048).min((TOTAL - start) / 32);
                    let kind = *g.choose(&[0, u32::MAX, 0xffff_0000, 0x5555_5555]).unwrap();
                    Op::Replace(start, (0..len).map(|_| kind).collect())
                }
            }
        }
    }

    quickcheck! {
        fn operations_match_model_set(ops: Vec<Op>, held: Vec<bool>) -> bool {
            let mut remote = RemoteBitfield::default();
            let mut model = vec![false; TOTAL as usize];
            for op in ops {
                match op {
                    Op::Insert(a, b) => {
                        remote.insert(a, b);
                        model[a as usize..b as usize].fill(true);
                    }
                    Op::Remove(a, b) => {
                        remote.remove(a, b);
                        model[a as usize..b as usize].fill(false);
                    }
                    Op::Replace(start, words) => {
                        remote.replace(start, &words);
                        for i in 0..words.len() as u64 * 32 {
                            model[(start + i) as usize] = words[(i / 32) as usize] >> (i % 32) & 1 == 1;
                        }
                    }
                }
                assert_eq!(remote.contiguous, Held(model.clone()).first_unset(0));
            }
            let local = Held((0..TOTAL as usize).map(|i| held.get(i % (held.len() + 1)) == Some(&true)).collect());
            let model = Held(model);
            let mut at = 0;
            while at < TOTAL {
                assert_eq!(remote.contains(at), model.has(at));
                assert_eq!(remote.next_set(at), model.first_set(at));
                assert_eq!(remote.next_unset(at), model.first_unset(at));
                let missing = (at..TOTAL).find(|&i| model.has(i) && !local.has(i));
                assert_eq!(remote.next_missing(at, TOTAL, &local), missing);
                at += 1 + at * 7919 % 30_011;
            }
            true
        }
    }

    #[test]
    fn range_of_2_pow_52_blocks_takes_few_runs() {
        let mut remote = RemoteBitfield::default();
        remote.insert(0, u64::MAX);
        assert_eq!(remote.contiguous(), LIMIT);
        remote.remove(5, 6);
        assert_eq!((remote.pages.len(), remote.runs.len()), (1, 1));
        assert!(remote.contains(LIMIT - 1) && !remote.contains(5) && remote.contains(6));
        remote.remove(0, LIMIT);
        assert_eq!((remote.pages.len(), remote.runs.len()), (0, 0));
        remote.insert(1, 1 << 40);
        remote.insert((1 << 52) + 7, 1 << 53);
        assert_eq!((remote.pages.len(), remote.runs.len()), (2, 2));
        assert_eq!(remote.next_set(1 << 41), Some((1 << 52) + 7));
    }

    #[test]
    fn scattered_blocks_beyond_limit_are_wanted_again() {
        let mut remote = RemoteBitfield::default();
        for i in 0..MAX_PAGES as u64 * 4 {
            remote.want(i * PAGE / SEGMENT);
            remote.insert(i * PAGE + 7, i * PAGE + 8);
        }
        assert_eq!(remote.pages.len(), MAX_PAGES);
        assert!(remote.contains(7));
        assert_eq!(remote.next_unasked(0, SEGMENT * 99), Some(MAX_PAGES as u64 * PAGE / SEGMENT));
        for i in 0..MAX_RUNS as u64 * 4 {
            remote.insert(i * 2 * PAGE + PAGE, (i + 1) * 2 * PAGE);
        }
        assert!(remote.runs.len() <= MAX_RUNS + 1);
    }

    #[test]
    fn pages_held_locally_are_evicted_when_half_full() {
        let mut remote = RemoteBitfield::default();
        for page in 0..MAX_PAGES as u64 {
            remote.insert(page * PAGE + 1, page * PAGE + 2);
        }
        remote.evict_held_pages(&Held(vec![true; PAGE as usize * 3]));
        assert_eq!(remote.pages.len(), MAX_PAGES - 3);
        assert!(!remote.contains(1) && remote.contains(3 * PAGE + 1));
    }
}
