//! Tests of opening an oplog after any history, cut or flipped bit.

use std::sync::Arc;

use super::*;
use crate::codec::Writer;
use crate::crypto::keys::Key;
use crate::index::NodeIndex;
use crate::node::Node;
use crate::storage::backend::Access;
use crate::storage::disk::Disk;
use crate::storage::memory::Memory;

fn open(storage: &Arc<dyn Storage>, read_only: bool) -> Result<(Oplog, Option<OpenedOplog>)> {
    let file = storage.open("oplog", Access::Create).unwrap().unwrap();
    let (mut oplog, recovered) = Oplog::open(storage, file)?;
    if !read_only {
        // A core does this before its first change.
        oplog.cut_tail(true)?;
    }
    Ok((oplog, recovered))
}

fn file(storage: &Arc<dyn Storage>, name: &str) -> Arc<dyn File> {
    storage.open(name, Access::Create).unwrap().unwrap()
}

fn bytes(storage: &Arc<dyn Storage>, name: &str) -> Vec<u8> {
    let file = file(storage, name);
    let mut out = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut out).unwrap();
    out
}

fn memory_of(oplog: &[u8]) -> Arc<dyn Storage> {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    file(&storage, "oplog").write_at(0, oplog).unwrap();
    storage
}

fn header(length: u64, user_data: usize) -> Header {
    Header {
        key: Key::new([length as u8; 32]),
        manifest: None,
        key_pair: None,
        user_data: vec![("k".into(), vec![length as u8; user_data])],
        tree: TreeHeader { length, ..TreeHeader::default() },
        reorgs: Vec::new(),
        contiguous_length: length,
    }
}

fn entry(n: u64) -> Entry {
    let nodes = (0..n % 5).map(|i| Node { index: NodeIndex(i), size: n, hash: [n as u8; 32] }).collect();
    Entry { nodes, user_data: Some(("n".into(), vec![n as u8; n as usize])), ..Entry::default() }
}

fn append(oplog: &mut Oplog, entries: &[Entry]) {
    let entries: Vec<EntryRef<'_>> = entries.iter().map(Entry::as_ref).collect();
    oplog.append(&entries).unwrap();
}

/// Appends `entries` as one batch, all or nothing: this library reads such batches and writes none.
fn append_batch(oplog: &mut Oplog, entries: &[Entry]) {
    let mut out = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let start = out.len();
        let mut w = Writer::append_to(out);
        entry.as_ref().encode(w.bytes(&[0; frame::PREFIX]));
        out = w.into_vec();
        frame::seal(&mut out, start, i + 1 < entries.len(), oplog.current()).unwrap();
    }
    oplog.file.write_at(ENTRIES + oplog.byte_length, &out).unwrap();
    oplog.byte_length += out.len() as u64;
}

/// Opens the oplog and returns the length in its header, and its entries.
fn found(storage: &Arc<dyn Storage>) -> Option<(u64, Vec<Entry>)> {
    open(storage, false).unwrap().1.map(|r| (r.header.tree.length, r.entries))
}

#[test]
fn open_after_flush_and_append_finds_header_and_entries() {
    let dir = tempfile::tempdir().unwrap();
    for storage in [Arc::new(Disk::new(dir.path())) as Arc<dyn Storage>, Arc::new(Memory::new())] {
        let (mut oplog, none) = open(&storage, false).unwrap();
        assert!(none.is_none());
        assert!(oplog.append(&[EntryRef::default()]).is_err(), "there is no header to append to");
        for round in 0..9 {
            oplog.flush(&header(round, 10), round % 2 == 0).unwrap();
            assert_eq!(bytes(&storage, "oplog").len(), 8192);
            assert_eq!(found(&storage), Some((round, vec![])));
            let entries: Vec<Entry> = (0..round).map(entry).collect();
            append_batch(&mut oplog, &entries);
            for entry in &entries {
                append(&mut oplog, std::slice::from_ref(entry));
            }
            append(&mut oplog, &[]);
            assert_eq!(oplog.entries_byte_length() + 8192, bytes(&storage, "oplog").len() as u64);
            assert_eq!(found(&storage), Some((round, [entries.clone(), entries].concat())));
            oplog = open(&storage, false).unwrap().0;
        }
    }
}

