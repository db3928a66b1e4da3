//! Every decoder and every state machine that receives foreign bytes is run with mutated valid inputs and with random
//! sequences of operations. A seed determines all of it.
//!
//! `HYPERCORE_FUZZ_SECONDS` sets how long the test runs and `HYPERCORE_FUZZ_SEED` the seed. A failing input is
//! printed as a line for `tests/vectors/fuzz.txt`, whose lines are run each time.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use hypercore::lowlevel::codec::Writer;

use self::decoders::*;
use self::machines::*;
use crate::common::machine::tries;
use crate::common::watchdog::Watchdog;
use crate::common::{Random, hex, unhex};

mod decoders;
mod machines;

/// A function under test that reads foreign bytes.
struct Target {
    name: &'static str,
    /// Takes any bytes and returns whether they were valid. Must not panic.
    run: fn(&[u8]) -> bool,
    /// Valid inputs to mutate. Without any, the input is a seed of 8 bytes.
    samples: fn() -> Vec<Vec<u8>>,
    cases: u64,
}

const TARGETS: &[Target] = &[
    Target { name: "codec", run: codec, samples: || vec![vec![0, 253, 1, 1, 3, 3, 1, 2, 3]; 1], cases: 4000 },
    Target { name: "key", run: key, samples: keys, cases: 3000 },
    Target { name: "node", run: node, samples: || vec![[&[9, 4][..], &[7; 32]].concat()], cases: 500 },
    Target { name: "entry", run: entry, samples: entries, cases: 4000 },
    Target { name: "header", run: header, samples: headers, cases: 4000 },
    Target { name: "manifest", run: manifest, samples: manifests, cases: 4000 },
    Target { name: "signature", run: signature, samples: signatures, cases: 2000 },
    Target { name: "message", run: message, samples: all_messages, cases: 8000 },
    Target { name: "frame", run: frames, samples: streams, cases: 4000 },
    Target { name: "batch", run: batch, samples: conversations, cases: 4000 },
    Target { name: "mux", run: hostile_mux, samples: conversations, cases: 4000 },
    Target { name: "channel", run: handshakes, samples: shaken, cases: 600 },
    Target { name: "stream", run: sealed, samples: talks, cases: 600 },
    Target { name: "proof", run: proof, samples: proofs, cases: 4000 },
    Target { name: "files", run: files, samples: all_files, cases: 1000 },
    Target { name: "muxes", run: |b| both_muxes(seed_of(b)), samples: Vec::new, cases: 40 },
    Target { name: "malicious", run: |b| malicious_peer(seed_of(b)), samples: Vec::new, cases: 400 },
    Target { name: "peers", run: |b| peers(seed_of(b)), samples: Vec::new, cases: 100 },
    Target { name: "core", run: |b| operations(seed_of(b)), samples: Vec::new, cases: 500 },
];

/// How many valid mutants of a target are kept as inputs of further mutations.
const KEPT: usize = 300;

/// The limit of one case, after which the watchdog prints its line and ends the process.
const CASE_LIMIT: Duration = Duration::from_secs(120);

/// The length to which mutants are cut.
const MAX_INPUT: usize = 24 << 10;

#[test]
fn inputs_that_failed_once_pass() {
    let lines = include_str!("../vectors/fuzz.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let (name, hex) = line.split_once('|').unwrap();
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        (target.run)(&unhex(hex));
    }
}

