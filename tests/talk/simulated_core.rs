//! A core in memory for the simulated network: the Merkle tree and signatures are real, storage is a map.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::Verifier;
use hypercore::lowlevel::merkle::{self, Head, NodeSource, TreeChange, Verified};
use hypercore::lowlevel::node::Node;
use hypercore::lowlevel::replication::{CommitOutcome, Data, Local, LogChange, Message, Request};
use hypercore::{Error, ErrorKind, KeyPair, Manifest, Result};

#[derive(Clone)]
pub struct Core {
    key_pair: Option<KeyPair>,
    pub verifier: Verifier,
    pub head: Head,
    nodes: HashMap<NodeIndex, Node>,
    pub blocks: BTreeMap<u64, Vec<u8>>,
    contiguous: RefCell<u64>,
    /// How often [`Local::has`] was called.
    pub looked_up: Cell<u64>,
}

impl Core {
    fn new(verifier: Verifier, key_pair: Option<KeyPair>) -> Self {
        Core {
            key_pair,
            verifier,
            head: Head::default(),
            nodes: HashMap::new(),
            blocks: BTreeMap::new(),
            contiguous: RefCell::new(0),
            looked_up: Cell::new(0),
        }
    }

    /// A writable compat core.
    pub fn writer() -> Self {
        let pair = KeyPair::from_seed(&[9; 32]);
        let manifest = Manifest::single(pair.public_key());
        Core::new(Verifier::new(pair.public_key(), Some(manifest), true).unwrap(), Some(pair))
    }

    /// A writable core whose key is the hash of its manifest.
    pub fn manifest_writer() -> Self {
        let pair = KeyPair::from_seed(&[9; 32]);
        let manifest = Manifest::single(pair.public_key());
        Core::new(Verifier::new(manifest.key(), Some(manifest), false).unwrap(), Some(pair))
    }

    /// An empty core with the key of `other`.
    pub fn reader_of(other: &Core) -> Self {
        Core::new(Verifier::new(*other.verifier.key(), None, other.verifier.is_compat()).unwrap(), None)
    }

    pub fn length(&self) -> u64 {
        self.head.length()
    }

    pub fn append(&mut self, blocks: impl IntoIterator<Item = Vec<u8>>) -> LogChange {
        let start = self.length();
        let blocks: Vec<Vec<u8>> = blocks.into_iter().collect();
        let leaves = blocks.iter().enumerate().map(|(i, block)| Node::leaf(start + i as u64, block));
        let patch = merkle::append(&self.head, leaves).unwrap();
        self.apply_own(patch);
        self.blocks.extend((start..).zip(blocks));
        LogChange { have: std::iter::once(start..self.length()).collect(), upgraded: true, ..LogChange::default() }
    }

    pub fn truncate(&mut self, length: u64) -> LogChange {
        let patch = merkle::truncate(&*self, &self.head, length, self.head.fork + 1).unwrap();
        let cut = length..self.length();
        self.apply_own(patch);
        LogChange { dropped: Some(cut.clone()), upgraded: true, truncated: Some(cut), ..LogChange::default() }
    }

    pub fn clear(&mut self, range: std::ops::Range<u64>) -> LogChange {
        self.blocks.retain(|index, _| !range.contains(index));
        *self.contiguous.borrow_mut() = 0;
        LogChange { dropped: Some(range), ..LogChange::default() }
    }

    fn apply_own(&mut self, mut patch: merkle::Patch) {
        let head = patch.upgrade.as_mut().unwrap();
        if head.length() > 0 {
            head.signature = self.verifier.sign(head.tree(), self.key_pair.as_ref().unwrap()).unwrap();
        }
        self.store(TreeChange { patch, block: None, manifest: None });
    }

    /// Commits a verified change; `None` if the log has changed since it was verified.
    pub fn apply(&mut self, verified: Verified) -> Option<LogChange> {
        if !verified.fits(&self.head) {
            return None;
        }
        let settled = verified.settle(&*self).unwrap();
        Some(self.store(settled))
    }

