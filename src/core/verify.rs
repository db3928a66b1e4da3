//! Checking a core against its signature, and repairing it.
//!
//! The check goes down the tree from the signed roots, left to right. A node is *good* if it is a root, or hashes
//! with its sibling to a good parent. A block is good if it hashes to a good leaf. So everything that is held is
//! either proven by the signature or a fault. Repairing recomputes bad nodes that follow from the blocks below
//! them. It drops what cannot be proven, which can then be downloaded again, and never drops what is proven.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::core::change::Change;
use crate::core::durability::Durability;
use crate::core::handle::Hypercore;
use crate::core::limits::MAX_STORED_BLOCK;
use crate::core::rebuild::{from_blocks, held_bytes};
use crate::core::session::Session;
use crate::core::shared::{Shared, WriterGuard};
use crate::crypto::hash;
use crate::index::NodeIndex;
use crate::merkle::{NodeSource, Patch};
use crate::node::Node;
use crate::oplog::BitfieldUpdate;
use crate::{ErrorKind, Result};

/// The number of node indices that one change of a repair covers when it blanks nodes.
const BLANK_CHUNK: u64 = 4 * 1024;
/// The most blocks that one change of a repair marks as held again.
const FOUND_CHUNK: u64 = 1 << 20;
/// The number of blocks between two reports of progress.
const PROGRESS_BLOCKS: u64 = 1024;
/// The stack size in bytes of the thread that checks while the caller's thread reports progress.
const STACK: usize = 512 * 1024;

/// The treatment of the faults that a check finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// Report them.
    Verify,
    /// Report them, recompute nodes where the blocks below allow it, and drop what cannot be proven.
    Repair,
}

/// A fault of a core that [`verify`](crate::Hypercore::verify) found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The signature of the head does not verify, for the reason given. Only a download of the whole
    /// core corrects this.
    Signature(String),
    /// The node with this index is missing or is not what its parent says. It follows from the blocks below it, and
    /// was or can be recomputed.
    Node(u64),
    /// The nodes below the node with this index do not match its hash, and cannot be recomputed from blocks. The
    /// blocks there cannot be proven.
    Subtree(u64),
    /// The header's count of blocks that are held without a gap from the first, which differs from the bitfield's. A
    /// header without a count (0) is no fault.
    ContiguousLength(u64),
    /// The bitfield says that the block with this index is held, but the stored block does not match its leaf, or the
    /// leaf is missing.
    Block(u64),
}

impl Fault {
    /// Whether [`repair`](crate::Hypercore::repair) removes the fault.
    pub fn is_repairable(&self) -> bool {
        !matches!(self, Fault::Signature(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Signature(why) => write!(f, "the signature does not hold: {why}"),
            Fault::Node(index) => {
                write!(f, "node {index} of the tree is damaged; it can be recomputed from the blocks below it")
            }
            Fault::Subtree(index) => {
                write!(
                    f,
                    "the tree below node {index} is damaged; blocks there cannot be proven and have to be downloaded \
                     again"
                )
            }
            Fault::ContiguousLength(length) => {
                write!(
                    f,
                    "the header says that the first {length} blocks are held, but another number is; repairing finds \
                     those that are in `data` all the same"
                )
            }
            Fault::Block(index) => {
                write!(f, "block {index} is not the one that was signed; it has to be downloaded again")
            }
        }
    }
}

/// The result of [`crate::Hypercore::verify`] or [`crate::Hypercore::repair`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Audit {
    /// The number of blocks held; after a repair, of those that are still held.
    pub blocks: u64,
    /// The faults that were found, from left to right in the tree.
    pub faults: Vec<Fault>,
    /// Whether the faults that can be repaired were repaired.
    pub repaired: bool,
}

impl Audit {
    /// Whether the core has no fault, or none is left after the repair.
    pub fn is_sound(&self) -> bool {
        self.faults.iter().all(|fault| self.repaired && fault.is_repairable())
    }
}

/// Checking and repairing.
impl Hypercore {
    /// Hashes every stored block and tree node up to the signed roots, and returns every fault. Changes nothing.
    ///
    /// Blocks for about as long as it takes to read and hash the whole core. Reads continue meanwhile; calls that
    /// change the core wait.
    #[doc(alias = "audit")]
    pub fn verify(&self) -> Result<Audit> {
        self.session.verify(Task::Verify, &mut |_| ())
    }

