//! Cores that replicate with real threads: what a caller asks for comes, or the call ends as it should.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use hypercore::net::{Connection, ConnectionOptions, Role, Server, pipe};
use hypercore::{
    Cancel, Download, ErrorKind, GetOptions, Hypercore, KeyPair, Manifest, Memory, SeekOptions, SessionOptions, Signer,
    UpdateOptions,
};

use crate::fixture::{Ear, block, connect, connection, copy_of, grow_to, story, streams, tcp, writer};
use crate::raw_peer::Gate;

/// Long enough for what must not happen to happen.
const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn absent_blocks_are_asked_of_the_network_over_any_stream() {
    let _story = story("absent_blocks_are_asked_of_the_network_over_any_stream");
    for (kind, replicate) in streams() {
        let core = writer(10);
        let copy = copy_of(&core);
        let [ours, theirs] = replicate(&copy, &core);
        assert_eq!(copy.get(7).unwrap(), block(7), "{kind}");
        assert_eq!(copy.len(), 10);
        assert!(!copy.has(6).unwrap(), "{kind}: only what is asked for is downloaded");
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

#[test]
fn peers_know_each_other_by_their_keys() {
    let _story = story("peers_know_each_other_by_their_keys");
    let core = writer(1);
    let copy = copy_of(&core);
    let pair = KeyPair::from_seed(&[7; 32]);
    let (a, b) = pipe();
    let options = ConnectionOptions::new().key_pair(pair.clone());
    let ours = Connection::open(a, Role::Initiator, options).unwrap();
    assert_eq!(ours.remote_public_key(), None);
    let added = Ear::new(|tell| core.on_peer_add(move |peer| tell.send(peer.clone()).unwrap()));
    let removed = Ear::new(|tell| core.on_peer_remove(move |peer| tell.send(peer.id()).unwrap()));
    copy.replicate_on(&ours).unwrap();
    let theirs = core.replicate(b, Role::Responder).unwrap();
    let peer = added.hear();
    assert_eq!(peer.remote_public_key(), pair.public_key());
    assert_eq!(theirs.remote_public_key(), Some(pair.public_key()));
    ours.close();
    assert_eq!(removed.hear(), peer.id());
}

/// The waiter is there first, the network comes later.
#[test]
fn what_was_asked_before_there_was_a_network_is_asked_of_it() {
    let _story = story("what_was_asked_before_there_was_a_network_is_asked_of_it");
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
        assert!(updating.join().unwrap() || copy.len() == 20);
        download.wait().unwrap();
        finding.done();
        assert!(copy.has_range(10..12).unwrap() && !copy.has(12).unwrap());
    });
}

