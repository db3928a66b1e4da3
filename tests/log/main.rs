//! One log on disk or in memory: its operations, and its state after crashes, I/O errors, damage and hostile input.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod basics;
#[path = "../common/mod.rs"]
mod common;
mod corruption;
mod crash;
mod durability;
mod encodings;
mod encryption;
#[cfg(unix)]
mod external_truncation;
mod file_format;
mod group_commit;
mod hostile_proofs;
mod io_errors;
mod javascript_files;
mod large_logs;
mod lock;
#[cfg(unix)]
mod lock_contention;
mod model;
mod multisig;
mod open_after_kill;
mod opening;
#[cfg(unix)]
mod process_kill;
mod proof_fixture;
mod proofs;
mod recovery;
mod reference_proofs;
mod released_files;
mod reorg;
mod repair;
mod secrets;
mod sessions;
mod streams;
mod threads;
mod vectors;
mod waiting;
