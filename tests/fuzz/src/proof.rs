//! Proofs. An input whose first byte is from 0x40 to 0x5f is a request, which an honest writer answers; any other
//! is a data message, which a reader verifies and commits.

use std::sync::LazyLock;

use hypercore::ErrorKind;
use hypercore::lowlevel::flat_tree::root_of;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{self, NodeRequest, Reorg, SeekRequest, UpgradeRequest};
use hypercore::lowlevel::replication::{CommitOutcome, Message, Request};

use crate::log::{Kind, Log, blocks};
use crate::memory::within;
use crate::written;

const REQUESTS: std::ops::Range<u8> = 0x40..0x60;

/// A writer of 41 blocks, and three readers: of its first 11 blocks, of nothing, and of a core whose key is its
/// manifest's.
struct World {
    writers: [Log; 2],
    readers: [Log; 3],
    /// Has the head of the first writer and no block.
    follower: Log,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let writers = [Kind::Compat, Kind::Manifest].map(|kind| {
        let mut writer = Log::writer(kind);
        writer.append(blocks(0..11));
        writer
    });
    let readers = [Log::follower_of(&writers[0]), Log::reader_of(&writers[0]), Log::reader_of(&writers[1])];
    let writers = writers.map(|mut writer| {
        writer.append(blocks(11..41));
        writer
    });
    World { follower: Log::follower_of(&writers[0]), writers, readers }
});

pub fn run(bytes: &[u8]) {
    let Some(first) = bytes.first() else { return };
    LazyLock::force(&WORLD);
    within(64 * bytes.len() + (256 << 10), || match first {
        byte if REQUESTS.contains(byte) => honest(&bytes[1..]),
        _ => hostile(bytes),
    });
}

fn request(id: u64, block: Option<(u64, u64)>, seek: Option<u64>, upgrade: Option<(u64, u64)>) -> Request {
    let wanted = merkle::Request {
        block: block.map(|(index, nodes)| NodeRequest { index, nodes }),
        seek: seek.map(|bytes| SeekRequest { bytes, padding: 0 }),
        upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
        ..Default::default()
    };
    Request { id, wanted, manifest: id == 3, ..Request::default() }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut requests = vec![
        request(1, Some((3, 0)), None, None),
        request(1, Some((7, 2)), None, None),
        request(1, Some((20, 1)), None, Some((11, 30))),
        request(1, None, Some(200), Some((11, 30))),
        request(1, None, None, Some((11, 12))),
        request(2, None, None, Some((0, 41))),
        request(2, Some((33, 0)), None, Some((0, 40))),
        request(3, None, None, Some((0, 41))),
        request(3, Some((2, 0)), Some(100), Some((0, 11))),
    ];
    let mut hash = request(1, None, None, None);
    hash.wanted.hash = Some(NodeRequest { index: 4, nodes: 3 });
    requests.push(hash);
    let mut all = Vec::new();
    for request in requests {
        all.push([&[0x40][..], &written(|w| Message::Request(request).encode(w))].concat());
        let writer = &WORLD.writers[usize::from(request.id == 3)];
        if let message @ Message::Data(_) = writer.answer(&request) {
            all.push(written(|w| message.encode(w)));
        }
    }
    all
}

fn hostile(bytes: &[u8]) {
    let Ok(Some(Message::Data(data))) = Message::decode(3, bytes) else { return };
    let (reader, writer) = match data.request % 4 {
        2 => (1, 0),
        3 => (2, 1),
        _ => (0, 0),
    };
    let (mut reader, writer) = (WORLD.readers[reader].clone(), &WORLD.writers[writer]);
    let before = reader.length();
    let conflict = merkle::conflict(&reader, &reader.head, &data.proof, &reader.verifier);
    assert!(!matches!(conflict, Ok(Some(_))), "a conflict that no signer made");
    assert!(Reorg::start(&reader, &reader.head, &data.proof, &reader.verifier).is_err(), "a fork that no signer made");
    if !matches!(reader.commit(&data).0, CommitOutcome::Stored) {
        assert_eq!(reader.length(), before);
        return;
    }
    reader.assert_part_of(writer);
    assert!(reader.verifier.manifest().is_none_or(|manifest| Some(manifest) == writer.verifier.manifest()));
    // A reader proves the blocks it holds to another reader.
    for index in reader.blocks.keys().filter(|_| reader.head == writer.head) {
        let mut other = Log::follower_of(writer);
        let root = root_of(*index, writer.length()).unwrap();
        let ask = request(1, Some((*index, root.depth().into())), None, None);
        let Message::Data(data) = reader.answer(&ask) else { panic!("block {index} cannot be proven") };
        assert!(matches!(other.commit(&data).0, CommitOutcome::Stored));
        other.assert_part_of(writer);
    }
}

/// An honest response decodes to itself, has the parts that were requested, and verifies for a reader with the
/// requested base.
fn honest(bytes: &[u8]) {
    let Ok(Some(Message::Request(request))) = Message::decode(1, bytes) else { return };
    let World { writers: [writer, _], readers: [reader, ..], follower } = &*WORLD;
    let answer = writer.answer(&request);
    let Message::Data(data) = &answer else { return };
    let again = Message::decode(3, &written(|w| answer.encode(w))).unwrap().unwrap();
    assert_eq!(again, answer);
    let wanted = &request.wanted;
    assert_eq!(data.proof.block.as_ref().map(|block| block.index), wanted.block.map(|block| block.index));
    assert_eq!(data.proof.upgrade.is_some(), wanted.upgrade.is_some());

    let asker = match wanted.upgrade {
        None => follower,
        Some(upgrade) if upgrade.start == reader.length() => reader,
        Some(_) => return,
    };
    // A block up to the root that the asker has, or of what the upgrade adds, is all that it needs.
    let complete = match (wanted.block, wanted.upgrade) {
        (None, None) => false,
        (None, Some(_)) => true,
        (Some(block), Some(upgrade)) => block.index >= upgrade.start,
        (Some(block), None) => {
            root_of(block.index, asker.length()).is_some_and(|root| u64::from(root.depth()) == block.nodes)
        }
    };
    let mut asker = asker.clone();
    let (outcome, _) = asker.commit(data);
    match &outcome {
        CommitOutcome::Rejected(error) => {
            assert!(
                error.kind() == ErrorKind::InvalidOperation
                    && (!complete || wanted.hash.is_some() || wanted.seek.is_some()),
                "{request:?}: {error:?}"
            );
        }
        outcome => assert!(matches!(outcome, CommitOutcome::Stored), "{outcome:?}"),
    }
    asker.assert_part_of(writer);
    if let (CommitOutcome::Stored, Some(block)) = (&outcome, wanted.block) {
        assert_eq!(asker.blocks[&block.index], writer.blocks[&block.index]);
        assert!(asker.nodes.contains_key(&NodeIndex::of_block(block.index)));
    }
}
