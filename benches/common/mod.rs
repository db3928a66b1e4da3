//! Measuring and printing for all benches: a figure beside its floor from the same run.
//!
//! The ratio of both depends less on the machine than the figure does. A figure and its floor are measured
//! in turns, several times, and the best time of each counts, because other work on the machine can only
//! make a run slower.

#![allow(dead_code, unreachable_pub, clippy::print_stdout)]

pub mod huge;

use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use hypercore::lowlevel::crypto::hash;
use hypercore::{Durability, Hypercore, KeyPair};

/// Whether this is a smoke run, which only shows that the bench runs.
pub fn smoke() -> bool {
    std::env::var_os("HYPERCORE_BENCH_SMOKE").is_some_and(|value| value != "0")
}

/// Whether to run the part `name`: all parts run, unless the command line names some, as in
/// `cargo bench --bench replicate -- live`.
pub fn chosen(name: &str) -> bool {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    named.is_empty() || named.iter().any(|argument| argument == name)
}

/// `full`, or `tiny` in a smoke run.
pub fn size(full: usize, tiny: usize) -> usize {
    if smoke() { tiny } else { full }
}

/// The number of rounds of each measurement.
pub fn rounds() -> usize {
    size(5, 1)
}

/// A figure: the time that `count` operations took.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub count: f64,
    pub time: Duration,
}

impl Figure {
    pub fn new(count: usize, time: Duration) -> Self {
        Figure { count: count as f64, time }
    }

    pub fn per_second(&self) -> f64 {
        self.count / self.time.as_secs_f64().max(1e-9)
    }

    pub fn nanos_each(&self) -> f64 {
        self.time.as_nanos() as f64 / self.count
    }
}

/// The best time of each of `runs` over all rounds. Each round runs all of them, and each returns the time it took.
pub fn best<const N: usize>(count: usize, mut runs: [&mut dyn FnMut() -> Duration; N]) -> [Figure; N] {
    let mut times = [Duration::MAX; N];
    for _ in 0..rounds() {
        for (time, run) in times.iter_mut().zip(&mut runs) {
            *time = run().min(*time);
        }
    }
    times.map(|time| Figure::new(count, time))
}

/// Measures `run`.
pub fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

/// Prints a heading for the figures that follow.
pub fn title(text: &str) {
    println!("\n{text}");
}

/// Prints a figure.
pub fn figure(name: &str, figure: Figure, unit: &str) {
    println!("  {name:<44} {:>12} {unit}/s   {:>9} each", group(figure.per_second()), span(figure.nanos_each()));
}

/// Prints a floor, and the ratio of the figure's time to the floor's.
pub fn floor(name: &str, floor: Figure, ours: Figure) {
    let ratio = ours.nanos_each() / floor.nanos_each();
    let name = format!("floor: {name}");
    println!(
        "    {name:<42} {:>12} /s   {:>12} each   ratio {ratio:.2}",
        group(floor.per_second()),
        span(floor.nanos_each())
    );
}

/// Prints a figure that is not a rate.
pub fn plain(name: &str, value: &str) {
    println!("  {name:<44} {value:>12}");
}

fn group(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub fn span(nanos: f64) -> String {
    match nanos {
        n if n < 1e4 => format!("{n:.0} ns"),
        n if n < 1e7 => format!("{:.1} µs", n / 1e3),
        n => format!("{:.1} ms", n / 1e6),
    }
}

/// A directory that is deleted when the value is dropped.
pub fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the bench")
}

/// A core that never syncs, like JavaScript Hypercore.
pub fn open(dir: impl AsRef<Path>) -> Hypercore {
    Hypercore::options().durability(Durability::None).open(dir).expect("a core")
}

/// Creates and closes a core of `count` blocks of `size` bytes.
pub fn filled(dir: &Path, count: usize, size: usize) -> hypercore::Key {
    let core = open(dir);
    let block = block(size);
    let batch = (16 << 20) / size.max(64);
    let mut left = count;
    while left > 0 {
        let n = left.min(batch.clamp(1, 10_000));
        core.append_batch(vec![&block; n]).expect("append");
        left -= n;
    }
    let key = core.key();
    core.close().expect("close");
    key
}

/// A block whose bytes differ.
pub fn block(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

/// Pseudorandom numbers below `end`.
pub fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed | 1;
    move |end| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end.max(1)
    }
}

/// The work that the floors measure.
pub mod bare {
    use super::*;

    /// `count` Ed25519 signatures of 112 bytes, as many as are signed for a head.
    pub fn signatures(count: usize) -> Duration {
        let pair = KeyPair::from_seed(&[7; 32]);
        time(|| {
            (0..count).for_each(|i| {
                black_box(pair.sign(&[i as u8; 112]));
            })
        })
    }

    /// `count` BLAKE2b hashes of `size` bytes.
    pub fn hashes(count: usize, size: usize) -> Duration {
        let block = block(size);
        time(|| {
            (0..count).for_each(|_| {
                black_box(hash::hash(&[black_box(&block)]));
            })
        })
    }

    /// The two hashes that each block of `size` bytes needs: its leaf, and one parent, because a tree has about as
    /// many parents as leaves.
    pub fn leaves_and_parents(count: usize, size: usize) -> Duration {
        let block = block(size);
        time(|| {
            for _ in 0..count {
                let leaf = hash::leaf(black_box(&block));
                black_box(hash::parent(size as u64, &leaf, &leaf));
            }
        })
    }

    /// Writes `count` buffers of `size` bytes to a new file, one after the other.
    pub fn writes(count: usize, size: usize) -> Duration {
        let dir = dir();
        let block = block(size);
        let mut file = std::fs::File::create(dir.path().join("plain")).expect("a file");
        time(|| (0..count).for_each(|_| file.write_all(&block).expect("write")))
    }
}

/// Memory and descriptors of this process, as Linux reports them.
pub mod process {
    fn status(field: &str) -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    }

    /// The peak resident memory in bytes.
    pub fn peak() -> Option<u64> {
        status("VmHWM")
    }

    /// The resident memory in bytes, mapped files included.
    pub fn resident() -> Option<u64> {
        status("VmRSS")
    }

    /// The number of open descriptors.
    pub fn descriptors() -> Option<usize> {
        Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
    }

    /// A number of bytes with its unit.
    pub fn bytes(n: Option<u64>) -> String {
        n.map_or("not known here".into(), |n| format!("{:.1} MB", n as f64 / 1e6))
    }
}

/// Runs this bench again as a child process, in which [`role`] returns `role`. Returns what the child printed.
pub fn child(role: &str, arguments: &[String]) -> String {
    let exe = std::env::current_exe().expect("own path");
    let output = std::process::Command::new(exe)
        .env("HYPERCORE_BENCH_ROLE", role)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("a child process");
    assert!(output.status.success(), "the child process for {role} failed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The role of this process, if it is a child.
pub fn role() -> Option<String> {
    std::env::var("HYPERCORE_BENCH_ROLE").ok()
}

/// Prints a chart of costs as bars.
pub fn chart(name: &str, rows: &[(u64, f64)]) {
    let most = rows.iter().map(|(_, nanos)| *nanos).fold(0.0, f64::max);
    println!("\n  {name}");
    for (length, nanos) in rows {
        let bar = "#".repeat((nanos / most * 40.0).ceil().max(1.0) as usize);
        println!("  {length:>13}  {:>9}  {bar}", span(*nanos));
    }
}
