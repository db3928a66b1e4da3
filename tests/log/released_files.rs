//! `release_files` closes the files of an idle core, and the next call opens them again if they are unchanged.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use hypercore::net::{Role, Server, pipe};
use hypercore::{Download, Durability, ErrorKind, Hypercore, InfoOptions, Memory, OpenOptions, Result};

use crate::common::machine::SLOW;
use crate::common::powercut::{Fault, Image, Kind, Recorder};
use crate::common::{CallKind, Hooked, Random, files_of, kind, pair, watchdog};

const FILES: [&str; 3] = ["tree", "bitfield", "data"];
const EMFILE: i32 = 24;

fn opening() -> OpenOptions {
    Hypercore::options().key_pair(pair(1))
}

fn block(index: u64) -> Vec<u8> {
    vec![index as u8; 10 + (index % 90) as usize]
}

fn filled(dir: &Path, count: u64) -> Hypercore {
    let core = opening().open(dir).unwrap();
    core.append_batch((0..count).map(block)).unwrap();
    core
}

#[track_caller]
fn holds(core: &Hypercore, count: u64) {
    assert_eq!(core.len(), count);
    (0..count).for_each(|index| assert_eq!(core.get(index).unwrap(), block(index)));
    let audit = core.verify().unwrap();
    assert_eq!((audit.blocks, audit.faults), (count, vec![]));
}

/// The files below `dir` that this process has open or mapped.
#[cfg(target_os = "linux")]
mod process {
    use std::fs;
    use std::path::Path;

    pub fn open(dir: &Path) -> Vec<String> {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let mut open: Vec<String> = links
            .filter_map(|path| path.strip_prefix(dir).ok().map(|path| path.to_string_lossy().into_owned()))
            .collect();
        open.sort();
        open
    }

    pub fn maps(dir: &Path) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
    }

    /// The limit of open files of this process.
    pub fn limit() -> usize {
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
    }
}

#[cfg(target_os = "linux")]
#[test]
fn released_core_has_one_descriptor_and_no_maps() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    // `/proc` shows paths without symbolic links.
    let root = fs::canonicalize(dir.path()).unwrap();
    // Other tests of this process have files open, too.
    let count = if SLOW { 60 } else { 1000.min(process::limit().saturating_sub(300)) };
    let paths: Vec<_> = (0..count).map(|i| root.join(i.to_string())).collect();
    let cores: Vec<Hypercore> = paths
        .iter()
        .map(|path| {
            let core = opening().durability(Durability::None).open(path).unwrap();
            core.append_batch((0..20).map(block)).unwrap();
            core.release_files().unwrap();
            core
        })
        .collect();
    assert_eq!(process::open(&root).len(), count);
    assert!(process::open(&root).iter().all(|path| path.ends_with("/oplog")));

    let (core, path) = (&cores[7], &paths[7]);
    assert_eq!(core.get(3).unwrap(), block(3));
    assert_eq!(process::open(path), ["bitfield", "data", "oplog", "tree"]);
    // Often enough in one place that the core maps the file.
    (0..100).for_each(|_| assert_eq!(core.get(3).unwrap(), block(3)));
    assert!(SLOW || process::maps(path) > 0, "it is mapped");
    core.release_files().unwrap();
    assert_eq!((process::open(path), process::maps(path)), (vec!["oplog".to_owned()], 0));
    core.release_files().unwrap();
    assert_eq!(core.append(block(20)).unwrap().length, 21);
    assert_eq!(process::open(path).len(), 4);
    (0..100).for_each(|_| assert_eq!(core.get(3).unwrap(), block(3)));
    assert!(SLOW || process::maps(path) > 0, "it is mapped again");
    holds(core, 21);
    // A released core keeps its lock.
    assert_eq!(kind(opening().open(&paths[8])), ErrorKind::Locked);

    for (core, path) in cores.iter().zip(&paths) {
        core.release_files().unwrap();
        core.close().unwrap();
        assert_eq!(process::open(path), [""; 0]);
    }
}

