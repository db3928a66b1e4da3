//! Tests against real JavaScript: npm `hypercore` 10.38.2, 11.37.1, 10.0.0 and 10.4.1, driven over pipes.
//!
//! Without Node.js these tests print that they are skipped and pass; with `CI` or `HYPERCORE_REQUIRE_NODE`
//! set they fail.

#![allow(clippy::print_stdout, clippy::print_stderr)]

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
