//! What is waited for: appends of several threads share their syncs, and nobody sees what is not safe yet where that is promised.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use hypercore::{Durability, Hypercore};

use crate::powercut::{Image, Recorder};
use crate::support::pair;

#[test]
fn an_append_that_is_waited_for_syncs_its_blocks_and_then_its_entry() {
    let disk = Recorder::new(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).durability(Durability::Always).open_in(disk.clone()).unwrap();
    core.append("the files are made").unwrap();
    disk.on_sync(|| ());
    core.append("waited for").unwrap();
    assert_eq!(disk.syncs(), 2);
}

#[test]
fn what_readers_see_survives_where_every_change_is_waited_for() {
    let disk = Recorder::new(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).durability(Durability::Always).open_in(disk.clone()).unwrap();
    core.append("first").unwrap();
    let (reader, seen) = (core.clone(), Arc::new(Mutex::new(Vec::new())));
    let lengths = seen.clone();
    disk.on_sync(move || lengths.lock().unwrap().push(reader.len()));
    core.append("second").unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 1], "neither while `data` is waited for nor while `oplog` is");
    assert_eq!(core.len(), 2);
    // Whom the disk tells is a handle, too, which keeps the core open.
    disk.on_sync(|| ());
}

/// Run it with `TMPDIR` on the file system that is asked about.
#[test]
#[ignore = "a measurement: it depends on the disk"]
fn eight_threads_append_at_four_times_the_rate_of_one() {
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
