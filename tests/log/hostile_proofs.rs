//! Any request gets an answer or an error, and any changed proof is refused or harmless.

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{
    self, BlockProof, HashProof, NodeRequest, Proof, Reorg, Request, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use hypercore::lowlevel::node::Node;
use quickcheck::{Arbitrary, Gen, quickcheck};

use crate::common::machine::one_in;
use crate::proof_fixture::{Log, Reader, ancestors, earlier, knowing, node_request, upgrade};

/// Proofs of all kinds, each with the reader that it is for.
fn assorted(log: &Log) -> Vec<(Reader, Proof)> {
    let length = log.head.length();
    let start = length / 3;
    let at_start = earlier(log, start);
    let whole = |request: Request| (knowing(log, &[]), log.prove(&request).unwrap());
    let longer = |request: Request| {
        let request = Request { upgrade: upgrade(start, length - 2), ..request };
        (at_start.clone(), log.prove(&request).unwrap())
    };
    let levels = |index: u64| ancestors(log, NodeIndex(index)).count() as u64 - 1;
    let seek = Some(SeekRequest { bytes: 2, padding: 0 });
    vec![
        whole(Request { block: node_request(0, levels(0)), ..Request::default() }),
        whole(Request { block: node_request(2, levels(4)), seek, ..Request::default() }),
        whole(Request { hash: node_request(1, levels(1)), ..Request::default() }),
        whole(Request { hash: node_request(6, levels(6)), seek, ..Request::default() }),
        longer(Request::default()),
        longer(Request { block: node_request(length - 3, 0), ..Request::default() }),
        longer(Request { hash: node_request(2 * length - 6, 0), ..Request::default() }),
        longer(Request {
            seek: Some(SeekRequest { bytes: log.offset(length - 3) - 1, padding: 0 }),
            ..Request::default()
        }),
    ]
}

/// Every number and byte string of a proof, to be changed in place.
fn parts(proof: &mut Proof) -> (Vec<&mut u64>, Vec<&mut [u8]>) {
    let (mut numbers, mut bytes): (Vec<&mut u64>, Vec<&mut [u8]>) = (vec![&mut proof.fork], vec![]);
    let mut lists = Vec::new();
    if let Some(block) = &mut proof.block {
        numbers.push(&mut block.index);
        bytes.push(&mut block.value);
        lists.push(&mut block.nodes);
    }
    if let Some(hash) = &mut proof.hash {
        numbers.push(&mut hash.index.0);
        lists.push(&mut hash.nodes);
    }
    if let Some(seek) = &mut proof.seek {
        lists.push(&mut seek.nodes);
    }
    if let Some(upgrade) = &mut proof.upgrade {
        numbers.extend([&mut upgrade.start, &mut upgrade.length]);
        bytes.push(&mut upgrade.signature);
        lists.extend([&mut upgrade.nodes, &mut upgrade.additional_nodes]);
    }
    for node in lists.into_iter().flatten() {
        numbers.extend([&mut node.index.0, &mut node.size]);
        bytes.push(&mut node.hash);
    }
    (numbers, bytes)
}

#[test]
fn proof_with_changed_byte_is_refused_or_equivalent() {
    for length in [7, 12, 19] {
        let log = Log::of(length);
        for (reader, proof) in assorted(&log).into_iter().step_by(one_in(5)) {
            let honest = reader.verify(proof.clone()).unwrap().settle(&reader.nodes).unwrap();
            let mut refused = 0;
            let mut check = |changed: Proof| match reader.verify(changed) {
                Ok(verified) => assert_eq!(verified.settle(&reader.nodes).unwrap(), honest),
                Err(_) => refused += 1,
            };
            let (numbers, strings) = {
                let mut proof = proof.clone();
                let (numbers, strings) = parts(&mut proof);
                (numbers.len(), strings.iter().map(|s| s.len()).collect::<Vec<_>>())
            };
            for i in 0..numbers {
                for bit in 0..64 {
                    let mut changed = proof.clone();
                    *parts(&mut changed).0[i] ^= 1 << bit;
                    check(changed);
                }
            }
            for (i, &len) in strings.iter().enumerate() {
                for byte in 0..len {
                    let mut changed = proof.clone();
                    parts(&mut changed).1[i][byte] ^= 0x10;
                    check(changed);
                }
            }
            // The reader knows its own length, so it ignores the start of an upgrade: all other changes are refused.
            assert!(refused >= (numbers - 1) * 64 + strings.iter().sum::<usize>());
        }
    }
}

#[test]
fn proof_with_extra_or_missing_node_is_refused() {
    let log = Log::of(19);
    for (reader, proof) in assorted(&log) {
        fn lists(proof: &mut Proof) -> Vec<&mut Vec<Node>> {
            let mut lists = Vec::new();
            lists.extend(proof.block.as_mut().map(|block| &mut block.nodes));
            lists.extend(proof.hash.as_mut().map(|hash| &mut hash.nodes));
            lists.extend(proof.seek.as_mut().map(|seek| &mut seek.nodes));
            if let Some(upgrade) = &mut proof.upgrade {
                lists.extend([&mut upgrade.nodes, &mut upgrade.additional_nodes]);
            }
            lists
        }
        let count = lists(&mut proof.clone()).len();
        for list in 0..count {
            let len = lists(&mut proof.clone())[list].len();
            for at in 0..len {
                let mut changed = proof.clone();
                lists(&mut changed)[list].remove(at);
                assert!(reader.verify(changed).is_err());
                let mut changed = proof.clone();
                let node = lists(&mut changed)[list][at];
                lists(&mut changed)[list].insert(at, node);
                assert!(reader.verify(changed).is_err());
            }
        }
    }
}

/// Variants of `proof` with one byte of size moved between siblings, which the hash of their parent does not reveal.
fn shifted(proof: &Proof) -> Vec<Proof> {
    let mut out = Vec::new();
    let told: Vec<Node> = {
        let hash = proof.hash.iter().flat_map(|hash| &hash.nodes);
        let seek = proof.seek.iter().flat_map(|seek| &seek.nodes);
        let upgrade = proof.upgrade.iter().flat_map(|upgrade| upgrade.nodes.iter().chain(&upgrade.additional_nodes));
        hash.chain(seek).chain(upgrade).copied().collect()
    };
    for a in &told {
        let Some(b) = told.iter().find(|b| b.index == a.index.sibling()) else { continue };
        if a.size == 0 {
            continue;
        }
        let mut changed = proof.clone();
        let mut lists: Vec<&mut Vec<Node>> = Vec::new();
        lists.extend(changed.hash.as_mut().map(|hash| &mut hash.nodes));
        lists.extend(changed.seek.as_mut().map(|seek| &mut seek.nodes));
        if let Some(upgrade) = &mut changed.upgrade {
            lists.extend([&mut upgrade.nodes, &mut upgrade.additional_nodes]);
        }
        for node in lists.into_iter().flatten() {
            if node.index == a.index {
                node.size -= 1;
            } else if node.index == b.index {
                node.size += 1;
            }
        }
        out.push(changed);
    }
    out
}

#[test]
fn sizes_shifted_between_siblings_are_corrected_by_next_block() {
    let mut lies = 0;
    for length in 2..=17 {
        let log = Log::of(length);
        let mut proofs = Vec::new();
        for &index in log.nodes.0.keys() {
            for level in 0..ancestors(&log, index).count() {
                let hash = node_request(index.0, level as u64);
                proofs.push((knowing(&log, &[]), log.prove(&Request { hash, ..Request::default() }).unwrap()));
            }
        }
        for to in 1..length {
            let request = Request { upgrade: upgrade(0, to), ..Request::default() };
            proofs.push((Reader::of(&log), log.prove(&request).unwrap()));
        }
        for (reader, proof) in proofs {
            for lie in shifted(&proof) {
                let mut reader = reader.clone();
                let Ok(verified) = reader.verify(lie) else { continue };
                reader.commit(verified);
                lies += 1;
                let all: Vec<_> = (0..length).map(|i| (i * 7 + length) % length).collect();
                for &index in &all {
                    let request = reader.block_request(index);
                    reader.take(log.prove(&request).unwrap()).unwrap();
                    for (&held, block) in &reader.blocks {
                        let range = merkle::byte_range(&reader.nodes, &reader.head, held).unwrap();
                        assert_eq!(range, (log.offset(held), block.len() as u64));
                    }
                }
                for index in 0..length {
                    let request = reader.block_request(index);
                    reader.take(log.prove(&request).unwrap()).unwrap();
                }
                reader.assert_part_of(&log);
            }
        }
    }
    assert!(lies > 500, "{lies}");
}

#[test]
fn sizes_shifted_between_siblings_keep_proven_nodes() {
    for length in 2..=17 {
        let log = Log::of(length);
        for index in 0..length {
            let mut reader = knowing(&log, &[]);
            let request = reader.block_request(index);
            reader.take(log.prove(&request).unwrap()).unwrap();
            for &node in log.nodes.0.keys() {
                let levels = ancestors(&log, node).count() as u64 - 1;
                let request = Request { hash: node_request(node.0, levels), ..Request::default() };
                for lie in shifted(&log.prove(&request).unwrap()) {
                    let before = reader.nodes.clone();
                    let verified = reader.verify(lie).unwrap();
                    let mut after = reader.clone();
                    after.commit(verified);
                    for (index, node) in &before.0 {
                        assert_eq!(after.nodes.0[index], *node);
                    }
                }
            }
        }
    }
}

#[test]
fn proof_with_shifted_sizes_committed_after_block_changes_no_size() {
    let log = Log::of(8);
    let mut reader = knowing(&log, &[]);
    let told = log.prove(&Request { hash: node_request(0, 3), ..Request::default() }).unwrap();
    for lie in shifted(&told) {
        let mut reader = reader.clone();
        let lie = reader.verify(lie).unwrap();
        let block = reader.verify(log.prove(&reader.block_request(0)).unwrap()).unwrap();
        reader.commit(block);
        reader.commit(lie);
        reader.assert_part_of(&log);
    }
    reader.take(told).unwrap();
    reader.assert_part_of(&log);
}

/// A number of any size, mostly near a limit.
#[derive(Clone, Copy, Debug)]
struct Number(u64);

impl Arbitrary for Number {
    fn arbitrary(g: &mut Gen) -> Self {
        let near = u64::arbitrary(g) % 40;
        let edge = *g.choose(&[0, 20, 1 << 32, 1 << 52, 1 << 53, 1 << 63]).unwrap();
        Number(match u8::arbitrary(g) % 8 {
            0 => u64::arbitrary(g),
            1 => u64::MAX - near,
            2 => u64::wrapping_sub(edge, near),
            3 => edge + near,
            _ => near,
        })
    }
}

#[derive(Clone, Debug)]
struct AnyRequest(Request);

impl Arbitrary for AnyRequest {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut pair = || bool::arbitrary(g).then(|| (Number::arbitrary(g).0, Number::arbitrary(g).0));
        AnyRequest(Request {
            block: pair().map(|(index, nodes)| NodeRequest { index, nodes }),
            hash: pair().map(|(index, nodes)| NodeRequest { index, nodes }),
            seek: pair().map(|(bytes, padding)| SeekRequest { bytes, padding }),
            upgrade: pair().map(|(start, length)| UpgradeRequest { start, length }),
        })
    }
}

