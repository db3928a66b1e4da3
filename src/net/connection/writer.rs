//! The writer thread. Each round it (1) runs the work that other threads left to it, (2) sends queued messages, then
//! responses. With nothing to send it syncs and announces appends. Then it waits until it is woken, or until a
//! keep-alive or a deadline is due.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Inbox, RecvTimeoutError};

use super::idle_timeout::{MAX_WRITE, Progress};
use super::inner::{Inner, ToWriter, catch_panic, in_handshake, is_gone, is_timeout};
use crate::net::driver::{Driver, size_hint};
use crate::replication::{Message, PeerId};
use crate::sync;
use crate::wire::batch::Batch;
use crate::wire::mux::ChannelId;
use crate::wire::noise_stream::Sender;
use crate::{Error, ErrorKind, Result};

/// About how many bytes are gathered for one round of writing.
const WRITE_BYTES: usize = 256 * 1024;

/// How often appended blocks are synced and announced while responses keep the writer busy.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);

impl Inner {
    pub(super) fn write_until_closed(
        self: Arc<Self>,
        mut writer: Box<dyn Write + Send>,
        control: &Inbox<ToWriter>,
        woken: &Inbox<()>,
    ) {
        sync::enter_connection();
        let established = catch_panic(|| self.write_handshake(&mut *writer, control));
        let written = match established {
            Ok(Some(sender)) => catch_panic(|| self.write_messages(&mut *writer, *sender, woken)),
            // The reader has ended and reports the reason.
            Ok(None) => return,
            Err(error) => Err(error),
        };
        // A peer that is gone has not failed to read. The reader reports how it left.
        self.shut(written.err().filter(|e| !self.is_closing() && !e.io_error().is_some_and(is_gone)));
    }

