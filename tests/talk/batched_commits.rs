//! What arrived together is stored together: how often a copy writes does not depend on how many blocks it is brought.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypercore::{Access, Download, File, Hypercore, Memory, Storage};

use crate::cores::{connect, writer};
use crate::harness::parallel_test;

/// Storage in memory that counts the entries of the log of changes.
#[derive(Clone, Default)]
struct Counting {
    inner: Memory,
    entries: Arc<AtomicU64>,
}

struct CountingFile {
    inner: Arc<dyn File>,
    writes: Arc<AtomicU64>,
}

impl Storage for Counting {
    fn open(&self, name: &str, access: Access) -> io::Result<Option<Arc<dyn File>>> {
        let Some(inner) = self.inner.open(name, access)? else { return Ok(None) };
        let writes = if name.ends_with("oplog") { self.entries.clone() } else { Arc::default() };
        Ok(Some(Arc::new(CountingFile { inner, writes })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.path(name)
    }
}

impl File for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)
    }

    fn disk_usage(&self) -> io::Result<u64> {
        self.inner.disk_usage()
    }

    fn lock(&self, exclusive: bool) -> io::Result<bool> {
        self.inner.lock(exclusive)
    }
}

#[test]
fn proofs_received_together_make_one_oplog_entry() {
    const COUNT: u64 = 4000;
    let _guard = parallel_test!();
    let core = writer(COUNT);
    let storage = Counting::default();
    let copy = Hypercore::options().key(core.key()).open_in(storage.clone()).unwrap();
    let before = storage.entries.load(Ordering::SeqCst);
    let _connected = connect(&copy, &core);
    copy.download(Download::range(0..COUNT)).unwrap().wait().unwrap();
    let entries = storage.entries.load(Ordering::SeqCst) - before;
    assert!(entries > 0 && entries < COUNT / 8, "{entries} entries for {COUNT} blocks");
    // What was stored together is all there for whoever opens it next.
    drop((_connected, copy));
    let copy = Hypercore::options().key(core.key()).open_in(storage).unwrap();
    assert_eq!((copy.contiguous_length().unwrap(), copy.tree_hash().unwrap()), (COUNT, core.tree_hash().unwrap()));
}
