//! Calls that wait for the network, over real connections: they return what was asked for, or end by timeout,
//! cancellation or close.

use std::io::Read;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use hypercore::net::{Connection, ConnectionOptions, Role, pipe};
use hypercore::{
    ByteOptions, Cancel, Download, ErrorKind, GetOptions, Hypercore, SeekOptions, SessionOptions, UpdateOptions,
};

use crate::common::{Call, Hooked};
use crate::cores::{
    Downloads, Events, ask_for_head, block, connect, copy_of, disconnect, streams, wait_for_length, writer, writer_of,
};
use crate::harness::parallel_test;

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn get_of_absent_block_asks_peer_over_any_stream() {
    let _guard = parallel_test!();
    for (kind, replicate) in streams() {
        let core = writer(10);
        let copy = copy_of(&core);
        let [ours, theirs] = replicate(&copy, &core);
        assert_eq!(copy.get(7).unwrap(), block(7), "{kind}");
        assert_eq!(copy.len(), 10);
        assert!(!copy.has(6).unwrap(), "{kind}: only the requested block is downloaded");
        thread::scope(|s| {
            let (waits, waiting) = channel();
            let copy = &copy;
            let later = s.spawn(move || {
                copy.get_with(11, GetOptions::new().on_wait(move |index| waits.send(index).unwrap())).unwrap()
            });
            assert_eq!(waiting.recv().unwrap(), 11);
            core.append_batch([block(10), block(11)]).unwrap();
            assert_eq!(later.join().unwrap(), Some(block(11)), "{kind}: a block that is appended later");
        });
        let counters = ours.counters();
        assert!(counters.received > 500 && counters.sent > 100, "{counters:?}");
        assert_eq!(copy.peers().len(), 1);
        assert_eq!(ours.remote_public_key(), Some(copy.peers()[0].remote_public_key()));
        ours.connection().close();
        theirs.wait().unwrap();
        assert!(copy.peers().is_empty() && core.peers().is_empty());
        assert!(theirs.counters().sent > 500);
    }
}

/// The waits begin before there is a connection.
#[test]
fn waits_older_than_connection_are_served() {
    let _guard = parallel_test!();
    let core = writer(20);
    let copy = copy_of(&core);
    thread::scope(|s| {
        let (waits, waiting) = channel();
        let copy = &copy;
        let getting = s.spawn(move || {
            copy.get_with(3, GetOptions::new().on_wait(move |index| waits.send(index).unwrap())).unwrap()
        });
        waiting.recv().unwrap();
        let download = copy.download(Download::range(10..12)).unwrap();
        let finding = copy.finding_peers();
        let updating = s.spawn(move || copy.update().unwrap());
        let _connected = connect(copy, &core);
        assert_eq!(getting.join().unwrap(), Some(block(3)));
        updating.join().unwrap();
        assert_eq!(copy.len(), 20);
        download.wait().unwrap();
        finding.done();
        assert!(copy.has_range(10..12).unwrap() && !copy.has(12).unwrap());
    });
}

