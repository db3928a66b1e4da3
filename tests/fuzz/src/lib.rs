//! Coverage-guided fuzz targets: one module a target, each with `run`, which panics on a fault, and `seeds`.

pub mod codec;
pub mod core_files;
mod input;
mod log;
pub mod manifest;
mod memory;
pub mod message;
pub mod mux;
pub mod oplog;
pub mod proof;
pub mod replicator;
pub mod secretstream_noise;

use hypercore::KeyPair;
use hypercore::lowlevel::codec::Writer;

/// The target of `tests/talk/fuzz.rs` that reads the same bytes, and these bytes; None if no target there does.
pub type Line = fn(&[u8]) -> Option<(&'static str, &[u8])>;

/// A target, for programs that run it without libFuzzer.
pub struct Target {
    /// The name of its binary.
    pub name: &'static str,
    /// Runs one input, and panics on a fault.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How an input becomes a line of `tests/vectors/fuzz.txt`.
    pub line: Line,
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "codec", run: codec::run, seeds: codec::seeds, line: codec::line },
    Target { name: "core_files", run: core_files::run, seeds: core_files::seeds, line: |_| None },
    Target { name: "manifest", run: manifest::run, seeds: manifest::seeds, line: manifest::line },
    Target { name: "message", run: message::run, seeds: message::seeds, line: |bytes| Some(("message", bytes)) },
    Target { name: "mux", run: mux::run, seeds: mux::seeds, line: mux::line },
    Target { name: "oplog", run: oplog::run, seeds: oplog::seeds, line: oplog::line },
    Target { name: "proof", run: proof::run, seeds: proof::seeds, line: |_| None },
    Target { name: "replicator", run: replicator::run, seeds: replicator::seeds, line: |_| None },
    Target {
        name: "secretstream_noise",
        run: secretstream_noise::run,
        seeds: secretstream_noise::seeds,
        line: secretstream_noise::line,
    },
];

/// The largest integer of the compact encoding.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.into_vec()
}

fn pair(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_every_target_run() {
        for target in &TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            (target.run)(&[]);
            seeds.iter().for_each(|seed| (target.run)(seed));
        }
    }
}
