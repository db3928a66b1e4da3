//! Everything that one person can do with one log: open it in all ways, write, read, cut, clear, look at it, close it.

use std::io::{Read, Seek, SeekFrom, Write};

use hypercore::{
    Binary, ByteOptions, Disk, Download, Durability, Encoding, Error, ErrorKind, GetOptions, Hypercore, InfoOptions,
    Key, MAX_BLOCK_SIZE, Manifest, Memory, ReadOptions, Repair, Result, SeekOptions, SessionOptions, Signer, Utf8,
};

use crate::support::{Watched, files_of, kind, pair, watchdog};

#[test]
fn a_directory_remembers_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("deep/er");
    let core = Hypercore::open(&at).unwrap();
    assert!(core.is_empty() && core.writable() && core.readable());
    let appended = core.append_batch(["a", "", "ccc"]).unwrap();
    assert_eq!((appended.length, appended.byte_length), (3, 4));
    let appended = core.append("dd").unwrap();
    assert_eq!((appended.length, appended.byte_length), (4, 6));
    let (key, hash) = (core.key(), core.tree_hash().unwrap());
    core.close().unwrap();
    assert!(!core.readable() && !core.writable());
    assert_eq!(kind(core.get(0)), ErrorKind::Closed);
    assert_eq!(kind(core.append("x")), ErrorKind::Closed);
    core.close().unwrap();

    let core = Hypercore::open(&at).unwrap();
    assert_eq!((core.key(), core.len(), core.byte_length()), (key, 4, 6));
    assert_eq!(core.tree_hash().unwrap(), hash);
    let blocks: Vec<_> = (0..4).map(|i| core.get(i).unwrap()).collect();
    assert_eq!(blocks, [&b"a"[..], b"", b"ccc", b"dd"]);
    assert!(core.writable());
    core.append("more").unwrap();
    assert!(core.verify(Repair::No).unwrap().faults.is_empty());
}

#[test]
fn properties() {
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
fn no_core_is_made_where_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("none");
    assert_eq!(kind(Hypercore::options().create_if_missing(false).open(&at)), ErrorKind::StorageEmpty);
    assert!(!at.exists());
    assert_eq!(kind(Hypercore::options().read_only(true).open(&at)), ErrorKind::StorageEmpty);
    assert!(!at.exists());
    drop(Hypercore::open(&at).unwrap());
    assert!(Hypercore::options().create_if_missing(false).open(&at).is_ok());
}

#[test]
fn another_key_than_the_stored_is_named_in_the_error() {
    let memory = Memory::new();
    let core = Hypercore::options().key_pair(pair(1)).open_in(memory.clone()).unwrap();
    core.close().unwrap();
    let other = pair(2).public_key();
    let error = Hypercore::options().key(other).open_in(memory.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageConflict);
    let text = error.to_string();
    assert!(text.contains(&other.to_string()) && text.contains(&pair(1).public_key().to_string()), "{text}");
    let core = Hypercore::options().key(pair(1).public_key()).open_in(memory).unwrap();
    assert!(core.writable());
}

#[test]
fn a_key_pair_of_another_core_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Hypercore::options().key(pair(1).public_key()).key_pair(pair(2));
    assert_eq!(kind(options().open(dir.path())), ErrorKind::BadArgument);
    let core = Hypercore::open(dir.path()).unwrap();
    assert_ne!(core.key(), pair(1).public_key());
}

/// As in the reference: the core that is there keeps its key pair, and is not taken for the one that a manifest names.
#[test]
fn a_core_that_is_there_stays_what_it_is() {
    let memory = Memory::new();
    let open = |options: hypercore::OpenOptions| options.open_in(memory.clone());
    open(Hypercore::options().key_pair(pair(1))).unwrap().close().unwrap();
    let core = open(Hypercore::options().key_pair(pair(2))).unwrap();
    assert_eq!(core.key_pair(), Some(pair(1)));
    core.append("signed by its own").unwrap();
    assert_eq!(core.verify(Repair::No).unwrap().faults, []);
    core.close().unwrap();
    let manifest = Manifest::single(pair(1).public_key());
    assert_eq!(kind(open(Hypercore::options().manifest(manifest.clone()))), ErrorKind::StorageConflict);
    for named in [Hypercore::options().compat(true), Hypercore::options().key(pair(1).public_key())] {
        open(named.manifest(manifest.clone())).unwrap().close().unwrap();
    }
}

