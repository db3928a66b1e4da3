//! Reading a file through memory maps, a window of it at a time.
//!
//! The maps are read-only and shared, and this module only copies bytes out of them. The file changes below the maps,
//! through [`MmapWindows::write_at`], and the maps show its writes at once. No byte is written through a map, because
//! on a full disk that kills the process, while a write returns an error.
//!
//! Reading a map beyond the end of its file kills the process (SIGBUS). These rules prevent it:
//! * Only files that no other process writes are mapped: this process has locked the core.
//! * No window is mapped or read past the length that this module tracks. Every change of the file goes through this
//!   module.
//! * Shortening the file first shuts out readers and drops the windows that reach past the new end.
//! * Whenever this module makes a window or changes the file, it compares the file's length with the tracked one. If
//!   another program shortened the file, all windows are dropped for good, and reads of the lost bytes are errors
//!   from then on.
//! * A new window is read in before any reader uses it (on Linux 5.14 and later). If the disk fails, no window is made
//!   any more, and reads go to the file, which returns the error.
//! * Bytes that end in a zero are accepted only after a look at the file's length: between the end of a file and the
//!   end of its last page a map shows zeros.
//!
//! Two dangers remain while a window is mapped: another program shortens the file there, or the system dropped the
//! pages from memory and the disk fails to read them again. With a limit of 0 nothing is ever mapped.

use std::collections::HashMap;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::index::BuildIndexHasher;
use crate::storage::backend::File;
use crate::storage::tracked::was_cut;
use crate::sync::{Mutex, MutexGuard, Rank, ReadGuard, RwLock};

/// How many bytes of a core's files are mapped at a time by default.
pub const DEFAULT_LIMIT: usize = if cfg!(target_pointer_width = "64") { 128 << 20 } else { 4 << 20 };

/// If all windows are in use, a window moves to a place after this many reads there that went to the file. One of these
/// reads costs less than moving a window.
const ADMIT_AFTER: u8 = 64;

/// While windows are left, a place is mapped after this many reads. Many cores are opened, read in a few places and
/// closed, and a map costs more time and resident memory than this many reads.
const MAP_AFTER: u8 = 16;

/// Bytes from this offset on are never mapped. Some emulators of 32-bit machines (QEMU 7.2 for one) map another place
/// of the file than the one asked for if the offset has more than 32 bits, and a tree that long is rare on such a
/// machine.
const MAPPABLE_END: u64 = if cfg!(target_pointer_width = "64") { u64::MAX } else { 1 << 32 };

/// A file that is read through a bounded number of memory-mapped windows.
pub struct MmapWindows {
    file: Arc<dyn File>,
    mappable: AtomicBool,
    /// The binary logarithm of a window's size, which is a multiple of every page size.
    window_bits: u32,
    /// The most windows.
    most: usize,
    /// The file has at least this length.
    len: AtomicU64,
    /// Whether other processes may change the file, so that it may end anywhere.
    is_shared: AtomicBool,
    /// Reads that went to the file, counted by their window's number modulo the number of counters. Each move of a
    /// window halves them, so that reads spread over the file move few windows.
    misses: Misses,
    /// Held while the file changes or a window is made, so that `len` never exceeds the file's length.
    changing: Mutex<()>,
    maps: RwLock<Maps>,
    /// Counts readers, to tell when a window was last read. It may wrap: only differences are used.
    readers: AtomicUsize,
}

type Misses = Box<[AtomicU8; 256]>;
type Maps = HashMap<u64, Window, BuildIndexHasher>;

struct Window {
    map: MmapRaw,
    /// The number of the last reader of the window.
    used: AtomicUsize,
}

/// Reads several places of a file under one lock.
///
/// While a reader exists, shortening the file blocks; other readers never block. A thread must not hold two readers of
/// one file, nor shorten the file while it holds one.
pub struct MmapReader<'a> {
    windows: &'a MmapWindows,
    /// None if the file is not mapped, and while this reader makes a window.
    maps: Option<ReadGuard<'a, Maps>>,
    /// The number of this reader, for [`Window::used`]; 0 while windows are left.
    number: usize,
}

