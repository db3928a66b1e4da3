//! Signals: SIGINT and SIGTERM end a command in an orderly way, SIGXFSZ is ignored, SIGBUS becomes an error.

#[cfg(unix)]
use std::sync::Arc;

#[cfg(unix)]
use super::failure::Failure;
use super::failure::Result;
#[cfg(target_os = "linux")]
use super::terminal::screen;
#[cfg(unix)]
use super::thread::thread;

/// Makes a write beyond the process's file-size limit an error. By default SIGXFSZ would end the process.
#[cfg(unix)]
pub fn survive_file_size_limits() -> Result<()> {
    let failed = |e: std::io::Error| Failure::Failed(format!("cannot handle SIGXFSZ: {e}"));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map(|_| ()).map_err(failed)
}

/// This system has no such limit.
#[cfg(not(unix))]
pub fn survive_file_size_limits() -> Result<()> {
    Ok(())
}

/// The error line for SIGBUS, which a read through a memory map raises if the file is too short or the disk fails.
#[cfg(target_os = "linux")]
const LOST: &str = "\
    error: a file of the core was cut by another program, or the disk failed, during a read through a memory map; \
    stop that program or check the system log, then run `hypercore verify`; with --no-map the error names the file\n";

/// From now on SIGBUS prints an error line and exits with 1. By default it would end the process without a word.
/// Later calls do nothing.
///
/// A separate thread writes the line. Until then the failing thread raises the signal again and again.
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
            // The handler of Rust's runtime, which is for stack overflows (SIGSEGV on Linux), restores the
            // default at the first SIGBUS, so that the second one ends the process. Raise the first one before
            // ours is installed.
            if is_caught(SIGBUS) {
                raise(SIGBUS)?;
            }
            let mut signals = Signals::new([SIGBUS])?;
            // Write without the lock of standard error: the failing thread may hold it.
            let mut stderr = File::from(stderr().as_fd().try_clone_to_owned()?);
            thread("maps").spawn(move || {
                if signals.forever().next().is_some() {
                    // A failure to write cannot be reported.
                    let _ = stderr.write_all((screen::erasing_if_free() + LOST).as_bytes());
                    exit(1);
                }
            })
        };
        done = start().map(drop).map_err(|e| Failure::Failed(format!("cannot handle SIGBUS: {e}")));
    });
    done
}

/// Whether the process has a handler for `signal`; false if the system does not say.
#[cfg(target_os = "linux")]
fn is_caught(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

/// On other systems SIGBUS ends the process.
#[cfg(not(target_os = "linux"))]
pub fn report_lost_maps() -> Result<()> {
    Ok(())
}

/// Calls `end` at the first SIGINT or SIGTERM. The second one ends the process at once, with the
/// signal's default action.
pub fn on_end(end: impl FnOnce() + Send + 'static) -> Result<()> {
    on_signal(move |_| end())
}

/// Calls `clean_up` at the first SIGINT or SIGTERM, then ends the process with the signal's default action. A second
/// signal ends it at once.
#[cfg(unix)]
pub fn before_end(clean_up: impl FnOnce() + Send + 'static) -> Result<()> {
    on_signal(move |signal| {
        clean_up();
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    })
}

/// Ctrl-C ends the process at once on this system, without cleaning up.
#[cfg(not(unix))]
pub fn before_end(_: impl FnOnce() + Send + 'static) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn on_signal(first: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    let failed = |e: std::io::Error| Failure::Failed(format!("cannot handle SIGINT and SIGTERM: {e}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let wait = move || {
        let mut signals = signals.forever();
        let Some(signal) = signals.next() else { return };
        // On another thread, because it may take long or block forever.
        let ending = thread("ending").spawn(move || first(signal));
        if let (Some(signal), Ok(_)) = (signals.next(), ending) {
            let _ = emulate_default_handler(signal);
        }
    };
    thread("signals").spawn(wait).map(|_| ()).map_err(failed)
}

/// Ctrl-C ends the process at once on this system; stored blocks are kept.
#[cfg(not(unix))]
fn on_signal(_: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    Ok(())
}
