//! The threads of connections and servers, as the system lists them.

use std::fs;

/// The threads that connections and servers started after a moment. Threads of earlier tests may still be ending
/// and do not count.
pub struct Threads(u64);

impl Threads {
    /// The present moment, in the hundredths of a second since boot that the system stamps threads with.
    pub fn now() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let hundredths: String = uptime.chars().take_while(|c| *c != ' ').filter(|c| *c != '.').collect();
        Threads(hundredths.parse().unwrap_or(0))
    }

    /// Fails unless all threads that were started since have been joined.
    #[track_caller]
    pub fn assert_all_joined(&self) {
        assert_eq!(self.running(), [""; 0], "threads are left");
    }

    /// Fails unless `expected` are the names, in order, of the threads that were started since and not joined.
    #[track_caller]
    pub fn assert_are(&self, expected: &[&str]) {
        if option_env!("HYPERCORE_EMULATED").is_none() && cfg!(target_os = "linux") {
            assert_eq!(self.running(), expected);
        }
    }

    /// The names of the threads that were started since and not joined, without those that only run callbacks.
    fn running(&self) -> Vec<&'static str> {
        const NAMES: [&str; 3] = ["hypercore-read", "hypercore-write", "hypercore-accep"];
        // The system lists a joined thread for a moment more, with this flag set.
        const EXITING: u64 = 4;
        let mut running = Vec::new();
        // An emulator has threads of its own, which end some time after the emulated ones.
        if option_env!("HYPERCORE_EMULATED").is_some() {
            return running;
        }
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
            let number = |at| rest.split_whitespace().nth(at).and_then(|number| number.parse().ok()).unwrap_or(0);
            let (flags, started): (u64, u64) = (number(6), number(19));
            // A callback thread bears the name of its parent until it first runs, and a reader or writer has waited
            // at least once.
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let has_waited = waits.is_some_and(|waits| waits.trim() != "0");
            let name = NAMES.into_iter().find(|known| *known == name);
            running.extend(name.filter(|_| flags & EXITING == 0 && started > self.0 && has_waited));
        }
        running.sort_unstable();
        running
    }
}
