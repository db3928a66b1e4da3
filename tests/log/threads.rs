//! Many threads on one log: reads return right blocks, batches stay contiguous, and no call waits for a
//! sync without need.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use hypercore::{
    ByteOptions, Durability, ErrorKind, GetOptions, Hypercore, InfoOptions, Memory, ReadOptions, SessionOptions,
};

use crate::common::machine::tries;
use crate::common::{Call, CallKind, Hooked, Random, watchdog};

/// A block that contains its index and its epoch.
fn block(index: u64, epoch: u64) -> Vec<u8> {
    let mut block = [index.to_le_bytes(), epoch.to_le_bytes()].concat();
    block.resize(16 + (index * 7 % 90) as usize, index as u8);
    block
}

/// The epoch of a block, which has to be the one at `index`.
#[track_caller]
fn epoch_of(index: u64, bytes: &[u8]) -> u64 {
    let epoch = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    assert_eq!(bytes, block(index, epoch), "block {index} has other data");
    epoch
}

#[test]
fn reads_during_appends_return_right_blocks() {
    let _watchdog = watchdog();
    for disk in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = Hypercore::options().map_limit(256 << 10);
        let core = if disk { options.open(dir.path()) } else { options.open_in(Memory::new()) }.unwrap();
        core.append(block(0, 0)).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|s| {
            for seed in 0..4 {
                let (core, done) = (&core, &done);
                s.spawn(move || {
                    let mut random = Random::new(seed);
                    while !done.load(Ordering::SeqCst) {
                        let length = core.len();
                        let index = random.below(length);
                        assert!(core.has(index).unwrap());
                        epoch_of(index, &core.get(index).unwrap());
                        assert!(core.contiguous_length().unwrap() >= length);
                        assert!(core.byte_length() >= length * 16);
                        let snapshot = core.snapshot().unwrap();
                        epoch_of(snapshot.len() - 1, &snapshot.get(snapshot.len() - 1).unwrap());
                        core.tree_hash_at(length).unwrap();
                    }
                });
            }
            let mut next = 1;
            for i in 0..300 {
                let count = i % 5;
                core.append_batch((next..next + count).map(|n| block(n, i))).unwrap();
                next += count;
                if i % 16 == 0 {
                    core.flush().unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(core.verify().unwrap().faults.is_empty());
    }
}

#[test]
fn reads_during_sync_do_not_wait() {
    let _watchdog = watchdog();
    for durability in [Durability::Flush, Durability::Always] {
        let storage = Hooked::memory();
        let gate = storage.gate(|_, call| matches!(call, Call::Sync));
        let core = Hypercore::options().durability(durability).open_in(storage.clone()).unwrap();
        core.append_batch((0..20).map(|i| block(i, 0))).unwrap();
        core.flush().unwrap();
        core.append_batch((20..40).map(|i| block(i, 0))).unwrap();
        core.clear(30..32).unwrap();
        gate.shut();
        thread::scope(|s| {
            let writing = s.spawn(|| {
                core.append(block(40, 0)).unwrap();
                core.flush().unwrap();
            });
            gate.wait_for(1);
            assert!(!writing.is_finished());
            for index in (0..40).filter(|i| !(30..32).contains(i)) {
                epoch_of(index, &core.get(index).unwrap());
                assert!(core.has(index).unwrap());
            }
            assert_eq!(core.get_with(30, GetOptions::new().wait(false)).unwrap(), None);
            assert!(core.len() >= 40 && core.byte_length() > 0 && core.contiguous_length().unwrap() == 30);
            assert_eq!(core.seek(3).unwrap(), (0, 3));
            assert_eq!(core.read_stream(ReadOptions::new().end(30)).unwrap().count(), 30);
            let mut bytes = [0; 100];
            std::io::Read::read_exact(&mut core.byte_stream(ByteOptions::new()).unwrap(), &mut bytes).unwrap();
            core.info(InfoOptions::new().storage(true)).unwrap();
            core.tree_hash().unwrap();
            let session = core.session(SessionOptions::new()).unwrap();
            epoch_of(5, &session.snapshot().unwrap().get(5).unwrap());
            session.close().unwrap();
            assert!(!writing.is_finished());
            gate.open();
        });
        assert_eq!(core.len(), 41);
    }
}

/// A call that reads a file of a core.
type Look = fn(&Hypercore);

#[test]
fn read_waiting_for_disk_blocks_no_other_call() {
    let _watchdog = watchdog();
    // The tree is complete and the page of the bitfield full, so appends read neither file.
    const COLD: u64 = 1 << 15;
    let get: Look = |core| _ = epoch_of(5, &core.get(5).unwrap());
    let of_tree: [Look; 3] = [
        get,
        |core| assert_eq!(core.seek(3).unwrap(), (0, 3)),
        |core| {
            core.tree_hash_at(3).unwrap();
        },
    ];
    let of_bitfield: [Look; 3] = [
        get,
        |core| assert!(core.has_range(0..9).unwrap()),
        |core| {
            assert_eq!(core.held_from(7).unwrap().unwrap().start, 7);
        },
    ];
    for (name, looks) in [("tree", of_tree), ("bitfield", of_bitfield)] {
        let storage = Hooked::memory();
        let core = Hypercore::options().open_in(storage.clone()).unwrap();
        core.append_batch((0..COLD).map(|i| block(i, 0))).unwrap();
        core.flush().unwrap();
        core.append_batch((COLD..COLD + 3).map(|i| block(i, 0))).unwrap();
        let gate = storage.gate(move |file, call| file == name && call.kind() == CallKind::Read);
        gate.shut();
        thread::scope(|s| {
            let held_up = looks.map(|look| {
                s.spawn({
                    let core = &core;
                    move || look(core)
                })
            });
            gate.wait_for(held_up.len());
            let appended = s.spawn(|| core.append(block(COLD + 3, 0)).unwrap());
            assert_eq!(appended.join().unwrap().length, COLD + 4);
            assert_eq!((core.len(), core.contiguous_length().unwrap()), (COLD + 4, COLD + 4));
            for index in COLD..COLD + 4 {
                assert!(core.has(index).unwrap());
                epoch_of(index, &core.get(index).unwrap());
            }
            assert_eq!(core.snapshot().unwrap().len(), COLD + 4);
            assert!(held_up.iter().all(|look| !look.is_finished()));
            gate.open();
        });
    }
}

#[test]
fn reads_during_flushes_truncates_and_releases_return_right_blocks() {
    let _watchdog = watchdog();
    const KEPT: u64 = 100;
    const EPOCHS: u64 = tries(120);
    for disk in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = Hypercore::options().map_limit(256 << 10).durability(Durability::None);
        let core = if disk { options.open(dir.path()) } else { options.open_in(Memory::new()) }.unwrap();
        core.append_batch((0..KEPT).map(|i| block(i, 0))).unwrap();
        core.clear(50..60).unwrap();
        core.flush().unwrap();
        let kept_bytes = core.byte_length();
        let hash = core.tree_hash().unwrap();
        let (oldest, newest) = (AtomicU64::new(0), AtomicU64::new(0));
        let done = AtomicBool::new(false);
        thread::scope(|s| {
            for seed in 0..3 {
                let (core, hash, oldest, newest, done) = (&core, &hash, &oldest, &newest, &done);
                s.spawn(move || {
                    let mut random = Random::new(seed);
                    let at: Vec<u64> = (0..KEPT)
                        .scan(0, |at, i| Some(std::mem::replace(at, *at + block(i, 0).len() as u64)))
                        .collect();
                    while !done.load(Ordering::SeqCst) {
                        let index = random.below(KEPT + 40);
                        let low = oldest.load(Ordering::SeqCst);
                        let got = core.get_with(index, GetOptions::new().wait(false)).unwrap();
                        let high = newest.load(Ordering::SeqCst);
                        let is_gone = (50..60).contains(&index);
                        assert!(!is_gone || got.is_none());
                        if let Some(bytes) = got {
                            let allowed = if index < KEPT { 0..=0 } else { low + 1..=high };
                            assert!(allowed.contains(&epoch_of(index, &bytes)), "block {index} of a wrong epoch");
                        } else {
                            assert!(index >= KEPT || is_gone, "block {index} is missing");
                        }
                        let kept = random.below(KEPT);
                        assert_eq!(core.seek(at[kept as usize] + 1).unwrap(), (kept, 1));
                        assert_eq!(core.tree_hash_at(KEPT).unwrap(), *hash);
                        assert_eq!(core.contiguous_length().unwrap(), 50);
                        assert_eq!(core.held_from(3).unwrap(), Some(3..50));
                        assert_eq!(core.held_from(52).unwrap().unwrap().start, 60);
                        assert!(core.has_range(60..KEPT).unwrap() && !core.has_range(55..61).unwrap());
                        let snapshot = core.snapshot().unwrap();
                        assert!(snapshot.len() >= KEPT && snapshot.byte_length() >= kept_bytes);
                    }
                });
            }
            let mut random = Random::new(77);
            for epoch in 1..EPOCHS {
                newest.store(epoch, Ordering::SeqCst);
                let mut next = KEPT;
                for _ in 0..4 {
                    let count = random.below(10);
                    core.append_batch((next..next + count).map(|i| block(i, epoch))).unwrap();
                    next += count;
                    match random.below(4) {
                        0 => core.flush().unwrap(),
                        1 => core.release_files().unwrap(),
                        2 if next > KEPT => _ = core.clear(KEPT..KEPT + random.below(next - KEPT)).unwrap(),
                        _ => {}
                    }
                }
                core.truncate(KEPT).unwrap();
                oldest.store(epoch, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(core.verify().unwrap().faults.is_empty());
    }
}

#[test]
fn concurrent_batches_are_each_contiguous() {
    let _watchdog = watchdog();
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        for encrypted in [false, true] {
            let options = Hypercore::options().durability(durability);
            let options = if encrypted { options.encryption_key([2; 32]) } else { options };
            let memory = Memory::new();
            let core = options.clone().open_in(memory.clone()).unwrap();
            let start = Barrier::new(8);
            thread::scope(|s| {
                for who in 0..8u8 {
                    let (core, start) = (&core, &start);
                    s.spawn(move || {
                        start.wait();
                        for round in 0..25u8 {
                            let count = u64::from(round % 4);
                            let blocks: Vec<[u8; 3]> = (0..count).map(|n| [who, round, n as u8]).collect();
                            let appended = core.append_batch(&blocks).unwrap();
                            for (n, block) in blocks.iter().enumerate() {
                                assert_eq!(core.get(appended.length - count + n as u64).unwrap(), block);
                            }
                            assert_eq!(appended.byte_length, appended.length * 3);
                        }
                    });
                }
            });
            let length = 8 * (0..25).map(|round| round % 4).sum::<u64>();
            assert_eq!(core.len(), length);
            assert!(core.verify().unwrap().faults.is_empty());
            core.close().unwrap();
            let core = options.open_in(memory).unwrap();
            assert_eq!(core.len(), length);
        }
    }
}

/// A block that counts its conversion to bytes, right before its append, and unparks a thread.
struct Telling<'a>(&'a AtomicUsize, &'a thread::Thread);

impl AsRef<[u8]> for Telling<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
        b"block"
    }
}

#[test]
fn concurrent_appends_share_syncs() {
    let _watchdog = watchdog();
    const ROUNDS: u64 = 20;
    const THREADS: usize = 8;
    let storage = Hooked::memory();
    let gate = storage.gate(|_, call| matches!(call, Call::Sync));
    let core = Hypercore::options().durability(Durability::Always).open_in(storage.clone()).unwrap();
    core.append("first").unwrap();
    let before = storage.syncs();
    core.append("alone").unwrap();
    let alone = storage.syncs() - before;
    assert!(alone >= 2);
    let before = storage.syncs();
    for _ in 0..ROUNDS {
        gate.shut();
        let (coming, here) = (AtomicUsize::new(0), thread::current());
        thread::scope(|s| {
            s.spawn(|| core.append("ahead").unwrap());
            gate.wait_for(1);
            let others: Vec<_> = (1..THREADS)
                .map(|_| {
                    let (core, coming, here) = (&core, &coming, &here);
                    s.spawn(move || core.append(Telling(coming, here)).unwrap())
                })
                .collect();
            while coming.load(Ordering::SeqCst) < THREADS - 1 {
                thread::park();
            }
            gate.open();
            others.into_iter().for_each(|other| _ = other.join().unwrap());
        });
    }
    let shared = storage.syncs() - before;
    let apart = alone * THREADS as u64 * ROUNDS;
    // Two commits per round are enough; some threads come too late for the second.
    assert!(shared * 2 < apart, "{shared} syncs, {apart} if each append had its own");
    assert_eq!(core.len(), 2 + ROUNDS * THREADS as u64);
}

#[test]
fn get_during_truncate_and_clear_never_returns_other_data() {
    let _watchdog = watchdog();
    const KEPT: u64 = 10;
    const EPOCHS: u64 = tries(150);
    for disk in [false, true] {
        for encrypted in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let options = Hypercore::options().map_limit(256 << 10).durability(Durability::None);
            let options = if encrypted { options.encryption_key([2; 32]) } else { options };
            let core = if disk { options.open(dir.path()) } else { options.open_in(Memory::new()) }.unwrap();
            core.append_batch((0..KEPT).map(|i| block(i, 0))).unwrap();
            // The blocks past the kept ones are of these epochs.
            let (oldest, newest) = (AtomicU64::new(0), AtomicU64::new(0));
            let done = AtomicBool::new(false);
            thread::scope(|s| {
                for seed in 0..3 {
                    let (core, oldest, newest, done) = (&core, &oldest, &newest, &done);
                    s.spawn(move || {
                        let mut random = Random::new(seed);
                        let mut found = 0;
                        while !done.load(Ordering::SeqCst) || found == 0 {
                            let index = random.below(KEPT + 30);
                            let low = oldest.load(Ordering::SeqCst);
                            let snapshot = core.snapshot().unwrap();
                            let from_snapshot = snapshot.get_with(index, GetOptions::new().wait(false));
                            let got = core.get_with(index, GetOptions::new().wait(false)).unwrap();
                            let high = newest.load(Ordering::SeqCst);
                            let allowed = if index < KEPT { 0..=0 } else { low..=high };
                            match from_snapshot {
                                Ok(Some(bytes)) => assert!(allowed.contains(&epoch_of(index, &bytes))),
                                Ok(None) => {}
                                Err(error) => assert_eq!(error.kind(), ErrorKind::SnapshotNotAvailable),
                            }
                            if let Some(bytes) = got {
                                found += 1;
                                assert!(allowed.contains(&epoch_of(index, &bytes)), "block {index} of a wrong epoch");
                            }
                            assert!(index >= KEPT || core.has(index).unwrap() || index == 3);
                        }
                    });
                }
                for epoch in 1..EPOCHS {
                    core.truncate(KEPT).unwrap();
                    oldest.store(epoch, Ordering::SeqCst);
                    newest.store(epoch, Ordering::SeqCst);
                    core.append_batch((KEPT..KEPT + 20).map(|i| block(i, epoch))).unwrap();
                    core.clear(KEPT + 2..KEPT + 9).unwrap();
                    core.append_batch((KEPT + 20..KEPT + 25).map(|i| block(i, epoch))).unwrap();
                    if epoch == EPOCHS / 2 {
                        core.clear(3..4).unwrap();
                    }
                }
                done.store(true, Ordering::SeqCst);
            });
            assert!(core.verify().unwrap().faults.is_empty());
        }
    }
}

type Work<'a> = &'a (dyn Fn(&Hypercore, u64) -> hypercore::Result<()> + Sync);

#[test]
fn close_during_any_call_ends_it() {
    let _watchdog = watchdog();
    for round in 0..tries(30) {
        let memory = Memory::new();
        let core = Hypercore::options().open_in(memory.clone()).unwrap();
        core.append_batch((0..10).map(|i| block(i, 0))).unwrap();
        let acknowledged = AtomicU64::new(10);
        let (tell, appended) = mpsc::channel();
        let busy = Barrier::new(9);
        let run = |work: Work| {
            busy.wait();
            for n in 0.. {
                if let Err(error) = work(&core, n) {
                    assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
                    return;
                }
            }
        };
        let append = |core: &Hypercore, n| {
            let appended = core.append(block(n, 1))?;
            acknowledged.fetch_max(appended.length, Ordering::SeqCst);
            let _ = tell.send(());
            Ok(())
        };
        let works: [Work; 8] = [
            &append,
            &|core, n| core.append_batch([block(n, 2), block(n, 2)]).map(|_| ()),
            &|core, n| core.get(n % 10).map(|bytes| _ = epoch_of(n % 10, &bytes)),
            &|core, n| core.get(1_000_000 + n).map(drop),
            &|core, _| core.read_stream(ReadOptions::new().start(9).live(true))?.try_for_each(|b| b.map(drop)),
            &|core, _| core.snapshot()?.get(4).map(drop),
            &|core, n| core.set_user_data("n", n.to_string()),
            &|core, _| core.verify().map(|audit| assert!(audit.faults.is_empty())),
        ];
        thread::scope(|s| {
            for work in works {
                s.spawn(|| run(work));
            }
            busy.wait();
            // Each finished append sends a message.
            while acknowledged.load(Ordering::SeqCst) < 10 + round {
                appended.recv().unwrap();
            }
            core.close().unwrap();
        });
        let core = Hypercore::options().open_in(memory).unwrap();
        assert!(core.len() >= acknowledged.load(Ordering::SeqCst));
        assert!(core.verify().unwrap().faults.is_empty());
    }
}