#[test]
fn a_readers_core_reads_and_refuses_to_write() {
    let core = Hypercore::options().key(pair(3).public_key()).open_in(Memory::new()).unwrap();
    assert!(!core.writable() && core.readable());
    assert_eq!((core.key_pair(), core.manifest()), (None, None));
    assert_eq!(kind(core.append("x")), ErrorKind::NotWritable);
    assert_eq!(kind(core.truncate(0)), ErrorKind::NotWritable);
    assert_eq!(core.get_with(0, GetOptions::new().wait(false)).unwrap(), None);
    assert!(!core.update().unwrap());
    core.set_user_data("mine", "alone").unwrap();
    core.clear(0..0).unwrap();
}

#[test]
fn a_core_known_by_its_key_learns_to_sign() {
    let memory = Memory::new();
    let core = Hypercore::options().key(pair(3).public_key()).open_in(memory.clone()).unwrap();
    core.close().unwrap();
    let core = Hypercore::options().key_pair(pair(3)).open_in(memory.clone()).unwrap();
    assert!(core.writable());
    core.append("signed").unwrap();
    assert_eq!(core.manifest(), Some(Manifest::single(pair(3).public_key())));
    core.close().unwrap();
    let core = Hypercore::options().key_pair(pair(3)).open_in(memory).unwrap();
    assert_eq!(core.manifest(), Some(Manifest::single(pair(3).public_key())));
    assert!(core.verify(Repair::No).unwrap().faults.is_empty());
}

#[test]
fn overwriting_starts_anew() {
    for disk in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new();
        let open = |overwrite| {
            let options = Hypercore::options().overwrite(overwrite).key_pair(pair(if overwrite { 2 } else { 1 }));
            if disk { options.open(dir.path()) } else { options.open_in(memory.clone()) }
        };
        let core = open(false).unwrap();
        core.append_batch((0..50).map(|i| vec![i as u8; i])).unwrap();
        core.set_user_data("old", "old").unwrap();
        core.close().unwrap();
        let core = open(true).unwrap();
        assert_eq!((core.key(), core.len()), (pair(2).public_key(), 0));
        assert_eq!(core.user_data("old"), None);
        core.append_batch(["n", "e", "w"]).unwrap();
        assert!(!core.has(3).unwrap());
        core.close().unwrap();
        let again = if disk { Hypercore::open(dir.path()) } else { Hypercore::options().open_in(memory.clone()) };
        let core = again.unwrap();
        assert_eq!((core.key(), core.len(), core.get(2).unwrap()), (pair(2).public_key(), 3, b"w".to_vec()));
        assert!(core.verify(Repair::No).unwrap().faults.is_empty());
    }
    assert_eq!(
        kind(Hypercore::options().overwrite(true).read_only(true).open_in(Memory::new())),
        ErrorKind::BadArgument
    );
}

#[test]
fn what_is_not_to_be_written_is_not() {
    let memory = Memory::new();
    let core = Hypercore::options().writable(false).open_in(memory.clone()).unwrap();
    assert!(!core.writable());
    assert_eq!(kind(core.append("x")), ErrorKind::NotWritable);
    assert_eq!(kind(core.truncate(0)), ErrorKind::NotWritable);
    core.close().unwrap();
    let core = Hypercore::options().open_in(memory).unwrap();
    core.append("x").unwrap();
    let session = core.session(SessionOptions::new().writable(false)).unwrap();
    assert_eq!(kind(session.append("x")), ErrorKind::NotWritable);
    assert!(!session.session(SessionOptions::new().writable(true)).unwrap().writable());
    core.append("y").unwrap();
    assert_eq!(session.len(), 2);
}

#[test]
fn every_durability_and_map_limit_keeps_the_log() {
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        for map_limit in [None, Some(0), Some(1), Some(1 << 16), Some(1 << 20)] {
            for lock in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let options = || {
                    let options = Hypercore::options().durability(durability).lock(lock);
                    match map_limit {
                        Some(limit) => options.map_limit(limit),
                        None => options,
                    }
                };
                let core = options().open(dir.path()).unwrap();
                for i in 0..5u8 {
                    core.append_batch((0..i).map(|n| vec![n; usize::from(i)])).unwrap();
                    core.flush().unwrap();
                }
                core.close().unwrap();
                let core = options().open(dir.path()).unwrap();
                assert_eq!(core.len(), 10);
                assert_eq!(core.get(9).unwrap(), [3; 4]);
                assert!(core.verify(Repair::No).unwrap().faults.is_empty());
            }
        }
    }
}

