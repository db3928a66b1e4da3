//! A log is copied: all of it, ranges, lists, what is to be had, in order, again, over lines that are cut; each block once.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use hypercore::net::{ConnectionOptions, Replication};
use hypercore::{ByteOptions, Cancel, Download, ErrorKind, GetOptions, Hypercore, Memory, SessionOptions};

use crate::cores::{Downloads, ask, cut, fork_to, writer_of};
use crate::fixture::{Ear, connect, copy_of, grow_to, story};
use crate::gated::Gated;

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn a_range_is_downloaded_each_block_once() {
    let _story = story("a_range_is_downloaded_each_block_once");
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
fn what_goes_over_the_line_is_counted_on_both_sides() {
    let _story = story("what_goes_over_the_line_is_counted_on_both_sides");
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let both = connect(&writer, &copy);
    copy.download(Download::range(0..5)).unwrap().wait().unwrap();
    cut(&both);
    let (one, other) = (both.0.counters(), both.1.counters());
    assert!(one.sent >= other.received && other.received > 0, "{one:?} {other:?}");
    assert!(other.sent >= one.received && one.received > 0, "{one:?} {other:?}");
}

#[test]
fn a_log_that_was_cut_before_is_copied_as_it_is() {
    let _story = story("a_log_that_was_cut_before_is_copied_as_it_is");
    let writer = writer_of(FIVE);
    writer.truncate(4).unwrap();
    writer.append("E").unwrap();
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(0..5)).unwrap().wait().unwrap();
    assert_eq!((copy.fork(), copy.get(4).unwrap()), (1, b"E".to_vec()));
    downloads.assert_are([0, 1, 2, 3, 4]);
}

#[test]
fn a_log_that_is_cut_while_it_is_connected_is_copied_as_it_is_now() {
    let _story = story("a_log_that_is_cut_while_it_is_connected_is_copied_as_it_is_now");
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    writer.append_batch(["a", "b", "c", "d", "e", "g", "h", "i", "j", "k"]).unwrap();
    writer.truncate(4).unwrap();
    writer.append_batch(["FORKED", "g", "h", "i", "j", "k"]).unwrap();
    fork_to(&copy, 1);
    grow_to(&copy, 10);
    copy.download(Download::range(0..10)).unwrap().wait().unwrap();
    assert_eq!((copy.fork(), copy.get(4).unwrap()), (1, b"FORKED".to_vec()));
    downloads.assert_are(0..10);
}

#[test]
fn a_log_that_grows_block_by_block_is_copied_whole() {
    let _story = story("a_log_that_grows_block_by_block_is_copied_whole");
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    (0..20).for_each(|_| assert!(writer.append("data").is_ok()));
    copy.download(Download::range(0..20)).unwrap().wait().unwrap();
    assert_eq!(copy.len(), 20);
    downloads.assert_are(0..20);
}

#[test]
fn a_copy_follows_a_fork_that_came_while_it_was_away() {
    let _story = story("a_copy_follows_a_fork_that_came_while_it_was_away");
    let writer = writer_of((0..50).map(|i| format!("data {i}")));
    let copy = copy_of(&writer);
    let both = connect(&writer, &copy);
    copy.download(Download::range(0..50)).unwrap().wait().unwrap();
    cut(&both);
    writer.truncate(30).unwrap();
    writer.append_batch((30..80).map(|i| format!("fork {i}"))).unwrap();
    connect(&writer, &copy);
    fork_to(&copy, 1);
    copy.download(Download::range(0..80)).unwrap().wait().unwrap();
    for i in 0..80 {
        assert_eq!(copy.get(i).unwrap(), writer.get(i).unwrap(), "block {i}");
    }
}

