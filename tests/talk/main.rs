//! The conversation between cores: its bytes against the reference's, the state machines without sockets, cores over real
//! connections, and malicious peers.

mod announce;
mod batched_commits;
mod billion_blocks;
mod closing;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod convergence;
mod copies;
mod cores;
mod downloads;
mod events;
mod fuzz;
mod gated;
mod harness;
mod head_sync;
mod malformed_messages;
mod malicious_peers;
mod messages;
mod multisig;
mod mux;
mod noise_stream;
mod raw_peer;
mod reorg;
mod replicator;
mod replicator_malicious_peers;
mod replicator_peers;
mod simulated_core;
mod simulated_network;
mod stress;
mod threads;
mod timeouts;
mod waiting_calls;
mod wire_vectors;

/// The bytes that hexadecimal digits stand for.
fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len() % 2 == 0, "odd number of digits in {text}");
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// The same, of a known length.
fn unhex_array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().unwrap()
}
