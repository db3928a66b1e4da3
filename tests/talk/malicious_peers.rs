//! Peers that mean harm, against a real core with real threads: they cost no more than their connection.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{self, BlockProof, NodeRequest, Proof, SeekRequest, UpgradeProof, UpgradeRequest};
use hypercore::lowlevel::replication::{Bitfield, Data, Extension, Handshake, Message, Range, Request, Span, Sync};
use hypercore::lowlevel::wire::frame;
use hypercore::lowlevel::wire::mux::ChannelId;
use hypercore::net::{Connection, ConnectionOptions, Replication, Role, Server, ServerOptions};
use hypercore::{Download, ErrorKind, GetOptions, Hypercore, UpdateOptions};

use crate::fixture::{Ear, alone_in_process, block, connect, copy_of, grow_to, story, tcp, writer};
use crate::machine::{SLOW, limit, one_in};
use crate::raw_peer::{Gate, Heard, Mouth, Raw, attacked, attacked_over};

const MIB: usize = 1 << 20;

fn sync(length: u64) -> Message {
    Message::Sync(Sync {
        fork: 0,
        length,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: false,
    })
}

fn request(id: u64, wanted: merkle::Request) -> Message {
    Message::Request(Request { id, wanted, ..Request::default() })
}

fn of_block(index: u64) -> merkle::Request {
    merkle::Request { block: Some(NodeRequest { index, nodes: 0 }), ..merkle::Request::default() }
}

/// Whether an honest peer still gets what it wants of `core`.
fn still_serves(core: &Hypercore) {
    let copy = copy_of(core);
    let (ours, _theirs) = connect(&copy, core);
    assert_eq!(copy.get_with(0, GetOptions::new().timeout(limit(60))).unwrap(), Some(block(0)));
    ours.close();
}

#[test]
fn who_says_nothing_or_half_of_it_is_dropped_after_the_deadline() {
    let _story = story("who_says_nothing_or_half_of_it_is_dropped_after_the_deadline");
    let options = ConnectionOptions::new().handshake_timeout(Duration::from_millis(100));
    for role in [Role::Initiator, Role::Responder] {
        for half in [&[][..], &[32][..], &[32, 0, 0, 9, 9, 9][..]] {
            let (a, mut b) = tcp();
            let connection = Connection::open(a, role, options.clone()).unwrap();
            b.write_all(half).unwrap();
            assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
            connection.close();
        }
    }
    // A byte now and then does not prolong it.
    let (a, mut b) = tcp();
    let connection = Connection::open(a, Role::Responder, options).unwrap();
    let dripping = thread::spawn(move || {
        b.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        b.write_all(&[49, 0, 0]).unwrap();
        while b.write_all(&[0]).is_ok() && !matches!(b.read(&mut [0]), Ok(0)) {}
    });
    assert!(connection.wait().is_err());
    dripping.join().unwrap();
}

#[test]
fn who_falls_silent_is_dropped_and_keep_alives_are_sent() {
    let _story = story("who_falls_silent_is_dropped_and_keep_alives_are_sent");
    let core = writer(1);
    let every = Duration::from_millis(40);
    let options = ConnectionOptions::new().keep_alive(every).idle_timeout(Duration::from_millis(400));
    let began = Instant::now();
    let (connection, raw, _) = attacked(&core, options.clone());
    let sent = connection.counters().sent;
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() >= Duration::from_millis(400));
    // An empty message has 20 bytes.
    let alive = (connection.counters().sent - sent) / 20;
    // Beside them a few short messages may go out, and how long it takes in all depends on what else the machine does.
    let most = began.elapsed().as_millis() as u64 / 40 + 20;
    assert!((3..=most).contains(&alive), "{alive} keep-alives");
    raw.hear_out();

    // Who sends nothing but keep-alives stays.
    let (connection, raw, _) = attacked(&core, options);
    for _ in 0..12 {
        assert!(raw.mouth.say_frame(&[]));
        assert_eq!(connection.wait_timeout(Duration::from_millis(60)).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(!connection.is_closed());
    }
    connection.close();
}

