//! The `hypercore` command as scripts see it: a process with arguments, standard input and output, and an exit code.

mod append;
mod blocks;
mod create;
#[cfg(target_os = "linux")]
mod cut;
mod edit;
mod encryption;
#[cfg(unix)]
mod full;
mod info;
mod lock;
mod loss;
#[path = "../common/machine.rs"]
#[allow(dead_code)]
mod machine;
#[cfg(unix)]
mod network;
#[cfg(unix)]
mod odd;
#[cfg(unix)]
mod readme;
mod support;
#[cfg(unix)]
mod terminal;
mod usage;
mod verify;
