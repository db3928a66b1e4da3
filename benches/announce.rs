//! How fast does a log grow while a peer follows it, and when does the peer hear of an append? Measured with each
//! durability, on the file system of `TMPDIR`. With `Flush` and `Always` a peer hears only of what is on the disk.

#![allow(clippy::print_stdout)]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{block, dir, size, time, title};
use hypercore::net::{Role, pipe};
use hypercore::{Durability, Hypercore, Memory};

fn main() {
    let (many, few) = (size(5_000, 20), size(200, 5));
    title(&format!(
        "append: {many} blocks of 100 bytes to a log that a peer follows; {few} more, each waited for by the peer"
    ));
    let bare = bare_syncs(few);
    println!("  two bare fdatasync of growing files              {:>9.1} us each pair", micros(bare));
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        let many = if durability == Durability::Always { few } else { many };
        let dir = dir();
        let core = Hypercore::options().durability(durability).open(dir.path()).unwrap();
        core.append("the files are made").unwrap();
        let payload = block(100);
        let alone = time(|| (0..many).for_each(|_| assert!(core.append(&payload).is_ok())));
        let follower = Follower::of(&core);
        let followed = time(|| (0..many).for_each(|_| assert!(core.append(&payload).is_ok())));
        follower.hears_of(core.len());
        let mut waits: Vec<Duration> = (0..few)
            .map(|_| {
                core.append(&payload).unwrap();
                let returned = Instant::now();
                follower.hears_of(core.len());
                returned.elapsed()
            })
            .collect();
        waits.sort_unstable();
        let median = waits[waits.len() / 2];
        println!(
            "  {durability:8?} {:>9.0}/s alone {:>9.0}/s followed ({:.2})   the peer hears after {:>9.1} us ({:.2} of the pair), at most {:.1}",
            many as f64 / alone.as_secs_f64(),
            many as f64 / followed.as_secs_f64(),
            alone.as_secs_f64() / followed.as_secs_f64(),
            micros(median),
            median.as_secs_f64() / bare.as_secs_f64(),
            micros(waits[waits.len() - 1]),
        );
    }
}

/// A reader of `core` in this process.
struct Follower {
    core: Hypercore,
    grown: Receiver<()>,
}

impl Follower {
    fn of(writer: &Hypercore) -> Self {
        let core = Hypercore::options().key(writer.key()).open_in(Memory::new()).unwrap();
        let (tell, grown) = channel();
        core.on_append(move || _ = tell.send(())).forever();
        let (here, there) = pipe();
        writer.replicate(here, Role::Responder).unwrap();
        core.replicate(there, Role::Initiator).unwrap();
        let follower = Follower { core, grown };
        follower.hears_of(writer.len());
        follower
    }

    fn hears_of(&self, length: u64) {
        while self.core.len() < length {
            self.grown.recv().unwrap();
        }
    }
}

/// The time the disk takes to sync two files that each grew by a block.
fn bare_syncs(count: usize) -> Duration {
    let dir = dir();
    let files = ["a", "b"].map(|name| File::create(dir.path().join(name)).unwrap());
    let each = block(180);
    let mut times: Vec<Duration> = (0..count)
        .map(|i| {
            time(|| {
                for file in &files {
                    file.write_all_at(&each, (i * each.len()) as u64).unwrap();
                    file.sync_data().unwrap();
                }
            })
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