    /// Sends the handshake's messages. Returns none if the reader ended before the handshake was done.
    fn write_handshake(&self, writer: &mut dyn Write, control: &Inbox<ToWriter>) -> Result<Option<Box<Sender>>> {
        let deadline = self.handshake_deadline();
        loop {
            let next = match deadline {
                Some(deadline) => control.recv_deadline(deadline),
                None => control.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(ToWriter::Bytes(bytes)) => self.write(writer, &bytes).map_err(in_handshake)?,
                Ok(ToWriter::Established(sender, bytes)) => {
                    self.write(writer, &bytes).map_err(in_handshake)?;
                    return Ok(Some(sender));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => return Err(self.handshake_timed_out()),
            }
        }
    }

    fn write_messages(self: &Arc<Self>, writer: &mut dyn Write, mut sender: Sender, woken: &Inbox<()>) -> Result<()> {
        let mut out = Vec::new();
        let mut written = Instant::now();
        let mut synced = written;
        while !self.is_closing() {
            self.check_deadlines()?;
            // Actions that callers' threads leave: the reader cannot do them while it waits for the peer.
            let cores = self.state.lock().cores.clone();
            if synced.elapsed() >= SYNC_INTERVAL {
                cores.iter().for_each(|core| _ = core.sync_for_peers());
                synced = Instant::now();
            }
            cores.iter().filter(|core| core.has_work(&**self)).for_each(|core| core.drive_on(&**self));
            out.clear();
            self.gather(&mut sender, &mut out)?;
            if !out.is_empty() {
                self.write(writer, &out)?;
                written = Instant::now();
                if out.capacity() > 4 * WRITE_BYTES {
                    out = Vec::new();
                }
                continue;
            }
            // Responses go first, because syncing the disk may take long.
            if cores.iter().filter(|core| core.sync_for_peers()).count() > 0 {
                synced = Instant::now();
                continue;
            }
            let keep_alive_at = self.keep_alive_at(written);
            if keep_alive_at.is_some_and(|at| at <= Instant::now()) {
                sender.keep_alive(&mut out);
                self.write(writer, &out)?;
                written = Instant::now();
                continue;
            }
            self.wait_for_work(&cores, keep_alive_at, woken);
        }
        Ok(())
    }

    /// When a keep-alive is due if nothing has been written since `written`; none if they are off.
    fn keep_alive_at(&self, written: Instant) -> Option<Instant> {
        written.checked_add(self.options.keep_alive?)
    }

    /// Waits until the writer is woken or a deadline has passed; in the latter case drives all cores.
    fn wait_for_work(&self, cores: &[Arc<Driver>], keep_alive_at: Option<Instant>, woken: &Inbox<()>) {
        let idle_check = self.receiving.next_check(Instant::now());
        // The replicators' deadlines; each connection looks after the cores it carries.
        let deadlines = cores.iter().map(|core| core.next_deadline());
        let until = deadlines.chain([keep_alive_at, idle_check]).flatten().min();
        let timed_out = match until {
            Some(until) => woken.recv_deadline(until) == Err(RecvTimeoutError::Timeout),
            None => woken.recv().is_err(),
        };
        if timed_out {
            cores.iter().for_each(|core| core.drive_on(self));
        }
    }

    /// Encrypts queued messages and then responses, up to about [`WRITE_BYTES`].
    fn gather(&self, sender: &mut Sender, out: &mut Vec<u8>) -> Result<()> {
        self.gather_queued(sender, out)?;
        while out.len() < WRITE_BYTES {
            let Some((core, peer, channel, number)) = self.next_responder() else { break };
            if self.gather_responses(&core, peer, number, sender, out)? {
                self.state.lock().responding.push_back((core, peer, channel));
            }
        }
        Ok(())
    }

    /// The next peer with requests to answer, and its channel's number on the wire. None while messages are
    /// queued, which go first.
    fn next_responder(&self) -> Option<(Arc<Driver>, PeerId, ChannelId, u64)> {
        let mut state = self.state.lock();
        while !state.mux.has_outgoing() {
            let (core, peer, channel) = state.responding.pop_front()?;
            if let Some(number) = state.mux.wire_id(channel) {
                return Some((core, peer, channel, number));
            }
        }
        None
    }

    /// Encrypts one frame of responses to `peer`. Returns false if its upload queue is empty now.
    fn gather_responses(
        &self,
        core: &Driver,
        peer: PeerId,
        number: u64,
        sender: &mut Sender,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let mut more = true;
        let mut overtaken = None;
        let mut pushed = Ok(());
        sender.seal(out, |w| {
            let mut batch = Batch::new(w);
            while pushed.is_ok() && !batch.is_full() {
                let Some(message) = core.next_response(peer, self) else {
                    more = false;
                    return;
                };
                // The peer may have to handle what was queued in the meantime before this response.
                if self.state.lock().mux.has_outgoing() {
                    overtaken = Some(message);
                    return;
                }
                pushed = push(&mut batch, number, &message);
            }
        })?;
        pushed?;
        if let Some(message) = overtaken {
            self.gather_all_queued(sender, out)?;
            let mut pushed = Ok(());
            sender.seal(out, |w| pushed = push(&mut Batch::new(w), number, &message))?;
            pushed?;
        }
        Ok(more)
    }

    /// Encrypts queued messages, up to about [`WRITE_BYTES`].
    fn gather_queued(&self, sender: &mut Sender, out: &mut Vec<u8>) -> Result<()> {
        while out.len() < WRITE_BYTES && self.gather_frame(sender, out)? {}
        Ok(())
    }

    /// Encrypts all messages that are queued now.
    fn gather_all_queued(&self, sender: &mut Sender, out: &mut Vec<u8>) -> Result<()> {
        while self.gather_frame(sender, out)? {}
        Ok(())
    }

    /// Encrypts the first queued frame. Returns false if there is none.
    fn gather_frame(&self, sender: &mut Sender, out: &mut Vec<u8>) -> Result<bool> {
        let Some(frame) = self.state.lock().mux.take() else { return Ok(false) };
        sender.seal(out, |w| {
            w.bytes(&frame);
        })?;
        Ok(true)
    }

    fn write(&self, writer: &mut dyn Write, mut bytes: &[u8]) -> Result<()> {
        let mut progress = Progress::new(Instant::now());
        let written = loop {
            self.sending.start(&progress);
            let done = bytes.is_empty();
            let moved =
                if done { writer.flush().map(|()| 0) } else { writer.write(&bytes[..bytes.len().min(MAX_WRITE)]) };
            match moved {
                Ok(_) if done => break Ok(()),
                Ok(0) => break Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
                Ok(n) => {
                    self.sent.fetch_add(n as u64, Ordering::Relaxed);
                    bytes = bytes.get(n..).unwrap_or_default();
                    progress.moved(n, Instant::now());
                    if bytes.is_empty() {
                        continue;
                    }
                }
                Err(e) if is_timeout(&e) => {}
                Err(e) => break Err(e.into()),
            }
            if self.is_closing() {
                break Err(Error::new(ErrorKind::Closed, "the connection is closed"));
            }
            if progress.has_expired(self.options.idle_timeout, Instant::now()) {
                break Err(self.sending_timed_out());
            }
            if let Err(error) = self.check_deadlines() {
                break Err(error);
            }
        };
        self.sending.stop();
        written
    }
}

fn push(batch: &mut Batch<'_>, channel: u64, message: &Message) -> Result<()> {
    batch.push(channel, message.kind(), size_hint(message), |w| message.encode(w))
}
