//! SIGINT and SIGTERM, as a request to end in good order; SIGXFSZ, as nothing; SIGBUS, as an error.

#[cfg(unix)]
use std::sync::Arc;

#[cfg(unix)]
use super::failure::Failure;
use super::failure::Result;
#[cfg(target_os = "linux")]
use super::terminal::screen;
#[cfg(unix)]
use super::thread::thread;

/// Has a write beyond the process's file-size limit fail like one on a full disk; without this its signal ends the process.
#[cfg(unix)]
pub fn survive_file_size_limits() -> Result<()> {
    let failed = |e: std::io::Error| Failure::Failed(format!("SIGXFSZ cannot be handled: {e}"));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map(|_| ()).map_err(failed)
}

/// There is no such limit here.
#[cfg(not(unix))]
pub fn survive_file_size_limits() -> Result<()> {
    Ok(())
}

/// What SIGBUS means in a process that reads files through memory maps.
#[cfg(target_os = "linux")]
const LOST: &str = "\
    error: a file of the core was cut by another program, or the disk failed, while it was read through a memory map; stop \
    that program or look at the system's log, then run `hypercore verify`; with --no-map such a failure is an error that \
    names the file\n";

/// Ends the process with an error in one line where a read through a memory map fails, which is SIGBUS; without this
/// that signal ends it. Once is enough, and a second call does nothing.
///
/// A thread of its own writes the line. The thread that failed runs into the signal again and again until then.
#[cfg(target_os = "linux")]
pub fn report_lost_maps() -> Result<()> {
    use std::fs::File;
    use std::io::{Write, stderr};
    use std::os::fd::AsFd;
    use std::sync::Once;

    use signal_hook::consts::SIGBUS;
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::{exit, raise};

    static ONCE: Once = Once::new();
    let mut done = Ok(());
    ONCE.call_once(|| {
        let start = || {
            // Rust's own handler, which is for stacks that overflow (here by another signal, SIGSEGV), gives the
            // signal its default back when it first comes, and the second time it would end the process. So it has to
            // come once, before ours is there.
            if is_caught(SIGBUS) {
                raise(SIGBUS)?;
            }
            let mut signals = Signals::new([SIGBUS])?;
            // Not by way of the lock of standard error: the thread that failed may hold it.
            let mut stderr = File::from(stderr().as_fd().try_clone_to_owned()?);
            thread("maps").spawn(move || {
                if signals.forever().next().is_some() {
                    // Where it fails there is nobody left to tell.
                    let _ = stderr.write_all((screen::erasing_if_free() + LOST).as_bytes());
                    exit(1);
                }
            })
        };
        done = start().map(drop).map_err(|e| Failure::Failed(format!("SIGBUS cannot be waited for: {e}")));
    });
    done
}

/// Whether the process has a handler for `signal`, as far as the system tells.
#[cfg(target_os = "linux")]
fn is_caught(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

/// Elsewhere the process ends by the signal.
#[cfg(not(target_os = "linux"))]
pub fn report_lost_maps() -> Result<()> {
    Ok(())
}

/// Calls `end` when SIGINT or SIGTERM comes for the first time. The second time it ends the process at once, as it would have without
/// this.
pub fn on_end(end: impl FnOnce() + Send + 'static) -> Result<()> {
    on_signal(move |_| end())
}

/// Calls `clean_up` when SIGINT or SIGTERM comes, and then ends the process as it would have ended without this; the second time at once.
#[cfg(unix)]
pub fn before_end(clean_up: impl FnOnce() + Send + 'static) -> Result<()> {
    on_signal(move |signal| {
        clean_up();
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    })
}

/// Ctrl-C ends the process at once here, and nothing is cleaned up.
#[cfg(not(unix))]
pub fn before_end(_: impl FnOnce() + Send + 'static) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn on_signal(first: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    let failed = |e: std::io::Error| Failure::Failed(format!("SIGINT and SIGTERM cannot be waited for: {e}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let wait = move || {
        let mut signals = signals.forever();
        let Some(signal) = signals.next() else { return };
        // On a thread of its own: it may take long, or not come to an end at all.
        let ending = thread("ending").spawn(move || first(signal));
        if let (Some(signal), Ok(_)) = (signals.next(), ending) {
            let _ = emulate_default_handler(signal);
        }
    };
    thread("signals").spawn(wait).map(|_| ()).map_err(failed)
}

/// Ctrl-C ends the process at once here; nothing that was stored is lost.
#[cfg(not(unix))]
fn on_signal(_: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    Ok(())
}
