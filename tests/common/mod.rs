//! Support code of several test binaries; each includes this folder with `#[path = "../common/mod.rs"] mod common;`.

// No binary uses all of it.
#![allow(dead_code, unused_imports)]

pub mod hex;
pub mod machine;
pub mod powercut;
pub mod random;
pub mod storage;
pub mod watchdog;

use std::fs;
use std::path::Path;

use hypercore::{ErrorKind, KeyPair, Result};
use tempfile::TempDir;

pub use hex::{hex, unhex, unhex_array};
pub use random::Random;
pub use storage::{Call, CallKind, Gate, Hooked};
pub use watchdog::{patient_watchdog, watchdog};

/// The key pair whose seed is `n` 32 times.
pub fn pair(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// The kind of the error that `result` has to be.
#[track_caller]
pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("expected an error").kind()
}

/// A copy of a directory, whose files are those that a process killed now would leave.
pub fn copy_of(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in files_of(dir) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    copy
}

/// All files of a directory with their bytes, sorted by name.
pub fn files_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}
