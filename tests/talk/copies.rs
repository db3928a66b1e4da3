//! Copies of logs that grow, are truncated, fork or are encrypted, over real connections.

use std::thread;

use hypercore::{Download, GetOptions, Hypercore, Memory, SessionOptions};

use crate::cores::{Downloads, Events, block, connect, copy_of, disconnect, wait_for_fork, wait_for_length, writer_of};
use crate::harness::parallel_test;

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn byte_counters_agree_on_both_sides() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let both = connect(&writer, &copy);
    copy.download(Download::range(0..5)).unwrap().wait().unwrap();
    disconnect(&both);
    let (one, other) = (both.0.counters(), both.1.counters());
    assert!(one.sent >= other.received && other.received > 0, "{one:?} {other:?}");
    assert!(other.sent >= one.received && one.received > 0, "{one:?} {other:?}");
}

#[test]
fn log_truncated_before_connecting_is_copied() {
    let _guard = parallel_test!();
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
fn log_truncated_while_connected_is_copied() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    let downloads = Downloads::of(&copy);
    connect(&writer, &copy);
    writer.append_batch(["a", "b", "c", "d", "e", "g", "h", "i", "j", "k"]).unwrap();
    writer.truncate(4).unwrap();
    writer.append_batch(["FORKED", "g", "h", "i", "j", "k"]).unwrap();
    wait_for_fork(&copy, 1);
    wait_for_length(&copy, 10);
    copy.download(Download::range(0..10)).unwrap().wait().unwrap();
    assert_eq!((copy.fork(), copy.get(4).unwrap()), (1, b"FORKED".to_vec()));
    downloads.assert_are(0..10);
}

#[test]
fn log_grown_block_by_block_is_copied() {
    let _guard = parallel_test!();
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
fn fork_made_while_disconnected_is_followed() {
    let _guard = parallel_test!();
    let writer = writer_of((0..50).map(|i| format!("data {i}")));
    let copy = copy_of(&writer);
    let both = connect(&writer, &copy);
    copy.download(Download::range(0..50)).unwrap().wait().unwrap();
    disconnect(&both);
    writer.truncate(30).unwrap();
    writer.append_batch((30..80).map(|i| format!("fork {i}"))).unwrap();
    connect(&writer, &copy);
    wait_for_fork(&copy, 1);
    copy.download(Download::range(0..80)).unwrap().wait().unwrap();
    for i in 0..80 {
        assert_eq!(copy.get(i).unwrap(), writer.get(i).unwrap(), "block {i}");
    }
}

#[test]
fn contiguous_length_grows_when_holes_are_filled() {
    let _guard = parallel_test!();
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
fn contiguous_length_shrinks_after_fork() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let copy = copy_of(&writer);
    let both = connect(&writer, &copy);
    copy.download(Download::range(0..5)).unwrap().wait().unwrap();
    disconnect(&both);
    writer.truncate(2).unwrap();
    writer.append("f").unwrap();
    assert_eq!(writer.contiguous_length().unwrap(), 3);
    connect(&writer, &copy);
    wait_for_fork(&copy, 1);
    copy.download(Download::range(0..3)).unwrap().wait().unwrap();
    assert_eq!((copy.len(), copy.contiguous_length().unwrap()), (3, 3));
}

/// The log fills the first page of the bitfield to its last bit, then grows by one block.
#[test]
fn log_longer_than_bitfield_page_is_copied() {
    let _guard = parallel_test!();
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
fn non_sparse_copy_length_counts_held_blocks() {
    let _guard = parallel_test!();
    let writer = writer_of(FIVE);
    let copy = Hypercore::options().key(writer.key()).sparse(false).open_in(Memory::new()).unwrap();
    let lengths = Events::new(|tell| {
        let shown = copy.session(SessionOptions::new()).unwrap();
        copy.on_append(move || tell.send((shown.len(), shown.contiguous_length().unwrap())).unwrap_or(()))
    });
    connect(&writer, &copy);
    let mut before = 0;
    while before < 5 {
        let (length, contiguous) = lengths.next();
        assert!(length > before || length == 5, "{length} after {before}");
        assert!(contiguous >= length);
        before = length;
    }
    assert!(copy.has_range(0..5).unwrap());
}

#[test]
fn encrypted_log_is_copied_by_peers_with_and_without_key() {
    let _guard = parallel_test!();
    let secret = [7; 32];
    let writer = Hypercore::options().encryption_key(secret).open_in(Memory::new()).unwrap();
    writer.append_batch(FIVE).unwrap();
    let knowing = Hypercore::options().key(writer.key()).encryption_key(secret).open_in(Memory::new()).unwrap();
    let blind = copy_of(&writer);
    connect(&writer, &knowing);
    // A peer without the key passes the blocks on.
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
    // Concurrent gets of one encrypted block both return it decrypted.
    writer.append("h").unwrap();
    thread::scope(|s| {
        let gets = [s.spawn(|| knowing.get(7)), s.spawn(|| knowing.get(7))];
        gets.into_iter().for_each(|get| assert_eq!(get.join().unwrap().unwrap(), b"h"));
    });
}

#[test]
fn encrypted_blocks_pass_through_peer_without_key() {
    let _guard = parallel_test!();
    let open = |key: Option<hypercore::Key>| {
        let options = Hypercore::options().encryption_key([9; 32]);
        let options = match key {
            Some(key) => options.key(key),
            None => options,
        };
        options.open_in(Memory::new()).unwrap()
    };
    let core = open(None);
    core.append_batch((0..10).map(block)).unwrap();
    let (copy, blind) = (open(Some(core.key())), copy_of(&core));
    // A peer without the key relays the blocks.
    let _one = connect(&blind, &core);
    blind.download(Download::range(0..10)).unwrap().wait().unwrap();
    let _other = connect(&copy, &blind);
    assert_eq!(copy.get(3).unwrap(), block(3));
    assert_eq!(copy.seek(10).unwrap(), core.seek(10).unwrap());
    assert!(!blind.get(3).unwrap().ends_with(&block(3)));
}