impl MmapWindows {
    /// Reads `file` through maps of at most `limit` bytes in total if it is `mappable`, and without maps otherwise.
    pub fn new(file: Arc<dyn File>, mappable: bool, limit: usize) -> io::Result<Self> {
        let window = prev_power_of_two(limit / 16).clamp(64 << 10, 1 << 20);
        Ok(MmapWindows {
            len: AtomicU64::new(file.len()?),
            is_shared: AtomicBool::new(false),
            file,
            mappable: AtomicBool::new(mappable && limit >= window),
            window_bits: window.ilog2(),
            most: limit / window,
            misses: no_misses(),
            changing: Mutex::new(Rank::File, ()),
            maps: RwLock::new(Rank::Map, Maps::default()),
            readers: AtomicUsize::new(0),
        })
    }

    /// Sets whether other processes may change the file. A shared file may end before its tracked length, and is never
    /// mapped.
    pub fn shared(mut self, is_shared: bool) -> Self {
        *self.is_shared.get_mut() = is_shared;
        *self.mappable.get_mut() &= !is_shared;
        self
    }

    /// New windows of the same file, opened again as `file`. None of it is mapped yet.
    pub fn anew(&self, file: Arc<dyn File>) -> Self {
        MmapWindows {
            file,
            mappable: AtomicBool::new(self.mappable.load(Ordering::Relaxed)),
            window_bits: self.window_bits,
            most: self.most,
            len: AtomicU64::new(self.len()),
            is_shared: AtomicBool::new(self.is_shared.load(Ordering::Relaxed)),
            misses: no_misses(),
            changing: Mutex::new(Rank::File, ()),
            maps: RwLock::new(Rank::Map, Maps::default()),
            readers: AtomicUsize::new(0),
        }
    }

    /// Drops all maps for good, because another handle changes the file from now on.
    pub fn retire(&self) {
        self.is_shared.store(true, Ordering::Release);
        self.unmap();
    }

    /// Drops all maps for good.
    fn unmap(&self) {
        let mut maps = self.maps.write();
        self.mappable.store(false, Ordering::Relaxed);
        maps.clear();
    }

    /// Fails if another program shortened the file.
    pub fn check(&self) -> io::Result<()> {
        if self.file.len()? >= self.len() {
            return Ok(());
        }
        // The lengths also differ while this process changes the file: compare again when that has ended.
        let changing = self.changing.lock();
        self.check_under(&changing)
    }

    /// As [`MmapWindows::check`]. The caller holds `changing` and not `maps`.
    fn check_under(&self, _: &MutexGuard<'_, ()>) -> io::Result<()> {
        let (known, len) = (self.len(), self.file.len()?);
        if len >= known || self.is_shared.load(Ordering::Acquire) {
            return Ok(());
        }
        self.unmap();
        Err(was_cut(known, len))
    }

