//! Which nodes answer a request: index arithmetic only, but for the seek, which reads its way down the tree.

use super::seek::{node_below, node_in_log};
use super::{Head, NodeRequest, NodeSource, Request, UpgradeRequest};
use crate::codec::MAX_SAFE_INTEGER;
use crate::flat_tree::growth;
use crate::index::NodeIndex;
use crate::manifest::Prologue;
use crate::{Error, ErrorKind, Result};

/// The lists of nodes that an answer is made of.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// For the block or hash; none where the request has neither.
    pub node: Option<Vec<NodeIndex>>,
    /// For the seek; none where another list shows the place as well.
    pub seek: Option<Vec<NodeIndex>>,
    /// For the upgrade.
    pub upgrade: Option<Vec<NodeIndex>>,
    /// From the end of the upgrade to that of the log.
    pub additional: Vec<NodeIndex>,
}

/// The block or node that a request is for.
#[derive(Clone, Copy)]
struct Target {
    index: NodeIndex,
    is_block: bool,
}

/// The upgrade that `request` gets: from inside the prologue, all of the prologue.
pub(super) fn upgrade_of(request: &Request, prologue: Option<&Prologue>) -> Option<UpgradeRequest> {
    let upgrade = request.upgrade?;
    match prologue {
        Some(prologue) if upgrade.start < prologue.length => Some(UpgradeRequest { start: 0, length: prologue.length }),
        _ => Some(upgrade),
    }
}

impl Plan {
    /// The plan for `request` to a log that is not empty, `upgrade` being the one it gets.
    pub fn new(
        source: &(impl NodeSource + ?Sized),
        head: &Head,
        request: &Request,
        upgrade: Option<UpgradeRequest>,
    ) -> Result<Self> {
        let length = head.length();
        let (from, to) = match upgrade {
            None => (0, length),
            Some(UpgradeRequest { start, length: by }) => match start.checked_add(by) {
                Some(to) if by > 0 && to <= length => (start, to),
                _ => {
                    let asked =
                        format!("an upgrade of {by} blocks from {start} is not what a log of {length} can give");
                    return Err(Error::new(ErrorKind::InvalidOperation, asked));
                }
            },
        };
        let target = Target::of(request, length)?;
        let mut plan = Plan::default();
        // The subtree that takes the place of a node in the upgrade, where the target or the byte is below it.
        let mut inner = None;
        match (target, request.seek) {
            (Some(target), Some(_)) if upgrade.is_some() && target.index >= NodeIndex::of_block(from) => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "a seek and a block or hash beyond the old end cannot be answered together",
                ));
            }
            (Some(wanted), seek) if upgrade.is_none() || wanted.index.end_block() <= from => {
                let top = wanted.ancestor(levels(request), to)?;
                let seek = seek.map(|s| node_below(source, head, top, s.bytes, s.padding)).transpose()?;
                plan.subtree(target, seek, top)?;
            }
            (_, Some(seek)) if upgrade.is_some() => inner = node_in_log(source, head, to, seek.bytes, seek.padding)?,
            (Some(wanted), None) => inner = Some(wanted.index),
            _ => {}
        }
        if upgrade.is_some() {
            plan.upgrade(target, request.seek.and(inner), inner, from, to)?;
            plan.additional = growth(to, length).collect();
        }
        match target {
            Some(target) if plan.node.is_none() => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("node {} is not where the request says", target.index),
            )),
            _ => Ok(plan),
        }
    }

    /// What proves `target`, and the byte below `seek`, to one who trusts `top`.
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

    /// The subtrees by which a log grows; the one that holds `inner` is left to be computed from what proves it.
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

    /// All nodes of the plan, from the left.
    pub fn in_order(&self) -> Vec<NodeIndex> {
        let lists = [self.node.as_deref(), self.seek.as_deref(), self.upgrade.as_deref(), Some(&self.additional[..])];
        let mut all: Vec<_> = lists.into_iter().flatten().flatten().copied().collect();
        all.sort_unstable();
        all
    }
}

impl Target {
    /// The target of `request`; a block goes before a hash.
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

    /// The node `levels` above, which must not reach beyond `length`.
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

/// How many levels up the asker of `request` trusts a node.
fn levels(request: &Request) -> u64 {
    request.block.or(request.hash).map_or(0, |node| node.nodes)
}

/// `from`, then the siblings on the way up to `top`.
fn path(from: NodeIndex, top: NodeIndex) -> Vec<NodeIndex> {
    std::iter::once(from).chain(siblings(from, top)).collect()
}

/// The siblings on the way from `from` up to `top`, which must contain it.
fn siblings(from: NodeIndex, top: NodeIndex) -> impl Iterator<Item = NodeIndex> {
    std::iter::successors(Some(from), |at| Some(at.parent())).take_while(move |at| *at != top).map(NodeIndex::sibling)
}
