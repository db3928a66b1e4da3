//! Replication messages: the kind, then the payload. Kind 200 is the handshake.

use hypercore::lowlevel::codec::Reader;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{
    self, BlockProof, HashProof, NodeRequest, Proof, SeekProof, SeekRequest, UpgradeProof, UpgradeRequest,
};
use hypercore::lowlevel::node::Node;
use hypercore::lowlevel::replication::{Bitfield, Data, Extension, Handshake, Message, Range, Request, Span, Sync};
use hypercore::{Manifest, Signer};

use crate::memory::within;
use crate::{pair, written};

pub fn run(bytes: &[u8]) {
    let [kind, payload @ ..] = bytes else { return };
    within(16 * payload.len() + 4096, || {
        if *kind == 200 {
            let Ok(handshake) = Handshake::decode(&mut Reader::new(payload)) else { return };
            let again = written(|w| handshake.encode(w));
            assert_eq!(Handshake::decode(&mut Reader::new(&again)).unwrap(), handshake);
            return;
        }
        let Ok(Some(message)) = Message::decode(u64::from(*kind), payload) else { return };
        assert_eq!(message.kind(), u64::from(*kind));
        let again = written(|w| message.encode(w));
        assert_eq!(Message::decode(message.kind(), &again).unwrap().unwrap(), message);
        if let Message::Data(mut data) = message {
            let value = data.proof.block.as_mut().map(|block| std::mem::take(&mut block.value)).unwrap_or_default();
            assert!(again.len() < data.encoded_len(value.len()), "{} bytes are more than was foretold", again.len());
        }
    });
}

/// A message behind its kind.
pub fn bytes_of(message: &Message) -> Vec<u8> {
    [vec![message.kind() as u8], written(|w| message.encode(w))].concat()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let node = |index, size| Node { index: NodeIndex(index), size, hash: [index as u8; 32] };
    let full = Proof {
        fork: 1,
        block: Some(BlockProof { index: 2, value: vec![1; 9], nodes: vec![node(6, 4), node(1, 8)] }),
        hash: None,
        seek: Some(SeekProof { bytes: 70, nodes: vec![node(4, 2)] }),
        upgrade: Some(UpgradeProof {
            start: 3,
            length: 4,
            nodes: vec![node(8, 1)],
            additional_nodes: vec![node(12, 1 << 40)],
            signature: vec![5; 64],
        }),
        manifest: Some(Manifest::new(vec![Signer::new(pair(1).public_key())]).with_prologue([2; 32], 3)),
    };
    let hash = Proof { hash: Some(HashProof { index: NodeIndex(5), nodes: vec![node(5, 2)] }), ..Proof::default() };
    let wanted = merkle::Request {
        block: Some(NodeRequest { index: 300, nodes: 2 }),
        hash: Some(NodeRequest { index: 8, nodes: 1 }),
        seek: Some(SeekRequest { bytes: 99, padding: 8 }),
        upgrade: Some(UpgradeRequest { start: 0, length: 301 }),
    };
    let sync = Sync { fork: 1, length: 300, remote_length: 7, can_upgrade: true, uploading: true, ..Sync::default() };
    let messages = [
        Message::Sync(sync),
        Message::Request(Request { id: 5, fork: 1, wanted, manifest: true, priority: 1 }),
        Message::Cancel(5),
        Message::Data(Box::new(Data { request: 5, proof: full })),
        Message::Data(Box::new(Data { request: 6, proof: hash })),
        Message::NoData(9),
        Message::Want(Span { start: 0, length: 2_097_152 }),
        Message::Unwant(Span { start: 0, length: 2_097_152 }),
        Message::Bitfield(Bitfield { start: 0, words: vec![1, u32::MAX] }),
        Message::Range(Range { drop: false, start: 0, length: 300 }),
        Message::Range(Range { drop: true, start: 9, length: 1 }),
        Message::Extension(Extension { name: "ping".into(), message: b"hi".to_vec() }),
    ];
    let mut all: Vec<Vec<u8>> = messages.iter().map(bytes_of).collect();
    all.push([vec![200], written(|w| Handshake { seeks: true, capability: [1; 32] }.encode(w))].concat());
    all
}
