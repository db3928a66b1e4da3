//! SIGINT and SIGTERM, as a request to end in good order; SIGXFSZ, as nothing.

#[cfg(unix)]
use std::sync::Arc;

#[cfg(unix)]
use super::Failure;
use super::Result;

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
        let ending = super::thread("ending").spawn(move || first(signal));
        if let (Some(signal), Ok(_)) = (signals.next(), ending) {
            let _ = emulate_default_handler(signal);
        }
    };
    super::thread("signals").spawn(wait).map(|_| ()).map_err(failed)
}

/// Ctrl-C ends the process at once here; nothing that was stored is lost.
#[cfg(not(unix))]
fn on_signal(_: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    Ok(())
}
