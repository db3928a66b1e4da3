//! The real JavaScript on the other side: npm `hypercore` 10.38.2, 11.37.1, 10.0.0 and 10.4.1, driven over pipes.
//!
//! Where there is no Node.js these tests say so and pass; with `CI` or `HYPERCORE_REQUIRE_NODE` set they fail instead.

mod alternating_writers;
mod both;
#[path = "../common/mod.rs"]
mod common;
mod crash;
mod encryption;
mod files;
mod js;
mod lock;
mod old;
mod opening;
mod random;
mod replicate;
mod same;
mod scripts;
mod signers;
mod torn;
mod world;

use common as support;
use common::{machine, powercut, watchdog};
