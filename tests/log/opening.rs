//! Opening a log: which files are made, and the options for keys, storage and durability.

use std::fs;
use std::io::Write;

use hypercore::{Disk, Durability, ErrorKind, GetOptions, Hypercore, Key, Manifest, Memory, SessionOptions, Signer};

use crate::common::{CallKind, Hooked, files_of, kind, pair};

#[test]
fn reopened_core_keeps_length_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("deep/er");
    let core = Hypercore::open(&at).unwrap();
    assert!(core.is_empty() && core.writable() && core.readable());
    let appended = core.append_batch(["a", "", "ccc"]).unwrap();
    assert_eq!((appended.length, appended.byte_length), (3, 4));
    let appended = core.append("dd").unwrap();
    assert_eq!((appended.length, appended.byte_length), (4, 6));
    let (key, hash) = (core.key(), core.tree_hash().unwrap());
    core.close().unwrap();
    assert!(!core.readable() && !core.writable());
    assert_eq!(kind(core.get(0)), ErrorKind::Closed);
    assert_eq!(kind(core.append("x")), ErrorKind::Closed);
    core.close().unwrap();

    let core = Hypercore::open(&at).unwrap();
    assert_eq!((core.key(), core.len(), core.byte_length()), (key, 4, 6));
    assert_eq!(core.tree_hash().unwrap(), hash);
    let blocks: Vec<_> = (0..4).map(|i| core.get(i).unwrap()).collect();
    assert_eq!(blocks, [&b"a"[..], b"", b"ccc", b"dd"]);
    assert!(core.writable());
    core.append("more").unwrap();
    assert!(core.verify().unwrap().faults.is_empty());
}

#[test]
fn open_without_create_if_missing_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("none");
    assert_eq!(kind(Hypercore::options().create_if_missing(false).open(&at)), ErrorKind::StorageEmpty);
    assert!(!at.exists());
    assert_eq!(kind(Hypercore::options().read_only(true).open(&at)), ErrorKind::StorageEmpty);
    assert!(!at.exists());
    drop(Hypercore::open(&at).unwrap());
    assert!(Hypercore::options().create_if_missing(false).open(&at).is_ok());
}

/// The files may belong to another program, or to a core that lost its `oplog` and still has its blocks.
#[test]
fn create_over_existing_files_is_refused() {
    for name in ["tree", "bitfield", "data", "header"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), "mine").unwrap();
        let error = Hypercore::open(dir.path()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::StorageConflict, Some(&*dir.path().join(name))));
        assert_eq!(files_of(dir.path()), [(name.to_owned(), b"mine".to_vec())]);
        let core = Hypercore::options().overwrite(true).open(dir.path()).unwrap();
        core.append("new").unwrap();
        assert_eq!((core.get(0).unwrap(), core.verify().unwrap().faults), (b"new".to_vec(), vec![]));
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for overwrite in [false, true] {
        assert_eq!(kind(Hypercore::options().overwrite(overwrite).open(dir.path())), ErrorKind::Io);
        assert!(!dir.path().join("oplog").exists());
    }
}

#[test]
fn open_of_core_without_oplog_keeps_its_blocks() {
    for left in [None, Some(100), Some(0)] {
        let dir = tempfile::tempdir().unwrap();
        let core = Hypercore::open(dir.path()).unwrap();
        core.append("block").unwrap();
        core.close().unwrap();
        let oplog = dir.path().join("oplog");
        match left {
            Some(len) => fs::OpenOptions::new().write(true).open(&oplog).unwrap().set_len(len).unwrap(),
            None => fs::remove_file(&oplog).unwrap(),
        }
        let before = files_of(dir.path());
        let opened = Hypercore::open(dir.path());
        assert_eq!(kind(opened), ErrorKind::StorageConflict, "{left:?}");
        assert_eq!(files_of(dir.path()), before, "{left:?}");
        assert!(Hypercore::options().overwrite(true).open(dir.path()).unwrap().is_empty());
    }
}

