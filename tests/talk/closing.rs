//! Closing and dropping of cores, connections and servers, from any thread and at any moment: it is prompt and leaves
//! no thread and no open file.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use hypercore::net::{Connection, ConnectionOptions, Halves, Role, Server, pipe};
use hypercore::{Download, ErrorKind, Hypercore, Memory};

use crate::common::Random;
use crate::common::machine::{SLOW, one_in};
use crate::cores::{Events, block, connect, connection, copy_of, tcp, writer};
use crate::harness::{exclusive_test, parallel_test};
use crate::threads::Threads;

#[test]
fn closing_any_handle_joins_threads() {
    let _guard = exclusive_test!();
    let threads = Threads::now();
    let core = writer(5);
    // Each closes one end of a connection that has been used.
    type End = fn(Hypercore, hypercore::net::Replication);
    let ways: [End; 5] = [
        |_, replication| replication.connection().close(),
        |_, replication| replication.close(),
        |copy, _| copy.close().unwrap(),
        |copy, _| drop(copy),
        |copy, _| copy.purge().unwrap(),
    ];
    for end in ways {
        let copy = copy_of(&core);
        let (ours, theirs) = connect(&copy, &core);
        assert_eq!(copy.get(1).unwrap(), block(1));
        end(copy, ours);
        theirs.wait().unwrap();
        theirs.connection().close();
        threads.assert_all_joined();
    }
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let copies: Vec<_> = (0..3).map(|_| copy_of(&core)).collect();
    let connect = |copy: &Hypercore| {
        let stream = std::net::TcpStream::connect(server.local_addr()).unwrap();
        copy.replicate(stream, Role::Initiator).unwrap()
    };
    let connected: Vec<_> = copies.iter().map(connect).collect();
    copies.iter().for_each(|copy| assert_eq!(copy.get(2).unwrap(), block(2)));
    drop(server);
    for replication in connected {
        replication.wait().unwrap();
        replication.close();
    }
    threads.assert_all_joined();
}

/// The number of threads does not depend on the number of cores or their traffic.
#[test]
fn connection_with_many_cores_has_two_threads() {
    let _guard = exclusive_test!();
    let threads = Threads::now();
    let moment = std::time::Duration::from_millis(100);
    // The system stamps threads in hundredths of a second: the threads to be counted must not have started in the
    // hundredth of `threads`.
    let (before, _) = connection();
    assert_eq!(before.wait_timeout(moment).unwrap_err().kind(), ErrorKind::Timeout);
    before.close();
    let (ours, theirs) = connection();
    let cores: Vec<_> = (0..3).map(|_| writer(200)).collect();
    let copies: Vec<_> = cores.iter().map(copy_of).collect();
    for (core, copy) in cores.iter().zip(&copies) {
        core.replicate_on(&theirs).unwrap();
        copy.replicate_on(&ours).unwrap();
        copy.download(Download::range(0..200)).unwrap().wait().unwrap();
    }
    const EACH: [&str; 4] = ["hypercore-read", "hypercore-read", "hypercore-write", "hypercore-write"];
    // After this pause the threads have finished their work and have waited at least once, which `Threads` requires.
    assert_eq!(ours.wait_timeout(moment).unwrap_err().kind(), ErrorKind::Timeout);
    threads.assert_are(&EACH);
    let (more, _more) = connect(&copies[0], &cores[1]);
    assert_eq!(more.connection().wait_timeout(moment).unwrap_err().kind(), ErrorKind::Timeout);
    let [r, _, w, _] = EACH;
    threads.assert_are(&[r, r, r, r, w, w, w, w]);
    more.close();
    drop((cores, copies));
    ours.close();
    theirs.close();
}

#[test]
fn replicate_on_closed_connection_fails() {
    let _guard = parallel_test!();
    let (ours, theirs) = connection();
    ours.close();
    ours.close();
    assert!(ours.is_closed());
    ours.wait().unwrap();
    assert_eq!(writer(1).replicate_on(&ours).unwrap_err().kind(), ErrorKind::Closed);
    _ = theirs.wait_timeout(std::time::Duration::MAX);
    assert!(theirs.is_closed());
    let closed = writer(1);
    closed.close().unwrap();
    let (ours, theirs) = connection();
    assert_eq!(closed.replicate_on(&ours).unwrap_err().kind(), ErrorKind::Closed);
    assert!(!ours.is_closed());
    ours.close();
    theirs.close();
}

#[test]
fn close_during_handshake_ends_connection() {
    let _guard = parallel_test!();
    for role in [Role::Initiator, Role::Responder] {
        let (a, nobody) = pipe();
        let core = writer(1);
        let replication = core.replicate(a, role).unwrap();
        replication.connection().close();
        replication.wait().unwrap();
        drop(nobody);
        let (a, b) = pipe();
        let replication = core.replicate(a, role).unwrap();
        drop(b);
        assert!(replication.wait().is_err());
    }
}

