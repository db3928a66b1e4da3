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
#[cfg(unix)]
mod killed;
mod layout;
mod lock;
mod manifests;
mod model;
mod old;
mod powercut;
mod proofs;
mod reopen;
mod repair;
mod secrets;
mod sessions;
mod support;
mod threads;
mod together;
mod tree;
mod vectors;
mod waiting;
