//! Waits for changes that other processes make to a file, with inotify.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

/// The changes of one file since it was created.
pub struct Changes(File);

impl Changes {
    /// Starts to watch `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let watching = init(CreateFlags::CLOEXEC)?;
        // Deleting a file changes its link count, which is an ATTRIB event.
        add_watch(&watching, path, WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
        Ok(Changes(watching.into()))
    }

    /// Waits for a change since the last call, or since the start.
    pub fn wait(&mut self) -> io::Result<()> {
        // The kind of change does not matter. One read takes all pending events.
        let mut events = [0; 4096];
        loop {
            match self.0.read(&mut events) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map(drop),
            }
        }
    }
}
