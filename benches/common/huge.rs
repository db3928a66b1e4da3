//! Logs that are too long to be written. All their blocks are equal, so all nodes of one height have the same hash,
//! and the bytes at any place of any file are computed when they are read.
//!
//! The logs are complete and signed. A reader cannot tell them from logs that were written block by block.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypercore::lowlevel::crypto::hash::{self, Hash};
use hypercore::lowlevel::flat_tree::full_roots;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::{SignableTree, Verifier};
use hypercore::lowlevel::merkle::{Head, NodeSource};
use hypercore::lowlevel::node::{Node, Roots};
use hypercore::lowlevel::oplog::{Header, Oplog, StoredKeyPair, TreeHeader};
use hypercore::{Access, Disk, File, KeyPair, Manifest, Memory, Storage};

/// A log of equal blocks.
#[derive(Clone)]
pub struct Log {
    pub length: u64,
    pub block: Arc<Vec<u8>>,
    hashes: Arc<Vec<Hash>>,
    pub pair: KeyPair,
    pub verifier: Verifier,
    pub head: Head,
}

impl Log {
    pub fn new(length: u64, size: usize) -> Self {
        let block = super::block(size);
        let mut hashes = vec![hash::leaf(&block)];
        for depth in 1..50 {
            let below = &hashes[depth - 1];
            hashes.push(hash::parent((size as u64) << depth, below, below));
        }
        let pair = KeyPair::from_seed(&[1; 32]);
        let manifest = Manifest::single(pair.public_key());
        let verifier = Verifier::new(manifest.key(), Some(manifest), false).expect("its own key");
        let mut log =
            Log { length, block: Arc::new(block), hashes: Arc::new(hashes), pair, verifier, head: Head::default() };
        let roots = Roots::new(full_roots(length).map(|index| log.at(index)).collect()).expect("roots");
        let signature = log.verifier.sign(SignableTree { roots: &roots, fork: 0 }, &log.pair).expect("signed");
        log.head = Head { roots: roots.clone(), fork: 0, signature };
        log
    }

    fn at(&self, index: NodeIndex) -> Node {
        let depth = index.depth();
        Node { index, size: (self.block.len() as u64) << depth, hash: self.hashes[depth as usize] }
    }

    fn header(&self) -> Header {
        Header {
            key: *self.verifier.key(),
            manifest: self.verifier.manifest().cloned(),
            key_pair: Some(StoredKeyPair {
                public_key: self.pair.public_key(),
                secret_key: Some(Box::new((*self.pair.secret_key()).into())),
            }),
            user_data: Vec::new(),
            tree: TreeHeader {
                fork: 0,
                length: self.length,
                root_hash: Some(self.head.tree_hash()),
                signature: self.head.signature.clone(),
            },
            reorgs: Vec::new(),
            contiguous_length: self.length,
        }
    }

    /// The files of a core that holds all blocks. Writes to them are dropped, except those to the `oplog`.
    pub fn storage(&self) -> Huge {
        let rest = Memory::new();
        write_header(Arc::new(rest.clone()), &self.header());
        Huge { log: self.clone(), rest }
    }

    /// Writes a core whose tree has only its roots, so that it takes no space. That is enough to open it.
    pub fn on_disk(&self, dir: &Path) {
        let disk: Arc<dyn Storage> = Arc::new(Disk::new(dir));
        write_header(disk.clone(), &self.header());
        let tree = disk.open("tree", Access::Create).expect("open").expect("made");
        for root in self.head.roots.nodes() {
            tree.write_at(root.index.0 * 40, &encode(root)).expect("write");
        }
        let bits = disk.open("bitfield", Access::Create).expect("open").expect("made");
        bits.write_at(0, &vec![255; (self.length / 8) as usize]).expect("write");
        let data = disk.open("data", Access::Create).expect("open").expect("made");
        data.set_len(self.head.byte_length()).expect("grow");
    }
}

impl NodeSource for Log {
    fn node(&self, index: NodeIndex) -> hypercore::Result<Option<Node>> {
        Ok((index.end_block() <= self.length).then(|| self.at(index)))
    }
}

fn write_header(storage: Arc<dyn Storage>, header: &Header) {
    let file = storage.open("oplog", Access::Create).expect("open").expect("made");
    let (mut oplog, _) = Oplog::open(&storage, file).expect("oplog");
    oplog.flush(header, false).expect("header");
}

fn encode(node: &Node) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&node.size.to_le_bytes());
    bytes[8..].copy_from_slice(&node.hash);
    bytes
}

/// The files of a [`Log`].
pub struct Huge {
    log: Log,
    rest: Memory,
}

impl Storage for Huge {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        let kind = match name {
            "tree" => Kind::Tree,
            "bitfield" => Kind::Bitfield,
            "data" => Kind::Data,
            _ => return self.rest.open(name, access),
        };
        Ok(Some(Arc::new(Computed { log: self.log.clone(), kind })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.rest.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("huge").join(name)
    }
}

enum Kind {
    Tree,
    Bitfield,
    Data,
}

struct Computed {
    log: Log,
    kind: Kind,
}

impl Computed {
    fn fill(&self, at: u64, out: &mut [u8]) {
        match self.kind {
            Kind::Bitfield => out.fill(255),
            Kind::Data => {
                let block = &self.log.block;
                let mut from = (at % block.len() as u64) as usize;
                let mut left = out;
                while !left.is_empty() {
                    let n = (block.len() - from).min(left.len());
                    left[..n].copy_from_slice(&block[from..from + n]);
                    left = &mut left[n..];
                    from = 0;
                }
            }
            Kind::Tree => {
                let (mut index, mut from) = (at / 40, (at % 40) as usize);
                let mut left = out;
                while !left.is_empty() {
                    let node = encode(&self.log.at(NodeIndex(index)));
                    let n = (40 - from).min(left.len());
                    left[..n].copy_from_slice(&node[from..from + n]);
                    left = &mut left[n..];
                    (index, from) = (index + 1, 0);
                }
            }
        }
    }
}

impl File for Computed {
    fn len(&self) -> io::Result<u64> {
        Ok(match self.kind {
            Kind::Tree => (2 * self.log.length - 1) * 40,
            Kind::Bitfield => (self.log.length / 8).next_multiple_of(4),
            Kind::Data => self.log.head.byte_length(),
        })
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.len()?.saturating_sub(offset).min(buf.len() as u64) as usize;
        self.fill(offset, &mut buf[..n]);
        Ok(n)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn disk_usage(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn lock(&self, _: bool) -> io::Result<bool> {
        Ok(true)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset).filter(|&at| self.len().is_ok_and(|len| at < len)))
    }
}
