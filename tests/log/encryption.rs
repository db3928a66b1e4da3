//! Reads and appends with a wrong encryption key, without the key, or with a key for a plain log are errors.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::thread;

use hypercore::lowlevel::crypto::block_cipher::BlockCipher;
use hypercore::net::{Role, pipe};
use hypercore::{
    Access, ByteOptions, Durability, Encrypted, ErrorKind, GetOptions, Hypercore, InfoOptions, Memory, OpenOptions,
    ReadOptions, Result, SessionOptions, SignOptions, Storage, Utf8,
};

use crate::common::{Call, CallKind, Hooked, copy_of, files_of, kind, pair, watchdog};

const MARKER: &str = "hypercore-blocking/encryption";
const RIGHT: [u8; 32] = [0xee; 32];
const WRONG: [u8; 32] = [0xdd; 32];

fn opening(key: Option<[u8; 32]>) -> OpenOptions {
    let options = Hypercore::options().key_pair(pair(1)).wait(false);
    key.map_or(options.clone(), |key| options.encryption_key(key))
}

/// A copy of a core that JavaScript wrote with the key [`RIGHT`].
fn of_javascript(name: &str) -> tempfile::TempDir {
    copy_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/js10").join(name))
}

fn reopen(dir: &Path, key: Option<[u8; 32]>) -> Hypercore {
    let options = Hypercore::options().create_if_missing(false).wait(false);
    key.map_or(options.clone(), |key| options.encryption_key(key)).open(dir).unwrap()
}

fn raw(core: &Hypercore, index: u64) -> Vec<u8> {
    core.get_with(index, GetOptions::new().decrypt(false)).unwrap().unwrap()
}

/// Every read fails, except reads of blocks as they are stored.
#[track_caller]
fn refuses_reads(core: &Hypercore) {
    assert_eq!(kind(core.check_encryption()), ErrorKind::Encryption);
    assert_eq!(kind(core.get(0)), ErrorKind::Encryption);
    assert_eq!(kind(core.get_with(0, GetOptions::new())), ErrorKind::Encryption);
    assert_eq!(kind(core.seek(0)), ErrorKind::Encryption);
    assert_eq!(kind(core.encoded(Utf8).get(0)), ErrorKind::Encryption);
    let blocks = core.read_stream(ReadOptions::new()).and_then(Iterator::collect::<Result<Vec<_>>>);
    assert_eq!(kind(blocks), ErrorKind::Encryption);
    let mut bytes = Vec::new();
    let read = core.byte_stream(ByteOptions::new()).and_then(|mut stream| Ok(stream.read_to_end(&mut bytes)?));
    assert_eq!(kind(read), ErrorKind::Encryption);
    assert_eq!(bytes, b"");
    assert!(!raw(core, 0).is_empty());
}

/// Every append fails, and nothing is written.
#[track_caller]
fn refuses_appends(core: &Hypercore) {
    let before = (core.len(), core.fork(), core.tree_hash().unwrap());
    assert_eq!(kind(core.append("x")), ErrorKind::Encryption);
    assert_eq!(kind(core.append_batch(["x", "y"])), ErrorKind::Encryption);
    assert_eq!(kind(core.append_batch(Vec::<Vec<u8>>::new())), ErrorKind::Encryption);
    assert_eq!(kind(core.append_with(["x"], SignOptions::new().signature([0; 64]))), ErrorKind::Encryption);
    assert_eq!(kind(core.sign_append(["x"], &pair(1))), ErrorKind::Encryption);
    assert_eq!(kind(core.encoded(Utf8).append("x")), ErrorKind::Encryption);
    assert_eq!(kind(core.write_stream().write("x")), ErrorKind::Encryption);
    assert_eq!((core.len(), core.fork(), core.tree_hash().unwrap()), before);
}

