//! Usage errors, help, completions and the manual page.

use crate::machine::one_in;
use crate::support::Place;

const COMMANDS: [&str; 11] =
    ["create", "append", "get", "cat", "info", "seek", "has", "truncate", "clear", "verify", "purge"];

#[test]
fn unknown_command_or_option_is_usage_error() {
    let place = Place::new();
    for (line, named) in [
        ("frobnicate log", "frobnicate"),
        ("--frobnicate", "--frobnicate"),
        ("help frobnicate", "frobnicate"),
        ("completions frobnicate", "frobnicate"),
        ("serve log --frobnicate", "--frobnicate"),
        ("demo --frobnicate", "--frobnicate"),
    ] {
        assert!(place.run(line).misused().contains(named), "{line}");
    }
    for command in COMMANDS {
        for option in ["--frobnicate", "--frobnicate=1", "-x"] {
            let name = option.trim_end_matches("=1");
            assert!(place.run(&format!("{command} log {option}")).misused().contains(name), "{command} {option}");
        }
    }
    assert_eq!(place.contents("."), []);
}

#[test]
fn missing_command_or_argument_is_usage_error() {
    let place = Place::new();
    assert_eq!(place.run("").misused(), "a command is missing");
    for command in COMMANDS.into_iter().chain(["serve", "clone"]) {
        let error = place.run(command).misused();
        assert!(error.contains("DIR") && error.contains("missing"), "{command}: {error}");
    }
    for (line, missing) in [
        ("get log", "INDEX is missing"),
        ("get", "DIR and INDEX are missing"),
        ("seek log", "BYTE is missing"),
        ("has log", "START is missing"),
        ("truncate log", "LENGTH is missing"),
        ("clear log", "START is missing"),
        ("completions", "SHELL is missing"),
        ("clone", "--from, KEY and DIR are missing"),
    ] {
        assert_eq!(place.run(line).misused(), missing, "{line}");
    }
    assert_eq!(place.contents("."), []);
}

#[test]
fn mistyped_name_is_usage_error_suggesting_nearest_name() {
    let place = Place::new();
    for (line, nearest) in [
        ("apend log", "append"),
        ("verfiy log", "verify"),
        ("help verfy", "verify"),
        ("cat log --lnes", "--lines"),
        ("append log --block-szie 5", "--block-size"),
        ("append log --durability flsh", "flush"),
        ("completions fsh", "fish"),
    ] {
        let error = place.run(line).misused();
        assert!(error.ends_with(&format!("; did you mean {nearest}?")), "{line}: {error}");
    }
    for line in ["xyzzy", "cat log --xyzzy"] {
        assert!(!place.run(line).misused().contains("did you mean"), "{line}");
    }
}

#[test]
fn mistyped_secret_option_does_not_show_its_value() {
    let error = Place::new().run(&format!("get log 0 --encryption-kee={}", "ab".repeat(32))).misused();
    assert_eq!(error, "unknown option --encryption-kee; did you mean --encryption-key?");
}

#[test]
fn surplus_argument_is_usage_error() {
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
fn malformed_number_is_usage_error() {
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
fn number_beyond_any_log_fails() {
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
fn option_with_missing_surplus_or_second_value_is_usage_error() {
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
fn options_anywhere_before_two_dashes_are_recognised() {
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
fn help_of_every_command_shows_options_and_example() {
    let place = Place::new();
    let all = place.run("--help").ok();
    assert_eq!(all, place.run("help").ok());
    assert_eq!(all, place.run("-h").ok());
    for command in COMMANDS.into_iter().chain(["serve", "clone", "demo", "help", "completions", "man"]) {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in the list");
        let help = place.run(&format!("{command} --help")).ok();
        assert_eq!(help, place.run(&format!("help {command}")).ok());
        assert_eq!(help, place.run(&format!("{command} log -h")).ok());
        assert!(help.starts_with(&format!("Usage: hypercore {command}")), "{help}");
        assert!(help.contains(&format!("\nExample:\n  hypercore {command}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
    assert_eq!(place.run("get log --help").ok(), place.run("help get").ok());
    for command in COMMANDS.into_iter().chain(["serve", "clone", "demo"]) {
        let help = place.run(&format!("help {command}")).ok();
        assert!(help.contains("--encryption-key") && help.contains("--no-map"), "{help}");
    }
    for writer in ["create", "append", "truncate", "clear", "verify", "purge", "serve", "clone", "demo"] {
        assert!(place.run(&format!("help {writer}")).ok().contains("--durability"), "{writer}");
    }
    assert_eq!(place.contents("."), []);
}

#[test]
fn completions_for_each_shell_name_every_command_and_option() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&format!("completions {shell}")).ok();
        for name in COMMANDS.into_iter().chain(["serve", "clone", "block-size", "encryption-key-file", "durability"]) {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[cfg(unix)]
#[test]
fn bash_completions_complete_commands_options_and_values() {
    use std::process::{Command, Stdio};
    let place = Place::new();
    place.file("script", place.run("completions bash").ok());
    for (typed, completed) in [
        ("tru", "truncate"),
        ("cat log --by", "--bytes"),
        ("append log --durability al", "always"),
        ("help see", "seek"),
    ] {
        let last = typed.split(' ').count();
        let word = typed.split(' ').next_back().unwrap();
        let previous = typed.split(' ').rev().nth(1).unwrap_or("hypercore");
        let shell = format!(
            "source ./script; COMP_WORDS=(hypercore {typed}); COMP_CWORD={last}; _hypercore hypercore '{word}' '{previous}'; \
             echo \"${{COMPREPLY[*]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &shell]).current_dir(place.path("")).stderr(Stdio::inherit());
        let out = String::from_utf8(bash.output().unwrap().stdout).unwrap();
        assert_eq!(out, format!("{completed}\n"), "{typed}");
    }
}

#[test]
fn man_page_explains_every_command_and_shared_option() {
    let page = Place::new().run("man").ok();
    assert!(page.contains("\n.TH hypercore 1 "), "{page}");
    for command in COMMANDS.into_iter().chain(["serve", "clone", "demo", "help", "completions", "man"]) {
        assert_eq!(page.matches(&format!("\n.SS {command}\n")).count(), 1, "{command}");
    }
    for option in ["encryption\\-key", "encryption\\-key\\-file", "no\\-lock", "no\\-map", "durability", "read\\-only"]
    {
        assert_eq!(page.matches(&format!("\\fB\\-\\-{option}\\fR")).count(), 1, "{option}");
    }
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "ENVIRONMENT", "\"EXIT STATUS\"", "EXAMPLES"] {
        assert!(page.contains(&format!("\n.SH {section}\n")), "{section}");
    }
}

#[test]
fn version_flag_prints_crate_version() {
    assert_eq!(Place::new().run("--version").ok(), format!("hypercore {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn directory_without_core_is_named_and_unchanged() {
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

/// An unset shell variable must not make a command work on the current directory.
#[test]
fn empty_directory_name_is_usage_error() {
    let place = Place::new();
    place.core(".", ["block"]);
    let before = place.contents(".");
    let purge = place.command("purge").arg("").spawn().unwrap();
    let error = crate::support::Ran::of("purge", purge).misused();
    assert_eq!(error, "DIR: the name is empty: give a directory, or . for the current one");
    assert_eq!(place.contents("."), before);
}
