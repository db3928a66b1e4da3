//! How fast does a log grow? One block at a time, in batches of small blocks, in batches of large ones, and when it
//! is already long.

mod common;

use std::time::Duration;

use common::{bare, best, block, dir, figure, floor, open, size, time, title};
use hypercore::Hypercore;

fn main() {
    let count = size(10_000, 50);
    title(&format!("append: {count} blocks of 100 bytes, one at a time"));
    let payload = block(100);
    let [ours, signing, writing] = best(
        count,
        [
            &mut || appended(|core| (0..count).for_each(|_| assert!(core.append(&payload).is_ok()))),
            &mut || bare::signatures(count),
            // The block, and about as many bytes as its oplog entry.
            &mut || bare::writes(count, 100) + bare::writes(count, 180),
        ],
    );
    figure("append", ours, "blocks");
    floor("bare Ed25519", signing, ours);
    floor("plain writes of the same bytes", writing, ours);

    let (count, batch) = (size(100_000, 2_000), 1_000);
    title(&format!("append_batch: {count} blocks of 100 bytes, {batch} at a time"));
    let blocks = vec![&payload; batch];
    let [ours, hashing, writing] = best(
        count,
        [
            &mut || appended(|core| (0..count / batch).for_each(|_| assert!(core.append_batch(&blocks).is_ok()))),
            &mut || bare::leaves_and_parents(count, 100),
            // The block, its two nodes in the oplog, and the same nodes in the tree.
            &mut || bare::writes(count / batch, batch * 100) + bare::writes(count / batch, batch * 160),
        ],
    );
    figure("append_batch", ours, "blocks");
    floor("bare BLAKE2b, a leaf and a parent each", hashing, ours);
    floor("plain writes of the same bytes", writing, ours);

    let (count, batch, large) = (size(1024, 32), 16, 64 << 10);
    title(&format!("append_batch: {count} blocks of 64 KiB, {batch} at a time"));
    let payload = block(large);
    let blocks = vec![&payload; batch];
    let [ours, hashing, writing] = best(
        count,
        [
            &mut || appended(|core| (0..count / batch).for_each(|_| assert!(core.append_batch(&blocks).is_ok()))),
            &mut || bare::hashes(count, large),
            &mut || bare::writes(count, large),
        ],
    );
    figure("append_batch", ours, "blocks");
    floor("bare BLAKE2b on one thread", hashing, ours);
    floor("plain writes of the same bytes", writing, ours);
}

/// Measures `run` on a new core.
fn appended(run: impl Fn(&Hypercore)) -> Duration {
    let dir = dir();
    let core = open(dir.path());
    time(|| run(&core))
}
