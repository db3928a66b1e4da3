//! Names a test that hangs, and ends the whole run: a thread that is stuck in a system call cannot be ended alone.

use std::io::{self, Write};
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Lets a test run for so long. Dropped in time, it does nothing.
pub struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    pub fn new(name: impl Into<String>, limit: Duration) -> Watchdog {
        let name = name.into();
        let (alive, dropped) = mpsc::channel::<()>();
        thread::spawn(move || {
            if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // Past the capturing of test output, which would swallow it.
                let _ = writeln!(io::stderr(), "watchdog: {name} did not end within {limit:?}");
                process::abort();
            }
        });
        Watchdog { _alive: alive }
    }
}
