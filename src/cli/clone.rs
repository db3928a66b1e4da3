//! Downloading a core from peers.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ValueHint};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use hypercore::{Download, Error, ErrorKind, Hypercore, Key, Subscription, UpdateOptions};

use super::args::Args;
use super::command::{Action, Command, flag, option, positional};
use super::dial::Dialers;
use super::output::Output;
use super::progress::{Progress, Unit, plural};
use super::screen::{self, note};
use super::status::Status;
use super::values::{self, Range, address, block_range, directory, duration};
use super::{Failure, OPENING, Result, WRITING, about, check_encryption, options, signals, warn_of_loss};

pub const CLONE: Command = Command {
    name: "clone",
    usage: "KEY DIR --from ADDR... [--range START:END] [--live] [--timeout SECONDS]",
    about: "Download a core from one or several peers",
    details: "Downloads the blocks that DIR does not hold, verifies and stores them. Ends when the whole log, as long as \
              it is now, or all of the range is held. However it ends, the stored blocks stay, and the next clone goes \
              on from there.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore clone 51ckunxisfzhtbj1ow4h6uh5x71xonmc3xm4fyiy58cq7571rzdo \\\n    copy --from 127.0.0.1:4977",
    action: Action::Run(clone),
};

fn arguments() -> Vec<Arg> {
    vec![
        positional("KEY", values::key(), "Public key of the core: 64 hex digits or the 52-character id"),
        positional("DIR", directory(), "Directory of the core, created if missing").value_hint(ValueHint::DirPath),
        option("from", "ADDR", address(), "HOST:PORT of a peer; several are asked at the same time")
            .required(true)
            .action(ArgAction::Append),
        option("range", "START:END", block_range(), "Only the blocks from START up to END; either may be left out"),
        flag("live", "Follow the log until SIGINT or SIGTERM, and print its length whenever it changes"),
        option(
            "timeout",
            "SECONDS",
            duration(),
            "Fail after this time without progress; 0 and --live wait without limit [default: 30]",
        ),
    ]
}

/// What a signal does.
type Ending = Box<dyn FnOnce() + Send>;

const TIMEOUT: Duration = Duration::from_secs(30);
const CONFLICT: &str = "a peer has another log of the same key: whoever holds the key signed two; nothing that is stored here \
                        was changed";
/// So long after the first peer came, the others have to say whether they have a longer log.
const GRACE: Duration = Duration::from_secs(2);

fn clone(args: &Args) -> Result<()> {
    let key: Key = args.required("KEY")?;
    let dir = args.dir()?;
    let range = args.get("range").unwrap_or((0, None));
    let live = args.has("live");
    let timeout = args.get("timeout").unwrap_or(TIMEOUT);
    let timeout = Some(timeout).filter(|timeout| !live && !timeout.is_zero());
    let addresses: Vec<String> = args.all("from");

    // A signal that comes before there is anything to end is answered then.
    let (ending, end) = bounded::<Ending>(1);
    if live {
        signals::on_end(move || end.recv().map_or((), |end| end()))?;
    }
    let core = options(args)?.key(key).open(&dir).map_err(|e| about(&dir, e))?;
    warn_of_loss(&core, &dir);
    let status = if live { Status::show(std::slice::from_ref(&core))? } else { None };
    let fetch = Fetch::start(&core, &dir, &addresses, range)?;
    // What came shows whether the encryption key is the right one.
    let done = if live {
        fetch.follow_until_signal(&ending)
    } else {
        fetch.finish(timeout).and_then(|()| check_encryption(&core, &dir))
    };
    let (length, byte_length) = (core.len(), core.byte_length());
    // What came is stored, whatever else went wrong.
    let done = done.and(core.close().map_err(|e| about(&dir, e)));
    drop(status);
    done?;
    if live {
        return Ok(());
    }

    let mut out = Output::stdout();
    out.line(format_args!("length {length}"))?;
    out.line(format_args!("byte-length {byte_length}"))?;
    out.finish()
}

/// A download from addresses under way.
///
/// Whatever happens rings a bell; who waits for the bell then looks at what the core and the peers say.
pub struct Fetch<'a> {
    core: &'a Hypercore,
    dir: &'a Path,
    start: u64,
    /// None: the end of the log.
    end: Option<u64>,
    /// How many of the blocks were here from the start.
    held_before: u64,
    shared: Arc<Shared>,
    bell: Receiver<()>,
    dialers: Arc<Dialers>,
    _subscriptions: Vec<Subscription>,
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.dialers.stop();
    }
}

