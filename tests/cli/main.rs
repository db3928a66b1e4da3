//! The `hypercore` command as a process: arguments, standard input and output, exit codes, signals and terminals.

mod append;
mod blocks;
mod crash_loss;
mod create;
#[cfg(unix)]
mod disk_full;
mod encryption;
mod info;
mod lock;
#[path = "../common/machine.rs"]
#[allow(dead_code)]
mod machine;
#[cfg(unix)]
mod network;
#[cfg(unix)]
mod random_arguments;
#[cfg(unix)]
mod readme;
#[cfg(target_os = "linux")]
mod shrunk_files;
mod support;
#[cfg(unix)]
mod terminal;
mod truncate_clear_purge;
mod usage;
mod verify;
