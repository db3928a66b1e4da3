//! Downloads over real connections: ranges, lists, linear and if-available downloads, their cancellation, and blocks
//! that come from another peer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hypercore::net::Replication;
use hypercore::{Download, ErrorKind, Hypercore, Memory, SessionOptions};

use crate::common::{Call, Hooked};
use crate::cores::{Downloads, Events, ask_for_head, block, connect, copy_of, wait_for_length, writer, writer_of};
use crate::harness::parallel_test;

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Long enough for an event that must not happen to show up.
const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn download_older_than_connection_can_be_cancelled() {
    let _guard = parallel_test!();
    let core = writer(2);
    let copy = copy_of(&core);
    let all = copy.download(Download::all()).unwrap();
    let events = Events::new(|tell| copy.on_download(move |block| tell.send(block.index).unwrap()));
    let _connected = connect(&copy, &core);
    assert_eq!(events.next() + events.next(), 1);
    all.cancel();
    core.append_batch((2..10).map(block)).unwrap();
    assert_eq!(copy.get(9).unwrap(), block(9));
    assert!(!copy.has(2).unwrap() && !copy.has(8).unwrap(), "a cancelled download went on");
}

/// As in the reference, a download outlives its connections and continues with the next peer.
#[test]
fn download_survives_last_peer_leaving() {
    let _guard = parallel_test!();
    let core = writer(40);
    let half = copy_of(&core);
    let (to_half, _) = connect(&half, &core);
    half.download(Download::range(0..20)).unwrap().wait().unwrap();
    to_half.connection().close();
    let copy = copy_of(&core);
    let (ours, _theirs) = connect(&copy, &half);
    let download = copy.download(Download::range(0..40)).unwrap();
    thread::scope(|s| {
        let waiting = s.spawn(|| download.wait());
        copy.download(Download::range(0..20)).unwrap().wait().unwrap();
        ours.connection().close();
        assert!(copy.peers().is_empty());
        assert_eq!(download.wait_timeout(MOMENT).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(!download.is_done() && !waiting.is_finished());
        assert_eq!((download.progress().unwrap().blocks, download.progress().unwrap().total), (20, 40));
        let _connected = connect(&copy, &core);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
}

#[test]
fn downloads_fetch_exactly_requested_blocks() {
    let _guard = parallel_test!();
    let core = writer(100);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    let range = copy.download(Download::range(10..20)).unwrap();
    range.wait().unwrap();
    assert!(range.is_done());
    assert_eq!((range.progress().unwrap().blocks, range.progress().unwrap().total), (10, 10));
    assert!(copy.has_range(10..20).unwrap() && !copy.has(9).unwrap() && !copy.has(20).unwrap());

    let list = copy.download(Download::blocks([90, 3, 3, 50])).unwrap();
    list.wait().unwrap();
    assert!([3, 50, 90].iter().all(|&index| copy.has(index).unwrap()) && !copy.has(4).unwrap());

    let order = Events::new(|tell| copy.on_download(move |block| tell.send((block.index, block.byte_length)).unwrap()));
    copy.download(Download::range(60..80).linear(true)).unwrap().wait().unwrap();
    for index in 60..80 {
        assert_eq!(order.next(), (index, block(index).len() as u64));
    }

    // A download without end continues when its handle is dropped, and follows the log.
    let events = Events::new(|tell| copy.on_download(move |block| tell.send(block.index).unwrap()));
    drop(copy.download(Download::all()).unwrap());
    while copy.contiguous_length().unwrap() < 100 {
        events.next();
    }
    core.append(block(100)).unwrap();
    while !copy.has(100).unwrap() {
        events.next();
    }
}

#[test]
fn if_available_download_skips_cleared_blocks() {
    let _guard = parallel_test!();
    let core = writer(20);
    core.clear(5..10).unwrap();
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    wait_for_length(&copy, 20);
    let available = copy.download(Download::range(0..20).if_available(true)).unwrap();
    available.wait().unwrap();
    assert_eq!(available.progress().unwrap().blocks, 15);
    assert_eq!(copy.contiguous_length().unwrap(), 5);
}

#[test]
fn download_ends_with_its_session() {
    let _guard = parallel_test!();
    let core = writer(20);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    wait_for_length(&copy, 20);
    let session = copy.session(SessionOptions::new()).unwrap();
    let following = session.download(Download::all()).unwrap();
    core.append(block(20)).unwrap();
    assert_eq!(copy.get(20).unwrap(), block(20));
    drop(session);
    assert_eq!(following.wait().unwrap_err().kind(), ErrorKind::Closed);
    core.append_batch((21..30).map(block)).unwrap();
    assert_eq!(copy.get(29).unwrap(), block(29));
    assert!(!copy.has(25).unwrap(), "the download outlived its session");
}

#[test]
fn non_sparse_core_downloads_all_blocks() {
    let _guard = parallel_test!();
    let core = writer(40);
    let copy = Hypercore::options().key(core.key()).sparse(false).open_in(Memory::new()).unwrap();
    assert_eq!(copy.len(), 0);
    let _connected = connect(&copy, &core);
    wait_for_length(&copy, 40);
    assert!(copy.has_range(0..40).unwrap());
    core.append(block(40)).unwrap();
    wait_for_length(&copy, 41);
    assert!(copy.has(40).unwrap());
}

#[test]
fn range_download_fetches_each_block_once() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(0..5)).unwrap().wait().unwrap();
    assert_eq!((copy.len(), copy.contiguous_length().unwrap(), copy.byte_length()), (5, 5, 5));
    assert_eq!(copy.get(3).unwrap(), b"d");
    downloads.assert_are([0, 1, 2, 3, 4]);
}

#[test]
fn block_list_download_fetches_only_listed_blocks() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::blocks([])).unwrap().wait().unwrap();
    copy.download(Download::blocks([0, 2, 3])).unwrap().wait().unwrap();
    assert_eq!([0, 2, 3].map(|i| copy.get(i).unwrap()), [b"a", b"c", b"d"]);
    downloads.assert_are([0, 2, 3]);
}

