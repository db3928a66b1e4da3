//! The manual: how the library works, what it promises, and programs to start from.
//!
//! | page | read it to |
//! |---|---|
//! | [`examples`] | copy a program for your job: logger, follower, mirror, worker pool, many cores, encrypted log |
//! | [`storage_and_durability`] | know which files a core has, what survives a crash, and what to do when a disk fails |
//! | [`replication_and_threads`] | connect peers, and know which call blocks on what |
//! | [`encryption_and_keys`] | handle keys, several signers and encrypted blocks |
//! | [`coming_from_javascript`] | find a method under its JavaScript name |
//! | [`design`] | read or change the source |
//! | [`changelog`] | see the changes of each version |

pub mod changelog;
pub mod coming_from_javascript;
pub mod design;
pub mod encryption_and_keys;
pub mod examples;
pub mod replication_and_threads;
pub mod storage_and_durability;
