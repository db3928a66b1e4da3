//! Property test of the simulated network: after random operations in any order all peers have equal logs, within a
//! bounded number of steps.

use std::time::Duration;

use hypercore::Download;
use hypercore::lowlevel::replication::WaiterId;
use quickcheck::{Arbitrary, Gen, QuickCheck};

use crate::common::machine::SLOW;
use crate::simulated_core::{Core, block};
use crate::simulated_network::{Net, all, assert_same, download};

#[derive(Clone, Debug)]
pub enum Op {
    Append(u8),
    Truncate(u8),
    Clear(u8, u8, u8),
    Connect(u8, u8, u16, u8),
    Cut(u8),
    Get(u8, u8),
    /// Waits for a block, clears it as soon as it arrives, and downloads it again with its neighbours.
    Lose(u8, u8),
    Range(u8, u8, u8),
    Seek(u8, u16),
    Update(u8),
    Cancel(u8),
    Pass(u16),
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let byte = |g: &mut Gen| u8::arbitrary(g);
        match byte(g) % 20 {
            0..=3 => Op::Append(byte(g)),
            4 => Op::Truncate(byte(g)),
            5 => Op::Clear(byte(g), byte(g), byte(g)),
            6..=8 => Op::Connect(byte(g), byte(g), u16::arbitrary(g), byte(g)),
            9 => Op::Cut(byte(g)),
            10..=11 => Op::Get(byte(g), byte(g)),
            12 => Op::Range(byte(g), byte(g), byte(g)),
            13 => Op::Seek(byte(g), u16::arbitrary(g)),
            14 => Op::Update(byte(g)),
            15 => Op::Cancel(byte(g)),
            16 => Op::Lose(byte(g), byte(g)),
            _ => Op::Pass(u16::arbitrary(g)),
        }
    }
}

/// Runs the operations between this many hosts; the signature is what QuickCheck and the fuzz target call.
pub fn run(hosts: u8, ops: Vec<Op>) -> bool {
    run_on(Links::ComeAndGo, hosts, ops)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    /// At the end new fast links replace all others, and every host downloads everything.
    ComeAndGo,
    /// Every host keeps its link to the writer. At the end no host asks for anything more.
    Stay,
}

