//! The write-ahead log of a core.
