//! Tests of the bitfield against a list of booleans, before and after flushes.

use std::sync::Arc;

use super::*;
use crate::storage::backend::{Access, Storage};
use crate::storage::lazy_file::FileOptions;
use crate::storage::testing::{random, storages};

fn open(storage: &Arc<dyn Storage>, how: FileOptions) -> Bitfield {
    Bitfield::new(Arc::new(BitfieldFile::open(storage, how).unwrap()))
}

fn flush(bitfield: &mut Bitfield) {
    let pages = bitfield.dirty_pages();
    bitfield.file().write_pages(&pages).unwrap();
    bitfield.forget(&pages);
    assert!(bitfield.dirty.is_empty());
}

#[test]
fn search_after_random_changes_finds_what_a_loop_finds() {
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
            let last = expected[..end as usize].iter().rposition(|&b| b).map(|i| i as u64);
            assert_eq!(bitfield.get(from).unwrap(), expected[from as usize]);
            assert_eq!(bitfield.first_set(from, end).unwrap(), first(true));
            assert_eq!(bitfield.first_unset(from, end).unwrap(), first(false));
            assert_eq!(bitfield.last_set_before(end).unwrap(), last);
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

// The sizes are those of JavaScript's tests: pages of 2^15 bits, segments of 2^21.
#[test]
fn search_at_page_and_segment_borders_finds_the_border() {
    let edges = [15, 16, 21, 22].map(|exponent| 1_u64 << exponent);
    let edges = edges.iter().flat_map(|&edge| [edge, edge - 1, edge + 1]);
    let (_dir, storages) = storages();
    for (storage, how) in storages {
        let mut bitfield = open(&storage, how);
        let far = 1 << 40;
        assert_eq!((bitfield.first_unset(0, far).unwrap(), bitfield.first_set(0, far).unwrap()), (Some(0), None));
        for edge in edges.clone() {
            assert_eq!(bitfield.first_unset(edge, far).unwrap(), Some(edge));
            assert_eq!(bitfield.last_set_before(edge + 1).unwrap(), None);
        }
        bitfield.set_range(2032, 26, true).unwrap();
        assert_eq!(bitfield.first_set(2048, far).unwrap(), Some(2048));
        bitfield.set_range(32_767, 2, true).unwrap();
        bitfield.set_range((1 << 21) - 2, 2, true).unwrap();
        assert_eq!(bitfield.first_unset((1 << 21) - 2, far).unwrap(), Some(1 << 21));
        let all = 1 << 24;
        bitfield.set_range(0, all, true).unwrap();
        assert_eq!((bitfield.first_set(0, far).unwrap(), bitfield.first_set(all, far).unwrap()), (Some(0), None));
        assert_eq!(bitfield.first_unset(0, far).unwrap(), Some(all));
        assert_eq!(bitfield.last_set_before(all + 1).unwrap(), Some(all - 1));
        for edge in edges.clone() {
            assert_eq!(bitfield.first_set(edge, far).unwrap(), Some(edge));
            assert_eq!(bitfield.last_set_before(edge + 1).unwrap(), Some(edge));
        }
    }
}

#[test]
fn change_during_flush_is_flushed_again() {
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
fn search_over_area_without_set_bits_skips_it() {
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
            assert_eq!(bitfield.count_set(0..1 << 50).unwrap(), 2);
            flush(&mut bitfield);
        }
        bitfield.set_range(7, 1 << 50, false).unwrap();
        assert_eq!(bitfield.dirty.len(), 1);
        assert_eq!(bitfield.count_set(0..u64::MAX).unwrap(), 0);
    }
}

#[test]
fn range_longer_than_any_log_is_refused_and_changes_nothing() {
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
fn incomplete_last_word_is_ignored() {
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