#[test]
fn ended_waits_are_not_requested_after_connecting() {
    let _guard = parallel_test!();
    let core = writer(20);
    let copy = copy_of(&core);
    let all = copy.download(Download::all()).unwrap();
    let timeout = GetOptions::new().timeout(Duration::from_millis(1));
    assert_eq!(copy.get_with(5, timeout).unwrap_err().kind(), ErrorKind::Timeout);
    all.cancel();
    assert_eq!(all.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    let _connected = connect(&copy, &core);
    assert_eq!(copy.get(19).unwrap(), block(19));
    assert_eq!(copy.contiguous_length().unwrap(), 0);
    assert!(!copy.has(5).unwrap());
}

#[test]
fn waits_end_by_timeout_cancel_and_close() {
    let _guard = parallel_test!();
    let core = writer(3);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    let short = Duration::from_millis(20);
    let kind = |result: hypercore::Result<Option<Vec<u8>>>| result.unwrap_err().kind();
    assert_eq!(kind(copy.get_with(100, GetOptions::new().timeout(short))), ErrorKind::Timeout);
    let seek = copy.seek_with(1 << 40, SeekOptions::new().timeout(short));
    assert_eq!(seek.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(copy.get_with(100, GetOptions::new().wait(false)).unwrap(), None);
    let download = copy.download(Download::range(100..200)).unwrap();
    assert_eq!(download.wait_timeout(short).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(!download.is_done());

    let cancel = Cancel::new();
    let session = copy.session(SessionOptions::new()).unwrap();
    thread::scope(|s| {
        let waits = |what: &str| {
            let (tell, told) = channel();
            let what = what.to_owned();
            (move |_| tell.send(what.clone()).unwrap(), told)
        };
        let (on_wait, waiting) = waits("cancelled");
        let options = GetOptions::new().cancel(&cancel).on_wait(on_wait);
        let copy = &copy;
        let cancelled = s.spawn(move || kind(copy.get_with(101, options)));
        waiting.recv().unwrap();
        cancel.cancel();
        assert_eq!(cancelled.join().unwrap(), ErrorKind::Cancelled);
        assert_eq!(kind(copy.get_with(101, GetOptions::new().cancel(&cancel))), ErrorKind::Cancelled);

        // Closing a session ends only its own waits.
        let (on_wait, waiting) = waits("session");
        let session = &session;
        let in_session = s.spawn(move || kind(session.get_with(102, GetOptions::new().on_wait(on_wait))));
        waiting.recv().unwrap();
        let (on_wait, waiting) = waits("core");
        let in_core = s.spawn(move || kind(copy.get_with(103, GetOptions::new().on_wait(on_wait))));
        waiting.recv().unwrap();
        session.close().unwrap();
        assert_eq!(in_session.join().unwrap(), ErrorKind::Closed);
        assert!(!in_core.is_finished());
        let downloading = s.spawn(|| download.wait().unwrap_err().kind());
        copy.close().unwrap();
        assert_eq!(in_core.join().unwrap(), ErrorKind::Closed);
        assert_eq!(downloading.join().unwrap(), ErrorKind::Closed);
    });
    assert_eq!(copy.get(0).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn update_waits_for_connected_and_sought_peers() {
    let _guard = parallel_test!();
    let core = writer(4);
    let copy = copy_of(&core);
    // There is no peer, and no search for one.
    assert!(!copy.update().unwrap());
    assert!(!copy.update_with(UpdateOptions::new().wait(true)).unwrap());
    // The search ends without a peer.
    let finding = copy.finding_peers();
    let timeout = UpdateOptions::new().timeout(Duration::from_millis(20));
    assert_eq!(copy.update_with(timeout).unwrap_err().kind(), ErrorKind::Timeout);
    thread::scope(|s| {
        let (begins, begun) = channel();
        let copy = &copy;
        let updating = s.spawn(move || {
            begins.send(()).unwrap();
            copy.update().unwrap()
        });
        begun.recv().unwrap();
        finding.done();
        assert!(!updating.join().unwrap());
    });
    // A peer connects.
    let finding = copy.finding_peers();
    thread::scope(|s| {
        let updating = s.spawn(|| copy.update().unwrap());
        let _connected = connect(&copy, &core);
        updating.join().unwrap();
        assert_eq!(copy.len(), 4);
    });
    drop(finding);
    // The peer has nothing more.
    assert!(!copy.update_with(UpdateOptions::new().wait(true)).unwrap());
    core.append(block(4)).unwrap();
    copy.update_with(UpdateOptions::new().wait(true)).unwrap();
    wait_for_length(&copy, 5);
}

/// As in the reference, an update ends when the last peer leaves, and a get waits for the next peer.
#[test]
fn last_peer_leaving_ends_updates_but_not_gets() {
    let _guard = parallel_test!();
    let core = writer(4);
    let copy = copy_of(&core);
    let (a, b) = pipe();
    // A peer that is connected and never sends its head.
    let silent = Connection::open(b, Role::Responder, ConnectionOptions::default()).unwrap();
    let ours = copy.replicate(a, Role::Initiator).unwrap();
    thread::scope(|s| {
        let (waits, waiting) = channel();
        let copy = &copy;
        let getting = s.spawn(move || copy.get_with(1, GetOptions::new().on_wait(move |_| waits.send(()).unwrap())));
        waiting.recv().unwrap();
        let updating = s.spawn(move || copy.update_with(UpdateOptions::new().wait(true)).unwrap());
        let available = copy.download(Download::range(0..4).if_available(true)).unwrap();
        silent.close();
        // The handshake may be complete or not, so either outcome is right.
        _ = ours.wait();
        assert!(!updating.join().unwrap());
        available.wait().unwrap();
        assert!(!getting.is_finished());
        let _connected = connect(copy, &core);
        assert_eq!(getting.join().unwrap().unwrap(), Some(block(1)));
    });
}

#[test]
fn seek_asks_peer_for_tree() {
    let _guard = parallel_test!();
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..300).map(|i| vec![i as u8; 1 + i % 7])).unwrap();
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    wait_for_length(&copy, 300);
    for byte in [0, 1, 600, 17, core.byte_length() - 1, core.byte_length()] {
        assert_eq!(copy.seek(byte).unwrap(), core.seek(byte).unwrap(), "byte {byte}");
    }
    assert_eq!(copy.contiguous_length().unwrap(), 0);
    let end = core.byte_length();
    thread::scope(|s| {
        let beyond = s.spawn(|| copy.seek(end + 2).unwrap());
        core.append(b"abcdef").unwrap();
        assert_eq!(beyond.join().unwrap(), (300, 2));
    });
}

#[test]
fn gets_survive_reconnection() {
    let _guard = parallel_test!();
    let writer = writer_of((0..33).map(|i| format!("#{i}")));
    let copy = copy_of(&writer);
    let events = Events::new(|tell| copy.on_download(move |_| tell.send(()).unwrap_or(())));
    thread::scope(|s| {
        let gets: Vec<_> = (0..33)
            .map(|i| {
                (
                    i,
                    s.spawn({
                        let copy = copy.clone();
                        move || copy.get(i)
                    }),
                )
            })
            .collect();
        let both = connect(&writer, &copy);
        events.next();
        disconnect(&both);
        connect(&writer, &copy);
        for (i, get) in gets {
            assert_eq!(get.join().unwrap().unwrap(), format!("#{i}").into_bytes());
        }
    });
}

#[test]
fn two_gets_of_one_block_send_one_request() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    let uploads = Events::new(|tell| writer.on_upload(move |block| tell.send(block.index).unwrap_or(())));
    connect(&writer, &copy);
    let (tell, waits) = channel();
    thread::scope(|s| {
        let gets = [tell.clone(), tell].map(|tell| {
            let options = GetOptions::new().on_wait(move |_| tell.send(()).unwrap());
            s.spawn(|| copy.get_with(2, options))
        });
        waits.recv().unwrap();
        waits.recv().unwrap();
        writer.append_batch(FIVE).unwrap();
        gets.into_iter().for_each(|get| assert_eq!(get.join().unwrap().unwrap(), Some(b"c".to_vec())));
    });
    assert_eq!(copy.get(4).unwrap(), b"e");
    assert_eq!((uploads.next(), uploads.next()), (2, 4));
}

#[test]
fn get_without_wait_of_absent_block_returns_none() {
    let _guard = parallel_test!();
    let writer = writer_of(["a"]);
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    assert_eq!(copy.get_with(0, GetOptions::new().wait(false)).unwrap(), None);
    assert_eq!(copy.get(0).unwrap(), b"a");
    assert_eq!(copy.get_with(0, GetOptions::new().wait(false)).unwrap(), Some(b"a".to_vec()));
}

#[test]
fn closing_session_ends_only_its_own_gets() {
    let _guard = parallel_test!();
    let writer = writer_of(["a", "b"]);
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    let (one, other) = (copy.session(SessionOptions::new()).unwrap(), copy.session(SessionOptions::new()).unwrap());
    let (tell, waits) = channel();
    let options = || {
        let tell = tell.clone();
        GetOptions::new().on_wait(move |_| tell.send(()).unwrap())
    };
    thread::scope(|s| {
        let first = s.spawn(|| one.get_with(2, options()));
        let second = s.spawn(|| other.get_with(2, options()));
        waits.recv().unwrap();
        waits.recv().unwrap();
        one.close().unwrap();
        assert_eq!(first.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(other.get(1).unwrap(), b"b");
        writer.append("c").unwrap();
        assert_eq!(second.join().unwrap().unwrap(), Some(b"c".to_vec()));
    });
}

/// The get is cancelled while the block that it waits for is being stored.
#[test]
fn get_cancelled_during_commit_of_its_block_keeps_block() {
    let _guard = parallel_test!();
    let writer = writer_of(["0", "1", "2", "3"]);
    let storage = Hooked::memory();
    let gate = storage.gate(|name, call| name == "data" && matches!(call, Call::Write { .. }));
    let copy = Hypercore::options().key(writer.key()).open_in(storage).unwrap();
    connect(&writer, &copy);
    wait_for_length(&copy, 4);
    gate.shut();
    let cancel = Cancel::new();
    thread::scope(|s| {
        let (tell, waits) = channel();
        let (copy, options) = (&copy, GetOptions::new().cancel(&cancel).on_wait(move |_| tell.send(()).unwrap()));
        let get = s.spawn(move || copy.get_with(5, options));
        waits.recv().unwrap();
        writer.append_batch(["4", "5"]).unwrap();
        gate.wait_for(1);
        cancel.cancel();
        assert_eq!(get.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        gate.open();
    });
    wait_for_length(&copy, 6);
    assert_eq!(copy.get(5).unwrap(), b"5");
}

#[test]
fn byte_stream_prefetches_blocks() {
    let _guard = parallel_test!();
    let writer = writer_of(vec!["ab"; 100]);
    for (prefetch, brought) in [(Some(0), 1), (Some(10), 11), (None, 33)] {
        let copy = copy_of(&writer);
        let downloads = Downloads::of(&copy);
        connect(&writer, &copy);
        assert!(ask_for_head(&copy));
        let options = ByteOptions::new();
        let options = prefetch.map_or(options.clone(), |blocks| options.prefetch(blocks));
        let mut stream = copy.byte_stream(options).unwrap();
        assert_eq!(stream.len(), 200);
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");
        downloads.assert_are(0..brought);
    }
}
