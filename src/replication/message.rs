//! The messages of the replication protocol, and their bytes.
//!
//! ```text
//! handshake    flags (1 seeks), capability 32
//! 0 sync       flags (1 can upgrade, 2 uploading, 4 downloading, 8 has manifest), fork, length, remote length
//! 1 request    flags (1 block, 2 hash, 4 seek, 8 upgrade, 16 manifest, 32 priority), id, fork, then what is flagged:
//!              block or hash: index, nodes · seek: bytes, padding · upgrade: start, length · priority
//! 2 cancel     request id
//! 3 data       flags (as of a request), request id, fork, then what is flagged:
//!              block: index, buffer value, nodes · hash: index, nodes · seek: bytes, nodes
//!              upgrade: start, length, nodes, additional nodes, buffer signature · manifest
//! 4 no-data    request id
//! 5 want       start, length
//! 6 unwant     start, length
//! 7 bitfield   start, array of u32
//! 8 range      flags (1 drop, 2 length is one), start, [length]
//! 9 extension  string name, the rest: message
//! ```
//!
//! All integers are compact (see `codec`). Unknown flags, and bytes after the known fields, are ignored: newer
//! versions of the protocol add some.

use crate::codec::{Reader, Writer, uint_len};
use crate::crypto::hash::Hash;
use crate::index::NodeIndex;
use crate::manifest::Manifest;
use crate::merkle::{
    self, BlockProof, HashProof, NodeRequest, Proof, SeekProof, SeekRequest, UpgradeProof, UpgradeRequest,
};
use crate::node::Node;
use crate::{Error, Result};

/// The number of blocks in a segment, the unit in which a peer's blocks are asked for by `Want`.
pub const SEGMENT: u64 = 2_097_152;

/// The most words of a bitfield message: those of one segment, as JavaScript sends them.
pub const MAX_BITFIELD_WORDS: usize = (SEGMENT / 32) as usize;

/// The most nodes in one list of a proof: a path has at most 53, and connecting two lengths takes at most two paths.
pub const MAX_NODES: usize = 128;

/// The first message of each side, sent inside the mux's open message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// Whether the sender answers requests with a seek.
    pub seeks: bool,
    /// Proves knowledge of the core's key; see [`crate::lowlevel::crypto::hash::capability`].
    pub capability: Hash,
}

/// A message of the protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The state of the sender's log.
    Sync(Sync),
    /// Requests a block, nodes or a longer head.
    Request(Request),
    /// The request with this id needs no response any more.
    Cancel(u64),
    /// The response to a request.
    Data(Box<Data>),
    /// The request with this id cannot be answered.
    NoData(u64),
    /// Asks which blocks of a span the receiver has.
    Want(Span),
    /// Cancels a `Want`.
    Unwant(Span),
    /// Which blocks of a span the sender has.
    Bitfield(Bitfield),
    /// Blocks that the sender has, or no longer has.
    Range(Range),
    /// A message of an extension.
    Extension(Extension),
}

/// The state of the sender's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sync {
    /// The log's fork.
    pub fork: u64,
    /// The log's length in blocks.
    pub length: u64,
    /// The receiver's length as far as the sender knows it; 0 if their forks differ.
    pub remote_length: u64,
    /// Whether the sender can prove its head to a peer of length `remote_length`.
    pub can_upgrade: bool,
    /// Whether the sender answers requests.
    pub uploading: bool,
    /// Whether the sender wants more blocks.
    pub downloading: bool,
    /// Whether the sender can send the manifest.
    pub has_manifest: bool,
}

/// Requests a block, nodes or a longer head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// The sender's number for the request; 0 requests a proof of the whole tree, to find a conflict.
    pub id: u64,
    /// The fork that the request is about.
    pub fork: u64,
    /// The block, nodes, seek or upgrade requested.
    pub wanted: merkle::Request,
    /// Whether the manifest is requested as well.
    pub manifest: bool,
    /// A request with a priority above 0 is answered before those with 0.
    pub priority: u64,
}

/// The response to a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Data {
    /// The request's number.
    pub request: u64,
    /// The requested block or nodes, with their proof.
    pub proof: Proof,
}

/// A span of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first block.
    pub start: u64,
    /// The number of blocks.
    pub length: u64,
}

/// Which blocks of a span the sender has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitfield {
    /// The block of the first bit.
    pub start: u64,
    /// One bit a block, the lowest bit first.
    pub words: Vec<u32>,
}

/// Blocks that the sender has, or no longer has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Whether the sender no longer has them.
    pub drop: bool,
    /// The first block.
    pub start: u64,
    /// The number of blocks.
    pub length: u64,
}

/// A message of an extension.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extension {
    /// The extension's name; empty if it is that of the previous extension message.
    pub name: String,
    /// The extension's own bytes.
    pub message: Vec<u8>,
}

