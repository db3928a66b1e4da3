//! Events for the `log` crate, under the target `hypercore`. Without the feature `log` they cost nothing.
//!
//! They are written with no lock held. The logger of the program runs on the library's threads, and must not wait
//! for the library.

/// Writes an event of the level `debug` or `warn`.
macro_rules! event {
    ($level:ident, $($argument:tt)*) => {{
        #[cfg(feature = "log")]
        ::log::$level!(target: "hypercore", $($argument)*);
        // The arguments count as used.
        #[cfg(not(feature = "log"))]
        let _ = format_args!($($argument)*);
    }};
}

pub(crate) use event;