    /// The length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn window(&self) -> u64 {
        1 << self.window_bits
    }

    /// A reader of several places.
    pub fn reader(&self) -> MmapReader<'_> {
        // A reader never blocks here. A thread that shortens the file holds or waits for the lock, until the readers
        // that copy out of windows are done; meanwhile this reader reads the file without maps.
        let maps = if self.mappable.load(Ordering::Relaxed) { self.maps.try_read() } else { None };
        // The order of readers matters only once windows have to make room. Until then readers share no counter.
        let number = match &maps {
            Some(maps) if maps.len() >= self.most => self.readers.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        MmapReader { windows: self, maps, number }
    }

    /// Reads from `offset` into `buf` and returns the number of bytes read: fewer only at the end of the file.
    ///
    /// # Errors
    /// Also if the file ends before its tracked length.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.reader().read(offset, buf)
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if bytes.is_empty() {
            // A write of no bytes does not grow the file.
            return Ok(());
        }
        let changing = self.changing.lock();
        self.check_under(&changing)?;
        self.file.write_at(offset, bytes)?;
        self.len.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    /// Cuts the file to `len` bytes, or grows it.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let changing = self.changing.lock();
        self.check_under(&changing)?;
        let mut maps = self.maps.write();
        // Windows does not shorten a file of which any part is mapped.
        maps.retain(|number, w| !cfg!(windows) && number * self.window() + w.map.len() as u64 <= len);
        let before = self.len.fetch_min(len, Ordering::AcqRel);
        match self.file.set_len(len) {
            Ok(()) => {
                self.len.store(len, Ordering::Release);
                Ok(())
            }
            Err(e) => {
                self.len.store(self.file.len().unwrap_or(0).min(before), Ordering::Release);
                Err(e)
            }
        }
    }

    /// Counts a read that was not in window `number`, or that was past its end because the file has grown, and returns
    /// whether the window is to be mapped.
    fn is_wanted(&self, maps: &Maps, number: u64) -> bool {
        if number >= MAPPABLE_END >> self.window_bits {
            return false;
        }
        let after = if maps.len() < self.most && !maps.contains_key(&number) { MAP_AFTER } else { ADMIT_AFTER };
        self.misses[number as usize % self.misses.len()].fetch_add(1, Ordering::Relaxed) >= after
    }

    /// [`MmapWindows::read`] without maps.
    fn read_file(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let end = offset.saturating_add(buf.len() as u64);
        let is_all = |n: usize| offset.saturating_add(n as u64) >= end.min(self.len());
        let read = self.file.read_at(offset, buf)?;
        if is_all(read) || self.is_shared.load(Ordering::Acquire) {
            return Ok(read);
        }
        // The read is also short while this process changes the file: read again when that has ended.
        let changing = self.changing.lock();
        let read = self.file.read_at(offset, buf)?;
        if !is_all(read) {
            self.check_under(&changing)?;
        }
        Ok(read)
    }

    /// Maps the window `number`. If all windows are in use, it replaces the least recently read one. If another thread
    /// is changing the file or making a window, this does nothing.
    ///
    /// # Errors
    /// Another program shortened the file.
    fn admit(&self, number: u64) -> io::Result<()> {
        let Some(changing) = self.changing.try_lock() else { return Ok(()) };
        let Some(file) = self.file.as_std() else {
            // This is not a file of the operating system, and never becomes one.
            self.mappable.store(false, Ordering::Relaxed);
            return Ok(());
        };
        self.check_under(&changing)?;
        let start = number * self.window();
        let len = self.len().min(file.metadata()?.len()).saturating_sub(start).min(self.window());
        let now = self.readers.load(Ordering::Relaxed);
        {
            let mut maps = self.maps.write();
            if len == 0 || !self.mappable.load(Ordering::Relaxed) {
                return Ok(());
            }
            let known = maps.contains_key(&number);
            if known || maps.len() >= self.most {
                self.misses.iter().for_each(|n| n.store(n.load(Ordering::Relaxed) / 2, Ordering::Relaxed));
            }
            if !known && maps.len() >= self.most {
                let oldest = maps.iter().max_by_key(|(_, w)| now.wrapping_sub(w.used.load(Ordering::Relaxed)));
                oldest.map(|(&n, _)| n).and_then(|n| maps.remove(&n));
            }
        }
        let mapped = MmapOptions::new().offset(start).len(len as usize).map_raw_read_only(file);
        match mapped.and_then(|map| read_in(&map).map(|()| map)) {
            Ok(map) => {
                // Nodes that are read together lie far apart, so that reading ahead would fill memory with bytes that
                // no reader needs. If the system ignores the advice, only that memory is lost.
                #[cfg(unix)]
                let _ = map.advise(memmap2::Advice::Random);
                let mut maps = self.maps.write();
                // Another thread may have retired the windows meanwhile.
                if self.mappable.load(Ordering::Relaxed) {
                    maps.insert(number, Window { map, used: AtomicUsize::new(now) });
                }
                Ok(())
            }
            // The file system has no maps, the address space is used up, or the disk fails. Reads without maps still
            // work, except for the bytes that the disk cannot read.
            Err(_) => {
                self.unmap();
                self.check_under(&changing)
            }
        }
    }
}

/// Makes the operating system read the mapped bytes now, so that a failing disk is an error here and not a signal
/// later.
#[cfg(target_os = "linux")]
fn read_in(map: &MmapRaw) -> io::Result<()> {
    loop {
        match map.advise(memmap2::Advice::PopulateRead) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Linux before 5.14, or a sandbox that does not know the advice.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)) => return Ok(()),
            done => return done,
        }
    }
}