#[test]
fn who_does_not_read_what_it_asked_for_is_dropped_and_costs_a_frame() {
    let Some(_alone) = alone_in_process("who_does_not_read_what_it_asked_for_is_dropped_and_costs_a_frame") else {
        return;
    };
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..64).map(|i| vec![i as u8; MIB])).unwrap();
    let options = ConnectionOptions::new().idle_timeout(Duration::from_millis(500));
    let (connection, raw, channel) = attacked(&core, options);
    let memory = Memory::now();
    for id in 1..=4096 {
        let message = request(id, of_block(id % 64));
        raw.mouth.queue(channel, message.kind(), |w| message.encode(w));
    }
    raw.mouth.flush();
    let error = connection.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    memory.assert_below(24 * MIB);
    assert!(core.peers().is_empty());
}

#[test]
fn floods_of_every_message_cost_bounded_memory_and_time() {
    let Some(_alone) = alone_in_process("floods_of_every_message_cost_bounded_memory_and_time") else { return };
    let core = writer(10);
    let extension = Extension { name: "nobody knows it".into(), message: vec![1; 1000] };
    type Make = Box<dyn Fn(u64) -> Message>;
    let floods: Vec<(&str, Make)> = vec![
        ("syncs", Box::new(|i| sync(1 + i))),
        ("requests", Box::new(|i| request(i + 1, of_block(i % 10)))),
        ("requests of one number", Box::new(|i| request(1, of_block(i % 10)))),
        ("requests of what there is not", Box::new(|i| request(i + 1, of_block(i << 30)))),
        ("cancels", Box::new(Message::Cancel)),
        ("wants", Box::new(|i| Message::Want(Span { start: i << 21, length: 1 << 40 }))),
        ("unwants", Box::new(|i| Message::Unwant(Span { start: i, length: 1 << 40 }))),
        ("ranges", Box::new(|i| Message::Range(Range { drop: i % 2 == 1, start: i * 3, length: 1 }))),
        ("huge ranges", Box::new(|i| Message::Range(Range { drop: i % 3 == 1, start: i * 1001, length: 1 << 40 }))),
        ("bitfields", Box::new(|i| Message::Bitfield(Bitfield { start: i << 21, words: vec![0x5555_5555; 256] }))),
        ("extensions", Box::new(move |_| Message::Extension(extension.clone()))),
        ("answers", Box::new(|_| Message::Data(Box::default()))),
        ("refusals", Box::new(Message::NoData)),
        ("lengths", Box::new(|i| sync((1 << 50) + i))),
    ];
    for (what, make) in floods {
        let (connection, mut raw, channel) = attacked(&core, ConnectionOptions::default());
        let mouth = raw.mouth.clone();
        // Somebody who reads is flooded back at most as fast as it floods.
        let reading = thread::spawn(move || while raw.hear().is_some() {});
        let memory = Memory::now();
        mouth.say(channel, &sync(5));
        for i in 0..60_000 / one_in(4) as u64 {
            let message = make(i);
            mouth.queue(channel, message.kind(), |w| message.encode(w));
            if i % 200 == 199 && !mouth.flush() {
                break;
            }
        }
        still_serves(&core);
        memory.assert_below_for(48 * MIB, what);
        mouth.hang_up();
        connection.close();
        reading.join().unwrap();
    }
    still_serves(&core);
}

