//! The ends of a wait: an append, a timeout, a cancel, a truncate or a close; and events, which arrive in order.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use hypercore::{
    Cancel, ErrorKind, GetOptions, Hypercore, Memory, SeekOptions, SessionOptions, Subscription, UpdateOptions,
};

use crate::common::{kind, pair, watchdog};

/// Options for a get that sends its index through the channel when its wait begins.
fn notifying() -> (GetOptions, Receiver<u64>) {
    let (sender, receiver) = channel();
    (GetOptions::new().on_wait(move |index| sender.send(index).unwrap()), receiver)
}

#[test]
fn absent_block_without_wait_is_none_or_not_available() {
    let core = Hypercore::options().wait(false).open_in(Memory::new()).unwrap();
    assert_eq!(core.get_with(0, GetOptions::new()).unwrap(), None);
    assert_eq!(kind(core.get(0)), ErrorKind::BlockNotAvailable);
    let (options, waits) = notifying();
    assert_eq!(core.get_with(3, options).unwrap(), None);
    assert!(waits.try_recv().is_err());
}

#[test]
fn get_past_end_is_woken_by_append() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    let (options, waits) = notifying();
    thread::scope(|s| {
        let getting = s.spawn(|| core.get_with(2, options));
        assert_eq!(waits.recv().unwrap(), 2);
        core.append("a").unwrap();
        core.append_batch(["b", "c", "d"]).unwrap();
        assert_eq!(getting.join().unwrap().unwrap(), Some(b"c".to_vec()));
    });
    assert!(waits.try_recv().is_err());
}

#[test]
fn gets_of_many_threads_are_woken_by_their_blocks() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    thread::scope(|s| {
        let getting: Vec<_> = (0..40u64)
            .map(|i| {
                (
                    i,
                    s.spawn({
                        let core = core.clone();
                        move || core.get(i % 20)
                    }),
                )
            })
            .collect();
        for i in 0..20u64 {
            core.append(i.to_le_bytes()).unwrap();
        }
        for (i, get) in getting {
            assert_eq!(get.join().unwrap().unwrap(), (i % 20).to_le_bytes());
        }
    });
}

#[test]
fn get_and_seek_end_at_their_timeout() {
    let _watchdog = watchdog();
    let short = Duration::from_millis(5);
    let core = Hypercore::options().timeout(short).open_in(Memory::new()).unwrap();
    core.append("a").unwrap();
    assert_eq!(kind(core.get(1)), ErrorKind::Timeout);
    assert_eq!(kind(core.seek(2)), ErrorKind::Timeout);
    let session = core.session(SessionOptions::new().timeout(None)).unwrap();
    assert_eq!(kind(session.get_with(1, GetOptions::new().timeout(short))), ErrorKind::Timeout);
    assert_eq!(kind(session.seek_with(2, SeekOptions::new().timeout(short))), ErrorKind::Timeout);
    assert_eq!(core.get_with(0, GetOptions::new().timeout(Duration::from_nanos(1))).unwrap(), Some(b"a".to_vec()));
}

#[test]
fn cancel_ends_current_and_later_waits() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    let cancel = Cancel::new();
    let (options, waits) = notifying();
    thread::scope(|s| {
        let get = s.spawn(|| core.get_with(0, options.cancel(&cancel)));
        let seek = s.spawn(|| core.seek_with(9, SeekOptions::new().cancel(&cancel)));
        waits.recv().unwrap();
        cancel.cancel();
        assert_eq!(kind(get.join().unwrap()), ErrorKind::Cancelled);
        assert_eq!(kind(seek.join().unwrap()), ErrorKind::Cancelled);
    });
    assert!(cancel.is_cancelled());
    assert_eq!(kind(core.get_with(0, GetOptions::new().cancel(&cancel))), ErrorKind::Cancelled);
    // A get of a held block ignores the cancelled token.
    core.append("a").unwrap();
    assert_eq!(core.get_with(0, GetOptions::new().cancel(&cancel)).unwrap(), Some(b"a".to_vec()));
}

#[test]
fn close_wakes_waiters_of_its_session_only() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    let session = core.session(SessionOptions::new()).unwrap();
    let (mine, my_waits) = notifying();
    let (others, others_wait) = notifying();
    thread::scope(|s| {
        let first = s.spawn(|| session.get_with(0, mine));
        let second = s.spawn(|| core.get_with(0, others));
        my_waits.recv().unwrap();
        others_wait.recv().unwrap();
        session.close().unwrap();
        assert_eq!(kind(first.join().unwrap()), ErrorKind::Closed);
        core.close().unwrap();
        assert_eq!(kind(second.join().unwrap()), ErrorKind::Closed);
    });
}