/// The flags of requests and data.
mod part {
    pub const BLOCK: u64 = 1;
    pub const HASH: u64 = 2;
    pub const SEEK: u64 = 4;
    pub const UPGRADE: u64 = 8;
    pub const MANIFEST: u64 = 16;
    pub const PRIORITY: u64 = 32;
}

fn flags(flags: &[(bool, u64)]) -> u64 {
    flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

impl Handshake {
    /// Writes flags and capability.
    pub fn encode(&self, w: &mut Writer) {
        w.uint(self.seeks.into()).bytes(&self.capability);
    }

    /// Reads a handshake.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Handshake { seeks: r.uint()? & 1 != 0, capability: r.fixed()? })
    }
}

impl Message {
    /// The message type: its number on the channel.
    pub fn kind(&self) -> u64 {
        match self {
            Message::Sync(_) => 0,
            Message::Request(_) => 1,
            Message::Cancel(_) => 2,
            Message::Data(_) => 3,
            Message::NoData(_) => 4,
            Message::Want(_) => 5,
            Message::Unwant(_) => 6,
            Message::Bitfield(_) => 7,
            Message::Range(_) => 8,
            Message::Extension(_) => 9,
        }
    }

    /// Writes the message, without its type.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Message::Sync(sync) => sync.encode(w),
            Message::Request(request) => request.encode(w),
            Message::Cancel(request) | Message::NoData(request) => {
                w.uint(*request);
            }
            Message::Data(data) => data.encode(w),
            Message::Want(span) | Message::Unwant(span) => {
                w.uint(span.start).uint(span.length);
            }
            Message::Bitfield(bitfield) => {
                w.uint(bitfield.start).array(&bitfield.words, |w, word| {
                    w.u32(*word);
                });
            }
            Message::Range(range) => range.encode(w),
            Message::Extension(extension) => {
                w.string(&extension.name).bytes(&extension.message);
            }
        }
    }

    /// Reads a message of type `kind`; none if the type is unknown, as newer versions may send.
    pub fn decode(kind: u64, payload: &[u8]) -> Result<Option<Self>> {
        let r = &mut Reader::new(payload);
        Ok(Some(match kind {
            0 => Message::Sync(Sync::decode(r)?),
            1 => Message::Request(Request::decode(r)?),
            2 => Message::Cancel(r.uint()?),
            3 => Message::Data(Box::new(Data::decode(r)?)),
            4 => Message::NoData(r.uint()?),
            5 => Message::Want(Span { start: r.uint()?, length: r.uint()? }),
            6 => Message::Unwant(Span { start: r.uint()?, length: r.uint()? }),
            7 => Message::Bitfield(Bitfield::decode(r)?),
            8 => Message::Range(Range::decode(r)?),
            9 => Message::Extension(Extension { name: r.string()?.to_owned(), message: r.raw().to_vec() }),
            _ => return Ok(None),
        }))
    }
}

impl Sync {
    fn encode(&self, w: &mut Writer) {
        w.uint(flags(&[(self.can_upgrade, 1), (self.uploading, 2), (self.downloading, 4), (self.has_manifest, 8)]));
        w.uint(self.fork).uint(self.length).uint(self.remote_length);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let flags = r.uint()?;
        Ok(Sync {
            fork: r.uint()?,
            length: r.uint()?,
            remote_length: r.uint()?,
            can_upgrade: flags & 1 != 0,
            uploading: flags & 2 != 0,
            downloading: flags & 4 != 0,
            has_manifest: flags & 8 != 0,
        })
    }
}