/// The calls that need no key.
#[track_caller]
fn works_without_the_key(core: &Hypercore) {
    assert_eq!(core.verify().unwrap().faults, []);
    core.info(InfoOptions::new().storage(true)).unwrap();
    core.set_user_data("name", b"value").unwrap();
    core.clear(0..1).unwrap();
    core.truncate(core.len() - 1).unwrap();
}

#[test]
fn decrypt_with_another_key_or_of_short_block_is_refused() {
    let cipher = BlockCipher::new(&RIGHT, &[1; 32], true);
    let stored = cipher.encrypt(7, 3, b"text");
    for (max_fork, fits) in [(2, false), (3, true), (u64::MAX, true)] {
        assert_eq!(cipher.fits(7, max_fork, &stored), fits);
        assert_eq!(cipher.decrypt(7, max_fork, stored.clone()).is_ok(), fits);
    }
    assert_eq!(cipher.decrypt(7, 3, stored.clone()).unwrap(), b"text");
    for other in [
        BlockCipher::new(&WRONG, &[1; 32], true),
        BlockCipher::new(&RIGHT, &[2; 32], true),
        BlockCipher::new(&RIGHT, &[1; 32], false),
    ] {
        assert_eq!(kind(other.decrypt(7, 1 << 20, stored.clone())), ErrorKind::Encryption);
    }
    assert_eq!(kind(cipher.decrypt(8, 1 << 20, stored)), ErrorKind::Encryption);
    for length in 0..8 {
        assert_eq!(kind(cipher.decrypt(7, u64::MAX, vec![0; length])), ErrorKind::Encryption);
    }
}

#[test]
fn encrypted_log_with_another_key_or_none_refuses_reads_and_appends() {
    for compat in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let core = opening(Some(RIGHT)).compat(compat).open(dir.path()).unwrap();
        assert_eq!(core.is_encrypted(), Encrypted::Yes);
        core.append_batch(["one", "two", "three"]).unwrap();
        core.close().unwrap();
        for key in [None, Some(WRONG)] {
            let core = reopen(dir.path(), key);
            assert_eq!((core.is_encrypted(), core.padding()), (Encrypted::Yes, if key.is_some() { 8 } else { 0 }));
            assert_eq!(core.info(InfoOptions::new()).unwrap().encrypted, Encrypted::Yes);
            refuses_reads(&core);
            refuses_reads(&core.snapshot().unwrap());
            refuses_appends(&core);
            refuses_appends(&core.session(SessionOptions::new()).unwrap());
            let right = core.session(SessionOptions::new().encryption_key(RIGHT)).unwrap();
            assert_eq!(right.get(1).unwrap(), b"two");
            core.close().unwrap();
        }
        let core = reopen(dir.path(), Some(RIGHT));
        assert_eq!((core.len(), core.get(2).unwrap(), core.seek(4).unwrap()), (3, b"three".to_vec(), (1, 1)));
        core.append("four").unwrap();
        core.close().unwrap();
        for key in [None, Some(WRONG)] {
            let core = reopen(dir.path(), key);
            works_without_the_key(&core);
            core.close().unwrap();
        }
    }
}

#[test]
fn error_of_wrong_key_names_remedy_and_shows_no_key() {
    let core = opening(Some(RIGHT)).open_in(Memory::new()).unwrap();
    core.append("text").unwrap();
    let wrong = core.session(SessionOptions::new().encryption_key(WRONG)).unwrap();
    let error = wrong.get(0).unwrap_err().to_string();
    assert!(error.contains("block 0") && error.contains("give the key"), "{error}");
    assert!(!error.contains("dddd") && !error.contains("221"), "{error}");
}

#[test]
fn empty_log_made_with_key_refuses_appends_without_it() {
    let memory = Memory::new();
    opening(Some(RIGHT)).open_in(memory.clone()).unwrap().close().unwrap();
    for key in [None, Some(WRONG)] {
        let core = opening(key).open_in(memory.clone()).unwrap();
        refuses_appends(&core);
        core.close().unwrap();
    }
    opening(Some(RIGHT)).open_in(memory).unwrap().append("text").unwrap();
}

