//! A copy follows the head of its peer: appends, updates, seeks, snapshots, forks, conflicts, manifests
//! and live streams.

use std::sync::mpsc::channel;
use std::thread;

use hypercore::{
    Download, ErrorKind, GetOptions, Hypercore, KeyPair, Manifest, Memory, SeekOptions, SessionOptions, Signer,
    UpdateOptions,
};

use crate::cores::{
    Events, ask_for_head, block, connect, connection, copy_of, disconnect, wait_for_fork, wait_for_length,
    wait_for_peer, writer, writer_of,
};
use crate::harness::parallel_test;

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn append_reaches_peer_without_update() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    for length in 1..=3 {
        writer.append("x").unwrap();
        wait_for_length(&copy, length);
        assert_eq!(copy.peers()[0].remote_length(), length);
    }
    writer.truncate(1).unwrap();
    wait_for_fork(&copy, 1);
    let peer = &copy.peers()[0];
    assert_eq!((copy.len(), peer.remote_length(), peer.remote_fork()), (1, 1, 1));
}

#[test]
fn update_of_empty_log_returns_false() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    wait_for_peer(&copy);
    assert!(!copy.update().unwrap());
    assert!(!ask_for_head(&copy));
    assert!(copy.is_empty());
}

#[test]
fn update_while_finding_peers_waits_for_first_peer() {
    let _guard = parallel_test!();
    let writer = writer_of(["hi"]);
    let copy = copy_of(&writer);
    assert!(!copy.update().unwrap());
    let finding = copy.finding_peers();
    thread::scope(|s| {
        let update = s.spawn(|| copy.update());
        connect(&writer, &copy);
        // The result of the update is not compared: the head may have come before it began.
        update.join().unwrap().unwrap();
        assert_eq!(copy.len(), 1);
    });
    finding.done();
}

#[test]
fn update_ends_when_finding_peers_ends() {
    let _guard = parallel_test!();
    let copy = copy_of(&writer_of(["hi"]));
    let finding = copy.finding_peers();
    thread::scope(|s| {
        let update = s.spawn(|| copy.update());
        finding.done();
        assert!(!update.join().unwrap().unwrap());
    });
}

#[test]
fn update_of_writer_asks_peers_only_with_force() {
    let _guard = parallel_test!();
    let pair = KeyPair::from_seed(&[3; 32]);
    let open = || Hypercore::options().key_pair(pair.clone()).open_in(Memory::new()).unwrap();
    let (one, other) = (open(), open());
    one.append_batch(FIVE).unwrap();
    assert!(!other.update_with(UpdateOptions::new().wait(true)).unwrap());
    connect(&one, &other);
    other.update_with(UpdateOptions::new().force(true).wait(true)).unwrap();
    assert_eq!((other.len(), other.get(4).unwrap()), (5, b"e".to_vec()));
    assert!(other.writable());
}

#[test]
fn replicate_on_same_connection_twice_joins_once() {
    let _guard = parallel_test!();
    let writer = writer_of(["hi"]);
    let copy = copy_of(&writer);
    let (ours, theirs) = connection();
    writer.replicate_on(&ours).unwrap();
    copy.replicate_on(&theirs).unwrap();
    copy.replicate_on(&theirs).unwrap();
    ask_for_head(&copy);
    assert_eq!(copy.len(), 1);
    assert!(!writer.update_with(UpdateOptions::new().wait(true)).unwrap());
    assert!(!ask_for_head(&copy));
    assert_eq!((copy.peers().len(), writer.peers().len()), (1, 1));
}

#[test]
fn seek_waits_for_block_of_peer() {
    let _guard = parallel_test!();
    let writer = Hypercore::in_memory().unwrap();
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    assert_eq!(copy.seek_with(6, SeekOptions::new().wait(false)).unwrap(), None);
    thread::scope(|s| {
        let seek = s.spawn(|| copy.seek(6));
        writer.append_batch(["hello", "this", "is", "test", "data"]).unwrap();
        assert_eq!(seek.join().unwrap().unwrap(), (1, 1));
    });
    assert_eq!(writer.seek_with(6, SeekOptions::new().wait(false)).unwrap(), Some((1, 1)));
}

#[test]
fn seek_with_only_last_block_asks_peer() {
    let _guard = parallel_test!();
    let writer = writer_of(('a'..='n').map(String::from));
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    copy.get(13).unwrap();
    for byte in 0..14 {
        assert_eq!(copy.seek(byte).unwrap(), (byte, 0));
    }
}