struct Shared {
    ringer: Sender<()>,
    /// Whether all peers that are connected have said what they have, and none has more than we know of.
    settled: AtomicBool,
    downloaded: AtomicU64,
    last_progress: Mutex<Instant>,
    /// When the first peer came.
    joined: Mutex<Option<Instant>>,
    /// What makes going on senseless.
    failure: Mutex<Option<String>>,
    stopped: AtomicBool,
}

impl<'a> Fetch<'a> {
    /// Begins to download the blocks from `range.0` up to `range.1`, or the log's end, into `core`, which is in `dir`.
    pub fn start(core: &'a Hypercore, dir: &'a Path, addresses: &[String], range: Range) -> Result<Self> {
        let (start, end) = range;
        let (ringer, bell) = bounded(1);
        let shared = Arc::new(Shared {
            ringer,
            settled: AtomicBool::new(false),
            downloaded: AtomicU64::new(0),
            last_progress: Mutex::new(Instant::now()),
            joined: Mutex::new(None),
            failure: Mutex::new(None),
            stopped: AtomicBool::new(false),
        });
        let (to_sync, peers) = unbounded();
        let mut subscriptions = subscribe(core, &shared);
        let rings = shared.clone();
        let dialers = Arc::new(Dialers::start(core, addresses, move || rings.ring())?);
        let (of_peer, joins) = (shared.clone(), dialers.clone());
        subscriptions.push(core.on_peer_add(move |peer| {
            of_peer.settled.store(false, Ordering::SeqCst);
            of_peer.join();
            joins.joined(peer);
            let _ = to_sync.send(());
        }));
        spawn_settling(core, &shared, peers)?;
        let held_before = spawn_download(core, &shared, range).map_err(|e| about(dir, e))?;
        Ok(Fetch { core, dir, start, end, held_before, shared, bell, dialers, _subscriptions: subscriptions })
    }

    /// Waits until everything is here, or nothing came for as long as `timeout`.
    pub fn finish(&self, timeout: Option<Duration>) -> Result<()> {
        let mut here = Here::new(self.start);
        let mut progress = Progress::new("cloning", Unit::Blocks, None).after(self.held_before);
        let grace = timeout.map_or(GRACE, |timeout| GRACE.min(timeout / 2));
        // Length and fork that are the whole log, once that is known.
        let mut whole: Option<(u64, u64)> = None;
        let mut told_short = false;
        loop {
            self.check()?;
            let (length, fork) = (self.core.len(), self.core.fork());
            if whole.is_none_or(|(_, of)| of != fork) && self.is_in_step(length, fork, grace) {
                whole = Some((length, fork));
            }
            let end = match (self.end, whole) {
                (Some(end), _) => Some(end),
                (None, Some((whole, _))) => Some(whole.max(self.start)),
                (None, None) => None,
            };
            let now_here = here.up_to(self.core).map_err(|e| about(self.dir, e))?;
            if end.is_some_and(|end| now_here >= end) {
                return Ok(());
            }
            if whole.is_some() && self.end.is_some_and(|end| end > length) && !std::mem::replace(&mut told_short, true)
            {
                note(format_args!("warning: the log has {} so far; waiting for more", plural(length, "block")));
            }
            progress.expect(end.unwrap_or(length).saturating_sub(self.start));
            progress.at(self.held_before + self.shared.downloaded.load(Ordering::Relaxed));

            let look = if whole.is_none() { self.look_again(grace) } else { None };
            // What no clock will ever show is without limit.
            let patience = timeout.and_then(|timeout| self.shared.last_progress().checked_add(timeout));
            match self.wait([look, patience].into_iter().flatten().min()) {
                Ok(()) => {}
                Err(()) if patience.is_none_or(|at| at > Instant::now()) => {}
                Err(()) => return Err(self.nothing_came(timeout.unwrap_or_default(), now_here)),
            }
        }
    }