#[test]
fn plain_log_with_key_refuses_reads_and_appends() {
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        let dir = tempfile::tempdir().unwrap();
        let core = opening(None).durability(durability).open(dir.path()).unwrap();
        assert_eq!(core.is_encrypted(), Encrypted::Unknown);
        core.append_batch(["plain text", "short", ""]).unwrap();
        let known = if durability == Durability::None { Encrypted::Unknown } else { Encrypted::No };
        assert_eq!(core.is_encrypted(), known);
        core.close().unwrap();
        let core = reopen(dir.path(), Some(RIGHT));
        assert_eq!(core.is_encrypted(), known);
        refuses_reads(&core);
        refuses_appends(&core);
        assert_eq!(kind(core.get(1)), ErrorKind::Encryption);
        // The block is read as it is stored: it is shorter than any encrypted block.
        assert_eq!(raw(&core, 1), b"short");
        core.close().unwrap();
        let core = reopen(dir.path(), None);
        assert_eq!(core.get(0).unwrap(), b"plain text");
        core.append("more").unwrap();
        core.close().unwrap();
        let core = reopen(dir.path(), Some(RIGHT));
        works_without_the_key(&core);
    }
}

#[test]
fn plain_log_created_here_without_held_block_refuses_key() {
    let memory = Memory::new();
    let core = opening(None).open_in(memory.clone()).unwrap();
    core.append_batch(["one", "two"]).unwrap();
    core.clear(0..2).unwrap();
    core.close().unwrap();
    let core = opening(Some(RIGHT)).open_in(memory).unwrap();
    assert_eq!(core.is_encrypted(), Encrypted::No);
    refuses_appends(&core);
    // After a truncate to nothing, the log may become an encrypted one.
    core.truncate(0).unwrap();
    assert_eq!(core.is_encrypted(), Encrypted::Unknown);
    core.append("one").unwrap();
    assert_eq!((core.is_encrypted(), core.get(0).unwrap()), (Encrypted::Yes, b"one".to_vec()));
}

#[test]
fn encrypted_log_without_held_block_refuses_wrong_key_by_marker() {
    let memory = Memory::new();
    let core = opening(Some(RIGHT)).open_in(memory.clone()).unwrap();
    core.append_batch(["one", "two"]).unwrap();
    core.clear(0..2).unwrap();
    core.close().unwrap();
    for key in [None, Some(WRONG)] {
        let core = opening(key).open_in(memory.clone()).unwrap();
        refuses_appends(&core);
        assert_eq!(kind(core.seek(1)), ErrorKind::Encryption);
        core.close().unwrap();
    }
    let core = opening(Some(RIGHT)).open_in(memory).unwrap();
    core.append("three").unwrap();
    assert_eq!(core.get(2).unwrap(), b"three");
}

#[test]
fn damaged_padding_is_not_taken_for_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let core = opening(Some(RIGHT)).open(dir.path()).unwrap();
    core.append_batch(["first", "second"]).unwrap();
    core.close().unwrap();
    let path = dir.path().join("data");
    let mut data = fs::read(&path).unwrap();
    // Damage the padding of both blocks.
    data[3] ^= 1;
    data[13 + 3] ^= 1;
    fs::write(&path, &data).unwrap();
    let core = reopen(dir.path(), Some(RIGHT));
    assert_eq!((kind(core.get(0)), kind(core.get(1))), (ErrorKind::InvalidChecksum, ErrorKind::InvalidChecksum));
    assert_eq!(core.append("third").unwrap().length, 3);
    assert_eq!(core.get(2).unwrap(), b"third");
    core.close().unwrap();
    // The undamaged block proves a key right or wrong; the damaged ones prove nothing.
    let core = reopen(dir.path(), Some(WRONG));
    refuses_appends(&core);
    core.close().unwrap();

    // With damaged blocks only and without a marker, no key can be refused.
    let dir = of_javascript("encrypted");
    let path = dir.path().join("data");
    fs::write(&path, vec![0x55; fs::read(&path).unwrap().len()]).unwrap();
    let core = reopen(dir.path(), Some(RIGHT));
    assert_eq!(core.is_encrypted(), Encrypted::Unknown);
    assert_eq!(kind(core.get(0)), ErrorKind::InvalidChecksum);
    core.check_encryption().unwrap();
}

