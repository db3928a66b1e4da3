//! Hearing of what another process does to a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

/// The changes of one file from a moment on.
pub struct Changes(File);

impl Changes {
    /// Those of `path` from now on.
    pub fn of(path: &Path) -> io::Result<Self> {
        let watching = init(CreateFlags::CLOEXEC)?;
        // A file that is deleted changes its number of links first.
        add_watch(&watching, path, WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
        Ok(Changes(watching.into()))
    }

    /// Waits until there was a change since it was made, or returned last.
    pub fn wait(&mut self) -> io::Result<()> {
        // What happened is all the same; a read takes all that is there.
        let mut events = [0; 4096];
        loop {
            match self.0.read(&mut events) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map(drop),
            }
        }
    }
}