#[test]
fn options_of_keys_make_the_core_they_say() {
    // A manifest's hash instead of the public key.
    let memory = Memory::new();
    let core = Hypercore::options().key_pair(pair(5)).compat(false).open_in(memory.clone()).unwrap();
    let manifest = Manifest::single(pair(5).public_key());
    assert_eq!((core.key(), core.manifest()), (manifest.key(), Some(manifest.clone())));
    core.append_batch(["a", "b"]).unwrap();
    assert!(core.verify(Repair::No).unwrap().faults.is_empty());
    core.close().unwrap();
    let core = Hypercore::options().manifest(manifest.clone()).open_in(memory.clone()).unwrap();
    assert_eq!((core.len(), core.key_pair()), (2, Some(pair(5))));
    core.close().unwrap();
    let other = Manifest::single(pair(6).public_key());
    assert_eq!(kind(Hypercore::options().manifest(other.clone()).open_in(memory)), ErrorKind::StorageConflict);

    // A manifest and a key that do not belong together.
    let key = manifest.key();
    assert!(Hypercore::options().key(key).manifest(other).open_in(Memory::new()).is_err());
    let core = Hypercore::options().key(key).manifest(manifest.clone()).open_in(Memory::new()).unwrap();
    assert!(!core.writable());

    // A compat core has one signer.
    let two = Manifest::new(vec![Signer::new(pair(1).public_key()), Signer::new(pair(2).public_key())]);
    assert_eq!(kind(Hypercore::options().manifest(two).compat(true).open_in(Memory::new())), ErrorKind::BadArgument);
    let core = Hypercore::options().manifest(manifest).compat(true).key_pair(pair(5)).open_in(Memory::new()).unwrap();
    assert_eq!(core.key(), pair(5).public_key());
    core.append("x").unwrap();
    assert!(core.verify(Repair::No).unwrap().faults.is_empty());
}

