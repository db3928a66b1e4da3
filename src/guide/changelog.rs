//! The changes of each version.
//!
//! Version numbers follow [Semantic Versioning](https://semver.org): before 1.0.0, a breaking change raises
//! the second number.
//!
//! # 0.1.0 (unreleased)
//!
//! The first version. Rust 1.85.
//!
//! **Log.** Append single blocks and batches, get, seek, truncate, clear, tree hashes, user data, sessions and
//! snapshots. Streams of blocks and of bytes. Encodings: binary, UTF-8 and, with the feature `json`, JSON. Events
//! for appends, truncations, peers, downloads, uploads, conflicts and verification errors. Extension messages.
//!
//! **Signing.** Compat cores (the key is the public key) and manifest cores of version 0 and 1, with several
//! signers, a quorum and a prologue. Signing with external key pairs. Manifests of version 2 and 3 are refused.
//!
//! **Storage.** The files of JavaScript Hypercore 10. Three durability settings with ten numbered promises. Crash
//! recovery reports each loss, and never shortens a log because of damage. `verify` checks a whole core, and `repair`
//! makes a damaged one consistent. Storage backends for directories and memory, and for types of your own. A lock
//! between processes that JavaScript respects. `release_files` for programs with thousands of cores.
//!
//! **Encryption.** Block encryption as in JavaScript Hypercore. A wrong or missing key is an error of each read and
//! append; the page [`encryption_and_keys`](super::encryption_and_keys) lists the cases that cannot be detected.
//!
//! **Replication.** The wire protocol of JavaScript Hypercore 10, which Hypercore 11 speaks too. Noise handshake,
//! encrypted stream, several cores on one connection. Proofs are verified and committed in batches. Downloads, live
//! updates, forks. Bounds on memory and time for every kind of message that a peer can send. A TCP server.
//!
//! **Command.** `hypercore` with `create`, `append`, `get`, `cat`, `has`, `seek`, `info`, `verify`, `truncate`,
//! `clear`, `purge`, `serve`, `clone` and `demo`; `completions` for shells and `man`, the manual page.
//!
//! **Features.** `cli`, `fast-sign`, `json`, `serde` for keys, `log` for events of the `log` crate.