/// A frame has 16 MiB and holds millions of messages, each of which makes us say or remember something larger.
#[test]
fn millions_of_messages_in_one_frame_cost_little_more_than_the_frame() {
    let Some(_alone) = alone_in_process("millions_of_messages_in_one_frame_cost_little_more_than_the_frame") else {
        return;
    };
    let core = writer(10);
    let name = "x".repeat(1000);
    let extension = |i: u64| {
        let name = if i == 0 { name.clone() } else { String::new() };
        Message::Extension(Extension { name, message: Vec::new() })
    };
    let frames: [(&str, &dyn Fn(u64) -> Message); 3] = [
        ("messages of one extension", &extension),
        ("lengths that have to be answered", &|i| sync(1 + i % 2)),
        ("requests", &|i| request(i % 4000 + 1, of_block(i % 10))),
    ];
    for (what, make) in frames {
        let (connection, mut raw, channel) = attacked(&core, ConnectionOptions::default());
        let mouth = raw.mouth.clone();
        let reading = thread::spawn(move || while raw.hear().is_some() {});
        let memory = Memory::now();
        mouth.say_at_once(channel, (0..1_000_000 / one_in(4) as u64).map(make));
        still_serves(&core);
        mouth.hang_up();
        _ = connection.wait();
        connection.close();
        reading.join().unwrap();
        memory.assert_below_for(128 * MIB, what);
    }
    still_serves(&core);
}

/// It makes us say things, and does not read them.
#[test]
fn who_provokes_answers_and_reads_none_is_cut_off() {
    let Some(_alone) = alone_in_process("who_provokes_answers_and_reads_none_is_cut_off") else { return };
    let core = writer(10);
    let (connection, raw, channel) = attacked(&core, ConnectionOptions::default());
    let memory = Memory::now();
    for i in 0..3_000_000 / one_in(4) as u64 {
        let message = sync(20 + i % 7);
        raw.mouth.queue(channel, message.kind(), |w| message.encode(w));
        if i % 4000 == 3999 && !raw.mouth.flush() {
            break;
        }
    }
    memory.assert_below(96 * MIB);
    raw.mouth.hang_up();
    _ = connection.wait();
    still_serves(&core);
}

#[test]
fn frames_channels_and_claims_out_of_all_bounds_end_the_connection() {
    let Some(_alone) = alone_in_process("frames_channels_and_claims_out_of_all_bounds_end_the_connection") else {
        return;
    };
    let core = writer(10);
    let memory = Memory::now();
    let end = |what: &str, attack: &dyn Fn(&Mouth, ChannelId)| {
        let (connection, raw, channel) = attacked(&core, ConnectionOptions::default());
        attack(&raw.mouth, channel);
        let error = connection.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
        raw.hear_out();
    };
    end("a frame of 16 MiB that is announced", &|mouth, _| {
        mouth.say_plain(&frame::prefix(frame::MAX));
        mouth.say_plain(&[0; 100]);
        // It never comes.
        mouth.hang_up();
    });
    end("bytes that are not encrypted", &|mouth, _| {
        mouth.say_plain(&[20, 0, 0]);
        mouth.say_plain(&[7; 20]);
    });
    end("a message that is none", &|mouth, channel| _ = mouth.say_bytes(channel, 1, |w| _ = w.bytes(&[255; 3])));
    end("a batch cut short", &|mouth, _| _ = mouth.say_frame(&[0, 0, 1, 200, 1]));
    let other = writer(1).key();
    end("the wrong key", &|mouth, channel| {
        mouth.close(channel);
        mouth.open_with(&core.key(), Handshake { seeks: true, capability: [1; 32] });
    });
    end("the key of another core", &|mouth, channel| {
        mouth.close(channel);
        let wrong = hypercore::lowlevel::crypto::hash::capability(true, other.as_bytes(), &[0; 64]);
        mouth.open_with(&core.key(), Handshake { seeks: false, capability: wrong });
    });
    end("an answer to nothing", &|mouth, channel| {
        mouth.say(channel, &Message::Data(Box::new(Data { request: 77, proof: Proof::default() })));
    });
    memory.assert_below(64 * MIB);
    still_serves(&core);
}

/// Channels of cores that nobody has here are turned down one by one; nothing is kept of them.
#[test]
fn thousands_of_unknown_channels_cost_nothing() {
    let Some(_alone) = alone_in_process("thousands_of_unknown_channels_cost_nothing") else { return };
    let core = writer(10);
    let (connection, raw, _) = attacked(&core, ConnectionOptions::default());
    let memory = Memory::now();
    for id in 0..if SLOW { 30_000 } else { 60_000u16 } {
        // An open of 1000 bytes: number, protocol, name, and what is said.
        let mut open = vec![0, 1, 0xfd];
        open.extend((2 + id).to_le_bytes());
        open.extend([1, b'x', 32]);
        open.extend([id as u8; 32]);
        open.resize(1000, 0);
        assert!(raw.mouth.say_frame(&open));
    }
    still_serves(&core);
    memory.assert_below(24 * MIB);
    raw.mouth.hang_up();
    _ = connection.wait();
}