    /// As [`verify`](Self::verify); calls `progress` with the number of blocks checked so far, once every 1,024
    /// blocks or less often.
    ///
    /// The check runs on a thread of its own, and `progress` on the caller's. `progress` may call any method of the
    /// core; one that changes the core waits until the check is done.
    pub fn verify_with_progress(&self, progress: impl FnMut(u64)) -> Result<Audit> {
        self.session.verify_with_progress(Task::Verify, progress)
    }

    /// Verifies the core as [`verify`](Self::verify) does, then makes it consistent again.
    ///
    /// Tree nodes are recomputed where the blocks below them allow it. Blocks that cannot be proven are dropped:
    /// they count as not held, and a peer can send them again. The signature of a damaged head cannot be
    /// repaired; see [`Audit::is_sound`].
    ///
    /// Fails with [`NotWritable`](crate::ErrorKind::NotWritable) if the core was opened read-only.
    pub fn repair(&self) -> Result<Audit> {
        self.session.verify(Task::Repair, &mut |_| ())
    }

    /// As [`repair`](Self::repair), with progress as in [`verify_with_progress`](Self::verify_with_progress).
    pub fn repair_with_progress(&self, progress: impl FnMut(u64)) -> Result<Audit> {
        self.session.verify_with_progress(Task::Repair, progress)
    }
}

impl Session {
    /// Verifies on another thread, so that no lock is held over `progress`; see
    /// [`crate::Hypercore::verify_with_progress`].
    pub(crate) fn verify_with_progress(&self, task: Task, mut progress: impl FnMut(u64)) -> Result<Audit> {
        let checked = &AtomicU64::new(0);
        let (sender, reports) = crossbeam_channel::bounded(1);
        thread::scope(|scope| {
            // The closure owns `sender`, so the reports end when it does.
            let verify = move || {
                self.verify(task, &mut |blocks| {
                    checked.store(blocks, Ordering::SeqCst);
                    // If the last report was not read yet, its reader loads the newest count.
                    let _ = sender.try_send(());
                })
            };
            let verifying =
                thread::Builder::new().name("hypercore-verify".into()).stack_size(STACK).spawn_scoped(scope, verify)?;
            reports.iter().for_each(|()| progress(checked.load(Ordering::SeqCst)));
            verifying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// See [`crate::Hypercore::verify`].
    pub(crate) fn verify(&self, task: Task, progress: &mut dyn FnMut(u64)) -> Result<Audit> {
        self.check_open()?;
        let shared = &*self.shared;
        if task == Task::Repair && shared.read_only {
            self.check_writable(true)?;
        }
        // The lock is held throughout, so that the check never sees half of a change. Readers continue.
        let guard = shared.writer.lock();
        let audit = match task {
            Task::Verify => {
                let audit = TreeCheck::new(shared, progress).run()?.into_audit(shared, false);
                drop(guard);
                audit
            }
            Task::Repair => {
                let mut writer = shared.check_writer(guard)?;
                let findings = TreeCheck::new(shared, progress).run()?;
                findings.repair(shared, &mut writer)?;
                findings.into_audit(shared, true)
            }
        };
        shared.deliver();
        audit
    }
}

/// The faults that a check found, and what repairs them.
#[derive(Default)]
struct Findings {
    faults: Vec<Fault>,
    /// Nodes as they have to be.
    nodes: Vec<Node>,
    /// Nodes whose subtrees have to be removed.
    blank_below: Vec<NodeIndex>,
    /// Ranges of blocks that are not proven.
    unproven: Vec<(u64, u64)>,
    /// Blocks that are in `data` but not marked as held in the bitfield.
    found_again: Vec<Range<u64>>,
    /// Byte offset and size of blocks in `data` that are not those that were signed.
    holes: Vec<(u64, u64)>,
}

struct TreeCheck<'a> {
    shared: &'a Shared,
    progress: &'a mut dyn FnMut(u64),
    checked: u64,
    /// The contiguous length in the header, if it is not that of the bitfield. Zero if it is, or if the
    /// header has none.
    stored_contiguous: u64,
    found: Findings,
}

impl<'a> TreeCheck<'a> {
    fn new(shared: &'a Shared, progress: &'a mut dyn FnMut(u64)) -> Self {
        TreeCheck { shared, progress, checked: 0, stored_contiguous: 0, found: Findings::default() }
    }

    fn run(mut self) -> Result<Findings> {
        let roots = {
            let state = self.shared.state.read();
            if state.head.length() > 0 {
                let verifier = state.verifier.learn(None);
                if let Err(error) = verifier.and_then(|a| a.check(state.head.tree(), &state.head.signature)) {
                    self.found.faults.push(Fault::Signature(error.to_string()));
                }
            }
            drop(state);
            let contiguous = self.shared.reading()?.first_unset(0)?;
            let state = self.shared.state.read();
            if let Some(stored) = state.stored_contiguous.filter(|&stored| stored != 0 && stored != contiguous) {
                self.found.faults.push(Fault::ContiguousLength(stored));
                self.stored_contiguous = stored;
            }
            self.found.faults.extend(state.repaired.iter().map(|index| Fault::Node(index.0)));
            state.head.roots.nodes().to_vec()
        };
        // The leftmost node is on top of the stack, so the check visits blocks in their order.
        let mut stack: Vec<(Node, u64)> = Vec::new();
        let mut offset = 0;
        for root in &roots {
            stack.push((*root, offset));
            offset += root.size;
        }
        stack.reverse();
        while let Some((node, offset)) = stack.pop() {
            let Some((left, right)) = node.index.children() else {
                self.block(node, offset)?;
                continue;
            };
            if let Some((left, right)) = self.good_children(&node, left, right, offset)? {
                let middle = offset + left.size;
                stack.push((right, middle));
                stack.push((left, offset));
            }
        }
        Ok(self.found)
    }

    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match self.shared.reading()?.tree(self.shared).node(index) {
            // Bytes that cannot be a node still exist: they count as a node that is never right.
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some(Node::blank(index))),
            node => node,
        }
    }