#[test]
fn open_with_another_key_names_both_keys() {
    let memory = Memory::new();
    let core = Hypercore::options().key_pair(pair(1)).open_in(memory.clone()).unwrap();
    core.close().unwrap();
    let other = pair(2).public_key();
    let error = Hypercore::options().key(other).open_in(memory.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageConflict);
    let text = error.to_string();
    assert!(text.contains(&other.to_string()) && text.contains(&pair(1).public_key().to_string()), "{text}");
    let core = Hypercore::options().key(pair(1).public_key()).open_in(memory).unwrap();
    assert!(core.writable());
}

#[test]
fn key_pair_of_another_core_is_refused_before_files_are_created() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Hypercore::options().key(pair(1).public_key()).key_pair(pair(2));
    assert_eq!(kind(options().open(dir.path())), ErrorKind::BadArgument);
    let core = Hypercore::open(dir.path()).unwrap();
    assert_ne!(core.key(), pair(1).public_key());
}

/// As in the reference: an existing core keeps its key pair, and a manifest with another key is refused.
#[test]
fn open_with_options_of_new_core_keeps_existing_core() {
    let memory = Memory::new();
    let open = |options: hypercore::OpenOptions| options.open_in(memory.clone());
    open(Hypercore::options().key_pair(pair(1))).unwrap().close().unwrap();
    let core = open(Hypercore::options().key_pair(pair(2))).unwrap();
    assert_eq!(core.key_pair(), Some(pair(1)));
    core.append("signed by its own").unwrap();
    assert_eq!(core.verify().unwrap().faults, []);
    core.close().unwrap();
    let manifest = Manifest::single(pair(1).public_key());
    assert_eq!(kind(open(Hypercore::options().manifest(manifest.clone()))), ErrorKind::StorageConflict);
    for named in [Hypercore::options().compat(true), Hypercore::options().key(pair(1).public_key())] {
        open(named.manifest(manifest.clone())).unwrap().close().unwrap();
    }
}

#[test]
fn core_without_key_pair_reads_and_refuses_writes() {
    let core = Hypercore::options().key(pair(3).public_key()).open_in(Memory::new()).unwrap();
    assert!(!core.writable() && core.readable());
    assert_eq!((core.key_pair(), core.manifest()), (None, None));
    assert_eq!(kind(core.append("x")), ErrorKind::NotWritable);
    assert_eq!(kind(core.truncate(0)), ErrorKind::NotWritable);
    assert_eq!(core.get_with(0, GetOptions::new().wait(false)).unwrap(), None);
    assert!(!core.update().unwrap());
    core.set_user_data("mine", "alone").unwrap();
    core.clear(0..0).unwrap();
}

#[test]
fn core_opened_by_key_takes_key_pair_later() {
    let memory = Memory::new();
    let core = Hypercore::options().key(pair(3).public_key()).open_in(memory.clone()).unwrap();
    core.close().unwrap();
    let core = Hypercore::options().key_pair(pair(3)).open_in(memory.clone()).unwrap();
    assert!(core.writable());
    core.append("signed").unwrap();
    assert_eq!(core.manifest(), Some(Manifest::single(pair(3).public_key())));
    core.close().unwrap();
    let core = Hypercore::options().key_pair(pair(3)).open_in(memory).unwrap();
    assert_eq!(core.manifest(), Some(Manifest::single(pair(3).public_key())));
    assert!(core.verify().unwrap().faults.is_empty());
}

