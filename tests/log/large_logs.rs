//! Blocks of all sizes up to the largest, and a log that is longer than a page and a segment of the bitfield.

use hypercore::{Durability, ErrorKind, GetOptions, Hypercore, MAX_BLOCK_SIZE, Memory};

use crate::common::{Random, kind, watchdog};

#[test]
fn blocks_of_boundary_sizes_are_read_back() {
    let _watchdog = watchdog();
    let edges = [127, 128, 4096, 32 << 10, 64 << 10, 256 << 10, 1 << 20, MAX_BLOCK_SIZE - 1];
    let sizes: Vec<usize> = [0, 1, 2].into_iter().chain(edges.into_iter().flat_map(|n| [n - 1, n, n + 1])).collect();
    let source = Random::new(1).bytes(MAX_BLOCK_SIZE);
    for encrypted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let options = Hypercore::options();
            if encrypted { options.encryption_key([1; 32]) } else { options }.open(dir.path()).unwrap()
        };
        let core = open();
        for (i, &size) in sizes.iter().enumerate() {
            match i % 3 {
                0 => core.append(&source[..size]).unwrap(),
                _ => core.append_batch([&source[source.len() - size..], b"", &source[..size.min(9)]]).unwrap(),
            };
        }
        assert_eq!(kind(core.append(vec![0; MAX_BLOCK_SIZE + 1])), ErrorKind::BadArgument);
        core.close().unwrap();
        let core = open();
        let mut index = 0;
        for (i, &size) in sizes.iter().enumerate() {
            if i % 3 == 0 {
                assert!(core.get(index).unwrap() == source[..size], "{size}");
                index += 1;
            } else {
                assert!(core.get(index).unwrap() == source[source.len() - size..], "{size}");
                assert!(core.get(index + 1).unwrap().is_empty());
                assert!(core.get(index + 2).unwrap() == source[..size.min(9)]);
                index += 3;
            }
        }
        assert_eq!(core.len(), index);
        assert!(core.verify().unwrap().faults.is_empty());
    }
}

#[test]
fn log_of_two_million_blocks_crosses_bitfield_segments() {
    let _watchdog = watchdog();
    const SEGMENT: u64 = 2_097_152;
    const LENGTH: u64 = SEGMENT + 40_000;
    let memory = Memory::new();
    let open = || Hypercore::options().durability(Durability::None).open_in(memory.clone()).unwrap();
    let core = open();
    while core.len() < LENGTH - 40_000 {
        core.append_batch(vec![b""; 300_000.min(LENGTH - 40_000 - core.len()) as usize]).unwrap();
    }
    core.append_batch((core.len()..LENGTH).map(|i| i.to_le_bytes())).unwrap();
    assert_eq!((core.len(), core.contiguous_length().unwrap(), core.byte_length()), (LENGTH, LENGTH, 40_000 * 8));
    core.close().unwrap();
    let core = open();
    assert_eq!((core.len(), core.contiguous_length().unwrap()), (LENGTH, LENGTH));
    assert!(core.has_range(0..LENGTH).unwrap() && !core.has(LENGTH).unwrap());
    for index in [SEGMENT, SEGMENT + 1, SEGMENT + 32_767, SEGMENT + 32_768, LENGTH - 1] {
        assert_eq!(core.get(index).unwrap(), index.to_le_bytes());
    }
    assert_eq!(core.get(SEGMENT - 1).unwrap(), b"");
    core.clear(32_760..32_770).unwrap();
    core.clear(SEGMENT - 5..SEGMENT + 5).unwrap();
    core.clear(SEGMENT + 32_768 - 1..SEGMENT + 32_768 + 1).unwrap();
    core.truncate(LENGTH - 1000).unwrap();
    core.close().unwrap();
    let core = open();
    assert_eq!((core.len(), core.fork(), core.contiguous_length().unwrap()), (LENGTH - 1000, 1, 32_760));
    for (held, missing) in [(32_759, 32_760), (32_770, 32_769), (SEGMENT - 6, SEGMENT - 5), (SEGMENT + 5, SEGMENT + 4)]
    {
        assert!(core.has(held).unwrap() && !core.has(missing).unwrap());
        assert_eq!(core.get_with(missing, GetOptions::new().wait(false)).unwrap(), None);
    }
    assert_eq!(core.get(SEGMENT + 5).unwrap(), (SEGMENT + 5).to_le_bytes());
    assert_eq!(core.seek(8 * 1000 + 3).unwrap(), (SEGMENT + 1000, 3));
    core.append("end").unwrap();
    assert_eq!(core.get(LENGTH - 1000).unwrap(), b"end");
    // Truncate to a length in the first segment, so that the second one is dropped.
    core.truncate(70_001).unwrap();
    core.append_batch(vec![b"x"; 5]).unwrap();
    core.close().unwrap();
    let core = open();
    assert_eq!((core.len(), core.byte_length()), (70_006, 5));
    assert!(!core.has(70_006).unwrap() && !core.has(SEGMENT + 5).unwrap());
    let audit = core.verify().unwrap();
    assert_eq!((audit.faults, audit.blocks), (Vec::new(), 70_006 - 10));
}
