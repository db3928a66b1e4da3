//! Making proofs: plan, fetch the nodes in the order of the file, assemble.

use super::plan::{ProofPlan, upgrade_of};
use super::{BlockProof, HashProof, Head, NodeSource, Proof, Request, SeekProof, UpgradeProof};
use crate::Result;
use crate::index::NodeIndex;
use crate::manifest::Prologue;
use crate::node::Node;

/// The answer to `request`, with the same nodes in the same order as JavaScript Hypercore's. The caller adds the
/// value of the block and the manifest. `prologue` is that of the core's verifier. An empty log answers with an empty
/// proof.
///
/// The request may come from an untrusted peer: whatever its numbers, it reads at most some hundred nodes.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`](crate::ErrorKind::InvalidOperation) or
/// [`ErrorKind::BadArgument`](crate::ErrorKind::BadArgument) if this log cannot answer the request.
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
    let plan = ProofPlan::new(source, head, request, upgrade)?;
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