#[test]
fn ranges_downloaded_in_reverse_order_arrive() {
    let _guard = parallel_test!();
    let writer = writer_of(["a", "b"]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(1..2)).unwrap().wait().unwrap();
    copy.download(Download::range(0..1)).unwrap().wait().unwrap();
    assert_eq!(downloads.until_closed(2), [1, 0]);
}

#[test]
fn linear_download_fetches_in_order() {
    let _guard = parallel_test!();
    let writer = writer_of((0..1000).map(|i| i.to_string()));
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(0..1000).linear(true)).unwrap().wait().unwrap();
    assert_eq!(downloads.until_closed(1000), (0..1000).collect::<Vec<_>>());
}

#[test]
fn if_available_download_ends_without_absent_blocks() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    for (what, expected) in [(Download::blocks([1, 3, 6]), vec![1, 3]), (Download::range(2..6), vec![2, 3, 4])] {
        let copy = copy_of(&writer);
        let downloads = Downloads::of(&copy);
        connect(&writer, &copy);
        assert!(ask_for_head(&copy));
        copy.download(what.if_available(true)).unwrap().wait().unwrap();
        downloads.assert_are(expected);
    }
    // Without a peer no block is available, and the download ends.
    let copy = copy_of(&writer);
    copy.download(Download::range(0..5).if_available(true)).unwrap().wait().unwrap();
    assert!(copy.is_empty());
}

#[test]
fn if_available_download_ends_when_peer_leaves() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let both: Arc<Mutex<Option<Replication>>> = Arc::default();
    let line = both.clone();
    let _subscription = copy.on_download(move |_| {
        if let Some(replication) = line.lock().unwrap().take() {
            replication.connection().close();
        }
    });
    let mut slot = both.lock().unwrap();
    let (_, ours) = connect(&writer, &copy);
    *slot = Some(ours);
    drop(slot);
    assert!(ask_for_head(&copy));
    copy.download(Download::blocks([1, 3, 6]).if_available(true)).unwrap().wait().unwrap();
    assert!(copy.has(1).unwrap() || copy.has(3).unwrap());
}

#[test]
fn if_available_download_fetches_only_what_peer_holds() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let (middle, last) = (copy_of(&writer), copy_of(&writer));
    connect(&writer, &middle);
    assert_eq!([2, 3].map(|i| middle.get(i).unwrap()), [b"c", b"d"]);
    connect(&middle, &last);
    assert!(ask_for_head(&last));
    last.download(Download::range(0..5).if_available(true)).unwrap().wait().unwrap();
    let held: Vec<u64> = (0..5).filter(|&i| last.has(i).unwrap()).collect();
    assert_eq!(held, [2, 3]);
}

