//! Appends that share a commit: if the leader fails, panics or finds the core closed, each follower gets an answer;
//! and callbacks may append.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use hypercore::{Audit, Durability, ErrorKind, Hypercore, Memory, OpenOptions, Result};

use crate::common::powercut::{Fault, Image, Kind, Recorder};
use crate::common::{pair, watchdog};

const THREADS: u64 = 8;
const EIO: i32 = 5;

fn opening(durability: Durability) -> OpenOptions {
    Hypercore::options().durability(durability).key_pair(pair(1))
}

/// Lets the first sync of `disk` last until all threads have begun to append, and calls `then` with the
/// number of each sync.
fn one_by_one(disk: &Recorder, then: impl Fn(u64) + Send + Sync + 'static) -> Arc<(Mutex<u64>, Condvar)> {
    let begun = Arc::new((Mutex::new(0), Condvar::new()));
    let (seen, syncs) = (begun.clone(), AtomicU64::new(0));
    disk.on_sync(move || {
        let number = syncs.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            drop(seen.1.wait_while(seen.0.lock().unwrap(), |begun| *begun < THREADS).unwrap());
        }
        then(number);
    });
    begun
}

/// Lets [`THREADS`] threads append a block each and returns their results; None for a thread that panicked.
fn all_append(core: &Hypercore, begun: &(Mutex<u64>, Condvar)) -> Vec<Option<Result<u64>>> {
    let append = |thread: u64| {
        *begun.0.lock().unwrap() += 1;
        begun.1.notify_all();
        catch_unwind(AssertUnwindSafe(|| core.append(format!("of {thread}")).map(|appended| appended.length))).ok()
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || append(thread))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Opens the core from the bytes on the disk and checks that all acknowledged appends are there.
fn recovers(disk: &Recorder, acknowledged: u64, at_most: u64) {
    let core = opening(Durability::Always).create_if_missing(false).open_in(Recorder::new(disk.image())).unwrap();
    assert!((acknowledged..=at_most).contains(&core.len()), "{} of {acknowledged}", core.len());
    assert_eq!(core.verify().unwrap().faults, []);
    core.append("and on").unwrap();
}

#[test]
fn leader_that_panics_passes_error_to_followers() {
    let _watchdog = watchdog();
    // During the sync of the blocks, which no entry names yet, and during the sync of the entry.
    for fatal in [2, 3] {
        let disk = Recorder::new(Image::new());
        let core = opening(Durability::Always).open_in(disk.clone()).unwrap();
        core.append("the files are made").unwrap();
        let begun = one_by_one(&disk, move |sync| assert!(sync != fatal, "the disk is out of order"));
        let outcomes = all_append(&core, &begun);
        let panicked = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        let good: Vec<u64> = outcomes.iter().flatten().flatten().copied().collect();
        assert_eq!((panicked, &good[..]), (1, &[2][..]), "the first alone was done before");
        for outcome in outcomes.iter().flatten() {
            let Err(error) = outcome else { continue };
            assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
            assert!(error.to_string().contains("panicked"), "{error}");
        }
        // Half of a change may have been written, so the core writes no more.
        assert_eq!(core.append("more").unwrap_err().kind(), ErrorKind::Failed);
        assert_eq!((core.len(), core.get(1).unwrap().len()), (2, 4));
        recovers(&disk, 2, 1 + THREADS);
        core.close().unwrap();
        recovers(&disk, 2, 1 + THREADS);
    }
}

#[test]
fn leader_that_fails_passes_error_to_followers() {
    let _watchdog = watchdog();
    for after in [2, 3] {
        let disk = Recorder::new(Image::new());
        let core = opening(Durability::Always).open_in(disk.clone()).unwrap();
        core.append("the files are made").unwrap();
        let begun = one_by_one(&disk, |_| ());
        disk.fail(Some(Fault { kind: Kind::Sync, after, errno: EIO, stays: false }));
        let outcomes: Vec<_> = all_append(&core, &begun).into_iter().map(Option::unwrap).collect();
        assert_eq!(outcomes.iter().flatten().collect::<Vec<_>>(), [&2]);
        let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let (told, late): (Vec<_>, Vec<_>) = failed.partition(|error| error.kind() == ErrorKind::Io);
        assert!(!told.is_empty());
        assert!(
            told.iter().all(|error| error.io_error().unwrap().raw_os_error() == Some(EIO) && error.path().is_some())
        );
        assert!(late.iter().all(|error| error.kind() == ErrorKind::Failed), "{late:?}");
        recovers(&disk, 2, 1 + THREADS);
    }
}

#[test]
fn close_and_purge_answer_all_waiting_appends() {
    let _watchdog = watchdog();
    for purge in [false, true] {
        let disk = Recorder::new(Image::new());
        let core = opening(Durability::Always).open_in(disk.clone()).unwrap();
        core.append("the files are made").unwrap();
        let begun = one_by_one(&disk, |_| ());
        let (outcomes, end) = thread::scope(|scope| {
            let appending = scope.spawn(|| all_append(&core, &begun));
            let guard = begun.1.wait_while(begun.0.lock().unwrap(), |begun| *begun < THREADS / 2).unwrap();
            drop(guard);
            let end = if purge { core.purge() } else { core.close() };
            (appending.join().unwrap(), end)
        });
        end.unwrap();
        let outcomes: Vec<_> = outcomes.into_iter().map(Option::unwrap).collect();
        let closed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        assert!(closed.clone().all(|error| error.kind() == ErrorKind::Closed), "{:?}", closed.collect::<Vec<_>>());
        let good = outcomes.iter().flatten().count() as u64;
        if purge {
            assert!(disk.image().is_empty(), "no file is left");
        } else {
            recovers(&disk, 1 + good, 1 + good);
        }
    }
}

#[test]
fn append_from_append_callback_succeeds() {
    let _watchdog = watchdog();
    for durability in [Durability::None, Durability::Always] {
        let core = opening(durability).open_in(Memory::new()).unwrap();
        let answering = core.clone();
        let answers = Arc::new(AtomicU64::new(0));
        let count = answers.clone();
        let subscription = core.on_append(move || {
            if count.fetch_add(1, Ordering::SeqCst) < 100 {
                answering.append("an answer").unwrap();
            }
        });
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..20).for_each(|_| assert!(core.append("asked").unwrap().length > 0)));
            }
        });
        drop(subscription);
        let asked = (0..core.len()).filter(|&index| core.get(index).unwrap() == b"asked").count() as u64;
        let answered = core.len() - asked;
        assert_eq!(asked, THREADS * 20);
        assert!((1..=100).contains(&answered), "{answered} answers");
        assert_eq!(core.verify().unwrap().faults, []);
        core.close().unwrap();
    }
}

#[test]
fn append_from_verify_progress_callback_succeeds() {
    let _watchdog = watchdog();
    type Check = fn(&Hypercore, &mut dyn FnMut(u64)) -> Result<Audit>;
    let checks: [Check; 2] =
        [|core, progress| core.verify_with_progress(progress), |core, progress| core.repair_with_progress(progress)];
    for check in checks {
        let core = opening(Durability::None).open_in(Memory::new()).unwrap();
        core.append_batch(vec![[7; 3]; 5000]).unwrap();
        let mut told = Vec::new();
        let audit = check(&core, &mut |blocks| {
            told.push(blocks);
            core.append("meanwhile").unwrap();
        });
        assert_eq!(audit.unwrap().faults, []);
        assert!(!told.is_empty() && told.is_sorted() && told.iter().all(|&blocks| blocks <= 5000), "{told:?}");
        assert_eq!(core.len(), 5000 + told.len() as u64);
        // A panic of the callback leaves the core usable.
        let panicked = catch_unwind(AssertUnwindSafe(|| check(&core, &mut |_| panic!("not so fast"))));
        assert!(panicked.is_err());
        core.append("as if nothing was").unwrap();
    }
}
