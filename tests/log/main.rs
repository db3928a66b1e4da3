//! Stories about a log on its own.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod basics;
mod big;
mod corrupt;
mod crash;
#[cfg(unix)]
mod cut;
mod damage;
mod durable;
mod encryption;
mod faults;
mod files;
mod forks;
mod golden;
mod group_commit;
mod hostile;
#[cfg(unix)]
mod killed;
mod layout;
mod lock;
#[path = "../talk/machine.rs"]
#[allow(dead_code)]
mod machine;
mod manifests;
mod model;
#[cfg(unix)]
mod named_lock;
mod old;
mod opening;
mod powercut;
mod proofs;
mod recovery;
mod reopen;
mod repair;
mod secrets;
mod sessions;
mod streams;
mod support;
mod threads;
mod tree;
mod vectors;
mod waiting;
#[path = "../talk/watchdog.rs"]
mod watchdog;
mod witness;
