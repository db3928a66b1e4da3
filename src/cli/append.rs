//! Appending files or standard input, cut into blocks.
//!
//! A batch is read, then appended, so that memory stays bounded whatever the input's size. What was appended stays when a later
//! batch cannot be read.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Arg, ValueHint};
use hypercore::{Error, Hypercore, MAX_BLOCK_SIZE};

use super::args::Args;
use super::command::{Action, Command, flag, option, positional};
use super::lines::{BATCH_BLOCKS, Lines, Part, batches};
use super::output::Output;
use super::progress::{Progress, Unit};
use super::values::{block_size, directory, text};
use super::{Failure, OPENING, Result, WRITING, about, check_encryption, options, secrets, warn_of_loss, with_way_out};

/// The size of blocks unless told otherwise.
pub const DEFAULT_BLOCK: usize = 64 * 1024;
/// About so many bytes go into one append.
const BATCH_BYTES: usize = 1024 * 1024;
/// The names of a core's own files, which grow while they are read.
const CORE_FILES: [&str; 5] = ["oplog", "tree", "bitfield", "data", "header"];

pub const APPEND: Command = Command {
    name: "append",
    usage: "DIR [FILE]... [--lines | --whole | --block-size N]",
    about: "Append files or standard input",
    details: "Creates the core if DIR has none. Each file starts a new block. Prints the new length in blocks and in \
              bytes.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore append log --lines < access.log",
    action: Action::Run(append),
};

fn arguments() -> Vec<Arg> {
    vec![
        positional("DIR", directory(), "Directory of the core, created if missing").value_hint(ValueHint::DirPath),
        positional("FILE", text(), "Files to append; - and no file at all are standard input")
            .required(false)
            .num_args(0..)
            .value_hint(ValueHint::FilePath),
        flag("lines", "One block a line, without its newline, appended as lines arrive")
            .conflicts_with_all(["whole", "block-size"]),
        flag("whole", "One block a file").conflicts_with("block-size"),
        option("block-size", "N", block_size(), "Blocks of N bytes, at most 15728640 [default: 65536]"),
    ]
}

/// Where blocks end.
#[derive(Clone, Copy)]
pub enum Cut {
    /// With each line.
    Lines,
    /// With the input.
    Whole,
    /// After so many bytes.
    Every(usize),
}

enum Input {
    Stdin,
    File(PathBuf),
}

fn append(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let cut = cut(args);
    let mut inputs = Vec::new();
    for name in args.all("FILE") {
        inputs.push(input(args, name, &inputs)?);
    }
    if inputs.is_empty() {
        inputs.push(Input::Stdin);
    }
    if inputs.iter().any(|input| matches!(input, Input::Stdin)) {
        secrets::leave_stdin_to(args, "to be appended")?;
    }
    let options = options(args)?;
    let total = check_inputs(&dir, &inputs)?;

    let core = options.open(&dir).map_err(|e| about(&dir, e))?;
    warn_of_loss(&core, &dir);
    // Before a pipe is read that cannot be read again.
    check_encryption(&core, &dir)?;
    let mut appender = Appender::new(&core, &dir, cut, total);
    for input in &inputs {
        appender.append(input)?;
    }
    appender.append_pending()?;
    drop(appender);
    let (length, byte_length) = (core.len(), core.byte_length());
    core.close().map_err(|e| about(&dir, e))?;

    let mut out = Output::stdout();
    out.line(format_args!("length {length}"))?;
    out.line(format_args!("byte-length {byte_length}"))?;
    out.finish()
}

fn cut(args: &Args) -> Cut {
    match (args.has("lines"), args.has("whole")) {
        (true, _) => Cut::Lines,
        (_, true) => Cut::Whole,
        _ => Cut::Every(args.get("block-size").unwrap_or(DEFAULT_BLOCK)),
    }
}