#[test]
fn a_list_of_blocks_is_downloaded_and_an_empty_one_is_done() {
    let _story = story("a_list_of_blocks_is_downloaded_and_an_empty_one_is_done");
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
fn ranges_may_come_in_any_order() {
    let _story = story("ranges_may_come_in_any_order");
    let writer = writer_of(["a", "b"]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(1..2)).unwrap().wait().unwrap();
    copy.download(Download::range(0..1)).unwrap().wait().unwrap();
    assert_eq!(downloads.until_closed(2), [1, 0]);
}

#[test]
fn the_contiguous_length_grows_over_holes_that_are_filled() {
    let _story = story("the_contiguous_length_grows_over_holes_that_are_filled");
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    assert_eq!((writer.contiguous_length().unwrap(), copy.contiguous_length().unwrap()), (5, 0));
    connect(&writer, &copy);
    for (blocks, contiguous) in [(vec![0, 2, 4], 1), (vec![1], 3), (vec![3], 5)] {
        copy.download(Download::blocks(blocks)).unwrap().wait().unwrap();
        assert_eq!(copy.contiguous_length().unwrap(), contiguous);
    }
}

#[test]
fn the_contiguous_length_shrinks_with_a_fork() {
    let _story = story("the_contiguous_length_shrinks_with_a_fork");
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let both = connect(&writer, &copy);
    copy.download(Download::range(0..5)).unwrap().wait().unwrap();
    cut(&both);
    writer.truncate(2).unwrap();
    writer.append("f").unwrap();
    assert_eq!(writer.contiguous_length().unwrap(), 3);
    connect(&writer, &copy);
    fork_to(&copy, 1);
    copy.download(Download::range(0..3)).unwrap().wait().unwrap();
    assert_eq!((copy.len(), copy.contiguous_length().unwrap()), (3, 3));
}

/// The first page of the bitfield full to its last bit, then one more.
#[test]
fn a_log_longer_than_a_page_of_the_bitfield_is_copied() {
    let _story = story("a_log_longer_than_a_page_of_the_bitfield_is_copied");
    let page = 1 << 15;
    let writer = writer_of(vec!["a"; page as usize]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(0..page)).unwrap().wait().unwrap();
    assert_eq!(copy.contiguous_length().unwrap(), page);
    writer.append("b").unwrap();
    copy.download(Download::range(0..page + 1)).unwrap().wait().unwrap();
    assert_eq!(copy.get(page).unwrap(), b"b");
    downloads.assert_are(0..page + 1);
}

#[test]
fn a_linear_download_goes_from_the_first_to_the_last() {
    let _story = story("a_linear_download_goes_from_the_first_to_the_last");
    let writer = writer_of((0..1000).map(|i| i.to_string()));
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    copy.download(Download::range(0..1000).linear(true)).unwrap().wait().unwrap();
    assert_eq!(downloads.until_closed(1000), (0..1000).collect::<Vec<_>>());
}

#[test]
fn what_is_available_is_downloaded_and_no_more_waited_for() {
    let _story = story("what_is_available_is_downloaded_and_no_more_waited_for");
    let writer = writer_of(FIVE);
    for (what, expected) in [(Download::blocks([1, 3, 6]), vec![1, 3]), (Download::range(2..6), vec![2, 3, 4])] {
        let copy = copy_of(&writer);
        let downloads = Downloads::of(&copy);
        connect(&writer, &copy);
        assert!(ask(&copy));
        copy.download(what.if_available(true)).unwrap().wait().unwrap();
        downloads.assert_are(expected);
    }
    // Without a peer nothing is available.
    let copy = copy_of(&writer);
    copy.download(Download::range(0..5).if_available(true)).unwrap().wait().unwrap();
    assert!(copy.is_empty());
}

#[test]
fn what_was_available_is_over_when_the_peer_leaves() {
    let _story = story("what_was_available_is_over_when_the_peer_leaves");
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let both: Arc<Mutex<Option<Replication>>> = Arc::default();
    let line = both.clone();
    let _subscription = copy.on_download(move |_, _, _| {
        if let Some(replication) = line.lock().unwrap().take() {
            replication.connection().close();
        }
    });
    let mut slot = both.lock().unwrap();
    let (_, ours) = connect(&writer, &copy);
    *slot = Some(ours);
    drop(slot);
    assert!(ask(&copy));
    copy.download(Download::blocks([1, 3, 6]).if_available(true)).unwrap().wait().unwrap();
    assert!(copy.has(1).unwrap() || copy.has(3).unwrap());
}

#[test]
fn only_what_a_peer_has_is_available_from_it() {
    let _story = story("only_what_a_peer_has_is_available_from_it");
    let writer = writer_of(FIVE);
    let (middle, last) = (copy_of(&writer), copy_of(&writer));
    connect(&writer, &middle);
    assert_eq!([2, 3].map(|i| middle.get(i).unwrap()), [b"c", b"d"]);
    connect(&middle, &last);
    assert!(ask(&last));
    last.download(Download::range(0..5).if_available(true)).unwrap().wait().unwrap();
    let held: Vec<u64> = (0..5).filter(|&i| last.has(i).unwrap()).collect();
    assert_eq!(held, [2, 3]);
}

#[test]
fn a_hole_in_what_is_here_is_filled_and_nothing_else_asked_for() {
    let _story = story("a_hole_in_what_is_here_is_filled_and_nothing_else_asked_for");
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
fn who_subscribes_while_a_block_is_stored_hears_of_it() {
    let _story = story("who_subscribes_while_a_block_is_stored_hears_of_it");
    let writer = writer_of(["a"]);
    let (storage, writing, release) = Gated::new();
    let copy = Hypercore::options().key(writer.key()).open_in(storage).unwrap();
    let _download = copy.download(Download::all()).unwrap();
    connect(&writer, &copy);
    writing.recv().unwrap();
    let ear = Ear::new(|tell| copy.on_download(move |index, _, _| _ = tell.send(index)));
    assert!(!copy.has(0).unwrap());
    release.send(()).unwrap();
    assert_eq!(ear.hear(), 0);
    assert!(copy.has(0).unwrap());
}

#[test]
fn gets_outlive_the_line_that_was_to_bring_them() {
    let _story = story("gets_outlive_the_line_that_was_to_bring_them");
    let writer = writer_of((0..33).map(|i| format!("#{i}")));
    let copy = copy_of(&writer);
    let ear = Ear::new(|tell| copy.on_download(move |_, _, _| tell.send(()).unwrap_or(())));
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
        ear.hear();
        cut(&both);
        connect(&writer, &copy);
        for (i, get) in gets {
            assert_eq!(get.join().unwrap().unwrap(), format!("#{i}").into_bytes());
        }
    });
}