    /// Prints the log's length whenever everything up to it is here, until SIGINT or SIGTERM comes and what is given to `ending` is done.
    fn follow_until_signal(&self, ending: &Sender<Ending>) -> Result<()> {
        let (core, shared) = (self.core.clone(), self.shared.clone());
        let _ = ending.send(Box::new(move || {
            shared.stopped.store(true, Ordering::SeqCst);
            // Ends what waits for the network; what is being stored is, first.
            let _ = core.close();
            shared.ring();
        }));
        let printer = Printer::start(&self.shared)?;
        let mut here = Here::new(self.start);
        let mut printed = (0, 0);
        let mut known = false;
        loop {
            if self.shared.stopped.load(Ordering::SeqCst) {
                return Ok(());
            }
            match self.step(&printer, &mut here, &mut known, &mut printed) {
                // Closing comes in the middle of anything.
                Err(_) if self.shared.stopped.load(Ordering::SeqCst) => return Ok(()),
                stepped => stepped?,
            }
            let _ = self.wait(if known { None } else { self.look_again(GRACE) });
        }
    }

    fn step(&self, printer: &Printer, here: &mut Here, known: &mut bool, printed: &mut (u64, u64)) -> Result<()> {
        self.check()?;
        printer.check()?;
        let (length, fork) = (self.core.len(), self.core.fork());
        // What an earlier run left is not told of before a peer has said whether it is still the log.
        *known = *known || self.is_in_step(length, fork, GRACE);
        let end = self.end.unwrap_or(length).min(length);
        if !*known || (length, fork) == *printed || here.up_to(self.core).map_err(|e| about(self.dir, e))? < end {
            return Ok(());
        }
        check_encryption(self.core, self.dir)?;
        if printer.takes(length) {
            *printed = (length, fork);
        }
        Ok(())
    }

    /// Whether we know as much of the log as all who have said how long it is: somebody has, and nobody is left who might have more, or
    /// has had `grace` to say so.
    fn is_in_step(&self, length: u64, fork: u64, grace: Duration) -> bool {
        let peers = self.core.peers();
        let mut told = peers
            .iter()
            .filter(|peer| peer.remote_uploading())
            .map(|peer| peer.remote_fork() < fork || (peer.remote_fork() == fork && peer.remote_length() <= length));
        let is_late = self.shared.joined().is_some_and(|joined| joined.elapsed() >= grace);
        // Who claims more and was asked for it in vain is disregarded only where the core says that it was.
        match self.shared.settled.load(Ordering::SeqCst) {
            true => (self.dialers.are_settled() || is_late) && told.any(|is_behind| is_behind),
            false => is_late && told.next().is_some_and(|is_behind| is_behind) && told.all(|is_behind| is_behind),
        }
    }

    /// When to look at the peers though nothing happened: what a peer says does not ring if it says that it has nothing.
    fn look_again(&self, grace: Duration) -> Option<Instant> {
        let (joined, now) = (self.shared.joined()?, Instant::now());
        Some(if now < joined + grace { joined + grace } else { now + grace })
    }

    fn check(&self) -> Result<()> {
        match &*self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(Failure::Failed(format!("{}: {failure}", self.dir.display()))),
            None => Ok(()),
        }
    }

    /// Waits for the bell; an error if it did not ring before `until`.
    fn wait(&self, until: Option<Instant>) -> std::result::Result<(), ()> {
        match until {
            None => self.bell.recv().map_err(|_| ()),
            Some(until) => match self.bell.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => Err(()),
                _ => Ok(()),
            },
        }
    }

    fn nothing_came(&self, timeout: Duration, here: u64) -> Failure {
        let why = match (self.dialers.trouble(), self.shared.joined()) {
            (Some(trouble), _) => format!(" ({trouble})"),
            (None, None) => " (the other side has not shown that it has this core: check KEY and --from)".into(),
            (None, Some(_)) => String::new(),
        };
        Failure::Failed(format!(
            "{}: nothing came for {timeout:?}{why}; what is here stays, up to block {here} without a gap: clone again to go on",
            self.dir.display(),
        ))
    }
}

impl Shared {
    fn ring(&self) {
        // If it rings already, that will do.
        let _ = self.ringer.try_send(());
    }

    fn progressed(&self) {
        *self.last_progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.ring();
    }

    fn last_progress(&self) -> Instant {
        *self.last_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self) {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.ring();
    }

