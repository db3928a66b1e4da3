//! The byte streams that a connection can run over: TCP, Unix sockets, a pipe in memory, or halves of your own.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, Rank};

/// A bidirectional byte stream that can be split, so that one thread reads while another writes.
pub trait Duplex {
    /// Splits the stream. `write_timeout` is how long one write may block before it fails, if the stream
    /// supports that; `None` is without limit.
    fn split(self, write_timeout: Option<Duration>) -> io::Result<Halves>;
}

/// The two halves of a byte stream, and a function that ends both.
///
/// For streams of your own, such as a serial line:
///
/// ```
/// use hypercore::net::Halves;
///
/// # fn line() -> (std::io::Empty, std::io::Sink) { (std::io::empty(), std::io::sink()) }
/// let (reader, writer) = line();
/// let halves = Halves::new(reader, writer, || { /* make pending reads and writes return */ });
/// # drop(halves);
/// ```
pub struct Halves {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) writer: Box<dyn Write + Send>,
    pub(crate) close: Box<dyn Fn() + Send + Sync>,
    pub(crate) address: Option<SocketAddr>,
}

impl Halves {
    /// The halves of a stream. `close` ends the stream: pending reads and writes must then return, because
    /// closing a connection waits for its threads. It is called from any thread, perhaps more than once, and
    /// must not call into a core or wait for other threads.
    ///
    /// One thread reads and another writes, and each blocks as long as its half does. They check the deadlines
    /// of [`ConnectionOptions`](crate::net::ConnectionOptions) whenever a read or write returns. If it returns
    /// [`TimedOut`](io::ErrorKind::TimedOut) or [`WouldBlock`](io::ErrorKind::WouldBlock), they repeat the call. So a
    /// peer that reads nothing is dropped
    ///
    /// - after [`idle_timeout`](crate::net::ConnectionOptions::idle_timeout), if a blocked write of `writer`
    ///   returns after some seconds or minutes, as a socket with a write timeout does;
    /// - after four times that, if only `reader` returns now and then, because it has a timeout or because the
    ///   peer keeps sending.
    ///
    /// If both block without end, a peer that neither reads nor sends is kept until the connection is closed. A
    /// half that does not block at all, and returns `WouldBlock` at once, is called again without a pause.
    ///
    /// To be given `idle_timeout`, implement [`Duplex`] instead.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        close: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Halves { reader: Box::new(reader), writer: Box::new(writer), close: Box::new(close), address: None }
    }
}

impl Duplex for Halves {
    fn split(self, _: Option<Duration>) -> io::Result<Halves> {
        Ok(self)
    }
}

impl fmt::Debug for Halves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halves").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The operating system takes a timeout of zero for none at all.
fn at_least_a_millisecond(timeout: Option<Duration>) -> Option<Duration> {
    timeout.map(|timeout| timeout.max(Duration::from_millis(1)))
}

impl Duplex for TcpStream {
    fn split(self, write_timeout: Option<Duration>) -> io::Result<Halves> {
        // Messages are gathered into frames before they are written, so Nagle's algorithm would only add delay.
        self.set_nodelay(true)?;
        self.set_nonblocking(false)?;
        self.set_read_timeout(None)?;
        self.set_write_timeout(at_least_a_millisecond(write_timeout))?;
        let address = self.peer_addr().ok();
        let (writer, closer) = (self.try_clone()?, self.try_clone()?);
        let close = move || {
            // Fails only if the socket is shut down already.
            let _ = closer.shutdown(Shutdown::Both);
        };
        Ok(Halves { address, ..Halves::new(self, writer, close) })
    }
}

#[cfg(unix)]
impl Duplex for std::os::unix::net::UnixStream {
    fn split(self, write_timeout: Option<Duration>) -> io::Result<Halves> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(None)?;
        self.set_write_timeout(at_least_a_millisecond(write_timeout))?;
        let (writer, closer) = (self.try_clone()?, self.try_clone()?);
        let close = move || {
            let _ = closer.shutdown(Shutdown::Both);
        };
        Ok(Halves::new(self, writer, close))
    }
}

/// How many bytes one direction of a pipe holds before a write blocks.
const PIPE_BYTES: usize = 64 * 1024;

/// One end of a pipe in memory; see [`pipe`]. Dropping it closes the pipe; bytes on their way to the other
/// end still arrive.
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

/// A byte stream between two ends in this process, for tests and for cores that replicate without a network.
/// Each direction holds 64 KiB.
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
        writer: PipeWriter { flow: outgoing.clone(), timeout: None },
    };
    (end(&one, &other), end(&other, &one))
}

impl Duplex for Pipe {
    fn split(self, write_timeout: Option<Duration>) -> io::Result<Halves> {
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
    timeout: Option<Duration>,
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
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