fn input(args: &Args, name: OsString, before: &[Input]) -> Result<Input> {
    if name != "-" {
        return Ok(Input::File(name.into()));
    }
    if before.iter().any(|input| matches!(input, Input::Stdin)) {
        return Err(args.usage("- is given twice: standard input can be read only once".into()));
    }
    Ok(Input::Stdin)
}

/// Fails if a file is sure not to be readable, before anything is appended; gives the bytes of all, if known.
fn check_inputs(dir: &Path, inputs: &[Input]) -> Result<Option<u64>> {
    let mut total = Some(0u64);
    for input in inputs {
        let Input::File(path) = input else {
            total = None;
            continue;
        };
        let found = fs::metadata(path).map_err(|e| Error::from_io(e, "open", path))?;
        if found.is_dir() {
            return Err(Failure::Failed(format!("{}: this is a directory; name the files in it", path.display())));
        }
        // Opening a pipe to look would take its writer away.
        if !found.is_file() {
            total = None;
            continue;
        }
        File::open(path).map_err(|e| Error::from_io(e, "open", path))?;
        if is_of_core(dir, path) {
            return Err(Failure::Failed(format!("{}: this is a file of the core that it would go to", path.display())));
        }
        total = total.and_then(|total| total.checked_add(found.len()));
    }
    Ok(total)
}

fn is_of_core(dir: &Path, path: &Path) -> bool {
    let (Ok(dir), Ok(path)) = (dir.canonicalize(), path.canonicalize()) else { return false };
    path.parent() == Some(&dir) && CORE_FILES.iter().any(|name| path.file_name().is_some_and(|n| n == *name))
}

/// The core, and what was read but is not appended yet.
pub struct Appender<'a> {
    core: &'a Hypercore,
    dir: &'a Path,
    cut: Cut,
    /// Bytes read of all inputs.
    read: u64,
    progress: Progress,
    /// Small files that go into one append.
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
}

impl<'a> Appender<'a> {
    /// Cuts what it is given into blocks of `core`, which is in `dir`. `total` is the bytes of all inputs, if known.
    pub fn new(core: &'a Hypercore, dir: &'a Path, cut: Cut, total: Option<u64>) -> Self {
        let progress = Progress::new("appending", Unit::Bytes, total);
        Appender { core, dir, cut, read: 0, progress, pending: Vec::new(), pending_bytes: 0 }
    }

    fn append(&mut self, input: &Input) -> Result<()> {
        match input {
            Input::Stdin => self.append_from(io::stdin().lock(), Path::new("standard input")),
            Input::File(path) => {
                let file = File::open(path).map_err(|e| self.failed(&Error::from_io(e, "open", path)))?;
                self.append_from(file, path)
            }
        }
    }

    /// Appends all of `input`, which is called `name`.
    pub fn append_from(&mut self, input: impl Read, name: &Path) -> Result<()> {
        match self.cut {
            Cut::Lines => self.append_lines(input, name),
            Cut::Whole => self.append_whole(input, name),
            Cut::Every(size) => self.append_every(input, name, size),
        }
    }

