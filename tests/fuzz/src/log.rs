//! A log in memory: the tree and blocks of a core without its files.

use std::collections::{BTreeMap, HashMap};

use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::Verifier;
use hypercore::lowlevel::merkle::{self, Head, NodeSource, TreeChange, UpgradeRequest, Verified};
use hypercore::lowlevel::node::Node;
use hypercore::lowlevel::replication::{CommitOutcome, Data, Local, LogChange, Message, Request};
use hypercore::{Error, ErrorKind, KeyPair, Manifest, Result};

#[derive(Clone)]
pub struct Log {
    key_pair: Option<KeyPair>,
    pub verifier: Verifier,
    pub head: Head,
    pub nodes: HashMap<NodeIndex, Node>,
    pub blocks: BTreeMap<u64, Vec<u8>>,
}

/// How the core's key follows from its signer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Compat,
    Manifest,
}

impl Log {
    fn new(verifier: Verifier, key_pair: Option<KeyPair>) -> Self {
        Log { key_pair, verifier, head: Head::default(), nodes: HashMap::new(), blocks: BTreeMap::new() }
    }

    pub fn writer(kind: Kind) -> Self {
        let pair = crate::pair(9);
        let manifest = Manifest::single(pair.public_key());
        let key = if kind == Kind::Compat { pair.public_key() } else { manifest.key() };
        Log::new(Verifier::new(key, Some(manifest), kind == Kind::Compat).unwrap(), Some(pair))
    }

    /// An empty log that is opened by the key of `other`.
    pub fn reader_of(other: &Log) -> Self {
        Log::new(Verifier::new(*other.verifier.key(), None, other.verifier.is_compat()).unwrap(), None)
    }

    /// A reader that has the head of `other` and none of its blocks.
    pub fn follower_of(other: &Log) -> Self {
        let mut reader = Log::reader_of(other);
        let upgrade = Some(UpgradeRequest { start: 0, length: other.length() });
        let request = Request {
            id: 1,
            wanted: merkle::Request { upgrade, ..Default::default() },
            manifest: true,
            ..Default::default()
        };
        let Message::Data(data) = other.answer(&request) else { panic!("no data") };
        assert!(matches!(reader.commit(&data).0, CommitOutcome::Stored));
        reader
    }

    pub fn length(&self) -> u64 {
        self.head.length()
    }

    pub fn append(&mut self, blocks: impl IntoIterator<Item = Vec<u8>>) {
        let start = self.length();
        let blocks: Vec<Vec<u8>> = blocks.into_iter().collect();
        let leaves = blocks.iter().enumerate().map(|(i, block)| Node::leaf(start + i as u64, block));
        let patch = merkle::append(&self.head, leaves).unwrap();
        self.apply_own(patch);
        self.blocks.extend((start..).zip(blocks));
    }

    pub fn truncate(&mut self, length: u64) {
        let patch = merkle::truncate(&*self, &self.head, length, self.head.fork + 1).unwrap();
        self.apply_own(patch);
    }

    fn apply_own(&mut self, mut patch: merkle::Patch) {
        let head = patch.upgrade.as_mut().unwrap();
        head.signature = self.verifier.sign(head.tree(), self.key_pair.as_ref().unwrap()).unwrap();
        self.store(TreeChange { patch, block: None, manifest: None });
    }

    /// Commits a change that was verified, if it still fits.
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
            self.nodes.retain(|index, _| index.end_block() <= cut.start);
            self.blocks.retain(|index, _| *index < cut.start);
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

    /// The answer to a request.
    pub fn answer(&self, request: &Request) -> Message {
        let manifest = self.verifier.manifest().filter(|_| request.manifest && !self.verifier.is_compat());
        let mut data = Data { request: request.id, ..Data::default() };
        let proof = match request.fork == self.head.fork {
            true => self.prove(&request.wanted),
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

    fn prove(&self, wanted: &merkle::Request) -> Result<merkle::Proof> {
        let mut proof = merkle::prove(self, &self.head, self.verifier.prologue(), wanted)?;
        if let Some(block) = &mut proof.block {
            let value = self.blocks.get(&block.index);
            block.value = value.ok_or_else(|| Error::new(ErrorKind::BlockNotAvailable, "not here"))?.clone();
        }
        Ok(proof)
    }

    /// Panics unless everything held is what `writer` has: blocks, the hashes of nodes, and the offsets of blocks.
    #[track_caller]
    pub fn assert_part_of(&self, writer: &Log) {
        assert!(self.length() <= writer.length() && self.head.fork == writer.head.fork);
        for (index, block) in &self.blocks {
            assert_eq!(Some(block), writer.blocks.get(index), "block {index}");
            let offset = merkle::byte_offset(self, &self.head, *index).unwrap();
            assert_eq!(offset, merkle::byte_offset(writer, &writer.head, *index).unwrap(), "offset of block {index}");
        }
        for (index, node) in &self.nodes {
            assert_eq!(Some(node.hash), writer.nodes.get(index).map(|node| node.hash), "node {index}");
        }
    }
}

impl NodeSource for Log {
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        Ok(self.nodes.get(&index).copied().filter(|node| !node.is_blank()))
    }
}

impl Local for Log {
    fn head(&self) -> &Head {
        &self.head
    }
    fn contiguous_length(&self) -> u64 {
        self.first_unset(0)
    }
    fn has(&self, index: u64) -> bool {
        self.blocks.contains_key(&index)
    }
    fn first_unset(&self, from: u64) -> u64 {
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

/// Blocks of different sizes, no two alike.
pub fn blocks(range: std::ops::Range<u64>) -> impl Iterator<Item = Vec<u8>> {
    range.map(|index| {
        let mut block = index.to_le_bytes().to_vec();
        block.resize(8 + (index * 7 % 20) as usize, index as u8);
        block
    })
}
