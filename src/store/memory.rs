//! Files in this process.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::medium::{Access, File, Medium};

const PAGE: u64 = 4096;

/// A [`Medium`] in memory, gone with its last clone.
///
/// Clones share the files, so that a core can be closed and opened again. Files are sparse: what was never written takes no
/// memory. Locks work as those of files do, between the opens of all clones.
#[derive(Clone, Default)]
pub struct Memory {
    files: Arc<Mutex<HashMap<String, Arc<Mutex<Content>>>>>,
}

#[derive(Default)]
struct Content {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    len: u64,
    /// Holders of a shared lock, or one holder of the exclusive one.
    shared: usize,
    exclusive: bool,
}

struct Handle {
    content: Arc<Mutex<Content>>,
    writable: bool,
    held: Mutex<Option<Held>>,
}

#[derive(Clone, Copy)]
enum Held {
    Shared,
    Exclusive,
}

impl Memory {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = lock(&self.files);
        f.debug_map().entries(files.iter().map(|(name, content)| (name, lock(content).len))).finish()
    }
}

impl Medium for Memory {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        let mut files = lock(&self.files);
        let content = match (files.get(name), access) {
            (Some(content), _) => content.clone(),
            (None, Access::Create) => files.entry(name.to_owned()).or_default().clone(),
            (None, _) => return Ok(None),
        };
        Ok(Some(Arc::new(Handle { content, writable: access != Access::Read, held: Mutex::new(None) })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.files).remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }
}

impl Handle {
    fn change(&self) -> io::Result<MutexGuard<'_, Content>> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file was opened for reading"));
        }
        Ok(lock(&self.content))
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.content);
        let n = content.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (page, start, part) in parts(offset, n) {
            let to = &mut buf[part.clone()];
            match content.pages.get(&page) {
                Some(bytes) => to.copy_from_slice(&bytes[start..start + part.len()]),
                None => to.fill(0),
            }
        }
        Ok(n)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= i64::MAX as u64);
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        let mut content = self.change()?;
        for (page, start, part) in parts(offset, bytes.len()) {
            let to = content.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]));
            to[start..start + part.len()].copy_from_slice(&bytes[part]);
        }
        if !bytes.is_empty() {
            content.len = content.len.max(end);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.change()?;
        if len < content.len {
            content.pages.split_off(&len.div_ceil(PAGE));
            if let Some(last) = content.pages.get_mut(&(len / PAGE)) {
                last[(len % PAGE) as usize..].fill(0);
            }
        }
        content.len = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut content = self.change()?;
        let end = offset.saturating_add(len).min(content.len);
        if offset >= end {
            return Ok(());
        }
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        if first < last {
            let mut tail = content.pages.split_off(&first);
            let mut kept = tail.split_off(&last);
            content.pages.append(&mut kept);
        }
        for (page, range) in [
            (offset / PAGE, offset % PAGE..(end - offset / PAGE * PAGE).min(PAGE)),
            (last, if last < first { 0..0 } else { 0..end % PAGE }),
        ] {
            if let Some(bytes) = content.pages.get_mut(&page) {
                bytes[range.start as usize..range.end as usize].fill(0);
            }
        }
        Ok(())
    }

    fn disk_usage(&self) -> io::Result<u64> {
        Ok(lock(&self.content).pages.len() as u64 * PAGE)
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        let mut held = lock(&self.held);
        let mut content = lock(&self.content);
        content.release(*held);
        let free = !content.exclusive && !(exclusive && content.shared > 0);
        if free {
            *held = Some(if exclusive { Held::Exclusive } else { Held::Shared });
        }
        content.acquire(*held);
        Ok(free)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let content = lock(&self.content);
        Ok(content.pages.range(offset / PAGE..).next().map(|(page, _)| offset.max(page * PAGE)))
    }
}

impl Content {
    fn acquire(&mut self, held: Option<Held>) {
        match held {
            Some(Held::Shared) => self.shared += 1,
            Some(Held::Exclusive) => self.exclusive = true,
            None => {}
        }
    }

    fn release(&mut self, held: Option<Held>) {
        match held {
            Some(Held::Shared) => self.shared -= 1,
            Some(Held::Exclusive) => self.exclusive = false,
            None => {}
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let held = lock(&self.held).take();
        lock(&self.content).release(held);
    }
}

/// The pages that `len` bytes at `offset` touch: page, where in it, which of the bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let n = (len - done).min((PAGE - at % PAGE) as usize);
        let part = done..done + n;
        done += n;
        (n > 0).then_some((at / PAGE, (at % PAGE) as usize, part))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
