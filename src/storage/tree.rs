//! The file `tree`, and the nodes that are not yet in it.
//!
//! ```text
//! tree   node i at byte 40·i:   u64 size ‖ hash (32)        all zeros, or past the end of the file: not held
//! ```
//!
//! Changes stay in memory, where readers find them at once, until the next flush writes them to the file. A truncation
//! of the log does not change the file before that flush either: the oplog entry of the truncation is written first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use byteorder::{ByteOrder, LE};

use crate::codec::MAX_SAFE_INTEGER;
use crate::flat_tree::straddling;
use crate::index::{BuildIndexHasher, NodeIndex};
use crate::merkle::{NodeSource, Offsets};
use crate::node::Node;
use crate::storage::backend::{File, Storage};
use crate::storage::lazy_file::{FileOptions, LazyFile};
use crate::storage::mmap::{MmapReader, MmapWindows};
use crate::storage::seqlock::SequenceCounter;
use crate::{Error, ErrorKind, Result};

/// Bytes of a node in the file.
const NODE: u64 = 40;

/// Nodes are gathered into writes of at most this many bytes.
const GATHER: usize = 1 << 18;

/// The first bytes of the file `tree` of a Hypercore before version 10.
const OLD_MAGIC: [u8; 15] = *b"\x05\x02\x57\x02\0\0\x28\x07BLAKE2b";

/// The file `tree`.
pub struct TreeFile {
    file: Arc<LazyFile>,
    windows: MmapWindows,
    sequence: SequenceCounter,
}

impl TreeFile {
    /// Opens the file if it exists; the first write creates it.
    ///
    /// # Errors
    /// [`ErrorKind::StorageConflict`] if Hypercore 9 or older wrote it.
    pub fn open(storage: &Arc<dyn Storage>, how: FileOptions) -> Result<Self> {
        let file = Arc::new(LazyFile::open(storage, "tree", how.writable)?);
        let limit = how.map_limit - how.map_limit / 4;
        let windows = MmapWindows::new(file.clone(), how.mappable, limit).map_err(|e| file.error(e, "open"))?;
        let windows = windows.shared(!how.writable);
        let mut start = OLD_MAGIC.map(|_| 0);
        file.read_at(0, &mut start).map_err(|e| file.error(e, "read"))?;
        if start == OLD_MAGIC {
            let what = "this is a core of Hypercore 9 or older, whose format is another; create a new core elsewhere";
            return Err(Error::new(ErrorKind::StorageConflict, what).at(file.path()));
        }
        Ok(TreeFile { file, windows, sequence: SequenceCounter::default() })
    }

    /// The same file, closed until its next use. None if this one is not open. The caller drops this one.
    pub fn released(&self) -> Result<Option<Self>> {
        let Some(file) = self.file.released()?.map(Arc::new) else { return Ok(None) };
        Ok(Some(TreeFile { windows: self.windows.anew(file.clone()), file, sequence: self.sequence.clone() }))
    }

    /// Drops all maps for good, because another handle changes the file from now on.
    pub fn retire(&self) {
        self.windows.retire();
    }

    /// The version of the file, which grows when a change of the file begins and when it ends.
    pub fn version(&self) -> u64 {
        self.sequence.get()
    }

