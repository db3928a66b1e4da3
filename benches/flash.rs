//! How much does appending wear a flash card? Bytes written for each byte appended, with each durability. If `node`
//! and the modules of `tests/interop` are installed, JavaScript Hypercore 10 does the same for comparison.
//!
//! The operating system counts in `/proc/self/io`, for a process that opens a core, appends and closes it. `wchar`
//! is the bytes passed to write calls. `write_bytes` is the bytes of the pages that these calls made dirty, which
//! the disk has to write. A page that was synced and then written again counts twice.

#![allow(clippy::print_stdout)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{block, child, dir, plain, size, title};
use hypercore::{Durability, Hypercore};

/// Number of blocks, bytes in each, and blocks in a batch.
type Load = [usize; 3];

fn main() {
    if common::role().is_some() {
        return append();
    }
    if written().is_none() {
        return println!("this system does not count what is written");
    }
    let loads: [Load; 4] = [
        [size(2_000, 20), 100, 1],
        [size(100_000, 200), 100, 100],
        [size(100_000, 1_000), 100, 1_000],
        [size(1_000, 16), 64 << 10, 16],
    ];
    for load in loads {
        let [count, size, batch] = load;
        title(&format!("append {count} blocks of {size} bytes, {batch} at a time: bytes written for each of theirs"));
        let ours = ["none", "flush", "always"].map(|durability| {
            let words = load.map(|n| n.to_string());
            let written = numbers(&child("append", &[&words[..], &[durability.to_owned()]].concat()));
            show(&format!("durability {durability}"), load, written);
            written
        });
        let Some(theirs) = javascript(load) else { continue };
        show("JavaScript 10, which never syncs", load, theirs);
        for (which, (ours, theirs)) in ["calls", "pages"].into_iter().zip(ours[0].into_iter().zip(theirs)) {
            if theirs > 0 {
                plain(
                    &format!("ratio of durability none to it, {which}"),
                    &format!("{:.2}", ours as f64 / theirs as f64),
                );
            }
        }
    }
}

fn show(name: &str, [count, size, _]: Load, [calls, pages]: [u64; 2]) {
    let each = |n: u64| n as f64 / (count * size) as f64;
    plain(name, &format!("{:.2} by calls, {:.2} in pages", each(calls), each(pages)));
}

/// The child process: appends, and prints the bytes written.
fn append() {
    let arguments: Vec<String> = std::env::args().collect();
    let [.., count, size, batch, durability] = arguments.as_slice() else { panic!("four arguments") };
    let [count, size, batch] = [count, size, batch].map(|n| n.parse::<usize>().unwrap());
    let durability = match durability.as_str() {
        "none" => Durability::None,
        "flush" => Durability::Flush,
        _ => Durability::Always,
    };
    let dir = dir();
    let block = block(size);
    let before = written().unwrap();
    let core = Hypercore::options().durability(durability).open(dir.path().join("log")).unwrap();
    for _ in 0..count.div_ceil(batch) {
        core.append_batch(vec![&block; batch]).unwrap();
    }
    core.close().unwrap();
    let after = written().unwrap();
    println!("{} {}", after[0] - before[0], after[1] - before[1]);
}

/// The same with JavaScript Hypercore, if it is installed.
fn javascript([count, size, batch]: Load) -> Option<[u64; 2]> {
    const SCRIPT: &str = "
        const [module, dir, count, size, batch] = process.argv.slice(1)
        const Hypercore = require(module)
        const io = () => ['wchar', 'write_bytes'].map(name =>
            Number(require('fs').readFileSync('/proc/self/io', 'utf8').match(new RegExp('^' + name + ': (.*)', 'm'))[1]))
        const block = Buffer.from(Array.from({ length: Number(size) }, (_, i) => i * 31 % 251))
        ;(async () => {
            const before = io()
            const core = new Hypercore(dir)
            await core.ready()
            for (let done = 0; done < count; done += Number(batch)) {
                await core.append(Array(Number(batch)).fill(block))
            }
            await core.close()
            console.log(io().map((n, i) => n - before[i]).join(' '))
        })()";
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/node_modules/hypercore10");
    if !module.exists() {
        return None;
    }
    let dir = dir();
    let mut command = Command::new("node");
    command.args(["-e", SCRIPT]).arg(module).arg(dir.path().join("log"));
    let output = command.args([count, size, batch].map(|n| n.to_string())).output().ok()?;
    output.status.success().then(|| numbers(&String::from_utf8_lossy(&output.stdout)))
}

fn numbers(text: &str) -> [u64; 2] {
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    numbers.try_into().expect("two numbers")
}

/// The bytes that this process has passed to write calls so far, and those of the pages made dirty.
fn written() -> Option<[u64; 2]> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some([field("wchar:")?, field("write_bytes:")?])
}
