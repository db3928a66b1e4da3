//! The file `tree`, and the nodes that are not in it yet.
//!
//! ```text
//! tree   node i at byte 40·i:   u64 size ‖ hash (32)        all zeros, or past the end of the file: not held
//! ```
//!
//! Changes are gathered in memory, where readers see them at once, and reach the file with the next flush. A log that
//! is cut back leaves the file alone until then: the oplog entry that cuts it comes first.

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
use crate::storage::lazy_file::{LazyFile, OpenHow};
use crate::storage::mmap::{MmapReader, MmapWindows};
use crate::storage::version::Version;
use crate::{Error, ErrorKind, Result};

/// Bytes of a node in the file.
const NODE: u64 = 40;

/// Nodes are gathered into writes of at most this many bytes.
const GATHER: usize = 1 << 18;

/// What stands at the start of the file `tree` of a Hypercore before version 10.
const OLD_MAGIC: [u8; 15] = *b"\x05\x02\x57\x02\0\0\x28\x07BLAKE2b";

/// The file `tree`.
pub struct TreeFile {
    file: Arc<LazyFile>,
    windows: MmapWindows,
    version: Version,
}

impl TreeFile {
    /// Opens the file; it is made with the first write.
    pub fn open(storage: &Arc<dyn Storage>, how: OpenHow) -> Result<Self> {
        let file = Arc::new(LazyFile::open(storage, "tree", how.writable)?);
        let limit = how.map_limit - how.map_limit / 4;
        let windows = MmapWindows::new(file.clone(), how.mappable, limit).map_err(|e| file.error(e, "open"))?;
        let windows = windows.shared(!how.writable);
        let mut start = OLD_MAGIC.map(|_| 0);
        file.read_at(0, &mut start).map_err(|e| file.error(e, "read"))?;
        if start == OLD_MAGIC {
            let what = "this is a core of Hypercore 9 or older, whose format is another; make a new one";
            return Err(Error::new(ErrorKind::StorageConflict, what).at(file.path()));
        }
        Ok(TreeFile { file, windows, version: Version::default() })
    }

    /// The same file, not open until it is used; none where this one is not open itself, and can stay what it is. This one is to be dropped.
    pub fn released(&self) -> Result<Option<Self>> {
        let Some(file) = self.file.released()?.map(Arc::new) else { return Ok(None) };
        Ok(Some(TreeFile { windows: self.windows.anew(file.clone()), file, version: self.version.clone() }))
    }

    /// Gives up all maps: another handle of the file changes it from now on.
    pub fn retire(&self) {
        self.windows.retire();
    }

    /// Grows when the file begins to change and when that ends.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// For reading many nodes. While it lives, cutting the file waits, and this thread must not read nodes in any
    /// other way.
    pub fn reader(&self) -> TreeReader<'_> {
        TreeReader { file: self, reader: RefCell::new(self.windows.reader()) }
    }

    /// Opens the file again, if it was released.
    pub fn reopen(&self) -> Result<()> {
        self.file.reopen()
    }

    /// The node `index`, if it is in the file.
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
            return Err(
                Error::corrupt(format!("node {index} says that it covers {} bytes", node.size)).at(self.file.path())
            );
        }
        Ok((!node.is_blank()).then_some(node))
    }

    /// Writes `nodes`, sorted by index; neighbours together.
    pub fn write(&self, nodes: &[Node]) -> Result<()> {
        let _changing = self.version.change();
        // A broken last node would count once the file is longer.
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

    /// Cuts what is not of a log of `length` blocks, but for the parents that reach over its end, which are left of it.
    pub fn cut(&self, length: u64) -> Result<()> {
        if !self.reaches_past(length) {
            return Ok(());
        }
        let _changing = self.version.change();
        self.windows.set_len(end(length)).map_err(|e| self.file.error(e, "cut"))
    }

    /// Whether the file is longer than a log of `length` blocks makes it.
    pub fn reaches_past(&self, length: u64) -> bool {
        self.windows.len() > end(length)
    }

    /// Removes all nodes.
    pub fn clear(&self) -> Result<()> {
        self.cut(0)
    }

    /// An error where another program cut the file.
    pub fn check(&self) -> Result<()> {
        self.windows.check().map_err(|e| self.file.error(e, "write"))
    }

    /// Returns when what was written would survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|e| self.file.error(e, "sync"))
    }

    /// How many bytes the file takes up.
    pub fn disk_usage(&self) -> Result<u64> {
        self.file.disk_usage().map_err(|e| self.file.error(e, "measure"))
    }
}

/// Where the last leaf of a log of `length` blocks ends.
fn end(length: u64) -> u64 {
    match length {
        0 => 0,
        _ => (length - 1).saturating_mul(2 * NODE).saturating_add(NODE),
    }
}

/// Where a tree whose nodes are all in the file has its first node that is not.
const CLEAN: NodeIndex = NodeIndex(u64::MAX);

/// The first node that goes with a cut to `length` blocks: the one right before the head reaches over it.
fn first_cut(length: u64) -> NodeIndex {
    NodeIndex(length.saturating_mul(2).saturating_sub(1))
}