#[derive(Clone, Debug)]
struct AnyProof(Proof);

impl Arbitrary for AnyProof {
    fn arbitrary(g: &mut Gen) -> Self {
        let size = usize::arbitrary(g) % 8;
        let mut nodes = || -> Vec<Node> {
            let count = usize::arbitrary(g) % (size + 1);
            let hash = [u8::arbitrary(g); 32];
            let node = |_| Node { index: NodeIndex(Number::arbitrary(g).0), size: Number::arbitrary(g).0, hash };
            (0..count).map(node).collect()
        };
        let (block, hash, seek, up, additional) = (nodes(), nodes(), nodes(), nodes(), nodes());
        let mut number = || Number::arbitrary(g).0;
        let numbers: [u64; 6] = std::array::from_fn(|_| number());
        let mut some = || bool::arbitrary(g);
        let index_of = |nodes: &[Node], other| nodes.first().map_or(NodeIndex(other), |node| node.index);
        AnyProof(Proof {
            fork: numbers[0] % 2,
            block: some().then(|| BlockProof { index: numbers[1], value: vec![0; size], nodes: block }),
            hash: some().then(|| HashProof { index: index_of(&hash, numbers[2]), nodes: hash }),
            seek: some().then(|| SeekProof { bytes: numbers[3], nodes: seek }),
            upgrade: some().then(|| UpgradeProof {
                start: numbers[4],
                length: numbers[5],
                nodes: up,
                additional_nodes: additional,
                signature: vec![1; 64],
            }),
            manifest: None,
        })
    }
}

