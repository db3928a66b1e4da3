//! Encryption keys and seeds from options, files, standard input and the environment; a wrong or missing key is an
//! error before anything is written.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use hypercore::KeyPair;

use crate::support::{Place, Ran, SEED};

const VARIABLE: &str = "HYPERCORE_ENCRYPTION_KEY";

fn right() -> String {
    "ab".repeat(32)
}

fn wrong() -> String {
    "cd".repeat(32)
}

/// A directory with `log`, an encrypted log of three lines.
fn encrypted() -> Place {
    let place = Place::new();
    let key = format!("--encryption-key {}", right());
    place.run_with(&format!("append log --lines {key}"), b"one\ntwo\nthree\n").ok();
    place
}

/// Runs `line` with the variable set to `key`.
fn with_variable(place: &Place, line: &str, key: &str) -> Ran {
    Ran::of(line, place.command(line).env(VARIABLE, key).spawn().unwrap())
}

#[test]
fn encrypted_log_without_key_refuses_reads_and_appends() {
    let place = encrypted();
    place.file("more", "more");
    let before = place.contents("log");
    for key in [String::new(), format!(" --encryption-key {}", wrong())] {
        for line in [
            "append log",
            "append log --lines",
            "append log more",
            "append log more --whole",
            "serve log --append-lines",
            "get log 0",
            "get log 9",
            "cat log",
            "cat log --lines --start 1",
            "cat log --start 3",
            "cat log --bytes 2:3",
            "cat log --bytes 100",
            "seek log 2",
            "seek log 11",
            "seek log 35",
        ] {
            let error = place.run_with(&format!("{line}{key}"), b"text\n").fails();
            assert!(error.starts_with("log: ") && error.contains("give the key"), "{line}: {error}");
            let origin = if key.is_empty() { VARIABLE } else { "the key was given by --encryption-key" };
            assert!(error.contains(origin) && !error.contains(&wrong()), "{line}: {error}");
            assert!(place.contents("log") == before, "{line}");
        }
        assert!(place.run(&format!("info log{key}")).ok().contains("\nencrypted      yes\n"));
        assert!(place.run(&format!("info log --json{key}")).ok().contains("\"encrypted\":true,"));
        place.run(&format!("verify log{key}")).ok();
        place.run(&format!("has log 0{key}")).ok();
    }
    place.run("clear log 0").ok();
    assert_eq!(place.run("truncate log 2").ok(), "length 2\nfork 1\n");
    assert_eq!(place.run(&format!("get log 1 --encryption-key {}", right())).ok(), "two");
}

#[cfg(target_os = "linux")]
#[test]
fn cat_live_of_encrypted_log_without_key_fails() {
    let place = encrypted();
    assert!(place.run("cat log --live").fails().contains("give the key"));
}

#[test]
fn plain_log_with_key_refuses_reads_and_appends() {
    for durability in ["none", "flush"] {
        let place = Place::new();
        place.run_with(&format!("append log --lines --durability {durability}"), b"one\ntwo, longer\n").ok();
        let before = place.contents("log");
        for line in
            ["append log", "serve log --append-lines", "get log 0", "cat log", "cat log --bytes 0", "seek log 0"]
        {
            let error = place.run_with(&format!("{line} --encryption-key {}", right()), b"text").fails();
            assert!(error.contains("plain") && error.contains("given by --encryption-key"), "{line}: {error}");
            let error = with_variable(&place, line, &right()).fails();
            assert!(error.contains("plain") && error.ends_with(VARIABLE), "{line}: {error}");
            assert!(place.contents("log") == before, "{line}");
        }
        let known = if durability == "none" { "unknown" } else { "no" };
        assert!(place.run("info log").ok().contains(&format!("\nencrypted      {known}\n")));
        let known = if durability == "none" { "null" } else { "false" };
        assert!(place.run("info log --json").ok().contains(&format!("\"encrypted\":{known},")));
        assert_eq!(place.run("cat log --lines").ok(), "one\ntwo, longer\n");
    }
}

#[test]
fn javascript_log_opened_with_key_is_known_as_encrypted() {
    let place = Place::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/js10/encrypted");
    fs::create_dir(place.path("log")).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.path("log").join(file.file_name())).unwrap();
    }
    let key = format!("--encryption-key {}", "ee".repeat(32));
    assert!(place.run("info log").ok().contains("\nencrypted      unknown\n"));
    assert_eq!(place.run("get log 0").ok_bytes().len(), 14);
    assert_eq!(place.run(&format!("get log 0 {key} --read-only")).ok(), "secret");
    assert!(place.run("info log").ok().contains("\nencrypted      unknown\n"));
    assert!(place.run(&format!("info log {key}")).ok().contains("\nencrypted      yes\n"));
    assert!(place.run("info log").ok().contains("\nencrypted      yes\n"));
    assert!(place.run("append log").fails().contains("give the key"));
}

