//! Progress lines, peer lines and the map of `info` on a terminal; standard output is the same as without one.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hypercore::net::{Connection, ConnectionOptions, Role, Server};
use hypercore::{Hypercore, KeyPair};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::{Place, Ran, SEED, watch};

/// A pseudo-terminal, and what its screen shows.
struct Terminal {
    screen: File,
    /// The end that a command gets as its standard output or error.
    line: Option<OwnedFd>,
    columns: usize,
    text: String,
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen, size).unwrap();
        let name = ptsname(&screen, Vec::new()).unwrap();
        let line = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        Terminal { screen: screen.into(), line: Some(line), columns: columns.into(), text: String::new() }
    }

    fn end(&self) -> Stdio {
        self.line.as_ref().unwrap().try_clone().unwrap().into()
    }

    /// Starts a command with this terminal as standard error.
    fn start(&mut self, command: &mut Command) -> Child {
        let child = command.stderr(self.end()).spawn().unwrap();
        // Close our copies, so that reading ends when the command does.
        command.stderr(Stdio::null()).stdout(Stdio::null());
        self.line = None;
        child
    }

    /// Reads until `wanted` is true of the screen.
    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&[String]) -> bool) {
        while !wanted(&self.rows()) {
            assert!(self.read(), "the command ended: {:?}", self.text);
        }
    }

    /// Reads until the command ends.
    fn rest(&mut self) {
        while self.read() {}
    }

    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // Reading fails once the other end is closed.
        let n = self.screen.read(&mut bytes).unwrap_or(0);
        self.text += std::str::from_utf8(&bytes[..n]).unwrap();
        n > 0
    }

    /// The rows of the screen.
    #[track_caller]
    fn rows(&self) -> Vec<String> {
        let mut rows = vec![Vec::new()];
        let (mut row, mut column) = (0, 0);
        let mut text = self.text.chars();
        while let Some(c) = text.next() {
            match c {
                '\r' => column = 0,
                '\n' => {
                    row += 1;
                    rows.resize(rows.len().max(row + 1), Vec::new());
                }
                '\x1b' => {
                    assert_eq!(text.next(), Some('['));
                    let (mut number, mut command) = (0, None);
                    for c in text.by_ref() {
                        match c.to_digit(10) {
                            Some(digit) => number = number * 10 + digit as usize,
                            None => {
                                command = Some(c);
                                break;
                            }
                        }
                    }
                    match command {
                        Some('A') => row = row.checked_sub(number).expect("the cursor moves above the first row"),
                        Some('J') => {
                            rows.truncate(row + 1);
                            rows[row].truncate(column);
                        }
                        // Colours, and a sequence whose end has not been read yet.
                        Some('m') | None => {}
                        Some(c) => panic!("unknown sequence {c:?} in {:?}", self.text),
                    }
                }
                c => {
                    assert!(column < self.columns, "a line is wider than the terminal: {:?}", self.text);
                    let cells: &mut Vec<char> = &mut rows[row];
                    cells.resize(cells.len().max(column + 1), ' ');
                    cells[column] = c;
                    column += 1;
                }
            }
        }
        rows.into_iter().map(String::from_iter).collect()
    }
}

fn stop(mut child: Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A core in memory that is connected to `address` with `key_pair`.
fn connected(address: &str, key_pair: KeyPair) -> (Hypercore, Connection, String) {
    let key = KeyPair::from_seed(&SEED).public_key();
    let copy = Hypercore::options().key(key).open_in(hypercore::Memory::new()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    let begin = format!("{} {} ", stream.local_addr().unwrap(), &key_pair.public_key().id()[..8]);
    let connection = Connection::open(stream, Role::Initiator, ConnectionOptions::new().key_pair(key_pair)).unwrap();
    copy.replicate_on(&connection).unwrap();
    (copy, connection, begin)
}

#[test]
fn append_progress_uses_one_row_and_is_erased() {
    for (columns, no_colour) in [(80, ""), (50, "1"), (21, "")] {
        let place = Place::new();
        let line = "append log --lines";
        let _watchdog = watch(line);
        let mut terminal = Terminal::new(columns, 24);
        let mut command = place.command(line);
        command.env("NO_COLOR", no_colour).stdin(Stdio::piped());
        let mut child = terminal.start(&mut command);
        let mut input = child.stdin.take().unwrap();
        let seen = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = 0;
                while !seen.load(Ordering::Relaxed) {
                    input.write_all(b"a line\n").unwrap();
                    written += 1;
                }
                written
            });
            terminal.until(|rows| rows[0].starts_with("appending  "));
            seen.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        drop(input);
        terminal.rest();
        assert_eq!(terminal.rows(), [""]);
        assert_eq!(terminal.text.contains("\x1b[36m"), no_colour.is_empty(), "{:?}", terminal.text);
        let out = Ran::of(line, child).ok();
        assert_eq!(out, format!("length {written}\nbyte-length {}\n", written * 6));
    }
}

