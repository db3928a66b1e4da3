//! Closing: of a session, and of the core with its last one.

use crate::Result;
use crate::core::event_queue::Event;
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::core::state::closed;
use crate::core::writer::Writer;

impl Session {
    /// Closes the session, and the core with the last one. Closing twice is no error.
    pub(crate) fn close(&self) -> Result<()> {
        let Some(last) = self.shared.sessions.remove(self.id) else { return Ok(()) };
        self.shared.waiters.close_session(self.id, &closed());
        self.shared.forget_ended_downloads();
        let done = if last { self.shared.shut_down(false) } else { Ok(()) };
        self.shared.events.push(Event::Close(self.id));
        self.shared.deliver();
        done
    }

    /// Closes every session and deletes the files, the lock still held.
    pub(crate) fn purge(&self) -> Result<()> {
        self.check_open()?;
        let shared = &*self.shared;
        if shared.read_only {
            self.check_writable(true)?;
        }
        shared.close_all(true)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Who wants to know of an error calls `close`.
        let _ = self.close();
    }
}

impl Shared {
    /// Closes every session; with `remove` the files go before the lock does.
    pub(crate) fn close_all(&self, remove: bool) -> Result<()> {
        let ids = self.sessions.take_all();
        let done = self.shut_down(remove);
        for id in ids {
            self.events.push(Event::Close(id));
        }
        self.deliver();
        done
    }

    /// Ends the core: waiters wake, conversations end, what is to be synced is, files and lock are given up.
    fn shut_down(&self, remove: bool) -> Result<()> {
        self.waiters.close(&closed());
        if let Some(network) = self.network.get() {
            // Peers hear of what was appended last, too.
            let _ = self.sync_for_peers();
            network.close();
        }
        self.forget_ended_downloads();
        // A handler may hold a handle of the core, and so the core this list.
        let extensions = std::mem::take(&mut *self.extensions.lock());
        drop(extensions);
        // A thread that syncs for the peers has the files until it is done.
        let _peer_sync = self.peer_sync.lock();
        let mut slot = self.writer.lock();
        let flushed = match slot.as_mut() {
            Some(writer) if !remove => self.flush_on_close(writer),
            _ => Ok(()),
        };
        let (writer, files) = (slot.take(), self.state.write().files.take());
        let (Some(writer), Some(files)) = (writer, files) else { return Ok(()) };
        if remove {
            drop(files);
            self.remove_files(writer.oplog.file())?;
        }
        flushed
    }

    /// Leaves everything in its place, and synced unless the durability is `None`, so that nothing is to be replayed when the core is
    /// opened again. An error too where an earlier write failed and no caller was told.
    fn flush_on_close(&self, writer: &mut Writer) -> Result<()> {
        if self.poison.get().is_some() {
            return match self.poison.take_unreported() {
                Some(_) => Err(self.poisoned()),
                None => Ok(()),
            };
        }
        let has_news = writer.has_unflushed || !self.encryption_state.is_stored();
        if self.read_only || !has_news {
            return Ok(());
        }
        self.flush(writer)
    }
}
