//! Files in the memory of this process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::backend::{Access, File, Storage};
use crate::sync::{Mutex, MutexGuard, Rank};

const PAGE: u64 = 4096;

/// A [`Storage`] in memory. Its files are lost when the last clone is dropped.
///
/// Clones share the files, so that a core can be closed and opened again. Files are sparse: pages never written take
/// no memory. A lock keeps out every other open of the file through any clone.
#[derive(Clone)]
pub struct Memory {
    files: Arc<Mutex<HashMap<String, Arc<Mutex<Content>>>>>,
}

#[derive(Default)]
struct Content {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    len: u64,
    /// The ids of the handles that hold a lock, each with whether the lock is exclusive.
    holders: HashMap<u64, bool>,
    /// The memory addresses of the open handles, by which [`Storage::is_current`] recognizes them.
    open: HashSet<usize>,
}

struct Handle {
    id: u64,
    content: Arc<Mutex<Content>>,
    writable: bool,
}

impl Memory {
    /// Storage without files.
    pub fn new() -> Self {
        Memory { files: Arc::new(Mutex::new(Rank::Storage, HashMap::new())) }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.files.lock().keys()).finish()
    }
}

impl Storage for Memory {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let mut files = self.files.lock();
        if access == Access::Create && !files.contains_key(name) {
            files.insert(name.to_owned(), Arc::new(Mutex::new(Rank::Storage, Content::default())));
        }
        let Some(content) = files.get(name).cloned() else { return Ok(None) };
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        drop(files);
        let handle = Arc::new(Handle { id, content, writable: access != Access::Read });
        handle.content.lock().open.insert(address(&*handle));
        Ok(Some(handle))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }

    fn is_current(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let content = self.files.lock().get(name).cloned();
        Ok(content.is_some_and(|content| content.lock().open.contains(&address(file))))
    }
}

fn address(file: &dyn File) -> usize {
    ptr::from_ref(file).cast::<()>() as usize
}

impl Handle {
    fn change(&self) -> io::Result<MutexGuard<'_, Content>> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file was opened for reading"));
        }
        Ok(self.content.lock())
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let content = self.content.lock();
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
        Ok(self.content.lock().pages.len() as u64 * PAGE)
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        let mut content = self.content.lock();
        let in_the_way = |(&id, &theirs): (&u64, &bool)| id != self.id && (exclusive || theirs);
        if content.holders.iter().any(in_the_way) {
            return Ok(false);
        }
        content.holders.insert(self.id, exclusive);
        Ok(true)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let content = self.content.lock();
        Ok(content.pages.range(offset / PAGE..).next().map(|(page, _)| offset.max(page * PAGE)))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let at = address(self);
        let mut content = self.content.lock();
        content.holders.remove(&self.id);
        content.open.remove(&at);
    }
}

/// Splits `len` bytes at `offset` by page: the page, the offset in it, and the range of the bytes.
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
