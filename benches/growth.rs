//! How does cost grow with the length of the log? Charts of append, get, open, prove and verify from 10³
//! to 10⁷ blocks.
//!
//! The logs are those of `common/huge.rs`. Their files are computed as they are read; in every other respect they
//! are real logs. Two rows therefore differ in the length alone.

mod common;

use std::hint::black_box;
use std::time::Duration;

use common::huge::Log;
use common::{chart, rounds, size, time, title};
use hypercore::lowlevel::flat_tree::root_of;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::merkle::{NodeRequest, NodeSource, Proof, Request, prove, verify};
use hypercore::lowlevel::node::Node;
use hypercore::{Durability, Hypercore};

/// A tree that holds its roots and no other node.
struct Nothing;

impl NodeSource for Nothing {
    fn node(&self, _: NodeIndex) -> hypercore::Result<Option<Node>> {
        Ok(None)
    }
}

fn main() {
    let count = size(2_000, 5);
    title(&format!("the cost of one operation by the length of the log, best of several times {count}"));
    let mut charts: [(&str, Vec<(u64, f64)>); 5] =
        ["append", "get", "open", "prove", "verify"].map(|name| (name, Vec::new()));
    for length in (3..=size(7, 4) as u32).map(|power| 10u64.pow(power)) {
        let mut bests = [Duration::MAX; 5];
        for _ in 0..rounds() {
            for (best, took) in bests.iter_mut().zip(measured(length, count)) {
                *best = took.min(*best);
            }
        }
        for ((_, rows), took) in charts.iter_mut().zip(bests) {
            rows.push((length, took.as_nanos() as f64 / count as f64));
        }
    }
    for (name, rows) in &charts {
        chart(name, rows);
    }
}

/// Measures each of the five operations, `count` times.
fn measured(length: u64, count: usize) -> [Duration; 5] {
    // Not a power of two, so that the tree has roots of several heights.
    let log = Log::new(length - length / 3, 100);
    let length = log.length;
    let open = || Hypercore::options().durability(Durability::None).open_in(log.storage()).expect("a core");
    let core = open();
    let mut random = common::random(9);
    let got = time(|| (0..count).for_each(|_| drop(black_box(core.get(random(length)).expect("a block")))));
    core.append(&*log.block).expect("append");
    let appended = time(|| (0..count).for_each(|_| drop(black_box(core.append(&*log.block)))));
    let storages: Vec<_> = (0..count).map(|_| log.storage()).collect();
    let opened = time(|| {
        for storage in storages {
            black_box(Hypercore::options().durability(Durability::None).open_in(storage).expect("a core"));
        }
    });
    let proof = |index: u64| -> Proof {
        let nodes = root_of(index, log.head.length()).expect("a path").depth().into();
        let request = Request { block: Some(NodeRequest { index, nodes }), ..Request::default() };
        let mut proof = prove(&log, &log.head, None, &request).expect("a proof");
        proof.block.iter_mut().for_each(|block| block.value = log.block.to_vec());
        proof
    };
    let mut proofs = Vec::with_capacity(count);
    let proven = time(|| proofs.extend((0..count).map(|_| proof(random(length)))));
    let verified = time(|| {
        for proof in proofs {
            drop(black_box(verify(&Nothing, &log.head, proof, &log.verifier).expect("valid")));
        }
    });
    [appended, got, opened, proven, verified]
}
