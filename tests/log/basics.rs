//! The operations of one open log: append, read, truncate, clear, info, user data, snapshots, download, close, purge.

use std::io::Read;

use hypercore::{
    ByteOptions, Download, Durability, ErrorKind, GetOptions, Hypercore, InfoOptions, MAX_BLOCK_SIZE, Manifest, Memory,
    ReadOptions, SeekOptions, SessionOptions,
};

use crate::common::{files_of, kind, pair, watchdog};

#[test]
fn new_core_shows_its_keys_and_no_blocks() {
    let memory = Memory::new();
    let core = Hypercore::options().key_pair(pair(7)).open_in(memory.clone()).unwrap();
    assert_eq!(core.key(), pair(7).public_key());
    assert_eq!(core.id(), pair(7).public_key().id());
    assert_eq!(core.id().len(), 52);
    assert_eq!(core.discovery_key(), pair(7).public_key().discovery_key());
    assert_eq!(core.key_pair(), Some(pair(7)));
    assert_eq!((core.encryption_key(), core.padding()), (None, 0));
    assert_eq!((core.len(), core.byte_length(), core.fork(), core.contiguous_length().unwrap()), (0, 0, 0, 0));
    assert_eq!(core.manifest(), Some(Manifest::single(pair(7).public_key())));
    assert!(core.peers().is_empty());
    assert!(format!("{core:?}").contains(&core.key().to_string()));
}

#[test]
fn append_batch_with_too_large_block_appends_nothing() {
    let core = Hypercore::in_memory().unwrap();
    let large = vec![1; MAX_BLOCK_SIZE + 1];
    assert_eq!(kind(core.append_batch([&b"small"[..], &large])), ErrorKind::BadArgument);
    assert_eq!(core.len(), 0);
    let nothing = core.append_batch(Vec::<Vec<u8>>::new()).unwrap();
    assert_eq!((nothing.length, nothing.byte_length, core.len()), (0, 0, 0));
    core.append("a").unwrap();
    let nothing = core.append_batch(Vec::<Vec<u8>>::new()).unwrap();
    assert_eq!((nothing.length, nothing.byte_length), (1, 1));
}

#[test]
fn large_batch_hashed_on_several_threads_has_same_tree_hash() {
    for (count, size) in [(1, 600_000), (2, 300_000), (3, 400_000), (7000, 100), (5000, 0), (129, 8000)] {
        let blocks: Vec<Vec<u8>> = (0..count).map(|i: usize| vec![i as u8; size]).collect();
        let together = Hypercore::options().key_pair(pair(1)).open_in(Memory::new()).unwrap();
        together.append_batch(&blocks).unwrap();
        let apart = Hypercore::options().key_pair(pair(1)).open_in(Memory::new()).unwrap();
        blocks.chunks(37).for_each(|part| _ = apart.append_batch(part).unwrap());
        assert_eq!(together.tree_hash().unwrap(), apart.tree_hash().unwrap());
        assert!(together.verify().unwrap().faults.is_empty());
    }
}

#[test]
fn index_past_end_is_absent_or_out_of_bounds() {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "bb"]).unwrap();
    for (index, is_possible) in [(2, true), (3, true), (1 << 40, true), (u64::MAX / 2, false), (u64::MAX, false)] {
        assert!(!core.has(index).unwrap(), "{index}");
        let block = core.get_with(index, GetOptions::new().wait(false));
        if is_possible {
            assert_eq!(block.unwrap(), None, "{index}");
        } else {
            // No log can be that long.
            assert_eq!(kind(block), ErrorKind::BadArgument, "{index}");
        }
        assert_eq!(kind(core.tree_hash_at(index.max(3))), ErrorKind::OutOfBounds, "{index}");
        assert_eq!(kind(core.truncate(index.max(3))), ErrorKind::OutOfBounds, "{index}");
        let found = core.seek_with(index.max(4), SeekOptions::new().wait(false));
        if is_possible {
            assert_eq!(found.unwrap(), None, "{index}");
        } else {
            assert_eq!(kind(found), ErrorKind::BadArgument, "{index}");
        }
    }
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 2..1;
    assert_eq!(kind(core.clear(reversed.clone())), ErrorKind::BadArgument);
    assert_eq!(kind(core.has_range(reversed)), ErrorKind::BadArgument);
    assert_eq!(kind(core.clear(0..u64::MAX)), ErrorKind::BadArgument);
    assert!(core.has_range(0..2).unwrap() && core.has_range(..).unwrap() && core.has_range(1..=1).unwrap());
    assert!(!core.has_range(0..3).unwrap());
    assert!(core.has_range(1..1).unwrap());
    core.clear(5..9).unwrap();
    core.clear(9..).unwrap();
    assert_eq!(core.len(), 2);
}