    fn joined(&self) -> Option<Instant> {
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_by(&self, error: &Error) {
        self.fail(if error.kind() == ErrorKind::Conflict { CONFLICT.into() } else { error.to_string() });
    }

    fn fail(&self, failure: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.ring();
    }
}

/// Prints lengths on a thread of its own: where nobody reads standard output, that is all that stands still.
struct Printer {
    lengths: Sender<u64>,
    failed: Receiver<Failure>,
}

impl Printer {
    /// Rings the bell whenever it can take another length, or has failed.
    fn start(shared: &Arc<Shared>) -> Result<Self> {
        let (lengths, taken) = bounded(1);
        let (failing, failed) = unbounded();
        let shared = shared.clone();
        let print = move || {
            for length in taken {
                if let Err(failure) = print_length(length) {
                    let _ = failing.send(failure);
                    return shared.ring();
                }
                shared.ring();
            }
        };
        super::thread("print").spawn(print).map_err(Error::from)?;
        Ok(Printer { lengths, failed })
    }

    /// Whether `length` will be printed; not if another one is still waiting for that.
    fn takes(&self, length: u64) -> bool {
        self.lengths.try_send(length).is_ok()
    }

    fn check(&self) -> Result<()> {
        self.failed.try_recv().map_or(Ok(()), Err)
    }
}

fn print_length(length: u64) -> Result<()> {
    let print = || {
        let mut out = Output::stdout();
        out.line(format_args!("length {length}"))?;
        out.finish()
    };
    // What is drawn is in the way on a terminal only; elsewhere nobody who draws is to wait until this is read.
    if io::stdout().is_terminal() { screen::above(print) } else { print() }
}

/// How far the log is here without a gap, from a block on.
struct Here {
    start: u64,
    at: u64,
    fork: u64,
}

impl Here {
    fn new(start: u64) -> Self {
        Here { start, at: start, fork: 0 }
    }

    /// The first block from the start on that is not here.
    fn up_to(&mut self, core: &Hypercore) -> hypercore::Result<u64> {
        let fork = core.fork();
        if fork != self.fork {
            // Blocks that were here may have been cut.
            (self.at, self.fork) = (self.start, fork);
        }
        while let Some(held) = core.held_from(self.at)?.filter(|held| held.start == self.at) {
            self.at = held.end;
        }
        Ok(self.at)
    }
}

/// Has what happens to the core ring the bell.
fn subscribe(core: &Hypercore, shared: &Arc<Shared>) -> Vec<Subscription> {
    let (of_download, of_append, of_truncate) = (shared.clone(), shared.clone(), shared.clone());
    let (of_conflict, of_leave) = (shared.clone(), shared.clone());
    vec![
        core.on_download(move |_, _, _| {
            of_download.downloaded.fetch_add(1, Ordering::Relaxed);
            of_download.progressed();
        }),
        core.on_append(move || of_append.progressed()),
        core.on_truncate(move |_, _| of_truncate.progressed()),
        core.on_peer_remove(move |_| of_leave.ring()),
        core.on_conflict(move |_, _| of_conflict.fail(CONFLICT.into())),
        core.on_verification_error(|error, _| note(format_args!("warning: {}", super::one_line(error)))),
    ]
}

/// After each peer that comes, waits until it is known of all whether they have more.
fn spawn_settling(core: &Hypercore, shared: &Arc<Shared>, peers: Receiver<()>) -> Result<()> {
    let (core, shared) = (core.clone(), shared.clone());
    let settle = move || {
        for () in peers {
            loop {
                match core.update_with(UpdateOptions::new().wait(true).force(true)) {
                    Ok(true) => shared.progressed(),
                    Ok(false) => break,
                    Err(error) if error.kind() == ErrorKind::Closed => return,
                    Err(error) => return shared.fail_by(&error),
                }
            }
            shared.settled.store(true, Ordering::SeqCst);
            shared.ring();
        }
    };
    super::thread("settle").spawn(settle).map(|_| ()).map_err(|e| Error::from(e).into())
}

/// Begins the download, and tells of its failure; gives how many of its blocks are here already.
fn spawn_download(core: &Hypercore, shared: &Arc<Shared>, range: Range) -> hypercore::Result<u64> {
    let downloading = core.download(match range {
        (start, Some(end)) => Download::range(start..end),
        (start, None) => Download::range(start..),
    })?;
    let held = downloading.progress()?.blocks;
    let shared = shared.clone();
    let wait = move || match downloading.wait() {
        Err(error) if error.kind() != ErrorKind::Closed => shared.fail_by(&error),
        _ => shared.ring(),
    };
    super::thread("download").spawn(wait)?;
    Ok(held)
}
