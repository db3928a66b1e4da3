//! Stories about a log on its own.

mod basics;
mod forks;
mod golden;
mod hostile;
mod manifests;
mod old;
mod proofs;
mod reopen;
mod support;
mod tree;
mod vectors;
mod waiting;