fn run_on(links: Links, hosts: u8, ops: Vec<Op>) -> bool {
    let mut net = Net::new();
    let writer = Core::writer();
    let reader = Core::reader_of(&writer);
    net.host(writer);
    let count = 2 + hosts as usize % 4;
    for i in 1..count {
        let host = net.host(reader.clone());
        net.hosts[host].commit_takes = Duration::from_millis(i as u64 % 3 * 4);
        net.hosts[host].outcome_takes = Duration::from_millis(i as u64 % 2 * 3);
        if links == Links::Stay {
            net.connect_by(0, host, Duration::from_millis(i as u64 * 3 - 2), 1e5);
        }
    }
    let mut written = 0u64;
    // The host that waits, its waiter, and the end of the blocks that the waiter concerns.
    let mut wants: Vec<(usize, WaiterId, u64)> = Vec::new();
    for op in ops {
        let some = |i: u8| i as usize % count;
        match op {
            Op::Append(n) => {
                let from = written;
                written += u64::from(n % 40) + 1;
                net.change(0, |core| core.append((from..written).map(|i| block(i, 8 + (i * 37 % 200) as usize))));
            }
            Op::Truncate(to) => {
                let length = net.hosts[0].core.length();
                if length > 0 {
                    net.change(0, |core| core.truncate(u64::from(to) % length));
                }
            }
            Op::Clear(host, start, n) => {
                let start = u64::from(start);
                // The writer never clears, so that every block stays available.
                if some(host) > 0 && start < net.hosts[some(host)].core.length() {
                    net.change(some(host), |core| core.clear(start..start + u64::from(n % 30) + 1));
                }
            }
            Op::Connect(a, b, latency, rate) => {
                if some(a) != some(b) {
                    let latency = Duration::from_millis(u64::from(latency) % 300);
                    net.connect_by(some(a), some(b), latency, 2e3 * f64::from(rate).exp2().min(1e5));
                }
            }
            Op::Cut(link) => {
                let kept = if links == Links::Stay { count - 1 } else { 0 };
                let link = link as usize % net.links.len().max(1);
                if (kept..net.links.len()).contains(&link) {
                    net.cut(link);
                }
            }
            Op::Get(host, index) => {
                let it = &mut net.hosts[some(host)];
                wants.push((some(host), it.machine.wait_for_block(index.into(), &it.core), u64::from(index) + 1));
            }
            Op::Lose(host, index) => {
                let (host, index) = (some(host), u64::from(index));
                let it = &mut net.hosts[host];
                let want = it.machine.wait_for_block(index, &it.core);
                let patience = net.now + Duration::from_secs(1);
                net.run_until(patience, |net| net.hosts[host].woken.contains_key(&want));
                if host > 0 && net.hosts[host].core.blocks.contains_key(&index) {
                    net.change(host, |core| core.clear(index..index + 1));
                    let range = Download::range(index.saturating_sub(1)..index + 2);
                    wants.push((host, download(&mut net, host, range), index + 2));
                }
            }
            Op::Range(host, start, n) => {
                let (start, end) = (u64::from(start), u64::from(start) + u64::from(n));
                let want = download(&mut net, some(host), Download::range(start..end));
                wants.push((some(host), want, end));
            }
            Op::Seek(host, bytes) => {
                let it = &mut net.hosts[some(host)];
                wants.push((some(host), it.machine.wait_for_seek(u64::from(bytes) % 9000, 0, &it.core), 600));
            }
            Op::Update(host) => {
                let it = &mut net.hosts[some(host)];
                wants.push((some(host), it.machine.wait_for_upgrade(&it.core), 0));
            }
            Op::Cancel(at) => {
                if !wants.is_empty() {
                    let (host, want, _) = wants.swap_remove(at as usize % wants.len());
                    net.hosts[host].machine.cancel(want);
                }
            }
            Op::Pass(time) => {
                net.run_for(Duration::from_millis(time.into()));
            }
        }
    }
    if links == Links::ComeAndGo {
        net.change(0, |core| core.append([block(1 << 40, 8)]));
        (0..net.links.len()).for_each(|link| net.cut(link));
        for host in 1..count {
            net.connect(host - 1, host);
            download(&mut net, host, all());
        }
        net.until(|net| (1..count).all(|host| net.hosts[host].core.blocks == net.hosts[0].core.blocks));
    }
    net.settle();
    for host in 1..count {
        if links == Links::ComeAndGo {
            assert_same(&net, 0, host);
        }
        assert!(net.hosts[host].closed.is_empty());
    }
    let length = net.hosts[0].core.length();
    let bytes = net.hosts[0].core.head.byte_length();
    for (host, want, end) in wants {
        // The writer has no peer to ask. A reader may still wait only for what lies beyond the end of the log.
        let open = host > 0 && !net.hosts[host].woken.contains_key(&want);
        assert!(!open || length < end || (end == 600 && bytes < 9000), "host {host} waits for {end} of {length}");
    }
    true
}

#[test]
fn random_operations_end_with_equal_logs() {
    QuickCheck::new()
        .tests(std::env::var("N").map_or(if SLOW { 20 } else { 60 }, |n| n.parse().unwrap()))
        .quickcheck(run as fn(u8, Vec<Op>) -> bool);
}

#[test]
fn random_operations_leave_no_wait_open() {
    fn stay(hosts: u8, ops: Vec<Op>) -> bool {
        run_on(Links::Stay, hosts, ops)
    }
    QuickCheck::new()
        .tests(std::env::var("N").map_or(100, |n| n.parse().unwrap()))
        .quickcheck(stay as fn(u8, Vec<Op>) -> bool);
}
