//! Decoders: none panics, and a value that was decoded encodes and decodes to an equal one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hypercore::lowlevel::codec::Reader;
use hypercore::lowlevel::node::Node;
use hypercore::lowlevel::oplog::{Entry, ExternalHeader, Header, Slot, frame as oplog_frame};
use hypercore::lowlevel::replication::{Handshake, Message};
use hypercore::lowlevel::wire::batch::messages;
use hypercore::lowlevel::wire::frame::{self, Decoder};
use hypercore::{Access, Durability, Hypercore, Key, Manifest, Memory, MultiSignature, Signer, Storage};

use super::written;

use crate::common::{hex, pair, unhex};
/// Each byte selects how the next value is read.
pub fn codec(bytes: &[u8]) -> bool {
    let mut r = Reader::new(bytes);
    while let Ok(how) = r.u8() {
        let before = r.len();
        let read = match how % 10 {
            0 => r.uint().map(|n| {
                assert_eq!(Reader::new(&written(|w| _ = w.uint(n))).uint().unwrap(), n);
            }),
            1 => r.buffer().map(drop),
            2 => r.string().map(drop),
            3 => r.array(1, |r| r.u8()).map(drop),
            4 => r.array(0, |r| r.uint()).map(drop),
            5 => r.fixed::<32>().map(drop),
            6 => r.u32().map(drop),
            7 => r.u64().map(drop),
            8 => r.count(3).map(|n| assert!(n <= r.len() / 3)),
            _ => r.array(2, |r| r.buffer().map(<[u8]>::to_vec)).map(drop),
        };
        assert!(r.len() <= before);
        if read.is_err() {
            return false;
        }
    }
    true
}

pub fn keys() -> Vec<Vec<u8>> {
    let key = pair(1).public_key();
    vec![key.to_hex().into_bytes(), key.id().into_bytes()]
}

pub fn key(bytes: &[u8]) -> bool {
    let _ = Key::try_from(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(key) = text.parse::<Key>() else { return false };
    assert_eq!(key.to_hex().parse::<Key>().unwrap(), key);
    assert_eq!(key.id().parse::<Key>().unwrap(), key);
    true
}

pub fn node(bytes: &[u8]) -> bool {
    let Ok(node) = Node::decode(&mut Reader::new(bytes)) else { return false };
    assert_eq!(Node::decode(&mut Reader::new(&written(|w| node.encode(w)))).unwrap(), node);
    true
}

/// The files of cores of each kind, as the core leaves them before it closes.
pub static CORES: LazyLock<Vec<BTreeMap<&'static str, Vec<u8>>>> = LazyLock::new(|| {
    let options = || Hypercore::options().durability(Durability::None);
    let signers = || vec![Signer::new(pair(1).public_key()), Signer::new(pair(2).public_key())];
    let made = [
        options().key_pair(pair(1)),
        options().key_pair(pair(1)).encryption_key([3; 32]),
        options().key_pair(pair(1)).manifest(Manifest::new(signers()).with_quorum(1)),
        options().key_pair(pair(1)).user_data("big", vec![5; 6000]),
    ];
    let grow = |options: hypercore::OpenOptions, flushed: bool| {
        let disk = Memory::new();
        let core = options.open_in(disk.clone()).unwrap();
        core.append_batch((0..5_u8).map(|i| vec![i; usize::from(i) * 9])).unwrap();
        core.truncate(3).unwrap();
        if flushed {
            core.flush().unwrap();
        }
        core.append("more").unwrap();
        core.set_user_data("name", "value").unwrap();
        core.clear(1..2).unwrap();
        let files = NAMES.iter().map(|name| (*name, file(&disk, name))).collect();
        core.close().unwrap();
        files
    };
    made.into_iter().zip([false, true, true, false]).map(|(options, flushed)| grow(options, flushed)).collect()
});

pub const NAMES: [&str; 5] = ["oplog", "tree", "data", "bitfield", "header"];

pub fn file(disk: &Memory, name: &str) -> Vec<u8> {
    let Some(file) = disk.open(name, Access::Read).unwrap() else { return Vec::new() };
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

pub fn disk_of<'a>(files: impl IntoIterator<Item = (&'static str, &'a [u8])>) -> Memory {
    let disk = Memory::new();
    for (name, bytes) in files.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        disk.open(name, Access::Create).unwrap().unwrap().write_at(0, bytes).unwrap();
    }
    disk
}