#[test]
fn wipe_leaves_no_byte_of_the_former_header() {
    let dir = tempfile::tempdir().unwrap();
    for storage in [Arc::new(Disk::new(dir.path())) as Arc<dyn Storage>, Arc::new(Memory::new())] {
        let secret = |n: u64, size| {
            let mut header = header(n, 0);
            header.user_data = vec![("k".into(), vec![0xa5; size])];
            header
        };
        for (former, now, rounds) in [(3000, 10, 1), (3000, 10, 2), (9000, 10, 1), (9000, 10, 2), (9000, 6000, 2)] {
            let (mut oplog, _) = open(&storage, false).unwrap();
            (0..rounds).for_each(|_| oplog.flush(&secret(1, former), true).unwrap());
            oplog.flush(&header(2, now), true).unwrap();
            oplog.wipe_former(true).unwrap();
            let has_header = storage.open("header", Access::Read).unwrap().is_some();
            assert_eq!(has_header, now > 4096);
            for name in ["oplog", "header"].into_iter().take(1 + usize::from(has_header)) {
                assert!(
                    !bytes(&storage, name).windows(4).any(|four| four == [0xa5; 4]),
                    "{name} after {former}, {now}"
                );
            }
            // The oplog can be written afterwards, in this process and in the next.
            append(&mut oplog, &[entry(3)]);
            assert_eq!(found(&storage), Some((2, vec![entry(3)])));
            oplog.flush(&header(4, 1), true).unwrap();
            assert_eq!(found(&storage), Some((4, vec![])));
        }
    }
}

#[test]
fn open_of_file_cut_anywhere_finds_whole_batches() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (mut oplog, _) = open(&storage, false).unwrap();
    oplog.flush(&header(0, 0), false).unwrap();
    let mut ends = vec![(8192, 0)];
    for (batch, atomic) in [(0..1, true), (1..4, true), (4..6, false), (6..9, true)] {
        let entries: Vec<Entry> = batch.clone().map(entry).collect();
        if atomic {
            append_batch(&mut oplog, &entries);
            ends.push((8192 + oplog.entries_byte_length(), batch.end as usize));
        } else {
            for (i, n) in batch.enumerate() {
                append(&mut oplog, &entries[i..=i]);
                ends.push((8192 + oplog.entries_byte_length(), n as usize + 1));
            }
        }
    }
    let whole = bytes(&storage, "oplog");
    let all: Vec<Entry> = (0..9).map(entry).collect();
    for n in 4096..=whole.len() {
        let storage = memory_of(&whole[..n]);
        let (end, count) = *ends.iter().rev().find(|(end, _)| *end <= n as u64).unwrap_or(&ends[0]);
        let (oplog, recovered) = open(&storage, true).unwrap();
        assert_eq!(recovered.unwrap().entries, all[..count]);
        assert_eq!(bytes(&storage, "oplog").len(), n, "an open does not write");
        assert_eq!(oplog.entries_byte_length() + 8192, end);
        open(&storage, false).unwrap();
        assert_eq!(bytes(&storage, "oplog").len() as u64, end);
    }
    // A file shorter than a header counts as no core.
    for n in [0, 1, 20, 50] {
        assert!(open(&memory_of(&whole[..n]), false).unwrap().1.is_none());
    }
}

#[test]
fn open_with_flipped_bit_is_an_error_or_finds_an_earlier_state() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (mut oplog, _) = open(&storage, false).unwrap();
    oplog.flush(&header(1, 3), false).unwrap();
    oplog.flush(&header(2, 3), false).unwrap();
    let all: Vec<Entry> = (0..4).map(entry).collect();
    all.iter().for_each(|e| append(&mut oplog, std::slice::from_ref(e)));
    let whole = bytes(&storage, "oplog");
    let interesting = (0..200).chain(4096..4300).chain(8192..whole.len());
    for at in interesting {
        for bit in 0..8 {
            let mut broken = whole.clone();
            broken[at] ^= 1 << bit;
            let (length, entries) = found(&memory_of(&broken)).unwrap();
            match length {
                2 => assert!(all.starts_with(&entries)),
                1 => assert!(entries.is_empty(), "entries are not those of another header"),
                _ => panic!("no header of this length was written"),
            }
        }
    }
    let mut broken = whole.clone();
    broken[10] ^= 1;
    broken[4100] ^= 1;
    assert_eq!(open(&memory_of(&broken), false).err().unwrap().kind(), ErrorKind::Corrupt);
}

