//! `serve`, `clone` and `demo` between processes: complete and partial downloads, several peers, interruptions, live
//! following, and peers that are silent, gone or in conflict.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use hypercore::net::Server;
use hypercore::{Hypercore, Key, KeyPair};

use crate::machine::SLOW;
use crate::support::{Place, Ran, SEED, noise, watch};

/// A running command whose output is read line by line.
struct Running {
    line: String,
    child: Child,
    out: BufReader<ChildStdout>,
    _watchdog: std::sync::mpsc::Sender<()>,
}

impl Running {
    fn start(place: &Place, line: &str) -> Self {
        Self::spawn(line, place.command(line))
    }

    fn spawn(line: &str, mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Running { line: line.to_owned(), child, out, _watchdog: watch(line) }
    }

    /// The next line of its output; empty at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Sends it a signal, and returns the rest of its output and its exit code.
    fn end(mut self, signal: &str) -> Ran {
        let killed = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        self.rest()
    }

    /// Closes its standard input, and returns the rest of its output and its exit code.
    fn rest(&mut self) -> Ran {
        drop(self.child.stdin.take());
        let (mut out, mut err) = (Vec::new(), String::new());
        self.out.read_to_end(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Ran::new(&self.line, self.child.wait().unwrap(), out, err)
    }
}

/// Kills the command: `serve` would outlive its test.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `hypercore serve` with these arguments; returns it with the address on which it listens.
fn serve(place: &Place, rest: &str) -> (Running, String) {
    let mut server = Running::start(place, &format!("serve {rest}"));
    let address = server.line().strip_prefix("listening ").unwrap().to_owned();
    (server, address)
}

fn key() -> Key {
    KeyPair::from_seed(&SEED).public_key()
}

fn other_core(place: &Place, name: &str, blocks: &[&str]) -> Key {
    let core = Hypercore::open(place.path(name)).unwrap();
    core.append_batch(blocks).unwrap();
    core.key()
}

#[test]
fn clone_of_served_core_downloads_it_and_second_clone_nothing() {
    let place = Place::new();
    let content = noise(3_000_000);
    place.core("log", content.chunks(65_536));
    let (mut server, address) = serve(&place, "log");
    assert_eq!(server.line(), format!("core {}", key().to_hex()));
    for form in [key().to_hex(), key().id()] {
        let out = place.run(&format!("clone {form} copy --from {address}")).ok();
        assert_eq!(out, "length 46\nbyte-length 3000000\n");
    }
    assert!(place.run("cat copy").ok_bytes() == content);
    assert_eq!(place.run("verify copy").ok(), "blocks 46\nfaults 0\n");
    assert_eq!(server.end("-TERM").ok(), "");
}

#[test]
fn clone_with_range_downloads_only_that_range() {
    let place = Place::new();
    place.core("log", (0..100).map(|i| i.to_string()));
    let (_server, address) = serve(&place, "log --listen 127.0.0.1:0");
    let clone = |range: &str| place.run(&format!("clone --from {address} {} copy {range}", key())).ok();
    assert_eq!(clone("--range 10:20"), "length 100\nbyte-length 190\n");
    for (range, answer) in [("10 20", "true"), ("9", "false"), ("20", "false")] {
        assert_eq!(place.run(&format!("has copy {range}")).ok(), format!("{answer}\n"), "{range}");
    }
    clone("--range 95:");
    assert_eq!(place.run("has copy 95 100").ok(), "true\n");
    clone("--range :3");
    assert_eq!(place.run("has copy 0 3").ok(), "true\n");
    assert_eq!(place.run("has copy 3").ok(), "false\n");
    clone("--range 50:50");
    clone("");
    assert_eq!(place.run("has copy 0 100").ok(), "true\n");
}

#[test]
fn clone_of_held_range_needs_no_peer() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let out = place.run(&format!("clone {} log --from 127.0.0.1:1 --range 0:2", key()));
    assert_eq!((out.code, out.out.as_slice()), (Some(0), &b"length 2\nbyte-length 2\n"[..]));
}

#[test]
fn clone_of_empty_log_ends_at_once() {
    let place = Place::new();
    let key = Hypercore::open(place.path("log")).unwrap().key();
    let (_server, address) = serve(&place, "log");
    assert_eq!(place.run(&format!("clone {key} copy --from {address}")).ok(), "length 0\nbyte-length 0\n");
}

