//! Misbehaving peers of a replicator: each costs at most its own connection. Nothing false is stored, other peers
//! complete the download, and the memory and work that a peer causes is bounded.

use std::time::Duration;

use hypercore::Download;
use hypercore::ErrorKind;
use hypercore::lowlevel::merkle::{self, Proof, UpgradeProof};
use hypercore::lowlevel::replication::{
    Bitfield, CloseReason, Data, Extension, Message, Range, Request, SEGMENT, Span, Sync, Woken,
};
use quickcheck::{Arbitrary, Gen, QuickCheck};

use crate::simulated_core::{Core, block, blocks};
use crate::simulated_network::{Net, all, assert_same, download, pair};

/// A reader with an honest source and one whose messages `tamper` changes; returns the network, the honest host, the
/// other and the reader.
fn good_and_bad(tamper: impl FnMut(&mut Message) -> bool + 'static) -> (Net, usize, usize, usize) {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(300));
    let reader = Core::reader_of(&writer);
    let (good, bad, b) = (net.host(writer.clone()), net.host(writer), net.host(reader));
    net.hosts[bad].tamper = Some(Box::new(tamper));
    net.connect_by(bad, b, Duration::from_millis(2), 1e7);
    net.connect_by(good, b, Duration::from_millis(20), 1e5);
    (net, good, bad, b)
}

fn misbehaved(net: &Net, host: usize) -> usize {
    net.hosts[host].closed.iter().filter(|(_, reason)| matches!(reason, CloseReason::Misbehaved(_))).count()
}

/// Applies `how` to the `nth` response.
fn flip(nth: usize, how: impl Fn(&mut Data) + 'static) -> impl FnMut(&mut Message) -> bool {
    let mut count = 0;
    move |message| {
        if let Message::Data(data) = message {
            if data.request > 0 {
                count += 1;
                if count == nth {
                    how(data);
                }
            }
        }
        true
    }
}

#[test]
fn false_proof_closes_only_its_sender() {
    type Falsify = fn(&mut Data);
    let falsifications: [Falsify; 8] = [
        |data| data.proof.block.iter_mut().for_each(|block| block.value[3] ^= 1),
        |data| data.proof.block.iter_mut().for_each(|block| block.value.push(0)),
        |data| data.proof.block.iter_mut().for_each(|block| block.nodes.iter_mut().for_each(|node| node.hash[9] ^= 4)),
        |data| data.proof.block.iter_mut().for_each(|block| block.nodes.iter_mut().for_each(|node| node.size += 1)),
        |data| data.proof.block.iter_mut().for_each(|block| block.nodes.iter_mut().for_each(|node| node.index.0 += 2)),
        |data| data.proof.block.iter_mut().for_each(|block| block.index ^= 1),
        |data| {
            let stray =
                UpgradeProof { start: 300, length: 9, nodes: vec![], additional_nodes: vec![], signature: vec![] };
            data.proof.upgrade = Some(stray);
        },
        |data| data.request += 1_000_000,
    ];
    for (i, falsify) in falsifications.into_iter().enumerate() {
        for nth in [2, 30] {
            let (mut net, good, _, b) = good_and_bad(flip(nth, falsify));
            let want = download(&mut net, b, Download::range(0..300));
            net.until(|net| net.hosts[b].woken.contains_key(&want));
            net.settle();
            assert_same(&net, good, b);
            assert_eq!(misbehaved(&net, b), 1, "falsification {i} in response {nth}");
            assert_eq!(net.hosts[b].conflicts, 0);
        }
    }
}

/// Proofs that depend on an earlier one wait for it. A peer that withholds the first must not make us hold any
/// amount of them.
#[test]
fn proofs_waiting_for_withheld_response_are_bounded() {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(300));
    let reader = Core::reader_of(&writer);
    let (bad, b) = (net.host(writer), net.host(reader));
    let mut kept_back = false;
    net.hosts[bad].tamper = Some(Box::new(move |message| {
        let Message::Data(data) = message else { return true };
        let Some(block) = &mut data.proof.block else { return true };
        if !std::mem::replace(&mut kept_back, true) {
            return false;
        }
        block.value = vec![0; 8 << 20];
        true
    }));
    net.connect_by(bad, b, Duration::from_millis(2), 1e12);
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.hosts[b].core.length(), 300);
    download(&mut net, b, all());
    net.run_for(Duration::from_millis(200));
    assert_eq!((misbehaved(&net, b), net.hosts[b].core.blocks.len()), (1, 0));
}

