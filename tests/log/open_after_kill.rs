//! A core whose process was killed, or whose disk lost the last writes, opens with its last state or an earlier one,
//! and damage never shortens it.

use std::fs;
use std::path::Path;

use hypercore::{Durability, ErrorKind, Hypercore};

use crate::common::{Call, Hooked, copy_of};

fn open(dir: &Path) -> Hypercore {
    Hypercore::open(dir).unwrap()
}

/// All blocks; None for each that is missing.
fn blocks(core: &Hypercore) -> Vec<Option<Vec<u8>>> {
    (0..core.len()).map(|index| core.has(index).unwrap().then(|| core.get(index).unwrap())).collect()
}

fn here(block: &str) -> Option<Vec<u8>> {
    Some(block.into())
}

#[test]
fn clear_before_kill_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path());
    core.append_batch(["a", "b", "c", "d"]).unwrap();
    core.clear(1..3).unwrap();
    let left = copy_of(dir.path());
    assert_eq!(blocks(&open(left.path())), [here("a"), None, None, here("d")]);
}

#[test]
fn append_after_truncate_before_kill_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path());
    core.append_batch(["a", "bb", "c"]).unwrap();
    core.truncate(1).unwrap();
    core.append_batch(["x", "yy", "z"]).unwrap();
    core.clear(2..3).unwrap();
    core.truncate(3).unwrap();
    core.append("w").unwrap();
    let left = copy_of(dir.path());
    let core = open(left.path());
    assert_eq!(blocks(&core), [here("a"), here("x"), None, here("w")]);
    assert_eq!(core.fork(), 2);
    assert!(core.verify().unwrap().faults.is_empty());
}

/// The disk kept the oplog of the second append but not its block.
#[test]
fn append_without_its_data_is_discarded_at_open() {
    for zeros in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let core = open(dir.path());
        core.append_batch(["first", "second"]).unwrap();
        core.append("lost").unwrap();
        core.append("after").unwrap();
        let left = copy_of(dir.path());
        let data = left.path().join("data");
        let mut bytes = fs::read(&data).unwrap();
        if zeros {
            bytes[11..15].fill(0);
        } else {
            bytes.truncate(12);
        }
        fs::write(&data, bytes).unwrap();

        let core = open(left.path());
        assert_eq!(blocks(&core), [here("first"), here("second")], "zeros: {zeros}");
        core.append("anew").unwrap();
        let left = copy_of(left.path());
        assert_eq!(blocks(&open(left.path())), [here("first"), here("second"), here("anew")], "zeros: {zeros}");
    }
}

#[test]
fn damaged_block_keeps_length() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path());
    core.append_batch(["first", "second"]).unwrap();
    let left = copy_of(dir.path());
    fs::write(left.path().join("data"), "firstsecOnd").unwrap();
    let core = open(left.path());
    assert_eq!(core.len(), 2);
    assert_eq!(core.get(0).unwrap(), b"first");
    assert_eq!(core.get(1).unwrap_err().kind(), ErrorKind::InvalidChecksum);
    assert_eq!(core.verify().unwrap().faults.len(), 1);
}

#[test]
fn corrupt_core_can_be_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append("old").unwrap();
    fs::write(dir.path().join("oplog"), [0xff; 10_000]).unwrap();
    assert_eq!(Hypercore::open(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    let core = Hypercore::options().overwrite(true).durability(Durability::None).open(dir.path()).unwrap();
    assert!(core.is_empty());
    core.append("new").unwrap();
    drop(core);
    assert_eq!(blocks(&open(dir.path())), [here("new")]);
}

#[test]
fn reads_after_kill_change_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path());
    core.append_batch(["a", "b"]).unwrap();
    let left = copy_of(dir.path());
    let files = || ["oplog", "tree", "data", "bitfield"].map(|name| fs::read(left.path().join(name)).ok());
    let before = files();
    let core = open(left.path());
    assert_eq!(core.get(1).unwrap(), b"b");
    assert_eq!(core.contiguous_length().unwrap(), 2);
    core.close().unwrap();
    assert!(files() == before);
}

#[test]
fn truncate_with_failed_flush_is_kept_after_reopen() {
    for (from, to) in [(9_u64, 5_u64), (8, 3), (16, 15), (5, 0), (31, 16), (6, 4)] {
        for durability in [Durability::None, Durability::Flush, Durability::Always] {
            let storage = Hooked::memory();
            let open = || Hypercore::options().durability(durability).open_in(storage.clone()).unwrap();
            let core = open();
            let block = |i: u64| format!("block {i}");
            // All but the last are flushed; the last one stands in the oplog only.
            for i in 0..from - 1 {
                core.append(block(i)).unwrap();
            }
            core.flush().unwrap();
            core.append(block(from - 1)).unwrap();
            // A killed process or a full disk leaves this of a flush: an oplog without a new header.
            storage.fail_full(|name, call| name == "oplog" && matches!(call, Call::Write { offset: ..8192, .. }));
            // The truncate is committed; the next call returns the failure of the flush.
            assert_eq!(core.truncate(to).unwrap(), 1);
            assert_eq!(core.append("x").unwrap_err().kind(), ErrorKind::Failed);
            drop(core);
            storage.clear_hook();
            for round in 0..2 {
                let core = open();
                assert_eq!((core.len(), core.fork()), (to + round, 1));
                assert!(core.verify().unwrap().faults.is_empty());
                assert_eq!(core.append(block(to + round)).unwrap().length, to + round + 1);
                assert!((0..core.len()).all(|i| core.get(i).unwrap() == block(i).as_bytes()));
                core.close().unwrap();
            }
        }
    }
}
