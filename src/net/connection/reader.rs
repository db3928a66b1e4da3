//! The reader thread: the handshake, then messages. It never writes to the socket.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::Sender as Outbox;

use super::idle_timeout::Progress;
use super::inner::{Identity, Inner, ToWriter, catch_panic, closed_in_handshake, is_gone, is_timeout};
use crate::logging;
use crate::net::driver::Driver;
use crate::sync;
use crate::wire::batch;
use crate::wire::noise_stream::{NoiseStream, Receiver};
use crate::{Error, ErrorKind, Result};

/// After this many messages of one frame, their actions are carried out before the next are handled: a frame
/// may hold millions of small messages, each of which may add a larger message or a record here. A peer has
/// fewer responses than this to send at a time.
const MAX_MESSAGES_PER_DRIVE: usize = 1024;

impl Inner {
    pub(super) fn read_until_closed(
        self: Arc<Self>,
        mut reader: Box<dyn Read + Send>,
        noise: NoiseStream,
        to_writer: Outbox<ToWriter>,
        writing: JoinHandle<()>,
    ) {
        sync::enter_connection();
        let read = catch_panic(|| self.read_all(&mut *reader, noise, to_writer));
        self.shut(read.err().filter(|_| !self.is_closing()));
        drop(reader);
        // The writer needs nothing of this thread in order to end. Joining it here leaves one handle to wait for.
        let _ = writing.join();
        let (channels, placeholders, cores, error) = {
            let mut state = self.state.lock();
            state.closed = true;
            state.responding.clear();
            let (channels, placeholders) = (std::mem::take(&mut state.channels), std::mem::take(&mut state.connecting));
            (channels, placeholders, std::mem::take(&mut state.cores), state.error.take())
        };
        for (core, peer) in channels.into_values().chain(placeholders) {
            core.peer_closed(peer);
        }
        for core in cores {
            core.remove_connection(&*self);
        }
        *self.close.lock() = None;
        self.ended.set(error);
    }

    fn read_all(
        self: &Arc<Self>,
        reader: &mut dyn Read,
        mut noise: NoiseStream,
        to_writer: Outbox<ToWriter>,
    ) -> Result<()> {
        let mut progress = Progress::new(Instant::now());
        let gone = |_| Error::new(ErrorKind::Closed, "the connection was closed during the handshake");
        loop {
            let output = noise.take_output();
            if !output.is_empty() {
                to_writer.send(ToWriter::Bytes(output)).map_err(gone)?;
            }
            let n = self.read_some(reader, noise.space(), &mut progress)?;
            if n == 0 {
                return Err(closed_in_handshake());
            }
            noise.filled(n);
            if noise.advance()? {
                break;
            }
        }
        let established = noise.split()?;
        let identity =
            Identity { remote_public_key: established.remote_public_key, handshake_hash: established.handshake_hash };
        let _ = self.identity.set(identity);
        logging::event!(debug, "connection to {}: handshake done", self.peer_name());
        to_writer.send(ToWriter::Established(Box::new(established.sender), established.output)).map_err(gone)?;
        drop(to_writer);
        self.open_channels()?;
        self.read_messages(reader, established.receiver)
    }

    fn read_messages(self: &Arc<Self>, reader: &mut dyn Read, mut receiver: Receiver) -> Result<()> {
        let mut dirty = Vec::new();
        let mut handled = 0;
        let mut progress = Progress::new(Instant::now());
        loop {
            while let Some(frame) = receiver.next_message()? {
                progress.restart(Instant::now());
                for message in batch::messages(frame) {
                    if handled == MAX_MESSAGES_PER_DRIVE {
                        handled = 0;
                        self.drive_all(&mut dirty);
                    }
                    if self.is_closing() {
                        return Ok(());
                    }
                    handled += 1;
                    self.receive(message?, &mut dirty)?;
                }
            }
            handled = 0;
            self.drive_all(&mut dirty);
            self.wake_if_needed();
            let at_boundary = receiver.is_between_messages();
            let n = self.read_some(reader, receiver.space(), &mut progress)?;
            if at_boundary {
                progress.restart(Instant::now());
            }
            if n == 0 {
                return match receiver.is_between_messages() {
                    true => Ok(()),
                    false => Err(Error::protocol("the connection was cut in the middle of a message")),
                };
            }
            receiver.filled(n);
        }
    }

    fn drive_all(&self, dirty: &mut Vec<Arc<Driver>>) {
        for core in dirty.drain(..) {
            core.drive_on(self);
        }
    }

    fn read_some(&self, reader: &mut dyn Read, space: &mut [u8], progress: &mut Progress) -> Result<usize> {
        progress.resume(Instant::now());
        self.receiving.start(progress);
        let read = loop {
            match reader.read(space) {
                Ok(n) => break Ok(n),
                // The caller that closed the connection has recorded the reason.
                Err(_) if self.is_closing() => return Ok(0),
                Err(e) if is_timeout(&e) => self.check_deadlines()?,
                // A peer that closed with unread data resets the connection.
                Err(e) if is_gone(&e) => return Ok(0),
                Err(e) => break Err(Error::from(e)),
            }
        };
        self.receiving.stop();
        let n = read?;
        self.received.fetch_add(n as u64, Ordering::Relaxed);
        progress.moved(n, Instant::now());
        // The peer may go on sending and read nothing.
        self.check_deadlines()?;
        Ok(n)
    }
}
