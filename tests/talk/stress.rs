//! Many threads on the same cores at once, driven by a seed and the scheduler: readers, appenders, truncation,
//! clearing, replication, callbacks that call back, sessions that are dropped and cores that are closed. No call
//! hangs, no read returns other data, and at the end the copies equal the writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, thread};

use hypercore::net::{Role, pipe};
use hypercore::{Durability, ErrorKind, GetOptions, Hypercore, Memory, Result, SessionOptions};

use crate::common::Random;
use crate::common::machine::SLOW;
use crate::cores::connect;
use crate::harness::parallel_test;

const COPIES: usize = 3;

/// A block whose number and length determine its content, so that a damaged one is detected.
fn block(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + (number * 31 % 400) as usize, number as u8 ^ 0x5a);
    bytes
}

#[track_caller]
fn is_whole(bytes: &[u8]) {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, block(number));
}

/// Fails on errors other than those that truncation and closing by other threads explain.
#[track_caller]
fn allowed<T>(result: Result<T>) -> Option<T> {
    const MAY_BE: [ErrorKind; 5] = [
        ErrorKind::Closed,
        ErrorKind::SnapshotNotAvailable,
        ErrorKind::OutOfBounds,
        ErrorKind::Timeout,
        ErrorKind::BlockNotAvailable,
    ];
    result.map_err(|e| assert!(MAY_BE.contains(&e.kind()), "{e:?}")).ok()
}

/// A copy that is closed now and then and reopened from its storage.
struct Copy {
    storage: Memory,
    core: Mutex<Hypercore>,
}