/// Other systems cannot report whether reading in succeeds.
#[cfg(not(target_os = "linux"))]
fn read_in(_: &MmapRaw) -> io::Result<()> {
    Ok(())
}

impl MmapReader<'_> {
    /// The `N` bytes at `offset`, if all of them are in the file and in one mapped window, and the last one is not
    /// zero. Otherwise the caller uses [`MmapReader::read`].
    #[inline]
    pub fn mapped<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let windows = self.windows;
        let window = self.maps.as_ref()?.get(&(offset >> windows.window_bits))?;
        let start = (offset & (windows.window() - 1)) as usize;
        if offset.checked_add(N as u64)? > windows.len() || start + N > window.map.len() {
            return None;
        }
        let mut bytes = [0; N];
        window.copy(start, &mut bytes);
        self.touch(window);
        // The zero may lie beyond the end of a file that another program shortened; see `read`.
        if bytes.last() == Some(&0) { None } else { Some(bytes) }
    }

    /// Records that this reader read `window`.
    #[inline]
    fn touch(&self, window: &Window) {
        // A store for each read would move the cache line between the threads that read the window.
        if self.number != 0 && window.used.load(Ordering::Relaxed) != self.number {
            window.used.store(self.number, Ordering::Relaxed);
        }
    }

    /// See [`MmapWindows::read`].
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let windows = self.windows;
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = offset.checked_add(done as u64) else { break };
            let Some(maps) = &self.maps else {
                return Ok(done + windows.read_file(at, &mut buf[done..])?);
            };
            let left = windows.len().saturating_sub(at).min((buf.len() - done) as u64);
            let (number, start) = (at >> windows.window_bits, at & (windows.window() - 1));
            let n = left.min(windows.window() - start) as usize;
            if n == 0 {
                break;
            }
            let to = &mut buf[done..done + n];
            match maps.get(&number) {
                Some(window) if start + n as u64 <= window.map.len() as u64 => {
                    window.copy(start as usize, to);
                    self.touch(window);
                    // A map shows zeros between the end of the file and the end of its last page. If another program
                    // shortened the file, bytes that end in a zero may come from there.
                    if to.last() == Some(&0) && windows.file.len()? < windows.len() {
                        self.maps = None;
                        return Ok(done + windows.read_file(at, &mut buf[done..])?);
                    }
                }
                _ => {
                    if windows.file.read_at(at, to)? < n {
                        self.maps = None;
                        return Ok(done + windows.read_file(at, &mut buf[done..])?);
                    }
                    if windows.is_wanted(maps, number) {
                        self.maps = None;
                        windows.admit(number)?;
                        self.maps = windows.reader().maps;
                    }
                }
            }
            done += n;
        }
        Ok(done)
    }
}

impl Window {
    /// Copies the bytes from `start` on, which must lie within the map.
    #[inline]
    fn copy(&self, start: usize, to: &mut [u8]) {
        assert!(start.checked_add(to.len()).is_some_and(|end| end <= self.map.len()));
        // SAFETY: the range lies within the map, and the map within the file, because the caller holds the lock that
        // this process needs to shorten the file. (If another program does so, a signal ends the process, which is not
        // undefined behaviour.) `to` is an exclusive reference, so the ranges do not overlap. No reference into the
        // map is made, so the file may change meanwhile; the copy may then mix old and new bytes, which callers
        // prevent by keeping the bytes in memory while they are written.
        unsafe { ptr::copy_nonoverlapping(self.map.as_ptr().add(start), to.as_mut_ptr(), to.len()) }
    }
}

fn no_misses() -> Misses {
    Box::new([const { AtomicU8::new(0) }; 256])
}

