//! A file that another program truncates while the command reads it through a memory map gives an error in one line,
//! not a death by SIGBUS.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, Stdio};

use hypercore::net::Role;
use hypercore::{Download, Hypercore, Memory};

use crate::support::{Place, Ran, watch};

/// Their bytes are more than the buffer of the command and the pipe hold together. Their nodes are less than 256 KiB,
/// the smallest window of a map: the command maps all of `tree` before it is truncated.
const BLOCKS: u64 = 3200;
/// Bytes of a block.
const SIZE: usize = 400;

fn block(index: u64) -> String {
    format!("{index:SIZE$}")
}

/// Makes the core `log` and flushes it, so that its nodes are in `tree`.
fn make(place: &Place) {
    let core = place.open("log");
    core.append_batch((0..BLOCKS).map(block)).unwrap();
    core.flush().unwrap();
    core.close().unwrap();
}

fn cut(place: &Place, name: &str) {
    fs::OpenOptions::new().write(true).open(place.path("log").join(name)).unwrap().set_len(0).unwrap();
}

/// Starts `line`, which writes all blocks, and truncates `tree` after the first ones came.
fn cat(place: &Place, line: &str) -> Child {
    let mut child = place.command(line).spawn().unwrap();
    // The command has filled its output buffer by now, and so has read `tree` through a map.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; SIZE]).unwrap();
    cut(place, "tree");
    child
}

#[test]
fn cat_of_shrunk_tree_reports_lost_map_and_exits_1() {
    let place = Place::new();
    let _watchdog = watch("cat");
    make(&place);
    let ran = Ran::of("cat log", cat(&place, "cat log"));
    let line = ran.error_line();
    for part in ["cut by another program", "disk failed", "memory map", "--no-map"] {
        assert!(line.contains(part), "{line}");
    }
    // The bytes written before the error are right.
    let expected: String = (0..BLOCKS).map(block).collect();
    assert!(expected.as_bytes()[SIZE..].starts_with(&ran.out));
}

#[test]
fn cat_no_map_of_shrunk_tree_names_file() {
    let place = Place::new();
    let _watchdog = watch("cat");
    make(&place);
    let line = Ran::of("cat log", cat(&place, "cat log --no-map")).error_line();
    assert!(line.starts_with("log/tree: ") && line.contains("another program cut it"), "{line}");
}

#[test]
fn cat_of_shrunk_tree_with_closed_stderr_exits_1() {
    let place = Place::new();
    let _watchdog = watch("cat");
    make(&place);
    let mut child = place.command("cat log").stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    child.stdout.as_mut().unwrap().read_exact(&mut [0; SIZE]).unwrap();
    cut(&place, "tree");
    assert_eq!(Ran::of("cat log", child).code, Some(1));
}

/// In `serve` another thread than the main one reads.
#[test]
fn serve_of_shrunk_tree_reports_lost_map_and_exits_1() {
    let place = Place::new();
    let _watchdog = watch("serve");
    make(&place);
    let mut child = place.command("serve log").spawn().unwrap();
    let mut said = Vec::new();
    while said.last() != Some(&b'\n') {
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    let address = String::from_utf8(said).unwrap().trim_start_matches("listening ").trim().to_owned();
    let key = hypercore::KeyPair::from_seed(&crate::support::SEED).public_key();
    let copy = Hypercore::options().key(key).open_in(Memory::new()).unwrap();
    let _replication = copy.replicate(TcpStream::connect(address).unwrap(), Role::Initiator).unwrap();
    for index in 0..500 {
        assert_eq!(copy.get(index).unwrap(), block(index).as_bytes());
    }
    cut(&place, "tree");
    let _download = copy.download(Download::range(500..BLOCKS)).unwrap();
    let line = Ran::of("serve log", child).error_line();
    assert!(line.contains("memory map"), "{line}");
}

#[test]
fn command_without_maps_starts_no_signal_thread() {
    let place = Place::new();
    place.core("log", (0..BLOCKS).map(block));
    for (line, threads) in [("cat log", 2), ("cat log --no-map", 1), ("cat log --read-only", 1)] {
        let mut child = place.command(line).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; SIZE]).unwrap();
        let found = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count();
        assert!(found == threads || crate::machine::SLOW, "{line}: {found} threads");
        Ran::of(line, child).ok_bytes();
    }
}
