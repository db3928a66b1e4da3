//! The writer thread: sends what is queued, then answers requests; keep-alives and deadlines are its own.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Inbox, RecvTimeoutError};

use super::{Inner, ToWriter, ended_early, guarded, is_gone};
use crate::sync;
use crate::wire::batch::Batch;
use crate::wire::channel::Sender;
use crate::{Error, ErrorKind, Result};

/// So many bytes are gathered before they are written to the socket.
const WRITE_BYTES: usize = 256 * 1024;

impl Inner {
    pub(super) fn write_until_closed(
        self: Arc<Self>,
        mut writer: Box<dyn Write + Send>,
        control: &Inbox<ToWriter>,
        woken: &Inbox<()>,
    ) {
        sync::enter_connection();
        let shaken = guarded(|| self.write_handshake(&mut *writer, control));
        let written = match shaken {
            Ok(Some(sender)) => guarded(|| self.write_messages(&mut *writer, *sender, woken)),
            // The reader gave up, and says why.
            Ok(None) => return,
            Err(error) => Err(error),
        };
        // A peer that is gone is not at fault for not reading; how it left is the reader's to say.
        self.shut(written.err().filter(|e| !self.is_closing() && !e.io_error().is_some_and(is_gone)));
    }

    /// Sends what the handshake needs, until it is done; none if the reader gave up.
    fn write_handshake(&self, writer: &mut dyn Write, control: &Inbox<ToWriter>) -> Result<Option<Box<Sender>>> {
        let timeout = Some(self.options.handshake_timeout).filter(|timeout| !timeout.is_zero());
        let deadline = timeout.and_then(|timeout| self.began.checked_add(timeout));
        loop {
            let next = match deadline {
                Some(deadline) => control.recv_deadline(deadline),
                None => control.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(ToWriter::Bytes(bytes)) => self.write(writer, &bytes).map_err(ended_early)?,
                Ok(ToWriter::Established(sender, bytes)) => {
                    self.write(writer, &bytes).map_err(ended_early)?;
                    return Ok(Some(sender));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.options.handshake_timeout.as_secs_f32();
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        format!("the peer did not finish the handshake within {seconds} s"),
                    ));
                }
            }
        }
    }

    fn write_messages(self: &Arc<Self>, writer: &mut dyn Write, mut sender: Sender, woken: &Inbox<()>) -> Result<()> {
        let mut out = Vec::new();
        let mut written = Instant::now();
        while !self.is_closing() {
            // What callers found, and cannot do themselves, is done here: the reader may be waiting for the peer.
            let cores = self.state.lock().cores.clone();
            cores.iter().filter(|core| core.has_work(self)).for_each(|core| core.drive_on(self));
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
            let now = Instant::now();
            let mut until: Option<Instant> = None;
            let mut sooner = |at: Option<Instant>| until = [until, at].into_iter().flatten().min();
            if !self.options.keep_alive.is_zero() {
                let due = written.checked_add(self.options.keep_alive);
                if due.is_some_and(|due| due <= now) {
                    sender.keep_alive(&mut out);
                    self.write(writer, &out)?;
                    written = now;
                    continue;
                }
                sooner(due);
            }
            if !self.options.idle_timeout.is_zero() {
                let heard = self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed));
                let due = heard.checked_add(self.options.idle_timeout);
                if due.is_some_and(|due| due <= now) {
                    let seconds = self.options.idle_timeout.as_secs_f32();
                    return Err(Error::new(ErrorKind::Timeout, format!("nothing came from the peer for {seconds} s")));
                }
                sooner(due);
            }
            // Some decisions of the machine wait for time to pass; each connection looks after the cores it carries.
            cores.iter().for_each(|core| sooner(core.next_deadline()));
            let timed_out = match until {
                Some(until) => woken.recv_deadline(until) == Err(RecvTimeoutError::Timeout),
                None => woken.recv().is_err(),
            };
            if timed_out {
                cores.iter().for_each(|core| core.drive_on(self));
            }
        }
        Ok(())
    }

    /// Seals what is queued, and then answers, up to about [`WRITE_BYTES`].
    fn gather(&self, sender: &mut Sender, out: &mut Vec<u8>) -> Result<()> {
        loop {
            let frame = self.state.lock().mux.take();
            match frame {
                Some(frame) => sender.seal(out, |w| {
                    w.bytes(&frame);
                })?,
                None => break,
            }
            if out.len() >= WRITE_BYTES {
                return Ok(());
            }
        }
        while out.len() < WRITE_BYTES {
            let next = {
                let mut state = self.state.lock();
                if state.mux.has_outgoing() {
                    return Ok(());
                }
                let Some((core, peer, channel)) = state.serving.pop_front() else { return Ok(()) };
                let Some(number) = state.mux.wire_id(channel) else { continue };
                (core, peer, channel, number)
            };
            let (core, peer, channel, number) = next;
            let mut more = true;
            let mut failed = None;
            let before = out.len();
            sender.seal(out, |w| {
                let mut batch = Batch::new(w);
                while more && !batch.is_full() {
                    match core.answer(peer, number, &mut batch) {
                        Ok(answered) => more = answered,
                        Err(error) => {
                            failed = Some(error);
                            more = false;
                        }
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            debug_assert!(out.len() > before);
            if more {
                self.state.lock().serving.push_back((core, peer, channel));
            }
        }
        Ok(())
    }

    fn write(&self, writer: &mut dyn Write, bytes: &[u8]) -> Result<()> {
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        written.map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                let seconds = self.options.idle_timeout.as_secs_f32();
                Error::new(ErrorKind::Timeout, format!("the peer did not read for {seconds} s"))
            }
            _ => e.into(),
        })
    }
}