/// A get has an implicit snapshot: it asks for the block of the log as it was when it was called.
#[test]
fn get_across_fork_fails_with_snapshot_not_available() {
    let _guard = parallel_test!();
    let writer = writer_of(["block #0.0", "block #1.0", "block #2.0"]);
    let copy = copy_of(&writer);
    let cuts = |core: &Hypercore| Events::new(|tell| core.on_truncate(move |at, _| tell.send(at).unwrap_or(())));
    let (cut_here, cut_there) = (cuts(&writer), cuts(&copy));
    let both = connect(&writer, &copy);
    assert_eq!(copy.get(0).unwrap(), b"block #0.0");
    disconnect(&both);
    let ranges = [&writer, &copy].map(|core| core.download(Download::range(0..4)).unwrap());
    let (tell, waits) = channel();
    thread::scope(|s| {
        let gets = [1, 2].map(|i| {
            let (copy, tell) = (&copy, tell.clone());
            s.spawn(move || copy.get_with(i, GetOptions::new().on_wait(move |_| tell.send(()).unwrap())))
        });
        waits.recv().unwrap();
        waits.recv().unwrap();
        writer.truncate(2).unwrap();
        writer.append_batch(["block #2.1", "block #3.1"]).unwrap();
        connect(&writer, &copy);
        let [same, other] = gets.map(|get| get.join().unwrap());
        assert_eq!(same.unwrap(), Some(b"block #1.0".to_vec()));
        assert_eq!(other.unwrap_err().kind(), ErrorKind::SnapshotNotAvailable);
    });
    assert_eq!((cut_here.next(), cut_there.next()), (2, 2));
    assert_eq!(copy.get(2).unwrap(), b"block #2.1");
    ranges.iter().for_each(|range| range.wait().unwrap());
}

#[test]
fn snapshot_of_copy_keeps_length_across_fork() {
    let _guard = parallel_test!();
    let writer = writer_of(["block #0.0", "block #1.0", "block #2.0"]);
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    wait_for_length(&copy, 3);
    let snapshot = copy.snapshot().unwrap();
    assert_eq!((snapshot.len(), snapshot.get(1).unwrap()), (3, b"block #1.0".to_vec()));
    writer.truncate(1).unwrap();
    writer.append_batch(["block #1.1", "block #2.1"]).unwrap();
    wait_for_fork(&copy, 1);
    assert_eq!((snapshot.len(), snapshot.fork()), (3, 0));
    assert_eq!(snapshot.get(0).unwrap(), b"block #0.0");
    for index in [1, 2] {
        assert_eq!(snapshot.get(index).unwrap_err().kind(), ErrorKind::SnapshotNotAvailable);
    }
}

#[test]
fn two_logs_of_one_key_conflict_on_both_sides() {
    let _guard = parallel_test!();
    let pair = KeyPair::from_seed(&[4; 32]);
    let open = || Hypercore::options().key_pair(pair.clone()).open_in(Memory::new()).unwrap();
    let (one, other) = (open(), open());
    one.append_batch(FIVE).unwrap();
    other.append_batch(["a", "b", "c", "d", "f", "e"]).unwrap();
    let copy = copy_of(&one);
    let both = connect(&one, &copy);
    assert_eq!(copy.get(2).unwrap(), b"c");
    disconnect(&both);
    let conflicts = [&copy, &other]
        .map(|core| Events::new(|tell| core.on_conflict(move |length, fork| tell.send((length, fork)).unwrap_or(()))));
    connect(&other, &copy);
    assert_eq!(conflicts.each_ref().map(Events::next), [(5, 0), (5, 0)]);
    let never = copy.session(SessionOptions::new().wait(false)).unwrap();
    assert_eq!(never.get(4).unwrap_err().kind(), ErrorKind::BlockNotAvailable);
    assert_eq!((copy.len(), copy.get(2).unwrap()), (5, b"c".to_vec()));
}

#[test]
fn manifest_of_empty_log_reaches_copies() {
    let _guard = parallel_test!();
    let pair = KeyPair::from_seed(&[5; 32]);
    let writer = Hypercore::options().key_pair(pair.clone()).compat(false).open_in(Memory::new()).unwrap();
    let (middle, last) = (copy_of(&writer), copy_of(&writer));
    assert_eq!((middle.manifest(), last.manifest()), (None, None));
    let learnt = [&middle, &last].map(|core| Events::new(|tell| core.on_manifest(move || tell.send(()).unwrap_or(()))));
    connect(&writer, &middle);
    connect(&middle, &last);
    for (core, events) in [&middle, &last].into_iter().zip(&learnt) {
        events.next();
        assert_eq!(core.manifest(), Some(Manifest::single(pair.public_key())));
    }
    assert!(writer.is_empty() && last.is_empty());
}

