//! The real JavaScript on the other side: npm `hypercore` 10.38.2, 11.37.1, 10.0.0 and 10.4.1, driven over pipes.
//!
//! Where there is no Node.js these tests say so and pass; with `CI` or `HYPERCORE_REQUIRE_NODE` set they fail instead.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod alternating_writers;
mod both;
mod crash;
mod encryption;
mod files;
mod js;
mod lock;
#[path = "../talk/machine.rs"]
#[allow(dead_code)]
mod machine;
mod old;
mod opening;
#[allow(dead_code)]
#[path = "../log/powercut.rs"]
mod powercut;
mod random;
mod replicate;
mod same;
mod scripts;
mod signers;
#[allow(dead_code)]
#[path = "../log/support.rs"]
mod support;
mod torn;
#[path = "../talk/watchdog.rs"]
mod watchdog;
mod world;