#[test]
fn a_wait_that_ended_before_there_was_a_network_is_not_asked_of_it() {
    let _story = story("a_wait_that_ended_before_there_was_a_network_is_not_asked_of_it");
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

/// Registered before the network came, ended after.
#[test]
fn a_download_that_is_older_than_the_network_can_be_cancelled() {
    let _story = story("a_download_that_is_older_than_the_network_can_be_cancelled");
    let core = writer(2);
    let copy = copy_of(&core);
    let all = copy.download(Download::all()).unwrap();
    let ear = Ear::new(|tell| copy.on_download(move |index, _, _| tell.send(index).unwrap()));
    let _connected = connect(&copy, &core);
    assert_eq!(ear.hear() + ear.hear(), 1);
    all.cancel();
    core.append_batch((2..10).map(block)).unwrap();
    assert_eq!(copy.get(9).unwrap(), block(9));
    assert!(!copy.has(2).unwrap() && !copy.has(8).unwrap(), "a cancelled download went on");
}

#[test]
fn waits_end_by_timeout_cancel_and_close() {
    let _story = story("waits_end_by_timeout_cancel_and_close");
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

        // Closing a session ends its waits and no others.
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
fn an_update_waits_for_the_peers_that_are_there_or_looked_for() {
    let _story = story("an_update_waits_for_the_peers_that_are_there_or_looked_for");
    let core = writer(4);
    let copy = copy_of(&core);
    // Nobody looks for peers, and nobody is there.
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
    // One comes.
    let finding = copy.finding_peers();
    thread::scope(|s| {
        let updating = s.spawn(|| copy.update().unwrap());
        let _connected = connect(&copy, &core);
        let updated = updating.join().unwrap();
        assert!(updated || copy.len() == 4);
        assert_eq!(copy.len(), 4);
    });
    drop(finding);
    // It has nothing more.
    assert!(!copy.update_with(UpdateOptions::new().wait(true)).unwrap());
    core.append(block(4)).unwrap();
    copy.update_with(UpdateOptions::new().wait(true)).unwrap();
    grow_to(&copy, 5);
}

/// As in the reference: an update gives up when nobody is left who could answer; a get goes on waiting for the next peer.
#[test]
fn the_last_peers_leaving_ends_updates_and_not_gets() {
    let _story = story("the_last_peers_leaving_ends_updates_and_not_gets");
    let core = writer(4);
    let copy = copy_of(&core);
    let (a, b) = pipe();
    // A peer that is connected and never says what it has.
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
        // It may have come as far as the handshake, or not.
        _ = ours.wait();
        assert!(!updating.join().unwrap());
        available.wait().unwrap();
        assert!(!getting.is_finished());
        let _connected = connect(copy, &core);
        assert_eq!(getting.join().unwrap().unwrap(), Some(block(1)));
    });
}

/// As in the reference: a download outlives its connections, and goes on with the next.
#[test]
fn a_download_waits_for_the_next_peer_when_the_last_has_left() {
    let _story = story("a_download_waits_for_the_next_peer_when_the_last_has_left");
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
fn bytes_are_sought_over_the_network() {
    let _story = story("bytes_are_sought_over_the_network");
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..300).map(|i| vec![i as u8; 1 + i % 7])).unwrap();
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    grow_to(&copy, 300);
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
fn downloads_bring_what_they_name() {
    let _story = story("downloads_bring_what_they_name");
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

    let order = Ear::new(|tell| copy.on_download(move |index, bytes, _| tell.send((index, bytes)).unwrap()));
    copy.download(Download::range(60..80).linear(true)).unwrap().wait().unwrap();
    for index in 60..80 {
        assert_eq!(order.hear(), (index, block(index).len() as u64));
    }

    // What is dropped goes on, and follows the log for ever.
    let ear = Ear::new(|tell| copy.on_download(move |index, _, _| tell.send(index).unwrap()));
    drop(copy.download(Download::all()).unwrap());
    while copy.contiguous_length().unwrap() < 100 {
        ear.hear();
    }
    core.append(block(100)).unwrap();
    while !copy.has(100).unwrap() {
        ear.hear();
    }
}

