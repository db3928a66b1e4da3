//! The replication protocol as a machine without I/O.