#[test]
fn live_stream_of_copy_follows_appends() {
    let _guard = parallel_test!();
    let writer = writer_of(["0"]);
    let copy = copy_of(&writer);
    connect(&writer, &copy);
    let mut stream = copy.read_stream(hypercore::ReadOptions::new().live(true)).unwrap();
    for i in 1..30 {
        assert_eq!(stream.next().unwrap().unwrap(), (i - 1).to_string().as_bytes());
        writer.append(i.to_string()).unwrap();
    }
    copy.close().unwrap();
    assert!(stream.all(|block| block.is_ok()));
}

#[test]
fn snapshot_stays_unchanged_while_log_changes() {
    let _guard = parallel_test!();
    let core = writer(10);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    // The ancestor of the two forks is found only among blocks held here.
    copy.download(Download::range(0..9)).unwrap().wait().unwrap();
    let snapshot = copy.snapshot().unwrap();
    core.append(block(10)).unwrap();
    wait_for_length(&copy, 11);
    assert_eq!((snapshot.len(), copy.len()), (10, 11));
    // The block is absent here but part of the snapshot, so it is fetched.
    assert_eq!(snapshot.get(9).unwrap(), block(9));
    assert_eq!(snapshot.get(10).unwrap_err().kind(), ErrorKind::SnapshotNotAvailable);
    let truncated = Events::new(|tell| copy.on_truncate(move |ancestors, fork| tell.send((ancestors, fork)).unwrap()));
    core.truncate(5).unwrap();
    core.append_batch(["new 5", "new 6"]).unwrap();
    assert_eq!(truncated.next(), (5, 1));
    assert_eq!(snapshot.len(), 10);
    assert_eq!(snapshot.get(6).unwrap_err().kind(), ErrorKind::SnapshotNotAvailable);
    assert_eq!(snapshot.get(4).unwrap(), block(4));
    wait_for_length(&copy, 7);
    assert_eq!(copy.get(6).unwrap(), b"new 6");
    assert_eq!((copy.fork(), copy.tree_hash().unwrap()), (1, core.tree_hash().unwrap()));
}

#[test]
fn repeated_forks_are_followed() {
    let _guard = parallel_test!();
    let core = writer(64);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    copy.download(Download::range(0..64)).unwrap().wait().unwrap();
    let _all = copy.download(Download::all()).unwrap();
    for (round, cut) in [40, 63, 1, 0].into_iter().enumerate() {
        let grown = Events::new(|tell| copy.on_append(move || tell.send(()).unwrap()));
        core.truncate(cut).unwrap();
        core.append_batch((cut..64).map(|i| format!("{round}:{i}"))).unwrap();
        while copy.tree_hash().unwrap() != core.tree_hash().unwrap() {
            grown.next();
        }
        assert_eq!(copy.get(63).unwrap(), core.get(63).unwrap());
        assert_eq!(copy.fork(), round as u64 + 1);
    }
}

#[test]
fn manifest_is_learned_with_first_block() {
    let _guard = parallel_test!();
    let pair = KeyPair::from_seed(&[3; 32]);
    let manifest = Manifest::new(vec![Signer::new(pair.public_key())]);
    let core = Hypercore::options().manifest(manifest.clone()).key_pair(pair).open_in(Memory::new()).unwrap();
    core.append_batch((0..5).map(block)).unwrap();
    let copy = copy_of(&core);
    assert_eq!(copy.manifest(), None);
    let learnt = Events::new(|tell| copy.on_manifest(move || tell.send(()).unwrap()));
    let _connected = connect(&copy, &core);
    assert_eq!(copy.get(4).unwrap(), block(4));
    learnt.next();
    assert_eq!(copy.manifest(), Some(manifest));
}

#[test]
fn conflict_is_reported_and_keeps_blocks() {
    let _guard = parallel_test!();
    let pair = KeyPair::from_seed(&[5; 32]);
    let open = || Hypercore::options().key_pair(pair.clone()).open_in(Memory::new()).unwrap();
    let (one, other) = (open(), open());
    assert_eq!(one.key(), other.key());
    one.append_batch(["same", "one", "x"]).unwrap();
    other.append_batch(["same", "other", "y", "z"]).unwrap();
    let queues =
        [&one, &other].map(|core| Events::new(|tell| core.on_conflict(move |l, f| tell.send((l, f)).unwrap())));
    let (ours, _theirs) = connect(&one, &other);
    // The side that detects the conflict first sends the other its proof.
    assert_eq!(queues[0].next(), (3, 0));
    assert_eq!(queues[1].next(), (3, 0));
    assert_eq!(one.get(1).unwrap(), b"one");
    assert_eq!(other.get(3).unwrap(), b"z");
    assert!(one.peers().is_empty());
    assert_eq!(one.append("still writable").unwrap().length, 4);
    drop(ours);
}