/// A close between the check for the block and the wait must not be missed.
#[test]
fn close_at_any_moment_wakes_waiters() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    let finding = core.finding_peers();
    for _ in 0..300 {
        let session = core.session(SessionOptions::new().writable(false)).unwrap();
        let start = Barrier::new(4);
        thread::scope(|s| {
            let get = s.spawn(|| {
                start.wait();
                session.get(0).map(drop)
            });
            let seek = s.spawn(|| {
                start.wait();
                session.seek(7).map(drop)
            });
            let update = s.spawn(|| {
                start.wait();
                session.update().map(drop)
            });
            start.wait();
            session.close().unwrap();
            for ended in [get, seek, update] {
                assert_eq!(kind(ended.join().unwrap()), ErrorKind::Closed);
            }
        });
    }
    finding.done();
}

#[test]
fn seek_past_end_is_woken_by_append() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    let start = Barrier::new(2);
    thread::scope(|s| {
        let seek = s.spawn(|| {
            start.wait();
            core.seek(5)
        });
        start.wait();
        core.append_batch(["abc", "def"]).unwrap();
        assert_eq!(seek.join().unwrap().unwrap(), (1, 2));
    });
}

#[test]
fn seek_beyond_any_log_is_refused() {
    let core = Hypercore::in_memory().unwrap();
    let seek = |byte| core.seek_with(byte, SeekOptions::new().wait(false));
    assert_eq!(seek((1 << 53) - 1).unwrap(), None);
    assert_eq!(kind(seek(1 << 53)), ErrorKind::BadArgument);
    assert_eq!(kind(seek(u64::MAX)), ErrorKind::BadArgument);
}

#[test]
fn get_of_snapshot_ends_when_its_block_is_truncated() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "b"]).unwrap();
    core.clear(1..2).unwrap();
    let snapshot = core.snapshot().unwrap();
    let (options, waits) = notifying();
    thread::scope(|s| {
        let get = s.spawn(|| snapshot.get_with(1, options));
        waits.recv().unwrap();
        core.truncate(1).unwrap();
        assert_eq!(kind(get.join().unwrap()), ErrorKind::SnapshotNotAvailable);
    });
}

#[test]
fn get_of_truncated_block_does_not_return_its_successor() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(["a", "b"]).unwrap();
    core.clear(1..2).unwrap();
    thread::scope(|s| {
        let (options, waits) = notifying();
        let (later, later_waits) = notifying();
        let cut = s.spawn(|| core.get_with(1, options));
        let to_come = s.spawn(|| core.get_with(2, later));
        waits.recv().unwrap();
        later_waits.recv().unwrap();
        core.truncate(1).unwrap();
        core.append_batch(["B", "C"]).unwrap();
        assert_eq!(kind(cut.join().unwrap()), ErrorKind::SnapshotNotAvailable);
        assert_eq!(to_come.join().unwrap().unwrap(), Some(b"C".to_vec()));
    });
}

#[test]
fn on_wait_of_core_session_or_call_is_called() {
    let _watchdog = watchdog();
    let waits = Arc::new(Mutex::new(Vec::new()));
    let note = |who: &'static str| {
        let waits = waits.clone();
        move |index| waits.lock().unwrap().push((who, index))
    };
    let short = Duration::from_millis(1);
    let core = Hypercore::options().on_wait(note("core")).timeout(short).open_in(Memory::new()).unwrap();
    let session = core.session(SessionOptions::new().on_wait(note("session"))).unwrap();
    let inherits = core.session(SessionOptions::new()).unwrap();
    let _ = core.get(1);
    let _ = session.get(2);
    let _ = inherits.get(3);
    let _ = core.get_with(4, GetOptions::new().on_wait(note("get")));
    core.append("x").unwrap();
    core.get(0).unwrap();
    assert_eq!(*waits.lock().unwrap(), [("core", 1), ("session", 2), ("core", 3), ("get", 4), ("core", 4)]);
}

#[test]
fn update_waits_only_while_finding_peers() {
    let _watchdog = watchdog();
    let writer = Hypercore::in_memory().unwrap();
    let finding = writer.finding_peers();
    assert!(!writer.update().unwrap());
    finding.done();
    let reader = Hypercore::options().key(pair(1).public_key()).open_in(Memory::new()).unwrap();
    assert!(!reader.update().unwrap());
    assert!(!reader.update_with(UpdateOptions::new().wait(true).force(true)).unwrap());
    let finding = reader.finding_peers();
    let short = UpdateOptions::new().timeout(Duration::from_millis(2));
    assert_eq!(kind(reader.update_with(short)), ErrorKind::Timeout);
    assert!(!reader.update_with(UpdateOptions::new().wait(false)).unwrap());
    let second = reader.finding_peers();
    drop(finding);
    thread::scope(|s| {
        let update = s.spawn(|| reader.update());
        drop(second);
        assert!(!update.join().unwrap().unwrap());
    });
}

