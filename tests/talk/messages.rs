//! Every message encodes to the reference's bytes, decodes to an equal value, and is refused when it is malformed.

use hypercore::lowlevel::codec::{Reader, Writer};
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{
    self, BlockProof, HashProof, NodeRequest, Proof, SeekProof, SeekRequest, UpgradeProof, UpgradeRequest,
};
use hypercore::lowlevel::node::Node;
use hypercore::lowlevel::replication::{
    Bitfield, Data, Extension, Handshake, MAX_BITFIELD_WORDS, MAX_NODES, Message, Range, Request, Span, Sync,
};
use hypercore::{KeyPair, Manifest};
use quickcheck::quickcheck;
use serde_json::Value;

use crate::common::unhex;

fn vector(name: &str) -> Vec<u8> {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap();
    unhex(vectors["wire"][name].as_str().unwrap())
}

fn encode(message: &Message) -> Vec<u8> {
    let mut w = Writer::new();
    message.encode(&mut w);
    w.into_vec()
}

fn decode(kind: u64, bytes: &[u8]) -> hypercore::Result<Message> {
    Message::decode(kind, bytes).map(|message| message.expect("a known type"))
}

fn node(index: u64, size: u64, byte: u8) -> Node {
    Node { index: NodeIndex(index), size, hash: [byte; 32] }
}

fn data(request: u64, fork: u64) -> Data {
    Data { request, proof: Proof { fork, ..Proof::default() } }
}

/// At least one message of each kind, with its name in the vectors.
pub fn samples() -> Vec<(&'static str, Message)> {
    let span = Span { start: 0, length: 2_097_152 };
    let sync = Sync {
        fork: 1,
        length: 300,
        remote_length: 7,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: false,
    };
    let block_upgrade = Request {
        id: 5,
        wanted: merkle::Request {
            block: Some(NodeRequest { index: 300, nodes: 2 }),
            upgrade: Some(UpgradeRequest { start: 0, length: 301 }),
            ..Default::default()
        },
        ..Request::default()
    };
    let hash_seek = Request {
        id: 6,
        fork: 2,
        wanted: merkle::Request {
            hash: Some(NodeRequest { index: 8, nodes: 1 }),
            seek: Some(SeekRequest { bytes: 99, padding: 8 }),
            ..Default::default()
        },
        manifest: true,
        priority: 1,
    };
    let mut block = data(5, 0);
    let nodes = vec![node(6, 3, 2)];
    block.proof.block = Some(BlockProof { index: 2, value: b"bcd"[..2].to_vec(), nodes });
    let mut upgrade = data(7, 1);
    upgrade.proof.upgrade = Some(UpgradeProof {
        start: 0,
        length: 5,
        nodes: vec![node(3, 6, 3), node(8, 11, 4)],
        additional_nodes: vec![],
        signature: vec![5; 64],
    });
    vec![
        ("sync", Message::Sync(sync)),
        ("request_block_upgrade", Message::Request(block_upgrade)),
        ("request_hash_seek", Message::Request(hash_seek)),
        ("cancel", Message::Cancel(5)),
        ("data_block", Message::Data(Box::new(block))),
        ("data_upgrade", Message::Data(Box::new(upgrade))),
        ("no_data", Message::NoData(9)),
        ("want", Message::Want(span)),
        ("unwant", Message::Unwant(span)),
        ("bitfield", Message::Bitfield(Bitfield { start: 0, words: vec![1, u32::MAX] })),
        ("range_have", Message::Range(Range { drop: false, start: 0, length: 300 })),
        ("range_have_one", Message::Range(Range { drop: false, start: 9, length: 1 })),
        ("range_drop", Message::Range(Range { drop: true, start: 4, length: 2 })),
        ("extension", Message::Extension(Extension { name: "ping".into(), message: b"hi".to_vec() })),
    ]
}

#[test]
fn encoded_messages_match_reference() {
    for (name, message) in samples() {
        let bytes = vector(name);
        assert_eq!(decode(message.kind(), &bytes).unwrap(), message, "{name}");
        assert_eq!(encode(&message), bytes, "{name}");
    }
    let handshake = Handshake { seeks: true, capability: [1; 32] };
    let mut w = Writer::new();
    handshake.encode(&mut w);
    assert_eq!(w.as_slice(), vector("handshake"));
    assert_eq!(Handshake::decode(&mut Reader::new(w.as_slice())).unwrap(), handshake);
}

