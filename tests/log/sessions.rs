//! Sessions of one core: which options they inherit, which are their own, and when they close.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use hypercore::{ErrorKind, GetOptions, Hypercore, Key, Memory, SeekOptions, SessionOptions};

use crate::common::{kind, pair, watchdog};

#[test]
fn session_shows_state_of_its_core() {
    let key = Key::new([b'a'; 32]);
    let core = Hypercore::options().key(key).open_in(Memory::new()).unwrap();
    let session = core.session(SessionOptions::new()).unwrap();
    for shown in [&core, &session] {
        assert_eq!(shown.key(), key);
        assert_eq!(shown.id(), "cfosnambcfosnambcfosnambcfosnambcfosnambcfosnambcfoo");
    }
    let core = Hypercore::in_memory().unwrap();
    let session = core.session(SessionOptions::new()).unwrap();
    session.append("test").unwrap();
    assert_eq!((core.get(0).unwrap(), session.get(0).unwrap()), (b"test".to_vec(), b"test".to_vec()));
}

#[test]
fn session_appends_with_its_own_key_pair() {
    let core = Hypercore::options().key(pair(3).public_key()).open_in(Memory::new()).unwrap();
    let session = core.session(SessionOptions::new().key_pair(pair(3))).unwrap();
    assert!(!core.writable() && session.writable());
    assert_eq!(kind(core.append("hello")), ErrorKind::NotWritable);
    session.append("world").unwrap();
    assert_eq!((core.len(), core.get(0).unwrap()), (1, b"world".to_vec()));
    // The option alone does not make a session writable.
    let asks = core.session(SessionOptions::new().writable(true)).unwrap();
    assert!(!asks.writable());
    assert_eq!(kind(asks.append("x")), ErrorKind::NotWritable);
}

#[test]
fn each_close_fires_one_event_in_any_order() {
    let core = Hypercore::in_memory().unwrap();
    let others = [(); 2].map(|()| core.session(SessionOptions::new()).unwrap());
    let closed = Arc::new(AtomicUsize::new(0));
    for session in [&core, &others[0], &others[1]] {
        let count = closed.clone();
        session.on_close(move || _ = count.fetch_add(1, Ordering::SeqCst)).forever();
    }
    others[0].close().unwrap();
    assert_eq!(closed.load(Ordering::SeqCst), 1);
    core.close().unwrap();
    core.close().unwrap();
    core.close().unwrap();
    assert_eq!(closed.load(Ordering::SeqCst), 2);
    assert_eq!(others[1].append("open").unwrap().length, 1);
    others[1].close().unwrap();
    assert_eq!(closed.load(Ordering::SeqCst), 3);
    assert!(!core.readable() && !others[0].readable() && !others[1].readable());
}

#[test]
fn sessions_closed_concurrently_all_close() {
    let _watchdog = watchdog();
    let memory = Memory::new();
    for _ in 0..50 {
        let core = Hypercore::options().open_in(memory.clone()).unwrap();
        let sessions: Vec<_> = (0..3).map(|_| core.session(SessionOptions::new()).unwrap()).collect();
        let start = Barrier::new(4);
        thread::scope(|s| {
            for session in sessions.iter().chain([&core]) {
                s.spawn(|| {
                    start.wait();
                    session.close().unwrap();
                });
            }
        });
    }
    // The last close released the lock.
    assert!(Hypercore::options().open_in(memory).is_ok());
}

#[test]
fn session_inherits_timeout_and_wait_unless_overridden() {
    let _watchdog = watchdog();
    let short = Duration::from_millis(2);
    let core = Hypercore::options().timeout(short).open_in(Memory::new()).unwrap();
    let takes_over = core.session(SessionOptions::new()).unwrap();
    assert_eq!(kind(takes_over.get(0)), ErrorKind::Timeout);
    assert_eq!(kind(takes_over.seek(9)), ErrorKind::Timeout);
    let patient = core.session(SessionOptions::new().timeout(None)).unwrap();
    let again = patient.session(SessionOptions::new()).unwrap();
    // These gets wait longer than the core would, by an option of the session or of the call.
    let (tell, waits) = channel();
    let waiting = || {
        let tell = tell.clone();
        GetOptions::new().on_wait(move |_| tell.send(()).unwrap())
    };
    thread::scope(|s| {
        let gets = [
            s.spawn(|| patient.get_with(0, waiting())),
            s.spawn(|| again.get_with(0, waiting())),
            s.spawn(|| core.get_with(0, waiting().timeout(None))),
            s.spawn(|| core.get_with(0, waiting().timeout(Duration::from_secs(30)))),
        ];
        gets.iter().for_each(|_| waits.recv().unwrap());
        // By now a get with the timeout of the core has ended.
        assert_eq!(kind(core.get(0)), ErrorKind::Timeout);
        core.append("hi").unwrap();
        for get in gets {
            assert_eq!(get.join().unwrap().unwrap(), Some(b"hi".to_vec()));
        }
    });

    let never = core.session(SessionOptions::new().wait(false)).unwrap();
    let nor_this = never.session(SessionOptions::new()).unwrap();
    for session in [&never, &nor_this] {
        assert_eq!(session.get_with(1, GetOptions::new()).unwrap(), None);
        assert_eq!(session.seek_with(3, SeekOptions::new()).unwrap(), None);
        assert_eq!(kind(session.get_with(1, GetOptions::new().wait(true))), ErrorKind::Timeout);
    }
}

