//! The nodes that answer a request. Planning is index arithmetic, except for a seek, which reads nodes on its way down
//! the tree.

use std::ops::Range;

use super::seek::{node_below, node_in_log};
use super::{Head, NodeRequest, NodeSource, Request, UpgradeRequest};
use crate::codec::MAX_SAFE_INTEGER;
use crate::flat_tree::growth;
use crate::index::NodeIndex;
use crate::manifest::Prologue;
use crate::{Error, ErrorKind, Result};

/// The lists of nodes in an answer.
#[derive(Debug, Default)]
pub(super) struct ProofPlan {
    /// The nodes for the block or hash; none if neither is requested.
    pub node: Option<Vec<NodeIndex>>,
    /// The nodes for the seek; none if no seek is requested, or if the other lists prove the place as well.
    pub seek: Option<Vec<NodeIndex>>,
    /// The nodes for the upgrade; none if no upgrade is requested.
    pub upgrade: Option<Vec<NodeIndex>>,
    /// The nodes from the end of the upgrade to the end of the log.
    pub additional: Vec<NodeIndex>,
}

/// The requested block or node.
#[derive(Clone, Copy)]
struct Target {
    index: NodeIndex,
    is_block: bool,
}

/// The upgrade that the answer to `request` has: if the requested one starts inside the prologue, the whole prologue.
pub(super) fn upgrade_of(request: &Request, prologue: Option<&Prologue>) -> Option<UpgradeRequest> {
    let upgrade = request.upgrade?;
    match prologue {
        Some(prologue) if upgrade.start < prologue.length => Some(UpgradeRequest { start: 0, length: prologue.length }),
        _ => Some(upgrade),
    }
}

impl ProofPlan {
    /// The plan for `request` to a log that is not empty. `upgrade` is the one the answer has; see [`upgrade_of`].
    pub fn new(
        source: &(impl NodeSource + ?Sized),
        head: &Head,
        request: &Request,
        upgrade: Option<UpgradeRequest>,
    ) -> Result<Self> {
        let mut plan = ProofPlan::default();
        let target = match upgrade {
            None => plan.without_upgrade(source, head, request)?,
            Some(upgrade) => plan.with_upgrade(source, head, request, upgrade)?,
        };
        match target {
            Some(target) if plan.node.is_none() => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("node {} is not where the request says", target.index),
            )),
            _ => Ok(plan),
        }
    }

    /// Plans a block or hash of the requester's log. A seek without either gets no nodes, because the request does not
    /// say which ancestor the requester trusts.
    fn without_upgrade(
        &mut self,
        source: &(impl NodeSource + ?Sized),
        head: &Head,
        request: &Request,
    ) -> Result<Option<Target>> {
        let target = Target::of(request, head.length())?;
        if let Some(target) = target {
            self.block_or_hash(source, head, request, target, head.length())?;
        }
        Ok(target)
    }

    /// Plans an upgrade, with a block or hash in the requester's log or in the added blocks, or with a seek.
    fn with_upgrade(
        &mut self,
        source: &(impl NodeSource + ?Sized),
        head: &Head,
        request: &Request,
        upgrade: UpgradeRequest,
    ) -> Result<Option<Target>> {
        let length = head.length();
        let Range { start: from, end: to } = blocks_of(upgrade, length)?;
        let target = Target::of(request, length)?;
        // The node that a subtree of the upgrade is computed from, in place of being listed.
        let inner = match (target, request.seek) {
            (Some(target), Some(_)) if target.index >= NodeIndex::of_block(from) => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "a seek and a block or hash beyond the old end cannot be answered together",
                ));
            }
            (Some(target), _) if target.index.end_block() <= from => {
                self.block_or_hash(source, head, request, target, to)?;
                None
            }
            (_, Some(seek)) => node_in_log(source, head, to, seek.bytes, seek.padding)?,
            (target, None) => target.map(|target| target.index),
        };
        self.upgrade(target, request.seek.and(inner), inner, from, to)?;
        self.additional = growth(to, length).collect();
        Ok(target)
    }

    /// Plans a block or hash below an ancestor that the requester trusts, and the seek of the request below the same
    /// ancestor, which must lie within the first `length` blocks.
    fn block_or_hash(
        &mut self,
        source: &(impl NodeSource + ?Sized),
        head: &Head,
        request: &Request,
        target: Target,
        length: u64,
    ) -> Result<()> {
        let top = target.ancestor(levels(request), length)?;
        let seek = request.seek.map(|s| node_below(source, head, top, s.bytes, s.padding)).transpose()?;
        self.subtree(Some(target), seek, top)
    }

    /// Plans the path from `target` to `top`, and the path from `seek` to the first node that the former lists.
    fn subtree(&mut self, target: Option<Target>, seek: Option<NodeIndex>, top: NodeIndex) -> Result<()> {
        let Some(target) = target else {
            self.seek = seek.map(|seek| path(seek, top));
            return Ok(());
        };
        if !top.contains(target.index) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("node {} and the byte looked for have no path in common", target.index),
            ));
        }
        let mut list = Vec::new();
        if !target.is_block {
            list.push(target.index);
        }
        for sibling in siblings(target.index, top) {
            match seek {
                Some(seek) if seek != sibling && sibling.contains(seek) => self.seek = Some(path(seek, sibling)),
                _ => list.push(sibling),
            }
        }
        self.node = Some(list);
        Ok(())
    }

    /// Plans the subtrees by which the log grows. The requester computes the one that contains `inner` from the nodes
    /// that prove `inner`, so that one is not listed.
    fn upgrade(
        &mut self,
        target: Option<Target>,
        seek: Option<NodeIndex>,
        inner: Option<NodeIndex>,
        from: u64,
        to: u64,
    ) -> Result<()> {
        let mut list = Vec::new();
        for next in growth(from, to) {
            let open = self.node.is_none() && self.seek.is_none();
            match inner {
                Some(inner) if open && next.contains(inner) => self.subtree(target, seek, next)?,
                _ => list.push(next),
            }
        }
        self.upgrade = Some(list);
        Ok(())
    }

    /// All nodes of the plan, sorted.
    pub fn in_order(&self) -> Vec<NodeIndex> {
        let lists = [self.node.as_deref(), self.seek.as_deref(), self.upgrade.as_deref(), Some(&self.additional[..])];
        let mut all: Vec<_> = lists.into_iter().flatten().flatten().copied().collect();
        all.sort_unstable();
        all
    }
}