#[test]
fn open_after_torn_slot_finds_the_state_before_the_flush() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (mut oplog, _) = open(&storage, false).unwrap();
    for round in 0..6 {
        oplog.flush(&header(round, 3), false).unwrap();
        append(&mut oplog, &[entry(3), entry(4)]);
        let before = bytes(&storage, "oplog");
        // The next flush overwrites the other slot: `round` is odd when slot 1 is current.
        let other = if round % 2 == 0 { 4096 } else { 0 };
        for broken in [0, 1, 60] {
            let mut torn = before.clone();
            torn[other + broken] ^= 0xff;
            let storage = memory_of(&torn);
            assert_eq!(found(&storage), Some((round, vec![entry(3), entry(4)])));
            // The oplog can be written afterwards.
            let (mut oplog, _) = open(&storage, false).unwrap();
            oplog.flush(&header(round + 1, 3), false).unwrap();
            append(&mut oplog, &[entry(2)]);
            assert_eq!(found(&storage), Some((round + 1, vec![entry(2)])));
        }
    }
}

#[test]
fn entries_of_replaced_header_are_void() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (mut oplog, _) = open(&storage, false).unwrap();
    for round in 0..4 {
        oplog.flush(&header(round, 3), false).unwrap();
        append(&mut oplog, &[entry(3)]);
        let entries = bytes(&storage, "oplog")[8192..].to_vec();
        oplog.flush(&header(round + 10, 3), false).unwrap();
        // As if the process crashed between the slot and the cut.
        file(&storage, "oplog").write_at(8192, &entries).unwrap();
        assert_eq!(found(&storage), Some((round + 10, vec![])));
        assert_eq!(bytes(&storage, "oplog").len(), 8192);
    }
}

#[test]
fn long_header_is_written_beside_the_current_one() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (mut oplog, _) = open(&storage, false).unwrap();
    oplog.flush(&header(0, 0), false).unwrap();
    for (round, size) in [5000, 100, 4050, 9000, 20_000, 3000, 1 << 20, 70_000, 70_000, 4100].into_iter().enumerate() {
        let round = round as u64 + 1;
        let current = oplog.external;
        let before = bytes(&storage, "oplog");
        oplog.flush(&header(round, size), round % 2 == 0).unwrap();
        if let (Some(a), Some(b)) = (current, oplog.external) {
            assert!(a.start + a.length <= b.start || b.start + b.length <= a.start);
        }
        assert_eq!(oplog.external.is_some(), size > 4000);
        let (reopened, recovered) = open(&storage, false).unwrap();
        assert_eq!(recovered.unwrap().header, header(round, size));
        oplog = reopened;
        // As if the process crashed before it wrote the slot: the current header stays current.
        if current.is_some() {
            file(&storage, "oplog").write_at(0, &before).unwrap();
            assert_eq!(found(&storage).unwrap().0, round - 1);
            let (mut back, _) = open(&storage, false).unwrap();
            back.flush(&header(round, size), false).unwrap();
            oplog = open(&storage, false).unwrap().0;
        }
    }
    let whole = bytes(&storage, "header");
    let place = oplog.external.unwrap();
    for at in [0, 1, 40, 46, place.length as usize - 1] {
        let mut broken = whole.clone();
        broken[place.start as usize + at] = 0xff;
        file(&storage, "header").write_at(0, &broken).unwrap();
        match open(&storage, false) {
            Err(e) => assert_eq!((e.kind(), e.path()), (ErrorKind::Corrupt, Some(storage.path("header").as_path()))),
            // The file has no checksum: the core compares a header that still decodes with its tree.
            Ok((_, recovered)) => assert_ne!(recovered.unwrap().header, header(10, 4100)),
        }
    }
    file(&storage, "header").set_len(place.start + place.length - 1).unwrap();
    assert_eq!(open(&storage, false).err().unwrap().kind(), ErrorKind::Corrupt);
    storage.remove("header").unwrap();
    assert_eq!(open(&storage, false).err().unwrap().kind(), ErrorKind::Corrupt);
}