#[test]
fn a_download_ends_with_its_session_and_what_is_not_to_be_had_can_be_left_out() {
    let _story = story("a_download_ends_with_its_session_and_what_is_not_to_be_had_can_be_left_out");
    let core = writer(20);
    core.clear(5..10).unwrap();
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    grow_to(&copy, 20);
    let available = copy.download(Download::range(0..20).if_available(true)).unwrap();
    available.wait().unwrap();
    assert_eq!(available.progress().unwrap().blocks, 15);
    assert_eq!(copy.contiguous_length().unwrap(), 5);

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
fn logs_grow_live_both_ways_on_one_connection() {
    let _story = story("logs_grow_live_both_ways_on_one_connection");
    let (mine, yours) = (writer(0), writer(0));
    let (my_copy, your_copy) = (copy_of(&yours), copy_of(&mine));
    let (ours, theirs) = connection();
    for core in [&mine, &my_copy] {
        core.replicate_on(&ours).unwrap();
    }
    for core in [&yours, &your_copy] {
        core.replicate_on(&theirs).unwrap();
    }
    let following: Vec<_> = [&my_copy, &your_copy].map(|copy| copy.download(Download::all()).unwrap()).into();
    thread::scope(|s| {
        for core in [&mine, &yours] {
            s.spawn(move || (0..500).for_each(|i| _ = core.append(block(i)).unwrap()));
        }
        for copy in [&my_copy, &your_copy] {
            s.spawn(move || (0..500).for_each(|i| assert_eq!(copy.get(i).unwrap(), block(i))));
        }
    });
    following.iter().for_each(|download| download.cancel());
    assert_eq!(my_copy.tree_hash().unwrap(), yours.tree_hash().unwrap());
    assert_eq!(your_copy.tree_hash().unwrap(), mine.tree_hash().unwrap());
}

/// Both sides open the same channels at the same time, in other orders, while others are in use.
#[test]
fn cores_join_a_connection_at_any_time_from_either_side() {
    let _story = story("cores_join_a_connection_at_any_time_from_either_side");
    for round in 0..20 {
        let cores: Vec<_> = (0..12).map(|_| writer(3)).collect();
        let copies: Vec<_> = cores.iter().map(copy_of).collect();
        let (ours, theirs) = connection();
        thread::scope(|s| {
            s.spawn(|| cores.iter().for_each(|core| _ = core.replicate_on(&theirs).unwrap()));
            s.spawn(|| {
                let half = copies.len() / 2;
                let (first, second) = copies.split_at(if round % 2 == 0 { half } else { 0 });
                second.iter().chain(first).for_each(|copy| _ = copy.replicate_on(&ours).unwrap());
            });
            for copy in &copies {
                s.spawn(move || (0..3).for_each(|i| assert_eq!(copy.get(i).unwrap(), block(i))));
            }
        });
        ours.close();
        theirs.close();
    }
}

#[test]
fn a_core_can_leave_a_connection_and_come_back() {
    let _story = story("a_core_can_leave_a_connection_and_come_back");
    let cores = [writer(5), writer(5)];
    let copies = [copy_of(&cores[0]), copy_of(&cores[1])];
    let (ours, theirs) = connection();
    let serving: Vec<_> = cores.iter().map(|core| core.replicate_on(&theirs).unwrap()).collect();
    let copying: Vec<_> = copies.iter().map(|copy| copy.replicate_on(&ours).unwrap()).collect();
    assert_eq!(copies[0].get(0).unwrap(), block(0));
    let removed = Ear::new(|tell| copies[0].on_peer_remove(move |peer| tell.send(peer.id()).unwrap()));
    serving[0].close();
    removed.hear();
    assert!(!theirs.is_closed());
    assert_eq!(copies[1].get(1).unwrap(), block(1));
    cores[0].replicate_on(&theirs).unwrap();
    assert_eq!(copies[0].get(1).unwrap(), block(1));
    copying[0].close();
    copies[0].replicate_on(&ours).unwrap();
    assert_eq!(copies[0].get(2).unwrap(), block(2));
    // The last to leave ends the connection.
    copying[1].close();
    copies[0].close().unwrap();
    ours.wait().unwrap();
    theirs.wait().unwrap();
}

/// That no block is sent twice for it is told of machines, whose clock stands still where this one's does not.
#[test]
fn blocks_are_asked_of_all_who_have_them_and_those_who_vanish_are_replaced() {
    let _story = story("blocks_are_asked_of_all_who_have_them_and_those_who_vanish_are_replaced");
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..2000u32).map(|i| i.to_le_bytes().repeat(500))).unwrap();
    let sources: Vec<_> = (0..3).map(|_| copy_of(&core)).collect();
    for source in &sources {
        let (_a, _b) = connect(source, &core);
        source.download(Download::range(0..2000)).unwrap().wait().unwrap();
    }
    let copy = copy_of(&core);
    // All have said what they have when what they say after that is heard.
    let (tell, told) = channel();
    let _ready = copy.register_extension("ready", move |_, _| tell.send(()).unwrap()).unwrap();
    let gates = [(); 3].map(|_| Gate::default());
    let mut connected = Vec::new();
    for (source, gate) in sources.iter().zip(&gates) {
        let added = Ear::new(|tell| source.on_peer_add(move |_| tell.send(()).unwrap()));
        let (a, b) = tcp();
        let ours = copy.replicate(a, Role::Initiator).unwrap();
        let theirs = source.replicate(gate.of(b.try_clone().unwrap(), b), Role::Responder).unwrap();
        connected.push((ours, theirs));
        added.hear();
        source.register_extension("ready", |_, _| ()).unwrap().broadcast(b"").unwrap();
        told.recv().unwrap();
    }
    let uploads = |source: &Hypercore| Ear::new(|tell| source.on_upload(move |index, _, _| _ = tell.send(index)));
    let asked: Vec<_> = sources.iter().map(uploads).collect();
    let ear = Ear::new(|tell| copy.on_download(move |index, _, _| tell.send(index).unwrap()));
    // However slow one of them is, the others cannot have answered everything before it was asked.
    gates.iter().for_each(Gate::shut);
    let download = copy.download(Download::range(0..2000)).unwrap();
    asked.iter().for_each(|asked| _ = asked.hear());
    // The first goes with all that it was asked for.
    gates[1..].iter().for_each(Gate::open);
    for _ in 0..300 {
        ear.hear();
    }
    connected[0].1.connection().close();
    download.wait().unwrap();
    assert_eq!(copy.contiguous_length().unwrap(), 2000);
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
}

