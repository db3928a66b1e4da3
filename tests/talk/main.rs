//! The wire protocol and replication: bytes compared with the reference's, state machines without sockets, cores over
//! real connections, and malicious peers.

#![allow(clippy::print_stdout, clippy::print_stderr)]

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
mod harness;
mod head_sync;
#[cfg(feature = "log")]
mod log_events;
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