#[test]
fn encryption_key_from_file_stdin_or_variable_is_used() {
    let place = encrypted();
    place.file("key", format!("\n  {}\t\r\n", right().to_uppercase()));
    place.file("wrong", wrong());
    assert_eq!(place.run("get log 1 --encryption-key-file key").ok(), "two");
    assert_eq!(place.run_with("get log 1 --encryption-key-file -", format!("{}\n", right()).as_bytes()).ok(), "two");
    assert_eq!(with_variable(&place, "get log 1", &right()).ok(), "two");
    // An option overrides the variable.
    assert_eq!(with_variable(&place, "get log 1 --encryption-key-file key", &wrong()).ok(), "two");
    let error = with_variable(&place, "get log 1 --encryption-key-file wrong", &right()).fails();
    assert!(error.ends_with("the key was given by --encryption-key-file wrong"), "{error}");
    place.file("more", "more");
    let append = "append log more --encryption-key-file -";
    assert_eq!(place.run_with(append, right().as_bytes()).ok(), "length 4\nbyte-length 15\n");
    let create = "create other --encryption-key-file key";
    place.run(create).ok();
    assert!(place.run("info other").ok().contains("\nencrypted      yes\n"));
    assert_eq!(place.run("demo key --encryption-key-file key").ok().lines().last(), Some("ok"));
    // Standard input is read once, also by commands that open the core twice.
    let append = "append log more --encryption-key-file=-";
    assert_eq!(place.run_with(append, right().as_bytes()).ok(), "length 5\nbyte-length 19\n");
    assert_eq!(place.run_with("purge log --encryption-key-file -", right().as_bytes()).ok(), "");
}

#[test]
fn encryption_key_given_twice_or_malformed_is_refused_and_not_shown() {
    let place = encrypted();
    place.file("key", right());
    let twice = format!("get log 0 --encryption-key {} --encryption-key-file key", right());
    assert!(place.run(&twice).misused().contains("exclude"));
    assert!(place.run("get log 0 --encryption-key-file=").misused().contains("--encryption-key-file"));
    for malformed in ["", &right()[1..], &format!("{}0", right()), &"x".repeat(64), &"y".repeat(52)] {
        place.file("malformed", malformed);
        let error = place.run("get log 0 --encryption-key-file malformed").fails();
        assert!(error.starts_with("malformed: ") && error.contains("64 hexadecimal digits"), "{error}");
        let of_stdin = place.run_with("get log 0 --encryption-key-file -", malformed.as_bytes()).fails();
        assert!(of_stdin.starts_with("standard input: "), "{of_stdin}");
        let of_variable = with_variable(&place, "get log 0", malformed).misused();
        assert!(of_variable.contains(VARIABLE), "{of_variable}");
        for error in [error, of_stdin, of_variable] {
            assert!(malformed.is_empty() || !error.contains(malformed), "the secret is shown: {error}");
        }
    }
    place.file("large", format!("{}{}", right(), " ".repeat(5000)));
    assert!(place.run("get log 0 --encryption-key-file large").fails().starts_with("large: "));
    #[cfg(unix)]
    assert!(place.run("get log 0 --encryption-key-file /dev/zero").fails().starts_with("/dev/zero: "));
    assert!(place.run("get log 0 --encryption-key-file absent").fails().starts_with("absent: "));
    assert!(place.run("get log 0 --encryption-key-file log").fails().starts_with("log: "));
}

#[test]
fn stdin_for_key_and_data_is_usage_error() {
    let place = encrypted();
    let before = place.contents("log");
    for line in ["append log", "append log -", "append log --lines", "serve log --append-lines"] {
        let error = place.run_with(&format!("{line} --encryption-key-file -"), right().as_bytes()).misused();
        assert!(error.contains("standard input"), "{line}: {error}");
    }
    assert!(place.contents("log") == before);
    let error = place.run("create other --seed-file - --encryption-key-file -").misused();
    assert!(error.contains("standard input"), "{error}");
    assert!(!place.path("other").exists());
}

#[test]
fn seed_from_file_or_stdin_is_used() {
    let place = Place::new();
    let key = KeyPair::from_seed(&SEED).public_key();
    let printed = format!("key {}\nid {}\n", key.to_hex(), key.id());
    let seed = "07".repeat(32);
    place.file("seed", format!("{seed}\n"));
    assert_eq!(place.run("create one --seed-file seed").ok(), printed);
    assert_eq!(place.run_with("create two --seed-file -", seed.as_bytes()).ok(), printed);
    assert!(place.run(&format!("create three --seed {seed} --seed-file seed")).misused().contains("exclude"));
    assert!(place.run(&format!("create three --key {key} --seed-file seed")).misused().contains("exclude"));
    place.file("short", &seed[1..]);
    let error = place.run("create three --seed-file short").fails();
    assert!(error.starts_with("short: ") && !error.contains(&seed[1..]), "{error}");
    assert!(!place.path("three").exists());
}

#[test]
fn serve_of_encrypted_log_needs_no_key() {
    let place = encrypted();
    let mut server = place.command("serve log");
    let mut server = server.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(server.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.starts_with("listening "), "{line}");
    server.kill().unwrap();
    server.wait().unwrap();
}
