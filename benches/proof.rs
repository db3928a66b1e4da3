//! How fast are proofs of blocks made and verified?

mod common;

use std::hint::black_box;

use common::huge::Log;
use common::{best, figure, floor, random, size, time, title};
use hypercore::lowlevel::crypto::keys;
use hypercore::lowlevel::flat_tree::root_of;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::NodeSource;
use hypercore::lowlevel::merkle::{Head, NodeRequest, Proof, Request, UpgradeRequest, prove, verify};
use hypercore::lowlevel::node::Node;

/// A tree that holds its roots and no other node.
struct Nothing;

impl NodeSource for Nothing {
    fn node(&self, _: NodeIndex) -> hypercore::Result<Option<Node>> {
        Ok(None)
    }
}

fn main() {
    let length = 1_000_000;
    let count = size(20_000, 20);
    let log = Log::new(length, 100);
    let request = |index: u64| {
        let nodes = root_of(index, log.head.length()).unwrap().depth().into();
        Request { block: Some(NodeRequest { index, nodes }), ..Request::default() }
    };
    let proof = |index: u64| -> Proof {
        let mut proof = prove(&log, &log.head, None, &request(index)).unwrap();
        if let Some(block) = &mut proof.block {
            block.value = log.block.to_vec();
        }
        proof
    };
    let mut next = random(3);
    let proofs: Vec<Proof> = (0..count).map(|_| proof(next(length))).collect();
    let path = proofs.iter().map(|p| p.block.as_ref().unwrap().nodes.len()).sum::<usize>() / count;
    title(&format!("random blocks of {length}, whole paths of about {path} nodes"));
    let [proving, verifying, hashing] = best(
        count,
        [
            &mut || {
                let mut next = random(3);
                time(|| (0..count).for_each(|_| drop(black_box(proof(next(length))))))
            },
            &mut || {
                let given = proofs.clone();
                time(|| {
                    for proof in given {
                        drop(black_box(verify(&Nothing, &log.head, proof, &log.verifier).unwrap()));
                    }
                })
            },
            &mut || common::bare::hashes(count * (path + 1), 73),
        ],
    );
    figure("prove", proving, "proofs");
    figure("verify", verifying, "proofs");
    floor("bare BLAKE2b of the path", hashing, verifying);

    title(&format!("a head of {length} blocks, from nothing"));
    let count = size(5_000, 10);
    let request = Request { upgrade: Some(UpgradeRequest { start: 0, length }), ..Request::default() };
    let message = [7; 112];
    let signature = log.pair.sign(&message);
    let upgrade = prove(&log, &log.head, None, &request).unwrap();
    let [proving, verifying, bare] = best(
        count,
        [
            &mut || time(|| (0..count).for_each(|_| drop(black_box(prove(&log, &log.head, None, &request).unwrap())))),
            &mut || {
                let given = vec![upgrade.clone(); count];
                let head = Head::default();
                time(|| {
                    for proof in given {
                        drop(black_box(verify(&Nothing, &head, proof, &log.verifier).unwrap()));
                    }
                })
            },
            &mut || {
                let key = log.pair.public_key();
                time(|| (0..count).for_each(|_| assert!(keys::verify(key.as_bytes(), &message, &signature))))
            },
        ],
    );
    figure("prove", proving, "proofs");
    figure("verify", verifying, "proofs");
    floor("bare Ed25519 verification", bare, verifying);
}
