//! Malicious peers against a real core with real threads: each costs no more than its connection.

use std::fs;

use hypercore::lowlevel::merkle::{self, NodeRequest};
use hypercore::lowlevel::replication::{Message, Request, Sync};
use hypercore::{GetOptions, Hypercore};

use crate::common::machine::limit;
use crate::cores::{block, connect, copy_of};

mod bounded_queues;
mod false_proofs;
mod floods;
mod silence;

const MIB: usize = 1 << 20;

fn sync(length: u64) -> Message {
    Message::Sync(Sync {
        fork: 0,
        length,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: false,
    })
}

fn request(id: u64, wanted: merkle::Request) -> Message {
    Message::Request(Request { id, wanted, ..Request::default() })
}

fn of_block(index: u64) -> merkle::Request {
    merkle::Request { block: Some(NodeRequest { index, nodes: 0 }), ..merkle::Request::default() }
}

/// Fails unless an honest peer can still get a block of `core`.
fn assert_still_serves(core: &Hypercore) {
    let copy = copy_of(core);
    let (ours, _theirs) = connect(&copy, core);
    assert_eq!(copy.get_with(0, GetOptions::new().timeout(limit(60))).unwrap(), Some(block(0)));
    ours.close();
}

/// The peak memory of the process since a moment.
struct ProcessMemory(usize);

impl ProcessMemory {
    fn now() -> Self {
        // Resets the peak.
        _ = fs::write("/proc/self/clear_refs", "5");
        ProcessMemory(peak())
    }

    fn assert_below(&self, bytes: usize) {
        self.assert_below_for(bytes, "");
    }

    fn assert_below_for(&self, bytes: usize, what: &str) {
        let grown = peak().saturating_sub(self.0);
        assert!(grown <= bytes, "{what}: took {} MiB, {} MiB allowed", grown / MIB, bytes / MIB);
    }
}

fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()).unwrap_or(0) * 1024
}