#[test]
fn repeated_range_download_fetches_only_missing_block() {
    let _guard = parallel_test!();
    let writer = writer_of(vec!["x"; 100]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(0..100)).unwrap().wait().unwrap();
    copy.clear(99..100).unwrap();
    assert_eq!(copy.contiguous_length().unwrap(), 99);
    for _ in 0..200 {
        copy.download(Download::range(0..100)).unwrap().wait().unwrap();
    }
    assert_eq!(copy.contiguous_length().unwrap(), 100);
    let brought = downloads.until_closed(101);
    assert_eq!((brought.len(), brought.last()), (101, Some(&99)));
}

#[test]
fn subscriber_added_during_commit_is_notified_of_block() {
    let _guard = parallel_test!();
    let writer = writer_of(["a"]);
    let storage = Hooked::memory();
    let gate = storage.gate(|name, call| name == "data" && matches!(call, Call::Write { .. }));
    gate.shut();
    let copy = Hypercore::options().key(writer.key()).open_in(storage).unwrap();
    let _download = copy.download(Download::all()).unwrap();
    connect(&writer, &copy);
    gate.wait_for(1);
    let events = Events::new(|tell| copy.on_download(move |block| _ = tell.send(block.index)));
    assert!(!copy.has(0).unwrap());
    gate.open();
    assert_eq!(events.next(), 0);
    assert!(copy.has(0).unwrap());
}

#[test]
fn downloads_of_short_sessions_fetch_each_block_once() {
    let _guard = parallel_test!();
    let writer = writer_of(vec!["x"; 500]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    let events = Events::new(|tell| copy.on_download(move |_| tell.send(()).unwrap_or(())));
    loop {
        let missing: Vec<u64> = (0..100).filter(|&i| !copy.has(i).unwrap()).collect();
        if missing.is_empty() {
            break;
        }
        let session = copy.session(SessionOptions::new()).unwrap();
        let coming = session.download(Download::blocks(missing)).unwrap();
        events.next();
        session.close().unwrap();
        assert!(coming.is_done());
    }
    downloads.assert_are(0..100);
}

#[test]
fn get_from_vanished_peer_asks_other_peer() {
    let _guard = parallel_test!();
    let writer = writer_of(["1", "2", "3"]);
    let (other, copy) = (copy_of(&writer), copy_of(&writer));
    connect(&writer, &other);
    other.download(Download::range(0..3)).unwrap().wait().unwrap();
    // The source that is asked first closes its connection.
    let denied = Arc::new(AtomicBool::new(false));
    let (tell, denials) = channel();
    let mut keep = Vec::new();
    for source in [&writer, &other] {
        let (theirs, _) = connect(source, &copy);
        let (denied, tell) = (denied.clone(), tell.clone());
        keep.push(source.on_upload(move |_| {
            if !denied.swap(true, Ordering::SeqCst) {
                theirs.connection().close();
                tell.send(()).unwrap();
            }
        }));
    }
    assert_eq!(copy.get(0).unwrap(), b"1");
    denials.recv().unwrap();
    assert_eq!([1, 2].map(|i| copy.get(i).unwrap()), [b"2", b"3"]);
}

#[test]
fn endless_download_continues_after_its_handle_drops() {
    let _guard = parallel_test!();
    let writer = writer_of(["a"]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    drop(copy.download(Download::all()).unwrap());
    connect(&writer, &copy);
    writer.append_batch(["b", "c"]).unwrap();
    writer.append("d").unwrap();
    downloads.assert_are(0..4);
}

#[test]
fn cancelled_download_fetches_nothing_more() {
    let _guard = parallel_test!();
    let writer = writer_of(["a"]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    let download = copy.download(Download::all()).unwrap();
    let first = copy.download(Download::range(0..1)).unwrap();
    first.wait().unwrap();
    let progress = download.progress().unwrap();
    assert_eq!((progress.blocks, progress.total), (1, 1));
    download.cancel();
    assert_eq!(download.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    writer.append_batch(["b", "c"]).unwrap();
    wait_for_length(&copy, 3);
    assert_eq!(copy.get(2).unwrap(), b"c");
    downloads.assert_are([0, 2]);
}
