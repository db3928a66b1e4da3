//! Runs the command in a temporary directory and checks its output, exit code and files.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use hypercore::{Durability, Hypercore, KeyPair};

use crate::machine::{limit, program};

/// The seed of the key pair of [`Place::core`].
pub const SEED: [u8; 32] = [7; 32];
/// The longest that a command of these tests may take.
const LIMIT: Duration = limit(120);

/// A temporary directory in which commands run, deleted on drop.
pub struct Place(tempfile::TempDir);

/// The output and exit code of a command.
#[derive(Debug)]
pub struct Ran {
    args: Vec<String>,
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Appends `blocks` to the core `name` through the library.
    pub fn core<B: AsRef<[u8]>>(&self, name: &str, blocks: impl IntoIterator<Item = B>) {
        let core = self.open(name);
        core.append_batch(blocks).unwrap();
        core.close().unwrap();
    }

    /// Opens or creates the core `name` through the library.
    pub fn open(&self, name: &str) -> Hypercore {
        let options = Hypercore::options().key_pair(KeyPair::from_seed(&SEED)).durability(Durability::None);
        options.open(self.path(name)).unwrap()
    }

    /// Runs the command line `line`, split at white space.
    pub fn run(&self, line: &str) -> Ran {
        self.run_with(line, b"")
    }

    /// As [`Place::run`], with `input` on standard input.
    pub fn run_with(&self, line: &str, input: &[u8]) -> Ran {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        let _watchdog = watch(line);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The command may end without reading all of its input.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let ran = Ran::of(line, child);
        writer.join().unwrap();
        ran
    }

    /// The command line `line`, not started yet, without variables that change its output.
    pub fn command(&self, line: &str) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_hypercore"));
        command.current_dir(self.0.path()).args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ["COLUMNS", "LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "HYPERCORE_ENCRYPTION_KEY"] {
            command.env_remove(name);
        }
        command
    }

    /// Name, length and hash of each file in the directory `name`.
    pub fn contents(&self, name: &str) -> Vec<(String, usize, u64)> {
        contents(&self.path(name))
    }
}

impl Ran {
    /// Waits for the end of `child`.
    pub fn of(line: &str, child: Child) -> Self {
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        Ran::new(line, status, stdout, String::from_utf8(stderr).unwrap())
    }

    pub fn new(line: &str, status: ExitStatus, out: Vec<u8>, err: String) -> Self {
        Ran { args: line.split_whitespace().map(str::to_owned).collect(), code: status.code(), out, err }
    }

    /// The output of a command that must exit with 0 and print nothing on standard error.
    #[track_caller]
    pub fn ok(self) -> String {
        String::from_utf8(self.ok_bytes()).unwrap()
    }

    #[track_caller]
    pub fn ok_bytes(self) -> Vec<u8> {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{:?}", self.args);
        self.out
    }

    /// The error line of a command that must exit with 1 and print nothing else.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_eq!((self.code, self.out.as_slice()), (Some(1), &b""[..]), "{:?}: {}", self.args, self.err);
        self.error_line()
    }

    /// As [`Ran::fails`] for a command that may have printed something on standard output.
    #[track_caller]
    pub fn error_line(&self) -> String {
        assert_eq!(self.code, Some(1), "{:?}", self.args);
        let line = self.err.strip_prefix("error: ").and_then(|rest| rest.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("{:?} wrote {:?}", self.args, self.err));
        assert!(!line.contains('\n'), "{:?} wrote {:?}", self.args, self.err);
        line.to_owned()
    }

    /// The error line of a command that must exit with 2 and print its usage.
    #[track_caller]
    pub fn misused(self) -> String {
        assert_eq!((self.code, self.out.as_slice()), (Some(2), &b""[..]), "{:?}: {}", self.args, self.err);
        let lines: Vec<&str> = self.err.lines().collect();
        let [error, usage] = lines[..] else { panic!("{:?} wrote {:?}", self.args, self.err) };
        assert!(usage.starts_with("usage: hypercore "), "{usage}");
        error.strip_prefix("error: ").unwrap().to_owned()
    }
}

fn contents(dir: &Path) -> Vec<(String, usize, u64)> {
    let mut found: Vec<(String, usize, u64)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap_or_default();
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes);
            (path.file_name().unwrap().to_string_lossy().into_owned(), bytes.len(), hasher.finish())
        })
        .collect();
    found.sort();
    found
}

/// Aborts the test run and names the command, unless the returned sender is dropped within the limit.
pub fn watch(name: &str) -> Sender<()> {
    let (alive, ended) = channel::<()>();
    let name = name.to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "watchdog: `hypercore {name}` did not end within {LIMIT:?}");
            std::process::abort();
        }
    });
    alive
}

/// Pseudo-random bytes, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}
