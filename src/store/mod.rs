//! Bytes on disk: the files of a core.
