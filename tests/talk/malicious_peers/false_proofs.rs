//! TODO.

use std::thread;

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{BlockProof, UpgradeProof};
use hypercore::lowlevel::replication::{Data, Message};
use hypercore::net::{Connection, ConnectionOptions, Replication, Role};
use hypercore::{Download, ErrorKind, Hypercore};

use crate::cores::{Events, block, connect, copy_of, tcp, writer};
use crate::harness::parallel_test;
use crate::raw_peer::{RawPeer, RawSender, Received};

/// A middleman who knows the key, and changes what an honest core says.
struct Middle {
    connection: Connection,
    threads: Vec<thread::JoinHandle<()>>,
    senders: [RawSender; 2],
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
        Middle { connection, threads, senders, _honest: honest }
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
    let middle = Middle::new(&copy, &core, Some);
    copy.download(Download::range(0..40)).unwrap().wait().unwrap();
    middle.end();
    assert_eq!(copy.tree_hash().unwrap(), core.tree_hash().unwrap());
}

/// Every kind of lie is found, nothing of it stored, its teller cut off, and an honest peer finishes the job.
#[test]
fn false_proofs_are_rejected_and_honest_peer_completes() {
    let _guard = parallel_test!();
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
fn lying_peer_among_honest_ones_is_closed_and_download_completes() {
    let _guard = parallel_test!();
    let core = writer(500);
    let copy = copy_of(&core);
    let errors = Events::new(|tell| {
        copy.on_verification_error(move |what, peer| tell.send((what.to_owned(), peer.id())).unwrap())
    });
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
        errors.next();
    }
    middle.end();
}
