//! A log of 10⁹ blocks, whose tree alone has 80 GB, copied sparsely to disk: it is read, written and reopened
//! on any machine.

use std::fs;

use hypercore::{Durability, ErrorKind, GetOptions, Hypercore, Manifest};

use crate::cores::connect;
use crate::harness::parallel_test;

#[path = "../../benches/common/huge.rs"]
#[allow(dead_code)]
mod log;

const LENGTH: u64 = 1_000_000_000;
const SIZE: usize = 100;

/// A block as the simulated log of the benchmarks makes it.
fn block(size: usize) -> Vec<u8> {
    (0..size).map(|i| i as u8).collect()
}

#[test]
fn sparse_copy_of_billion_blocks_reads_and_writes() {
    let _guard = parallel_test!();
    let log = log::Log::new(LENGTH, SIZE);
    let source = Hypercore::options().durability(Durability::None).open_in(log.storage()).unwrap();
    assert_eq!((source.len(), source.byte_length()), (LENGTH, LENGTH * SIZE as u64));
    let key = source.key();
    let dir = tempfile::tempdir().unwrap();
    // The limit leaves few mapped windows, so that they have to move.
    let open = || {
        let manifest = Manifest::single(log.pair.public_key());
        let options = Hypercore::options().key(key).manifest(manifest).key_pair(log.pair.clone());
        options.durability(Durability::None).map_limit(512 << 10).open(dir.path()).unwrap()
    };
    let copy = open();
    let replications = connect(&copy, &source);
    // Blocks on both sides of each index at which offsets in the tree, in `data` or in the bitfield exceed 32 bits
    // or 31 bits.
    let edges = [(1 << 32) / 80, (1 << 31) / 80, (1 << 32) / 100, (1 << 31) / 100, 1 << 29, LENGTH / 2];
    let wanted: Vec<u64> = edges.into_iter().flat_map(|n| [n - 1, n, n + 1]).chain([0, LENGTH - 1]).collect();
    for &index in &wanted {
        assert_eq!(copy.get(index).unwrap(), block(SIZE), "{index}");
    }
    assert_eq!(copy.seek(87_654_321_099).unwrap(), (876_543_210, 99));
    replications.0.connection().close();
    replications.1.wait().unwrap();
    drop(source.close());

    let there = |copy: &Hypercore| {
        for &index in &wanted {
            assert_eq!(copy.get_with(index, GetOptions::new().wait(false)).unwrap(), Some(block(SIZE)), "{index}");
        }
        assert_eq!(copy.get_with(77_777_777, GetOptions::new().wait(false)).unwrap(), None);
    };
    there(&copy);
    copy.append_batch((0..3000_u32).map(|n| n.to_le_bytes())).unwrap();
    copy.close().unwrap();
    let length_of = |name| fs::metadata(dir.path().join(name)).unwrap().len();
    assert_eq!(length_of("data"), LENGTH * SIZE as u64 + 12_000);
    assert!(length_of("tree") > 80_000_000_000 && length_of("bitfield") > LENGTH / 8);

    let copy = open();
    there(&copy);
    assert_eq!((copy.len(), copy.contiguous_length().unwrap()), (LENGTH + 3000, 1));
    for n in 0..3000_u32 {
        assert_eq!(copy.get(LENGTH + u64::from(n)).unwrap(), n.to_le_bytes());
    }
    assert_eq!(copy.seek(LENGTH * SIZE as u64 + 4003).unwrap(), (LENGTH + 1000, 3));
    assert!(copy.has_range(LENGTH - 1..LENGTH + 3000).unwrap() && !copy.has(LENGTH - 2).unwrap());
    copy.clear(LENGTH + 5..LENGTH + 10).unwrap();
    copy.truncate(LENGTH + 1000).unwrap();
    copy.append("end").unwrap();
    copy.close().unwrap();
    let copy = open();
    there(&copy);
    assert_eq!((copy.len(), copy.fork()), (LENGTH + 1001, 1));
    assert_eq!(copy.get(LENGTH + 1000).unwrap(), b"end");
    assert!(!copy.has(LENGTH + 7).unwrap());
    let audit = copy.verify().unwrap();
    assert_eq!((audit.faults, audit.blocks), (Vec::new(), wanted.len() as u64 + 1001 - 5));
    assert_eq!(copy.get_with(LENGTH + 1001, GetOptions::new().wait(false)).unwrap(), None);
    copy.truncate(LENGTH / 2 + 2).unwrap();
    assert_eq!(copy.truncate(LENGTH).unwrap_err().kind(), ErrorKind::OutOfBounds);
    copy.close().unwrap();
    let copy = open();
    assert_eq!(copy.get(LENGTH / 2 + 1).unwrap(), block(SIZE));
    assert_eq!(length_of("data"), LENGTH * SIZE as u64 / 2 + 200);
}