    /// A reader of many nodes. While it exists, shortening the file blocks, and this thread must not read nodes in any
    /// other way.
    pub fn reader(&self) -> TreeReader<'_> {
        TreeReader { file: self, reader: RefCell::new(self.windows.reader()) }
    }

    /// Opens the file if it is released; see [`LazyFile::reopen`].
    pub fn reopen(&self) -> Result<()> {
        self.file.reopen()
    }

    /// The node `index`; `Ok(None)` if it is not in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if its size is larger than any log.
    pub fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        self.node_in(&mut self.windows.reader(), index)
    }

    fn node_in(&self, reader: &mut MmapReader<'_>, index: NodeIndex) -> Result<Option<Node>> {
        let Some(offset) = index.0.checked_mul(NODE) else { return Ok(None) };
        let bytes = match reader.mapped(offset) {
            Some(bytes) => bytes,
            None => {
                let mut bytes = [0; NODE as usize];
                let n = reader.read(offset, &mut bytes).map_err(|e| self.file.error(e, "read"))?;
                if n < bytes.len() {
                    return Ok(None);
                }
                bytes
            }
        };
        let mut node = Node { size: LE::read_u64(&bytes[..8]), ..Node::blank(index) };
        node.hash.copy_from_slice(&bytes[8..]);
        if node.size > MAX_SAFE_INTEGER {
            return Err(Error::corrupt(format!("node {index} has a size of {} bytes, more than any log", node.size))
                .at(self.file.path()));
        }
        Ok((!node.is_blank()).then_some(node))
    }

    /// Writes `nodes`, which are sorted by index. Neighbours share a write.
    pub fn write(&self, nodes: &[Node]) -> Result<()> {
        let _section = self.sequence.change();
        // An incomplete last node would become part of a node if the file grew over it.
        let broken = self.windows.len() % NODE;
        if broken != 0 && !nodes.is_empty() {
            self.windows.set_len(self.windows.len() - broken).map_err(|e| self.file.error(e, "cut"))?;
        }
        let mut bytes = Vec::with_capacity(GATHER.min(nodes.len() * NODE as usize));
        for run in nodes.chunk_by(|a, b| b.index.0.wrapping_sub(a.index.0) == 1) {
            for part in run.chunks(GATHER / NODE as usize) {
                bytes.clear();
                for node in part {
                    bytes.extend_from_slice(&node.size.to_le_bytes());
                    bytes.extend_from_slice(&node.hash);
                }
                let offset = part[0].index.0.checked_mul(NODE).filter(|&n| n <= i64::MAX as u64);
                let written = match offset {
                    Some(offset) => self.windows.write_at(offset, &bytes),
                    None => Err(io::ErrorKind::FileTooLarge.into()),
                };
                written.map_err(|e| self.file.error(e, "write"))?;
            }
        }
        Ok(())
    }

    /// Cuts the file after the last leaf of a log of `length` blocks. Parents before that leaf that also cover later
    /// blocks remain.
    pub fn cut(&self, length: u64) -> Result<()> {
        if !self.reaches_past(length) {
            return Ok(());
        }
        let _section = self.sequence.change();
        self.windows.set_len(end(length)).map_err(|e| self.file.error(e, "cut"))
    }

    /// Whether the file is longer than [`TreeFile::cut`] to `length` blocks leaves it.
    pub fn reaches_past(&self, length: u64) -> bool {
        self.windows.len() > end(length)
    }

    /// Removes all nodes.
    pub fn clear(&self) -> Result<()> {
        self.cut(0)
    }

    /// Fails if another program shortened the file.
    pub fn check(&self) -> Result<()> {
        self.windows.check().map_err(|e| self.file.error(e, "write"))
    }

    /// Blocks until all writes so far would survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|e| self.file.error(e, "sync"))
    }

    /// The disk space that the file occupies, in bytes.
    pub fn disk_usage(&self) -> Result<u64> {
        self.file.disk_usage().map_err(|e| self.file.error(e, "measure"))
    }
}

/// The offset in the file at which the last leaf of a log of `length` blocks ends.
fn end(length: u64) -> u64 {
    match length {
        0 => 0,
        _ => (length - 1).saturating_mul(2 * NODE).saturating_add(NODE),
    }
}

/// The value of [`Tree::lowest`] if the overlay is empty.
const CLEAN: NodeIndex = NodeIndex(u64::MAX);

/// The first node that a cut to `length` blocks removes: the parent right after the last leaf.
fn first_cut(length: u64) -> NodeIndex {
    NodeIndex(length.saturating_mul(2).saturating_sub(1))
}

/// The nodes of a log: those in the file, overlaid by the changes since the last flush.
pub struct Tree {
    file: Arc<TreeFile>,
    /// Nodes that the next flush writes; a blank one removes the node.
    overlay: HashMap<NodeIndex, Node, BuildIndexHasher>,
    /// No node before this one is in the overlay.
    lowest: NodeIndex,
    /// The shortest length to which the log was truncated since the last flush.
    cut: Option<u64>,
    /// The number of truncations, by which a flush notices that another one came after its snapshot.
    cuts: u64,
    /// The number of changes of any kind.
    changes: u64,
    /// Byte offsets that readers computed from the tree in its current state.
    offsets: Arc<Offsets>,
}