#[test]
fn overwrite_starts_empty_core() {
    for disk in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new();
        let open = |overwrite| {
            let options = Hypercore::options().overwrite(overwrite).key_pair(pair(if overwrite { 2 } else { 1 }));
            if disk { options.open(dir.path()) } else { options.open_in(memory.clone()) }
        };
        let core = open(false).unwrap();
        core.append_batch((0..50).map(|i| vec![i as u8; i])).unwrap();
        core.set_user_data("old", "old").unwrap();
        core.close().unwrap();
        let core = open(true).unwrap();
        assert_eq!((core.key(), core.len()), (pair(2).public_key(), 0));
        assert_eq!(core.user_data("old"), None);
        core.append_batch(["n", "e", "w"]).unwrap();
        assert!(!core.has(3).unwrap());
        core.close().unwrap();
        let again = if disk { Hypercore::open(dir.path()) } else { Hypercore::options().open_in(memory.clone()) };
        let core = again.unwrap();
        assert_eq!((core.key(), core.len(), core.get(2).unwrap()), (pair(2).public_key(), 3, b"w".to_vec()));
        assert!(core.verify().unwrap().faults.is_empty());
    }
    assert_eq!(
        kind(Hypercore::options().overwrite(true).read_only(true).open_in(Memory::new())),
        ErrorKind::BadArgument
    );
}

#[test]
fn core_or_session_with_writable_false_refuses_writes() {
    let memory = Memory::new();
    let core = Hypercore::options().writable(false).open_in(memory.clone()).unwrap();
    assert!(!core.writable());
    assert_eq!(kind(core.append("x")), ErrorKind::NotWritable);
    assert_eq!(kind(core.truncate(0)), ErrorKind::NotWritable);
    core.close().unwrap();
    let core = Hypercore::options().open_in(memory).unwrap();
    core.append("x").unwrap();
    let session = core.session(SessionOptions::new().writable(false)).unwrap();
    assert_eq!(kind(session.append("x")), ErrorKind::NotWritable);
    assert!(!session.session(SessionOptions::new().writable(true)).unwrap().writable());
    core.append("y").unwrap();
    assert_eq!(session.len(), 2);
}

#[test]
fn reopen_with_any_durability_and_map_limit_keeps_blocks() {
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        for map_limit in [None, Some(0), Some(1), Some(1 << 16), Some(1 << 20)] {
            for lock in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let options = || {
                    let options = Hypercore::options().durability(durability).lock(lock);
                    match map_limit {
                        Some(limit) => options.map_limit(limit),
                        None => options,
                    }
                };
                let core = options().open(dir.path()).unwrap();
                for i in 0..5u8 {
                    core.append_batch((0..i).map(|n| vec![n; usize::from(i)])).unwrap();
                    core.flush().unwrap();
                }
                core.close().unwrap();
                let core = options().open(dir.path()).unwrap();
                assert_eq!(core.len(), 10);
                assert_eq!(core.get(9).unwrap(), [3; 4]);
                assert!(core.verify().unwrap().faults.is_empty());
            }
        }
    }
}

#[test]
fn key_options_determine_key_and_manifest() {
    // The key is the hash of the manifest in place of the public key.
    let memory = Memory::new();
    let core = Hypercore::options().key_pair(pair(5)).compat(false).open_in(memory.clone()).unwrap();
    let manifest = Manifest::single(pair(5).public_key());
    assert_eq!((core.key(), core.manifest()), (manifest.key(), Some(manifest.clone())));
    core.append_batch(["a", "b"]).unwrap();
    assert!(core.verify().unwrap().faults.is_empty());
    core.close().unwrap();
    let core = Hypercore::options().manifest(manifest.clone()).open_in(memory.clone()).unwrap();
    assert_eq!((core.len(), core.key_pair()), (2, Some(pair(5))));
    core.close().unwrap();
    let other = Manifest::single(pair(6).public_key());
    assert_eq!(kind(Hypercore::options().manifest(other.clone()).open_in(memory)), ErrorKind::StorageConflict);

    // The key is not that of the manifest.
    let key = manifest.key();
    assert!(Hypercore::options().key(key).manifest(other).open_in(Memory::new()).is_err());
    let core = Hypercore::options().key(key).manifest(manifest.clone()).open_in(Memory::new()).unwrap();
    assert!(!core.writable());

    // A compat core has one signer.
    let two = Manifest::new(vec![Signer::new(pair(1).public_key()), Signer::new(pair(2).public_key())]);
    assert_eq!(kind(Hypercore::options().manifest(two).compat(true).open_in(Memory::new())), ErrorKind::BadArgument);
    let core = Hypercore::options().manifest(manifest).compat(true).key_pair(pair(5)).open_in(Memory::new()).unwrap();
    assert_eq!(core.key(), pair(5).public_key());
    core.append("x").unwrap();
    assert!(core.verify().unwrap().faults.is_empty());
}