#[test]
fn two_who_wait_for_a_block_ask_for_it_once() {
    let _story = story("two_who_wait_for_a_block_ask_for_it_once");
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    let uploads = Ear::new(|tell| writer.on_upload(move |index, _, _| tell.send(index).unwrap_or(())));
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
    assert_eq!((uploads.hear(), uploads.hear()), (2, 4));
}

#[test]
fn who_does_not_wait_gets_none_where_others_get_the_block() {
    let _story = story("who_does_not_wait_gets_none_where_others_get_the_block");
    let writer = writer_of(["a"]);
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    assert_eq!(copy.get_with(0, GetOptions::new().wait(false)).unwrap(), None);
    assert_eq!(copy.get(0).unwrap(), b"a");
    assert_eq!(copy.get_with(0, GetOptions::new().wait(false)).unwrap(), Some(b"a".to_vec()));
}

#[test]
fn a_copy_that_is_not_sparse_is_as_long_as_what_it_has() {
    let _story = story("a_copy_that_is_not_sparse_is_as_long_as_what_it_has");
    let writer = writer_of(FIVE);
    let copy = Hypercore::options().key(writer.key()).sparse(false).open_in(Memory::new()).unwrap();
    let lengths = Ear::new(|tell| {
        let shown = copy.session(SessionOptions::new()).unwrap();
        copy.on_append(move || tell.send((shown.len(), shown.contiguous_length().unwrap())).unwrap_or(()))
    });
    connect(&writer, &copy);
    let mut before = 0;
    while before < 5 {
        let (length, contiguous) = lengths.hear();
        assert!(length > before || length == 5, "{length} after {before}");
        assert!(contiguous >= length);
        before = length;
    }
    assert!(copy.has_range(0..5).unwrap());
}