/// Lets a reader read a [`Tree`] while it changes.
///
/// For a node before `dirty_from` the file is right as long as its version does not change. For any other node the
/// reader first asks [`Tree::known`]; if the node is not known there, the file is right if its version is the same
/// after the read as at the time of that call.
#[derive(Clone)]
pub struct TreeSnapshot {
    /// The file of the tree.
    pub file: Arc<TreeFile>,
    /// No node before this one waits for a flush.
    pub dirty_from: NodeIndex,
    /// Byte offsets of subtrees that readers have computed. Each change of the tree replaces this value.
    pub offsets: Arc<Offsets>,
}

/// The changes that a flush writes to the file: first the cut, then the nodes.
#[derive(Clone, Debug)]
pub struct PendingTree {
    /// The argument of [`TreeFile::cut`], if the log was truncated.
    pub cut: Option<u64>,
    /// The argument of [`TreeFile::write`].
    pub nodes: Vec<Node>,
    cuts: u64,
    changes: u64,
}

impl Tree {
    /// The tree in `file`, without changes.
    pub fn new(file: Arc<TreeFile>) -> Self {
        Tree {
            file,
            overlay: HashMap::default(),
            lowest: CLEAN,
            cut: None,
            cuts: 0,
            changes: 0,
            offsets: Arc::default(),
        }
    }

    /// The file of the tree.
    pub fn file(&self) -> &Arc<TreeFile> {
        &self.file
    }

    /// A snapshot for readers of the tree in its current state.
    pub fn snapshot(&self) -> TreeSnapshot {
        TreeSnapshot {
            file: self.file.clone(),
            dirty_from: self.cut.map_or(self.lowest, |cut| self.lowest.min(first_cut(cut))),
            offsets: self.offsets.clone(),
        }
    }

    /// Whether the tree has not changed since `snapshot` was taken.
    pub fn is(&self, snapshot: &TreeSnapshot) -> bool {
        Arc::ptr_eq(&self.offsets, &snapshot.offsets)
    }

    /// Replaces the handle of the file by `file`, which is the same file. Returns the old handle, which the caller
    /// [retires](TreeFile::retire) before the file changes.
    pub fn replace_file(&mut self, file: Arc<TreeFile>) -> Arc<TreeFile> {
        std::mem::replace(&mut self.file, file)
    }

    /// Adds `nodes` and replaces those of the same index.
    pub fn put(&mut self, nodes: &[Node]) {
        self.overlay.extend(nodes.iter().map(|n| (n.index, *n)));
        self.lowest = nodes.iter().map(|n| n.index).fold(self.lowest, NodeIndex::min);
        self.changes += 1;
        self.offsets = Arc::default();
    }

    /// Removes all nodes that cover blocks from `length` on: those after the last leaf, and the parents before it that
    /// reach over the end.
    pub fn truncate(&mut self, length: u64) {
        let head = NodeIndex(length.saturating_mul(2));
        self.overlay.retain(|index, _| index.0.saturating_add(1) < head.0);
        for node in straddling(length) {
            // The cut removes this node, a root over all blocks and as many more, from the file, and JavaScript does
            // not write a blank one there.
            if node.offset() == 0 && node.0 + 1 == head.0 {
                continue;
            }
            self.overlay.insert(node, Node::blank(node));
            self.lowest = self.lowest.min(node);
        }
        self.cut = Some(self.cut.map_or(length, |cut| cut.min(length)));
        self.cuts += 1;
        self.changes += 1;
        self.offsets = Arc::default();
    }

    /// Whether there are nodes after the last leaf of a log of `length` blocks.
    pub fn reaches_past(&self, length: u64) -> bool {
        let head = length.saturating_mul(2);
        let in_file = self.cut.is_none_or(|cut| cut > length) && self.file.reaches_past(length);
        in_file || self.overlay.iter().any(|(index, node)| index.0 >= head && !node.is_blank())
    }

