//! State machines that receive foreign input: the multiplexer, the noise stream, proof verification, a core with
//! damaged files, and the replicator.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{self, NodeRequest, NodeSource, Request, SeekRequest, UpgradeRequest};
use hypercore::lowlevel::oplog::frame as oplog_frame;
use hypercore::lowlevel::replication::{Message, Request as Ask};
use hypercore::lowlevel::wire::batch::messages;
use hypercore::lowlevel::wire::mux::{ChannelId, Event, Mux};
use hypercore::lowlevel::wire::noise::Role;
use hypercore::lowlevel::wire::noise_stream::{NoiseStream, Receiver, Sender};
use hypercore::{Durability, Hypercore, InfoOptions, Memory};
use quickcheck::{Arbitrary, Gen};

use super::decoders::{CORES, NAMES, disk_of, parts};
use super::{index, written};
use crate::common::{Random, pair};
use crate::simulated_core::{Core, blocks};
use crate::{convergence, mux, replicator_malicious_peers};

/// Feeds the frames of a peer to a multiplexer, which opens, closes, rejects and sends at random between them.
pub fn hostile_mux(bytes: &[u8]) -> bool {
    let mut mux = Mux::new();
    let mut random = Random::new(bytes.iter().fold(1, |n, byte| n * 31 % 65_521 + u64::from(*byte)));
    let mut open: Vec<ChannelId> = Vec::new();
    let names: [&[&str]; 3] = [&["hypercore/alpha", "hypercore"], &["other"], &["p"]];
    for frame in parts(bytes) {
        if index(&mut random, 3) == 0 {
            let ids: [&[u8]; 3] = [&[], &[0xaa; 32], &[1]];
            let (names, id) = (names[index(&mut random, 3)], ids[index(&mut random, 3)]);
            open.extend(mux.open(names, id, b"hi").ok().map(|opening| opening.channel));
        }
        for message in messages(frame) {
            let Ok(message) = message else { return false };
            match mux.receive(message) {
                Err(_) => return false,
                Ok(Event::RemoteOpen { protocol, id }) => match index(&mut random, 3) {
                    0 => _ = mux.reject(protocol, id),
                    1 => open.extend(mux.open(&[protocol], id, &[]).ok().map(|opening| opening.channel)),
                    _ => {}
                },
                Ok(Event::Closed { channel } | Event::Rejected { channel }) => {
                    assert!(open.contains(&channel));
                    assert!(!mux.is_open(channel));
                }
                Ok(Event::Message { channel, .. } | Event::Opened { channel, .. }) => {
                    assert!(open.contains(&channel) && mux.is_open(channel));
                }
                Ok(Event::Nothing) => {}
            }
        }
        match index(&mut random, 4) {
            0 => _ = mux.take(),
            1 if !open.is_empty() => _ = mux.close(open[index(&mut random, open.len())]),
            2 if !open.is_empty() => {
                let channel = open[index(&mut random, open.len())];
                assert_eq!(mux.send(channel, 3, 2, |w| _ = w.bytes(b"ho")).is_ok(), mux.is_open(channel));
            }
            _ => {}
        }
    }
    true
}

pub fn ends() -> [NoiseStream; 2] {
    [
        NoiseStream::with_randomness(Role::Initiator, &pair(1), pair(3), [5; 24]),
        NoiseStream::with_randomness(Role::Responder, &pair(2), pair(4), [6; 24]),
    ]
}

/// The bytes that each side of a handshake receives, behind a byte that selects the side.
pub fn shaken() -> Vec<Vec<u8>> {
    let [mut a, mut b] = ends();
    let first = a.take_output();
    b.feed(&first);
    b.advance().unwrap();
    let second = b.take_output();
    a.feed(&second);
    a.advance().unwrap();
    let third = a.take_output();
    b.feed(&third);
    b.advance().unwrap();
    vec![[vec![1], first, third].concat(), [vec![0], second].concat()]
}

pub fn handshakes(bytes: &[u8]) -> bool {
    let [side, bytes @ ..] = bytes else { return false };
    let [a, b] = ends();
    let mut channel = if side % 2 == 0 { a } else { b };
    for piece in bytes.chunks(50) {
        channel.feed(piece);
        if channel.advance().is_err() {
            return false;
        }
    }
    channel.is_established() && channel.split().is_ok()
}

/// The sender and the receiver of an established stream.
pub fn talking() -> (Sender, Receiver) {
    let [mut a, mut b] = ends();
    b.feed(&a.take_output());
    b.advance().unwrap();
    a.feed(&b.take_output());
    a.advance().unwrap();
    b.feed(&a.take_output());
    b.advance().unwrap();
    let (a, b) = (a.split().unwrap(), b.split().unwrap());
    let mut receiver = a.receiver;
    receiver.feed(&b.output);
    assert!(receiver.next_message().unwrap().is_none());
    (b.sender, receiver)
}

