//! `truncate`, `clear` and `purge` remove what they are asked to remove, and nothing else.

use hypercore::Hypercore;

use crate::support::{Place, noise};

#[test]
fn truncate_to_shorter_length_raises_fork() {
    let place = Place::new();
    place.core("log", ["a", "b", "c"]);
    assert_eq!(place.run("truncate log 2").ok(), "length 2\nfork 1\n");
    assert_eq!(place.run("cat log").ok(), "ab");
    assert_eq!(place.run("truncate log 1 --fork 7").ok(), "length 1\nfork 7\n");
    let before = place.contents("log");
    let error = place.run("truncate log 0 --fork 7").fails();
    assert!(error.starts_with("log: ") && error.contains("fork"), "{error}");
    let error = place.run("truncate log 2").fails();
    assert!(error.starts_with("log: ") && error.contains("1 block"), "{error}");
    assert_eq!(place.contents("log"), before);
    assert_eq!(place.run("truncate log 0").ok(), "length 0\nfork 8\n");
}

#[test]
fn append_after_truncate_replaces_removed_blocks() {
    let place = Place::new();
    for (command, input) in
        [("append log --lines", "a\nbb\nccc\n"), ("truncate log 1", ""), ("append log --lines", "X\nYYYYY\n")]
    {
        place.run_with(command, input.as_bytes()).ok();
    }
    assert_eq!(place.run("cat log --lines").ok(), "a\nX\nYYYYY\n");
    assert_eq!(place.run("verify log").ok(), "blocks 3\nfaults 0\n");
}

#[test]
fn clear_of_range_frees_disk_space() {
    let place = Place::new();
    place.core("log", noise(1024 * 1024).chunks(65536));
    let out = place.run("clear log 4 12").ok();
    let cleared = out.strip_prefix("cleared 8 blocks, ").and_then(|rest| rest.strip_suffix(" bytes\n"));
    let cleared: u64 = cleared.unwrap().parse().unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(cleared, 8 * 65536);
    }
    assert_eq!(place.run("has log 4").ok(), "false\n");
    assert_eq!(place.run("has log 0 4").ok(), "true\n");
    assert_eq!(place.run("has log 12 16").ok(), "true\n");
    assert_eq!(place.run("clear log 4 12").ok(), "cleared 0 blocks, 0 bytes\n");
    place.run("clear log 0").ok();
    assert_eq!(place.run("has log 0").ok(), "false\n");
    assert_eq!(place.run("has log 1").ok(), "true\n");
    for beyond in ["clear log 16", "clear log 0 17", "clear log 90 91"] {
        let why = place.run(beyond).fails();
        assert!(why.starts_with("log: ") && why.contains("16 blocks"), "{why}");
    }
    assert!(place.run("clear log 3 2").fails().starts_with("log: "));
    assert_eq!(Hypercore::open(place.path("log")).unwrap().len(), 16);
}

#[test]
fn truncate_to_present_length_requires_fork() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let before = place.contents("log");
    assert!(place.run("truncate log 2").fails().contains("--fork"));
    assert_eq!(place.contents("log"), before);
    assert_eq!(place.run("truncate log 2 --fork 7").ok(), "length 2\nfork 7\n");
}

#[test]
fn purge_of_core_keeps_other_files() {
    let place = Place::new();
    place.core("log", ["block"]);
    place.file("log/notes.txt", "mine");
    assert_eq!(place.run("purge log").ok(), "");
    let left = place.contents("log");
    assert_eq!(left.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["notes.txt"]);
    assert_eq!(std::fs::read(place.path("log/notes.txt")).unwrap(), b"mine");
    assert!(place.run("purge log").fails().contains("no core"));
    assert_eq!(place.contents("log"), left);
}

#[test]
fn purge_of_unopenable_core_deletes_it() {
    let place = Place::new();
    place.core("log", ["block"]);
    place.file("log/oplog", [0xff; 8192]);
    assert!(place.run("cat log").fails().contains("oplog"));
    assert_eq!(place.run("purge log").ok(), "");
    assert_eq!(place.contents("log"), []);
}

#[test]
fn purge_after_interrupted_purge_deletes_rest() {
    let place = Place::new();
    place.core("log", ["block"]);
    place.file("log/notes.txt", "mine");
    place.file("log/oplog", "");
    assert!(place.run("cat log").fails().contains("no core"));
    assert_eq!(place.run("purge log").ok(), "");
    let left = place.contents("log");
    assert_eq!(left.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["notes.txt"]);
}

/// Permissions do not bind the superuser, so the command runs as another user if the test runs as root.
#[cfg(unix)]
#[test]
fn purge_in_read_only_directory_changes_nothing() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let place = Place::new();
    for damaged in [false, true] {
        place.core("log", ["block"]);
        if damaged {
            place.file("log/oplog", [0xff; 8192]);
        }
        let is_superuser = chown(place.path("log/oplog"), Some(NOBODY), None).is_ok();
        for name in ["tree", "bitfield", "data"] {
            set_permissions(place.path("log").join(name), Permissions::from_mode(0o666)).unwrap();
        }
        set_permissions(place.path("log"), Permissions::from_mode(0o555)).unwrap();
        set_permissions(place.path(""), Permissions::from_mode(0o755)).unwrap();
        let before = place.contents("log");
        let mut command = place.command("purge log");
        if is_superuser {
            command.uid(NOBODY);
        }
        // The other user may not be able to reach the program.
        let Ok(child) = command.spawn() else { return };
        let error = crate::support::Ran::of("purge log", child).fails();
        assert!(error.starts_with("log") && error.contains("cannot delete"), "{error}");
        assert_eq!(place.contents("log"), before, "{error}");
        set_permissions(place.path("log"), Permissions::from_mode(0o755)).unwrap();
        std::fs::remove_dir_all(place.path("log")).unwrap();
    }
}

#[test]
fn truncate_without_secret_key_changes_nothing() {
    let place = Place::new();
    place.run(&format!("create log --key {}", "ab".repeat(32))).ok();
    let before = place.contents("log");
    let error = place.run("truncate log 0").fails();
    assert!(error.starts_with("log"), "{error}");
    assert_eq!(place.contents("log"), before);
}
