//! A core whose files were changed from outside is opened, read, verified, appended to and opened again.
//!
//! The input is which core, whether the checksums of its oplog are put right, and changes: the file, an offset
//! and bytes.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use hypercore::lowlevel::oplog::frame;
use hypercore::{Access, Durability, Hypercore, InfoOptions, Manifest, Memory, OpenOptions, Signer, Storage};

use crate::input::{Input, part};
use crate::memory::within;
use crate::pair;

pub const NAMES: [&str; 5] = ["oplog", "tree", "data", "bitfield", "header"];

/// Which of [`CORES`] is encrypted.
const ENCRYPTED: usize = 1;

type Files = BTreeMap<&'static str, Vec<u8>>;

/// The files of cores of all kinds, each as its writer left it.
pub static CORES: LazyLock<Vec<Files>> = LazyLock::new(|| {
    let options = || Hypercore::options().durability(Durability::None);
    let signers = || vec![Signer::new(pair(1).public_key()), Signer::new(pair(2).public_key())];
    let made = [
        options().key_pair(pair(1)),
        options().key_pair(pair(1)).encryption_key([3; 32]),
        options().key_pair(pair(1)).manifest(Manifest::new(signers()).with_quorum(1)),
        options().key_pair(pair(1)).user_data("big", vec![5; 6000]),
    ];
    made.into_iter().zip([false, true, true, false]).map(|(options, flushed)| grown(options, flushed)).collect()
});

fn grown(options: OpenOptions, flushed: bool) -> Files {
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
    let files = NAMES.iter().map(|name| (*name, contents(&disk, name))).collect();
    core.close().unwrap();
    files
}

fn contents(disk: &Memory, name: &str) -> Vec<u8> {
    let Some(file) = disk.open(name, Access::Read).unwrap() else { return Vec::new() };
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for core in 0..CORES.len() as u8 {
        all.push(vec![core, 1]);
        for name in 0..NAMES.len() as u8 {
            // The file cut to a length, and a byte of it changed.
            all.push([&[core, 1, name, 40, 0, 0], &part(&[])[..]].concat());
            all.push([&[core, 1, name, 9, 16, 0], &part(&[1])[..]].concat());
        }
    }
    // All of a core's files by changes alone.
    let mut input = vec![CORES.len() as u8, 0];
    for (number, name) in (0..).zip(NAMES) {
        for (at, piece) in CORES[0][name].chunks(4096).enumerate() {
            let [a, b, c, _] = (at as u32 * 4096).to_le_bytes();
            let zeros = piece.iter().rev().take_while(|byte| **byte == 0).count();
            input.extend([&[number, a, b, c], &part(&piece[..piece.len() - zeros])[..]].concat());
        }
    }
    all.push(input);
    all
}

/// Gives each frame of an oplog the checksum of what it holds.
fn put_right(oplog: &mut [u8]) {
    let mut seal = |at: usize| {
        let prefix: [u8; 8] = oplog.get(at..at + 8)?.try_into().ok()?;
        let prefix = frame::Prefix::decode(prefix);
        let end = (at + 8).checked_add(prefix.message_len())?;
        let mut hasher = prefix.hasher();
        hasher.update(oplog.get(at + 8..end)?);
        oplog[at..at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
        (end > at + 8).then_some(end)
    };
    seal(0);
    seal(4096);
    let mut at = 8192;
    while let Some(end) = seal(at) {
        at = end;
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let core = usize::from(input.u8()) % (CORES.len() + 1);
    let right = input.u8() % 2 == 1;
    let mut files = CORES.get(core).cloned().unwrap_or_default();
    let mut changes = 0;
    while !input.is_empty() && changes < 64 {
        changes += 1;
        let file = files.entry(NAMES[usize::from(input.u8()) % NAMES.len()]).or_default();
        // Up to a mebibyte.
        let at = input.u24() as usize % (1 << 20);
        let bytes = input.part();
        if bytes.is_empty() || file.len() < at + bytes.len() {
            file.resize(at + bytes.len(), 0);
        }
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    if right {
        files.entry("oplog").and_modify(|oplog| put_right(oplog));
    }
    let key = (core == ENCRYPTED).then_some([3; 32]);
    within(64 << 20, || core_of(&files, key));
}

fn core_of(files: &Files, key: Option<[u8; 32]>) {
    let disk = Memory::new();
    for (name, bytes) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        disk.open(name, Access::Create).unwrap().unwrap().write_at(0, bytes).unwrap();
    }
    let open = || {
        let options = Hypercore::options().durability(Durability::None).create_if_missing(false);
        let options = key.into_iter().fold(options, |options, key| options.encryption_key(key));
        options.timeout(Duration::from_millis(1)).open_in(disk.clone())
    };
    let Ok(core) = open() else { return };
    read(&core, false);
    let mut sound = false;
    // A log of billions of blocks that are not there is not looked through.
    if core.len() < 1000 {
        let found = core.verify();
        sound = found.is_ok_and(|audit| audit.is_sound());
        read(&core, sound);
        if let Ok(audit) = core.repair() {
            let after = core.verify().unwrap();
            if audit.is_sound() {
                assert!(after.is_sound(), "repaired {:?}, found {:?}", audit.faults, after.faults);
                read(&core, true);
            }
        }
    }
    let length = core.len();
    let appended = core.append("and on").is_ok();
    if appended {
        assert_eq!(core.len(), length + 1);
        assert_eq!(core.get(length).unwrap(), b"and on");
    }
    let _ = core.truncate(length / 2);
    let before = (core.len(), core.fork());
    let closed = core.close().is_ok();
    drop(core);
    match open() {
        Ok(again) => {
            assert!(!(appended && closed) || (again.len(), again.fork()) == before, "{before:?}, now {}", again.len());
            read(&again, false);
        }
        Err(error) => assert!(!(appended && closed && sound), "a core that was sound cannot be opened again: {error}"),
    }
}

/// Reads what is there; of a `sound` core every block that it has.
fn read(core: &Hypercore, sound: bool) {
    let len = core.len();
    for index in (0..len.min(12)).chain(len.saturating_sub(3)..len) {
        if core.has(index).is_ok_and(|has| has) {
            let block = core.get(index);
            assert!(!sound || block.is_ok(), "block {index}: {block:?}");
        }
    }
    let _ = core.seek(core.byte_length() / 2);
    let _ = core.info(InfoOptions::new());
    let _ = core.contiguous_length();
    assert!(!sound || core.tree_hash().is_ok());
}