#[test]
fn first_call_after_release_sees_unchanged_core() {
    let _watchdog = watchdog();
    type Act = fn(&Hypercore) -> Result<()>;
    let acts: [(&str, Act); 12] = [
        ("get", |core| core.get(5).map(|got| assert_eq!(got, block(5)))),
        ("has", |core| core.has_range(0..30).map(|has| assert!(has))),
        ("seek", |core| core.seek(15).map(|at| assert_eq!(at, (1, 5)))),
        ("tree hash", |core| core.tree_hash_at(7).map(drop)),
        ("append", |core| core.append(block(30)).map(drop)),
        ("truncate", |core| core.truncate(30).map(drop)),
        ("cut", |core| core.truncate(29).and_then(|_| core.append(block(29))).map(drop)),
        ("clear", |core| core.clear(0..1).map(drop)),
        ("flush", |core| core.flush()),
        ("user data", |core| core.set_user_data("a", "b")),
        ("info", |core| core.info(InfoOptions::new().storage(true)).map(drop)),
        ("verify", |core| core.repair().map(|audit| assert_eq!(audit.faults, []))),
    ];
    for durability in [Durability::None, Durability::Flush, Durability::Always] {
        for (name, act) in acts {
            let dir = tempfile::tempdir().unwrap();
            let open = || opening().durability(durability).map_limit(256 << 10).open(dir.path()).unwrap();
            let (core, twin) = (open(), Hypercore::options().key_pair(pair(1)).durability(durability));
            let twin = twin.open_in(Memory::new()).unwrap();
            for core in [&core, &twin] {
                core.append_batch((0..30).map(block)).unwrap();
            }
            core.release_files().unwrap();
            act(&core).unwrap_or_else(|e| panic!("{name}: {e}"));
            act(&twin).unwrap();
            core.release_files().unwrap();
            core.release_files().unwrap();
            let same = |core: &Hypercore| {
                assert_eq!((core.len(), core.fork()), (twin.len(), twin.fork()), "{name}");
                assert_eq!(core.tree_hash().unwrap(), twin.tree_hash().unwrap(), "{name}");
                for index in 0..core.len() {
                    assert_eq!(core.has(index).unwrap(), twin.has(index).unwrap(), "{name}: {index}");
                }
                assert_eq!(core.verify().unwrap(), twin.verify().unwrap(), "{name}");
            };
            same(&core);
            core.release_files().unwrap();
            core.close().unwrap();
            same(&open());
        }
    }
}

#[test]
fn release_flushes_changes_and_writes_nothing_else() {
    let _watchdog = watchdog();
    let disk = Hooked::memory();
    let counts = || (disk.syncs(), disk.count(CallKind::Write));
    let core = opening().open_in(disk.clone()).unwrap();
    core.append_batch((0..20).map(block)).unwrap();
    let before = counts();
    core.release_files().unwrap();
    let after = counts();
    assert!(after.0 > before.0 && after.1 > before.1, "{before:?} {after:?}");
    for _ in 0..3 {
        core.release_files().unwrap();
        assert_eq!(core.get(3).unwrap(), block(3));
    }
    assert_eq!(counts(), after);
    core.close().unwrap();
    assert_eq!(counts(), after, "closing has nothing left to do");

    let unsynced = Hooked::memory();
    let core = opening().durability(Durability::None).open_in(unsynced.clone()).unwrap();
    core.append_batch((0..20).map(block)).unwrap();
    core.release_files().unwrap();
    holds(&core, 20);
    assert_eq!(unsynced.syncs(), 0);
}