#[test]
fn false_signature_closes_only_its_sender() {
    for nth in [1, 2] {
        let (mut net, good, bad, b) = good_and_bad(|message| {
            if let Message::Data(data) = message {
                data.proof.upgrade.iter_mut().for_each(|upgrade| upgrade.signature[17] ^= 1);
            }
            true
        });
        if nth == 2 {
            net.change(bad, |core| core.append([block(300, 9)]));
        }
        download(&mut net, b, all());
        net.settle();
        assert_same(&net, good, b);
        assert_eq!(misbehaved(&net, b), 1);
    }
}

#[test]
fn refusing_peer_is_asked_with_growing_backoff() {
    let (mut net, good, bad, b) = good_and_bad(|message| {
        if let Message::Data(data) = message {
            *message = Message::NoData(data.request);
        }
        true
    });
    download(&mut net, b, all());
    net.until(|net| net.hosts[b].core.blocks.len() == 300);
    assert_same(&net, good, b);
    // Only the refusing peer has block 300.
    net.change(bad, |core| core.append([block(300, 9)]));
    let before = net.links[0].sent[1][1];
    net.run_for(Duration::from_secs(3600));
    let asked = net.links[0].sent[1][1] - before;
    assert!((10..100).contains(&asked), "asked {asked} times in an hour");
    assert_eq!(misbehaved(&net, b), 0);
    // When it serves requests again, the log is completed.
    net.hosts[bad].tamper = None;
    net.run_for(Duration::from_secs(70));
    assert_same(&net, bad, b);
}

#[test]
fn peer_claiming_impossible_length_costs_no_work() {
    let (mut net, good, _, b) = good_and_bad(|message| {
        match message {
            Message::Sync(sync) => sync.length = 1 << 50,
            Message::Range(range) => range.length = (1 << 53) - 1,
            _ => {}
        }
        true
    });
    download(&mut net, b, all());
    let it = &mut net.hosts[b];
    let far = it.machine.wait_for_block((1 << 49) + 12345, &it.core);
    net.until(|net| net.hosts[b].core.blocks.len() == 300);
    assert_same(&net, good, b);
    net.run_for(Duration::from_secs(3600));
    assert!(!net.hosts[b].woken.contains_key(&far));
    assert!(net.steps < 5000, "{} steps", net.steps);
}