quickcheck! {
    fn any_request_gets_short_answer_or_error(request: AnyRequest, length: u8) -> bool {
        let log = Log::of((length % 40).into());
        let Ok(proof) = log.prove(&request.0) else { return true };
        let nodes = |list: Option<&Vec<Node>>| list.map_or(0, Vec::len);
        let count = nodes(proof.block.as_ref().map(|block| &block.nodes))
            + nodes(proof.hash.as_ref().map(|hash| &hash.nodes))
            + nodes(proof.seek.as_ref().map(|seek| &seek.nodes))
            + nodes(proof.upgrade.as_ref().map(|upgrade| &upgrade.nodes))
            + nodes(proof.upgrade.as_ref().map(|upgrade| &upgrade.additional_nodes));
        count < 40
    }

    fn any_proof_is_refused_or_changes_nothing(proof: AnyProof, length: u8) -> bool {
        let log = Log::of((length % 40).into());
        let reader = knowing(&log, &[]);
        let _ = merkle::conflict(&log.nodes, &log.head, &proof.0, &log.verifier);
        let _ = Reorg::start(&log.nodes, &log.head, &proof.0, &log.verifier);
        match reader.verify(proof.0) {
            Ok(verified) => verified.settle(&reader.nodes).unwrap().patch.nodes.is_empty(),
            Err(_) => true,
        }
    }

    fn any_number_in_a_proof_is_refused_or_equivalent(kind: u8, place: usize, number: Number, length: u8) -> bool {
        let log = Log::of((length % 20 + 5).into());
        let assorted = assorted(&log);
        let (reader, proof) = &assorted[usize::from(kind) % assorted.len()];
        let honest = reader.verify(proof.clone()).unwrap().settle(&reader.nodes).unwrap();
        let mut changed = proof.clone();
        let (mut numbers, _) = parts(&mut changed);
        let count = numbers.len();
        *numbers[place % count] = number.0;
        let _ = Reorg::start(&reader.nodes, &reader.head, &changed, &reader.verifier);
        match reader.verify(changed) {
            Ok(verified) => verified.settle(&reader.nodes).unwrap() == honest,
            Err(_) => true,
        }
    }

    fn any_local_seek_ends(bytes: Number, padding: Number, length: u8) -> bool {
        let log = Log::of((length % 40).into());
        merkle::seek_local(&log.nodes, &log.head, bytes.0, padding.0).is_ok()
    }
}
