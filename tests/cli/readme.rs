//! Replays the commands of the README and compares their output.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Place, Ran, watch};

/// The address in the README, which the replay replaces by one with a free port.
const ADDRESS: &str = "127.0.0.1:4977";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of all fenced blocks of the README in `language`.
fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let pieces: Vec<&str> = text.split("```").collect();
    // Every second piece is between fences. Its first line is its language.
    let blocks = pieces.iter().skip(1).step_by(2).filter_map(|piece| piece.split_once('\n'));
    blocks.filter(|(of, _)| *of == language).flat_map(|(_, lines)| lines.lines().map(str::to_owned)).collect()
}

/// Each command of the transcript with the lines that follow it.
fn transcript() -> Vec<(String, Vec<String>)> {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in blocks("console") {
        match line.strip_prefix("$ ") {
            Some(typed) => steps.push((typed.to_owned(), Vec::new())),
            None => steps.last_mut().unwrap().1.push(line),
        }
    }
    steps
}

/// The keys that the README shortens and the address, each with its value in the replay.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn is_one(word: &str) -> bool {
        word.ends_with('…') || word == ADDRESS
    }

    /// `typed` with the values in place of the names.
    fn put_in(&self, typed: &str) -> String {
        self.0.iter().fold(typed.to_owned(), |typed, (name, meaning)| typed.replace(name, meaning))
    }

    /// Whether `printed` matches the line `shown`. The first match of a name fixes its value.
    fn agree(&mut self, shown: &str, printed: &str) -> bool {
        let (shown, printed): (Vec<_>, Vec<_>) = (shown.split(' ').collect(), printed.split(' ').collect());
        shown.len() == printed.len()
            && shown.iter().zip(printed).all(|(shown, printed)| match Names::is_one(shown) {
                true => self.0.entry((*shown).to_owned()).or_insert_with(|| printed.to_owned()) == printed,
                false => *shown == printed,
            })
    }
}

fn shell(place: &Place, line: &str) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_hypercore")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(programs.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec 2>&1; {line}")).current_dir(place.path("")).env("PATH", path.unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn readme_transcript_matches_real_output() {
    let place = Place::new();
    let mut names = Names::default();
    let mut behind: Option<(String, Child)> = None;
    let mut refused = false;
    for (typed, shown) in transcript() {
        let _watchdog = watch(&typed);
        let line = names.put_in(&typed);
        let printed: Vec<String> = if let Some(line) = line.strip_suffix(" &") {
            let line = format!("exec {}", line.replace(ADDRESS, "127.0.0.1:0"));
            let mut child = shell(&place, &line).spawn().unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            behind = Some((line, child));
            out.lines().take(shown.len()).map(Result::unwrap).collect()
        } else if line == "kill %1" {
            let (line, child) = behind.take().unwrap();
            assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
            Ran::of(&line, child).ok().lines().map(str::to_owned).collect()
        } else {
            let ran = Ran::of(&line, shell(&place, &line).spawn().unwrap());
            let text = String::from_utf8(ran.out).unwrap();
            refused |= ran.code == Some(1) && text.contains("is not what was signed");
            assert_eq!(ran.code == Some(0), !text.starts_with("error: "), "{typed}");
            text.lines().map(str::to_owned).collect()
        };
        assert_eq!(printed.len(), shown.len(), "{typed}: {printed:?}");
        for (shown, printed) in shown.iter().zip(&printed) {
            assert!(names.agree(shown, printed), "{typed}: {printed:?} and not {shown:?}");
        }
    }
    assert!(refused, "no command refused the tampered block");
    assert!(behind.is_none(), "the server is still running");
    assert_eq!(names.0.len(), 2, "{:?}", names.0);
}

#[test]
fn readme_first_command_runs_demo() {
    let first = blocks("sh").remove(0);
    let args = first.strip_prefix("cargo run --release -- ").unwrap();
    let ran = Ran::of(args, Place::new().command(args).current_dir(root()).spawn().unwrap());
    assert_eq!(ran.ok().lines().last(), Some("ok"));
}
