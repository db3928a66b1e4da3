//! How fast is a core opened, and what does an open core cost in memory and descriptors?

#![allow(clippy::print_stdout)]

mod common;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use common::huge::Log;
use common::{best, dir, figure, filled, floor, open, plain, process, size, time, title};

fn main() {
    if common::role().is_some() {
        return many();
    }
    let opens = size(2_000, 20);
    let (short, long) = (size(100_000, 5_000), size(10_000_000, 50_000));
    let dirs = [dir(), dir()];
    filled(dirs[0].path(), short, 100);
    Log::new(long as u64, 100).on_disk(dirs[1].path());
    title(&format!("open and close a core, {opens} times"));
    let [of_short, of_long, files] = best(
        opens,
        [
            &mut || time(|| (0..opens).for_each(|_| opened(dirs[0].path(), short))),
            &mut || time(|| (0..opens).for_each(|_| opened(dirs[1].path(), long))),
            &mut || time(|| (0..opens).for_each(|_| plain_open(dirs[0].path()))),
        ],
    );
    figure(&format!("open, {short} blocks"), of_short, "opens");
    floor("four files opened, read, closed", files, of_short);
    figure(&format!("open, {long} blocks"), of_long, "opens");
    floor("open of the short one", of_short, of_long);

    let cores = size(1_000, 10);
    title(&format!("{cores} cores that are open, of 1,000 blocks each"));
    let said = common::child("many", &[cores.to_string()]);
    let said: Vec<f64> = said.split_whitespace().map(|n| n.parse::<f64>().unwrap() / cores as f64).collect();
    let [memory, descriptors, idle_memory, idle_descriptors, get, first_get] = said[..] else { panic!("six numbers") };
    plain("memory each", &format!("{:.1} KiB", memory / 1024.0));
    plain("descriptors each", &format!("{descriptors:.1}"));
    plain("memory each, files released", &format!("{:.1} KiB", idle_memory / 1024.0));
    plain("descriptors each, files released", &format!("{idle_descriptors:.1}"));
    plain("get, one of each core", &common::span(get));
    plain("the same after their files were released", &common::span(first_get));
}

fn opened(dir: &Path, length: usize) {
    let core = open(dir);
    assert_eq!(core.len(), length as u64);
    core.close().unwrap();
}

/// The floor of opening: opens, reads and closes four files.
fn plain_open(dir: &Path) {
    let mut header = [0; 8192];
    let mut oplog = File::options().read(true).write(true).open(dir.join("oplog")).unwrap();
    let rest =
        ["tree", "bitfield", "data"].map(|name| File::options().read(true).write(true).open(dir.join(name)).unwrap());
    oplog.read_exact(&mut header).unwrap();
    rest.iter().for_each(|file| assert!(file.metadata().is_ok()));
}

/// The child process: opens cores, reads from each, and prints what they cost.
fn many() {
    let cores: usize = std::env::args().next_back().unwrap().parse().unwrap();
    let dir = dir();
    let paths: Vec<_> = (0..cores).map(|i| dir.path().join(i.to_string())).collect();
    paths.iter().for_each(|path| {
        filled(path, 1_000, 100);
    });
    let before = (process::resident().unwrap_or(0), process::descriptors().unwrap_or(0));
    let costs = || {
        let now = (process::resident().unwrap_or(0), process::descriptors().unwrap_or(0));
        format!("{} {}", now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
    };
    let open: Vec<_> = paths.iter().map(open).collect();
    let get = || time(|| open.iter().for_each(|core| assert_eq!(core.get(500).unwrap().len(), 100))).as_nanos();
    get();
    let in_use = costs();
    let release = || open.iter().for_each(|core| core.release_files().unwrap());
    release();
    let idle = costs();
    let mut bests = [u128::MAX; 2];
    for _ in 0..common::rounds() {
        release();
        bests = [bests[0].min(get()), bests[1].min(get())];
    }
    println!("{in_use} {idle} {} {}", bests[1], bests[0]);
}