#[test]
fn truncated_and_rewritten_log_is_read_with_its_key() {
    let memory = Memory::new();
    let core = opening(Some(RIGHT)).open_in(memory.clone()).unwrap();
    core.append_batch(["0", "1", "2"]).unwrap();
    core.truncate_to(1, 40).unwrap();
    core.append_batch(["1 again", "2 again"]).unwrap();
    core.truncate(2).unwrap();
    core.truncate_to(2, 1 << 40).unwrap();
    core.append("2 once more").unwrap();
    core.close().unwrap();
    let core = opening(Some(RIGHT)).open_in(memory.clone()).unwrap();
    assert_eq!([0, 1, 2].map(|i| core.get(i).unwrap()), ["0", "1 again", "2 once more"].map(|b| b.as_bytes().to_vec()));
    core.close().unwrap();
    let core = opening(Some(WRONG)).open_in(memory).unwrap();
    refuses_reads(&core);
    refuses_appends(&core);
}

#[test]
fn javascript_log_has_unknown_encryption_until_opened_with_its_key() {
    for name in ["encrypted", "encrypted-manifest"] {
        let dir = of_javascript(name);
        let before = files_of(dir.path());
        // Without the key the core cannot tell whether the log is encrypted, and nothing is written.
        let core = reopen(dir.path(), None);
        assert_eq!(core.is_encrypted(), Encrypted::Unknown);
        assert_eq!(core.get(0).unwrap().len(), 14);
        core.close().unwrap();
        // A wrong key is refused, and nothing is written.
        let core = reopen(dir.path(), Some(WRONG));
        assert_eq!(core.is_encrypted(), Encrypted::Unknown);
        refuses_reads(&core);
        refuses_appends(&core);
        core.close().unwrap();
        assert!(files_of(dir.path()) == before);
        // A read-only core with the key knows, and writes nothing.
        let core = Hypercore::options().read_only(true).encryption_key(RIGHT).open(dir.path()).unwrap();
        assert_eq!((core.is_encrypted(), core.get(0).unwrap()), (Encrypted::Yes, b"secret".to_vec()));
        core.close().unwrap();
        assert!(files_of(dir.path()) == before);

        let core = reopen(dir.path(), Some(RIGHT));
        assert_eq!(core.is_encrypted(), Encrypted::Yes);
        let marker = core.user_data(MARKER).unwrap();
        assert_eq!(marker.len(), 32);
        core.close().unwrap();
        let stored = files_of(dir.path());
        assert!(stored != before);
        let core = reopen(dir.path(), None);
        assert_eq!(core.user_data(MARKER), Some(marker));
        refuses_reads(&core);
        refuses_appends(&core);
        core.close().unwrap();
        // The marker is stored once.
        let core = reopen(dir.path(), Some(RIGHT));
        assert_eq!(core.get(2).unwrap(), b"another secret");
        core.close().unwrap();
        assert!(files_of(dir.path()) == stored);
    }
}