#[test]
fn clone_progress_shows_share_rate_and_time_left() {
    let place = Place::new();
    let core = place.open("log");
    core.append_batch(["x"; 1000]).unwrap();
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let line = format!("clone {} copy --from {} --range :1000000", core.key(), server.local_addr());
    let _watchdog = watch(&line);
    let mut terminal = Terminal::new(100, 24);
    let mut child = terminal.start(&mut place.command(&line));
    let is_bar = |rows: &[String]| {
        let row = rows.last().unwrap();
        row.starts_with("cloning [") && row.contains(" %  ") && row.contains("/s  ") && row.ends_with(" left")
    };
    let seen = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !seen.load(Ordering::Relaxed) {
                core.append("y").unwrap();
            }
        });
        terminal.until(is_bar);
        seen.store(true, Ordering::Relaxed);
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn serve_status_shows_one_line_per_connected_peer() {
    let place = Place::new();
    place.core("log", ["a", "bc", "def"]);
    let line = "serve log";
    let _watchdog = watch(line);
    let mut terminal = Terminal::new(100, 24);
    let mut child = terminal.start(&mut place.command(line));
    let mut listening = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut listening).unwrap();
    let address = listening.trim_end().strip_prefix("listening ").unwrap();

    let (one, connection, begin) = connected(address, KeyPair::from_seed(&[1; 32]));
    let is_there = |rows: &[String], begin: &str, end: &str| {
        rows.iter().any(|row| row.starts_with(begin) && row.contains(" up ") && row.ends_with(end))
    };
    terminal.until(|rows| is_there(rows, &begin, "blocks 0 up, 0 down"));
    for index in [0, 2] {
        one.get(index).unwrap();
    }
    terminal.until(|rows| is_there(rows, &begin, "blocks 2 up, 0 down"));
    let (other, _connection, of_other) = connected(address, KeyPair::from_seed(&[2; 32]));
    other.get(1).unwrap();
    terminal.until(|rows| {
        is_there(rows, &begin, "blocks 2 up, 0 down") && is_there(rows, &of_other, "blocks 1 up, 0 down")
    });
    connection.close();
    terminal.until(|rows| rows.len() == 1 && is_there(rows, &of_other, "blocks 1 up, 0 down"));
    // The rate is 0 one second after the last block.
    terminal.until(|rows| rows[0].contains(" up 0 B/s  down 0 B/s "));
    stop(child);
    terminal.rest();
    assert_eq!(terminal.rows(), [""]);
}

#[test]
fn clone_live_status_stays_below_printed_lines() {
    let place = Place::new();
    let core = place.open("log");
    core.append("a").unwrap();
    let server = Server::listen("127.0.0.1:0", [core.clone()]).unwrap();
    let address = server.local_addr();
    let line = format!("clone {} copy --from {address} --live", core.key());
    let _watchdog = watch(&line);
    let mut terminal = Terminal::new(100, 24);
    let mut command = place.command(&line);
    command.stdout(terminal.end()).env("NO_COLOR", "1");
    let child = terminal.start(&mut command);
    let shows = |rows: &[String], lengths: &[&str], blocks: &str| {
        let Some((status, printed)) = rows.split_last() else { return false };
        printed == lengths && status.starts_with(&format!("{address} ")) && status.ends_with(blocks)
    };
    terminal.until(|rows| shows(rows, &["length 1"], "blocks 0 up, 1 down"));
    core.append("b").unwrap();
    terminal.until(|rows| shows(rows, &["length 1", "length 2"], "blocks 0 up, 2 down"));
    server.close();
    // The line of the peer is gone and the warning is there.
    terminal.until(|rows| rows.len() > 3 && rows[2].starts_with("warning: ") && rows.last().unwrap().is_empty());
    stop(child);
    terminal.rest();
    assert_eq!(terminal.rows()[..2], ["length 1", "length 2"]);
    assert!(terminal.rows()[2..].iter().all(|row| row.is_empty() || row.starts_with("warning: ")));
    assert!(!terminal.text.contains("\x1b[36m"));
    assert_eq!(place.run("cat copy").ok(), "ab");
}

#[test]
fn info_map_is_as_wide_as_terminal() {
    let place = Place::new();
    place.core("log", (0..3000).map(|i| i.to_string()));
    for (columns, widest) in [(30, 30), (61, 61), (137, 137)] {
        let mut terminal = Terminal::new(columns, 24);
        let mut command = place.command("info log --map");
        command.stdout(terminal.end());
        let mut child = terminal.start(&mut command);
        terminal.rest();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        // The lines above the map may be longer than the terminal is wide.
        let map: Vec<&str> = terminal.text.lines().skip_while(|line| !line.starts_with("map ")).skip(1).collect();
        assert_eq!(map.iter().map(|row| row.trim_end().chars().count()).max(), Some(widest));
    }
}