/// The sizes of the messages that [`talks`] sends; 0 is a keep-alive, which is an empty message.
pub const SAID: [usize; 6] = [5, 0, 300, 64, 0, 63];

pub fn talks() -> Vec<Vec<u8>> {
    let (mut sender, _) = talking();
    let mut out = Vec::new();
    for size in SAID {
        match size {
            0 => sender.keep_alive(&mut out),
            _ => sender.seal(&mut out, |w| _ = w.bytes(&vec![7; size])).unwrap(),
        }
    }
    vec![out]
}

/// The receiver returns a prefix of the sent messages and nothing else.
pub fn sealed(bytes: &[u8]) -> bool {
    let (_, mut receiver) = talking();
    receiver.feed(bytes);
    let mut heard = Vec::new();
    while let Ok(Some(message)) = receiver.next_message() {
        assert!(message.iter().all(|byte| *byte == 7));
        heard.push(message.len());
    }
    assert!(heard.len() <= SAID.len() && heard == SAID[..heard.len()], "{heard:?}");
    heard.len() == SAID.len()
}

/// A writer with 41 blocks, and a reader that knows its first 11.
pub static LOG: LazyLock<Mutex<(Core, Core)>> = LazyLock::new(|| {
    let mut writer = Core::writer();
    writer.append(blocks(11));
    let mut reader = Core::reader_of(&writer);
    let Message::Data(data) = writer.answer(&ask(None, None, Some((0, 11)))) else { panic!("no data") };
    reader.commit(&data);
    writer.append(blocks(30));
    Mutex::new((writer, reader))
});

pub fn ask(block: Option<(u64, u64)>, seek: Option<u64>, upgrade: Option<(u64, u64)>) -> Ask {
    let wanted = Request {
        block: block.map(|(index, nodes)| NodeRequest { index, nodes }),
        seek: seek.map(|bytes| SeekRequest { bytes, padding: 0 }),
        upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
        ..Request::default()
    };
    Ask { id: 1, wanted, ..Ask::default() }
}

pub fn proofs() -> Vec<Vec<u8>> {
    let (writer, reader) = &*LOG.lock().unwrap();
    let mut all = vec![
        ask(Some((3, 0)), None, None),
        ask(Some((7, 2)), None, None),
        ask(Some((20, 1)), None, Some((11, 30))),
        ask(None, Some(200), Some((11, 30))),
        ask(None, None, Some((11, 12))),
    ];
    let mut hash = ask(None, None, None);
    hash.wanted.hash = Some(NodeRequest { index: 4, nodes: 3 });
    all.push(hash);
    let levels = std::iter::successors(Some(NodeIndex(8)), |at| Some(at.parent()));
    let levels =
        levels.take_while(|at| at.end_block() <= reader.length() && reader.node(*at).unwrap().is_none()).count() as u64;
    all.push(ask(Some((4, levels)), None, None));
    let mut out = Vec::new();
    for request in all {
        let message = writer.answer(&request);
        if matches!(message, Message::Data(_)) {
            out.push(written(|w| message.encode(w)));
        }
    }
    assert!(out.len() > 4);
    out
}

pub fn proof(bytes: &[u8]) -> bool {
    let Ok(Some(Message::Data(data))) = Message::decode(3, bytes) else { return false };
    let (writer, reader) = {
        let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        (log.0.clone(), log.1.clone())
    };
    let mut reader = reader;
    let _ = merkle::conflict(&reader, &reader.head, &data.proof, &reader.verifier);
    let _ = merkle::Reorg::start(&reader, &reader.head, &data.proof, &reader.verifier);
    reader.commit(&data);
    // Every stored block is the writer's.
    for (index, block) in &reader.blocks {
        assert_eq!(Some(block), writer.blocks.get(index), "block {index}");
    }
    assert!(reader.length() == 11 || reader.length() <= writer.length());
    assert_eq!(reader.head.fork, 0);
    true
}

/// One file of a core behind three bytes, which select the file, whether checksums are corrected, and the core.
pub fn all_files() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (number, core) in CORES.iter().enumerate() {
        for (which, name) in NAMES.iter().enumerate().filter(|(_, name)| !core[*name].is_empty()) {
            for right in [0, 1] {
                all.push([&[which as u8, right, number as u8][..], &core[*name]].concat());
            }
        }
    }
    all
}