#[test]
fn a_manifest_can_be_given_later() {
    let manifest = Manifest::single(pair(8).public_key());
    let memory = Memory::new();
    let core = Hypercore::options().key(manifest.key()).open_in(memory.clone()).unwrap();
    assert_eq!(core.manifest(), None);
    let wrong = Manifest::single(pair(9).public_key());
    assert_eq!(kind(core.set_manifest(wrong)), ErrorKind::InvalidChecksum);
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = seen.clone();
    let _subscription = core.on_manifest(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    core.set_manifest(manifest.clone()).unwrap();
    core.set_manifest(manifest.clone()).unwrap();
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(core.manifest(), Some(manifest.clone()));
    core.close().unwrap();
    let core = Hypercore::options().key_pair(pair(8)).open_in(memory).unwrap();
    assert_eq!(core.manifest(), Some(manifest));
    core.append("x").unwrap();
    assert!(core.verify(Repair::No).unwrap().faults.is_empty());
}

#[test]
fn an_append_is_all_or_nothing() {
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
fn batches_large_enough_for_several_threads_are_hashed_in_order() {
    for (count, size) in [(1, 600_000), (2, 300_000), (3, 400_000), (7000, 100), (5000, 0), (129, 8000)] {
        let blocks: Vec<Vec<u8>> = (0..count).map(|i: usize| vec![i as u8; size]).collect();
        let together = Hypercore::options().key_pair(pair(1)).open_in(Memory::new()).unwrap();
        together.append_batch(&blocks).unwrap();
        let apart = Hypercore::options().key_pair(pair(1)).open_in(Memory::new()).unwrap();
        blocks.chunks(37).for_each(|part| _ = apart.append_batch(part).unwrap());
        assert_eq!(together.tree_hash().unwrap(), apart.tree_hash().unwrap());
        assert!(together.verify(Repair::No).unwrap().faults.is_empty());
    }
}

#[test]
fn indices_past_the_end_are_errors_or_absent() {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "bb"]).unwrap();
    for index in [2, 1 << 40, u64::MAX / 2, u64::MAX] {
        assert!(!core.has(index).unwrap(), "{index}");
        let block = core.get_with(index, GetOptions::new().wait(false));
        assert!(matches!(block, Ok(None)) || kind(block) == ErrorKind::BadArgument, "{index}");
        assert!(core.tree_hash_at(index.max(3)).is_err());
        assert!(core.truncate(index.max(3)).is_err());
        let found = core.seek_with(index.max(4), SeekOptions::new().wait(false));
        assert!(matches!(found, Ok(None)) || kind(found) == ErrorKind::BadArgument, "{index}");
    }
    assert_eq!(kind(core.tree_hash_at(3)), ErrorKind::OutOfBounds);
    assert_eq!(kind(core.truncate(3)), ErrorKind::OutOfBounds);
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
fn a_byte_is_found_in_its_block() {
    for encrypted in [false, true] {
        let options = Hypercore::options();
        let options = if encrypted { options.encryption_key([9; 32]) } else { options };
        let core = options.open_in(Memory::new()).unwrap();
        let sizes = [3, 0, 0, 5, 1, 0, 7, 0, 2];
        core.append_batch(sizes.map(|n| vec![7; n])).unwrap();
        let mut byte = 0;
        for size in sizes {
            for _ in 0..size {
                // Between blocks of no bytes there is a choice.
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
fn blocks_are_streamed() {
    let core = Hypercore::in_memory().unwrap();
    let text = |stream: hypercore::ReadStream| -> String {
        stream.map(|b| String::from_utf8(b.unwrap()).unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(text(core.read_stream(ReadOptions::new()).unwrap()), "");
    core.append_batch(["a", "b", "c", "d"]).unwrap();
    assert_eq!(text(core.read_stream(ReadOptions::new()).unwrap()), "a b c d");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(1).end(3)).unwrap()), "b c");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(4)).unwrap()), "");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(9)).unwrap()), "");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(3).end(2)).unwrap()), "");
    let mut fixed = core.read_stream(ReadOptions::new().start(3)).unwrap();
    let mut following = core.read_stream(ReadOptions::new().start(3).snapshot(false)).unwrap();
    core.append("e").unwrap();
    assert_eq!(fixed.by_ref().count(), 1);
    assert_eq!(following.by_ref().count(), 2);
    assert!(fixed.next().is_none());

    core.clear(2..3).unwrap();
    let no_wait = core.session(SessionOptions::new().wait(false)).unwrap();
    let mut stream = no_wait.read_stream(ReadOptions::new().start(1)).unwrap();
    assert_eq!(stream.next().unwrap().unwrap(), b"b");
    assert_eq!(kind(stream.next().unwrap()), ErrorKind::BlockNotAvailable);
    assert!(stream.next().is_none());
    core.close().unwrap();
    assert_eq!(kind(core.read_stream(ReadOptions::new())), ErrorKind::Closed);
}

#[test]
fn a_live_stream_ends_when_the_core_closes() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    core.append("0").unwrap();
    let stream = core.read_stream(ReadOptions::new().live(true)).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        let reader = s.spawn(move || {
            let mut seen = 0;
            for block in stream {
                assert_eq!(block.unwrap(), seen.to_string().as_bytes());
                seen += 1;
                sender.send(seen).unwrap();
            }
            seen
        });
        for i in 1..20 {
            core.append(i.to_string()).unwrap();
        }
        while receiver.recv().unwrap() < 20 {}
        core.close().unwrap();
        assert_eq!(reader.join().unwrap(), 20);
    });
}

