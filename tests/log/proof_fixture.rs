//! A complete log that proves, and a reader that has only the nodes of the proofs it verified.

use std::collections::HashMap;

use hypercore::lowlevel::crypto::hash::hash;
use hypercore::lowlevel::flat_tree;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::Verifier;
use hypercore::lowlevel::merkle::{
    self, Head, NodeRequest, NodeSource, Patch, Proof, Request, UpgradeRequest, Verified,
};
use hypercore::lowlevel::node::Node;
use hypercore::{KeyPair, Manifest, Result};

/// Nodes in memory.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Nodes(pub HashMap<NodeIndex, Node>);

impl NodeSource for Nodes {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        Ok(self.0.get(&index).copied().filter(|node| !node.is_blank()))
    }
}

impl Nodes {
    /// Stores a patch as the tree file does.
    pub fn apply(&mut self, patch: &Patch) {
        if patch.ancestors < patch.base_length {
            self.0.retain(|index, _| *index < NodeIndex::of_block(patch.ancestors));
            for index in flat_tree::straddling(patch.ancestors) {
                self.0.remove(&index);
            }
        }
        self.0.extend(patch.nodes.iter().map(|node| (node.index, *node)));
    }
}

/// A log with all its nodes and blocks.
#[derive(Clone)]
pub struct Log {
    pub key_pair: KeyPair,
    pub verifier: Verifier,
    pub head: Head,
    pub nodes: Nodes,
    pub blocks: Vec<Vec<u8>>,
}

impl Log {
    /// An empty log of a compat core.
    pub fn new() -> Self {
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let key = key_pair.public_key();
        let verifier = Verifier::new(key, Some(Manifest::single(key)), true).unwrap();
        Log { key_pair, verifier, head: Head::default(), nodes: Nodes::default(), blocks: Vec::new() }
    }

    /// A log of `length` blocks of 0 to 4 bytes.
    pub fn of(length: u64) -> Self {
        let mut log = Self::new();
        log.append((0..length).map(|i| varied(i, 0)).collect());
        log
    }

    pub fn append(&mut self, blocks: Vec<Vec<u8>>) {
        let start = self.head.length();
        let leaves = blocks.iter().zip(start..).map(|(block, i)| Node::leaf(i, block));
        let patch = merkle::append(&self.head, leaves).unwrap();
        self.commit(patch);
        self.blocks.extend(blocks);
    }

    pub fn truncate(&mut self, length: u64) {
        let patch = merkle::truncate(&self.nodes, &self.head, length, self.head.fork + 1).unwrap();
        self.commit(patch);
        self.blocks.truncate(length as usize);
    }

    fn commit(&mut self, patch: Patch) {
        self.nodes.apply(&patch);
        self.head = patch.upgrade.unwrap();
        self.head.signature = self.verifier.sign(self.head.tree(), &self.key_pair).unwrap();
    }

    /// The head of this log at a shorter length.
    pub fn head_at(&self, length: u64) -> Head {
        let patch = merkle::truncate(&self.nodes, &self.head, length, self.head.fork).unwrap();
        patch.upgrade.unwrap()
    }

    /// The proof for a request, with the value of its block.
    pub fn prove(&self, request: &Request) -> Result<Proof> {
        let mut proof = merkle::prove(&self.nodes, &self.head, None, request)?;
        if let Some(block) = &mut proof.block {
            block.value = self.blocks[block.index as usize].clone();
        }
        Ok(proof)
    }

    /// The byte offset of block `index`.
    pub fn offset(&self, index: u64) -> u64 {
        self.blocks[..index as usize].iter().map(|block| block.len() as u64).sum()
    }
}

/// The number of levels from `index` up to the first node that `nodes` or the roots have; 0 past the end of the log.
pub fn missing_nodes(nodes: &impl NodeSource, head: &Head, index: NodeIndex) -> u64 {
    let is_held =
        |at: NodeIndex| head.roots.nodes().iter().any(|root| root.index == at) || nodes.node(at).unwrap().is_some();
    std::iter::successors(Some(index), |at| Some(at.parent()))
        .take_while(|at| at.end_block() <= head.length() && !is_held(*at))
        .count() as u64
}

/// A reader of a part of a log.
#[derive(Clone)]
pub struct Reader {
    pub verifier: Verifier,
    pub head: Head,
    pub nodes: Nodes,
    pub blocks: HashMap<u64, Vec<u8>>,
}

