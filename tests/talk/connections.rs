//! Connections with real threads: cores that join and leave, servers, peers that vanish, and reconnection.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use hypercore::net::{Connection, ConnectionOptions, Role, Server, pipe};
use hypercore::{Download, Hypercore, KeyPair, Memory};

use crate::common::Gate;
use crate::cores::{Downloads, Events, block, connect, connection, copy_of, tcp, writer};
use crate::harness::parallel_test;
use crate::raw_peer::gated_stream;

#[test]
fn peers_see_each_others_public_keys() {
    let _guard = parallel_test!();
    let core = writer(1);
    let copy = copy_of(&core);
    let pair = KeyPair::from_seed(&[7; 32]);
    let (a, b) = pipe();
    let options = ConnectionOptions::new().key_pair(pair.clone());
    let ours = Connection::open(a, Role::Initiator, options).unwrap();
    assert_eq!(ours.remote_public_key(), None);
    let added = Events::new(|tell| core.on_peer_add(move |peer| tell.send(peer.clone()).unwrap()));
    let removed = Events::new(|tell| core.on_peer_remove(move |peer| tell.send(peer.id()).unwrap()));
    copy.replicate_on(&ours).unwrap();
    let theirs = core.replicate(b, Role::Responder).unwrap();
    let peer = added.next();
    assert_eq!(peer.remote_public_key(), pair.public_key());
    assert_eq!(theirs.remote_public_key(), Some(pair.public_key()));
    ours.close();
    assert_eq!(removed.next(), peer.id());
}

#[test]
fn live_logs_grow_both_ways_on_one_connection() {
    let _guard = parallel_test!();
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

/// Both sides open the same channels at the same time in different orders, while other channels carry blocks.
#[test]
fn concurrent_joins_from_both_sides_open_all_channels() {
    let _guard = parallel_test!();
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
fn core_leaves_connection_and_rejoins() {
    let _guard = parallel_test!();
    let cores = [writer(5), writer(5)];
    let copies = [copy_of(&cores[0]), copy_of(&cores[1])];
    let (ours, theirs) = connection();
    let serving: Vec<_> = cores.iter().map(|core| core.replicate_on(&theirs).unwrap()).collect();
    let copying: Vec<_> = copies.iter().map(|copy| copy.replicate_on(&ours).unwrap()).collect();
    assert_eq!(copies[0].get(0).unwrap(), block(0));
    let removed = Events::new(|tell| copies[0].on_peer_remove(move |peer| tell.send(peer.id()).unwrap()));
    serving[0].close();
    removed.next();
    assert!(!theirs.is_closed());
    assert_eq!(copies[1].get(1).unwrap(), block(1));
    cores[0].replicate_on(&theirs).unwrap();
    assert_eq!(copies[0].get(1).unwrap(), block(1));
    copying[0].close();
    copies[0].replicate_on(&ours).unwrap();
    assert_eq!(copies[0].get(2).unwrap(), block(2));
    // The last core that leaves ends the connection.
    copying[1].close();
    copies[0].close().unwrap();
    ours.wait().unwrap();
    theirs.wait().unwrap();
}

/// `replicator_peers::requests_of_silent_or_vanished_peer_move_to_others` shows in virtual time that no block
/// is requested twice.
#[test]
fn blocks_of_vanished_peer_come_from_others() {
    let _guard = parallel_test!();
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..2000u32).map(|i| i.to_le_bytes().repeat(500))).unwrap();
    let sources: Vec<_> = (0..3).map(|_| copy_of(&core)).collect();
    for source in &sources {
        let (_a, _b) = connect(source, &core);
        source.download(Download::range(0..2000)).unwrap().wait().unwrap();
    }
    let copy = copy_of(&core);
    // The message "ready" follows the peer's bitfield, so the copy knows what each source holds when it arrives.
    let (tell, told) = channel();
    let _ready = copy.register_extension("ready", move |_, _| tell.send(()).unwrap()).unwrap();
    let gates = [(); 3].map(|_| Arc::new(Gate::default()));
    let mut connected = Vec::new();
    for (source, gate) in sources.iter().zip(&gates) {
        let added = Events::new(|tell| source.on_peer_add(move |_| tell.send(()).unwrap()));
        let (a, b) = tcp();
        let ours = copy.replicate(a, Role::Initiator).unwrap();
        let theirs = source.replicate(gated_stream(gate, b.try_clone().unwrap(), b), Role::Responder).unwrap();
        connected.push((ours, theirs));
        added.next();
        source.register_extension("ready", |_, _| ()).unwrap().broadcast(b"").unwrap();
        told.recv().unwrap();
    }
    let uploads = |source: &Hypercore| Events::new(|tell| source.on_upload(move |block| _ = tell.send(block.index)));
    let asked: Vec<_> = sources.iter().map(uploads).collect();
    let events = Events::new(|tell| copy.on_download(move |block| tell.send(block.index).unwrap()));
    // With its writes shut, no source can serve all blocks before every source has been asked.
    gates.iter().for_each(|gate| gate.shut());
    let download = copy.download(Download::range(0..2000)).unwrap();
    asked.iter().for_each(|asked| _ = asked.next());
    // The first source vanishes with all the requests that it was sent.
    gates[1..].iter().for_each(|gate| gate.open());
    for _ in 0..300 {
        events.next();
    }
    connected[0].1.connection().close();
    download.wait().unwrap();
    assert_eq!(copy.contiguous_length().unwrap(), 2000);
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
}