#[test]
fn bytes_are_streamed_and_seeked_in() {
    for encrypted in [false, true] {
        let options = Hypercore::options();
        let options = if encrypted { options.encryption_key([9; 32]) } else { options };
        let core = options.open_in(Memory::new()).unwrap();
        core.append_batch(["hello", "", " ", "wor", "ld", ""]).unwrap();
        assert_eq!(core.byte_length(), 11);
        let read = |options| {
            let mut out = String::new();
            core.byte_stream(options).unwrap().read_to_string(&mut out).unwrap();
            out
        };
        assert_eq!(read(ByteOptions::new()), "hello world");
        for from in 0..=11 {
            for len in 0..=11 - from {
                let options = ByteOptions::new().byte_offset(from).byte_length(len).prefetch(from % 3);
                assert_eq!(read(options), "hello world"[from as usize..(from + len) as usize]);
            }
            assert_eq!(read(ByteOptions::new().byte_offset(from)), "hello world"[from as usize..]);
        }
        assert_eq!(read(ByteOptions::new().byte_offset(99)), "");
        let mut stream = core.byte_stream(ByteOptions::new().byte_offset(1)).unwrap();
        assert_eq!((stream.len(), stream.is_empty()), (10, false));
        let mut two = [0; 2];
        for (seek, expected, position) in [
            (SeekFrom::Start(5), "wo", 5),
            (SeekFrom::Current(-3), " w", 4),
            (SeekFrom::End(-2), "ld", 8),
            (SeekFrom::Start(0), "el", 0),
            (SeekFrom::Current(0), "lo", 2),
        ] {
            assert_eq!(stream.seek(seek).unwrap(), position);
            stream.read_exact(&mut two).unwrap();
            assert_eq!(std::str::from_utf8(&two).unwrap(), expected);
        }
        assert!(stream.seek(SeekFrom::Current(-99)).is_err());
        assert_eq!(stream.seek(SeekFrom::End(5)).unwrap(), 15);
        assert_eq!(stream.read(&mut two).unwrap(), 0);
    }
}

#[test]
fn blocks_written_one_by_one_are_appended_in_batches() {
    let core = Hypercore::in_memory().unwrap();
    let mut stream = core.write_stream();
    assert_eq!(stream.flush().unwrap(), None);
    for i in 0..3000u32 {
        stream.write(i.to_le_bytes()).unwrap();
    }
    let before = core.len();
    assert!(before > 0 && before < 3000);
    assert_eq!(stream.flush().unwrap().unwrap().length, 3000);
    stream.write("last").unwrap();
    drop(stream);
    assert_eq!(core.len(), 3001);
    assert!((0..3000u32).all(|i| core.get(u64::from(i)).unwrap() == i.to_le_bytes()));
}

#[test]
fn a_block_too_large_for_a_stream_does_not_take_the_others_with_it() {
    let core = Hypercore::in_memory().unwrap();
    let mut stream = core.write_stream();
    stream.write("one").unwrap();
    assert_eq!(kind(stream.write(vec![0; MAX_BLOCK_SIZE + 1])), ErrorKind::BadArgument);
    stream.write("two").unwrap();
    stream.flush().unwrap();
    assert_eq!((core.get(0).unwrap(), core.get(1).unwrap()), (b"one".to_vec(), b"two".to_vec()));
}

#[test]
fn cleared_blocks_are_gone_and_their_space_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::open(dir.path()).unwrap();
    let block = |i: u64| vec![i as u8 + 1; 8192];
    core.append_batch((0..64).map(block)).unwrap();
    core.flush().unwrap();
    let before = core.info(InfoOptions::new().storage(true)).unwrap().storage.unwrap().blocks;
    let cleared = core.clear_with_diff(8..40).unwrap();
    let after = core.info(InfoOptions::new().storage(true)).unwrap().storage.unwrap().blocks;
    assert_eq!(before - after, cleared.blocks);
    assert!(cleared.blocks >= 31 * 8192, "{cleared:?}");
    assert_eq!(core.clear_with_diff(8..40).unwrap().blocks, 0);
    assert_eq!((core.len(), core.contiguous_length().unwrap()), (64, 8));
    let check = |core: &Hypercore| {
        for i in 0..64 {
            let held = !(8..40).contains(&i);
            assert_eq!(core.has(i).unwrap(), held);
            let expected = held.then(|| block(i));
            assert_eq!(core.get_with(i, GetOptions::new().wait(false)).unwrap(), expected, "block {i}");
        }
        assert!(!core.has_range(0..64).unwrap() && core.has_range(40..64).unwrap());
        assert!(core.verify(Repair::No).unwrap().faults.is_empty());
    };
    check(&core);
    core.close().unwrap();
    check(&Hypercore::open(dir.path()).unwrap());
}

/// A clear that is only in the log of changes must not be taken, at the next opening, for blocks that a power cut took.
#[test]
fn blocks_appended_and_cleared_before_a_flush_leave_the_rest() {
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
        assert!(core.verify(Repair::No).unwrap().faults.is_empty());
    }
}