#[test]
fn a_session_that_closes_ends_its_own_waits_alone() {
    let _story = story("a_session_that_closes_ends_its_own_waits_alone");
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

#[test]
fn a_cancelled_wait_does_not_stop_the_log_from_growing() {
    let _story = story("a_cancelled_wait_does_not_stop_the_log_from_growing");
    let writer = writer_of(["0", "1", "2", "3"]);
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    grow_to(&copy, 4);
    let cancel = Cancel::new();
    let cancelling = cancel.clone();
    let _subscription = writer.on_upload(move |_, _, _| cancelling.cancel());
    thread::scope(|s| {
        let (tell, waits) = channel();
        let (copy, cancel) = (&copy, &cancel);
        let options = GetOptions::new().cancel(cancel).on_wait(move |_| tell.send(()).unwrap());
        let get = s.spawn(move || copy.get_with(5, options));
        waits.recv().unwrap();
        writer.append_batch(["4", "5"]).unwrap();
        grow_to(copy, 6);
        // It may have been quicker than the cancel.
        assert!(matches!(get.join().unwrap().map_err(|e| e.kind()), Ok(Some(_)) | Err(ErrorKind::Cancelled)));
    });
    assert_eq!(copy.get(5).unwrap(), b"5");
}

#[test]
fn sessions_that_come_and_go_lose_and_repeat_nothing() {
    let _story = story("sessions_that_come_and_go_lose_and_repeat_nothing");
    let writer = writer_of(vec!["x"; 500]);
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    let ear = Ear::new(|tell| copy.on_download(move |_, _, _| tell.send(()).unwrap_or(())));
    loop {
        let missing: Vec<u64> = (0..100).filter(|&i| !copy.has(i).unwrap()).collect();
        if missing.is_empty() {
            break;
        }
        let session = copy.session(SessionOptions::new()).unwrap();
        let coming = session.download(Download::blocks(missing)).unwrap();
        ear.hear();
        session.close().unwrap();
        assert!(coming.is_done());
    }
    downloads.assert_are(0..100);
}

#[test]
fn a_block_that_one_peer_fails_to_bring_comes_from_another() {
    let _story = story("a_block_that_one_peer_fails_to_bring_comes_from_another");
    let writer = writer_of(["1", "2", "3"]);
    let (other, copy) = (copy_of(&writer), copy_of(&writer));
    connect(&writer, &other);
    other.download(Download::range(0..3)).unwrap().wait().unwrap();
    // Whoever is asked first is cut off.
    let denied = Arc::new(AtomicBool::new(false));
    let (tell, denials) = channel();
    let mut keep = Vec::new();
    for source in [&writer, &other] {
        let (theirs, _) = connect(source, &copy);
        let (denied, tell) = (denied.clone(), tell.clone());
        keep.push(source.on_upload(move |_, _, _| {
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
fn an_encrypted_log_travels_encrypted() {
    let _story = story("an_encrypted_log_travels_encrypted");
    let secret = [7; 32];
    let writer = Hypercore::options().encryption_key(secret).open_in(Memory::new()).unwrap();
    writer.append_batch(FIVE).unwrap();
    let knowing = Hypercore::options().key(writer.key()).encryption_key(secret).open_in(Memory::new()).unwrap();
    let blind = copy_of(&writer);
    connect(&writer, &knowing);
    // Who has no key passes it on all the same.
    connect(&knowing, &blind);
    knowing.download(Download::range(0..5)).unwrap().wait().unwrap();
    blind.download(Download::range(0..5)).unwrap().wait().unwrap();
    writer.append_batch(["f", "g"]).unwrap();
    for i in 0..7 {
        let stored = writer.get_with(i, GetOptions::new().decrypt(false)).unwrap().unwrap();
        assert_eq!(knowing.get(i).unwrap(), writer.get(i).unwrap());
        assert_eq!(blind.get(i).unwrap(), stored);
        assert_eq!(stored.len(), 9);
    }
    // Many who wait for one encrypted block get the same.
    writer.append("h").unwrap();
    thread::scope(|s| {
        let gets = [s.spawn(|| knowing.get(7)), s.spawn(|| knowing.get(7))];
        gets.into_iter().for_each(|get| assert_eq!(get.join().unwrap().unwrap(), b"h"));
    });
}

#[test]
fn a_stream_of_bytes_fetches_ahead_of_its_reader() {
    let _story = story("a_stream_of_bytes_fetches_ahead_of_its_reader");
    let writer = writer_of(vec!["ab"; 100]);
    for (prefetch, brought) in [(Some(0), 1), (Some(10), 11), (None, 33)] {
        let copy = copy_of(&writer);
        let downloads = Downloads::of(&copy);
        connect(&writer, &copy);
        assert!(ask(&copy));
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

#[test]
fn a_download_without_an_end_goes_on_without_its_handle() {
    let _story = story("a_download_without_an_end_goes_on_without_its_handle");
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
fn a_cancelled_download_brings_nothing_more() {
    let _story = story("a_cancelled_download_brings_nothing_more");
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
    grow_to(&copy, 3);
    assert_eq!(copy.get(2).unwrap(), b"c");
    downloads.assert_are([0, 2]);
}

#[test]
fn connections_keep_quiet_and_wait_as_long_as_is_said() {
    let options = format!("{:?}", ConnectionOptions::default());
    for default in ["handshake_timeout: 10s", "idle_timeout: 30s", "keep_alive: 5s", "key_pair: None"] {
        assert!(options.contains(default), "{default} in {options}");
    }
}