#[test]
fn serve_of_several_cores_serves_each() {
    let place = Place::new();
    let keys = [other_core(&place, "one", &["1"]), other_core(&place, "two", &["22", "2"])];
    let (mut server, address) = serve(&place, "one two");
    assert_eq!([server.line(), server.line()], keys.map(|key| format!("core {}", key.to_hex())));
    assert_eq!(place.run(&format!("clone {} a --from {address}", keys[0])).ok(), "length 1\nbyte-length 1\n");
    assert_eq!(place.run(&format!("clone {} b --from {address}", keys[1])).ok(), "length 2\nbyte-length 3\n");
    assert!(place.run("serve one").fails().contains("lock"));
    assert_eq!(server.end("-INT").ok(), "");
    assert!(place.run("serve two two").fails().contains("lock"));
}

#[test]
fn clone_from_partial_peers_combines_their_blocks() {
    let place = Place::new();
    place.core("log", (0..200).map(|i| i.to_string()));
    let (server, address) = serve(&place, "log");
    place.run(&format!("clone {} left --from {address} --range :120", key())).ok();
    place.run(&format!("clone {} right --from {address} --range 80:", key())).ok();
    server.end("-TERM").ok();
    let ((_left, left), (_right, right)) = (serve(&place, "left"), serve(&place, "right"));
    for (dir, from) in [("a", format!("--from {left} {right}")), ("b", format!("--from {left} --from={right}"))] {
        let out = place.run(&format!("clone {} {dir} {from}", key())).ok();
        assert!(out.starts_with("length 200\n"), "{out}");
        assert_eq!(place.run(&format!("has {dir} 0 200")).ok(), "true\n");
    }
}

/// The longest log is cloned, whichever peer answers first.
#[test]
fn clone_from_two_peers_takes_longer_log() {
    let place = Place::new();
    place.core("log", ["a"]);
    let (server, address) = serve(&place, "log");
    place.run(&format!("clone {} old --from {address}", key())).ok();
    server.end("-TERM").ok();
    place.run_with("append log --lines", b"b\nc\n").ok();
    let ((_old, old), (_new, new)) = (serve(&place, "old"), serve(&place, "log"));
    for (dir, from) in [("a", format!("{old} {new}")), ("b", format!("{new} {old}"))] {
        let out = place.run(&format!("clone {} {dir} --from {from} --timeout 10", key())).ok();
        assert_eq!(out, "length 3\nbyte-length 3\n");
    }
}

#[test]
fn clone_from_dead_and_live_address_only_warns() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let (_server, address) = serve(&place, "log");
    for from in [format!("127.0.0.1:1 {address}"), format!("{address} nowhere.invalid:1")] {
        let ran = place.run(&format!("clone {} copy --from {from}", key()));
        assert_eq!((ran.code, ran.out.as_slice()), (Some(0), &b"length 2\nbyte-length 2\n"[..]), "{}", ran.err);
        assert!(ran.err.lines().all(|line| line.starts_with("warning: ")), "{}", ran.err);
        std::fs::remove_dir_all(place.path("copy")).unwrap();
    }
}

/// The silent address accepts connections and never sends a byte.
#[test]
fn clone_from_silent_and_live_address_succeeds() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let (_server, address) = serve(&place, "log");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let ran = place.run(&format!("clone {} copy --from {silent} {address} --timeout 5", key()));
    assert_eq!((ran.code, ran.out.as_slice()), (Some(0), &b"length 2\nbyte-length 2\n"[..]), "{}", ran.err);
}

#[test]
fn clone_from_localhost_tries_every_address() {
    let place = Place::new();
    place.core("log", ["a"]);
    let (_server, address) = serve(&place, "log");
    let (_, port) = address.rsplit_once(':').unwrap();
    let out = place.run(&format!("clone {} copy --from localhost:{port}", key())).ok();
    assert_eq!(out, "length 1\nbyte-length 1\n");
}

#[test]
fn clone_without_peer_times_out_and_keeps_blocks() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let (server, address) = serve(&place, "log");
    place.run(&format!("clone {} copy --from {address} --range 0:1", key())).ok();
    server.end("-TERM").ok();
    let ran = place.run(&format!("clone {} copy --from {address} --timeout 0.3", key()));
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), &b""[..]));
    let last = ran.err.lines().last().unwrap();
    assert!(last.starts_with("error: copy: ") && last.contains(&address), "{}", ran.err);
    assert_eq!(place.run("get copy 0").ok(), "a");
}

#[test]
fn clone_of_unknown_key_times_out_and_says_check_key() {
    let place = Place::new();
    place.core("log", ["a"]);
    let (_server, address) = serve(&place, "log");
    let error = place.run(&format!("clone {} copy --from {address} --timeout 0.3", "ab".repeat(32))).fails();
    assert!(error.contains("nothing came") && error.contains("check KEY"), "{error}");
}