/// A middleman who knows the key, and changes what an honest core says.
struct Middle {
    connection: Connection,
    threads: Vec<thread::JoinHandle<()>>,
    mouths: [Mouth; 2],
    _honest: Replication,
}

impl Middle {
    /// Puts somebody between `victim` and `honest` who passes on what `change` makes of the messages to the victim.
    fn new(
        victim: &Hypercore,
        honest: &Hypercore,
        change: impl FnMut(Message) -> Option<Message> + Send + 'static,
    ) -> Self {
        let key = victim.key();
        let ((a, b), (c, d)) = (tcp(), tcp());
        let connection = Connection::open(a, Role::Responder, ConnectionOptions::default()).unwrap();
        victim.replicate_on(&connection).unwrap();
        let honest = honest.replicate(d, Role::Responder).unwrap();
        let raws = [Raw::new(b, Role::Initiator), Raw::new(c, Role::Initiator)];
        let mouths = raws.each_ref().map(|raw| raw.mouth.clone());
        let channels = mouths.each_ref().map(|mouth| mouth.open(&key));
        let [to_victim, to_honest] = raws;
        let pass =
            |mut from: Raw, to: Mouth, channel, mut change: Box<dyn FnMut(Message) -> Option<Message> + Send>| {
                thread::spawn(move || {
                    while let Some(heard) = from.hear() {
                        if let Heard::Message(message) = heard {
                            if let Some(message) = change(message) {
                                to.say(channel, &message);
                            }
                        }
                    }
                    to.hang_up();
                })
            };
        let threads = vec![
            pass(to_victim, mouths[1].clone(), channels[1], Box::new(Some)),
            pass(to_honest, mouths[0].clone(), channels[0], Box::new(change)),
        ];
        Middle { connection, threads, mouths, _honest: honest }
    }

