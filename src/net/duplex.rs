//! Byte streams that a connection can run over: TCP, Unix sockets, a pipe in memory, or halves of your own.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, Rank};

/// A stream of bytes both ways that can be taken apart, so that one thread reads while another writes.
pub trait Duplex {
    /// The two halves. `write_timeout` is how long a write may take before it fails, where the stream can do that.
    fn split(self, write_timeout: Duration) -> io::Result<Halves>;
}

/// The two halves of a byte stream, and how to end both.
///
/// For streams of your own, such as a serial line:
///
/// ```
/// use hypercore::net::Halves;
///
/// # fn line() -> (std::io::Empty, std::io::Sink) { (std::io::empty(), std::io::sink()) }
/// let (reader, writer) = line();
/// let halves = Halves::new(reader, writer, || { /* make reads and writes that are under way return */ });
/// # drop(halves);
/// ```
pub struct Halves {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) writer: Box<dyn Write + Send>,
    pub(crate) close: Box<dyn Fn() + Send + Sync>,
    pub(crate) address: Option<SocketAddr>,
}

impl Halves {
    /// Halves of a stream. `close` is called, from any thread and perhaps more than once, to end it: reads and writes that block
    /// must return then, for closing a connection waits for its threads. It must not call into a core or wait for other threads.
    ///
    /// One thread reads and another writes, and each waits as long as the half that it has lets it. They look at the deadlines of
    /// [`ConnectionOptions`](crate::net::ConnectionOptions) whenever a read or a write returns, also where it returns
    /// [`TimedOut`](io::ErrorKind::TimedOut) or [`WouldBlock`](io::ErrorKind::WouldBlock): that is no error here, and tried again. So
    /// a peer that reads nothing is dropped after [`idle_timeout`](crate::net::ConnectionOptions::idle_timeout) where `writer` gives
    /// up a write that waits, after some seconds or minutes, as a socket with a write timeout does; and after four times that
    /// where `reader` returns now and then, because it gives up too or because the peer goes on to send. Where both wait for
    /// ever, a peer that neither reads nor sends is kept until somebody closes the connection. A half that does not block at
    /// all, and returns `WouldBlock` at once, is tried without a pause.
    ///
    /// To be told `idle_timeout`, implement [`Duplex`] instead.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        close: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Halves { reader: Box::new(reader), writer: Box::new(writer), close: Box::new(close), address: None }
    }
}

impl Duplex for Halves {
    fn split(self, _: Duration) -> io::Result<Halves> {
        Ok(self)
    }
}

impl fmt::Debug for Halves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halves").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Duplex for TcpStream {
    fn split(self, write_timeout: Duration) -> io::Result<Halves> {
        // Messages are gathered into frames before they are written: waiting for more would only delay them.
        self.set_nodelay(true)?;
        self.set_nonblocking(false)?;
        self.set_read_timeout(None)?;
        self.set_write_timeout(Some(write_timeout).filter(|t| !t.is_zero()))?;
        let address = self.peer_addr().ok();
        let (writer, closer) = (self.try_clone()?, self.try_clone()?);
        let close = move || {
            // Fails only where it is shut down already.
            let _ = closer.shutdown(Shutdown::Both);
        };
        Ok(Halves { address, ..Halves::new(self, writer, close) })
    }
}

#[cfg(unix)]
impl Duplex for std::os::unix::net::UnixStream {
    fn split(self, write_timeout: Duration) -> io::Result<Halves> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(None)?;
        self.set_write_timeout(Some(write_timeout).filter(|t| !t.is_zero()))?;
        let (writer, closer) = (self.try_clone()?, self.try_clone()?);
        let close = move || {
            let _ = closer.shutdown(Shutdown::Both);
        };
        Ok(Halves::new(self, writer, close))
    }
}

/// How many bytes a pipe holds before writing to it blocks.
const PIPE_BYTES: usize = 64 * 1024;

/// One end of a pipe in memory; see [`pipe`].
///
/// Dropped, it is closed: what is on its way to the other end still arrives there.
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

/// A byte stream between two ends in this process, for tests and for cores that meet without a network. Each direction holds 64 KiB.
///
/// ```
/// use hypercore::Hypercore;
/// use hypercore::net::{Role, pipe};
///
/// let writer = Hypercore::in_memory()?;
/// writer.append(b"hello")?;
/// let reader = Hypercore::options().key(writer.key()).open_in(hypercore::Memory::new())?;
/// let (a, b) = pipe();
/// let (_ours, _theirs) = (writer.replicate(a, Role::Responder)?, reader.replicate(b, Role::Initiator)?);
/// assert_eq!(reader.get(0)?, b"hello");
/// # Ok::<(), hypercore::Error>(())
/// ```
pub fn pipe() -> (Pipe, Pipe) {
    let (one, other) = (Arc::new(Flow::new()), Arc::new(Flow::new()));
    let end = |incoming: &Arc<Flow>, outgoing: &Arc<Flow>| Pipe {
        reader: PipeReader(incoming.clone()),
        writer: PipeWriter { flow: outgoing.clone(), timeout: Duration::ZERO },
    };
    (end(&one, &other), end(&other, &one))
}

impl Duplex for Pipe {
    fn split(self, write_timeout: Duration) -> io::Result<Halves> {
        let Pipe { reader, mut writer } = self;
        writer.timeout = write_timeout;
        let (incoming, outgoing) = (reader.0.clone(), writer.flow.clone());
        let close = move || {
            incoming.close();
            outgoing.close();
        };
        Ok(Halves::new(reader, writer, close))
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

/// One direction of a pipe.
struct Flow {
    state: Mutex<FlowState>,
    changed: Condvar,
}

#[derive(Default)]
struct FlowState {
    bytes: VecDeque<u8>,
    closed: bool,
}

impl Flow {
    fn new() -> Self {
        Flow { state: Mutex::new(Rank::Signal, FlowState::default()), changed: Condvar::new() }
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

struct PipeReader(Arc<Flow>);

impl Read for PipeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        while state.bytes.is_empty() && !state.closed && !out.is_empty() {
            state = self.0.changed.wait(state);
        }
        let n = state.bytes.read(out)?;
        drop(state);
        self.0.changed.notify_all();
        Ok(n)
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct PipeWriter {
    flow: Arc<Flow>,
    timeout: Duration,
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let deadline = if self.timeout.is_zero() { None } else { Instant::now().checked_add(self.timeout) };
        let mut state = self.flow.state.lock();
        while state.bytes.len() >= PIPE_BYTES && !state.closed {
            let (guard, late) = self.flow.changed.wait_until(state, deadline);
            state = guard;
            if late && state.bytes.len() >= PIPE_BYTES {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = bytes.len().min(PIPE_BYTES - state.bytes.len());
        state.bytes.extend(&bytes[..n]);
        drop(state);
        self.flow.changed.notify_all();
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.flow.close();
    }
}
