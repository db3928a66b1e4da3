//! How long do other threads wait while one thread reads blocks from a slow disk? One thread gets cold blocks, one
//! appends, and a third measures `len`, `has` and `get` of blocks in memory.

mod common;

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{block, plain, random, size, span, time, title};
use hypercore::{Access, Durability, File, Hypercore, Memory, Storage};

fn main() {
    let blocks = size(100_000, 500);
    let memory = Memory::new();
    let options = || Hypercore::options().durability(Durability::None);
    let core = options().open_in(memory.clone()).expect("a core");
    core.append_batch(vec![block(100); blocks]).expect("append");
    core.close().expect("close");
    for (what, look) in [
        ("gets cold blocks", cold_gets as fn(&Hypercore, u64, &AtomicBool)),
        ("looks for blocks that are held", cold_searches),
    ] {
        title(&format!("one thread {what}, {} a read, of {blocks} blocks; another appends", span(nanos(delay()))));
        let core = options().open_in(Slow(memory.clone())).expect("a core");
        measure(&core, blocks as u64, look);
    }
}

/// The time that each read of the slow thread takes.
fn delay() -> Duration {
    Duration::from_millis(size(5, 1) as u64)
}

/// Blocks the thread for `time`, as a slow disk would.
fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

fn cold_gets(core: &Hypercore, blocks: u64, done: &AtomicBool) {
    let mut random = random(0x9e37_79b9);
    while !done.load(Ordering::Relaxed) {
        core.get(random(blocks)).expect("a block");
    }
}

fn cold_searches(core: &Hypercore, blocks: u64, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        assert!(core.has_range(0..blocks).expect("bits"));
        core.seek(blocks * 50).expect("a place");
    }
}

fn measure(core: &Hypercore, blocks: u64, look: fn(&Hypercore, u64, &AtomicBool)) {
    let hot = core.append(block(100)).expect("append").length - 1;
    let done = AtomicBool::new(false);
    let (mut len, mut has, mut get, mut append) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    thread::scope(|s| {
        s.spawn(|| {
            SLOW.set(true);
            look(core, blocks, &done);
        });
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                append.push(time(|| core.append(block(100)).expect("append")));
                pause(Duration::from_millis(1));
            }
        });
        let end = Instant::now() + Duration::from_millis(size(4000, 60) as u64);
        while Instant::now() < end {
            len.push(time(|| core.len()));
            has.push(time(|| assert!(core.has(hot).expect("a bit"))));
            get.push(time(|| core.get(hot).expect("a block")));
            pause(Duration::from_micros(500));
        }
        done.store(true, Ordering::Relaxed);
    });
    for (name, times) in [("len", len), ("has, in memory", has), ("get, in memory", get), ("append", append)] {
        let mut times = times;
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        let by_floor = nanos(most) / nanos(delay());
        let most = format!("{}, {by_floor:.3} of the floor", span(nanos(most)));
        plain(&format!("{name}: median"), &span(nanos(median)));
        plain(&format!("{name}: longest"), &most);
    }
    plain("floor: one read of the slow thread", &span(nanos(delay())));
}

thread_local! {
    /// Whether each read of this thread takes as long as one from a slow disk.
    static SLOW: Cell<bool> = const { Cell::new(false) };
}

/// Files in memory. For the thread that sets [`SLOW`], each read takes [`delay`].
struct Slow(Memory);

struct SlowFile(Arc<dyn File>);

impl Storage for Slow {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        Ok(self.0.open(name, access)?.map(|file| Arc::new(SlowFile(file)) as Arc<dyn File>))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

impl File for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if SLOW.get() {
            pause(delay());
        }
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.0.disk_usage()
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.0.lock(exclusive)
    }
}
