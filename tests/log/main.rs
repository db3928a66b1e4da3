//! Stories about a log on its own.

mod forks;
mod golden;
mod hostile;
mod proofs;
mod reopen;
mod tree;
