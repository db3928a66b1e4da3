//! Closing a session, and the core with its last session.

use crate::Result;
use crate::core::event_queue::Event;
use crate::core::session::Session;
use crate::core::shared::Shared;
use crate::core::state::closed;
use crate::core::writer::Writer;

impl Session {
    /// Closes the session, and the core if it is the last one. Closing twice is no error.
    pub(crate) fn close(&self) -> Result<()> {
        let Some(last) = self.shared.sessions.remove(self.id) else { return Ok(()) };
        self.shared.waiters.close_session(self.id, &closed());
        self.shared.forget_ended_downloads();
        let done = if last { self.shared.shut_down(false) } else { Ok(()) };
        self.shared.events.push(Event::Close(self.id));
        self.shared.deliver();
        done
    }

    /// Closes every session and deletes the files while the lock is still held.
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
        // A caller that needs the error calls `close`.
        let _ = self.close();
    }
}

impl Shared {
    /// Closes every session. With `remove`, deletes the files before the lock is released.
    pub(crate) fn close_all(&self, remove: bool) -> Result<()> {
        let ids = self.sessions.take_all();
        let done = self.shut_down(remove);
        for id in ids {
            self.events.push(Event::Close(id));
        }
        self.deliver();
        done
    }

    /// Ends the core: wakes waiters, ends replication, flushes unless `remove` is set, and releases the files
    /// and the lock.
    fn shut_down(&self, remove: bool) -> Result<()> {
        self.waiters.close(&closed());
        if let Some(network) = self.network.get() {
            // The last appends are announced to peers too.
            let _ = self.sync_for_peers();
            network.close();
        }
        self.forget_ended_downloads();
        // An extension's handler may hold a handle of the core, and the core this list: a cycle.
        let extensions = std::mem::take(&mut *self.extensions.lock());
        drop(extensions);
        // A thread that syncs for peers uses the files until it is done.
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

    /// Flushes, with syncs unless the durability is `None`, so that the next open has no entries to replay. Also
    /// fails if an earlier write failed and no call has returned that failure.
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
