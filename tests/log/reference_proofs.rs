//! Our proofs equal those of JavaScript Hypercore, and our verifier accepts the same proofs and stores the same nodes.
//!
//! `tests/vectors/proofs.js` computed the vectors.

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::Verifier;
use hypercore::lowlevel::merkle::{
    self, Head, NodeRequest, NodeSource, Proof, Reorg, Request, SeekRequest, UpgradeRequest,
};
use hypercore::lowlevel::node::Node;
use hypercore::{ErrorKind, Manifest};
use serde_json::Value;

use crate::common::hex;
use crate::proof_fixture::{Log, Nodes, Reader};

#[test]
fn proofs_match_reference() {
    let vectors = vectors();
    let mut answered = 0;
    for log in array(&vectors["logs"]) {
        let ours = rebuild(log);
        let (prologue, length) = (ours.verifier.prologue(), ours.head.length());
        for case in array(&log["cases"]) {
            let request = request_of(case);
            match (merkle::prove(&ours.nodes, &ours.head, prologue, &request), &case[4]) {
                (Ok(proof), Value::Array(answer)) => {
                    assert_eq!(lists(&proof), *answer, "{request:?} of {}", log["length"]);
                    answered += 1;
                }
                (Err(error), Value::String(code)) => {
                    // Where the reference calls any impossible node a bad argument, we tell apart one past the end.
                    let expected = match &code[..] {
                        "BAD_ARGUMENT" if !names_node_past_the_end(&request, length) => ErrorKind::BadArgument,
                        _ => ErrorKind::InvalidOperation,
                    };
                    assert_eq!(error.kind(), expected, "{request:?} of {length}: {error:?} for {code}");
                }
                // For a block past the end the reference makes a proof, and checks only later that it has
                // no such block.
                (Err(error), Value::Array(_)) if past_the_end(&request, length) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidOperation);
                }
                (result, answer) => panic!("{request:?} of {}: {result:?} for {answer}", log["length"]),
            }
        }
    }
    assert!(answered > 1000);
}

#[test]
fn verifier_accepts_what_reference_accepts() {
    let vectors = vectors();
    let mut accepted = 0;
    for log in array(&vectors["logs"]).iter().filter(|log| log["prologue"].is_null()) {
        let ours = rebuild(log);
        for case in array(&log["cases"]).iter().filter(|case| case[4].is_array()) {
            let request = request_of(case);
            let Ok(proof) = ours.prove(&request) else { continue };
            let reader = trusting(&ours, &request);
            match (reader.verify(proof), &case[5]) {
                (Ok(verified), Value::Array(verdict)) => {
                    let change = verified.settle(&reader.nodes).unwrap();
                    let length = change.patch.upgrade.as_ref().map_or(reader.head.length(), Head::length);
                    let mut stored: Vec<_> = change.patch.nodes.iter().map(|node| node.index).collect();
                    stored.sort();
                    let held = |index: &NodeIndex| {
                        let root = reader.head.roots.nodes().iter().any(|root| root.index == *index);
                        root || reader.nodes.node(*index).unwrap().is_some()
                    };
                    let theirs = array(&verdict[1]).iter().map(|n| NodeIndex(n.as_u64().unwrap()));
                    assert_eq!(stored, theirs.filter(|index| !held(index)).collect::<Vec<_>>(), "{request:?}");
                    assert_eq!(length, verdict[0]);
                    accepted += 1;
                }
                (Err(_), Value::String(_)) => {}
                (result, verdict) => panic!("{request:?} of {}: {result:?} for {verdict}", log["length"]),
            }
        }
    }
    assert!(accepted > 1000);
}

#[test]
fn upgrade_into_prologue_proves_all_of_it() {
    let vectors = vectors();
    for log in array(&vectors["logs"]).iter().filter(|log| !log["prologue"].is_null()) {
        let ours = rebuild(log);
        for case in array(&log["cases"]) {
            let request = Request { upgrade: request_of(case).upgrade, ..Request::default() };
            let prologue = ours.verifier.prologue().unwrap();
            let Ok(proof) = merkle::prove(&ours.nodes, &ours.head, Some(prologue), &request) else { continue };
            let Some(upgrade) = &proof.upgrade else { continue };
            if upgrade.start != 0 {
                continue;
            }
            let reader = Reader::of(&ours);
            reader.verify(proof.clone()).unwrap();
            let mut wrong = proof.clone();
            wrong.upgrade.as_mut().unwrap().nodes[0].hash[0] ^= 1;
            assert!(reader.verify(wrong).is_err());
            let part = Request { upgrade: Some(UpgradeRequest { start: 0, length: 3 }), ..Request::default() };
            let part = merkle::prove(&ours.nodes, &ours.head, None, &part).unwrap();
            assert_eq!(reader.verify(part).unwrap_err().kind(), ErrorKind::InvalidProof);
        }
    }
}

