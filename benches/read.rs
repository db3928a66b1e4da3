//! How fast are blocks read: at random by one thread and by two, and in order?

mod common;

use std::fs::File;
use std::hint::black_box;
use std::time::Duration;

use common::{best, dir, figure, filled, floor, open, random, size, time, title};
use hypercore::{Hypercore, ReadOptions};

fn main() {
    let (blocks, gets) = (size(100_000, 500), size(100_000, 500));
    let (dir, other) = (dir(), common::dir());
    filled(dir.path(), blocks, 100);
    filled(other.path(), blocks, 100);
    title(&format!("get: {gets} random blocks of {blocks} of 100 bytes, reopened"));
    let core = open(dir.path());
    let unmapped = Hypercore::options().map_limit(0).open(other.path()).unwrap();
    let file = File::open(dir.path().join("data")).unwrap();
    let [one, two, without, pread, hashing] = best(
        gets,
        [
            &mut || get(&core, gets, blocks as u64, 1),
            &mut || {
                time(|| {
                    std::thread::scope(|scope| {
                        for seed in 0..2 {
                            let core = &core;
                            scope.spawn(move || get(core, gets / 2, blocks as u64, seed));
                        }
                    });
                })
            },
            &mut || get(&unmapped, gets, blocks as u64, 1),
            &mut || pread(&file, gets, blocks as u64),
            &mut || common::bare::hashes(gets, 109),
        ],
    );
    figure("get, one thread", one, "blocks");
    floor("plain read of the same bytes", pread, one);
    floor("bare BLAKE2b of the block", hashing, one);
    figure("get, two threads", two, "blocks");
    floor("get, one thread", one, two);
    figure("get, one thread, map_limit(0)", without, "blocks");
    floor("get, one thread", one, without);

    title(&format!("in order: {blocks} blocks of 100 bytes"));
    let [has, stream] = best(
        blocks,
        [&mut || time(|| (0..blocks as u64).for_each(|i| assert!(core.has(i).unwrap()))), &mut || {
            time(|| {
                let stream = core.read_stream(ReadOptions::new()).unwrap();
                assert_eq!(stream.map(|b| b.unwrap().len()).sum::<usize>(), blocks * 100);
            })
        }],
    );
    figure("has", has, "blocks");
    figure("read_stream", stream, "blocks");
}

fn get(core: &Hypercore, count: usize, blocks: u64, seed: u64) -> Duration {
    let mut random = random(0x9e37_79b9 + seed);
    time(|| (0..count).for_each(|_| drop(black_box(core.get(random(blocks)).unwrap()))))
}

fn pread(file: &File, count: usize, blocks: u64) -> Duration {
    let mut random = random(0x9e37_79b9);
    time(|| {
        for _ in 0..count {
            let mut block = vec![0; 100];
            read_at(file, random(blocks) * 100, &mut block);
            black_box(block);
        }
    })
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, block: &mut [u8]) {
    std::os::unix::fs::FileExt::read_exact_at(file, block, offset).unwrap();
}

#[cfg(windows)]
fn read_at(file: &File, offset: u64, block: &mut [u8]) {
    std::os::windows::fs::FileExt::seek_read(file, block, offset).unwrap();
}