fn prev_power_of_two(n: usize) -> usize {
    if n == 0 { 0 } else { 1 << n.ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::Access;
    use crate::storage::testing::{random, storages};

    fn windows(limit: usize) -> Vec<(tempfile::TempDir, MmapWindows)> {
        (0..3)
            .map(|i| {
                let (dir, mut storages) = storages();
                let (storage, how) = storages.swap_remove(i);
                let file = storage.open("tree", Access::Create).unwrap().unwrap();
                (dir, MmapWindows::new(file, how.mappable, limit).unwrap())
            })
            .collect()
    }

    #[test]
    fn read_after_random_writes_and_cuts_returns_what_was_written() {
        for (_dir, windows) in windows(128 << 10) {
            let mut expected: Vec<u8> = Vec::new();
            let mut random = random(3);
            for step in 0..4000 {
                let (at, n) = (random(1 << 20) as usize, random(300) as usize);
                match random(40) {
                    0 => {
                        let len = random(1 << 20) as usize;
                        windows.set_len(len as u64).unwrap();
                        expected.resize(len, 0);
                    }
                    1..10 => {
                        let bytes = vec![step as u8; n];
                        windows.write_at(at as u64, &bytes).unwrap();
                        if n > 0 {
                            expected.resize(expected.len().max(at + n), 0);
                            expected[at..at + n].copy_from_slice(&bytes);
                        }
                    }
                    _ => {
                        let mut out = vec![9; n];
                        let read = windows.read(at as u64, &mut out).unwrap();
                        let end = (at + n).min(expected.len());
                        assert_eq!(&out[..read], &expected[at.min(end)..end]);
                    }
                }
                assert_eq!(windows.len(), expected.len() as u64);
            }
            let maps = windows.maps.read();
            assert_eq!(maps.is_empty(), !windows.mappable.load(Ordering::Relaxed) || windows.file.as_std().is_none());
            assert!(maps.values().map(|w| w.map.len()).sum::<usize>() <= 128 << 10);
        }
    }

    #[test]
    fn new_window_replaces_the_least_recently_read() {
        let (_dir, windows) = windows(256 << 10).swap_remove(0);
        assert_eq!((windows.window(), windows.most), (64 << 10, 4));
        windows.set_len(1 << 20).unwrap();
        let mapped = || {
            let mut mapped: Vec<u64> = windows.maps.read().keys().copied().collect();
            mapped.sort_unstable();
            mapped
        };
        let read_window = |number: u64, times: u8| {
            (0..times).for_each(|_| assert_eq!(windows.read(number * windows.window() + 7, &mut [0; 40]).unwrap(), 40));
        };
        for number in 0..4 {
            read_window(number, MAP_AFTER + 1);
        }
        assert_eq!(mapped(), [0, 1, 2, 3]);
        // Read them in another order than that in which they were made.
        for number in [2, 0, 3, 1] {
            read_window(number, 1);
        }
        let mut there = vec![0, 1, 2, 3];
        for (new, gone) in [(9, 2), (5, 0), (12, 3), (2, 1), (0, 9)] {
            read_window(new, 2 * ADMIT_AFTER);
            there.retain(|&n| n != gone);
            there.push(new);
            there.sort_unstable();
            assert_eq!(mapped(), there);
            assert!(windows.maps.read().values().map(|w| w.map.len()).sum::<usize>() <= 256 << 10);
        }
    }

    #[test]
    fn read_past_the_end_returns_no_bytes() {
        for (_dir, windows) in windows(1 << 20) {
            let mut out = [0; 40];
            assert_eq!(windows.read(0, &mut out).unwrap(), 0);
            windows.write_at(0, &[1; 100]).unwrap();
            assert_eq!(windows.read(80, &mut out).unwrap(), 20);
            assert_eq!(windows.read(100, &mut out).unwrap(), 0);
            assert_eq!(windows.read(1 << 40, &mut out).unwrap(), 0);
            if windows.mappable.load(Ordering::Relaxed) && windows.file.as_std().is_some() {
                assert_eq!(windows.read(u64::MAX, &mut out).unwrap(), 0);
            }
        }
    }

    #[test]
    fn read_past_foreign_truncation_is_error() {
        for (dir, windows) in windows(256 << 10).into_iter().take(2) {
            windows.write_at(0, &[1; 200_000]).unwrap();
            // One window is mapped, the others are not.
            (0..2 * MAP_AFTER).for_each(|_| assert_eq!(windows.read(0, &mut [0; 40]).unwrap(), 40));
            let name = if windows.maps.read().is_empty() { "read" } else { "mapped" };
            let path = dir.path().join(name).join("tree");
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100_000).unwrap();
            let error = windows.read(99_990, &mut [0; 40]).unwrap_err().to_string();
            assert!(error.contains("had 200000 bytes and has 100000 now"), "{error}");
            assert!(windows.maps.read().is_empty() && !windows.mappable.load(Ordering::Relaxed));
            assert!(windows.check().is_err());
            for refused in
                [windows.write_at(200_000, &[2; 40]), windows.write_at(0, &[2; 40]), windows.set_len(150_000)]
            {
                assert!(refused.unwrap_err().to_string().contains("another program cut it"));
            }
            // The remaining bytes are read, and past the tracked end there are none.
            let mut out = [0; 40];
            assert_eq!((windows.read(99_960, &mut out).unwrap(), out), (40, [1; 40]));
            assert_eq!(windows.read(200_000, &mut out).unwrap(), 0);
            assert_eq!(windows.file.len().unwrap(), 100_000);
        }
    }

    #[test]
    fn window_over_a_file_that_was_cut_is_not_made() {
        let (dir, windows) = windows(256 << 10).swap_remove(0);
        windows.write_at(0, &[1; 200_000]).unwrap();
        let path = dir.path().join("mapped").join("tree");
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100_000).unwrap();
        let reads: Vec<io::Result<usize>> = (0..2 * MAP_AFTER).map(|_| windows.read(7, &mut [0; 40])).collect();
        assert_eq!(reads.iter().filter(|read| read.is_err()).count(), 1, "the one that would have made the window");
        assert!(windows.maps.read().is_empty() && !windows.mappable.load(Ordering::Relaxed));
    }

    #[test]
    fn mapped_read_past_foreign_truncation_is_error() {
        let (dir, windows) = windows(256 << 10).swap_remove(0);
        windows.write_at(0, &[1; 4096]).unwrap();
        (0..2 * MAP_AFTER).for_each(|_| assert_eq!(windows.read(0, &mut [0; 40]).unwrap(), 40));
        assert!(windows.reader().mapped::<40>(100).is_some());
        let path = dir.path().join("mapped").join("tree");
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(120).unwrap();
        assert!(windows.reader().mapped::<40>(80).is_some());
        assert_eq!(windows.reader().mapped::<40>(100), None);
        assert!(windows.read(100, &mut [0; 40]).unwrap_err().to_string().contains("had 4096 bytes and has 120 now"));
    }

    #[test]
    fn read_of_shared_file_shortened_by_others_returns_shorter_count() {
        let (dir, windows) = windows(256 << 10).swap_remove(1);
        windows.write_at(0, &[1; 1000]).unwrap();
        let windows = windows.shared(true);
        let path = dir.path().join("read").join("tree");
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(500).unwrap();
        assert_eq!(windows.read(490, &mut [0; 40]).unwrap(), 10);
        windows.check().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn read_in_of_map_past_the_end_of_its_file_fails() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let map = MmapOptions::new().len(1 << 20).map_raw_read_only(&file).unwrap();
        // A system that does not know the advice cannot fail here.
        if map.advise(memmap2::Advice::PopulateRead).is_ok() {
            file.set_len(1 << 16).unwrap();
            assert!(read_in(&map).is_err() || cfg!(target_arch = "arm"));
        }
    }

    #[test]
    fn read_during_cuts_never_touches_bytes_past_the_end() {
        // The last page is cut off and written again while other threads read: a read past the end would end the
        // process.
        for (_dir, windows) in windows(256 << 10) {
            windows.write_at(0, &[1; 300_000]).unwrap();
            std::thread::scope(|scope| {
                for seed in 0..3 {
                    let windows = &windows;
                    scope.spawn(move || {
                        let mut random = random(seed);
                        for _ in 0..20_000 {
                            let mut out = [9; 40];
                            let n = windows.read(random(310_000), &mut out).unwrap();
                            assert!(out[..n].iter().all(|&b| b <= 1));
                        }
                    });
                }
                for i in 0..200 {
                    windows.set_len(1000 * (i % 300)).unwrap();
                    windows.write_at(299_000, &[1; 1000]).unwrap();
                }
            });
            assert_eq!(windows.len(), windows.file.len().unwrap());
        }
    }
}
