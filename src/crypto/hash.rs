//! BLAKE2b-256 as Hypercore uses it: for namespaces, leaves, parents, trees, discovery keys and capabilities.

use std::sync::OnceLock;

use blake2_rfc::blake2b::Blake2b;

/// A BLAKE2b hash of 32 bytes.
pub type Hash = [u8; 32];

/// The hash of the concatenation of `parts`.
pub fn hash(parts: &[&[u8]]) -> Hash {
    finish(Blake2b::new(32), parts)
}

/// The keyed hash of the concatenation of `parts`; `key` is at most 64 bytes.
pub fn keyed_hash(key: &[u8], parts: &[&[u8]]) -> Hash {
    finish(Blake2b::with_key(32, key), parts)
}

fn finish(mut state: Blake2b, parts: &[&[u8]]) -> Hash {
    for part in parts {
        state.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(state.finalize().as_bytes());
    out
}

/// Constant number `i` of the namespace `name`: hash(hash(name) ‖ i).
fn namespace(name: &str, i: u8) -> Hash {
    hash(&[&hash(&[name.as_bytes()]), &[i]])
}

/// The constants that separate the uses of hashes and signatures.
#[derive(Debug)]
pub struct Namespaces {
    /// The prefix of signed messages.
    pub tree: Hash,
    /// For the capability of the side that opened the connection.
    pub replicate_initiator: Hash,
    /// For the capability of the side that accepted the connection.
    pub replicate_responder: Hash,
    /// The prefix of a manifest's encoding when it is hashed.
    pub manifest: Hash,
    /// The default of a signer's namespace.
    pub default_namespace: Hash,
    /// The prefix in the derivation of a block key.
    pub block_encryption: Hash,
    /// For the stream id of the side that opened the connection.
    pub stream_initiator: Hash,
    /// For the stream id of the side that accepted the connection.
    pub stream_responder: Hash,
}

/// The constants of the namespaces `hypercore` and `hyperswarm/secret-stream`.
pub fn namespaces() -> &'static Namespaces {
    static CACHE: OnceLock<Namespaces> = OnceLock::new();
    CACHE.get_or_init(|| Namespaces {
        tree: namespace("hypercore", 0),
        replicate_initiator: namespace("hypercore", 1),
        replicate_responder: namespace("hypercore", 2),
        manifest: namespace("hypercore", 3),
        default_namespace: namespace("hypercore", 4),
        block_encryption: namespace("hypercore", 5),
        stream_initiator: namespace("hyperswarm/secret-stream", 0),
        stream_responder: namespace("hyperswarm/secret-stream", 1),
    })
}

/// The hash of a block: hash(00 ‖ u64 size ‖ block).
pub fn leaf(block: &[u8]) -> Hash {
    let size = (block.len() as u64).to_le_bytes();
    let mut input = [0; 128];
    input[1..9].copy_from_slice(&size);
    // Hashing a small block as one piece is faster.
    match input.get_mut(9..9 + block.len()) {
        Some(room) => {
            room.copy_from_slice(block);
            hash(&[&input[..9 + block.len()]])
        }
        None => hash(&[&input[..9], block]),
    }
}

/// The hash of an inner node: hash(01 ‖ u64 size of both ‖ left ‖ right).
pub fn parent(size: u64, left: &Hash, right: &Hash) -> Hash {
    let mut input = [0; 73];
    input[0] = 1;
    input[1..9].copy_from_slice(&size.to_le_bytes());
    input[9..41].copy_from_slice(left);
    input[41..].copy_from_slice(right);
    hash(&[&input])
}

/// The hash of a tree: hash(02 ‖ for each root: hash ‖ u64 index ‖ u64 size).
pub fn tree<'a>(roots: impl IntoIterator<Item = (&'a Hash, u64, u64)>) -> Hash {
    let mut state = Blake2b::new(32);
    state.update(&[2]);
    for (hash, index, size) in roots {
        state.update(hash);
        state.update(&index.to_le_bytes());
        state.update(&size.to_le_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(state.finalize().as_bytes());
    out
}

/// The discovery key: a keyed hash by which peers find each other without revealing the key.
pub fn discovery_key(key: &[u8; 32]) -> Hash {
    keyed_hash(key, &[b"hypercore"])
}

/// The capability that proves to the peer of a connection that this side knows the key of a core.
pub fn capability(is_initiator: bool, key: &[u8; 32], handshake_hash: &[u8; 64]) -> Hash {
    let ns = namespaces();
    let role = if is_initiator { &ns.replicate_initiator } else { &ns.replicate_responder };
    keyed_hash(handshake_hash, &[role, key])
}

/// The id that one side sends at the start of its encrypted stream.
pub fn stream_id(is_initiator: bool, handshake_hash: &[u8; 64]) -> Hash {
    let ns = namespaces();
    keyed_hash(handshake_hash, &[if is_initiator { &ns.stream_initiator } else { &ns.stream_responder }])
}