    fn end(self) {
        self.mouths.iter().for_each(Mouth::hang_up);
        self.connection.close();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_middleman_who_changes_nothing_is_not_noticed() {
    let _story = story("a_middleman_who_changes_nothing_is_not_noticed");
    let core = writer(40);
    let copy = copy_of(&core);
    let middle = Middle::new(&copy, &core, Some);
    copy.download(Download::range(0..40)).unwrap().wait().unwrap();
    middle.end();
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
}

/// Every kind of lie is found, nothing of it stored, its teller cut off, and an honest peer finishes the job.
#[test]
fn lies_are_found_and_the_honest_finish_the_job() {
    let _story = story("lies_are_found_and_the_honest_finish_the_job");
    type Lie = Box<dyn FnMut(Data) -> Data + Send>;
    fn block_of(data: &mut Data) -> &mut BlockProof {
        data.proof.block.get_or_insert_with(|| BlockProof { index: 0, value: Vec::new(), nodes: Vec::new() })
    }
    let lies: Vec<(&str, Lie)> = vec![
        (
            "a byte of a block",
            Box::new(|mut data| {
                if let Some(block) = &mut data.proof.block {
                    block.value[0] ^= 1;
                }
                data
            }),
        ),
        (
            "a longer block",
            Box::new(|mut data| {
                if let Some(block) = &mut data.proof.block {
                    block.value.push(0);
                }
                data
            }),
        ),
        (
            "a byte of a node",
            Box::new(|mut data| {
                if let Some(node) = data.proof.block.as_mut().and_then(|block| block.nodes.first_mut()) {
                    node.hash[5] ^= 0x80;
                }
                data
            }),
        ),
        (
            "a size",
            Box::new(|mut data| {
                if let Some(node) = data.proof.block.as_mut().and_then(|block| block.nodes.last_mut()) {
                    node.size += 1 << 30;
                }
                data
            }),
        ),
        (
            "another block",
            Box::new(|mut data| {
                if let Some(block) = &mut data.proof.block {
                    block.index ^= 1;
                }
                data
            }),
        ),
        (
            "a byte of the signature",
            Box::new(|mut data| {
                if let Some(upgrade) = &mut data.proof.upgrade {
                    upgrade.signature[7] ^= 4;
                }
                data
            }),
        ),
        (
            "a longer head",
            Box::new(|mut data| {
                if let Some(upgrade) = &mut data.proof.upgrade {
                    upgrade.length = 1 << 50;
                }
                data
            }),
        ),
        (
            "a root",
            Box::new(|mut data| {
                if let Some(node) = data.proof.upgrade.as_mut().and_then(|upgrade| upgrade.nodes.first_mut()) {
                    node.hash[31] ^= 1;
                }
                data
            }),
        ),
        (
            "a node from beyond all trees",
            Box::new(|mut data| {
                if let Some(block) = &mut data.proof.block {
                    block.nodes.iter_mut().for_each(|node| node.index = NodeIndex((1 << 53) - 1));
                }
                data
            }),
        ),
        (
            "what was not asked",
            Box::new(|mut data| {
                block_of(&mut data).index = 33;
                data
            }),
        ),
        (
            "a signature on nothing",
            Box::new(|mut data| {
                let upgrade = UpgradeProof {
                    start: 0,
                    length: 1,
                    nodes: Vec::new(),
                    additional_nodes: Vec::new(),
                    signature: vec![0; 64],
                };
                data.proof.upgrade = Some(upgrade);
                data
            }),
        ),
    ];
    let core = writer(40);
    for (what, mut lie) in lies {
        let copy = copy_of(&core);
        let mut changed = false;
        let (tell, told) = std::sync::mpsc::channel();
        let middle = Middle::new(&copy, &core, move |message| {
            let Message::Data(data) = message else { return Some(message) };
            let lied = lie((*data).clone());
            if lied != *data && !std::mem::replace(&mut changed, true) {
                tell.send(()).unwrap();
            }
            Some(Message::Data(Box::new(lied)))
        });
        let download = copy.download(Download::range(0..40)).unwrap();
        told.recv().unwrap();
        let error = middle.connection.wait().expect_err(what);
        use ErrorKind::{InvalidChecksum, InvalidOperation, InvalidProof, InvalidSignature, Protocol};
        let kinds = [InvalidChecksum, InvalidOperation, InvalidProof, InvalidSignature, Protocol];
        assert!(kinds.contains(&error.kind()), "{what}: {error}");
        middle.end();
        for index in 0..copy.len() {
            if copy.has(index).unwrap() {
                assert_eq!(copy.get(index).unwrap(), block(index), "{what}");
            }
        }
        let _connected = connect(&copy, &core);
        download.wait().unwrap();
        assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap(), "{what}");
    }
}

/// One of several sources lies: it is cut off and named, the others bring everything.
#[test]
fn one_liar_among_many_holds_nobody_up() {
    let _story = story("one_liar_among_many_holds_nobody_up");
    let core = writer(500);
    let copy = copy_of(&core);
    let errors =
        Ear::new(|tell| copy.on_verification_error(move |what, peer| tell.send((what.to_owned(), peer.id())).unwrap()));
    let middle = Middle::new(&copy, &core, |message| {
        let Message::Data(mut data) = message else { return Some(message) };
        if let Some(block) = &mut data.proof.block {
            block.value[0] ^= 1;
        }
        Some(Message::Data(data))
    });
    let _connected = connect(&copy, &core);
    copy.download(Download::range(0..500)).unwrap().wait().unwrap();
    for index in 0..500 {
        assert_eq!(copy.get(index).unwrap(), block(index));
    }
    if middle.connection.is_closed() {
        errors.hear();
    }
    middle.end();
}

/// It claims everything and gives nothing.
#[test]
fn who_claims_2_to_the_50_blocks_costs_nothing() {
    let Some(_alone) = alone_in_process("who_claims_2_to_the_50_blocks_costs_nothing") else { return };
    let core = writer(10);
    let copy = copy_of(&core);
    let (connection, mut raw, channel) = attacked(&copy, ConnectionOptions::default());
    let memory = Memory::now();
    raw.mouth.say(channel, &sync(1 << 50));
    raw.mouth.say(channel, &Message::Range(Range { drop: false, start: 0, length: 1 << 50 }));
    // It is asked for the head, says nothing, and asks for everything itself.
    raw.hear_until(|heard| matches!(heard, Heard::Message(Message::Request(_))).then_some(())).unwrap();
    raw.mouth.say(channel, &Message::Want(Span { start: 0, length: 1 << 50 }));
    let upgrade = Some(UpgradeRequest { start: 0, length: 1 << 50 });
    let seek = Some(SeekRequest { bytes: 1 << 52, padding: 0 });
    raw.mouth.say(channel, &request(1, merkle::Request { upgrade, seek, ..of_block(1 << 50) }));
    let download = copy.download(Download::all()).unwrap();
    let listed = copy.download(Download::range(0..1 << 50)).unwrap();
    let timeout = GetOptions::new().timeout(Duration::from_millis(50));
    assert_eq!(copy.get_with(1 << 49, timeout).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(copy.len(), 0);
    let _connected = connect(&copy, &core);
    grow_to(&copy, 10);
    assert_eq!(copy.get(9).unwrap(), block(9));
    listed.cancel();
    download.cancel();
    memory.assert_below(32 * MIB);
    connection.close();
}

/// A peer that opened the channel but has not said what it has keeps an update waiting; its leaving ends that.
#[test]
fn an_update_ends_when_the_peer_it_waited_for_leaves() {
    let _story = story("an_update_ends_when_the_peer_it_waited_for_leaves");
    let copy = copy_of(&writer(3));
    let added = Ear::new(|tell| copy.on_peer_add(move |_| tell.send(()).unwrap()));
    let (connection, mut raw, channel) = attacked(&copy, ConnectionOptions::default());
    added.hear();
    raw.mouth.say(channel, &sync(3));
    // Asked for the head it promised, it says nothing.
    raw.hear_until(|heard| matches!(heard, Heard::Message(Message::Request(_))).then_some(())).unwrap();
    let update = |options: UpdateOptions| copy.update_with(options.wait(true));
    let timeout = UpdateOptions::new().timeout(Duration::from_millis(50));
    assert_eq!(update(timeout).unwrap_err().kind(), ErrorKind::Timeout);
    thread::scope(|s| {
        let updating = s.spawn(|| update(UpdateOptions::new()).unwrap());
        raw.mouth.hang_up();
        assert!(!updating.join().unwrap());
    });
    connection.close();
}

/// It opens the channel and closes it, again and again.
#[test]
fn who_opens_and_closes_without_end_is_no_trouble() {
    let Some(_alone) = alone_in_process("who_opens_and_closes_without_end_is_no_trouble") else { return };
    let core = writer(10);
    let (connection, mut raw, mut channel) = attacked(&core, ConnectionOptions::default());
    let memory = Memory::now();
    for _ in 0..500 {
        raw.mouth.close(channel);
        channel = raw.mouth.open(&core.key());
        let opened = raw.hear_until(|heard| matches!(heard, Heard::Opened(it) if it == channel).then_some(()));
        opened.unwrap();
    }
    assert!(core.peers().len() <= 1);
    memory.assert_below(16 * MIB);
    still_serves(&core);
    connection.close();
}

/// Connections that do nothing fill a server up, and time out; then there is room for others.
#[test]
fn a_server_full_of_the_silent_comes_free() {
    let _story = story("a_server_full_of_the_silent_comes_free");
    let core = writer(1);
    let connections = ConnectionOptions::new().handshake_timeout(Duration::from_millis(200));
    let options = ServerOptions::new().connection(connections).max_connections(4);
    let server = Server::listen_with("127.0.0.1:0", [core.clone()], options).unwrap();
    let mut silent: Vec<_> = (0..4).map(|_| TcpStream::connect(server.local_addr()).unwrap()).collect();
    let mut turned_away = TcpStream::connect(server.local_addr()).unwrap();
    assert!(matches!(turned_away.read(&mut [0]), Ok(0) | Err(_)));
    for stream in &mut silent {
        // Its own deadline, and not that of those before it.
        let mut rest = Vec::new();
        _ = stream.read_to_end(&mut rest);
    }
    for connection in server.connections() {
        _ = connection.wait();
    }
    let copy = copy_of(&core);
    let _replication = copy.replicate(TcpStream::connect(server.local_addr()).unwrap(), Role::Initiator).unwrap();
    assert_eq!(copy.get(0).unwrap(), block(0));
}

/// Messages of an extension whose handler is slow pile up to a bound only.
#[test]
fn extension_messages_that_nobody_takes_pile_up_to_a_bound() {
    let Some(_alone) = alone_in_process("extension_messages_that_nobody_takes_pile_up_to_a_bound") else { return };
    let core = writer(1);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.register_extension("slow", move |_, _| _ = held.lock().unwrap().recv()).unwrap();
    let (connection, raw, channel) = attacked(&core, ConnectionOptions::default());
    let memory = Memory::now();
    let message = Message::Extension(Extension { name: "slow".into(), message: vec![3; MIB] });
    for _ in 0..200 {
        if !raw.mouth.say(channel, &message) {
            break;
        }
    }
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Protocol);
    memory.assert_below(96 * MIB);
    drop((release, slow));
    still_serves(&core);
}

/// Nor does it help to close the channel and open it again.
#[test]
fn extension_messages_of_one_who_comes_again_pile_up_to_the_same_bound() {
    let Some(_alone) = alone_in_process("extension_messages_of_one_who_comes_again_pile_up_to_the_same_bound") else {
        return;
    };
    let core = writer(1);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.register_extension("slow", move |_, _| _ = held.lock().unwrap().recv()).unwrap();
    let memory = Memory::now();
    let message = Message::Extension(Extension { name: "slow".into(), message: vec![3; MIB] });
    for _ in 0..if SLOW { 3 } else { 8 } {
        let (connection, raw, mut channel) = attacked(&core, ConnectionOptions::default());
        for i in 0..100 {
            if i % 10 == 9 {
                raw.mouth.close(channel);
                channel = raw.mouth.open(&core.key());
            }
            if !raw.mouth.say(channel, &message) {
                break;
            }
        }
        assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Protocol);
    }
    memory.assert_below(256 * MIB);
    drop((release, slow));
    still_serves(&core);
}