#[test]
fn clone_with_timeout_beyond_clock_succeeds() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let (_server, address) = serve(&place, "log");
    for timeout in ["9223372036854775807", "18446744073709551615.9"] {
        let out = place.run(&format!("clone {} {timeout} --from {address} --timeout {timeout}", key())).ok();
        assert_eq!(out, "length 2\nbyte-length 2\n", "{timeout}");
    }
}

#[test]
fn clone_with_range_past_end_waits_for_it() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let (mut server, address) = serve(&place, "log --append-lines");
    let timeout = if SLOW { 8.0 } else { 0.3 };
    let ran = place.run(&format!("clone {} copy --from {address} --range 1:3 --timeout {timeout}", key()));
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("warning: the log has 2 blocks so far") && ran.err.contains("\nerror: copy: "),
        "{}",
        ran.err
    );
    server.write("c\n");
    let out = place.run(&format!("clone {} copy --from {address} --range 1:3", key()));
    assert_eq!((out.code, out.out.as_slice()), (Some(0), &b"length 3\nbyte-length 3\n"[..]), "{}", out.err);
}

/// The second clone finds a peer that has only the missing blocks.
#[test]
fn killed_clone_keeps_blocks_and_resumes() {
    const COUNT: u64 = 4000;
    // The most requests in flight; a request counts until its block is stored.
    const IN_FLIGHT: u64 = 512;
    const GIVEN: u64 = 1200;
    let place = Place::new();
    let core = place.open("log");
    core.append_batch((0..COUNT).map(|i| format!("{i:1000}"))).unwrap();
    let (tell, told) = channel();
    let mut given = 0;
    let tell = Mutex::new(move || {
        given += 1;
        if given == GIVEN {
            tell.send(()).unwrap();
        }
    });
    let uploads = core.on_upload(move |_| tell.lock().unwrap()());
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let address = server.local_addr();
    // The range ends two blocks past the log, so the clone does not end by itself.
    let line = format!("clone {} copy --from {address} --range 0:{}", key(), COUNT + 2);
    let clone = Running::start(&place, &line);
    told.recv().unwrap();
    assert_eq!(clone.end("-KILL").code, None);
    server.close();
    drop(uploads);

    let found = place.run("verify copy").ok();
    let copy = Hypercore::options().key(key()).open(place.path("copy")).unwrap();
    let held: Vec<u64> = (0..COUNT).filter(|&index| copy.has(index).unwrap()).collect();
    copy.close().unwrap();
    assert_eq!(found, format!("blocks {}\nfaults 0\n", held.len()));
    assert!(held.len() as u64 >= GIVEN - IN_FLIGHT, "{} blocks are left", held.len());
    held.into_iter().for_each(|index| _ = core.clear(index..index + 1).unwrap());
    core.append_batch(["a", "b"]).unwrap();
    let server = Server::listen("127.0.0.1:0", [core]).unwrap();
    let ran = place.run(&line.replace(&address.to_string(), &server.local_addr().to_string()));
    let length = format!("length {}\nbyte-length {}\n", COUNT + 2, COUNT * 1000 + 2);
    assert_eq!((ran.code, ran.out.as_slice()), (Some(0), length.as_bytes()), "{}", ran.err);
    assert_eq!(place.run("verify copy").ok(), format!("blocks {}\nfaults 0\n", COUNT + 2));
}

#[test]
fn clone_into_directory_of_other_core_changes_nothing() {
    let place = Place::new();
    place.core("log", ["a"]);
    other_core(&place, "other", &["mine"]);
    let before = place.contents("other");
    let (_server, address) = serve(&place, "log");
    let error = place.run(&format!("clone {} other --from {address}", key())).fails();
    assert!(error.starts_with("other") && error.contains(&key().to_string()), "{error}");
    assert_eq!(place.contents("other"), before);
}

#[test]
fn clone_of_conflicting_log_fails_and_keeps_blocks() {
    let place = Place::new();
    place.core("one", ["a", "b"]);
    place.core("two", ["a", "x", "y"]);
    let (server, address) = serve(&place, "one");
    place.run(&format!("clone {} copy --from {address}", key())).ok();
    server.end("-TERM").ok();
    let (_server, address) = serve(&place, "two");
    let ran = place.run(&format!("clone {} copy --from {address} --timeout 20", key()));
    assert_eq!(ran.code, Some(1));
    let error = ran.err.lines().last().unwrap();
    assert!(error.starts_with("error: copy: ") && error.contains("same key"), "{}", ran.err);
    assert_eq!(place.run("cat copy").ok(), "ab");
}