#[test]
fn conflicting_logs_stop_replication_and_keep_blocks() {
    let mut net = Net::new();
    let mut one = Core::writer();
    one.append(blocks(20));
    let mut other = Core::writer();
    other.append((0..25).map(|i| block(i, if i < 13 { 20 } else { 21 })));
    let reader = Core::reader_of(&one);
    let (a, c, b) = (net.host(one), net.host(other), net.host(reader));
    let d = net.host(Core::reader_of(&net.hosts[a].core));
    net.connect(a, b);
    download(&mut net, b, all());
    net.settle();
    net.connect(b, d);
    net.settle();
    let kept = net.hosts[b].core.blocks.clone();
    let it = &mut net.hosts[b];
    let waiting = it.machine.wait_for_block(22, &it.core);
    net.connect(c, b);
    net.settle();
    assert_eq!(net.hosts[b].conflicts, 1);
    assert_eq!(net.hosts[b].core.blocks, kept);
    assert_eq!(net.hosts[b].woken[&waiting].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(net.hosts[b].machine.peers().count(), 0);
    assert_eq!(net.hosts[b].joined, 0);
    // The reader sends the other writer the proof of the conflict.
    assert_eq!(net.hosts[c].conflicts, 1);
    // Peers on the reader's log are not told.
    assert_eq!((net.hosts[a].conflicts, net.hosts[d].conflicts), (0, 0));
    let it = &mut net.hosts[b];
    let later = it.machine.wait_for_block(23, &it.core);
    net.settle();
    assert!(net.hosts[b].woken[&later].is_err());
}

#[test]
fn request_flood_closes_peer_at_limit() {
    let (mut net, a, b, link) = pair(10);
    net.settle();
    let peer = net.peer(link, a);
    let it = &mut net.hosts[a];
    // Requests that are cancelled at once leave nothing behind.
    for id in 1..100_000 {
        it.machine.handle(peer, Message::Request(Request { id, ..Request::default() }), &it.core, net.now);
        it.machine.handle(peer, Message::Cancel(id), &it.core, net.now);
        it.machine.handle(peer, Message::Want(Span { start: 0, length: (1 << 53) - 1 }), &it.core, net.now);
        it.machine.handle(peer, Message::Want(Span { start: (1 << 53) - 1, length: (1 << 53) - 1 }), &it.core, net.now);
    }
    let mut served = 0;
    while it.machine.next_response(peer, &it.core).is_some() {
        served += 1;
        assert!(served < 2000);
    }
    // Requests without end.
    let mut refused = None;
    for id in 1..100_000 {
        it.machine.handle(peer, Message::Request(Request { id, ..Request::default() }), &it.core, net.now);
        if it.machine.peers().count() == 0 {
            refused = Some(id);
            break;
        }
    }
    assert_eq!(refused, Some(4097));
    net.settle();
    assert_eq!(misbehaved(&net, a), 1);
    assert_eq!(net.hosts[b].machine.peers().count(), 0);
}

#[test]
fn requests_are_answered_once_by_priority() {
    let (mut net, a, _, link) = pair(10);
    net.settle();
    let peer = net.peer(link, a);
    let it = &mut net.hosts[a];
    for (id, priority) in [(1, 0), (2, 0), (3, 1), (2, 0), (4, 0), (5, 1)] {
        it.machine.handle(peer, Message::Request(Request { id, priority, ..Request::default() }), &it.core, net.now);
    }
    it.machine.handle(peer, Message::Cancel(4), &it.core, net.now);
    let mut order = Vec::new();
    while let Some(hypercore::lowlevel::replication::Response::Prove(request)) =
        it.machine.next_response(peer, &it.core)
    {
        order.push(request.id);
    }
    assert_eq!(order, [3, 5, 1, 2]);
}

#[test]
fn invalid_requests_get_no_data_and_keep_peer() {
    let (mut net, a, b, link) = pair(10);
    net.settle();
    let before = net.links[link].sent[0][4];
    let peer = net.peer(link, a);
    let upgrade = |start, length| merkle::Request {
        upgrade: Some(merkle::UpgradeRequest { start, length }),
        ..Default::default()
    };
    let block =
        |index, nodes| merkle::Request { block: Some(merkle::NodeRequest { index, nodes }), ..Default::default() };
    let bad = [
        upgrade(10, 0),
        upgrade(0, 11),
        upgrade(1 << 52, 1 << 52),
        block(3, 60),
        block(99, 0),
        block(1 << 52, 1 << 52),
    ];
    for (id, wanted) in (1..).zip(bad) {
        let it = &mut net.hosts[a];
        let request = Request { id, wanted, ..Request::default() };
        it.machine.handle(peer, Message::Request(request), &it.core, net.now);
    }
    net.settle();
    assert_eq!(net.links[link].sent[0][4] - before, bad.len());
    assert_eq!((misbehaved(&net, a), misbehaved(&net, b)), (0, 0));
}

#[test]
fn repeated_false_conflicts_close_peer() {
    let (mut net, _, b, link) = pair(10);
    net.settle();
    let peer = net.peer(link, b);
    for _ in 0..100 {
        let upgrade =
            UpgradeProof { start: 0, length: 5, nodes: vec![], additional_nodes: vec![], signature: vec![0; 64] };
        let data = Data { request: 0, proof: Proof { upgrade: Some(upgrade), ..Proof::default() } };
        let it = &mut net.hosts[b];
        it.machine.handle(peer, Message::Data(Box::new(data)), &it.core, net.now);
        net.run_for(Duration::from_millis(1));
    }
    assert_eq!(misbehaved(&net, b), 1);
}

#[test]
fn dropped_blocks_are_not_requested() {
    let (mut net, a, b, link) = pair(1000);
    net.settle();
    net.change(a, |core| core.clear(10..20));
    net.settle();
    let it = &mut net.hosts[b];
    let wants: Vec<_> = (5..25).map(|i| it.machine.wait_for_block(i, &it.core)).collect();
    net.settle();
    let woken = wants.iter().filter(|want| matches!(net.hosts[b].woken.get(want), Some(Ok(Woken::Block)))).count();
    assert_eq!(woken, 10);
    assert_eq!(net.links[link].sent[0][4], 0);
}

/// Any message that a peer may send.
#[derive(Clone, Debug)]
pub struct AnyMessage(Message);

impl Arbitrary for AnyMessage {
    fn arbitrary(g: &mut Gen) -> Self {
        let number = |g: &mut Gen| {
            let near = u64::arbitrary(g) % 64;
            let any = u64::arbitrary(g) >> (u8::arbitrary(g) % 64);
            *g.choose(&[near, near, near, any.min((1 << 53) - 1), (1 << 53) - 1 - near, SEGMENT * near]).unwrap()
        };
        let wanted = |g: &mut Gen| merkle::Request {
            block: bool::arbitrary(g).then(|| merkle::NodeRequest { index: number(g), nodes: number(g) }),
            hash: bool::arbitrary(g).then(|| merkle::NodeRequest { index: number(g), nodes: number(g) }),
            seek: bool::arbitrary(g).then(|| merkle::SeekRequest { bytes: number(g), padding: number(g) }),
            upgrade: bool::arbitrary(g).then(|| merkle::UpgradeRequest { start: number(g), length: number(g) }),
        };
        let proof = |g: &mut Gen| {
            let node = |g: &mut Gen| hypercore::lowlevel::node::Node {
                index: hypercore::lowlevel::index::NodeIndex(number(g)),
                size: number(g),
                hash: [u8::arbitrary(g); 32],
            };
            let nodes = |g: &mut Gen| (0..u8::arbitrary(g) % 5).map(|_| node(g)).collect::<Vec<_>>();
            Proof {
                fork: number(g) % 3,
                block: bool::arbitrary(g).then(|| merkle::BlockProof {
                    index: number(g),
                    value: vec![1; 9],
                    nodes: nodes(g),
                }),
                hash: bool::arbitrary(g).then(|| merkle::HashProof { index: node(g).index, nodes: nodes(g) }),
                seek: bool::arbitrary(g).then(|| merkle::SeekProof { bytes: number(g), nodes: nodes(g) }),
                upgrade: bool::arbitrary(g).then(|| UpgradeProof {
                    start: number(g),
                    length: number(g),
                    nodes: nodes(g),
                    additional_nodes: nodes(g),
                    signature: vec![3; 64],
                }),
                manifest: None,
            }
        };
        let span = |g: &mut Gen| Span { start: number(g), length: number(g) };
        AnyMessage(match u8::arbitrary(g) % 12 {
            0 | 1 => Message::Sync(Sync {
                fork: number(g) % 3,
                length: number(g),
                remote_length: number(g),
                can_upgrade: bool::arbitrary(g),
                uploading: !bool::arbitrary(g) || bool::arbitrary(g),
                downloading: bool::arbitrary(g),
                has_manifest: bool::arbitrary(g),
            }),
            2 => Message::Request(Request {
                id: number(g),
                fork: number(g) % 3,
                wanted: wanted(g),
                manifest: bool::arbitrary(g),
                priority: number(g) % 3,
            }),
            3 => Message::Cancel(number(g)),
            4 | 5 => Message::Data(Box::new(Data { request: number(g) % 9, proof: proof(g) })),
            6 => Message::NoData(number(g) % 9),
            7 => Message::Want(span(g)),
            8 => Message::Unwant(span(g)),
            9 => Message::Bitfield(Bitfield {
                start: number(g),
                words: vec![u32::arbitrary(g); u8::arbitrary(g).into()],
            }),
            10 => Message::Range(Range { drop: bool::arbitrary(g), start: number(g), length: number(g) }),
            _ => Message::Extension(Extension { name: String::arbitrary(g), message: vec![1; 3] }),
        })
    }
}

#[test]
fn random_messages_store_nothing_false() {
    QuickCheck::new().tests(300).quickcheck(survives as fn(Vec<AnyMessage>) -> bool);
}

/// A reader receives these messages from one peer while another serves the log.
pub fn survives(messages: Vec<AnyMessage>) -> bool {
    let (mut net, a, b, _) = pair(40);
    // A second peer, as which the messages are handled.
    let c = net.host(Core::reader_of(&net.hosts[a].core));
    let link = net.connect(c, b);
    download(&mut net, b, all());
    let it = &mut net.hosts[b];
    it.machine.wait_for_block(1 << 40, &it.core);
    it.machine.wait_for_seek(1 << 40, 3, &it.core);
    let peer = net.peer(link, b);
    for AnyMessage(message) in messages {
        let it = &mut net.hosts[b];
        it.machine.handle(peer, message, &it.core, net.now);
        net.run_for(Duration::from_millis(3));
    }
    net.cut(link);
    net.run_for(Duration::from_secs(100));
    assert_same(&net, a, b);
    net.hosts[b].conflicts == 0
}