#[test]
fn set_manifest_stores_matching_manifest() {
    let manifest = Manifest::single(pair(8).public_key());
    let memory = Memory::new();
    let core = Hypercore::options().key(manifest.key()).open_in(memory.clone()).unwrap();
    assert_eq!(core.manifest(), None);
    let wrong = Manifest::single(pair(9).public_key());
    assert_eq!(kind(core.set_manifest(wrong)), ErrorKind::InvalidChecksum);
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = seen.clone();
    let _subscription = core.on_manifest(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    core.set_manifest(manifest.clone()).unwrap();
    core.set_manifest(manifest.clone()).unwrap();
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(core.manifest(), Some(manifest.clone()));
    core.close().unwrap();
    let core = Hypercore::options().key_pair(pair(8)).open_in(memory).unwrap();
    assert_eq!(core.manifest(), Some(manifest));
    core.append("x").unwrap();
    assert!(core.verify().unwrap().faults.is_empty());
}

#[test]
fn custom_storage_holds_core() {
    let storage = Hooked::memory();
    let core = Hypercore::options().durability(Durability::Always).open_in(storage.clone()).unwrap();
    core.append_batch(["a", "b"]).unwrap();
    assert!(storage.syncs() > 0);
    core.clear(0..1).unwrap();
    core.close().unwrap();
    let core = Hypercore::options().open_in(storage.clone()).unwrap();
    assert_eq!((core.len(), core.get(1).unwrap()), (2, b"b".to_vec()));
    core.purge().unwrap();
    assert!(Hypercore::options().create_if_missing(false).open_in(storage).is_err());
}

#[test]
fn core_with_durability_none_never_syncs() {
    let storage = Hooked::memory();
    let core = Hypercore::options().durability(Durability::None).open_in(storage.clone()).unwrap();
    core.append_batch(["a", "b"]).unwrap();
    core.truncate(1).unwrap();
    core.flush().unwrap();
    core.clear(0..1).unwrap();
    core.close().unwrap();
    assert_eq!((storage.syncs(), storage.count(CallKind::SyncDir)), (0, 0));
}

#[test]
fn default_durability_syncs_flush_and_no_append() {
    assert_eq!(Durability::default(), Durability::Flush);
    let storage = Hooked::memory();
    let core = Hypercore::options().open_in(storage.clone()).unwrap();
    let before = storage.syncs();
    core.append_batch(["a", "b"]).unwrap();
    assert_eq!(storage.syncs(), before);
    core.flush().unwrap();
    assert!(storage.syncs() > before);
}

#[test]
fn open_error_names_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("oplog")).unwrap();
    let error = Hypercore::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.path(), Some(&*dir.path().join("oplog")));
    let file = dir.path().join("file");
    std::fs::File::create(&file).unwrap().write_all(b"x").unwrap();
    assert_eq!(Hypercore::open(&file).unwrap_err().kind(), ErrorKind::Io);
    assert!(Hypercore::options().open_in(Disk::new(file)).is_err());
}

#[cfg(unix)]
#[test]
fn files_with_secret_key_are_readable_by_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().user_data("big", vec![1; 9000]).open(dir.path()).unwrap();
    core.flush().unwrap();
    for name in ["oplog", "header"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn key_of_manifest_is_its_hash() {
    let manifest = Manifest::single(pair(1).public_key());
    assert_eq!(Hypercore::key_of(&manifest), manifest.key());
    assert_ne!(Hypercore::key_of(&manifest), Key::new(*pair(1).public_key().as_bytes()));
}