    /// The changes since the last flush; None if there are none.
    pub fn pending(&self) -> Option<PendingTree> {
        if self.overlay.is_empty() && self.cut.is_none() {
            return None;
        }
        // Sorting the indices and then looking up the nodes moves less memory than sorting the nodes.
        let mut places: Vec<NodeIndex> = self.overlay.keys().copied().collect();
        places.sort_unstable();
        let nodes = places.iter().filter_map(|place| self.overlay.get(place)).copied().collect();
        Some(PendingTree { cut: self.cut, nodes, cuts: self.cuts, changes: self.changes })
    }

    /// Drops the changes that a flush of `written` brought to the file, except those that were replaced since.
    pub fn forget(&mut self, written: &PendingTree) {
        // A truncation came after the snapshot. The flush wrote nodes that it hides, so the next flush writes all
        // again.
        if self.cuts != written.cuts {
            return;
        }
        self.cut = None;
        if self.changes == written.changes {
            self.overlay = HashMap::default();
            self.lowest = CLEAN;
            return;
        }
        for node in &written.nodes {
            if self.overlay.get(&node.index) == Some(node) {
                self.overlay.remove(&node.index);
            }
        }
        if self.overlay.is_empty() {
            self.overlay = HashMap::default();
            self.lowest = CLEAN;
        }
    }

    /// The changes since the last flush to node `index`: `None` if there are none, `Some(None)` if it was removed,
    /// `Some(Some(_))` if it was put.
    pub fn known(&self, index: NodeIndex) -> Option<Option<Node>> {
        if let Some(node) = self.overlay.get(&index) {
            return Some((!node.is_blank()).then_some(*node));
        }
        self.cut.filter(|&cut| index >= first_cut(cut)).map(|_| None)
    }
}

impl NodeSource for Tree {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match self.known(index) {
            Some(known) => Ok(known),
            None => self.file.node(index),
        }
    }
}

/// A reader of many nodes of a [`TreeFile`].
pub struct TreeReader<'a> {
    file: &'a TreeFile,
    reader: RefCell<MmapReader<'a>>,
}