    fn store(&mut self, settled: TreeChange) -> LogChange {
        let mut change = LogChange { upgraded: settled.patch.upgrade.is_some(), ..LogChange::default() };
        if settled.patch.ancestors < settled.patch.base_length {
            let cut = settled.patch.ancestors..settled.patch.base_length;
            let keep = NodeIndex::of_block(cut.start);
            self.nodes.retain(|index, _| *index < keep && index.end_block() <= cut.start);
            self.blocks.retain(|index, _| *index < cut.start);
            *self.contiguous.borrow_mut() = 0;
            change.dropped = Some(cut.clone());
            change.truncated = Some(cut);
        }
        self.nodes.extend(settled.patch.nodes.into_iter().map(|node| (node.index, node)));
        if let Some(head) = settled.patch.upgrade {
            self.head = head;
        }
        if let Some((index, value)) = settled.block {
            self.blocks.insert(index, value);
            change.have.push(index..index + 1);
        }
        if let Some(manifest) = settled.manifest {
            self.verifier = self.verifier.with_manifest(manifest).unwrap();
            change.manifest = true;
        }
        change
    }

    pub fn commit(&mut self, data: &Data) -> (CommitOutcome, Option<LogChange>) {
        match merkle::verify(&*self, &self.head, data.proof.clone(), &self.verifier) {
            Err(error) => (CommitOutcome::Rejected(error), None),
            Ok(verified) => match self.apply(verified) {
                None => (CommitOutcome::Stale, None),
                change => (CommitOutcome::Stored, change),
            },
        }
    }

    /// The response to a request: data, or no data.
    pub fn answer(&self, request: &Request) -> Message {
        let manifest = self.verifier.manifest().filter(|_| request.manifest && !self.verifier.is_compat());
        let mut data = Data { request: request.id, ..Data::default() };
        let proof = match request.fork == self.head.fork {
            true => self.prove(request),
            false => Err(Error::new(ErrorKind::InvalidOperation, "another fork")),
        };
        match proof {
            Ok(proof) => data.proof = proof,
            Err(_) if manifest.is_none() => return Message::NoData(request.id),
            Err(_) => data.proof.fork = self.head.fork,
        }
        data.proof.manifest = manifest.cloned();
        Message::Data(Box::new(data))
    }

    fn prove(&self, request: &Request) -> Result<merkle::Proof> {
        let mut proof = merkle::prove(self, &self.head, self.verifier.prologue(), &request.wanted)?;
        if let Some(block) = &mut proof.block {
            let value = self.blocks.get(&block.index);
            block.value = value.ok_or_else(|| Error::new(ErrorKind::BlockNotAvailable, "not here"))?.clone();
        }
        Ok(proof)
    }
}

impl NodeSource for Core {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        Ok(self.nodes.get(&index).copied().filter(|node| !node.is_blank()))
    }
}

impl Local for Core {
    fn head(&self) -> &Head {
        &self.head
    }
    fn contiguous_length(&self) -> u64 {
        let mut contiguous = self.contiguous.borrow_mut();
        while self.blocks.contains_key(&contiguous) {
            *contiguous += 1;
        }
        *contiguous
    }
    fn has(&self, index: u64) -> bool {
        self.looked_up.set(self.looked_up.get() + 1);
        self.blocks.contains_key(&index)
    }
    fn first_unset(&self, from: u64) -> u64 {
        let from = if from < self.contiguous_length() { self.contiguous_length() } else { from };
        let held = self.blocks.range(from..).zip(from..).take_while(|((index, _), at)| *index == at);
        from + held.count() as u64
    }
    fn first_set(&self, from: u64) -> Option<u64> {
        self.blocks.range(from..).next().map(|(index, _)| *index)
    }
    fn words(&self, start: u64, words: &mut [u32]) {
        words.fill(0);
        for (index, _) in self.blocks.range(start..start + words.len() as u64 * 32) {
            words[((index - start) / 32) as usize] |= 1 << (index % 32);
        }
    }
    fn has_manifest(&self) -> bool {
        self.verifier.manifest().is_some()
    }
    fn is_compat(&self) -> bool {
        self.verifier.is_compat()
    }
}

/// A block that starts with its index, so that all differ.
pub fn block(index: u64, size: usize) -> Vec<u8> {
    let mut block = index.to_le_bytes().to_vec();
    block.resize(size.max(8), index as u8);
    block
}

pub fn blocks(count: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|i| block(i, 20))
}
