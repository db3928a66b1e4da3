//! Which calls wait for a sync: with `Always`, appends of several threads share syncs and no reader sees a block
//! before its sync; with `Flush`, peers hear of an append only after a sync.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use hypercore::net::{Role, pipe};
use hypercore::{Durability, Hypercore};

use crate::common::powercut::{self, Image, Recorder};
use crate::common::{Call, Hooked, pair, watchdog};

const THREADS: u64 = 8;

/// How many threads have begun to append.
#[derive(Default)]
struct Threads {
    /// How many appends began, and how many threads are not done.
    counts: Mutex<(u64, u64)>,
    changed: Condvar,
}

impl Threads {
    fn change(&self, f: impl FnOnce(&mut (u64, u64))) {
        f(&mut self.counts.lock().unwrap());
        self.changed.notify_all();
    }

    /// Blocks until each thread that is not done has begun an append that is not among the first `committed`.
    fn wait_for_all(&self, committed: u64) {
        let counts = self.counts.lock().unwrap();
        drop(self.changed.wait_while(counts, |(begun, live)| *begun - committed < *live).unwrap());
    }
}

#[test]
fn append_with_always_syncs_data_then_oplog() {
    let disk = Recorder::recording(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).durability(Durability::Always).open_in(disk.clone()).unwrap();
    core.append("the files are made").unwrap();
    let before = disk.position();
    core.append("waited for").unwrap();
    let calls = disk.calls().into_iter().skip(before);
    let synced: Vec<String> =
        calls.filter_map(|call| if let powercut::Call::Sync(name) = call { Some(name) } else { None }).collect();
    assert_eq!(synced, ["data", "oplog"]);
}

#[test]
fn appends_of_eight_threads_share_syncs() {
    let _watchdog = watchdog();
    let disk = Recorder::new(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).durability(Durability::Always).open_in(disk.clone()).unwrap();
    core.append("the files are made").unwrap();
    let threads = Arc::new(Threads::default());
    threads.change(|counts| counts.1 = THREADS);
    // A disk so slow that during each sync all other threads begin an append.
    let (all, reader) = (threads.clone(), core.clone());
    disk.on_sync(move || all.wait_for_all(reader.len() - 1));
    const EACH: u64 = 60;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (core, threads) = (&core, &threads);
            scope.spawn(move || {
                for i in 0..EACH {
                    threads.change(|counts| counts.0 += 1);
                    core.append(format!("{thread} {i}")).unwrap();
                }
                threads.change(|counts| counts.1 -= 1);
            });
        }
    });
    assert_eq!(core.len(), 1 + THREADS * EACH);
    let (syncs, alone) = (disk.syncs(), 2 * THREADS * EACH);
    // A quarter or less is usual; on a busy machine a thread may pause for long between counting its append
    // and queueing it.
    assert!(syncs * 2 <= alone, "{syncs} syncs where one thread takes {alone}");
    // All acknowledged appends are on the disk.
    let core = Hypercore::options().create_if_missing(false).open_in(Recorder::new(disk.image())).unwrap();
    assert_eq!(core.len(), 1 + THREADS * EACH);
    assert_eq!(core.verify().unwrap().faults, []);
}

#[test]
fn append_with_always_is_visible_only_after_sync() {
    let disk = Recorder::new(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).durability(Durability::Always).open_in(disk.clone()).unwrap();
    core.append("first").unwrap();
    let (reader, seen) = (core.clone(), Arc::new(Mutex::new(Vec::new())));
    let lengths = seen.clone();
    disk.on_sync(move || lengths.lock().unwrap().push(reader.len()));
    core.append("second").unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 1], "neither while `data` is waited for nor while `oplog` is");
    assert_eq!(core.len(), 2);
    // The hook holds a handle, which would keep the core open.
    disk.on_sync(|| ());
}

#[test]
fn append_without_peers_syncs_nothing() {
    let disk = Recorder::new(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).open_in(disk.clone()).unwrap();
    core.append("the files are made").unwrap();
    disk.on_sync(|| ());
    for i in 0..100 {
        core.append(format!("{i}")).unwrap();
    }
    core.set_user_data("a", "b").unwrap();
    assert_eq!(disk.syncs(), 0);
}

#[test]
fn append_is_announced_to_peer_after_sync() {
    let _watchdog = watchdog();
    let storage = Hooked::memory();
    let gate = storage.gate(|_, call| matches!(call, Call::Sync));
    let core = Hypercore::options().key_pair(pair(1)).open_in(storage.clone()).unwrap();
    core.append("first").unwrap();
    let reader = Hypercore::options().key(core.key()).open_in(hypercore::Memory::new()).unwrap();
    let (heard, lengths) = std::sync::mpsc::channel();
    let copy = reader.clone();
    let _subscription = reader.on_append(move || heard.send(copy.len()).unwrap());
    let (here, there) = pipe();
    let _ours = core.replicate(here, Role::Responder).unwrap();
    let _theirs = reader.replicate(there, Role::Initiator).unwrap();
    assert_eq!(lengths.recv().unwrap(), 1);
    gate.shut();
    // The append waits for no sync, and local readers see it at once.
    assert_eq!(core.append("second").unwrap().length, 2);
    assert_eq!(core.get(1).unwrap(), b"second");
    gate.wait_for(1);
    assert_eq!((reader.len(), lengths.try_recv().ok()), (1, None));
    // Several appends share the next sync.
    for i in 0..50 {
        core.append(format!("{i}")).unwrap();
    }
    let syncs = storage.syncs();
    gate.open();
    while lengths.recv().unwrap() < 52 {}
    assert_eq!(reader.get(51).unwrap(), b"49");
    assert!(storage.syncs() - syncs <= 8, "{} syncs for 51 appends", storage.syncs() - syncs);
}

#[test]
fn clear_and_truncate_return_after_sync() {
    let disk = Recorder::new(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).open_in(disk.clone()).unwrap();
    core.append_batch(["a", "b", "c"]).unwrap();
    disk.on_sync(|| ());
    core.clear(0..1).unwrap();
    assert!(disk.syncs() >= 3, "blocks, the entries before, and the clear");
    disk.on_sync(|| ());
    core.clear(1..2).unwrap();
    assert_eq!(disk.syncs(), 1, "what came before is on the disk");
    disk.on_sync(|| ());
    core.truncate(2).unwrap();
    assert!(disk.syncs() > 0, "the truncate");
}

/// Run it with `TMPDIR` on the file system to be measured.
#[test]
#[ignore = "a measurement: it depends on the disk"]
fn append_on_eight_threads_is_four_times_as_fast() {
    let rate = |threads: u64| {
        let dir = tempfile::tempdir().unwrap();
        let core = Hypercore::options().durability(Durability::Always).open(dir.path()).unwrap();
        let each = 400 / threads;
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..each).for_each(|_| assert!(core.append([7; 100]).unwrap().length > 0)));
            }
        });
        (each * threads) as f64 / start.elapsed().as_secs_f64()
    };
    let (one, eight) = (rate(1), rate(8));
    eprintln!("appends a second: one thread {one:.0}, eight {eight:.0}, {:.1} times", eight / one);
    assert!(eight >= 4.0 * one);
}
