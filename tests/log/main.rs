//! Stories about a log on its own.

mod basics;
mod big;
mod corrupt;
mod crash;
mod forks;
mod golden;
mod hostile;
mod layout;
mod lock;
mod manifests;
mod model;
mod old;
mod powercut;
mod proofs;
mod reopen;
mod sessions;
mod support;
mod threads;
mod tree;
mod vectors;
mod waiting;