#[test]
fn seek_finds_block_and_offset_of_every_byte() {
    for encrypted in [false, true] {
        let options = Hypercore::options();
        let options = if encrypted { options.encryption_key([9; 32]) } else { options };
        let core = options.open_in(Memory::new()).unwrap();
        let sizes = [3, 0, 0, 5, 1, 0, 7, 0, 2];
        core.append_batch(sizes.map(|n| vec![7; n])).unwrap();
        let mut byte = 0;
        for size in sizes {
            for _ in 0..size {
                // Of several empty blocks at one offset, any may be found.
                let (block, offset) = core.seek(byte).unwrap();
                let before: usize = sizes[..block as usize].iter().sum();
                assert_eq!(before as u64 + offset, byte);
                assert!(offset <= sizes[block as usize] as u64);
                byte += 1;
            }
        }
        assert_eq!(byte, core.byte_length());
        assert_eq!(core.seek(byte).unwrap(), (9, 0));
        assert_eq!(core.seek_with(byte + 1, SeekOptions::new().wait(false)).unwrap(), None);
        let none_waits = core.session(SessionOptions::new().wait(false)).unwrap();
        assert_eq!(kind(none_waits.seek(byte + 1)), ErrorKind::BlockNotAvailable);
    }
}

#[test]
fn clear_frees_space_and_keeps_other_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::open(dir.path()).unwrap();
    let block = |i: u64| vec![i as u8 + 1; 8192];
    core.append_batch((0..64).map(block)).unwrap();
    core.flush().unwrap();
    let before = core.info(InfoOptions::new().storage(true)).unwrap().storage.unwrap().blocks;
    let cleared = core.clear(8..40).unwrap();
    let after = core.info(InfoOptions::new().storage(true)).unwrap().storage.unwrap().blocks;
    assert_eq!((before - after, cleared.dropped_blocks), (cleared.freed_bytes, 32));
    assert!(cleared.freed_bytes >= 31 * 8192, "{cleared:?}");
    assert_eq!(core.clear(8..40).unwrap().dropped_blocks, 0);
    assert_eq!((core.len(), core.contiguous_length().unwrap()), (64, 8));
    let check = |core: &Hypercore| {
        for i in 0..64 {
            let held = !(8..40).contains(&i);
            assert_eq!(core.has(i).unwrap(), held);
            let expected = held.then(|| block(i));
            assert_eq!(core.get_with(i, GetOptions::new().wait(false)).unwrap(), expected, "block {i}");
        }
        assert!(!core.has_range(0..64).unwrap() && core.has_range(40..64).unwrap());
        assert!(core.verify().unwrap().faults.is_empty());
    };
    check(&core);
    core.close().unwrap();
    check(&Hypercore::open(dir.path()).unwrap());
}

/// The next open must not take a clear that stands only in the oplog for blocks that a power cut lost.
#[test]
fn clear_before_flush_keeps_other_blocks_after_reopen() {
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        let memory = Memory::new();
        let open = || Hypercore::options().durability(durability).open_in(memory.clone()).unwrap();
        let core = open();
        core.append("flushed").unwrap();
        core.flush().unwrap();
        core.append_batch(["a", "b", "c"]).unwrap();
        core.clear(2..3).unwrap();
        core.append("d").unwrap();
        core.clear(0..1).unwrap();
        core.close().unwrap();
        let core = open();
        assert_eq!(core.len(), 5, "{durability:?}");
        let held: Vec<u64> = (0..5).filter(|&i| core.has(i).unwrap()).collect();
        assert_eq!(held, [1, 3, 4]);
        assert_eq!(core.get(3).unwrap(), b"c");
        assert!(core.verify().unwrap().faults.is_empty());
    }
}