#[test]
fn server_serves_many_peers_and_added_cores() {
    let _guard = parallel_test!();
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
    // The server rejected the channel of the first connection before the core was added. A new connection
    // gets the core.
    let stream = std::net::TcpStream::connect(address).unwrap();
    let second = copies[1].replicate(stream, Role::Initiator).unwrap();
    assert_eq!(copies[1].get(4).unwrap(), block(4));
    // A core closed after it was served is rejected. The others on the same connection are served.
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
fn copy_resumes_after_reconnecting_and_reopening() {
    let _guard = parallel_test!();
    let dir = tempfile::tempdir().unwrap();
    let core = writer(200);
    let mut had = 0;
    for upto in [50, 120, 200] {
        let copy = Hypercore::options().key(core.key()).open(dir.path()).unwrap();
        let events = Events::new(|tell| copy.on_download(move |block| tell.send(block.index).unwrap()));
        for half in [upto - 20, upto] {
            let (ours, theirs) = connect(&copy, &core);
            copy.download(Download::range(0..half)).unwrap().wait().unwrap();
            ours.close();
            theirs.wait().unwrap();
            let mut fetched: Vec<u64> = (had..half).map(|_| events.next()).collect();
            fetched.sort_unstable();
            assert_eq!(fetched, (had..half).collect::<Vec<_>>(), "blocks were fetched again");
            had = half;
        }
        // The copy is dropped without a close, and its files are free for the next open.
    }
}

#[test]
fn two_connections_to_one_peer_download_each_block_once() {
    let _guard = parallel_test!();
    let core = writer(300);
    let copy = copy_of(&core);
    let _one = connect(&copy, &core);
    let (a, b) = tcp();
    let _two = (core.replicate(a, Role::Initiator).unwrap(), copy.replicate(b, Role::Responder).unwrap());
    let downloads = Downloads::of(&copy);
    copy.download(Download::range(0..300)).unwrap().wait().unwrap();
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
    downloads.assert_are(0..300);
}

/// Requests, responses and retries do not wait for keep-alives.
#[test]
fn gets_without_keep_alives_are_served_promptly() {
    let _guard = parallel_test!();
    let core = writer(3);
    let copy = copy_of(&core);
    let (a, b) = pipe();
    let quiet = || ConnectionOptions::new().keep_alive(None).idle_timeout(None);
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

#[test]
fn connection_options_have_documented_defaults() {
    let options = format!("{:?}", ConnectionOptions::default());
    for default in ["handshake_timeout: Some(10s)", "idle_timeout: Some(30s)", "keep_alive: Some(5s)", "key_pair: None"]
    {
        assert!(options.contains(default), "{default} in {options}");
    }
}