#[test]
fn encrypted_log_with_plain_blocks_of_older_version_is_opened_with_its_key() {
    let dir = of_javascript("encrypted");
    let core = reopen(dir.path(), None);
    core.append_batch(["plain block"; 20]).unwrap();
    core.close().unwrap();
    let core = reopen(dir.path(), Some(RIGHT));
    assert_eq!(core.is_encrypted(), Encrypted::Yes);
    core.append("secret again").unwrap();
    assert_eq!((core.get(0).unwrap(), core.get(23).unwrap()), (b"secret".to_vec(), b"secret again".to_vec()));
    assert_eq!(kind(core.get(3)), ErrorKind::Encryption);
    assert_eq!(raw(&core, 3), b"plain block");
}

#[test]
fn key_of_sparse_reader_is_checked_at_first_block_read() {
    let _watchdog = watchdog();
    let writer = opening(Some(RIGHT)).open_in(Memory::new()).unwrap();
    writer.append_batch((0..50).map(|i| format!("block {i}"))).unwrap();
    let memory = Memory::new();
    let reading = |key| Hypercore::options().key(writer.key()).encryption_key(key);
    let connect = |copy: &Hypercore| {
        let (a, b) = pipe();
        (copy.replicate(a, Role::Initiator).unwrap(), writer.replicate(b, Role::Responder).unwrap())
    };

    // No block is held yet that could prove the key right or wrong.
    let copy = reading(WRONG).open_in(memory.clone()).unwrap();
    assert_eq!((copy.is_encrypted(), copy.user_data(MARKER)), (Encrypted::Unknown, None));
    let lines = connect(&copy);
    assert_eq!(kind(copy.get(31)), ErrorKind::Encryption);
    assert_eq!((copy.is_encrypted(), copy.user_data(MARKER)), (Encrypted::Unknown, None));
    // Now a block is held: reads with that key fail without waiting for another block.
    drop(lines);
    assert_eq!(kind(copy.get(12)), ErrorKind::Encryption);
    assert_eq!(kind(copy.seek(3)), ErrorKind::Encryption);
    let right = copy.session(SessionOptions::new().encryption_key(RIGHT)).unwrap();
    assert_eq!(right.get(31).unwrap(), b"block 31");
    assert_eq!((copy.is_encrypted(), copy.user_data(MARKER).map(|m| m.len())), (Encrypted::Yes, Some(32)));
    drop((copy, right));

    let copy = reading(RIGHT).open_in(Memory::new()).unwrap();
    assert_eq!(copy.is_encrypted(), Encrypted::Unknown);
    let lines = connect(&copy);
    assert_eq!(copy.get(7).unwrap(), b"block 7");
    assert_eq!(copy.is_encrypted(), Encrypted::Yes);
    assert_eq!(copy.seek(7 + 3).unwrap(), (1, 3));
    drop(lines);
    // The marker that a read found out was stored with the blocks.
    let without = Hypercore::options().key(writer.key()).open_in(memory).unwrap();
    assert_eq!((without.is_encrypted(), kind(without.get(31))), (Encrypted::Yes, ErrorKind::Encryption));
    assert_eq!(raw(&without, 31), raw(&writer, 31));
}

#[test]
fn copy_without_key_stores_and_serves_encrypted_blocks() {
    let _watchdog = watchdog();
    let writer = opening(Some(RIGHT)).open_in(Memory::new()).unwrap();
    writer.append("secret").unwrap();
    let copy = Hypercore::options().key(writer.key()).open_in(Memory::new()).unwrap();
    let (a, b) = pipe();
    let _lines = (copy.replicate(a, Role::Initiator).unwrap(), writer.replicate(b, Role::Responder).unwrap());
    assert_eq!(copy.get(0).unwrap(), raw(&writer, 0));
    assert_eq!(copy.is_encrypted(), Encrypted::Unknown);
    let reader = Hypercore::options().key(writer.key()).encryption_key(RIGHT).open_in(Memory::new()).unwrap();
    let (a, b) = pipe();
    let _others = (reader.replicate(a, Role::Initiator).unwrap(), copy.replicate(b, Role::Responder).unwrap());
    assert_eq!(reader.get(0).unwrap(), b"secret");
}