#[test]
fn release_during_reads_appends_and_truncates_changes_nothing() {
    let _watchdog = watchdog();
    for durability in [Durability::None, Durability::Flush] {
        let dir = tempfile::tempdir().unwrap();
        let core = opening().durability(durability).map_limit(256 << 10).open(dir.path()).unwrap();
        core.append_batch((0..300).map(block)).unwrap();
        let done = AtomicBool::new(false);
        let rounds = if SLOW { 20 } else { 150 };
        thread::scope(|s| {
            for seed in 0..3 {
                let (core, done) = (&core, &done);
                s.spawn(move || {
                    let mut random = Random::new(seed);
                    while !done.load(Ordering::SeqCst) {
                        let index = random.below(300);
                        assert_eq!(core.get(index).unwrap(), block(index));
                        assert!(core.has_range(0..300).unwrap());
                        core.tree_hash_at(1 + index).unwrap();
                    }
                });
            }
            s.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    core.release_files().unwrap();
                }
            });
            for round in 0..rounds {
                // The files grow and shrink: a read through a map past the end would end the process.
                core.append_batch((0..200).map(|i| block(round + i))).unwrap();
                if round % 4 == 3 {
                    core.truncate(300).unwrap();
                }
            }
            core.truncate(300).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        holds(&core, 300);
        core.close().unwrap();
        holds(&opening().open(dir.path()).unwrap(), 300);
    }
}

type Change = fn(&Path);

/// Words of the error, and the change by another program that causes it.
const CHANGES: [(&str, Change); 4] = [
    ("was removed", |path| fs::remove_file(path).unwrap()),
    ("was replaced", |path| {
        // The modification time must differ from that of the replaced file, whatever the clock's resolution.
        let other = path.with_extension("other");
        fs::copy(path, &other).unwrap();
        let file = fs::File::options().write(true).open(&other).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        fs::rename(other, path).unwrap();
    }),
    ("bytes came to have", |path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }),
    ("bytes came to have", |path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() + 40).unwrap();
    }),
];

#[test]
fn file_changed_while_released_is_reported_and_loses_nothing() {
    let _watchdog = watchdog();
    for (what, change) in CHANGES {
        for name in FILES {
            let dir = tempfile::tempdir().unwrap();
            let core = filled(dir.path(), 40);
            core.release_files().unwrap();
            let path = dir.path().join(name);
            let kept = dir.path().join("kept");
            // A link to the same file, to put it back.
            fs::hard_link(&path, &kept).unwrap();
            let bytes = fs::read(&path).unwrap();
            change(&path);
            let before = files_of(dir.path());
            for _ in 0..2 {
                for result in [
                    core.get(3).map(drop),
                    core.append("more").map(drop),
                    core.truncate(3).map(drop),
                    core.clear(0..9).map(drop),
                    core.flush(),
                    core.repair().map(drop),
                ] {
                    let error = result.expect_err(what);
                    assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error}");
                    assert_eq!(error.path(), Some(&*path), "{what}: {error}");
                    assert!(error.to_string().contains(what), "{error}");
                    assert!(error.to_string().contains("put it back"), "{error}");
                }
            }
            core.release_files().unwrap();
            assert_eq!(files_of(dir.path()), before, "{what}: nothing is written or made");
            fs::rename(&kept, &path).unwrap_or_else(|e| panic!("{what}: {e}"));
            fs::write(&path, &bytes).unwrap();
            holds(&core, 40);
            assert_eq!(core.append(block(40)).unwrap().length, 41);
            core.release_files().unwrap();
            holds(&core, 41);
            core.close().unwrap();
            holds(&opening().open(dir.path()).unwrap(), 41);
        }
    }
}

#[test]
fn call_without_free_descriptor_fails_and_later_succeeds() {
    let _watchdog = watchdog();
    for after in 0..3 {
        let disk = Recorder::new(Image::new());
        let core = opening().open_in(disk.clone()).unwrap();
        core.append_batch((0..20).map(block)).unwrap();
        core.release_files().unwrap();
        disk.fail(Some(Fault { kind: Kind::Open, after, errno: EMFILE, stays: true }));
        for _ in 0..2 {
            for result in
                [core.append("more").map(drop), core.clear(0..4).map(drop), core.truncate(2).map(drop), core.flush()]
            {
                let error = result.unwrap_err();
                assert_eq!(error.io_error().and_then(std::io::Error::raw_os_error), Some(EMFILE), "{error}");
                let failed = disk.failed();
                let is_of = |name: &String| error.path() == Some(&*Path::new("disk").join(name));
                assert!(failed.iter().any(is_of), "{error}: {failed:?}");
            }
        }
        if after == 0 {
            assert_eq!(kind(core.get(0)), ErrorKind::Io);
        }
        disk.fail(None);
        holds(&core, 20);
        assert_eq!(core.append(block(20)).unwrap().length, 21);
        holds(&core, 21);
    }
}

