//! Hashing the leaves of a batch, on several threads if the batch is large.

use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::crypto::hash::{self, Hash};

/// Batches of at least this many bytes are hashed on several threads: for less, starting a thread costs more
/// than it saves.
const PARALLEL_BYTES: usize = 256 * 1024;

/// How many bytes of a large batch a thread takes at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Stack of a hashing thread, which makes no deep calls.
const HASH_STACK: usize = 64 * 1024;

/// Size and hash of each block.
pub(crate) fn hash_leaves(blocks: &[&[u8]]) -> Vec<(u64, Hash)> {
    let leaf = |block: &&[u8]| (block.len() as u64, hash::leaf(block));
    // A short block costs a whole compression of 128 bytes.
    let work = blocks.iter().fold(0, |work: usize, b| work.saturating_add(b.len().max(128)));
    if work < PARALLEL_BYTES || processors() < 2 {
        return blocks.iter().map(leaf).collect();
    }
    // Each thread takes the next piece when it is free: if the system starts a thread late, or not at all, the
    // others do its work.
    let pieces: Vec<&[&[u8]]> = blocks.chunks((PIECE_BYTES / (work / blocks.len())).max(1)).collect();
    let next = AtomicUsize::new(0);
    let hash_pieces = || {
        let mut hashed: Vec<(usize, Vec<(u64, Hash)>)> = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(at) else { return hashed };
            hashed.push((at, piece.iter().map(leaf).collect()));
        }
    };
    let mut hashed = std::thread::scope(|scope| {
        let others: Vec<_> = (1..processors().min(pieces.len()))
            .filter_map(|_| std::thread::Builder::new().stack_size(HASH_STACK).spawn_scoped(scope, hash_pieces).ok())
            .collect();
        let mut hashed = hash_pieces();
        for other in others {
            match other.join() {
                Ok(theirs) => hashed.extend(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        hashed
    });
    hashed.sort_unstable_by_key(|(at, _)| *at);
    hashed.into_iter().flat_map(|(_, leaves)| leaves).collect()
}

/// How many threads can run at a time. Cached, because the system reads files to answer it.
fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}
