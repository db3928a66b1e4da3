//! The command line: which commands and arguments there are, how they are parsed, and what a usage error says.

pub mod args;
pub mod command;
pub mod parser;
pub mod secrets;
mod usage_error;
pub mod values;
