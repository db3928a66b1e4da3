//! On a full disk the command fails with an error and without a signal, and keeps every block it acknowledged.

use std::path::Path;
use std::process::{Command, Stdio};

use hypercore::Hypercore;

use crate::machine::runner;
use crate::support::{Place, Ran, noise};

const BLOCK: usize = 1000;

/// A file system of 256 KiB, unmounted on drop.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// None without the permission to mount.
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Small(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// Checks that the core holds the three blocks of before, and perhaps some batches of the command that failed.
fn is_sound(dir: &Path, blocks: &[u8]) {
    let core = Hypercore::open(dir).unwrap();
    assert!(core.len() >= 3);
    for index in 0..core.len() {
        let at = index as usize * BLOCK;
        assert_eq!(core.get(index).unwrap(), blocks[at..at + BLOCK]);
    }
    assert!(core.verify().unwrap().faults.is_empty());
}

fn append_in(place: &Place, shell: &str, input: &str) -> Ran {
    let binary = [runner(), vec![env!("CARGO_BIN_EXE_hypercore").to_owned()]].concat().join(" ");
    let script = format!("{shell} exec {binary} append small/log {input} --block-size {BLOCK}");
    let mut command = Command::new("sh");
    command.arg("-c").arg(&script).current_dir(place.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ran::of(&script, command.spawn().unwrap())
}

#[test]
fn append_on_full_file_system_fails_and_keeps_core_sound() {
    let place = Place::new();
    let dir = place.path("small");
    let Some(_small) = Small::mount(&dir) else { return };
    let blocks = noise(600 * BLOCK);
    place.file("some", &blocks[..3 * BLOCK]);
    place.file("rest", &blocks[3 * BLOCK..]);
    assert!(append_in(&place, "", "some").ok().starts_with("length 3\n"));
    let line = append_in(&place, "", "rest").fails();
    assert!(line.contains("small/log") && line.contains("os error 28"), "{line}");
    // The file system is full to the last page: opening the core needs a little more room.
    let remount = Command::new("mount").args(["-o", "remount,size=512k"]).arg(&dir).status().unwrap();
    assert!(remount.success());
    is_sound(&dir.join("log"), &blocks);
}

#[test]
fn append_past_file_size_limit_fails_and_keeps_core_sound() {
    let place = Place::new();
    let blocks = noise(600 * BLOCK);
    place.file("some", &blocks[..3 * BLOCK]);
    place.file("rest", &blocks[3 * BLOCK..]);
    // In units of 512 bytes: enough for the first entries in `oplog`, not for the blocks in `data`.
    let limit = "ulimit -f 100;";
    assert!(append_in(&place, limit, "some").ok().starts_with("length 3\n"));
    let line = append_in(&place, limit, "rest").fails();
    assert!(line.contains("small/log") && line.contains("os error 27"), "{line}");
    is_sound(&place.path("small/log"), &blocks);
}

#[test]
fn clear_on_full_file_system_frees_space() {
    let place = Place::new();
    let dir = place.path("small");
    let Some(_small) = Small::mount(&dir) else { return };
    let blocks = noise(120 * BLOCK);
    place.file("some", &blocks);
    assert!(append_in(&place, "", "some").ok().starts_with("length 120\n"));
    for held in ["has small/log 0 100", "has small/log 0"] {
        // Fill the file system to the last page.
        let fill = || std::fs::write(dir.join("filling"), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(fill().raw_os_error(), Some(28));
        assert!(place.run(held).ok() == "true\n");
        let clear = if held.ends_with("100") { "clear small/log 20 100" } else { "clear small/log 0 20" };
        let out = place.run(clear).ok();
        let (count, freed) = out.strip_prefix("cleared ").unwrap().split_once(" blocks, ").unwrap();
        let freed: u64 = freed.trim_end().strip_suffix(" bytes").unwrap().parse().unwrap();
        let count: u64 = count.parse().unwrap();
        assert!(freed >= count * BLOCK as u64 - 8192, "{out}");
        std::fs::remove_file(dir.join("filling")).unwrap();
    }
    assert_eq!(place.run("verify small/log").ok(), "blocks 20\nfaults 0\n");
}

#[test]
fn clear_after_failed_flush_frees_space() {
    let place = Place::new();
    let blocks = noise(80_000);
    place.file("some", &blocks);
    let run = |shell: &str, line: &str| {
        let binary = [runner(), vec![env!("CARGO_BIN_EXE_hypercore").to_owned()]].concat().join(" ");
        let script = format!("{shell} exec {binary} {line}");
        let mut command = Command::new("sh");
        command.arg("-c").arg(&script).current_dir(place.path(""));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ran::of(&script, command.spawn().unwrap())
    };
    // The limit leaves room for the blocks in `data` and their entries in `oplog`, not for their nodes in `tree`.
    let limit = "ulimit -f 600;";
    assert_eq!(run(limit, "append small some --block-size 20").code, Some(1));
    let length = Hypercore::open(place.path("small")).unwrap().len();
    assert!(length >= 1000, "{length}");
    let _ = run(limit, &format!("clear small 0 {}", length - 10));
    let _ = run("", &format!("clear small 0 {}", length - 10));
    let held = Hypercore::open(place.path("small")).unwrap();
    let used = held.info(hypercore::InfoOptions::new().storage(true)).unwrap().storage.unwrap().blocks;
    assert!(used <= 8192, "{used} bytes for ten blocks of twenty");
    assert_eq!(held.len(), length);
    assert_eq!(held.get(length - 1).unwrap(), blocks[20 * (length as usize - 1)..20 * length as usize]);
}
