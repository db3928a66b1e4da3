//! Stories about a log on its own.

mod basics;
mod big;
#[path = "../common/mod.rs"]
mod common;
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
mod manifests;
mod model;
#[cfg(unix)]
mod named_lock;
mod old;
mod opening;
mod proofs;
mod recovery;
mod reopen;
mod repair;
mod secrets;
mod sessions;
mod streams;
mod threads;
mod tree;
mod vectors;
mod waiting;
mod witness;
