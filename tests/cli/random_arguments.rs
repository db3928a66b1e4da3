//! Random arguments, damaged cores and named pipes: the command exits with 0, 1 or 2 and never panics.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use crate::machine::tries;
use crate::support::{Place, Ran, watch};

/// Names for directories and files.
const PLACES: [&str; 14] = [
    "log",
    "reader",
    "damaged",
    "file",
    "none",
    "folder",
    "folders",
    "absent",
    "absent/deep",
    "file/x",
    ".",
    "/dev/null",
    "/proc",
    "-",
];

const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "3",
    "4",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775808",
    "18446744073709551614",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "1.5",
];

/// Options with a right, wrong or missing value; `N` stands for a number.
const OPTIONS: [&str; 28] = [
    "--lines",
    "--whole",
    "--block-size=N",
    "--start=N",
    "--end=N",
    "--bytes=N:N",
    "--bytes=N",
    "--json",
    "--map",
    "--fork=N",
    "--repair",
    "--overwrite",
    "--read-only",
    "--no-lock",
    "--no-map",
    "--range=N:N",
    "--timeout=N",
    "--durability=none",
    "--durability=N",
    "--key=N",
    "--encryption-key=abababababababababababababababababababababababababababababababab",
    "--encryption-key-file=N",
    "--encryption-key-file=-",
    "--seed-file=N",
    "--start",
    "--=N",
    "--lines=N",
    "--",
];

/// Commands, each with the count of numbers that it takes; `D` stands for a directory.
const COMMANDS: [(&str, usize); 12] = [
    ("create D", 0),
    ("append D", 0),
    ("get D", 1),
    ("cat D", 0),
    ("info D", 0),
    ("seek D", 1),
    ("has D", 2),
    ("truncate D", 1),
    ("clear D", 2),
    ("verify D", 0),
    ("purge D", 0),
    ("clone abababababababababababababababababababababababababababababababab D --from=127.0.0.1:1 --timeout=0.01", 0),
];

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % n
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// A command with arguments that are nearly right.
    fn arguments(&mut self) -> Vec<OsString> {
        let (command, numbers) = COMMANDS[self.below(COMMANDS.len())];
        let place = if self.below(3) == 0 { self.one_of(&PLACES) } else { "log" };
        let mut words: Vec<String> = command.split(' ').map(|word| word.replace('D', place)).collect();
        for _ in 0..numbers + usize::from(self.below(6) == 0) {
            words.push(self.one_of(&NUMBERS).to_owned());
        }
        for _ in 0..self.below(4) {
            let option = self.one_of(&OPTIONS).replacen('N', self.one_of(&NUMBERS), 1);
            words.push(option.replace('N', self.one_of(&NUMBERS)));
        }
        let mut words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        if self.below(12) == 0 {
            words.insert(1 + self.below(words.len()), OsString::from_vec(vec![b'x', 0xff, 0x1b, b'\n', 0xfe]));
        }
        words
    }
}

fn fill(place: &Place) {
    for name in ["log", "reader", "damaged", "file", "none", "folder", "folders"] {
        let path = place.path(name);
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
    place.core("log", [&b"a"[..], b"", b"bcd", &[7; 5000]]);
    place.core("damaged", ["a"]);
    place.file("damaged/oplog", [0xa5; 9000]);
    place.run(&format!("create reader --key {}", "ab".repeat(32))).ok();
    place.file("file", [9; 100_000]);
    place.file("none", "");
    fs::create_dir(place.path("folder")).unwrap();
    fs::create_dir_all(place.path("folders/oplog")).unwrap();
}

#[test]
fn named_pipe_in_place_of_core_file_is_refused() {
    let place = Place::new();
    for file in ["oplog", "tree", "bitfield", "data"] {
        place.core(file, ["a", "b"]);
        let _ = fs::remove_file(place.path(file).join(file));
        assert!(Command::new("mkfifo").arg(place.path(file).join(file)).status().unwrap().success());
        for how in ["", " --read-only"] {
            let error = place.run(&format!("cat {file}{how}")).fails();
            assert_eq!(error, format!("{file}/{file}: cannot open: it is not a regular file"));
        }
    }
}

#[test]
fn random_arguments_exit_with_0_1_or_2() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let place = Place::new();
    let mut codes = [0; 3];
    for round in 0..tries(600) {
        if round % 25 == 0 {
            fill(&place);
        }
        let arguments = dice.arguments();
        let line = format!("{arguments:?}");
        let _watchdog = watch(&line);
        let mut command = place.command("");
        command.args(&arguments);
        if dice.below(8) == 0 && cfg!(target_os = "linux") {
            command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        }
        if dice.below(4) == 0 {
            command.stdin(Stdio::from(fs::File::open(place.path("file")).unwrap()));
        }
        let ran = Ran::of(&line, command.spawn().unwrap());
        let code = ran.code.unwrap_or_else(|| panic!("{line} was killed: {}", ran.err));
        assert!((0..3).contains(&code) && !ran.err.contains("panicked"), "{line}: {code}: {}", ran.err);
        codes[code as usize] += 1;
        assert!(!ran.err.contains(|c: char| c.is_control() && c != '\n'), "{line}: {:?}", ran.err);
        match code {
            0 => {}
            1 => assert!(ran.err.contains("error: ") && ran.err.ends_with('\n'), "{line}: {}", ran.err),
            _ => drop(ran.misused()),
        }
    }
    // Each exit code occurs.
    assert!(codes.iter().all(|&count| count > tries(600) / 40), "{codes:?}");
}