    /// The children of a good node, if they are good or can be recomputed.
    fn good_children(
        &mut self,
        node: &Node,
        left: NodeIndex,
        right: NodeIndex,
        offset: u64,
    ) -> Result<Option<(Node, Node)>> {
        let stored = (self.node(left)?, self.node(right)?);
        let is_parent_of = |l: &Node, r: &Node| Node::parent(l, r).is_some_and(|p| p == *node);
        match stored {
            (Some(l), Some(r)) if is_parent_of(&l, &r) => return Ok(Some((l, r))),
            (None, None) if self.first_held(node.index)?.is_none() => return Ok(None),
            _ => {}
        }
        // One of the two may be right. The size of the other then follows from it, and the hash from
        // the blocks below.
        let sized = |other: Option<Node>| other.and_then(|o| node.size.checked_sub(o.size));
        let left_made = match sized(stored.1) {
            Some(size) => self.compute(left, offset, Some(size))?,
            None => self.compute(left, offset, None)?,
        };
        for l in [stored.0, left_made].into_iter().flatten() {
            let Some(rest) = node.size.checked_sub(l.size) else { continue };
            let right_made = self.compute(right, offset + l.size, Some(rest))?;
            for r in [stored.1, right_made].into_iter().flatten() {
                if is_parent_of(&l, &r) {
                    for (good, old) in [(l, stored.0), (r, stored.1)] {
                        if old != Some(good) {
                            self.found.faults.push(Fault::Node(good.index.0));
                            self.found.nodes.push(good);
                        }
                    }
                    return Ok(Some((l, r)));
                }
            }
        }
        self.found.faults.push(Fault::Subtree(node.index.0));
        self.found.blank_below.push(node.index);
        let (first, end) = (node.index.first_block(), node.index.end_block());
        self.found.unproven.push((first, end));
        Ok(None)
    }

    fn first_held(&self, below: NodeIndex) -> Result<Option<u64>> {
        let reading = self.shared.reading()?;
        reading.bits.first_set(below.first_block(), below.end_block().min(reading.length()))
    }

    fn compute(&self, index: NodeIndex, offset: u64, size: Option<u64>) -> Result<Option<Node>> {
        let reading = self.shared.reading()?;
        from_blocks((&reading.tree(self.shared), &reading.bits, &reading.blocks), index, offset, size)
    }