#[test]
fn callback_closes_its_own_core_and_connection() {
    let _guard = exclusive_test!();
    let threads = Threads::now();
    type Close = fn(&Hypercore, &Connection);
    let ways: [Close; 3] = [
        |_, connection| connection.close(),
        |copy, _| copy.close().unwrap(),
        |copy, connection| {
            copy.close().unwrap();
            connection.close();
        },
    ];
    for close in ways {
        let core = writer(3);
        let copy = copy_of(&core);
        let (ours, theirs) = connection();
        let (told, tell) = (Mutex::new(None::<()>), ours.clone());
        let mine = copy.clone();
        let (done, is_done) = channel();
        let _subscription = copy.on_append(move || {
            *told.lock().unwrap() = Some(());
            close(&mine, &tell);
            // The reader and the writer thread have ended when close returns.
            done.send(tell.is_closed()).unwrap();
        });
        copy.replicate_on(&ours).unwrap();
        core.replicate_on(&theirs).unwrap();
        assert!(is_done.recv().unwrap());
        ours.wait().unwrap();
        theirs.wait().unwrap();
        theirs.close();
        ours.close();
        threads.assert_all_joined();
    }
}

/// The callback owns the last handle and drops it while it runs.
#[test]
fn callback_drops_last_handle_of_core() {
    let _guard = parallel_test!();
    let core = writer(3);
    let copy = copy_of(&core);
    let (a, b) = pipe();
    let last = Arc::new(Mutex::new(None));
    let slot = last.clone();
    let (done, is_done) = channel();
    copy.on_append(move || {
        drop(slot.lock().unwrap().take());
        _ = done.send(());
    })
    .forever();
    *last.lock().unwrap() = Some(copy);
    let ours = last.lock().unwrap().as_ref().unwrap().replicate(a, Role::Initiator).unwrap();
    let theirs = core.replicate(b, Role::Responder).unwrap();
    is_done.recv().unwrap();
    ours.wait().unwrap();
    theirs.wait().unwrap();
}

#[test]
fn concurrent_closes_all_return() {
    let _guard = exclusive_test!();
    let threads = Threads::now();
    for _ in 0..30 {
        let core = writer(200);
        let copy = copy_of(&core);
        let (ours, theirs) = connect(&copy, &core);
        let download = copy.download(Download::range(0..200)).unwrap();
        thread::scope(|s| {
            s.spawn(|| ours.connection().close());
            s.spawn(|| ours.close());
            s.spawn(|| theirs.connection().close());
            s.spawn(|| copy.close().unwrap());
            s.spawn(|| _ = download.wait());
        });
        assert!(ours.connection().is_closed() && theirs.connection().is_closed());
        threads.assert_all_joined();
    }
}

/// Downloads, appends and a waiting get are under way on all sides.
#[test]
fn close_during_traffic_ends_waits_and_threads() {
    let _guard = exclusive_test!();
    let threads = Threads::now();
    for round in (0..12).step_by(one_in(4)) {
        let core = Hypercore::in_memory().unwrap();
        core.append_batch((0..400).map(|_| [7; 4096])).unwrap();
        let copies: Vec<_> = (0..3).map(|_| copy_of(&core)).collect();
        let connected: Vec<_> = copies.iter().map(|copy| connect(copy, &core)).collect();
        let seen = Arc::new(AtomicU64::new(0));
        let (reached, is_reached) = channel();
        let mut subscriptions = Vec::new();
        for copy in &copies {
            let (seen, reached) = (seen.clone(), reached.clone());
            subscriptions.push(copy.on_download(move |_| {
                if seen.fetch_add(1, Ordering::SeqCst) == round * 80 {
                    reached.send(()).unwrap();
                }
            }));
            drop(copy.download(Download::all()).unwrap());
        }
        thread::scope(|s| {
            s.spawn(|| while core.append([8; 100]).is_ok() {});
            let waiting = s.spawn(|| copies[0].get(1 << 30).unwrap_err().kind());
            is_reached.recv().unwrap();
            match round % 3 {
                0 => connected.iter().for_each(|(ours, _)| ours.close()),
                1 => copies.iter().for_each(|copy| copy.close().unwrap()),
                _ => {}
            }
            core.close().unwrap();
            copies.iter().for_each(|copy| copy.close().unwrap());
            assert_eq!(waiting.join().unwrap(), ErrorKind::Closed);
        });
        connected.iter().for_each(|(ours, theirs)| {
            ours.connection().close();
            theirs.connection().close();
        });
        threads.assert_all_joined();
    }
}