impl Request {
    fn encode(&self, w: &mut Writer) {
        let wanted = &self.wanted;
        w.uint(flags(&[
            (wanted.block.is_some(), part::BLOCK),
            (wanted.hash.is_some(), part::HASH),
            (wanted.seek.is_some(), part::SEEK),
            (wanted.upgrade.is_some(), part::UPGRADE),
            (self.manifest, part::MANIFEST),
            (self.priority != 0, part::PRIORITY),
        ]));
        w.uint(self.id).uint(self.fork);
        for node in [wanted.block, wanted.hash].into_iter().flatten() {
            w.uint(node.index).uint(node.nodes);
        }
        if let Some(seek) = wanted.seek {
            w.uint(seek.bytes).uint(seek.padding);
        }
        if let Some(upgrade) = wanted.upgrade {
            w.uint(upgrade.start).uint(upgrade.length);
        }
        if self.priority != 0 {
            w.uint(self.priority);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let flags = r.uint()?;
        let mut request =
            Request { id: r.uint()?, fork: r.uint()?, manifest: flags & part::MANIFEST != 0, ..Self::default() };
        let node = |r: &mut Reader<'_>| -> Result<_> { Ok(Some(NodeRequest { index: r.uint()?, nodes: r.uint()? })) };
        let wanted = &mut request.wanted;
        if flags & part::BLOCK != 0 {
            wanted.block = node(r)?;
        }
        if flags & part::HASH != 0 {
            wanted.hash = node(r)?;
        }
        if flags & part::SEEK != 0 {
            wanted.seek = Some(SeekRequest { bytes: r.uint()?, padding: r.uint()? });
        }
        if flags & part::UPGRADE != 0 {
            wanted.upgrade = Some(UpgradeRequest { start: r.uint()?, length: r.uint()? });
        }
        if flags & part::PRIORITY != 0 {
            request.priority = r.uint()?;
        }
        Ok(request)
    }
}

impl Data {
    fn encode(&self, w: &mut Writer) {
        let proof = &self.proof;
        w.uint(flags(&[
            (proof.block.is_some(), part::BLOCK),
            (proof.hash.is_some(), part::HASH),
            (proof.seek.is_some(), part::SEEK),
            (proof.upgrade.is_some(), part::UPGRADE),
            (proof.manifest.is_some(), part::MANIFEST),
        ]));
        w.uint(self.request).uint(proof.fork);
        if let Some(block) = &proof.block {
            w.uint(block.index).buffer(&block.value);
            encode_nodes(w, &block.nodes);
        }
        if let Some(hash) = &proof.hash {
            w.uint(hash.index.0);
            encode_nodes(w, &hash.nodes);
        }
        if let Some(seek) = &proof.seek {
            w.uint(seek.bytes);
            encode_nodes(w, &seek.nodes);
        }
        if let Some(upgrade) = &proof.upgrade {
            w.uint(upgrade.start).uint(upgrade.length);
            encode_nodes(w, &upgrade.nodes);
            encode_nodes(w, &upgrade.additional_nodes);
            w.buffer(&upgrade.signature);
        }
        if let Some(manifest) = &proof.manifest {
            manifest.encode(w);
        }
    }

    /// An upper bound of the message's bytes, type included, for a block of `length` bytes.
    pub fn encoded_len(&self, length: usize) -> usize {
        // A node's index and size take at most 9 bytes each, as do the few integers around the lists.
        let proof = &self.proof;
        let nodes = proof.block.as_ref().map_or(0, |p| p.nodes.len())
            + proof.hash.as_ref().map_or(0, |p| p.nodes.len())
            + proof.seek.as_ref().map_or(0, |p| p.nodes.len())
            + proof.upgrade.as_ref().map_or(0, |p| p.nodes.len() + p.additional_nodes.len());
        let signature = proof.upgrade.as_ref().map_or(0, |p| p.signature.len());
        let manifest = proof.manifest.as_ref().map_or(0, |m| 128 + 65 * m.signers.len());
        nodes * 50 + signature + manifest + length + uint_len(length as u64) + 16 * 9
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let flags = r.uint()?;
        let mut data = Data { request: r.uint()?, proof: Proof { fork: r.uint()?, ..Proof::default() } };
        let proof = &mut data.proof;
        if flags & part::BLOCK != 0 {
            proof.block = Some(BlockProof { index: r.uint()?, value: r.buffer()?.to_vec(), nodes: decode_nodes(r)? });
        }
        if flags & part::HASH != 0 {
            proof.hash = Some(HashProof { index: NodeIndex(r.uint()?), nodes: decode_nodes(r)? });
        }
        if flags & part::SEEK != 0 {
            proof.seek = Some(SeekProof { bytes: r.uint()?, nodes: decode_nodes(r)? });
        }
        if flags & part::UPGRADE != 0 {
            proof.upgrade = Some(UpgradeProof {
                start: r.uint()?,
                length: r.uint()?,
                nodes: decode_nodes(r)?,
                additional_nodes: decode_nodes(r)?,
                signature: r.buffer()?.to_vec(),
            });
        }
        if flags & part::MANIFEST != 0 {
            proof.manifest = Some(Manifest::decode(r)?);
        }
        Ok(data)
    }
}

impl Range {
    fn encode(&self, w: &mut Writer) {
        w.uint(flags(&[(self.drop, 1), (self.length == 1, 2)])).uint(self.start);
        if self.length != 1 {
            w.uint(self.length);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let flags = r.uint()?;
        Ok(Range { drop: flags & 1 != 0, start: r.uint()?, length: if flags & 2 != 0 { 1 } else { r.uint()? } })
    }
}

impl Bitfield {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let start = r.uint()?;
        let words = r.count(4)?;
        if words > MAX_BITFIELD_WORDS {
            return Err(Error::decoding(format!(
                "a bitfield message has {words} words; the limit is {MAX_BITFIELD_WORDS}"
            )));
        }
        let bytes = r.bytes(words * 4)?;
        let words = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Bitfield { start, words })
    }
}

fn encode_nodes(w: &mut Writer, nodes: &[Node]) {
    w.array(nodes, |w, node| node.encode(w));
}

fn decode_nodes(r: &mut Reader<'_>) -> Result<Vec<Node>> {
    let count = r.clone().uint()?;
    if count > MAX_NODES as u64 {
        return Err(Error::decoding(format!("a proof lists {count} nodes; the limit is {MAX_NODES}")));
    }
    r.array(Node::MIN_ENCODED, Node::decode)
}