pub fn files(bytes: &[u8]) -> bool {
    let [which, right, number, bytes @ ..] = bytes else { return false };
    let mut core = CORES[usize::from(*number) % CORES.len()].clone();
    let name = NAMES[usize::from(*which) % NAMES.len()];
    let mut bytes = bytes.to_vec();
    if right % 2 == 1 && name == "oplog" {
        put_right(&mut bytes);
    }
    core.insert(name, bytes);
    let disk = disk_of(core.iter().map(|(name, bytes)| (*name, &bytes[..])));
    let open =
        || Hypercore::options().durability(Durability::None).timeout(Duration::from_millis(1)).create_if_missing(false);
    let Ok(opened) = open().open_in(disk.clone()) else { return false };
    let read = |core: &Hypercore| {
        for index in (0..core.len().min(12)).chain(core.len().saturating_sub(3)..core.len()) {
            let _ = core.has(index).map(|has| has && core.get(index).is_ok());
        }
        let _ = core.seek(core.byte_length() / 2);
        let _ = core.info(InfoOptions::new());
        let _ = core.tree_hash();
    };
    read(&opened);
    // A check of a damaged log that claims billions of blocks would take too long.
    if opened.len() < 1000 {
        let _ = opened.verify();
        let _ = opened.repair();
        read(&opened);
    }
    let length = opened.len();
    let appended = opened.append("and on").is_ok();
    let _ = opened.truncate(length / 2);
    let before = (opened.len(), opened.fork());
    let closed = opened.close().is_ok();
    drop(opened);
    if let Ok(again) = open().open_in(disk) {
        assert!(!(appended && closed) || (again.len(), again.fork()) == before, "was {before:?}, is {}", again.len());
        read(&again);
    }
    true
}

/// Gives each frame of an oplog the checksum of its content.
pub fn put_right(oplog: &mut [u8]) {
    let mut seal = |at: usize| {
        let prefix: [u8; 8] = oplog.get(at..at + 8)?.try_into().ok()?;
        let prefix = oplog_frame::Prefix::decode(prefix);
        let end = (at + 8).checked_add(prefix.message_len())?;
        let mut hasher = prefix.hasher();
        hasher.update(oplog.get(at + 8..end)?);
        oplog[at..at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
        Some(end)
    };
    seal(0);
    seal(4096);
    let mut at = 8192;
    while let Some(end) = seal(at) {
        at = end;
    }
}

pub fn both_muxes(seed: u64) -> bool {
    mux::open_and_close(seed as u32, 500 + (seed >> 32) as usize % 3000);
    true
}

pub fn malicious_peer(seed: u64) -> bool {
    let mut source = Gen::from_size_and_seed(60, seed);
    assert!(replicator_malicious_peers::survives(Vec::arbitrary(&mut source)));
    true
}

pub fn peers(seed: u64) -> bool {
    let mut source = Gen::from_size_and_seed(40, seed);
    convergence::run(u8::arbitrary(&mut source), Vec::arbitrary(&mut source))
}

/// Random operations on a core, with reopening between them, compared with a list of blocks.
pub fn operations(seed: u64) -> bool {
    let mut random = Random::new(seed);
    let disk = Memory::new();
    let durability = [Durability::None, Durability::Flush, Durability::Always][index(&mut random, 3)];
    let open = || Hypercore::options().key_pair(pair(1)).durability(durability).open_in(disk.clone()).unwrap();
    let mut core = open();
    let mut model: Vec<Option<Vec<u8>>> = Vec::new();
    let mut fork = 0;
    for _ in 0..40 {
        match index(&mut random, 12) {
            0..=4 => {
                let count = index(&mut random, 6);
                let blocks: Vec<Vec<u8>> =
                    (0..count).map(|_| vec![random.next() as u8; index(&mut random, 200)]).collect();
                assert_eq!(core.append_batch(&blocks).unwrap().length, (model.len() + count) as u64);
                model.extend(blocks.into_iter().map(Some));
            }
            5 if !model.is_empty() => {
                let length = index(&mut random, model.len());
                fork = core.truncate(length as u64).unwrap();
                model.truncate(length);
            }
            6 => {
                let start = index(&mut random, model.len() + 1);
                let end = start + index(&mut random, 9);
                core.clear(start as u64..end as u64).unwrap();
                model.iter_mut().take(end).skip(start).for_each(|block| *block = None);
            }
            7 => core.flush().unwrap(),
            8 => core.set_user_data("key", vec![1; index(&mut random, 6000)]).unwrap(),
            9 => assert_eq!(core.verify().unwrap().faults, []),
            10 => {
                core.close().unwrap();
                core = open();
            }
            _ => {}
        }
        assert_eq!((core.len(), core.fork()), (model.len() as u64, fork));
        if !model.is_empty() {
            let at = index(&mut random, model.len());
            assert_eq!(core.has(at as u64).unwrap(), model[at].is_some());
            if let Some(block) = &model[at] {
                assert_eq!(core.get(at as u64).unwrap(), *block);
            }
        }
    }
    true
}