impl Copy {
    fn open(storage: &Memory, writer: &Hypercore) -> Hypercore {
        let options = Hypercore::options().key(writer.key()).timeout(Duration::from_secs(20));
        loop {
            // A callback that is still ending may hold the last clone, and with it the lock.
            match options.clone().open_in(storage.clone()) {
                Err(e) if e.kind() == ErrorKind::Locked => thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn now(&self) -> Hypercore {
        self.core.lock().unwrap().clone()
    }
}

/// Runs all threads, `steps` operations each, then compares the cores.
fn stress(seed: u64, steps: u64) {
    let storage = Memory::new();
    let durability = [Durability::None, Durability::Flush, Durability::Always][seed as usize % 3];
    let writer = Hypercore::options().durability(durability).open_in(storage.clone()).unwrap();
    writer.append_batch((0..20).map(block)).unwrap();
    let copies: Vec<Copy> = (0..COPIES)
        .map(|_| {
            let storage = Memory::new();
            let core = Mutex::new(Copy::open(&storage, &writer));
            Copy { storage, core }
        })
        .collect();
    let (numbers, answers, done) = (AtomicU64::new(1000), Arc::new(AtomicU64::new(0)), AtomicBool::new(false));
    let next = || numbers.fetch_add(1, Ordering::SeqCst);
    let random = |thread: u64| Random::new(seed * 100 + thread);

    let (called, answering) = (answers.clone(), writer.clone());
    let _answers = writer.on_append(move || {
        let number = called.fetch_add(1, Ordering::SeqCst);
        if number < 50 {
            answering.append(block(number)).unwrap();
        }
        _ = allowed(answering.get_with(number % 30, GetOptions::new().wait(false)));
    });
    let cut = writer.clone();
    let _cuts = writer.on_truncate(move |length, _| assert!(cut.fork() > 0 && cut.has(length).is_ok()));

    let append = |who: u64| {
        let mut random = random(who);
        for _ in 0..steps {
            let count = random.below(5);
            writer.append_batch((0..count).map(|_| block(next()))).unwrap();
        }
    };
    let change = || {
        let mut random = random(10);
        for _ in 0..steps / 4 {
            let length = writer.len();
            let near = length.saturating_sub(random.below(12));
            match random.below(4) {
                0 => _ = allowed(writer.truncate(near)),
                1 => _ = writer.clear(near..near + random.below(6)).unwrap(),
                2 => writer.flush().unwrap(),
                _ => writer.set_user_data("n", near.to_string()).unwrap(),
            }
        }
    };
    let read = |who: u64| {
        let mut random = random(who);
        while !done.load(Ordering::SeqCst) {
            let core = match random.below(2) {
                0 => writer.clone(),
                _ => copies[random.below(COPIES as u64) as usize].now(),
            };
            let index = random.below(core.len() + 2);
            if let Some(Some(bytes)) = allowed(core.get_with(index, GetOptions::new().wait(false))) {
                is_whole(&bytes);
            }
            allowed(core.has(index));
            let Some(session) = allowed(core.session(SessionOptions::new())) else { continue };
            if let Some(snapshot) = allowed(session.snapshot()) {
                assert!(snapshot.is_empty() || snapshot.byte_length() >= snapshot.len() * 8 || snapshot.fork() > 0);
            }
            if random.below(2) == 0 {
                allowed(session.close());
            }
        }
    };
    let replicate = |which: usize| {
        let mut random = random(20 + which as u64);
        for _ in 0..steps / 8 {
            let copy = &copies[which];
            let core = copy.now();
            let brought = core.clone();
            let _downloads = core.on_download(move |block| {
                // The block may be gone when the callback asks for it.
                if let Some(Some(bytes)) = allowed(brought.get_with(block.index, GetOptions::new().wait(false))) {
                    is_whole(&bytes);
                }
            });
            let other = match random.below(3) {
                0 => copies[(which + 1) % COPIES].now(),
                _ => writer.clone(),
            };
            // The other copy may be closed meanwhile.
            let (here, there) = pipe();
            let Some(ours) = allowed(core.replicate(here, Role::Initiator)) else { continue };
            let Some(theirs) = allowed(other.replicate(there, Role::Responder)) else { continue };
            for _ in 0..random.below(12) {
                let index = random.below(writer.len() + 1);
                if let Some(Some(bytes)) =
                    allowed(core.get_with(index, GetOptions::new().timeout(Duration::from_millis(20))))
                {
                    is_whole(&bytes);
                }
            }
            match random.below(4) {
                0 => drop(ours),
                1 => theirs.close(),
                2 => drop((theirs, ours)),
                _ => {
                    let mut slot = copy.core.lock().unwrap();
                    slot.close().unwrap();
                    *slot = Copy::open(&copy.storage, &writer);
                }
            }
        }
    };

    thread::scope(|scope| {
        let mut busy = vec![scope.spawn(change)];
        busy.extend((0..2).map(|who| scope.spawn(move || append(who))));
        busy.extend((0..COPIES).map(|which| scope.spawn(move || replicate(which))));
        (30..32).for_each(|who| _ = scope.spawn(move || read(who)));
        let outcomes: Vec<_> = busy.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::SeqCst);
        assert!(outcomes.iter().all(std::result::Result::is_ok));
    });
    assert!(answers.load(Ordering::SeqCst) > 0);
    assert_eq!(writer.verify().unwrap().faults, []);

    // Without other threads every block of the writer is downloaded.
    for copy in &copies {
        let core = copy.now();
        writer.append(block(next())).unwrap();
        let lines = connect(&core, &writer);
        let last = writer.len() - 1;
        while core.fork() != writer.fork() || core.len() != writer.len() {
            _ = allowed(core.get_with(last, GetOptions::new()));
        }
        for index in (0..writer.len()).filter(|&index| writer.has(index).unwrap()) {
            assert_eq!(core.get(index).unwrap(), writer.get(index).unwrap());
        }
        assert_eq!(core.tree_hash().unwrap(), writer.tree_hash().unwrap());
        assert_eq!(core.verify().unwrap().faults, []);
        drop(lines);
    }
}

#[test]
fn concurrent_operations_end_with_equal_logs() {
    let _guard = parallel_test!();
    (1..=if SLOW { 1 } else { 3 }).for_each(|seed| stress(seed, if SLOW { 16 } else { 60 }));
}

/// `HYPERCORE_STRESS` sets the number of rounds, 300 by default.
#[test]
#[ignore = "a soak: minutes"]
fn many_concurrent_operations_end_with_equal_logs() {
    let rounds = env::var("HYPERCORE_STRESS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
    for seed in 100..100 + rounds {
        let _guard = parallel_test!();
        stress(seed, 150);
    }
}
