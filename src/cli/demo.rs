//! The whole job at once, in a directory that is gone afterwards.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hypercore::net::Server;
use hypercore::{ByteOptions, Error, Hypercore, InfoOptions};
use tempfile::TempDir;

use super::append::{Appender, Cut, DEFAULT_BLOCK};
use super::args::{Args, Opt};
use super::clone::Fetch;
use super::output::Output;
use super::progress::{bytes, per_second, plural};
use super::{Command, Failure, NO_MAP, Result, WRITING, about, mapping, secrets, signals};

pub const DEMO: Command = Command {
    name: "demo",
    usage: "[FILE]",
    about: "append a file, serve it on loopback TCP, clone it, compare every byte",
    details: "In a temporary directory. Without FILE it makes 64 MiB. The last line is `ok`.",
    own_options: &[Opt::flag("--keep", "keep the directory, and say where it is"), NO_MAP],
    shared_options: &[&secrets::ENCRYPTION, WRITING],
    example: "hypercore demo",
    run: demo,
};

/// Bytes of the input where no file is named.
const MADE: u64 = 64 * 1024 * 1024;
/// The longest that the clone may wait for a peer on the same machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn demo(args: &mut Args) -> Result<()> {
    let file = args.next_if_any().map(PathBuf::from);
    args.finish()?;
    let mut options = Hypercore::options().durability(args.durability()?.unwrap_or_default()).wait(false);
    if let Some(key) = args.encryption_key()? {
        options = options.encryption_key(**key);
    }
    let options = mapping(args, options)?;
    let name = file.clone().unwrap_or_else(|| "64 MiB that were made".into());
    let place = make_place(args.has("--keep"))?;
    let (first, second) = (place.path().join("first"), place.path().join("second"));
    let mut input = input(file.as_deref())?;
    let mut out = Output::stdout();

    let core = options.clone().open(&first).map_err(|e| about(&first, e))?;
    let clock = Instant::now();
    let total = file.as_deref().and_then(|path| fs::metadata(path).ok()).map_or(Some(MADE), |found| Some(found.len()));
    Appender::new(&core, &first, Cut::Every(DEFAULT_BLOCK), total).append_from(&mut input, &name)?;
    let size = core.byte_length();
    out.line(format_args!("append   {} in {}, {}", bytes(size), plural(core.len(), "block"), speed(size, clock)))?;

    let server = Server::listen("127.0.0.1:0", [core.clone()])?;
    let address = server.local_addr().to_string();
    out.line(format_args!("serve    {} on {address}", core.id()))?;
    out.flush()?;

    let copy = options.key(core.key()).open(&second).map_err(|e| about(&second, e))?;
    let clock = Instant::now();
    Fetch::start(&copy, &second, &[address], (0, None))?.finish(Some(PATIENCE))?;
    out.line(format_args!(
        "clone    {} in {}, {}",
        bytes(copy.byte_length()),
        plural(copy.len(), "block"),
        speed(size, clock)
    ))?;

    let clock = Instant::now();
    let stream = copy.byte_stream(ByteOptions::new()).map_err(|e| about(&second, e))?;
    let mut input = self::input(file.as_deref())?;
    if let Some(at) = first_difference(stream, &mut input).map_err(|e| Error::from_io(e, "compare", &name))? {
        return Err(Failure::Failed(format!("{}: the clone differs from byte {at} on", name.display())));
    }
    if copy.tree_hash()? != core.tree_hash()? || copy.contiguous_length()? != core.len() {
        return Err(Failure::Failed(format!("{}: the clone is not the log that was served", second.display())));
    }
    out.line(format_args!("compare  every byte is the same, {}", speed(size, clock)))?;

    server.close();
    for (what, core, dir) in [("first", &core, &first), ("second", &copy, &second)] {
        core.flush().map_err(|e| about(dir, e))?;
        out.line(format_args!("{what:8} {} on disk", bytes(disk_use(core)?)))?;
        core.close().map_err(|e| about(dir, e))?;
    }
    if args.has("--keep") {
        out.line(format_args!("kept     {}", place.keep().display()))?;
    }
    out.line(format_args!("ok"))?;
    out.finish()
}

