//! The commands, one file each.

pub mod append;
pub mod cat;
pub mod clear;
pub mod clone;
pub mod completions;
pub mod create;
pub mod demo;
pub mod get;
pub mod has;
pub mod help;
pub mod info;
pub mod man;
pub mod purge;
pub mod seek;
pub mod serve;
pub mod truncate;
pub mod verify;