#[test]
fn clone_live_prints_each_length_and_ends_on_signal() {
    for signal in ["-TERM", "-INT"] {
        let place = Place::new();
        place.core("log", ["a", "b"]);
        let (mut server, address) = serve(&place, "log --append-lines");
        let mut clone = Running::start(&place, &format!("clone {} copy --from {address} --live", key()));
        assert_eq!(clone.line(), "length 2");
        server.write("c\n");
        assert_eq!(clone.line(), "length 3");
        assert_eq!(place.run("cat copy --read-only").ok(), "abc");
        server.write("d");
        server.write("d\nlast");
        assert_eq!(clone.line(), "length 4");
        assert_eq!(clone.end(signal).ok(), "");
        assert_eq!(place.run("cat copy --lines").ok(), "a\nb\nc\ndd\n");
        assert_eq!(server.end(signal).ok().lines().count(), 1);
        assert_eq!(place.run("cat log --lines").ok(), "a\nb\nc\ndd\n", "a line without newline is not appended");
    }
}

#[test]
#[cfg(unix)]
fn clone_live_with_unread_stdout_ends_on_first_signal() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    let place = Place::new();
    let core = place.open("log");
    core.append("a").unwrap();
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    // Fill the socket so that the command cannot write to it.
    let (mut full, _unread) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write(b".").is_ok() {}
    full.set_nonblocking(false).unwrap();

    let line = format!("clone {} copy --from {} --live", key(), server.local_addr());
    let mut command = place.command(&line);
    let mut child = command.stdout(OwnedFd::from(full)).spawn().unwrap();
    drop(command);
    let _watchdog = watch(&line);
    let (came, arrived) = channel();
    let _of_upload = core.on_upload(move |block| _ = came.send(block.index));
    // The download goes on while the output is blocked.
    for index in 1..4 {
        core.append("b").unwrap();
        while arrived.recv().unwrap() != index {}
    }
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    server.close();
    assert!(place.run("verify copy").ok().ends_with("\nfaults 0\n"));
}

#[test]
fn serve_append_lines_after_end_of_stdin_keeps_serving() {
    let place = Place::new();
    place.core("log", ["a"]);
    let (mut server, address) = serve(&place, "log --append-lines");
    let mut clone = Running::start(&place, &format!("clone {} copy --from {address} --live", key()));
    assert_eq!(clone.line(), "length 1");
    server.write("b\nnot ended");
    drop(server.child.stdin.take());
    assert_eq!(clone.line(), "length 2");
    clone.end("-TERM").ok();
    assert_eq!(place.run(&format!("clone {} other --from {address}", key())).ok(), "length 2\nbyte-length 2\n");
    server.end("-TERM").ok();
    assert_eq!(place.run("cat log --lines").ok(), "a\nb\n");
}

#[test]
fn clone_live_follows_truncation_and_reconnect() {
    let place = Place::new();
    let core = place.open("log");
    core.append_batch(["a", "b", "c"]).unwrap();
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let address = server.local_addr();
    let mut clone = Running::start(&place, &format!("clone {} copy --from {address} --live", key()));
    assert_eq!(clone.line(), "length 3");
    core.truncate(1).unwrap();
    assert_eq!(clone.line(), "length 1");
    core.append_batch(["x", "y"]).unwrap();
    assert_eq!(clone.line(), "length 3");
    server.close();
    core.append("z").unwrap();
    let server = Server::listen(address, [core]).unwrap();
    assert_eq!(clone.line(), "length 4");
    let ran = clone.end("-TERM");
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.starts_with("warning: ") && ran.err.contains("connection lost"), "{}", ran.err);
    drop(server);
    assert_eq!(place.run("cat copy").ok(), "axyz");
    assert_eq!(place.run("verify copy").ok(), "blocks 4\nfaults 0\n");
}

#[test]
fn clone_live_with_range_follows_it() {
    let place = Place::new();
    place.core("log", ["a", "b"]);
    let (mut server, address) = serve(&place, "log --append-lines");
    let mut clone = Running::start(&place, &format!("clone {} copy --from {address} --live --range 1:", key()));
    assert_eq!(clone.line(), "length 2");
    server.write("c\n");
    assert_eq!(clone.line(), "length 3");
    clone.end("-TERM").ok();
    assert_eq!(place.run("has copy 1 3").ok(), "true\n");
    assert_eq!(place.run("has copy 0").ok(), "false\n");
}

