//! Whatever happens between peers, in whatever order, they are in step when it is over: within bounded steps.

use std::time::Duration;

use hypercore::lowlevel::replication::{Download, WantId};
use quickcheck::{Arbitrary, Gen, QuickCheck};

use crate::net::{Core, Net, all, assert_same, block, download};

#[derive(Clone, Debug)]
pub enum Op {
    Append(u8),
    Truncate(u8),
    Clear(u8, u8, u8),
    Connect(u8, u8, u16, u8),
    Cut(u8),
    Get(u8, u8),
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
            _ => Op::Pass(u16::arbitrary(g)),
        }
    }
}

/// What happens between so many hosts, to the end.
pub fn run(hosts: u8, ops: Vec<Op>) -> bool {
    let mut net = Net::new();
    let writer = Core::writer();
    let reader = Core::reader_of(&writer);
    net.host(writer);
    let count = 2 + hosts as usize % 4;
    for i in 1..count {
        let host = net.host(reader.clone());
        net.hosts[host].commit_takes = Duration::from_millis(i as u64 % 3 * 4);
    }
    let mut written = 0u64;
    let mut wants: Vec<(usize, WantId)> = Vec::new();
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
                // The writer keeps everything, so that all can be had in the end.
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
            Op::Cut(line) => {
                if !net.lines.is_empty() {
                    net.cut(line as usize % net.lines.len());
                }
            }
            Op::Get(host, index) => {
                let it = &mut net.hosts[some(host)];
                wants.push((some(host), it.machine.want_block(index.into(), &it.core)));
            }
            Op::Range(host, start, n) => {
                let (start, end) = (start.into(), Some(u64::from(start) + u64::from(n)));
                wants.push((some(host), download(&mut net, some(host), Download::Range { start, end })));
            }
            Op::Seek(host, bytes) => {
                let it = &mut net.hosts[some(host)];
                wants.push((some(host), it.machine.want_seek(u64::from(bytes) % 9000, 0, &it.core)));
            }
            Op::Update(host) => {
                let it = &mut net.hosts[some(host)];
                wants.push((some(host), it.machine.want_upgrade(&it.core)));
            }
            Op::Cancel(at) => {
                if !wants.is_empty() {
                    let (host, want) = wants.swap_remove(at as usize % wants.len());
                    net.hosts[host].machine.cancel(want);
                }
            }
            Op::Pass(time) => {
                net.run_for(Duration::from_millis(time.into()));
            }
        }
    }
    // In the end all lines are replaced by good ones, and everybody wants everything.
    (0..net.lines.len()).for_each(|line| net.cut(line));
    net.change(0, |core| core.append([block(1 << 40, 8)]));
    for host in 1..count {
        net.connect(host - 1, host);
        download(&mut net, host, all());
    }
    net.until(|net| (1..count).all(|host| net.hosts[host].core.blocks == net.hosts[0].core.blocks));
    net.settle();
    for host in 1..count {
        assert_same(&net, 0, host);
        assert!(net.hosts[host].closed.is_empty());
    }
    let length = net.hosts[0].core.length();
    let bytes = net.hosts[0].core.head.byte_length();
    for (host, want) in wants {
        // Only what is beyond the end may still wait.
        let open = !net.hosts[host].woken.contains_key(&want);
        assert!(!open || length < 600 || bytes < 9000);
    }
    true
}

#[test]
fn peers_are_in_step_when_it_is_over() {
    QuickCheck::new()
        .tests(std::env::var("N").map_or(60, |n| n.parse().unwrap()))
        .quickcheck(run as fn(u8, Vec<Op>) -> bool);
}