#[test]
fn session_inherits_encryption_key_or_has_its_own() {
    let (one, other) = ([1; 32], [2; 32]);
    let core = Hypercore::options().encryption_key(one).open_in(Memory::new()).unwrap();
    let same = core.session(SessionOptions::new()).unwrap();
    let given = core.session(SessionOptions::new().encryption_key(one)).unwrap();
    let own = core.session(SessionOptions::new().encryption_key(other)).unwrap();
    let of_own = own.session(SessionOptions::new()).unwrap();
    let keys = [&core, &same, &given, &own, &of_own].map(|s| s.encryption_key());
    assert_eq!(keys, [Some(one), Some(one), Some(one), Some(other), Some(other)]);
    same.append("hello").unwrap();
    for session in [&core, &same, &given] {
        assert_eq!(session.get(0).unwrap(), b"hello");
    }
    for session in [&own, &of_own] {
        assert_eq!(kind(session.append("world")), ErrorKind::Encryption);
        assert_eq!(kind(session.get(0)), ErrorKind::Encryption);
    }
    assert_eq!(core.len(), 1);
    // A key of one session is not used by others.
    let plain = Hypercore::in_memory().unwrap();
    let secret = plain.session(SessionOptions::new().encryption_key(one)).unwrap();
    let later = plain.session(SessionOptions::new()).unwrap();
    secret.append("hello").unwrap();
    assert_eq!(secret.get(0).unwrap(), b"hello");
    assert_eq!((plain.encryption_key(), later.encryption_key(), plain.padding()), (None, None, 0));
    assert_eq!((kind(plain.get(0)), kind(later.append("world"))), (ErrorKind::Encryption, ErrorKind::Encryption));
    let stored = plain.get_with(0, GetOptions::new().decrypt(false)).unwrap().unwrap();
    assert!(stored.len() == 13 && !stored.ends_with(b"hello"));
}

#[test]
fn seek_in_encrypted_log_counts_plain_bytes() {
    let core = Hypercore::options().encryption_key([3; 32]).open_in(Memory::new()).unwrap();
    core.append_batch(["hello", "world", "!"]).unwrap();
    for (byte, place) in [(0, (0, 0)), (4, (0, 4)), (5, (1, 0)), (6, (1, 1)), (9, (1, 4)), (10, (2, 0)), (11, (3, 0))] {
        assert_eq!(core.seek(byte).unwrap(), place, "byte {byte}");
    }
    assert_eq!(core.info(Default::default()).unwrap().byte_length, 11);
}

#[test]
fn public_types_are_send_and_sync() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Hypercore>();
    shared::<hypercore::OpenOptions>();
    shared::<SessionOptions>();
    shared::<GetOptions>();
    shared::<hypercore::Subscription>();
    shared::<hypercore::ReadStream>();
    shared::<hypercore::ByteStream>();
    shared::<hypercore::WriteStream>();
    shared::<hypercore::Downloading>();
    shared::<hypercore::Encoded<hypercore::Utf8>>();
    shared::<hypercore::Extension>();
    shared::<hypercore::FindingPeers>();
    shared::<hypercore::Cancel>();
    shared::<hypercore::Peer>();
    shared::<hypercore::Error>();
    shared::<hypercore::net::Connection>();
    shared::<hypercore::net::Replication>();
    shared::<hypercore::net::Server>();
    // A clone is the same session.
    let core = Hypercore::in_memory().unwrap();
    let clone = core.clone();
    thread::spawn(move || clone.append("from elsewhere").unwrap()).join().unwrap();
    assert_eq!(core.get(0).unwrap(), b"from elsewhere");
}
