//! The conversation: its bytes against the reference's, its machines against each other, and what a hostile peer can do.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod announce;
mod batched_commits;
mod closing;
mod copies;
mod cores;
mod deadlines;
mod events;
mod fixture;
mod fuzz;
mod gated;
mod heads;
mod hostile;
mod huge;
#[allow(dead_code)]
mod machine;
mod malformed_messages;
mod malicious_peers;
mod messages;
mod mux;
mod net;
mod noise_stream;
mod raw;
mod reorg;
mod replicate;
mod scenario;
mod sessions;
mod signers;
mod stress;
mod watchdog;
mod wire_vectors;

/// The bytes that hexadecimal digits stand for.
fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len() % 2 == 0, "odd number of digits in {text}");
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// The same, of a known length.
fn unhex_array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().unwrap()
}