#[test]
fn a_server_serves_many_and_cores_added_later() {
    let _story = story("a_server_serves_many_and_cores_added_later");
    let (core, late) = (writer(50), writer(5));
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let address = server.local_addr();
    thread::scope(|s| {
        for _ in 0..12 {
            s.spawn(|| {
                let copy = copy_of(&core);
                let replication =
                    copy.replicate(std::net::TcpStream::connect(address).unwrap(), Role::Initiator).unwrap();
                copy.download(Download::range(0..50)).unwrap().wait().unwrap();
                replication.close();
            });
        }
    });
    let copies = [copy_of(&core), copy_of(&late)];
    let stream = std::net::TcpStream::connect(address).unwrap();
    let connection = Connection::open(stream, Role::Initiator, ConnectionOptions::default()).unwrap();
    copies[1].replicate_on(&connection).unwrap();
    copies[0].replicate_on(&connection).unwrap();
    assert_eq!(copies[0].get(0).unwrap(), block(0));
    server.add(late.clone());
    // Not served when it was asked for: the next connection gets it.
    let stream = std::net::TcpStream::connect(address).unwrap();
    let second = copies[1].replicate(stream, Role::Initiator).unwrap();
    assert_eq!(copies[1].get(4).unwrap(), block(4));
    // A served core that is closed is not to be had; its neighbours are.
    core.close().unwrap();
    let fresh = [copy_of(&late), Hypercore::options().key(copies[0].key()).open_in(Memory::new()).unwrap()];
    let stream = std::net::TcpStream::connect(address).unwrap();
    let third = Connection::open(stream, Role::Initiator, ConnectionOptions::default()).unwrap();
    fresh[1].replicate_on(&third).unwrap();
    fresh[0].replicate_on(&third).unwrap();
    assert_eq!(fresh[0].get(2).unwrap(), block(2));
    assert_eq!(server.connections().len(), 2);
    server.close();
    third.wait().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_copy_goes_on_where_it_was_after_reconnecting_and_reopening() {
    let _story = story("a_copy_goes_on_where_it_was_after_reconnecting_and_reopening");
    let dir = tempfile::tempdir().unwrap();
    let core = writer(200);
    let mut had = 0;
    for upto in [50, 120, 200] {
        let copy = Hypercore::options().key(core.key()).open(dir.path()).unwrap();
        let ear = Ear::new(|tell| copy.on_download(move |index, _, _| tell.send(index).unwrap()));
        for half in [upto - 20, upto] {
            let (ours, theirs) = connect(&copy, &core);
            copy.download(Download::range(0..half)).unwrap().wait().unwrap();
            ours.close();
            theirs.wait().unwrap();
            let mut fetched: Vec<u64> = (had..half).map(|_| ear.hear()).collect();
            fetched.sort_unstable();
            assert_eq!(fetched, (had..half).collect::<Vec<_>>(), "blocks were fetched again");
            had = half;
        }
        // Dropped, not closed: the files are free for the next to open them.
    }
}

#[test]
fn a_core_that_is_not_sparse_downloads_all_and_counts_what_it_has() {
    let _story = story("a_core_that_is_not_sparse_downloads_all_and_counts_what_it_has");
    let core = writer(40);
    let copy = Hypercore::options().key(core.key()).sparse(false).open_in(Memory::new()).unwrap();
    assert_eq!(copy.len(), 0);
    let _connected = connect(&copy, &core);
    grow_to(&copy, 40);
    assert!(copy.has_range(0..40).unwrap());
    core.append(block(40)).unwrap();
    grow_to(&copy, 41);
    assert!(copy.has(40).unwrap());
}

#[test]
fn snapshots_show_what_was_while_the_log_moves() {
    let _story = story("snapshots_show_what_was_while_the_log_moves");
    let core = writer(10);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    // Where the logs part is found as far as it is known here.
    copy.download(Download::range(0..9)).unwrap().wait().unwrap();
    let snapshot = copy.snapshot().unwrap();
    core.append(block(10)).unwrap();
    grow_to(&copy, 11);
    assert_eq!((snapshot.len(), copy.len()), (10, 11));
    // Absent here, but part of the snapshot: the network brings it.
    assert_eq!(snapshot.get(9).unwrap(), block(9));
    assert_eq!(snapshot.get(10).unwrap_err().kind(), ErrorKind::SnapshotNotAvailable);
    let truncated = Ear::new(|tell| copy.on_truncate(move |ancestors, fork| tell.send((ancestors, fork)).unwrap()));
    core.truncate(5).unwrap();
    core.append_batch(["new 5", "new 6"]).unwrap();
    assert_eq!(truncated.hear(), (5, 1));
    assert_eq!(snapshot.len(), 10);
    assert_eq!(snapshot.get(6).unwrap_err().kind(), ErrorKind::SnapshotNotAvailable);
    assert_eq!(snapshot.get(4).unwrap(), block(4));
    grow_to(&copy, 7);
    assert_eq!(copy.get(6).unwrap(), b"new 6");
    assert_eq!((copy.fork(), copy.tree_hash().unwrap()), (1, core.tree_hash().unwrap()));
}

#[test]
fn forks_are_followed_again_and_again() {
    let _story = story("forks_are_followed_again_and_again");
    let core = writer(64);
    let copy = copy_of(&core);
    let _connected = connect(&copy, &core);
    copy.download(Download::range(0..64)).unwrap().wait().unwrap();
    let _all = copy.download(Download::all()).unwrap();
    for (round, cut) in [40, 63, 1, 0].into_iter().enumerate() {
        let grown = Ear::new(|tell| copy.on_append(move || tell.send(()).unwrap()));
        core.truncate(cut).unwrap();
        core.append_batch((cut..64).map(|i| format!("{round}:{i}"))).unwrap();
        while copy.tree_hash().unwrap() != core.tree_hash().unwrap() {
            grown.hear();
        }
        assert_eq!(copy.get(63).unwrap(), core.get(63).unwrap());
        assert_eq!(copy.fork(), round as u64 + 1);
    }
}

#[test]
fn encrypted_cores_travel_encrypted() {
    let _story = story("encrypted_cores_travel_encrypted");
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
    // Somebody without the key passes it on.
    let _one = connect(&blind, &core);
    blind.download(Download::range(0..10)).unwrap().wait().unwrap();
    let _other = connect(&copy, &blind);
    assert_eq!(copy.get(3).unwrap(), block(3));
    assert_eq!(copy.seek(10).unwrap(), core.seek(10).unwrap());
    assert!(!blind.get(3).unwrap().ends_with(&block(3)));
}

#[test]
fn a_manifest_comes_over_the_wire() {
    let _story = story("a_manifest_comes_over_the_wire");
    let pair = KeyPair::from_seed(&[3; 32]);
    let manifest = Manifest::new(vec![Signer::new(pair.public_key())]);
    let core = Hypercore::options().manifest(manifest.clone()).key_pair(pair).open_in(Memory::new()).unwrap();
    core.append_batch((0..5).map(block)).unwrap();
    let copy = copy_of(&core);
    assert_eq!(copy.manifest(), None);
    let learnt = Ear::new(|tell| copy.on_manifest(move || tell.send(()).unwrap()));
    let _connected = connect(&copy, &core);
    assert_eq!(copy.get(4).unwrap(), block(4));
    learnt.hear();
    assert_eq!(copy.manifest(), Some(manifest));
}

#[test]
fn two_logs_under_one_key_are_reported_and_lose_nothing() {
    let _story = story("two_logs_under_one_key_are_reported_and_lose_nothing");
    let pair = KeyPair::from_seed(&[5; 32]);
    let open = || Hypercore::options().key_pair(pair.clone()).open_in(Memory::new()).unwrap();
    let (one, other) = (open(), open());
    assert_eq!(one.key(), other.key());
    one.append_batch(["same", "one", "x"]).unwrap();
    other.append_batch(["same", "other", "y", "z"]).unwrap();
    let ears = [&one, &other].map(|core| Ear::new(|tell| core.on_conflict(move |l, f| tell.send((l, f)).unwrap())));
    let (ours, _theirs) = connect(&one, &other);
    // Whoever sees it first shows the other.
    assert_eq!(ears[0].hear(), (3, 0));
    assert_eq!(ears[1].hear(), (3, 0));
    assert_eq!(one.get(1).unwrap(), b"one");
    assert_eq!(other.get(3).unwrap(), b"z");
    assert!(one.peers().is_empty());
    assert_eq!(one.append("still writable").unwrap().length, 4);
    drop(ours);
}

/// One who connects twice to the same, over both streams, gets everything once.
#[test]
fn two_connections_between_the_same_two_are_no_trouble() {
    let _story = story("two_connections_between_the_same_two_are_no_trouble");
    let core = writer(300);
    let copy = copy_of(&core);
    let _one = connect(&copy, &core);
    let (a, b) = tcp();
    let _two = (core.replicate(a, Role::Initiator).unwrap(), copy.replicate(b, Role::Responder).unwrap());
    copy.download(Download::range(0..300)).unwrap().wait().unwrap();
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
}

/// Nobody's wait is longer because connections keep quiet: retries do not depend on keep-alives.
#[test]
fn a_refused_block_is_asked_for_again_without_keep_alives() {
    let _story = story("a_refused_block_is_asked_for_again_without_keep_alives");
    let core = writer(3);
    let copy = copy_of(&core);
    let (a, b) = pipe();
    let quiet = || ConnectionOptions::new().keep_alive(Duration::ZERO).idle_timeout(Duration::ZERO);
    let ours = Connection::open(a, Role::Initiator, quiet()).unwrap();
    let theirs = Connection::open(b, Role::Responder, quiet()).unwrap();
    copy.replicate_on(&ours).unwrap();
    core.replicate_on(&theirs).unwrap();
    let began = Instant::now();
    thread::scope(|s| {
        let getters: Vec<_> = (0..3)
            .map(|i| {
                s.spawn({
                    let copy = &copy;
                    move || copy.get(i).unwrap()
                })
            })
            .collect();
        getters.into_iter().enumerate().for_each(|(i, getter)| assert_eq!(getter.join().unwrap(), block(i as u64)));
    });
    assert!(began.elapsed() < Duration::from_secs(60));
}
