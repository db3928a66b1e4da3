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