#[test]
fn marker_is_stored_only_for_proven_key() {
    // In an empty log without a marker, the first append decides, not the open.
    let memory = Memory::new();
    let none = opening(None).durability(Durability::None);
    none.open_in(memory.clone()).unwrap().close().unwrap();
    let core = opening(Some(WRONG)).open_in(memory.clone()).unwrap();
    assert_eq!((core.is_encrypted(), core.user_data(MARKER)), (Encrypted::Unknown, None));
    core.close().unwrap();
    let core = opening(Some(RIGHT)).open_in(memory.clone()).unwrap();
    core.append("text").unwrap();
    assert_eq!(core.is_encrypted(), Encrypted::Yes);
    // The marker went to the oplog with the block, before any flush.
    let reader = Hypercore::options().read_only(true).open_in(memory).unwrap();
    assert_eq!((reader.is_encrypted(), kind(reader.get(0))), (Encrypted::Yes, ErrorKind::Encryption));
    // The marker depends on the core: the same key has another one in another core.
    let other = Hypercore::options().key_pair(pair(2)).encryption_key(RIGHT).open_in(Memory::new()).unwrap();
    assert!(other.user_data(MARKER).is_some());
    assert_ne!(other.user_data(MARKER), core.user_data(MARKER));
}

#[test]
fn marker_that_blocks_contradict_is_replaced() {
    let _watchdog = watchdog();
    let writer = opening(Some(RIGHT)).open_in(Memory::new()).unwrap();
    writer.append_batch(["one", "two"]).unwrap();
    // The writer lost its disk, creates the core again with a mistyped key, and downloads the log from a peer.
    let memory = Memory::new();
    let core = opening(Some(WRONG)).open_in(memory.clone()).unwrap();
    let (a, b) = pipe();
    let lines = (core.replicate(a, Role::Initiator).unwrap(), writer.replicate(b, Role::Responder).unwrap());
    for index in 0..2 {
        core.get_with(index, GetOptions::new().decrypt(false).wait(true)).unwrap();
    }
    drop(lines);
    refuses_appends(&core);
    let right = core.session(SessionOptions::new().encryption_key(RIGHT)).unwrap();
    assert_eq!(right.append("three").unwrap().length, 3);
    drop(right);
    core.close().unwrap();
    let core = opening(Some(RIGHT)).open_in(memory.clone()).unwrap();
    assert_eq!(core.get(2).unwrap(), b"three");
    core.close().unwrap();
    refuses_appends(&opening(Some(WRONG)).open_in(memory).unwrap());
}

#[test]
fn plain_core_with_durability_none_has_no_marker() {
    for (durability, marked) in [(Durability::None, false), (Durability::Flush, true), (Durability::Always, true)] {
        let dir = tempfile::tempdir().unwrap();
        let core = opening(None).durability(durability).open(dir.path()).unwrap();
        assert_eq!(core.user_data(MARKER), None);
        core.append("one").unwrap();
        core.append("two").unwrap();
        assert_eq!(core.user_data(MARKER), marked.then(|| vec![0]));
        core.flush().unwrap();
        core.close().unwrap();
        let oplog = fs::read(dir.path().join("oplog")).unwrap();
        assert_eq!(oplog.windows(MARKER.len()).any(|bytes| bytes == MARKER.as_bytes()), marked);
    }
}

#[test]
fn reserved_user_data_is_refused() {
    let core = opening(Some(RIGHT)).open_in(Memory::new()).unwrap();
    for key in [MARKER, "hypercore-blocking/", "hypercore-blocking/other"] {
        assert_eq!(kind(core.set_user_data(key, b"")), ErrorKind::BadArgument);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kind(opening(None).user_data(key, "x").open(dir.path())), ErrorKind::BadArgument);
        assert_eq!(files_of(dir.path()), []);
    }
    core.set_user_data("hypercore-blocking", b"mine").unwrap();
    assert_eq!(core.is_encrypted(), Encrypted::Yes);
}

