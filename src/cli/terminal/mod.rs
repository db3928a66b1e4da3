//! Progress, peers and maps on a terminal.

pub mod held_map;
pub mod peer_status;
pub mod progress;
pub mod screen;
pub mod units;