/// Collects the events of a core as text.
fn listen(core: &Hypercore) -> (Arc<Mutex<Vec<String>>>, Vec<Subscription>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let note = || {
        let heard = heard.clone();
        move |what: String| heard.lock().unwrap().push(what)
    };
    let (append, truncate, ready, close) = (note(), note(), note(), note());
    let subscriptions = vec![
        core.on_append(move || append("append".into())),
        core.on_truncate(move |length, fork| truncate(format!("truncate {length} {fork}"))),
        core.on_ready(move || ready("ready".into())),
        core.on_close(move || close("close".into())),
    ];
    (heard, subscriptions)
}

#[test]
fn events_arrive_in_order() {
    let core = Hypercore::in_memory().unwrap();
    let (heard, subscriptions) = listen(&core);
    core.append("a").unwrap();
    core.append_batch(["b", "c"]).unwrap();
    core.truncate(1).unwrap();
    core.append("d").unwrap();
    core.clear(0..1).unwrap();
    core.set_user_data("a", "b").unwrap();
    core.append_batch(Vec::<Vec<u8>>::new()).unwrap();
    core.truncate_to(0, 5).unwrap();
    core.close().unwrap();
    let expected = ["ready", "append", "append", "truncate 1 1", "append", "truncate 0 5", "close"];
    assert_eq!(*heard.lock().unwrap(), expected);
    drop(subscriptions);
}

#[test]
fn callback_may_call_drop_and_panic() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    let own = Arc::new(Mutex::new(Some(core.clone())));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (slot, log) = (own.clone(), heard.clone());
    let calling = core.on_append(move || {
        let Some(core) = slot.lock().unwrap().clone() else { return };
        let length = core.len();
        log.lock().unwrap().push(length);
        if length < 4 {
            core.append("from inside").unwrap();
            core.get(length).unwrap();
            core.verify().unwrap();
            let _ = core.on_append(|| ());
        }
    });
    let panicking = core.on_append(|| panic!("on purpose"));
    let log = heard.clone();
    let last = core.on_append(move || log.lock().unwrap().push(100));
    core.append("first").unwrap();
    assert_eq!(*heard.lock().unwrap(), [1, 100, 2, 100, 3, 100, 4, 100]);
    drop((calling, panicking, last));

    // The callback drops a handle of its own core.
    let slot = own.clone();
    core.on_append(move || drop(slot.lock().unwrap().take())).forever();
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    core.on_close(move || _ = count.fetch_add(1, Ordering::SeqCst)).forever();
    core.append("last").unwrap();
    assert!(own.lock().unwrap().is_none());
    assert_eq!(closed.load(Ordering::SeqCst), 0);
    drop(core);
    assert_eq!(closed.load(Ordering::SeqCst), 1);
}

#[test]
fn close_from_callback_closes_core() {
    let _watchdog = watchdog();
    let memory = Memory::new();
    let core = Hypercore::options().open_in(memory.clone()).unwrap();
    let inner = core.clone();
    let subscription = core.on_append(move || inner.close().unwrap());
    core.append("x").unwrap();
    assert!(!core.readable());
    drop((subscription, core));
    assert_eq!(Hypercore::options().open_in(memory).unwrap().len(), 1);
}

#[test]
fn dropped_subscription_is_silent_and_session_fires_own_close_only() {
    let core = Hypercore::in_memory().unwrap();
    let session = core.session(SessionOptions::new()).unwrap();
    let (heard, subscriptions) = listen(&session);
    core.append("a").unwrap();
    let clone = core.session(SessionOptions::new()).unwrap();
    clone.close().unwrap();
    session.close().unwrap();
    core.append("b").unwrap();
    assert_eq!(*heard.lock().unwrap(), ["ready", "append", "close"]);
    drop(subscriptions);
    let (heard, subscriptions) = listen(&core);
    drop(subscriptions);
    core.append("c").unwrap();
    assert_eq!(*heard.lock().unwrap(), ["ready"]);
}

#[test]
fn events_of_many_threads_arrive_one_by_one() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    let (inside, heard, last) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (i, h, l) = (inside.clone(), heard.clone(), last.clone());
    let shown = core.clone();
    core.on_append(move || {
        assert_eq!(i.fetch_add(1, Ordering::SeqCst), 0);
        let length = shown.len();
        assert!(length >= l.swap(length, Ordering::SeqCst));
        h.fetch_add(1, Ordering::SeqCst);
        i.fetch_sub(1, Ordering::SeqCst);
    })
    .forever();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..50).for_each(|_| _ = core.append("x").unwrap()));
        }
    });
    // Appends that share a commit share its event.
    let heard = heard.load(Ordering::SeqCst);
    assert!((1..=200).contains(&heard));
    assert_eq!((core.len(), inside.load(Ordering::SeqCst)), (200, 0));
}