/// A data message with every optional part.
pub fn full() -> Data {
    let mut full = data(1 << 40, 3);
    let manifest = Manifest::single(KeyPair::from_seed(&[3; 32]).public_key());
    full.proof = Proof {
        fork: 3,
        block: Some(BlockProof { index: 1 << 33, value: vec![7; 1000], nodes: vec![node(5, 1 << 52, 1); 40] }),
        hash: Some(HashProof { index: NodeIndex(77), nodes: vec![node(77, 0, 9)] }),
        seek: Some(SeekProof { bytes: 5, nodes: vec![] }),
        upgrade: Some(UpgradeProof {
            start: 1,
            length: 2,
            nodes: vec![node(1, 2, 3)],
            additional_nodes: vec![],
            signature: vec![1; 100],
        }),
        manifest: Some(manifest),
    };
    full
}

#[test]
fn encoded_len_of_full_message_is_not_exceeded() {
    let whole = full();
    let expected = encode(&Message::Data(Box::new(whole.clone())));
    assert!(whole.encoded_len(1000) >= expected.len());
}

#[test]
fn unknown_flags_and_trailing_bytes_are_ignored() {
    let mut bytes = vector("sync");
    bytes[0] |= 16 | 32;
    assert_eq!(decode(0, &bytes).unwrap(), samples()[0].1);
    for (name, message) in samples() {
        if matches!(message, Message::Extension(_)) {
            continue;
        }
        let mut bytes = vector(name);
        bytes.extend([1, 2, 3]);
        assert_eq!(decode(message.kind(), &bytes).unwrap(), message, "{name}");
    }
    assert_eq!(Message::decode(10, b"whatever").unwrap(), None);
}

#[test]
fn manifest_of_newer_version_is_refused_with_its_version() {
    for version in [2, 3] {
        let error = decode(3, &[16, 1, 0, version, 0, 0, 1, 0]).unwrap_err();
        assert!(error.to_string().contains(&format!("version {version}")), "{error}");
    }
}

#[test]
fn truncated_message_is_refused() {
    let mut all = samples();
    all.push(("full", Message::Data(Box::new(full()))));
    for (name, message) in all {
        if matches!(message, Message::Extension(_)) {
            continue;
        }
        let bytes = encode(&message);
        for end in 0..bytes.len() {
            assert!(decode(message.kind(), &bytes[..end]).is_err(), "{name} at {end}");
        }
    }
}

#[test]
fn oversized_counts_are_refused_before_allocation() {
    let mut w = Writer::new();
    w.uint(0).uint(MAX_BITFIELD_WORDS as u64 + 1).bytes(&vec![0; MAX_BITFIELD_WORDS * 4 + 4]);
    assert!(decode(7, w.as_slice()).is_err());
    let mut w = Writer::new();
    w.uint(0).uint(1 << 52);
    assert!(decode(7, w.as_slice()).is_err());
    for nodes in [MAX_NODES as u64 + 1, 1 << 40] {
        let mut w = Writer::new();
        w.uint(2).uint(1).uint(0).uint(4).uint(nodes);
        let one = node(1, 1, 1);
        (0..=MAX_NODES).for_each(|_| one.encode(&mut w));
        assert!(decode(3, w.as_slice()).is_err());
    }
    let mut largest = data(1, 0);
    largest.proof.hash = Some(HashProof { index: NodeIndex(4), nodes: vec![node(1, 1, 1); MAX_NODES] });
    let largest = Message::Data(Box::new(largest));
    assert_eq!(decode(3, &encode(&largest)).unwrap(), largest);
}

quickcheck! {
    fn arbitrary_bytes_decode_and_encode_alike(kind: u8, bytes: Vec<u8>) -> bool {
        match Message::decode(u64::from(kind) % 12, &bytes) {
            Ok(Some(message)) => decode(message.kind(), &encode(&message)).unwrap() == message,
            _ => true,
        }
    }
}