/// What we say of our own accord, to one who reads nothing, is refused before it costs more than a bound; others get it.
#[test]
fn own_extension_messages_pile_up_to_a_bound_and_cost_no_connection() {
    let Some(_alone) = alone_in_process("own_extension_messages_pile_up_to_a_bound_and_cost_no_connection") else {
        return;
    };
    let core = writer(1);
    let ours = core.register_extension("much", |_, _| ()).unwrap();
    let (a, b) = tcp();
    let gate = Gate::default();
    let halves = gate.of(a.try_clone().unwrap(), a);
    let (connection, raw, _) = attacked_over(halves, b, &core, ConnectionOptions::default());
    let slow = core.peers().pop().unwrap();
    gate.shut();
    ours.send(b"what is being written", &slow).unwrap();
    gate.wait_for_writer();
    let memory = Memory::now();
    let message = vec![3; MIB];
    let sent = (0..200).take_while(|_| ours.send(&message, &slow).is_ok()).count();
    assert_eq!(sent, 16);
    assert_eq!(ours.send(b"more", &slow).unwrap_err().kind(), ErrorKind::InvalidOperation);
    memory.assert_below(64 * MIB);

    // Another one is there and reads.
    let copy = copy_of(&core);
    let (tell, told) = std::sync::mpsc::channel();
    let _theirs = copy.register_extension("much", move |message, _| _ = tell.send(message.to_vec())).unwrap();
    let joined = Ear::new(|tell| core.on_peer_add(move |_| _ = tell.send(())));
    let (theirs, _ours) = connect(&copy, &core);
    joined.hear();
    assert_eq!(ours.broadcast(b"to all").unwrap_err().kind(), ErrorKind::InvalidOperation);
    assert_eq!(told.recv().unwrap(), b"to all");
    theirs.close();

    // Once it has read, it is sent more; the connection was never at stake.
    gate.open();
    let (tell, told) = std::sync::mpsc::channel();
    let mut raw = raw;
    let reading = thread::spawn(move || {
        while let Some(heard) = raw.hear() {
            if let Heard::Message(Message::Extension(extension)) = heard {
                tell.send(extension.message.len()).unwrap();
            }
        }
    });
    assert_eq!(told.recv().unwrap(), "what is being written".len());
    (0..sent).for_each(|_| assert_eq!(told.recv().unwrap(), MIB));
    ours.send(b"more", &slow).unwrap();
    assert_eq!(told.recv().unwrap(), 4);
    connection.close();
    reading.join().unwrap();
}