#[test]
fn header_place_past_the_end_of_the_file_is_corrupt() {
    for place in
        [ExternalHeader { start: 0, length: 1 << 52 }, ExternalHeader { start: (1 << 53) - 1, length: (1 << 53) - 1 }]
    {
        let mut w = Writer::new();
        place.encode(w.bytes(&[0; 8]));
        let mut frame = w.into_vec();
        frame::seal(&mut frame, 0, false, false).unwrap();
        frame.resize(8192, 0);
        let storage = memory_of(&frame);
        assert_eq!(open(&storage, false).err().unwrap().kind(), ErrorKind::Corrupt);
        file(&storage, "header").set_len(1 << 51).unwrap();
        assert_eq!(open(&storage, false).err().unwrap().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn open_of_huge_sparse_file_takes_memory_for_its_entries_alone() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (mut oplog, _) = open(&storage, false).unwrap();
    oplog.flush(&header(0, 0), false).unwrap();
    append(&mut oplog, &[entry(1)]);
    let end = 8192 + oplog.entries_byte_length();
    file(&storage, "oplog").set_len(1 << 50).unwrap();
    // The next frame claims a gibibyte, and the file is long enough for it.
    file(&storage, "oplog").write_at(end, &[1, 2, 3, 4, 0xfc, 0xff, 0xff, 0xff]).unwrap();
    assert_eq!(found(&storage), Some((0, vec![entry(1)])));
    assert_eq!(bytes(&storage, "oplog").len() as u64, end);
}

#[test]
fn entry_longer_than_a_piece_is_read() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (mut oplog, _) = open(&storage, false).unwrap();
    oplog.flush(&header(0, 0), false).unwrap();
    let sizes = [1, 65_519, 65_520, 65_521, 65_528, 65_529, 70_000, 3, 1 << 20, 9];
    let all: Vec<Entry> = sizes
        .into_iter()
        .map(|n| Entry { user_data: Some(("k".into(), vec![n as u8; n])), ..Entry::default() })
        .collect();
    append_batch(&mut oplog, &all);
    assert_eq!(found(&storage), Some((0, all.clone())));
    let mut whole = bytes(&storage, "oplog");
    let last = whole.len() - 100;
    whole[last] ^= 1;
    assert_eq!(found(&memory_of(&whole)), Some((0, vec![])), "a batch is read as a whole or not at all");
}

/// A file whose operation `fail` fails.
struct Failing {
    file: Arc<dyn File>,
    fail: std::sync::atomic::AtomicU8,
}

const WRITE: u8 = 1;
const SYNC: u8 = 2;
const CUT: u8 = 3;

impl Failing {
    fn check(&self, call: u8) -> io::Result<()> {
        let fail = self.fail.load(std::sync::atomic::Ordering::Relaxed) == call;
        if fail { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl File for Failing {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // A failing write writes half of the bytes.
        let fails = self.check(WRITE);
        let n = if fails.is_err() { bytes.len() / 2 } else { bytes.len() };
        self.file.write_at(offset, &bytes[..n])?;
        fails
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(CUT)?;
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.check(SYNC)?;
        self.file.sync()
    }
    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn disk_usage(&self) -> io::Result<u64> {
        self.file.disk_usage()
    }
    fn lock(&self, _: bool) -> io::Result<bool> {
        Ok(true)
    }
}

#[test]
fn append_after_failed_append_removes_its_bytes() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let failing = Arc::new(Failing { file: file(&storage, "oplog"), fail: 0.into() });
    let (mut oplog, _) = Oplog::open(&storage, failing.clone()).unwrap();
    oplog.flush(&header(0, 0), false).unwrap();
    append(&mut oplog, &[entry(1)]);
    failing.fail.store(WRITE, std::sync::atomic::Ordering::Relaxed);
    // The first of the four entries is written as a whole, and is as long as the entry that is appended afterwards.
    let lost: Vec<Entry> = vec![entry(6), entry(6), entry(6), entry(6)];
    let refs: Vec<EntryRef<'_>> = lost.iter().map(Entry::as_ref).collect();
    assert!(oplog.append(&refs).is_err());
    failing.fail.store(0, std::sync::atomic::Ordering::Relaxed);
    append(&mut oplog, &[entry(6)]);
    assert_eq!(found(&storage), Some((0, vec![entry(1), entry(6)])));
}

#[test]
fn write_after_failed_flush_is_refused() {
    for call in [WRITE, SYNC, CUT] {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new());
        let failing = Arc::new(Failing { file: file(&storage, "oplog"), fail: 0.into() });
        let (mut oplog, _) = Oplog::open(&storage, failing.clone()).unwrap();
        oplog.flush(&header(0, 0), true).unwrap();
        append(&mut oplog, &[entry(1)]);
        failing.fail.store(call, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(oplog.flush(&header(1, 0), true).unwrap_err().kind(), ErrorKind::Io);
        failing.fail.store(0, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(oplog.append(&[EntryRef::default()]).unwrap_err().kind(), ErrorKind::Failed);
        assert_eq!(oplog.flush(&header(1, 0), true).unwrap_err().kind(), ErrorKind::Failed);
        // A flush also syncs before it writes the slot.
        let expected = if call == CUT { (1, vec![]) } else { (0, vec![entry(1)]) };
        assert_eq!(found(&storage), Some(expected));
    }
}