#[test]
fn read_only_core_during_writes_releases_and_reopens_files() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let writer = filled(dir.path(), 40);
    writer.flush().unwrap();
    let reader = Hypercore::options().read_only(true).open(dir.path()).unwrap();
    reader.release_files().unwrap();
    writer.append_batch((40..4000).map(block)).unwrap();
    writer.flush().unwrap();
    let before = files_of(dir.path());
    holds(&reader, 40);
    reader.release_files().unwrap();
    holds(&reader, 40);
    assert_eq!(files_of(dir.path()), before);
    writer.purge().unwrap();
    holds(&reader, 40);
    reader.release_files().unwrap();
    assert!(reader.get(3).unwrap_err().to_string().contains("was removed"));
}

#[test]
fn failed_release_returns_its_error() {
    let _watchdog = watchdog();
    let disk = Recorder::new(Image::new());
    let core = opening().open_in(disk.clone()).unwrap();
    let session = core.session(Default::default()).unwrap();
    core.append("one").unwrap();
    disk.fail(Some(Fault { kind: Kind::Write, after: 0, errno: 5, stays: true }));
    assert_eq!(kind(core.release_files()), ErrorKind::Io);
    disk.fail(None);
    assert_eq!(kind(core.release_files()), ErrorKind::Failed);
    assert_eq!(core.get(0).unwrap(), b"one");
    session.close().unwrap();
    assert_eq!(kind(session.release_files()), ErrorKind::Closed);
    let dir = tempfile::tempdir().unwrap();
    let core = filled(dir.path(), 3);
    core.release_files().unwrap();
    core.purge().unwrap();
    assert_eq!(kind(core.release_files()), ErrorKind::Closed);
    assert_eq!(files_of(dir.path()), []);
    // A new core has no files to close.
    let empty = Hypercore::in_memory().unwrap();
    empty.release_files().unwrap();
    empty.append("one").unwrap();
    empty.release_files().unwrap();
    assert_eq!(empty.get(0).unwrap(), b"one");
}

#[test]
fn server_releases_files_when_last_peer_leaves() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    let core = filled(&root, 40);
    core.release_files().unwrap();
    let (sender, released) = mpsc::channel();
    let served = core.clone();
    let _subscription = core.on_peer_remove(move |_| {
        if served.peers().is_empty() {
            sender.send(served.release_files()).unwrap();
        }
    });
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    for round in 0..3 {
        let copy = Hypercore::options().key(core.key()).open_in(Memory::new()).unwrap();
        let stream = TcpStream::connect(server.local_addr()).unwrap();
        let replication = copy.replicate(stream, Role::Initiator).unwrap();
        assert_eq!(copy.get(3).unwrap(), block(3));
        // The served peer does not notice.
        core.release_files().unwrap();
        assert_eq!(copy.get(30).unwrap(), block(30));
        core.append(block(40 + round)).unwrap();
        core.release_files().unwrap();
        assert_eq!(copy.get(40 + round).unwrap(), block(40 + round));
        #[cfg(target_os = "linux")]
        assert_eq!(process::open(&root).len(), 4);
        replication.close();
        released.recv().unwrap().unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(process::open(&root), ["oplog"]);
    }
    holds(&core, 43);
}

#[test]
fn released_reader_continues_its_download() {
    let _watchdog = watchdog();
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let core = filled(source.path(), 2000);
    let copy = Hypercore::options().key(core.key()).open(target.path()).unwrap();
    let (left, right) = pipe();
    let _replications =
        (core.replicate(left, Role::Responder).unwrap(), copy.replicate(right, Role::Initiator).unwrap());
    let download = copy.download(Download::range(0..2000)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                core.release_files().unwrap();
                copy.release_files().unwrap();
            }
        });
        let waited = download.wait();
        done.store(true, Ordering::SeqCst);
        waited.unwrap();
    });
    holds(&copy, 2000);
    copy.close().unwrap();
    holds(&Hypercore::open(target.path()).unwrap(), 2000);
}