/// It asks for more blocks than whoever is told of them takes in.
#[test]
fn events_that_nobody_takes_pile_up_to_a_bound() {
    let Some(_alone) = alone_in_process("events_that_nobody_takes_pile_up_to_a_bound") else { return };
    let core = writer(10);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.on_upload(move |_, _, _| _ = held.lock().unwrap().recv());
    let (connection, mut raw, channel) = attacked(&core, ConnectionOptions::default());
    let memory = Memory::now();
    let mouth = raw.mouth.clone();
    for round in 0..200 / one_in(4) as u64 {
        mouth.say_at_once(channel, (1..=2000).map(|i| request(round * 2000 + i, of_block(i % 10))));
        let last = round * 2000 + 2000;
        let is_last = |heard| matches!(heard, Heard::Message(Message::Data(data)) if data.request == last);
        raw.hear_until(|heard| is_last(heard).then_some(())).unwrap();
    }
    memory.assert_below(48 * MIB);
    // What one peer caused is not held against another, however long it stands.
    still_serves(&core);
    drop((release, slow));
    still_serves(&core);
    connection.close();
}

/// It comes and goes more often than whoever is told of it takes in.
#[test]
fn who_comes_and_goes_faster_than_it_is_told_is_cut_off() {
    let Some(_alone) = alone_in_process("who_comes_and_goes_faster_than_it_is_told_is_cut_off") else { return };
    let core = writer(10);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = core.on_peer_add(move |_| _ = held.lock().unwrap().recv());
    let (connection, mut raw, mut channel) = attacked(&core, ConnectionOptions::default());
    let memory = Memory::now();
    let mouth = raw.mouth.clone();
    let reading = thread::spawn(move || while raw.hear().is_some() {});
    for _ in 0..100_000 {
        mouth.close(channel);
        channel = mouth.open(&core.key());
        if connection.is_closed() {
            break;
        }
    }
    assert_eq!(connection.wait().unwrap_err().kind(), ErrorKind::Protocol);
    reading.join().unwrap();
    memory.assert_below(64 * MIB);
    drop((release, slow));
    still_serves(&core);
}

/// The most memory that the process took since.
struct Memory(usize);

impl Memory {
    fn now() -> Self {
        // Resets the high-water mark.
        _ = fs::write("/proc/self/clear_refs", "5");
        Memory(peak())
    }

    fn assert_below(&self, bytes: usize) {
        self.assert_below_for(bytes, "");
    }

    fn assert_below_for(&self, bytes: usize, what: &str) {
        let grown = peak().saturating_sub(self.0);
        assert!(grown <= bytes, "{what}: took {} MiB, {} MiB allowed", grown / MIB, bytes / MIB);
    }
}

fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()).unwrap_or(0) * 1024
}
