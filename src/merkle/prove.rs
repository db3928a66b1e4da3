//! Proofs for others: plan, fetch the nodes in the order they lie in the file, put together.

use super::plan::{Plan, upgrade_of};
use super::{BlockProof, HashProof, Head, NodeSource, Proof, Request, SeekProof, UpgradeProof};
use crate::Result;
use crate::index::NodeIndex;
use crate::manifest::Prologue;
use crate::node::Node;

/// The answer to `request`, with the nodes and their order that JavaScript Hypercore gives; the caller adds the block's value
/// and the manifest.
///
/// The request may come from anybody: it costs at most some hundred nodes, whatever its numbers. An empty log answers all
/// with nothing. `prologue` is that of the core's [`crate::lowlevel::manifest::Verifier`].
pub fn prove(
    source: &(impl NodeSource + ?Sized),
    head: &Head,
    prologue: Option<&Prologue>,
    request: &Request,
) -> Result<Proof> {
    let mut proof = Proof { fork: head.fork, ..Proof::default() };
    if head.length() == 0 {
        return Ok(proof);
    }
    let upgrade = upgrade_of(request, prologue);
    let plan = Plan::new(source, head, request, upgrade)?;
    let order = plan.in_order();
    let nodes = order.iter().map(|&index| head.require(source, index)).collect::<Result<Vec<_>>>()?;
    let fetched = |list: Vec<NodeIndex>| -> Vec<Node> {
        list.into_iter().map(|index| nodes[order.partition_point(|&other| other < index)]).collect()
    };
    if let Some(list) = plan.node {
        match (request.block, request.hash) {
            (Some(block), _) => {
                proof.block = Some(BlockProof { index: block.index, value: Vec::new(), nodes: fetched(list) });
            }
            (None, Some(hash)) => {
                proof.hash = Some(HashProof { index: NodeIndex(hash.index), nodes: fetched(list) });
            }
            (None, None) => {}
        }
    }
    if let (Some(seek), Some(list)) = (request.seek, plan.seek) {
        proof.seek = Some(SeekProof { bytes: seek.bytes, nodes: fetched(list) });
    }
    if let (Some(upgrade), Some(list)) = (upgrade, plan.upgrade) {
        proof.upgrade = Some(UpgradeProof {
            start: upgrade.start,
            length: upgrade.length,
            nodes: fetched(list),
            additional_nodes: fetched(plan.additional),
            signature: head.signature.clone(),
        });
    }
    Ok(proof)
}
