//! The real JavaScript on the other side: npm `hypercore` 10.38.2, 11.37.1, 10.0.0 and 10.4.1, driven over pipes.
//!
//! Where there is no Node.js these tests say so and pass; with `CI` or `HYPERCORE_REQUIRE_NODE` set they fail instead.

mod alternating_writers;
#[path = "../common/mod.rs"]
mod common;
mod crash;
mod damaged_oplog;
mod encryption;
mod files;
mod generated_blocks;
mod js;
mod killed_javascript;
mod lock;
mod model;
mod multisig;
mod old_versions;
mod opening;
mod random_calls;
mod replication;
mod scripts;
mod testbed;
