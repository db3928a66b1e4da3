//! Peers that alter what an honest core sends: false proofs are rejected, and an honest peer completes the download.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{BlockProof, UpgradeProof};
use hypercore::lowlevel::replication::{Data, Message};
use hypercore::net::{Connection, ConnectionOptions, Replication, Role};
use hypercore::{Download, ErrorKind, Hypercore};

use crate::common::Gate;
use crate::cores::{Events, block, connect, copy_of, tcp, writer};
use crate::harness::parallel_test;
use crate::raw_peer::{RawPeer, RawSender, Received, gated_stream};

/// A relay that knows the key and alters what an honest core sends.
struct Relay {
    connection: Connection,
    threads: Vec<thread::JoinHandle<()>>,
    senders: [RawSender; 2],
    _honest: Replication,
}

impl Relay {
    /// Connects `victim` and `honest`, passing to the victim what `change` makes of each message; `None` drops it.
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
        let raws = [RawPeer::new(b, Role::Initiator), RawPeer::new(c, Role::Initiator)];
        let senders = raws.each_ref().map(|raw| raw.sender.clone());
        let channels = senders.each_ref().map(|sender| sender.open(&key));
        let [to_victim, to_honest] = raws;
        let pass = |mut from: RawPeer,
                    to: RawSender,
                    channel,
                    mut change: Box<dyn FnMut(Message) -> Option<Message> + Send>| {
            thread::spawn(move || {
                while let Some(heard) = from.receive() {
                    if let Received::Message(message) = heard {
                        if let Some(message) = change(message) {
                            to.send(channel, &message);
                        }
                    }
                }
                to.shut_down();
            })
        };
        let threads = vec![
            pass(to_victim, senders[1].clone(), channels[1], Box::new(Some)),
            pass(to_honest, senders[0].clone(), channels[0], Box::new(change)),
        ];
        Relay { connection, threads, senders, _honest: honest }
    }

    fn end(self) {
        self.senders.iter().for_each(RawSender::shut_down);
        self.connection.close();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn relay_that_changes_nothing_passes_log() {
    let _guard = parallel_test!();
    let core = writer(40);
    let copy = copy_of(&core);
    let relay = Relay::new(&copy, &core, Some);
    copy.download(Download::range(0..40)).unwrap().wait().unwrap();
    relay.end();
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
}

/// The false part of a response, the error that ends the connection, and the change to the response.
type FalseResponse = (&'static str, ErrorKind, fn(&mut Data));

const FALSE_RESPONSES: [FalseResponse; 11] = [
    ("a byte of a block", ErrorKind::InvalidChecksum, |data| with_block(data, |block| block.value[0] ^= 1)),
    ("a longer block", ErrorKind::InvalidChecksum, |data| with_block(data, |block| block.value.push(0))),
    ("a byte of a node", ErrorKind::InvalidChecksum, |data| {
        with_block(data, |block| block.nodes.iter_mut().take(1).for_each(|n| n.hash[5] ^= 0x80))
    }),
    ("a size", ErrorKind::InvalidChecksum, |data| {
        with_block(data, |block| block.nodes.iter_mut().rev().take(1).for_each(|n| n.size += 1 << 30))
    }),
    ("another block", ErrorKind::Protocol, |data| with_block(data, |block| block.index ^= 1)),
    ("a byte of the signature", ErrorKind::InvalidSignature, |data| {
        with_upgrade(data, |upgrade| upgrade.signature[7] ^= 4)
    }),
    ("a longer head", ErrorKind::InvalidOperation, |data| with_upgrade(data, |upgrade| upgrade.length = 1 << 50)),
    ("a root", ErrorKind::InvalidSignature, |data| {
        with_upgrade(data, |upgrade| upgrade.nodes.iter_mut().take(1).for_each(|n| n.hash[31] ^= 1))
    }),
    ("nodes beyond any tree", ErrorKind::InvalidOperation, |data| {
        with_block(data, |block| block.nodes.iter_mut().for_each(|node| node.index = NodeIndex((1 << 53) - 1)));
    }),
    ("a block that was not requested", ErrorKind::Protocol, |data| {
        let none = BlockProof { index: 0, value: Vec::new(), nodes: Vec::new() };
        data.proof.block.get_or_insert(none).index = 33;
    }),
    ("a signature over nothing", ErrorKind::InvalidOperation, |data| {
        let (nodes, additional_nodes) = (Vec::new(), Vec::new());
        data.proof.upgrade =
            Some(UpgradeProof { start: 0, length: 1, nodes, additional_nodes, signature: vec![0; 64] });
    }),
];

fn with_block(data: &mut Data, change: impl FnOnce(&mut BlockProof)) {
    if let Some(block) = &mut data.proof.block {
        change(block);
    }
}

fn with_upgrade(data: &mut Data, change: impl FnOnce(&mut UpgradeProof)) {
    if let Some(upgrade) = &mut data.proof.upgrade {
        change(upgrade);
    }
}

/// Each kind of false proof is detected, stores nothing false and ends the connection. An honest peer
/// completes the download.
#[test]
fn false_proofs_are_refused_and_honest_peer_completes() {
    let _guard = parallel_test!();
    let core = writer(40);
    for (what, kind, falsify) in FALSE_RESPONSES {
        let copy = copy_of(&core);
        let (tell, told) = channel();
        let relay = Relay::new(&copy, &core, move |message| {
            let Message::Data(data) = message else { return Some(message) };
            let mut falsified = (*data).clone();
            falsify(&mut falsified);
            if falsified != *data {
                _ = tell.send(());
            }
            Some(Message::Data(Box::new(falsified)))
        });
        let download = copy.download(Download::range(0..40)).unwrap();
        told.recv().unwrap();
        let error = relay.connection.wait().expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        relay.end();
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

/// One of two sources sends false blocks. It is closed and reported, and the other completes the download.
#[test]
fn dishonest_peer_among_honest_ones_is_closed_and_download_completes() {
    let _guard = parallel_test!();
    let core = writer(500);
    let copy = copy_of(&core);
    let errors = Events::new(|tell| copy.on_verification_error(move |_, peer| tell.send(peer.id()).unwrap()));
    // The honest source sends nothing until the other has sent a false block.
    let gate = Arc::new(Gate::default());
    let joined = Events::new(|tell| copy.on_peer_add(move |peer| tell.send(peer.id()).unwrap()));
    let (a, b) = tcp();
    let _ours = copy.replicate(a, Role::Initiator).unwrap();
    let _theirs = core.replicate(gated_stream(&gate, b.try_clone().unwrap(), b), Role::Responder).unwrap();
    let honest = joined.next();
    gate.shut();
    let (tell, lied) = channel();
    let relay = Relay::new(&copy, &core, move |message| {
        let Message::Data(mut data) = message else { return Some(message) };
        if let Some(block) = &mut data.proof.block {
            block.value[0] ^= 1;
            _ = tell.send(());
        }
        Some(Message::Data(data))
    });
    let download = copy.download(Download::range(0..500)).unwrap();
    lied.recv().unwrap();
    gate.open();
    download.wait().unwrap();
    for index in 0..500 {
        assert_eq!(copy.get(index).unwrap(), block(index));
    }
    assert_ne!(errors.next(), honest);
    assert!(relay.connection.wait().is_err());
    relay.end();
}