#[test]
fn reorg_requests_match_reference() {
    for case in array(&vectors()["reorgs"]) {
        let number = |i: usize| case[i].as_u64().unwrap();
        let (local_length, remote_length, common) = (number(0), number(1), number(2));
        let build = |length, salt| {
            let mut log = Log::new();
            log.head.fork = salt;
            log.append((0..length).map(|i| block(i, 0, if i < common { 0 } else { salt })).collect());
            log
        };
        let (local, remote) = (build(local_length, 0), build(remote_length, 1));
        let upgrade = Some(UpgradeRequest { start: 0, length: remote_length });
        let proof = remote.prove(&Request { upgrade, ..Request::default() }).unwrap();
        let mut reorg = Reorg::start(&local.nodes, &local.head, &proof, &local.verifier).unwrap();
        let mut wants = Vec::new();
        while let Some(wanted) = reorg.wanted() {
            wants.push(Value::from(vec![wanted.start, wanted.end, wanted.nodes]));
            let hash = Some(wanted.request(wanted.start));
            let proof = remote.prove(&Request { hash, ..Request::default() }).unwrap();
            assert!(reorg.update(&local.nodes, &proof).unwrap());
        }
        assert_eq!(wants, *array(&case[3]), "{case}");
        assert_eq!(reorg.finish().unwrap().ancestors(), number(4), "{case}");
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/proofs.json")).unwrap()
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn block(index: u64, padding: u64, salt: u64) -> Vec<u8> {
    vec![(index + salt) as u8; (padding + 7 * index % 11) as usize]
}

/// The log of a vector, checked against the hash and the signature of the reference.
fn rebuild(log: &Value) -> Log {
    let number = |name: &str| log[name].as_u64().unwrap();
    let blocks = |length: u64| (0..length).map(|i| block(i, number("padding"), 0)).collect();
    let mut ours = Log::new();
    if let Some(length) = log["prologue"].as_u64() {
        let mut prologue = Log::new();
        prologue.append(blocks(length));
        let manifest = Manifest::single(ours.key_pair.public_key()).with_prologue(prologue.head.tree_hash(), length);
        ours.verifier = Verifier::new(manifest.key(), Some(manifest), false).unwrap();
    }
    ours.append(blocks(number("length")));
    assert_eq!(hex(&ours.head.tree_hash()), log["treeHash"]);
    assert_eq!(hex(&ours.head.signature), log["signature"]);
    ours
}

fn request_of(case: &Value) -> Request {
    let pair = |i: usize| {
        let pair = case[i].as_array()?;
        Some((pair[0].as_u64()?, pair[1].as_u64()?))
    };
    Request {
        block: pair(0).map(|(index, nodes)| NodeRequest { index, nodes }),
        hash: pair(1).map(|(index, nodes)| NodeRequest { index, nodes }),
        seek: pair(2).map(|(bytes, padding)| SeekRequest { bytes, padding }),
        upgrade: pair(3).map(|(start, length)| UpgradeRequest { start, length }),
    }
}

fn past_the_end(request: &Request, length: u64) -> bool {
    request.block.is_some_and(|block| block.index >= length)
}

fn names_node_past_the_end(request: &Request, length: u64) -> bool {
    past_the_end(request, length) || request.hash.is_some_and(|hash| NodeIndex(hash.index).end_block() > length)
}

/// The node indices of a proof, in the form of the vectors.
fn lists(proof: &Proof) -> Vec<Value> {
    let list =
        |nodes: Option<&Vec<Node>>| nodes.map(|nodes| nodes.iter().map(|node| node.index.0).collect::<Vec<_>>()).into();
    let node = proof.block.as_ref().map(|b| &b.nodes).or(proof.hash.as_ref().map(|h| &h.nodes));
    let upgrade = proof.upgrade.as_ref();
    vec![
        list(node),
        list(proof.seek.as_ref().map(|seek| &seek.nodes)),
        upgrade.map(|upgrade| vec![upgrade.start, upgrade.length]).into(),
        list(upgrade.map(|upgrade| &upgrade.nodes)),
        list(Some(&upgrade.map_or(Vec::new(), |upgrade| upgrade.additional_nodes.clone()))),
    ]
}

/// A reader at the length where the upgrade starts, with the ancestor node that the request presumes.
fn trusting(log: &Log, request: &Request) -> Reader {
    let mut reader = Reader::of(log);
    let length = request.upgrade.map_or(log.head.length(), |upgrade| upgrade.start);
    reader.head = log.head_at(length);
    reader.nodes = Nodes(reader.head.roots.nodes().iter().map(|root| (root.index, *root)).collect());
    let known = request.block.map(|b| (2 * b.index, b.nodes)).or(request.hash.map(|h| (h.index, h.nodes)));
    if let Some((index, levels)) = known {
        let top = (0..levels).fold(NodeIndex(index), |at, _| at.parent());
        if top.end_block() <= length {
            reader.nodes.0.insert(top, log.nodes.0[&top]);
        }
    }
    reader
}