#[test]
fn truncate_raises_fork_and_log_grows_again() {
    let memory = Memory::new();
    let core = Hypercore::options().open_in(memory.clone()).unwrap();
    core.append_batch(["a", "b", "c", "d", "e"]).unwrap();
    let at_three = core.tree_hash_at(3).unwrap();
    assert_eq!(core.truncate(3).unwrap(), 1);
    assert_eq!((core.len(), core.fork(), core.byte_length(), core.tree_hash().unwrap()), (3, 1, 3, at_three));
    assert!(!core.has(3).unwrap());
    assert_eq!(core.get_with(4, GetOptions::new().wait(false)).unwrap(), None);
    core.append("x").unwrap();
    assert_eq!(core.get(3).unwrap(), b"x");
    assert_eq!(core.truncate_to(1, 7).unwrap(), 7);
    assert_eq!(kind(core.truncate_to(1, 7)), ErrorKind::BadArgument);
    assert_eq!(kind(core.truncate_to(1, u64::MAX)), ErrorKind::BadArgument);
    assert_eq!(core.truncate(1).unwrap(), 8);
    assert_eq!(core.truncate(0).unwrap(), 9);
    assert_eq!((core.len(), core.fork(), core.contiguous_length().unwrap()), (0, 9, 0));
    core.close().unwrap();
    let core = Hypercore::options().open_in(memory).unwrap();
    assert_eq!((core.len(), core.fork()), (0, 9));
    core.append_batch(["n", "e"]).unwrap();
    assert_eq!((core.len(), core.fork(), core.get(1).unwrap()), (2, 9, b"e".to_vec()));
    assert!(core.verify().unwrap().faults.is_empty());
}

#[test]
fn truncate_to_same_length_raises_fork_and_fires_event() {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "b"]).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let _subscription = core.on_truncate(move |length, fork| sender.send((length, fork)).unwrap());
    core.truncate(1).unwrap();
    core.truncate(1).unwrap();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [(1, 1), (1, 2)]);
}

#[test]
fn purge_removes_only_files_of_core() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().user_data("big", vec![1; 9000]).open(dir.path()).unwrap();
    core.append("x").unwrap();
    core.flush().unwrap();
    std::fs::write(dir.path().join("mine.txt"), "kept").unwrap();
    let names: Vec<_> = files_of(dir.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["bitfield", "data", "header", "mine.txt", "oplog", "tree"]);
    let session = core.session(SessionOptions::new()).unwrap();
    core.purge().unwrap();
    assert!(!core.readable() && !session.readable());
    assert_eq!(files_of(dir.path()), [("mine.txt".to_owned(), b"kept".to_vec())]);
    assert!(Hypercore::open(dir.path()).unwrap().is_empty());
}

#[test]
fn core_closes_with_its_last_session() {
    let memory = Memory::new();
    let core = Hypercore::options().open_in(memory.clone()).unwrap();
    let clone = core.clone();
    let session = core.session(SessionOptions::new()).unwrap();
    let third = session.session(SessionOptions::new()).unwrap();
    core.append("x").unwrap();
    clone.close().unwrap();
    assert!(!core.readable() && session.readable());
    assert_eq!(kind(core.get(0)), ErrorKind::Closed);
    assert_eq!(kind(core.session(SessionOptions::new())), ErrorKind::Closed);
    assert_eq!(kind(core.clear(0..1)), ErrorKind::Closed);
    assert_eq!(kind(core.set_user_data("a", "b")), ErrorKind::Closed);
    assert_eq!(kind(core.flush()), ErrorKind::Closed);
    assert_eq!(kind(core.verify()), ErrorKind::Closed);
    assert_eq!(kind(core.has(0)), ErrorKind::Closed);
    assert_eq!(kind(core.seek(0)), ErrorKind::Closed);
    assert_eq!(kind(core.info(InfoOptions::new())), ErrorKind::Closed);
    assert_eq!(kind(core.update()), ErrorKind::Closed);
    assert_eq!(kind(core.download(Download::all()).map(drop)), ErrorKind::Closed);
    assert_eq!(session.get(0).unwrap(), b"x");
    assert_eq!(kind(Hypercore::options().open_in(memory.clone())), ErrorKind::Locked);
    drop(session);
    assert_eq!(third.get(0).unwrap(), b"x");
    drop(third);
    assert!(Hypercore::options().open_in(memory).is_ok());
}

