//! How to use it well: storage, threads, keys, and a way in for those who know the JavaScript one.

pub mod coming_from_javascript;
pub mod encryption_and_keys;
pub mod replication_and_threads;
pub mod storage_and_durability;