    fn read(&self, leaf: &Node, offset: u64) -> Result<Option<Vec<u8>>> {
        if leaf.size > MAX_STORED_BLOCK {
            return Ok(None);
        }
        let blocks = self.shared.state.read().files()?.blocks.clone();
        held_bytes(&blocks, offset, leaf.size)
    }

    fn block(&mut self, leaf: Node, offset: u64) -> Result<()> {
        let block = leaf.index.first_block();
        if !self.shared.reading()?.has(block)? {
            // The header says that the block was held. If the bitfield was lost, the block may still be there.
            let is_there = block < self.stored_contiguous
                && self.read(&leaf, offset)?.is_some_and(|b| hash::leaf(&b) == leaf.hash);
            if is_there {
                match self.found.found_again.last_mut() {
                    Some(last) if last.end == block && last.end - last.start < FOUND_CHUNK => last.end += 1,
                    _ => self.found.found_again.push(block..block + 1),
                }
            }
            return Ok(());
        }
        self.checked += 1;
        if self.checked % PROGRESS_BLOCKS == 0 {
            (self.progress)(self.checked);
        }
        let stored = self.read(&leaf, offset)?;
        if stored.is_none_or(|bytes| hash::leaf(&bytes) != leaf.hash) {
            self.found.faults.push(Fault::Block(block));
            self.found.unproven.push((block, block + 1));
            self.found.holes.push((offset, leaf.size));
        }
        Ok(())
    }
}

impl Findings {
    fn into_audit(self, shared: &Shared, repaired: bool) -> Result<Audit> {
        let blocks = shared.read_bits(|it| it.bits.count_set(0..it.length()))?;
        Ok(Audit { blocks, faults: self.faults, repaired })
    }

    /// Drops what is not proven, then corrects nodes. A crash in between leaves less than is proven, never more.
    fn repair(&self, shared: &Shared, writer: &mut WriterGuard<'_>) -> Result<()> {
        let (fork, length) = {
            let state = shared.state.read();
            (state.head.fork, state.head.length())
        };
        let patch = |nodes| Patch { base_fork: fork, base_length: length, ancestors: length, nodes, upgrade: None };
        for &(start, end) in &self.unproven {
            let Some(first) = first_set(shared, start, end.min(length))? else { continue };
            let bits = BitfieldUpdate { drop: true, start: first, length: end.min(length) - first };
            shared.commit_clear(writer, bits)?;
        }
        if !self.holes.is_empty() {
            // Bytes of `data` have to be zeros before they are written.
            let blocks = shared.state.read().files()?.blocks.clone();
            self.holes.iter().try_for_each(|&(offset, size)| blocks.punch(offset, size))?;
            if shared.durability != Durability::None {
                blocks.sync()?;
            }
        }
        for range in &self.found_again {
            let bits = BitfieldUpdate { drop: false, start: range.start, length: range.end - range.start };
            shared.commit(writer, &[], vec![Change { bits: Some(bits), ..Change::default() }])?;
        }
        for nodes in self.nodes.chunks(1024) {
            let change = Change { patch: Some(patch(nodes.to_vec())), ..Change::default() };
            shared.commit(writer, &[], vec![change])?;
        }
        for &top in &self.blank_below {
            let (mut at, end) = (top.left_span().0, top.right_span().0);
            while at <= end {
                let upto = end.min(at + BLANK_CHUNK - 1);
                let present: Vec<Node> = {
                    let reading = shared.reading()?;
                    let tree = reading.tree(shared);
                    let mut blanks = Vec::new();
                    for index in (at..=upto).map(NodeIndex).filter(|&index| index != top) {
                        match tree.node(index) {
                            Ok(None) => {}
                            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
                            Ok(Some(_)) | Err(_) => blanks.push(Node::blank(index)),
                        }
                    }
                    blanks
                };
                if !present.is_empty() {
                    let change = Change { patch: Some(patch(present)), ..Change::default() };
                    shared.commit(writer, &[], vec![change])?;
                }
                at = upto + 1;
            }
        }
        shared.state.write().set_recovery(None);
        // The flush writes the counted contiguous length over a stored one that may be stale.
        shared.flush_now(writer)
    }
}

fn first_set(shared: &Shared, start: u64, end: u64) -> Result<Option<u64>> {
    if start >= end {
        return Ok(None);
    }
    shared.reading()?.bits.first_set(start, end)
}