#[test]
fn mutated_inputs_never_panic() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut random = Random::new(number("HYPERCORE_FUZZ_SEED").unwrap_or(1));
    let until = number("HYPERCORE_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));

    let mut pools: Vec<Vec<Vec<u8>>> = TARGETS.iter().map(|target| (target.samples)()).collect();
    let mut tally = vec![Tally::default(); TARGETS.len()];
    for (target, pool) in TARGETS.iter().zip(&pools) {
        let understood = pool.iter().filter(|sample| (target.run)(sample)).count();
        assert!(understood > 0 || pool.is_empty(), "{}: no sample is good", target.name);
    }
    let good: Vec<usize> = pools.iter().map(Vec::len).collect();
    loop {
        for (at, target) in TARGETS.iter().enumerate() {
            let begun = Instant::now();
            let (pool, good, tally) = (&mut pools[at], good[at], &mut tally[at]);
            for _ in 0..tries(target.cases) {
                let bytes = if good == 0 {
                    random.next().to_le_bytes().to_vec()
                } else {
                    let within = if index(&mut random, 2) == 0 { good } else { pool.len() };
                    let [one, other] = [index(&mut random, within), index(&mut random, pool.len())];
                    mutate(&mut random, &pool[one], &pool[other])
                };
                let line = format!("{}|{}", target.name, hex(&bytes));
                let _watchdog = Watchdog::new(line.as_str(), CASE_LIMIT);
                tally.cases += 1;
                match catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))) {
                    Ok(true) if good > 0 => {
                        tally.understood += 1;
                        // A valid mutant is mutated further.
                        if pool.len() < good + KEPT {
                            pool.push(bytes);
                        } else {
                            pool[good + index(&mut random, KEPT)] = bytes;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => {
                        eprintln!("{line}");
                        tally.failed.push(line);
                    }
                }
                if until.is_some_and(|until| Instant::now() > until) {
                    break;
                }
            }
            tally.time += begun.elapsed();
        }
        if until.is_none_or(|until| Instant::now() > until) {
            break;
        }
    }
    for (target, tally) in TARGETS.iter().zip(&tally) {
        let Tally { cases, understood, time, failed } = tally;
        println!("{:>10}: {cases} cases, {understood} understood, {time:.1?}, {} failed", target.name, failed.len());
        failed.iter().for_each(|line| println!("{line}"));
    }
    assert!(tally.iter().all(|tally| tally.failed.is_empty()), "see the lines above");
}

#[derive(Clone, Default)]
struct Tally {
    cases: u64,
    understood: u64,
    time: Duration,
    failed: Vec<String>,
}

/// Any of the numbers below `n`, as an index; 0 if `n` is 0.
fn index(random: &mut Random, n: usize) -> usize {
    random.below(n as u64) as usize
}

/// A number near the limit of some encoding.
fn edge(random: &mut Random) -> u64 {
    const EDGES: [u64; 12] = [0, 1, 32, 252, 253, 4096, 1 << 16, 1 << 32, (1 << 53) - 1, 1 << 53, 1 << 63, u64::MAX];
    let near = random.below(5);
    EDGES[index(random, EDGES.len())].wrapping_add(near).wrapping_sub(2)
}

/// `bytes` after one to four random mutations.
fn mutate(random: &mut Random, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..1 + index(random, 4) {
        // Half of the mutations fall within the first 64 bytes, where lengths and flags are.
        let within = if index(random, 2) == 0 { out.len().min(64) } else { out.len() };
        let at = index(random, within);
        let end = (at + 1 + index(random, 16)).min(out.len());
        match index(random, 11) {
            0 | 1 if at < out.len() => out[at] ^= 1 << index(random, 8),
            2 if at < out.len() => out[at] = random.next() as u8,
            3 if at < out.len() => out[at] = [0, 1, 2, 252, 253, 254, 255][index(random, 7)],
            4 => drop(out.drain(at.min(end)..end)),
            5 => out.truncate(at),
            6 => {
                let mut w = Writer::new();
                match index(random, 2) {
                    0 => _ = w.uint(edge(random) % (1 << 53)),
                    _ => _ = w.bytes(&[&[255][..], &edge(random).to_le_bytes()].concat()),
                }
                let put = w.into_vec();
                let over = if index(random, 2) == 0 { at } else { (at + 1).min(out.len()) };
                out.splice(at..over, put);
            }
            7 => {
                let number = edge(random).to_le_bytes();
                let width = [1, 2, 4, 8][index(random, 4)];
                let end = (at + width).min(out.len());
                out[at..end].copy_from_slice(&number[..end - at]);
            }
            8 => {
                let piece = out[at.min(end)..end].to_vec();
                let times = 1 + index(random, 8);
                out.splice(at..at, piece.repeat(times));
            }
            9 if !other.is_empty() => {
                let from = index(random, other.len());
                let to = (from + 1 + index(random, 80)).min(other.len());
                let end = if index(random, 2) == 0 { at } else { end };
                out.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                let from = index(random, other.len());
                out.truncate(at);
                out.extend_from_slice(&other[from.min(other.len())..]);
            }
        }
        out.truncate(MAX_INPUT);
    }
    out
}

fn seed_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.into_vec()
}
