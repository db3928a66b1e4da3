//! Wrong usage is told apart from failure, and every command explains itself.

use crate::machine::one_in;
use crate::support::Place;

const COMMANDS: [&str; 11] =
    ["create", "append", "get", "cat", "info", "seek", "has", "truncate", "clear", "verify", "purge"];

#[test]
fn unknown_commands_and_options_and_missing_arguments_are_wrong_usage() {
    let place = Place::new();
    assert!(place.run("").misused().contains("missing"));
    assert!(place.run("frobnicate log").misused().contains("frobnicate"));
    assert!(place.run("--frobnicate").misused().contains("--frobnicate"));
    assert!(place.run("help frobnicate").misused().contains("frobnicate"));
    for command in COMMANDS {
        assert!(place.run(command).misused().contains("DIR"), "{command}");
        assert!(place.run(&format!("{command} log --frobnicate")).misused().contains("--frobnicate"), "{command}");
        assert!(place.run(&format!("{command} log --frobnicate=1")).misused().contains("--frobnicate"), "{command}");
        assert!(place.run(&format!("{command} log -x")).misused().contains("-x"), "{command}");
    }
    assert!(place.run("serve").misused().contains("DIR"));
    assert!(place.run("serve log --frobnicate").misused().contains("--frobnicate"));
    assert!(place.run("demo --frobnicate").misused().contains("--frobnicate"));
    assert!(place.run("get log").misused().contains("INDEX"));
    assert!(place.run("seek log").misused().contains("BYTE"));
    assert!(place.run("has log").misused().contains("START"));
    assert!(place.run("truncate log").misused().contains("LENGTH"));
    assert!(place.run("clear log").misused().contains("START"));
    assert_eq!(place.contents("."), []);
}

#[test]
fn arguments_too_many_are_wrong_usage() {
    let place = Place::new();
    for line in [
        "create log x",
        "get log 0 x",
        "cat log x",
        "info log x",
        "seek log 0 x",
        "has log 0 1 x",
        "truncate log 0 x",
        "clear log 0 1 x",
        "verify log x",
        "purge log x",
    ] {
        assert!(place.run(line).misused().contains("\"x\""), "{line}");
    }
    assert_eq!(place.contents("."), []);
}

#[test]
fn numbers_that_are_none_are_wrong_usage() {
    let place = Place::new();
    place.core("log", ["block"]);
    let before = place.contents("log");
    for number in ["x", "1x", "+1", "1.0", "0x1", "1e3", "18446744073709551616", "١"].into_iter().step_by(one_in(3)) {
        for line in [
            "get log N",
            "seek log N",
            "has log N",
            "has log 0 N",
            "truncate log N",
            "clear log N",
            "clear log 0 N",
            "cat log --start N",
            "cat log --end=N",
            "cat log --bytes N",
            "cat log --bytes N:1",
            "cat log --bytes 0:N",
            "append log --block-size N",
            "truncate log 0 --fork N",
        ] {
            let line = line.replace('N', number);
            assert!(place.run(&line).misused().contains("whole number"), "{line}");
        }
    }
    assert!(place.run("get log -1").misused().contains("-1"));
    assert_eq!(place.contents("log"), before);
}

#[test]
fn numbers_beyond_any_log_fail() {
    let place = Place::new();
    place.core("log", ["block"]);
    let before = place.contents("log");
    let most = u64::MAX;
    for line in [
        "get log N",
        "seek log N",
        "has log N",
        "has log 0 N",
        "has log N N",
        "truncate log N",
        "clear log N",
        "clear log 0 N",
        "cat log --start N",
        "cat log --bytes N",
        "cat log --bytes N:N",
        "truncate log 0 --fork N",
    ] {
        let line = line.replace('N', &most.to_string());
        assert!(place.run(&line).fails().contains("log"), "{line}");
    }
    assert_eq!(place.contents("log"), before);
}

#[test]
fn options_have_values_or_none_and_are_given_once() {
    let place = Place::new();
    assert!(place.run("cat log --start").misused().contains("--start needs a value"));
    assert!(place.run("cat log --lines=yes").misused().contains("--lines takes no value"));
    assert!(place.run("cat log --start 1 --start 2").misused().contains("--start is given twice"));
    assert!(place.run("append log --durability sometimes").misused().contains("sometimes"));
    for key in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"y".repeat(52)] {
        let error = place.run(&format!("get log 0 --encryption-key={key}")).misused();
        assert!(error.contains("--encryption-key"), "{error}");
        assert!(key.is_empty() || !error.contains(key), "the secret is shown: {error}");
    }
}

#[test]
fn options_come_anywhere_and_end_at_two_dashes() {
    let place = Place::new();
    place.core("log", ["a", "b", "c"]);
    for line in [
        "cat log --start 1 --lines",
        "cat --start 1 --lines log",
        "cat --lines log --start=1",
        "cat --start=1 --lines -- log",
    ] {
        assert_eq!(place.run(line).ok(), "b\nc\n", "{line}");
    }
    place.file("--lines", "x");
    assert_eq!(place.run("append log -- --lines").ok(), "length 4\nbyte-length 4\n");
    assert!(place.run("cat -- log --lines").misused().contains("--lines"));
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let place = Place::new();
    let all = place.run("--help").ok();
    assert_eq!(all, place.run("help").ok());
    assert_eq!(all, place.run("-h").ok());
    for command in COMMANDS.into_iter().chain(["serve", "clone", "demo"]) {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in the list");
        let help = place.run(&format!("{command} --help")).ok();
        assert_eq!(help, place.run(&format!("help {command}")).ok());
        assert_eq!(help, place.run(&format!("{command} log -h")).ok());
        assert!(help.starts_with(&format!("Usage: hypercore {command} ")), "{help}");
        assert!(help.contains("--encryption-key") && help.contains("--no-map"), "{help}");
        assert!(help.contains(&format!("\nExample:\n  hypercore {command}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
    for writer in ["create", "append", "truncate", "clear", "verify", "purge", "serve", "clone", "demo"] {
        assert!(place.run(&format!("help {writer}")).ok().contains("--durability"), "{writer}");
    }
    assert_eq!(place.contents("."), []);
}

#[test]
fn the_version_is_that_of_the_crate() {
    assert_eq!(Place::new().run("--version").ok(), format!("hypercore {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_directory_without_a_core_is_named_and_left_as_it_is() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    place.file("file", "");
    for rest in [
        "get D 0",
        "cat D",
        "info D",
        "seek D 0",
        "has D 0",
        "truncate D 0",
        "clear D 0",
        "verify D",
        "verify D --repair",
        "purge D",
        "get D 0 --read-only",
    ] {
        for (dir, why) in [("absent", "no such directory"), ("empty", "no core"), ("file", "is a file")] {
            let line = rest.replace('D', dir);
            let error = place.run(&line).fails();
            assert!(error.starts_with(dir) && error.contains(why) && error.contains("create"), "{line}: {error}");
        }
    }
    assert!(!place.path("absent").exists());
    assert_eq!(place.contents("empty"), []);
}

/// An unset variable must not make a command work on the current directory.
#[test]
fn an_empty_directory_name_is_wrong_usage() {
    let place = Place::new();
    place.core(".", ["block"]);
    let before = place.contents(".");
    let purge = place.command("purge").arg("").spawn().unwrap();
    assert!(crate::support::Ran::of("purge", purge).misused().contains("DIR: the name is empty"));
    assert_eq!(place.contents("."), before);
}