#[test]
fn calls_on_closed_session_fail_with_closed() {
    let core = Hypercore::in_memory().unwrap();
    let session = core.session(SessionOptions::new()).unwrap();
    core.append("x").unwrap();
    session.close().unwrap();
    assert_eq!(kind(session.truncate(0)), ErrorKind::Closed);
    assert_eq!(kind(session.tree_hash()), ErrorKind::Closed);
    assert_eq!(kind(session.snapshot()), ErrorKind::Closed);
    let manifest = Manifest::single(core.key());
    assert_eq!(kind(session.set_manifest(manifest)), ErrorKind::Closed);
    assert_eq!(kind(session.purge()), ErrorKind::Closed);
    assert_eq!(core.get(0).unwrap(), b"x");
}

#[test]
fn snapshot_keeps_its_state_until_update() {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "b", "c"]).unwrap();
    let hash = core.tree_hash().unwrap();
    let snapshot = core.snapshot().unwrap();
    let nested = snapshot.snapshot().unwrap();
    core.append("d").unwrap();
    for shown in [&snapshot, &nested] {
        assert_eq!((shown.len(), shown.byte_length(), shown.fork()), (3, 3, 0));
        assert_eq!(shown.tree_hash().unwrap(), hash);
        assert_eq!(shown.get(2).unwrap(), b"c");
        assert_eq!(kind(shown.get(3)), ErrorKind::SnapshotNotAvailable);
        assert_eq!(shown.read_stream(ReadOptions::new()).unwrap().count(), 3);
        let mut text = String::new();
        shown.byte_stream(ByteOptions::new()).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(shown.has_range(..).unwrap());
        // A snapshot clears no block past its own length.
        shown.clear(3..4).unwrap();
        assert!(core.has(3).unwrap());
    }
    core.truncate(1).unwrap();
    core.append_batch(["X", "Y", "Z"]).unwrap();
    assert_eq!((snapshot.len(), snapshot.fork()), (3, 0));
    assert_eq!(snapshot.get(0).unwrap(), b"a");
    assert_eq!(kind(snapshot.get(1)), ErrorKind::SnapshotNotAvailable);
    assert_eq!(kind(snapshot.get_with(2, GetOptions::new().wait(false))), ErrorKind::SnapshotNotAvailable);
    assert_eq!(kind(snapshot.tree_hash()), ErrorKind::SnapshotNotAvailable);
    assert_eq!(snapshot.tree_hash_at(1).unwrap(), core.tree_hash_at(1).unwrap());
    assert!(snapshot.update().unwrap());
    assert!(!snapshot.update().unwrap());
    assert_eq!((snapshot.len(), snapshot.fork(), snapshot.get(1).unwrap()), (4, 1, b"X".to_vec()));
    assert_eq!(nested.len(), 3);
    assert_eq!(kind(nested.get(1)), ErrorKind::SnapshotNotAvailable);
}

#[test]
fn snapshot_of_reader_moves_with_update() {
    let core = Hypercore::in_memory().unwrap();
    let reader = core.session(SessionOptions::new().writable(false)).unwrap();
    let snapshot = reader.snapshot().unwrap();
    core.append("a").unwrap();
    assert_eq!(snapshot.len(), 0);
    assert!(snapshot.update().unwrap());
    assert_eq!(snapshot.len(), 1);
}

#[test]
fn info_shows_state_and_disk_usage() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().encryption_key([1; 32]).open(dir.path()).unwrap();
    core.append_batch(["hello", "world"]).unwrap();
    core.flush().unwrap();
    let info = core.info(InfoOptions::new()).unwrap();
    assert_eq!((info.key, info.discovery_key), (core.key(), core.discovery_key()));
    assert_eq!((info.length, info.contiguous_length, info.byte_length), (2, 2, 10));
    assert_eq!((info.fork, info.padding, info.storage), (0, 8, None));
    let storage = core.info(InfoOptions::new().storage(true)).unwrap().storage.unwrap();
    assert!(storage.oplog > 0 && storage.tree > 0 && storage.blocks > 0 && storage.bitfield > 0);
}