impl Target {
    /// The block of `request`, or else its hash.
    fn of(request: &Request, length: u64) -> Result<Option<Self>> {
        let target = match (request.block, request.hash) {
            (Some(NodeRequest { index, .. }), _) => {
                Target { index: NodeIndex(index.saturating_mul(2)), is_block: true }
            }
            (None, Some(NodeRequest { index, .. })) => Target { index: NodeIndex(index), is_block: false },
            (None, None) => return Ok(None),
        };
        if target.index.0 > MAX_SAFE_INTEGER || target.index.end_block() > length {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("node {} is past the end of a log of {length} blocks", target.index),
            ));
        }
        Ok(Some(target))
    }

    /// The ancestor `levels` above the target. It must not cover blocks from `length` on.
    fn ancestor(self, levels: u64, length: u64) -> Result<NodeIndex> {
        let mut at = self.index;
        for _ in 0..levels {
            at = at.parent();
            if at.end_block() > length {
                return Err(Error::bad_argument(format!("node {at} is past the root above node {}", self.index)));
            }
        }
        Ok(at)
    }
}

/// The blocks that `upgrade` adds to a log, of which this one must have `length`.
fn blocks_of(upgrade: UpgradeRequest, length: u64) -> Result<Range<u64>> {
    let UpgradeRequest { start, length: by } = upgrade;
    match start.checked_add(by) {
        Some(end) if by > 0 && end <= length => Ok(start..end),
        _ => {
            let asked = format!("an upgrade of {by} blocks from {start} is not what a log of {length} can give");
            Err(Error::new(ErrorKind::InvalidOperation, asked))
        }
    }
}

/// How many levels above the target the first node stands that the requester trusts.
fn levels(request: &Request) -> u64 {
    request.block.or(request.hash).map_or(0, |node| node.nodes)
}

/// `from`, then the siblings of the nodes on the path up to `top`.
fn path(from: NodeIndex, top: NodeIndex) -> Vec<NodeIndex> {
    std::iter::once(from).chain(siblings(from, top)).collect()
}

/// The siblings of the nodes on the path from `from` up to `top`, which must contain it.
fn siblings(from: NodeIndex, top: NodeIndex) -> impl Iterator<Item = NodeIndex> {
    std::iter::successors(Some(from), |at| Some(at.parent())).take_while(move |at| *at != top).map(NodeIndex::sibling)
}