impl NodeSource for TreeReader<'_> {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        self.file.node_in(&mut self.reader.borrow_mut(), index)
    }

    fn size(&self, index: NodeIndex) -> Result<Option<u64>> {
        let offset = index.0.checked_mul(NODE);
        let bytes = offset.and_then(|offset| self.reader.borrow().mapped::<{ NODE as usize }>(offset));
        let size = bytes.map(|bytes| LE::read_u64(&bytes[..8]));
        // A node of size 0 may be blank, which only its hash shows.
        if let Some(1..=MAX_SAFE_INTEGER) = size {
            return Ok(size);
        }
        Ok(self.node(index)?.map(|node| node.size))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::storage::backend::Access;
    use crate::storage::testing::{random, storages};

    fn node(index: u64, version: u64) -> Node {
        Node { index: NodeIndex(index), size: version + 1, hash: [version as u8 | 1; 32] }
    }

    fn flush(tree: &mut Tree) {
        let Some(pending) = tree.pending() else { return };
        write(tree, &pending);
        tree.forget(&pending);
        assert!(tree.pending().is_none());
    }

    fn write(tree: &Tree, pending: &PendingTree) {
        pending.cut.into_iter().for_each(|length| tree.file().cut(length).unwrap());
        tree.file().write(&pending.nodes).unwrap();
    }

    #[test]
    fn node_after_random_puts_and_cuts_is_what_was_put_and_not_cut() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let open = || Tree::new(Arc::new(TreeFile::open(&storage, how).unwrap()));
            let mut tree = open();
            let mut expected: BTreeMap<u64, Node> = BTreeMap::new();
            let mut random = random(11);
            for version in 0..3000 {
                match random(24) {
                    0 => {
                        let length = random(300);
                        tree.truncate(length);
                        expected.retain(|&i, _| NodeIndex(i).right_span().0 < 2 * length);
                    }
                    1 => flush(&mut tree),
                    2 => {
                        flush(&mut tree);
                        tree = open();
                    }
                    3..14 => {
                        let start = random(700);
                        let nodes: Vec<Node> = (start..start + random(5)).map(|i| node(i, version)).collect();
                        tree.put(&nodes);
                        expected.extend(nodes.iter().map(|n| (n.index.0, *n)));
                    }
                    _ => {
                        for i in random(400)..800 {
                            assert_eq!(tree.node(NodeIndex(i)).unwrap(), expected.get(&i).copied(), "node {i}");
                        }
                        let snapshot = tree.snapshot();
                        assert!(snapshot.dirty_from == CLEAN || tree.pending().is_some());
                        let reader = snapshot.file.reader();
                        for i in (random(400)..800).filter(|&i| NodeIndex(i) < snapshot.dirty_from) {
                            assert_eq!(reader.node(NodeIndex(i)).unwrap(), expected.get(&i).copied(), "node {i}");
                            let size = expected.get(&i).map(|node| node.size);
                            assert_eq!(reader.size(NodeIndex(i)).unwrap(), size, "node {i}");
                        }
                    }
                }
                let i = random(800);
                assert_eq!(tree.node(NodeIndex(i)).unwrap(), expected.get(&i).copied(), "node {i}");
            }
        }
    }

    #[test]
    fn change_during_flush_is_flushed_again() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let mut tree = Tree::new(Arc::new(TreeFile::open(&storage, how).unwrap()));
            tree.put(&[node(0, 1), node(2, 1), node(4, 1), node(6, 1)]);
            let pending = tree.pending().unwrap();
            tree.put(&[node(2, 2)]);
            write(&tree, &pending);
            tree.forget(&pending);
            assert_eq!(tree.pending().unwrap().nodes, [node(2, 2)]);
            tree.truncate(3);
            let pending = tree.pending().unwrap();
            tree.put(&[node(6, 3)]);
            tree.truncate(3);
            write(&tree, &pending);
            tree.file().write(&[node(6, 3)]).unwrap();
            tree.forget(&pending);
            assert_eq!(tree.node(NodeIndex(6)).unwrap(), None);
            flush(&mut tree);
            assert_eq!(tree.node(NodeIndex(6)).unwrap(), None);
            assert_eq!(tree.node(NodeIndex(2)).unwrap(), Some(node(2, 2)));
            assert_eq!(tree.file().node(NodeIndex(4)).unwrap(), Some(node(4, 1)));
        }
    }

    #[test]
    fn cut_leaves_the_length_that_javascript_leaves() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let file = TreeFile::open(&storage, how).unwrap();
            file.cut(0).unwrap();
            assert!(storage.open("tree", Access::Read).unwrap().is_none());
            file.write(&[node(0, 0), node(1, 0), node(2, 0), node(900, 0)]).unwrap();
            assert_eq!(file.windows.len(), 901 * 40);
            file.cut(1000).unwrap();
            assert_eq!(file.windows.len(), 901 * 40);
            file.cut(3).unwrap();
            assert_eq!(file.windows.len(), 2 * 80 + 40);
            file.clear().unwrap();
            assert_eq!(file.windows.len(), 0);
        }
    }

    #[test]
    fn read_past_longest_log_is_absent_and_write_fails() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let tree = TreeFile::open(&storage, how).unwrap();
            for index in [u64::MAX, u64::MAX / 40, u64::MAX / 40 + 1, i64::MAX as u64] {
                assert_eq!(tree.node(NodeIndex(index)).unwrap_or(None), None);
                assert!(tree.write(&[node(index, 0)]).is_err());
            }
        }
    }

    #[test]
    fn damaged_node_is_error() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let file = storage.open("tree", Access::Create).unwrap().unwrap();
            file.write_at(0, &[255; 60]).unwrap();
            let tree = TreeFile::open(&storage, how).unwrap();
            assert_eq!(tree.node(NodeIndex(0)).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(tree.node(NodeIndex(1)).unwrap(), None);
            file.write_at(0, &OLD_MAGIC).unwrap();
            assert!(TreeFile::open(&storage, how).is_err());
        }
    }
}