#[test]
fn user_data_is_stored_replaced_and_deleted() {
    let memory = Memory::new();
    let open = || Hypercore::options().open_in(memory.clone()).unwrap();
    let core = Hypercore::options().user_data("first", "1").open_in(memory.clone()).unwrap();
    assert_eq!(core.user_data("first"), Some(b"1".to_vec()));
    core.set_user_data("second", "2").unwrap();
    core.set_user_data("first", "one").unwrap();
    core.set_user_data("", "the empty key").unwrap();
    core.set_user_data("gone", "soon").unwrap();
    core.set_user_data("gone", "").unwrap();
    core.set_user_data("never", "").unwrap();
    for big in [0, 5000, 20_000, 300_000, 10] {
        core.set_user_data("big", vec![7; big]).unwrap();
        if big % 3 == 0 {
            core.flush().unwrap();
        }
    }
    core.close().unwrap();
    for flushed in [false, true] {
        let core = open();
        assert_eq!(core.user_data("first"), Some(b"one".to_vec()));
        assert_eq!(core.user_data("second"), Some(b"2".to_vec()));
        assert_eq!(core.user_data(""), Some(b"the empty key".to_vec()));
        assert_eq!((core.user_data("gone"), core.user_data("never")), (None, None));
        assert_eq!(core.user_data("big"), Some(vec![7; 10]));
        if !flushed {
            core.flush().unwrap();
        }
        core.close().unwrap();
    }
}

#[test]
fn encrypted_blocks_need_their_key() {
    for compat in [true, false] {
        let memory = Memory::new();
        let open = |key: Option<[u8; 32]>| {
            let options = Hypercore::options().compat(compat);
            key.map_or(options.clone(), |k| options.encryption_key(k)).open_in(memory.clone()).unwrap()
        };
        let core = open(Some([3; 32]));
        assert_eq!((core.padding(), core.encryption_key()), (8, Some([3; 32])));
        let appended = core.append_batch(["secret", "", "words"]).unwrap();
        assert_eq!((appended.length, appended.byte_length, core.byte_length()), (3, 11, 11));
        assert_eq!(core.append("!").unwrap().byte_length, 12);
        core.truncate(3).unwrap();
        core.append("again").unwrap();
        assert_eq!(core.get(3).unwrap(), b"again");
        let raw = core.get_with(0, GetOptions::new().decrypt(false)).unwrap().unwrap();
        assert_eq!(raw.len(), 14);
        assert!(!raw.windows(6).any(|w| w == b"secret"));
        let other = core.session(SessionOptions::new().encryption_key([4; 32])).unwrap();
        assert_eq!(kind(other.get(0)), ErrorKind::Encryption);
        core.close().unwrap();
        drop(other);
        let core = open(None);
        assert_eq!((core.padding(), core.byte_length()), (0, 16 + 32));
        assert_eq!(kind(core.get(0)), ErrorKind::Encryption);
        assert_eq!(core.get_with(0, GetOptions::new().decrypt(false)).unwrap(), Some(raw));
        core.close().unwrap();
        let core = open(Some([3; 32]));
        assert_eq!(core.get(2).unwrap(), b"words");
        assert!(core.verify().unwrap().faults.is_empty());
    }
}

#[test]
fn length_of_core_that_is_not_sparse_is_contiguous_length() {
    let memory = Memory::new();
    let core = Hypercore::options().sparse(false).open_in(memory.clone()).unwrap();
    core.append_batch(["aa", "b", "ccc", "d"]).unwrap();
    assert_eq!((core.len(), core.byte_length()), (4, 7));
    core.clear(2..3).unwrap();
    assert_eq!((core.len(), core.byte_length(), core.contiguous_length().unwrap()), (2, 3, 2));
    let dense = core.session(SessionOptions::new().sparse(true)).unwrap();
    assert_eq!(dense.len(), 2);
    core.close().unwrap();
    drop(dense);
    let core = Hypercore::options().open_in(memory).unwrap();
    assert_eq!((core.len(), core.session(SessionOptions::new().sparse(false)).unwrap().len()), (4, 2));
}

#[test]
fn download_of_held_blocks_is_done_at_once() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "b", "c"]).unwrap();
    core.download(Download::range(0..3)).unwrap().wait().unwrap();
    core.download(Download::blocks([2, 0, 2])).unwrap().wait().unwrap();
    core.clear(1..2).unwrap();
    let waiting = core.download(Download::range(0..5)).unwrap();
    assert!(!waiting.is_done());
    assert_eq!((waiting.progress().unwrap().blocks, waiting.progress().unwrap().total), (2, 5));
    waiting.cancel();
    assert_eq!(kind(waiting.wait()), ErrorKind::Cancelled);
    let coming = core.download(Download::range(3..5)).unwrap();
    std::thread::scope(|s| {
        let done = s.spawn(|| coming.wait());
        core.append_batch(["d", "e"]).unwrap();
        done.join().unwrap().unwrap();
    });
    // Without peers, no missing block is available, so the download is done.
    core.download(Download::range(0..9).if_available(true)).unwrap().wait().unwrap();
    let following = core.download(Download::all()).unwrap();
    assert_eq!(kind(following.wait_timeout(std::time::Duration::from_millis(1))), ErrorKind::Timeout);
    core.close().unwrap();
    assert_eq!(kind(following.wait()), ErrorKind::Closed);
}