    fn append_every(&mut self, mut input: impl Read, name: &Path, size: usize) -> Result<()> {
        let batch = size * (BATCH_BYTES / size).clamp(1, BATCH_BLOCKS);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            self.fill(&mut input, name, batch, &mut buffer)?;
            if !buffer.is_empty() {
                self.append_batch(buffer.chunks(size))?;
            }
            if buffer.len() < batch {
                return Ok(());
            }
        }
    }

    fn append_whole(&mut self, mut input: impl Read, name: &Path) -> Result<()> {
        let mut buffer = Vec::new();
        self.fill(&mut input, name, MAX_BLOCK_SIZE + 1, &mut buffer)?;
        if buffer.len() > MAX_BLOCK_SIZE {
            return Err(self.too_big(format!("{}", name.display())));
        }
        self.pending_bytes += buffer.len();
        self.pending.push(buffer);
        if self.pending_bytes >= BATCH_BYTES || self.pending.len() >= BATCH_BLOCKS {
            self.append_pending()
        } else {
            Ok(())
        }
    }

    fn append_lines(&mut self, input: impl Read, name: &Path) -> Result<()> {
        let mut lines = Lines::new(input);
        let mut line = 1;
        loop {
            match lines.read().map_err(|e| self.failed(&Error::from_io(e, "read", name)))? {
                Part::Lines(text) => {
                    line += self.append_split(text, name, line)?;
                    self.count(text.len());
                }
                Part::TooLong => return Err(self.too_big(format!("{}: line {line}", name.display()))),
                // The last line needs no newline.
                Part::End(rest) => return self.append_split(rest, name, line).map(|_| ()),
            }
        }
    }

    /// Appends the lines of `text`, of which the first is number `first`; gives how many there are.
    fn append_split(&self, text: &[u8], name: &Path, first: u64) -> Result<u64> {
        let mut count = 0;
        for batch in batches(text) {
            let fitting = batch.iter().take_while(|line| line.len() <= MAX_BLOCK_SIZE).count();
            self.append_batch(&batch[..fitting])?;
            count += fitting as u64;
            if fitting < batch.len() {
                return Err(self.too_big(format!("{}: line {}", name.display(), first + count)));
            }
        }
        Ok(count)
    }

    fn append_pending(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if pending.is_empty() { Ok(()) } else { self.append_batch(&pending) }
    }

    fn append_batch<B: AsRef<[u8]>>(&self, blocks: impl IntoIterator<Item = B>) -> Result<()> {
        let appended = self.core.append_batch(blocks).map(|_| ());
        appended.map_err(|e| self.failed(&if e.path().is_some() { e } else { e.at(self.dir) }))
    }

    /// Reads `n` bytes to the end of `buffer`, or less where the input ends.
    fn fill(&mut self, input: &mut impl Read, name: &Path, n: usize, buffer: &mut Vec<u8>) -> Result<()> {
        let read =
            input.take(n as u64).read_to_end(buffer).map_err(|e| self.failed(&Error::from_io(e, "read", name)))?;
        self.count(read);
        Ok(())
    }

    fn count(&mut self, n: usize) {
        self.read += n as u64;
        self.progress.at(self.read);
    }

    fn too_big(&self, what: String) -> Failure {
        self.stopped(format!(
            "{what} is larger than the {MAX_BLOCK_SIZE} bytes that fit in a block; --block-size cuts it"
        ))
    }

    fn failed(&self, error: &Error) -> Failure {
        self.stopped(with_way_out(error))
    }

    /// The failure that `why` tells of, and how far the log has come.
    fn stopped(&self, why: String) -> Failure {
        Failure::Failed(format!("{why}; what was appended before it stays, and the length is {}", self.core.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its parts one a read, each only when the log has the length that goes with it.
    struct Parts<'a> {
        core: &'a Hypercore,
        parts: std::vec::IntoIter<(u64, &'a [u8])>,
    }

    impl Read for Parts<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((length, part)) = self.parts.next() else { return Ok(0) };
            assert_eq!(self.core.len(), length, "before {:?}", String::from_utf8_lossy(part));
            out[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    #[test]
    fn lines_are_appended_before_more_is_read() {
        let core = Hypercore::in_memory().unwrap();
        let mut appender = Appender::new(&core, Path::new("log"), Cut::Lines, None);
        let parts = vec![(0, &b"one\ntw"[..]), (1, b"o\n"), (2, b"\n\n"), (4, b"la"), (4, b"st")];
        appender.append_from(Parts { core: &core, parts: parts.into_iter() }, Path::new("-")).unwrap();
        let blocks: Vec<Vec<u8>> = (0..core.len()).map(|index| core.get(index).unwrap()).collect();
        assert_eq!(blocks, [&b"one"[..], b"two", b"", b"", b"last"]);
    }
}
