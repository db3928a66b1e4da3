//! Files after a kill or a power cut open in JavaScript as they do here: at once after a kill, and after a power cut
//! once we have opened them and appended.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::{env, fs, io};

use hypercore::{Durability, ErrorKind, Hypercore, OpenOptions};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::common::machine::{one_in, program};
use crate::common::powercut::{Cut, Image, Recorder, Replay};
use crate::common::{Random, hex, pair};
use crate::js::Js;

fn opening(durability: Durability) -> OpenOptions {
    Hypercore::options().durability(durability).key_pair(pair(1))
}

/// The storage calls of a writer that uses every kind of operation.
fn calls(durability: Durability) -> Recorder {
    let disk = Recorder::recording(Image::new());
    let core = opening(durability).open_in(disk.clone()).unwrap();
    let mut random = Random::new(4);
    let mut blocks = |count: usize| -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| {
                let size = random.below(900) as usize;
                random.bytes(size)
            })
            .collect()
    };
    core.append_batch(blocks(5)).unwrap();
    core.append_batch(blocks(1)).unwrap();
    core.set_user_data("a", [7; 30]).unwrap();
    core.truncate(4).unwrap();
    core.append_batch(blocks(4)).unwrap();
    core.clear(1..3).unwrap();
    core.set_user_data("a", [8; 5000]).unwrap();
    core.append_batch(blocks(2)).unwrap();
    core.flush().unwrap();
    core.append_batch(blocks(3)).unwrap();
    core.close().unwrap();
    disk
}

fn save(image: &Image, dir: &Path) {
    for (name, bytes) in image {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Fails unless JavaScript finds in `dir` the state of `core`.
fn agrees(js: &mut Js, dir: &Path, core: &Hypercore, what: &str) {
    let info = js.call("open", json!({"dir": dir}));
    assert_eq!((&info["length"], &info["fork"]), (&json!(core.len()), &json!(core.fork())), "{what}");
    assert_eq!(info["byteLength"], json!(core.byte_length()), "{what}");
    for index in 0..core.len() {
        let theirs = js.call("get", json!({"index": index, "wait": false}));
        match core.has(index).unwrap() {
            true => assert_eq!(theirs["block"], json!(hex(&core.get(index).unwrap())), "{what}, block {index}"),
            false => assert!(theirs["block"].is_null(), "{what}, block {index}"),
        }
    }
    let value = core.user_data("a").map(|value| hex(&value));
    assert_eq!(js.call("userData", json!({}))["values"].get("a").cloned(), value.map(|v| json!(v)), "{what}");
    if !core.is_empty() {
        assert_eq!(js.call("verifyHead", json!({}))["valid"], json!(true), "{what}");
    }
    js.call("close", json!({}));
}

#[test]
fn files_after_crash_open_in_javascript() {
    let Some(mut js) = Js::core() else { return };
    for durability in [Durability::None, Durability::Flush] {
        let disk = calls(durability);
        let (base, calls) = (Image::new(), disk.calls());
        let mut replay = Replay::new(&base, &calls);
        let mut random = Random::new(8);
        let mut judged = 0;
        loop {
            let position = replay.position();
            let chosen = position % one_in(4) == 0;
            let mut cuts = if chosen { vec![Cut::Killed { torn: None }] } else { Vec::new() };
            if chosen && durability == Durability::Flush {
                cuts.push(Cut::Seed(random.next()));
            }
            for cut in cuts {
                let image = replay.image(cut);
                let what = format!("{durability:?}, cut after {position} calls, {cut:?}");
                let ours = Recorder::new(image.clone());
                let core = match opening(durability).create_if_missing(false).open_in(ours.clone()) {
                    Ok(core) => core,
                    Err(e) if e.kind() == ErrorKind::StorageEmpty => continue,
                    Err(e) => panic!("{what}: {e}"),
                };
                if matches!(cut, Cut::Killed { .. }) {
                    let dir = tempdir().unwrap();
                    save(&image, dir.path());
                    agrees(&mut js, dir.path(), &core, &what);
                }
                core.append("more").unwrap();
                core.close().unwrap();
                let core = opening(durability).open_in(ours.clone()).unwrap();
                let dir = tempdir().unwrap();
                save(&ours.image(), dir.path());
                agrees(&mut js, dir.path(), &core, &format!("{what}, after an append"));
                judged += 1;
            }
            if !replay.step() {
                break;
            }
        }
        assert!(judged > 30 / one_in(4), "{judged} images");
    }
}

/// The environment variable with the child's directory.
const DIRECTORY: &str = "HYPERCORE_TEST_KILLED";

#[test]
#[ignore = "run by the test of this module in a process of its own"]
fn helper_process() {
    let dir = env::var(DIRECTORY).expect("only the test below runs this");
    let core = opening(Durability::None).open(dir).unwrap();
    let mut random = Random::new(9);
    for number in 0_u64.. {
        let length = core.len();
        match random.below(12) {
            0 => _ = core.truncate(random.below(length + 1)).unwrap(),
            1 if length > 0 => {
                let index = random.below(length);
                core.clear(index..index + 1).unwrap();
            }
            2 => core.set_user_data("a", vec![number as u8; 1 + random.below(5000) as usize]).unwrap(),
            _ => {
                let blocks = (0..1 + random.below(3)).map(|_| vec![number as u8; random.below(2000) as usize]);
                core.append_batch(blocks.collect::<Vec<_>>()).unwrap();
            }
        }
        writeln!(io::stdout(), "did {number}").unwrap();
    }
}

#[test]
fn files_of_killed_process_read_equal_in_javascript() {
    let Some(mut js) = Js::core() else { return };
    let (mut random, mut refused) = (Random::new(3), 0);
    let rounds = 25 / one_in(5);
    for round in 0..rounds {
        let dir = tempdir().unwrap();
        let mut command = program(env::current_exe().unwrap());
        command.args(["crash::helper_process", "--exact", "--ignored", "--nocapture"]).env(DIRECTORY, dir.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let did = lines.map_while(Result::ok).filter(|line| line.starts_with("did "));
        let acknowledged = did.take(1 + random.below(90) as usize).count();
        (0..random.below(100_000)).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        child.wait().unwrap();
        let [tried, copy] = [copied(dir.path()), copied(dir.path())];
        let core = opening(Durability::None).create_if_missing(false).open(dir.path()).unwrap();
        let what = format!("round {round}, killed after {acknowledged} changes");
        // Between truncating the tree and writing the header the reference leaves files that it cannot open: the
        // roots of the old header are gone. After we have opened them and appended, it can.
        let found = js.try_call("open", json!({"dir": tried.path(), "createIfMissing": false}));
        let _ = js.try_call("close", json!({}));
        match found {
            Ok(_) => agrees(&mut js, copy.path(), &core, &what),
            Err(refusal) => {
                let cut = ["Could not load node", "EPARTIALREAD"].iter().any(|why| refusal.message.contains(why));
                assert!(cut && core.fork() > 0, "{what}: {}", refusal.message);
                refused += 1;
                core.append("more").unwrap();
                core.close().unwrap();
                let core = opening(Durability::None).read_only(true).open(dir.path()).unwrap();
                agrees(&mut js, copied(dir.path()).path(), &core, &format!("{what}, after an append"));
            }
        }
    }
    assert!(refused < 10, "{refused} of {rounds}");
}

fn copied(dir: &Path) -> TempDir {
    let copy = tempdir().unwrap();
    for file in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}