/// A directory for both cores, which goes when it is dropped or a signal comes, unless it is to be kept.
fn make_place(keep: bool) -> Result<TempDir> {
    let made = Arc::new(Mutex::new(None::<PathBuf>));
    // Held until the directory is known: a signal that comes while it is made finds it.
    let mut path = made.lock().unwrap_or_else(PoisonError::into_inner);
    if !keep {
        let made = made.clone();
        signals::before_end(move || {
            let path = made.lock().unwrap_or_else(PoisonError::into_inner).take();
            path.map(fs::remove_dir_all);
        })?;
    }
    let place = tempfile::Builder::new().prefix("hypercore-demo-").tempdir();
    let place = place.map_err(|e| Error::from_io(e, "make a directory", std::env::temp_dir()))?;
    *path = Some(place.path().to_owned());
    Ok(place)
}

/// The file, or what stands in for it.
fn input(file: Option<&Path>) -> Result<Box<dyn Read>> {
    match file {
        Some(path) => {
            let file = File::open(path).map_err(|e| Error::from_io(e, "open", path))?;
            // It is read twice.
            if !file.metadata().is_ok_and(|found| found.is_file()) {
                return Err(Failure::Failed(format!("{}: this is not a regular file: name one", path.display())));
            }
            Ok(Box::new(file))
        }
        None => Ok(Box::new(Noise { state: 0x9e37_79b9_7f4a_7c15 }.take(MADE))),
    }
}

/// Bytes that do not repeat soon, the same each time.
struct Noise {
    state: u64,
}

impl Read for Noise {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        for chunk in out.chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.copy_from_slice(&self.state.to_le_bytes()[..chunk.len()]);
        }
        Ok(out.len())
    }
}

/// Where two streams differ first, of which one may just be longer.
fn first_difference(mut one: impl Read, mut other: impl Read) -> io::Result<Option<u64>> {
    let mut buffers = [vec![0; 64 * 1024], vec![0; 64 * 1024]];
    let mut at = 0;
    loop {
        let [a, b] = &mut buffers;
        let (a, b) = (fill(&mut one, a)?, fill(&mut other, b)?);
        if let Some(n) = a.iter().zip(b).position(|(a, b)| a != b) {
            return Ok(Some(at + n as u64));
        }
        at += a.len().min(b.len()) as u64;
        if a.len() != b.len() {
            return Ok(Some(at));
        }
        if a.is_empty() {
            return Ok(None);
        }
    }
}

/// Reads as much as fits `buffer`, less only at the end.
fn fill<'a>(input: &mut impl Read, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(&buffer[..filled])
}

fn disk_use(core: &Hypercore) -> Result<u64> {
    let storage = core.info(InfoOptions::new().storage(true))?.storage;
    Ok(storage.map_or(0, |s| [s.oplog, s.tree, s.blocks, s.bitfield].into_iter().fold(0, u64::saturating_add)))
}

fn speed(size: u64, since: Instant) -> String {
    let elapsed = since.elapsed();
    let (seconds, hundredths) = (elapsed.as_secs(), elapsed.subsec_millis() / 10);
    format!("{seconds}.{hundredths:02} s, {}/s", bytes(per_second(size, elapsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_wherever_it_is() {
        let one: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        assert_eq!(first_difference(&one[..], &one[..]).unwrap(), None);
        for at in [0, 65_535, 65_536, 199_999] {
            let mut other = one.clone();
            other[at] ^= 1;
            assert_eq!(first_difference(&one[..], &other[..]).unwrap(), Some(at as u64));
        }
        assert_eq!(first_difference(&one[..], &one[..5]).unwrap(), Some(5));
        assert_eq!(first_difference(&one[..65_536], &one[..]).unwrap(), Some(65_536));
    }
}
