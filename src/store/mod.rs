//! Bytes on disk: the files of a core.

pub mod bitfield;
pub mod blocks;
mod hasher;
mod lazy;
#[allow(unsafe_code)]
pub mod map;
pub mod medium;
pub mod memory;
#[allow(unsafe_code)]
mod os;
pub mod tree;

pub use lazy::OpenHow;

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use super::medium::{Disk, Medium};
    use super::memory::Memory;
    use super::*;

    /// Numbers below what is asked for, the same for the same seed.
    pub fn random(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        }
    }

    pub type Place = (Arc<dyn Medium>, OpenHow);

    /// A directory and memory, each with the ways to read files of it. The directory lives as long as what is given back first.
    pub fn media() -> (tempfile::TempDir, Vec<Place>) {
        let dir = tempfile::tempdir().unwrap();
        let how = OpenHow { writable: true, mappable: true, map_limit: 64 << 10 };
        let disk = |name| -> Arc<dyn Medium> { Arc::new(Disk::new(dir.path().join(name))) };
        let media = vec![
            (disk("mapped"), how),
            (disk("read"), OpenHow { mappable: false, ..how }),
            (Arc::new(Memory::new()) as Arc<dyn Medium>, how),
        ];
        (dir, media)
    }
}
