//! Stories about a log on its own.

mod basics;
mod big;
mod corrupt;
mod crash;
mod durable;
mod faults;
mod forks;
mod golden;
mod hostile;
mod layout;
#[cfg(unix)]
mod killed;
mod lock;
mod manifests;
mod model;
mod old;
mod powercut;
mod proofs;
mod reopen;
mod sessions;
mod repair;
mod support;
mod threads;
mod tree;
mod vectors;
mod waiting;