#[test]
fn a_log_is_cut_and_grows_anew() {
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
    assert!(core.verify(Repair::No).unwrap().faults.is_empty());
}

#[test]
fn a_cut_tells_its_length_and_fork_even_when_nothing_is_cut() {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "b"]).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let _subscription = core.on_truncate(move |length, fork| sender.send((length, fork)).unwrap());
    core.truncate(1).unwrap();
    core.truncate(1).unwrap();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [(1, 1), (1, 2)]);
}

#[test]
fn purging_removes_the_core_and_nothing_else() {
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
fn the_core_closes_with_its_last_session() {
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
    assert_eq!(kind(core.verify(Repair::No)), ErrorKind::Closed);
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
fn a_closed_session_tells_nothing_and_changes_nothing() {
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
fn a_snapshot_shows_what_was() {
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
        // It clears nothing that begins behind what it shows.
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
fn a_readers_snapshot_moves_with_its_update() {
    let core = Hypercore::in_memory().unwrap();
    let reader = core.session(SessionOptions::new().writable(false)).unwrap();
    let snapshot = reader.snapshot().unwrap();
    core.append("a").unwrap();
    assert_eq!(snapshot.len(), 0);
    assert!(snapshot.update().unwrap());
    assert_eq!(snapshot.len(), 1);
}

#[test]
fn info_tells_what_is_and_what_it_costs() {
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
fn user_data_is_kept_replaced_and_deleted() {
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
fn encrypted_blocks_are_read_with_their_key_alone() {
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
        assert_ne!(other.get(0).unwrap(), b"secret");
        core.close().unwrap();
        drop(other);
        let core = open(None);
        assert_eq!((core.padding(), core.byte_length()), (0, 16 + 32));
        assert_eq!(core.get(0).unwrap(), raw);
        core.close().unwrap();
        let core = open(Some([3; 32]));
        assert_eq!(core.get(2).unwrap(), b"words");
        assert!(core.verify(Repair::No).unwrap().faults.is_empty());
    }
}

#[test]
fn values_instead_of_bytes() {
    struct Number;
    impl Encoding for Number {
        type Input = u32;
        type Output = u32;
        fn encode(&self, value: &u32) -> Result<Vec<u8>> {
            match value {
                13 => Err(Error::new(ErrorKind::Encoding, "not that one")),
                _ => Ok(value.to_be_bytes().to_vec()),
            }
        }
        fn decode(&self, block: Vec<u8>) -> Result<u32> {
            let bytes = block.try_into().map_err(|_| Error::new(ErrorKind::Decoding, "four bytes make a number"))?;
            Ok(u32::from_be_bytes(bytes))
        }
    }
    let core = Hypercore::in_memory().unwrap();
    let numbers = core.encoded(Number);
    numbers.append(&7).unwrap();
    numbers.append_batch([&8, &9]).unwrap();
    assert_eq!(kind(numbers.append_batch([&1, &13])), ErrorKind::Encoding);
    assert_eq!(numbers.core().len(), 3);
    assert_eq!(numbers.get(2).unwrap(), 9);
    let all: Vec<u32> = numbers.read_stream(ReadOptions::new()).unwrap().map(|n| n.unwrap()).collect();
    assert_eq!(all, [7, 8, 9]);
    assert_eq!(numbers.get_with(99, GetOptions::new().wait(false)).unwrap(), None);
    core.append("five!").unwrap();
    assert_eq!(kind(numbers.get(3)), ErrorKind::Decoding);

    let text = core.encoded(Utf8);
    text.append("grüezi").unwrap();
    assert_eq!(text.get(4).unwrap(), "grüezi");
    core.append([0xff]).unwrap();
    assert_eq!(kind(text.get(5)), ErrorKind::Decoding);
    let plain = core.encoded(Binary);
    plain.append(&b"raw"[..]).unwrap();
    assert_eq!(plain.clone().get(6).unwrap(), b"raw");

    let joined = core.encoded(Utf8).encode_batch(|words| Ok(vec![words.concat().into_bytes()]));
    let appended = joined.append_batch(["one", "block"]).unwrap();
    assert_eq!((appended.length, joined.get(7).unwrap()), (8, "oneblock".to_owned()));
    joined.clone().append_batch(["as", "above"]).unwrap();
    assert_eq!(joined.get(8).unwrap(), "asabove");

    let mut stream = numbers.write_stream();
    stream.write(&1).unwrap();
    assert_eq!(kind(stream.write(&13)), ErrorKind::Encoding);
    stream.write(&2).unwrap();
    assert_eq!(stream.flush().unwrap().unwrap().length, 11);
    stream.write(&3).unwrap();
    drop(stream);
    assert_eq!([9, 10, 11].map(|index| numbers.get(index).unwrap()), [1, 2, 3]);
}

#[cfg(feature = "json")]
#[test]
fn values_as_json() {
    let core = Hypercore::in_memory().unwrap();
    let json = core.encoded(hypercore::Json::<serde_json::Value>::new());
    let value = serde_json::json!({ "a": [1, null, "ü"] });
    json.append(&value).unwrap();
    assert_eq!(json.get(0).unwrap(), value);
    core.append("{").unwrap();
    assert_eq!(kind(json.get(1)), ErrorKind::Decoding);
}

#[test]
fn storage_of_ones_own() {
    let medium = Watched::new();
    let core = Hypercore::options().durability(Durability::Always).open_in(medium.clone()).unwrap();
    core.append_batch(["a", "b"]).unwrap();
    assert!(medium.syncs() > 0);
    core.clear(0..1).unwrap();
    core.close().unwrap();
    let core = Hypercore::options().open_in(medium.clone()).unwrap();
    assert_eq!((core.len(), core.get(1).unwrap()), (2, b"b".to_vec()));
    core.purge().unwrap();
    assert!(Hypercore::options().create_if_missing(false).open_in(medium).is_err());
}

#[test]
fn an_idle_core_without_durability_never_syncs() {
    let medium = Watched::new();
    let core = Hypercore::options().durability(Durability::None).open_in(medium.clone()).unwrap();
    core.append_batch(["a", "b"]).unwrap();
    core.truncate(1).unwrap();
    core.flush().unwrap();
    core.clear(0..1).unwrap();
    core.close().unwrap();
    assert_eq!(medium.syncs(), 0);
}

#[test]
fn unless_told_otherwise_a_flush_is_synced_and_an_append_is_not() {
    assert_eq!(Durability::default(), Durability::Flush);
    let medium = Watched::new();
    let core = Hypercore::options().open_in(medium.clone()).unwrap();
    let before = medium.syncs();
    core.append_batch(["a", "b"]).unwrap();
    assert_eq!(medium.syncs(), before);
    core.flush().unwrap();
    assert!(medium.syncs() > before);
}

#[test]
fn a_core_that_is_not_sparse_counts_what_is_here_without_a_gap() {
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
fn downloads_of_what_is_here_are_done() {
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
    // Where nobody is, nothing more is available.
    core.download(Download::range(0..9).if_available(true)).unwrap().wait().unwrap();
    let following = core.download(Download::all()).unwrap();
    assert_eq!(kind(following.wait_timeout(std::time::Duration::from_millis(1))), ErrorKind::Timeout);
    core.close().unwrap();
    assert_eq!(kind(following.wait()), ErrorKind::Closed);
}

#[test]
fn a_full_path_says_which_file_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("oplog")).unwrap();
    let error = Hypercore::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.path(), Some(&*dir.path().join("oplog")));
    let file = dir.path().join("file");
    std::fs::File::create(&file).unwrap().write_all(b"x").unwrap();
    assert_eq!(Hypercore::open(&file).unwrap_err().kind(), ErrorKind::Io);
    assert!(Hypercore::options().open_in(Disk::new(file)).is_err());
}

#[cfg(unix)]
#[test]
fn files_with_a_secret_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().user_data("big", vec![1; 9000]).open(dir.path()).unwrap();
    core.flush().unwrap();
    for name in ["oplog", "header"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn keys_are_of_their_manifests() {
    let manifest = Manifest::single(pair(1).public_key());
    assert_eq!(Hypercore::key_of(&manifest), manifest.key());
    assert_ne!(Hypercore::key_of(&manifest), Key::new(*pair(1).public_key().as_bytes()));
}

#[test]
fn blocks_are_found_after_a_cut_moved_them() {
    let core = Hypercore::options().open_in(Memory::new()).unwrap();
    let all = |expected: &dyn Fn(u64) -> Vec<u8>| {
        // So often that where they lie is remembered.
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