#[test]
fn clone_of_encrypted_core_needs_no_key() {
    let place = Place::new();
    let secret = format!("--encryption-key {}", "cd".repeat(32));
    let out = place.run(&format!("create log {secret}")).ok();
    let key = out.lines().next().unwrap().strip_prefix("key ").unwrap().to_owned();
    place.run_with(&format!("append log --lines {secret}"), b"secret\nwords\n").ok();
    let (_server, address) = serve(&place, "log");
    assert_eq!(place.run(&format!("clone {key} copy --from {address}")).ok(), "length 2\nbyte-length 27\n");
    assert_eq!(place.run(&format!("cat copy --lines {secret}")).ok(), "secret\nwords\n");
    assert_eq!(place.run(&format!("clone {key} copy --from {address} {secret}")).ok(), "length 2\nbyte-length 11\n");
}

#[test]
fn serve_of_missing_core_or_used_address_names_it() {
    let place = Place::new();
    place.core("log", ["a"]);
    assert!(place.run("serve absent").fails().starts_with("absent: "));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = place.run(&format!("serve log --listen {address}")).fails();
    assert!(error.starts_with(&address) && error.ends_with("another port"), "{error}");
    place.run(&format!("create reader --key {}", "ab".repeat(32))).ok();
    assert!(place.run("serve reader --append-lines").fails().starts_with("reader: "));
}

#[test]
fn malformed_address_range_or_timeout_is_usage_error() {
    let place = Place::new();
    place.core("log", ["a"]);
    let key = key();
    for address in [
        "localhost",
        "127.0.0.1",
        ":80",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "tcp://127.0.0.1:80",
    ] {
        assert!(place.run(&format!("serve log --listen {address}")).misused().contains("--listen"), "{address}");
        assert!(place.run(&format!("clone {key} copy --from {address}")).misused().contains("--from"), "{address}");
    }
    for range in ["5", "5:3", "a:b", "1:2:3", "-1:2", "1-2"] {
        assert!(
            place.run(&format!("clone {key} copy --from 127.0.0.1:1 --range={range}")).misused().contains("--range")
        );
    }
    for timeout in ["x", "-1", "1s", "inf", "nan", "1e400", "."] {
        let error = place.run(&format!("clone {key} copy --from 127.0.0.1:1 --timeout={timeout}")).misused();
        assert!(error.contains("--timeout"), "{error}");
    }
    assert!(place.run(&format!("clone {key} copy")).misused().contains("--from"));
    assert!(place.run(&format!("clone {key}")).misused().contains("DIR"));
    assert!(place.run("clone --from 127.0.0.1:1").misused().contains("KEY"));
    assert!(place.run("clone nokey copy --from 127.0.0.1:1").misused().contains("nokey"));
    assert!(place.run(&format!("clone {key} copy extra --from 127.0.0.1:1")).misused().contains("extra"));
    assert!(!place.path("copy").exists());
}

#[test]
fn demo_of_any_file_ends_with_ok() {
    let place = Place::new();
    place.file("file", noise(1_000_000));
    place.file("empty", "");
    let encrypted = format!("demo file --encryption-key {}", "ab".repeat(32));
    for line in ["demo", "demo file", "demo empty", &encrypted] {
        assert_eq!(place.run(line).ok().lines().last(), Some("ok"), "{line}");
    }
    let out = place.run("demo file --keep").ok();
    let kept = out.lines().find_map(|line| line.strip_prefix("kept ")).unwrap().trim().to_owned();
    let copy = Hypercore::open(std::path::Path::new(&kept).join("second")).unwrap();
    assert_eq!(copy.byte_length(), 1_000_000);
    drop(copy);
    std::fs::remove_dir_all(kept).unwrap();
    assert!(place.run("demo absent").fails().starts_with("absent: "));
    assert!(place.run("demo .").fails().starts_with(".: "));
    assert!(place.run("demo file file").misused().contains("file"));
}

#[test]
fn interrupted_demo_removes_its_directory() {
    for signal in ["-INT", "-TERM"] {
        let place = Place::new();
        let temporary = place.path("temporary");
        std::fs::create_dir(&temporary).unwrap();
        let mut command = place.command("demo");
        command.env("TMPDIR", &temporary);
        let mut demo = Running::spawn("demo", command);
        assert!(demo.line().starts_with("append "));
        // It is cloning or comparing now.
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
        assert_eq!(demo.end(signal).code, None);
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    }
}
