//! The command line: descriptions of commands and arguments, their parser, and usage errors.

pub mod args;
pub mod command;
pub mod parser;
pub mod secrets;
mod usage_error;
pub mod values;
