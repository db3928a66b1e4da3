//! Bytes on disk: the files of a core.
//!
//! ```text
//! a core's directory
//! ├── oplog      header and latest changes; locks the core             see `oplog`
//! ├── tree       node i at 40·i: u64 size ‖ hash                       tree.rs
//! ├── bitfield   bit i: block i is held; pages of 4096 bytes           bitfield.rs
//! ├── data       the blocks, at the byte offsets the tree says         blocks.rs
//! └── header     only if the header outgrew its slot of the oplog      see `oplog`
//! ```
//!
//! Each file but `oplog` is created by the first write to it. The module `oplog` documents the order of writes and the
//! state after a crash between any two of them. The other files add these rules:
//!
//! * `tree` and `bitfield` change only in a flush. Until then [`tree::Tree`] and [`bitfield::Bitfield`] hold the
//!   changes in memory, and readers look there before they read the file. A flush takes a snapshot of the changes,
//!   writes it without blocking readers, and then drops from memory the changes that it wrote and that no later change
//!   replaced.
//! * A crash in a flush leaves some nodes, pages or the shorter length written and others not. The oplog entries
//!   since the last header contain all of them, and the next open applies the entries again. The entries do not
//!   contain the roots of lengths that the log no longer has, so no reader may rely on these.
//! * Writes of pages and nodes are not atomic. The oplog entries contain every node and bit that a crash can tear.
//! * `data` is written before all other files. Only a flush after a truncation shortens it, at the end of the last
//!   held block. Bytes of `data` for which no bit is set do not belong to the log.
//!
//! A released core keeps only `oplog` open. The next use of another file opens it again and checks that it is the same
//! file.
//!
//! All file access goes through the traits in [`backend`].

pub mod backend;
pub mod bitfield;
pub mod blocks;
pub mod disk;
mod lazy_file;
pub mod memory;
#[allow(unsafe_code)]
pub mod mmap;
#[allow(unsafe_code)]
mod os;
mod seqlock;
pub mod tracked;
pub mod tree;

pub use lazy_file::FileOptions;

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use super::backend::Storage;
    use super::disk::Disk;
    use super::memory::Memory;
    use super::*;

    /// A generator of pseudo-random numbers below its argument.
    pub fn random(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        }
    }

    pub type Place = (Arc<dyn Storage>, FileOptions);

    /// A directory read through maps, one read without maps, and memory. Dropping the first value removes the
    /// directories.
    pub fn storages() -> (tempfile::TempDir, Vec<Place>) {
        let dir = tempfile::tempdir().unwrap();
        let how = FileOptions { writable: true, mappable: true, map_limit: 256 << 10 };
        let disk = |name| -> Arc<dyn Storage> { Arc::new(Disk::new(dir.path().join(name))) };
        let storages = vec![
            (disk("mapped"), how),
            (disk("read"), FileOptions { mappable: false, ..how }),
            (Arc::new(Memory::new()) as Arc<dyn Storage>, how),
        ];
        (dir, storages)
    }
}
