//! Downloads a core from peers.

mod dialers;
pub mod fetch;
pub mod follow;
mod here;