#[test]
fn concurrent_appends_with_different_keys_leave_log_of_one_key() {
    let _watchdog = watchdog();
    for durability in [Durability::Flush, Durability::Always, Durability::None] {
        for _ in 0..20 {
            let core = opening(None).durability(durability).open_in(Memory::new()).unwrap();
            let session = |key: Option<[u8; 32]>| {
                let options = SessionOptions::new();
                core.session(key.map_or(options.clone(), |key| options.encryption_key(key))).unwrap()
            };
            let keys = [None, Some(RIGHT), Some(WRONG)];
            let appended: Vec<u64> = thread::scope(|scope| {
                let run = |key| {
                    let session = session(key);
                    scope.spawn(move || {
                        let appends = (0..20).map(|i| session.append(format!("a block, number {i}")));
                        appends
                            .filter(|done| match done {
                                Ok(_) => true,
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::Encryption, "{error}");
                                    false
                                }
                            })
                            .count() as u64
                    })
                };
                keys.map(run).map(|thread| thread.join().unwrap()).to_vec()
            });
            // One session wins. The sessions with another key, or without the key, append nothing.
            let winners: Vec<usize> = (0..3).filter(|&i| appended[i] > 0).collect();
            assert_eq!(winners.len(), 1, "{appended:?} with {durability:?}");
            let winner = session(keys[winners[0]]);
            assert_eq!((core.len(), appended[winners[0]]), (20, 20));
            assert_eq!(winner.get(19).unwrap(), b"a block, number 19");
        }
    }
}

/// A core that JavaScript wrote, in memory.
fn hooked(name: &str) -> Hooked {
    let storage = Hooked::memory();
    for (file, bytes) in files_of(of_javascript(name).path()) {
        let copy = storage.open(&file, Access::Create).unwrap().unwrap();
        copy.write_at(0, &bytes).unwrap();
    }
    storage
}

#[test]
fn open_with_marker_or_without_key_reads_no_block() {
    let storage = hooked("encrypted");
    let mut before = 0;
    // Reads since the last call.
    let mut reads = || {
        let now = storage.count_of("data", CallKind::Read);
        now - std::mem::replace(&mut before, now)
    };
    // Any open reads the blocks of oplog entries that were never flushed, so flush once.
    opening(None).open_in(storage.clone()).unwrap().flush().unwrap();
    reads();
    opening(None).open_in(storage.clone()).unwrap().close().unwrap();
    assert_eq!(reads(), 0);
    opening(Some(RIGHT)).open_in(storage.clone()).unwrap().close().unwrap();
    assert_eq!(reads(), 1, "the padding of one block");
    for key in [None, Some(RIGHT), Some(WRONG)] {
        opening(key).open_in(storage.clone()).unwrap().close().unwrap();
        assert_eq!(reads(), 0);
    }
    // All appends and seeks of a session and of its own sessions read one block between them.
    let core = opening(Some(RIGHT)).open_in(storage.clone()).unwrap();
    for _ in 0..5 {
        core.append("more").unwrap();
        core.session(SessionOptions::new()).unwrap().append("more").unwrap();
        core.seek(2).unwrap();
    }
    assert_eq!(reads(), 1);
}

#[test]
fn marker_that_cannot_be_stored_is_kept_in_memory() {
    let storage = hooked("encrypted");
    storage.fail_full(|_, call| matches!(call, Call::Write { .. } | Call::SetLen(_) | Call::Sync));
    let core = opening(Some(RIGHT)).open_in(storage.clone()).unwrap();
    assert_eq!((core.is_encrypted(), core.get(0).unwrap()), (Encrypted::Yes, b"secret".to_vec()));
    drop(core);
    storage.clear_hook();
    let core = opening(None).open_in(storage).unwrap();
    assert_eq!(core.is_encrypted(), Encrypted::Unknown);
}