#[test]
fn get_after_truncate_finds_moved_blocks() {
    let core = Hypercore::options().open_in(Memory::new()).unwrap();
    let all = |expected: &dyn Fn(u64) -> Vec<u8>| {
        // The second round reads with cached byte offsets.
        for i in (0..40).chain(0..40) {
            assert_eq!(core.get(i).unwrap(), expected(i), "block {i}");
        }
    };
    core.append_batch((0..40).map(|i| vec![i; 1])).unwrap();
    all(&|i| vec![i as u8; 1]);
    core.truncate(20).unwrap();
    core.append_batch((20..40).map(|i| vec![i; 3])).unwrap();
    all(&|i| vec![i as u8; if i < 20 { 1 } else { 3 }]);
}

#[test]
fn block_above_maximum_size_is_refused() {
    let core = Hypercore::in_memory().unwrap();
    let mut block = vec![1; MAX_BLOCK_SIZE];
    core.append(&block).unwrap();
    block.push(1);
    assert!(core.append(&block).is_err());
    assert_eq!((core.len(), core.get(0).unwrap().len()), (1, MAX_BLOCK_SIZE));
}

#[test]
fn clear_of_one_block_keeps_its_neighbours() {
    for index in [0, 1, 31, 32, 63, 64, 126, 127, 128] {
        let core = Hypercore::in_memory().unwrap();
        core.append_batch(vec!["tick"; 129]).unwrap();
        core.clear(index..index + 1).unwrap();
        for i in 0..129 {
            let block = core.get_with(i, GetOptions::new().wait(false)).unwrap();
            assert_eq!(block, (i != index).then(|| b"tick".to_vec()), "block {i} with {index} cleared");
        }
        assert_eq!(core.contiguous_length().unwrap(), index);
        assert!(core.verify().unwrap().is_sound());
    }
}

#[test]
fn contiguous_length_crosses_bitfield_pages() {
    let core = Hypercore::options().durability(Durability::None).open_in(Memory::new()).unwrap();
    let page = 1 << 15;
    core.append_batch(vec![""; page + 7]).unwrap();
    let page = page as u64;
    for hole in [page - 1, page, page + 1] {
        core.clear(hole..hole + 1).unwrap();
        assert_eq!(core.held_from(hole).unwrap(), Some(hole + 1..page + 7));
        assert_eq!(core.contiguous_length().unwrap(), page - 1);
    }
}

#[test]
fn tree_hash_at_equals_earlier_tree_hash() {
    let (core, other) = (Hypercore::in_memory().unwrap(), Hypercore::in_memory().unwrap());
    assert_eq!(core.tree_hash().unwrap(), other.tree_hash().unwrap());
    let mut hashes = vec![core.tree_hash().unwrap()];
    for i in 1..40 {
        core.append(i.to_string()).unwrap();
        hashes.push(core.tree_hash().unwrap());
    }
    assert_ne!(core.tree_hash().unwrap(), other.tree_hash().unwrap());
    for (length, hash) in hashes.iter().enumerate() {
        assert_eq!(core.tree_hash_at(length as u64).unwrap(), *hash);
    }
    // The hash depends on the blocks only, not on the batches.
    other.append_batch((1..40).map(|i| i.to_string())).unwrap();
    assert_eq!(core.tree_hash().unwrap(), other.tree_hash().unwrap());
}

#[test]
fn user_data_option_is_added_to_stored_user_data() {
    let dir = tempfile::tempdir().unwrap();
    let open = |key: &str, value: &str| Hypercore::options().user_data(key, value).open(dir.path()).unwrap();
    let core = open("hello", "world");
    assert_eq!(core.user_data("hello"), Some(b"world".to_vec()));
    core.close().unwrap();
    let core = open("other", "another");
    assert_eq!(core.user_data("hello"), Some(b"world".to_vec()));
    assert_eq!(core.user_data("other"), Some(b"another".to_vec()));
}