/// The nodes of a log: those in the file, and over them what changed since the last flush.
pub struct Tree {
    file: Arc<TreeFile>,
    /// Nodes to be written; a blank one removes.
    overlay: HashMap<NodeIndex, Node, BuildIndexHasher>,
    /// No node before this one is in the overlay.
    lowest: NodeIndex,
    /// The shortest length the log was cut to, which the file does not know yet.
    cut: Option<u64>,
    /// How often it was cut, so that a flush that another cut overtook is known.
    cuts: u64,
    /// How often it was changed at all.
    changes: u64,
    /// What was found out about it as it is.
    offsets: Arc<Offsets>,
}

/// What a reader needs of a [`Tree`] to read it while it changes.
///
/// What the file says of the nodes before `dirty_from` is true as long as the version of the file stays the same. Any
/// other node is asked of [`Tree::known`] first, and what the file says of one that is not known is true if the
/// version is still what it was when it was asked.
#[derive(Clone)]
pub struct TreeSnapshot {
    /// The file.
    pub file: Arc<TreeFile>,
    /// No node before this one waits for a flush.
    pub dirty_from: NodeIndex,
    /// Where subtrees begin, as far as that was found out. Another one belongs to the tree after each change of it.
    pub offsets: Arc<Offsets>,
}

/// What a flush is to bring to the file: first the cut, then the nodes.
#[derive(Clone, Debug)]
pub struct PendingTree {
    /// As for [`TreeFile::cut`].
    pub cut: Option<u64>,
    /// As for [`TreeFile::write`].
    pub nodes: Vec<Node>,
    cuts: u64,
    changes: u64,
}

impl Tree {
    /// What `file` holds.
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

    /// The file.
    pub fn file(&self) -> &Arc<TreeFile> {
        &self.file
    }

    /// What is needed to read the tree as it is now.
    pub fn snapshot(&self) -> TreeSnapshot {
        TreeSnapshot {
            file: self.file.clone(),
            dirty_from: self.cut.map_or(self.lowest, |cut| self.lowest.min(first_cut(cut))),
            offsets: self.offsets.clone(),
        }
    }

    /// Whether the tree is still the one that `snapshot` is of.
    pub fn is(&self, snapshot: &TreeSnapshot) -> bool {
        Arc::ptr_eq(&self.offsets, &snapshot.offsets)
    }

    /// Reads from `file` from now on, which is the same one; gives back what it read from before, which the caller
    /// [retires](TreeFile::retire) before the file changes.
    pub fn replace_file(&mut self, file: Arc<TreeFile>) -> Arc<TreeFile> {
        std::mem::replace(&mut self.file, file)
    }

    /// Adds `nodes`, in the place of those that were there.
    pub fn put(&mut self, nodes: &[Node]) {
        self.overlay.extend(nodes.iter().map(|n| (n.index, *n)));
        self.lowest = nodes.iter().map(|n| n.index).fold(self.lowest, NodeIndex::min);
        self.changes += 1;
        self.offsets = Arc::default();
    }

    /// Removes what is not of a log of `length` blocks: all nodes from there on, and the parents that reach over its
    /// end.
    pub fn truncate(&mut self, length: u64) {
        let head = NodeIndex(length.saturating_mul(2));
        self.overlay.retain(|index, _| index.0.saturating_add(1) < head.0);
        for node in straddling(length) {
            // JavaScript writes no blank node of all blocks right before the head: the cut file ends before it.
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

    /// Whether there are nodes that are not of a log of `length` blocks.
    pub fn reaches_past(&self, length: u64) -> bool {
        let head = length.saturating_mul(2);
        let in_file = self.cut.is_none_or(|cut| cut > length) && self.file.reaches_past(length);
        in_file || self.overlay.iter().any(|(index, node)| index.0 >= head && !node.is_blank())
    }

    /// What is to be flushed, if anything.
    pub fn pending(&self) -> Option<PendingTree> {
        if self.overlay.is_empty() && self.cut.is_none() {
            return None;
        }
        // Sorting the places and fetching what is there moves less memory than sorting the nodes.
        let mut places: Vec<NodeIndex> = self.overlay.keys().copied().collect();
        places.sort_unstable();
        let nodes = places.iter().filter_map(|place| self.overlay.get(place)).copied().collect();
        Some(PendingTree { cut: self.cut, nodes, cuts: self.cuts, changes: self.changes })
    }

    /// Lets go of what `written` brought to the file, and has not changed since.
    pub fn forget(&mut self, written: &PendingTree) {
        // Another cut since then: what it hides is in the file now, so that all of it has to be written once more.
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

    /// What is in memory about the node: nothing, or whether and what it is.
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

/// Reads nodes of a [`TreeFile`].
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
        // Of a node of no bytes only the hash tells whether it is there.
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
    fn nodes_are_what_was_put_and_not_cut() {
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
    fn what_changes_during_a_flush_is_flushed_again() {
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
    fn the_file_is_made_by_the_first_write_and_cut_where_javascript_cuts_it() {
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
    fn no_index_and_no_content_is_too_much() {
        let (_dir, storages) = storages();
        for (storage, how) in storages {
            let tree = TreeFile::open(&storage, how).unwrap();
            for index in [u64::MAX, u64::MAX / 40, u64::MAX / 40 + 1, i64::MAX as u64] {
                assert_eq!(tree.node(NodeIndex(index)).unwrap_or(None), None);
                assert!(tree.write(&[node(index, 0)]).is_err());
            }
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
