//! The write-ahead log. The first byte says what follows: 0 an entry, 1 a header, else an [image] behind the file
//! `header`.

use std::sync::Arc;

use hypercore::lowlevel::codec::Reader;
use hypercore::lowlevel::oplog::{Entry, External, Header, Oplog, Slot, frame};
use hypercore::{Access, Memory, Storage};

use crate::core_files::CORES;
use crate::input::{Input, part};
use crate::memory::within;
use crate::written;

/// A frame's mode: its bit, whether the batch goes on in the next frame, and what is wrong with it.
const BIT: u8 = 1;
const PARTIAL: u8 = 2;
const BAD_CHECKSUM: u8 = 4;
/// Not a frame: the bytes as they are.
const RAW: u8 = 8;

pub fn run(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    within(64 * bytes.len() + (4 << 20), || match which {
        0 => entry(bytes),
        1 => header(bytes),
        _ => log(&mut Input(bytes)),
    });
}

pub fn line(bytes: &[u8]) -> Option<(&'static str, &[u8])> {
    match bytes {
        [0, bytes @ ..] => Some(("entry", bytes)),
        [1, bytes @ ..] => Some(("header", bytes)),
        _ => None,
    }
}

/// The whole frames of an oplog: two slots, none where one is not whole, then entries.
fn frames_of(oplog: &[u8]) -> [Vec<(frame::Prefix, Vec<u8>)>; 3] {
    let at = |at: usize| oplog.get(at..).and_then(frame::decode).map(|(prefix, message)| (prefix, message.to_vec()));
    let mut entries = Vec::new();
    let mut next = 8192;
    while let Some(entry) = at(next) {
        next += frame::PREFIX + entry.1.len();
        entries.push(entry);
    }
    [at(0).into_iter().collect(), at(4096).into_iter().collect(), entries]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = vec![[vec![1], written(|w| External { start: 4096, length: 9000 }.encode(w))].concat()];
    for core in CORES.iter() {
        let frames = frames_of(&core["oplog"]);
        let mut image = [vec![2], part(&core["header"])].concat();
        for slot in &frames[..2] {
            match slot.first() {
                None => image.extend([vec![RAW], part(&[])].concat()),
                Some((prefix, message)) => {
                    image.extend([vec![u8::from(prefix.bit())], part(message)].concat());
                    all.push([&[1], &message[..]].concat());
                }
            }
        }
        for (prefix, message) in &frames[2] {
            let mode = u8::from(prefix.bit()) | u8::from(prefix.partial()) << 1;
            image.extend([vec![mode], part(message)].concat());
            all.push([&[0], &message[..]].concat());
        }
        all.push([&image[..], &[BAD_CHECKSUM], &part(b"torn")].concat());
        all.push(image);
        if !core["header"].is_empty() {
            all.push([&[1], &core["header"][..]].concat());
        }
    }
    all
}

fn entry(bytes: &[u8]) {
    let Ok(entry) = Entry::decode(&mut Reader::new(bytes)) else { return };
    let again = written(|w| entry.as_ref().encode(w));
    assert_eq!(Entry::decode(&mut Reader::new(&again)).unwrap(), entry);
}

fn header(bytes: &[u8]) {
    match Slot::decode(&mut Reader::new(bytes)) {
        Err(_) => {}
        Ok(Slot::External(place)) => {
            assert_eq!(Slot::decode(&mut Reader::new(&written(|w| place.encode(w)))).unwrap(), Slot::External(place));
        }
        Ok(Slot::Inline(header)) => {
            let again = written(|w| header.encode(w));
            assert_eq!(Slot::decode(&mut Reader::new(&again)).unwrap(), Slot::Inline(header));
        }
    }
}

/// The bytes of a file `oplog`: two slots, then entries, each a mode and a part.
fn image(input: &mut Input) -> Vec<u8> {
    let mut out = Vec::new();
    let mut count = 0;
    while !input.is_empty() {
        let mode = input.u8();
        let message = input.part();
        if count < 2 {
            out.resize(count * 4096, 0);
        } else if count == 2 {
            out.resize(8192, 0);
        }
        count += 1;
        let message = if count <= 2 { &message[..message.len().min(4000)] } else { message };
        let start = out.len();
        if mode & RAW != 0 {
            out.extend_from_slice(message);
            continue;
        }
        out.extend([0; frame::PREFIX]);
        out.extend_from_slice(message);
        frame::seal(&mut out, start, mode & PARTIAL != 0, mode & BIT != 0).unwrap();
        out[start] ^= mode & BAD_CHECKSUM;
    }
    out
}

/// Each open recovers the same entries, appended entries follow them, and a flush leaves only its header.
fn log(input: &mut Input) {
    let header_file = input.part();
    let disk = Memory::new();
    for (name, bytes) in [("header", header_file), ("oplog", &image(input))] {
        disk.open(name, Access::Create).unwrap().unwrap().write_at(0, bytes).unwrap();
    }
    let open = || {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let file = storage.open("oplog", Access::Write).unwrap().unwrap();
        let (oplog, recovered) = Oplog::open(&storage, file).ok()?;
        Some((oplog, recovered?))
    };
    let Some((mut oplog, found)) = open() else { return };
    let same = open().unwrap().1;
    assert_eq!((&same.header, &same.entries), (&found.header, &found.entries));

    oplog.cut_tail(false).unwrap();
    let cut = open().unwrap().1;
    assert_eq!((&cut.header, &cut.entries, cut.lost_length), (&found.header, &found.entries, None));

    let more = Entry { user_data: Some(("key".into(), b"value".to_vec())), ..Entry::default() };
    oplog.append(&[more.as_ref(), more.as_ref()]).unwrap();
    let grown = open().unwrap().1;
    assert_eq!((&grown.header, grown.lost_length), (&found.header, None));
    assert_eq!(grown.entries.len(), found.entries.len() + 2);
    assert_eq!(grown.entries[..found.entries.len()], found.entries);
    assert!(grown.entries.ends_with(&[more.clone(), more]));

    let header = Header { contiguous_length: 3, ..grown.header };
    oplog.flush(&header, false).unwrap();
    oplog.wipe_former(false).unwrap();
    let last = open().unwrap().1;
    assert_eq!((&last.header, last.entries.len(), last.lost_length), (&header, 0, None));
}