#[test]
fn dropped_core_releases_files_while_connected() {
    let _guard = parallel_test!();
    let dir = tempfile::tempdir().unwrap();
    let core = writer(100);
    for _ in 0..20 {
        let copy = Hypercore::options().key(core.key()).open(dir.path()).unwrap();
        let (_ours, _theirs) = connect(&copy, &core);
        drop(copy.download(Download::all()).unwrap());
        let own = copy.clone();
        // The handler holds a handle to its own core. Closing breaks this cycle.
        let _extension = copy.register_extension("echo", move |_, _| _ = own.len()).unwrap();
        copy.get(50).unwrap();
        copy.close().unwrap();
    }
    for _ in 0..20 {
        let copy = Hypercore::options().key(core.key()).open(dir.path()).unwrap();
        let (_ours, _theirs) = connect(&copy, &core);
        copy.get(51).unwrap();
    }
}

/// Both sides download blocks larger than what fits in flight, so both sockets are full all the time.
#[test]
fn mutual_large_downloads_do_not_deadlock() {
    let _guard = parallel_test!();
    let count = if SLOW { 8 } else { 24 };
    for over_pipe in [true, false] {
        let make = || {
            let core = Hypercore::in_memory().unwrap();
            core.append_batch((0..count).map(|i| vec![i as u8; 1 << 20])).unwrap();
            core
        };
        let (mine, yours) = (make(), make());
        let (my_copy, your_copy) = (copy_of(&yours), copy_of(&mine));
        let (ours, theirs) = if over_pipe {
            connection()
        } else {
            let (a, b) = tcp();
            let open = |end, role| Connection::open(end, role, ConnectionOptions::default()).unwrap();
            (open(a, Role::Initiator), open(b, Role::Responder))
        };
        [&mine, &my_copy].iter().for_each(|core| _ = core.replicate_on(&ours).unwrap());
        [&yours, &your_copy].iter().for_each(|core| _ = core.replicate_on(&theirs).unwrap());
        let downloads = [&my_copy, &your_copy].map(|copy| copy.download(Download::range(0..count)).unwrap());
        downloads.iter().for_each(|download| download.wait().unwrap());
        assert_eq!(my_copy.tree_hash().unwrap(), yours.tree_hash().unwrap());
    }
}

#[test]
fn handles_dropped_in_random_order_leave_no_threads() {
    let _guard = exclusive_test!();
    let threads = Threads::now();
    let mut random = Random::new(1);
    for _ in 0..60 {
        let core = writer(100);
        let copy = copy_of(&core);
        let (ours, theirs) = connect(&copy, &core);
        let (line, other) = (ours.connection().clone(), theirs.connection().clone());
        let events = Events::new(|tell| copy.on_download(move |block| _ = tell.send(block.index)));
        let download = copy.download(Download::range(0..100)).unwrap();
        for _ in 0..random.below(60) {
            events.next();
        }
        let extension = copy.register_extension("x", |_, _| ()).unwrap();
        let mut things: Vec<Box<dyn Send>> = vec![
            Box::new(events),
            Box::new(core),
            Box::new(copy),
            Box::new(ours),
            Box::new(theirs),
            Box::new(download),
            Box::new(extension),
        ];
        for i in (1..things.len()).rev() {
            things.swap(i, random.below(i as u64 + 1) as usize);
        }
        let half = things.split_off(3);
        let dropping = thread::spawn(move || drop(half));
        drop(things);
        dropping.join().unwrap();
        line.close();
        other.close();
        threads.assert_all_joined();
    }
}

#[test]
fn panicking_stream_ends_only_its_connection() {
    let _guard = parallel_test!();
    struct Panics;
    impl io::Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("a stream's own fault");
        }
    }
    let core = writer(1);
    let replication = core.replicate(Halves::new(Panics, io::sink(), || ()), Role::Initiator).unwrap();
    assert_eq!(replication.wait().unwrap_err().kind(), ErrorKind::Failed);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    assert_eq!(copy.get(0).unwrap(), block(0));
}

/// A core that cannot store blocks fails the get and the download instead of leaving them waiting for ever.
#[test]
fn get_on_read_only_copy_fails_with_not_writable() {
    let _guard = parallel_test!();
    let core = writer(5);
    let storage = Memory::new();
    drop(Hypercore::options().key(core.key()).open_in(storage.clone()).unwrap());
    let copy = Hypercore::options().key(core.key()).read_only(true).open_in(storage).unwrap();
    let _connected = connect(&copy, &core);
    assert_eq!(copy.get(3).unwrap_err().kind(), ErrorKind::NotWritable);
    let download = copy.download(Download::range(0..5));
    assert_eq!(download.unwrap_err().kind(), ErrorKind::NotWritable);
}