impl Reader {
    pub fn of(log: &Log) -> Self {
        let head = Head { fork: log.head.fork, ..Head::default() };
        Reader { verifier: log.verifier.clone(), head, nodes: Nodes::default(), blocks: HashMap::new() }
    }

    pub fn verify(&self, proof: Proof) -> Result<Verified> {
        merkle::verify(&self.nodes, &self.head, proof, &self.verifier)
    }

    pub fn commit(&mut self, verified: Verified) {
        assert!(verified.fits(&self.head));
        let change = verified.settle(&self.nodes).unwrap();
        if let Some((index, value)) = &change.block {
            let offset = change.block_offset(&self.nodes, &self.head).unwrap();
            self.blocks.insert(*index, value.clone());
            self.nodes.apply(&change.patch);
            let head = change.patch.upgrade.as_ref().unwrap_or(&self.head);
            assert_eq!(offset, Some(merkle::byte_offset(&self.nodes, head, *index).unwrap()));
        }
        self.nodes.apply(&change.patch);
        if let Some(head) = change.patch.upgrade {
            self.blocks.retain(|index, _| *index < change.patch.ancestors.max(head.length()));
            self.head = head;
        }
    }

    pub fn take(&mut self, proof: Proof) -> Result<()> {
        self.verify(proof).map(|verified| self.commit(verified))
    }

    /// Upgrades to length `to` by a proof of `log`.
    pub fn upgrade(&mut self, log: &Log, to: u64) {
        let request = Request { upgrade: upgrade(self.head.length(), to), ..Request::default() };
        self.take(log.prove(&request).unwrap()).unwrap();
    }

    /// The request of this reader for a block.
    pub fn block_request(&self, index: u64) -> Request {
        let nodes = missing_nodes(&self.nodes, &self.head, NodeIndex::of_block(index));
        Request { block: node_request(index, nodes), ..Request::default() }
    }

    /// Checks that all nodes, blocks and byte offsets equal those of `log`.
    pub fn assert_part_of(&self, log: &Log) {
        for (index, node) in &self.nodes.0 {
            assert_eq!(log.nodes.0.get(index), Some(node));
        }
        for (&index, block) in &self.blocks {
            assert_eq!(*block, log.blocks[index as usize]);
            let range = merkle::byte_range(&self.nodes, &self.head, index).unwrap();
            assert_eq!(range, (log.offset(index), block.len() as u64));
        }
    }
}

/// A block of 0 to 4 bytes that depends on both numbers.
pub fn varied(index: u64, salt: u64) -> Vec<u8> {
    let bytes = hash(&[&index.to_le_bytes(), &salt.to_le_bytes()]);
    bytes[..usize::from(bytes[31] % 5)].to_vec()
}

/// A reader at the head of `log`, with its roots and the nodes `held` only.
pub fn knowing(log: &Log, held: &[NodeIndex]) -> Reader {
    let mut reader = Reader::of(log);
    reader.head = log.head.clone();
    let roots = log.head.roots.nodes().iter().map(|root| root.index);
    let held = roots.chain(held.iter().copied()).filter_map(|index| Some((index, *log.nodes.0.get(&index)?)));
    reader.nodes = Nodes(held.collect());
    reader
}

/// A reader of `log` at a shorter length, with the roots of that length only.
pub fn earlier(log: &Log, length: u64) -> Reader {
    let mut reader = Reader::of(log);
    reader.head = log.head_at(length);
    reader.nodes = Nodes(reader.head.roots.nodes().iter().map(|root| (root.index, *root)).collect());
    reader
}

/// A request for a block or node; `nodes` is how many levels up the reader has an ancestor.
pub fn node_request(index: u64, nodes: u64) -> Option<NodeRequest> {
    Some(NodeRequest { index, nodes })
}

/// A request for an upgrade from length `start` to length `to`.
pub fn upgrade(start: u64, to: u64) -> Option<UpgradeRequest> {
    Some(UpgradeRequest { start, length: to - start })
}

/// A node, its parent, and so on up to a root of `log`.
pub fn ancestors(log: &Log, index: NodeIndex) -> impl Iterator<Item = NodeIndex> {
    let length = log.head.length();
    std::iter::successors(Some(index), |at| Some(at.parent())).take_while(move |at| at.end_block() <= length)
}
