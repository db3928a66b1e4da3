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
//! All but `oplog` are made when they are first written. Which is written when, and what a crash between any two writes
//! leaves, is told in `oplog`; what this floor adds to it:
//!
//! * `tree` and `bitfield` change only in a flush. Until then [`tree::Tree`] and [`bitfield::Bitfield`] keep what
//!   changed in memory, over the file, where readers find it first. A flush takes a snapshot, writes it without holding
//!   readers up, and lets go of what was written and has not changed since.
//! * A crash in a flush leaves some nodes, pages or the cut written and others not. The entries of the oplog say all of
//!   them again. What they do not say, the roots of lengths that the log has left behind, is not to be relied on.
//! * Pages are not written atomically. A torn page or node is one that the entries bring again.
//! * `data` is written before any of the others and never cut by a flush: bytes that no set bit vouches for are
//!   nobody's.
//!
//! A core that was released has none of them open but `oplog`; each is opened again, as the file it was, when it is next used.
//!
//! Everything reaches the outside through [`backend`].

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
pub mod tracked;
pub mod tree;
mod version;

pub use lazy_file::OpenHow;

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use super::backend::Storage;
    use super::disk::Disk;
    use super::memory::Memory;
    use super::*;

    /// Numbers below what is asked for, the same for the same seed.
    pub fn random(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        }
    }

    pub type Place = (Arc<dyn Storage>, OpenHow);

    /// A directory and memory, each with the ways to read files of it. The directory lives as long as what is given
    /// back first.
    pub fn storages() -> (tempfile::TempDir, Vec<Place>) {
        let dir = tempfile::tempdir().unwrap();
        let how = OpenHow { writable: true, mappable: true, map_limit: 256 << 10 };
        let disk = |name| -> Arc<dyn Storage> { Arc::new(Disk::new(dir.path().join(name))) };
        let storages = vec![
            (disk("mapped"), how),
            (disk("read"), OpenHow { mappable: false, ..how }),
            (Arc::new(Memory::new()) as Arc<dyn Storage>, how),
        ];
        (dir, storages)
    }
}