/// The messages of the complete frames of an oplog.
pub fn frames_of(oplog: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut starts = vec![0, 4096];
    let mut at = 8192;
    while let Some((prefix, _)) = oplog.get(at..).and_then(oplog_frame::decode) {
        starts.push(at);
        at += 8 + prefix.message_len();
    }
    for start in starts {
        out.extend(oplog.get(start..).and_then(oplog_frame::decode).map(|(_, message)| message.to_vec()));
    }
    out
}

pub fn entries() -> Vec<Vec<u8>> {
    CORES.iter().flat_map(|files| frames_of(&files["oplog"])).filter(|message| entry(message)).collect()
}

pub fn entry(bytes: &[u8]) -> bool {
    let Ok(entry) = Entry::decode(&mut Reader::new(bytes)) else { return false };
    let again = written(|w| entry.as_ref().encode(w));
    assert_eq!(Entry::decode(&mut Reader::new(&again)).unwrap(), entry);
    true
}

pub fn headers() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = CORES.iter().flat_map(|files| frames_of(&files["oplog"])).collect();
    all.extend(CORES.iter().map(|files| files["header"].clone()));
    all.push(written(|w| ExternalHeader { start: 4096, length: 9000 }.encode(w)));
    all.retain(|message| header(message));
    assert!(all.len() > 4);
    all
}

pub fn header(bytes: &[u8]) -> bool {
    let again = match Slot::decode(&mut Reader::new(bytes)) {
        Err(_) => return false,
        Ok(Slot::External(place)) => written(|w| place.encode(w)),
        Ok(Slot::Inline(header)) => {
            let header: &Header = &header;
            let again = written(|w| header.encode(w));
            let Ok(Slot::Inline(same)) = Slot::decode(&mut Reader::new(&again)) else {
                panic!("no header: {}", hex(&again))
            };
            assert_eq!(format!("{:?}", *same), format!("{header:?}"));
            return true;
        }
    };
    Slot::decode(&mut Reader::new(&again)).is_ok()
}

pub fn manifests() -> Vec<Vec<u8>> {
    let [one, two] = [1, 2].map(|n| Signer::new(pair(n).public_key()));
    let all = [
        Manifest::single(pair(1).public_key()),
        Manifest::new(vec![one, two]).with_quorum(2),
        Manifest::new(vec![one, two]).with_allow_patch(true).with_prologue([4; 32], 77),
    ];
    all.iter().map(|manifest| written(|w| manifest.encode(w))).collect()
}

pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = Manifest::decode(&mut Reader::new(bytes)) else { return false };
    let again = written(|w| manifest.encode(w));
    assert_eq!(Manifest::decode(&mut Reader::new(&again)).unwrap(), manifest);
    assert_eq!(manifest.key(), manifest.key());
    true
}

pub fn signatures() -> Vec<Vec<u8>> {
    let one = |version: u8| match version {
        0 => written(|w| _ = w.uint(1).uint(0).uint(0).bytes(&[9; 64]).uint(0)),
        _ => written(|w| _ = w.uint(1).uint(0).bytes(&[9; 64]).uint(0).uint(0)),
    };
    (0..2).map(|version| [&[version][..], &one(version)].concat()).collect()
}

pub fn signature(bytes: &[u8]) -> bool {
    let [version, bytes @ ..] = bytes else { return false };
    let version = version % 2;
    let Ok(signature) = MultiSignature::decode(version, bytes) else { return false };
    let again = signature.encode(version);
    // A patch of length 0 is encoded without its nodes, so the decoded value may differ.
    let same = MultiSignature::decode(version, &again);
    assert!(same.is_ok(), "{}", hex(&again));
    true
}

/// A message of each kind, each behind a byte with its type.
pub fn all_messages() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = crate::messages::samples()
        .into_iter()
        .map(|(_, message)| [vec![message.kind() as u8], written(|w| message.encode(w))].concat())
        .collect();
    let full = Message::Data(Box::new(crate::messages::full()));
    all.push([vec![3], written(|w| full.encode(w))].concat());
    all.push([vec![200], written(|w| Handshake { seeks: true, capability: [1; 32] }.encode(w))].concat());
    all
}

pub fn message(bytes: &[u8]) -> bool {
    let [kind, payload @ ..] = bytes else { return false };
    if *kind == 200 {
        let Ok(handshake) = Handshake::decode(&mut Reader::new(payload)) else { return false };
        let again = written(|w| handshake.encode(w));
        assert_eq!(Handshake::decode(&mut Reader::new(&again)).unwrap(), handshake);
        return true;
    }
    let Ok(Some(message)) = Message::decode(u64::from(*kind), payload) else { return false };
    assert_eq!(message.kind(), u64::from(*kind));
    let again = written(|w| message.encode(w));
    assert_eq!(Message::decode(message.kind(), &again).unwrap().unwrap(), message);
    true
}

/// Streams of frames, behind a byte with the size of the pieces in which the decoder is fed.
pub fn streams() -> Vec<Vec<u8>> {
    let of = |sizes: &[usize]| -> Vec<u8> {
        sizes.iter().flat_map(|&size| [&frame::prefix(size)[..], &vec![size as u8; size]].concat()).collect()
    };
    vec![[vec![1], of(&[1, 2, 300])].concat(), [vec![7], of(&[70, 1000, 0, 5])].concat()]
}

pub fn frames(bytes: &[u8]) -> bool {
    const MAX: usize = 2000;
    let [step, bytes @ ..] = bytes else { return false };
    let mut decoder = Decoder::new(MAX);
    let mut read: Vec<Vec<u8>> = Vec::new();
    let mut failed = false;
    'all: for piece in bytes.chunks(usize::from(*step).max(1)) {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => read.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break 'all;
                }
            }
        }
        assert!(decoder.capacity() <= 1 << 20, "{} bytes for frames of {MAX}", decoder.capacity());
    }
    // Compares with a parser of three-byte lengths.
    let mut rest = bytes;
    for frame in &read {
        loop {
            let len = usize::from(rest[0]) | usize::from(rest[1]) << 8 | usize::from(rest[2]) << 16;
            rest = &rest[3..];
            let (mine, behind) = rest.split_at(len);
            rest = behind;
            if mine == &frame[..] {
                break;
            }
            // The decoder may skip empty frames.
            assert!(mine.is_empty());
        }
    }
    !failed
}

/// Frames of the reference's multiplexer, each behind its length in two bytes.
pub fn conversations() -> Vec<Vec<u8>> {
    let lines = include_str!("../../vectors/protomux.txt").lines();
    let mut all = Vec::new();
    let mut talk = Vec::new();
    for line in lines.filter(|line| !line.starts_with('#')) {
        match line.split_once('|') {
            Some(("scenario", _)) => all.push(std::mem::take(&mut talk)),
            Some((_, frame)) => talk.push(unhex(frame)),
            None => {}
        }
    }
    all.push(talk);
    let mut out = Vec::new();
    for talk in all.iter().filter(|talk| !talk.is_empty()) {
        // The frames of one side.
        for side in 0..2 {
            let one = talk.iter().skip(side).step_by(2);
            out.push(one.flat_map(|frame| [&(frame.len() as u16).to_le_bytes()[..], frame].concat()).collect());
        }
    }
    out.push(written(|w| _ = w.bytes(&[5, 0, 0, 1, 1, 1, 112]).bytes(&[0, 3, 0, 1, 0, 9])));
    out.retain(|talk: &Vec<u8>| batch(talk));
    assert!(out.len() > 3);
    out
}

pub fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [a, b, rest @ ..] = bytes else { return None };
        let len = usize::from(u16::from_le_bytes([*a, *b])).min(rest.len());
        let (part, behind) = rest.split_at(len);
        bytes = behind;
        Some(part)
    })
}

pub fn batch(bytes: &[u8]) -> bool {
    let mut size = 0;
    let good =
        parts(bytes).all(|frame| messages(frame).all(|message| message.map(|m| size += m.payload.len()).is_ok()));
    assert!(size <= bytes.len());
    good
}
