//! A driver process: `core.js` or `replicate.js` in this folder, whose header comments list the requests.
//!
//! ```ignore
//! let Some(mut js) = Js::core() else { return };
//! js.call("open", json!({"dir": dir}));
//! js.call("append", json!({"text": ["hello"]}));
//! ```
//!
//! Every wait has a deadline: a request that is not answered in time kills the process and fails the test.

use std::collections::{HashMap, VecDeque};
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::machine::limit;
use crate::common::unhex;

const LIMIT: Duration = limit(90);

/// A JavaScript process with open cores, killed when dropped.
pub struct Js {
    script: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<Output>,
    answers: HashMap<u64, Value>,
    events: VecDeque<Value>,
    complaints: Vec<String>,
    requests: u64,
}

/// A request whose answer has not been awaited.
#[must_use]
#[derive(Debug)]
pub struct Pending {
    number: u64,
    request: String,
}

#[derive(Debug)]
pub struct Refusal {
    /// The error's code, such as `SESSION_CLOSED`, if it has one.
    pub code: Option<String>,
    pub message: String,
}

enum Output {
    Line(String),
    Complaint(String),
}

impl Js {
    /// Starts `core.js`; `None` if there is no Node.js and none is required.
    pub fn core() -> Option<Js> {
        Js::spawn("core.js")
    }

    /// Starts `replicate.js`, which also has the requests of `core.js`.
    pub fn replicate() -> Option<Js> {
        Js::spawn("replicate.js")
    }

    /// Sends a request and returns its answer; fails the test on an error.
    #[track_caller]
    pub fn call(&mut self, op: &str, args: Value) -> Value {
        let pending = self.start(op, args);
        self.finish(pending)
    }

    /// Sends a request, which may be refused.
    #[track_caller]
    pub fn try_call(&mut self, op: &str, args: Value) -> Result<Value, Refusal> {
        let pending = self.start(op, args);
        self.try_finish(pending)
    }

    #[track_caller]
    pub fn start(&mut self, op: &str, args: Value) -> Pending {
        self.requests += 1;
        let number = self.requests;
        let Value::Object(mut request) = args else { panic!("{op}: a request is an object, not {args}") };
        request.insert("op".into(), json!(op));
        request.insert("n".into(), json!(number));
        let request = Value::Object(request).to_string();

        let stdin = self.stdin.as_mut().expect("the process was ended");
        writeln!(stdin, "{request}").unwrap_or_else(|err| panic!("{}: {op}: {err}", self.script));
        Pending { number, request }
    }

    #[track_caller]
    pub fn finish(&mut self, pending: Pending) -> Value {
        let (script, request) = (self.script, shortened(&pending.request));
        self.try_finish(pending).unwrap_or_else(|refusal| panic!("{script} refused {request}: {}", refusal.message))
    }

    #[track_caller]
    pub fn try_finish(&mut self, pending: Pending) -> Result<Value, Refusal> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(answer) = self.answers.remove(&pending.number) {
                return accepted(answer);
            }
            if !self.take(deadline, &pending.request) {
                self.fail(&format!("ended before it answered {}", shortened(&pending.request)));
            }
        }
    }

    /// Waits for the next event of this name. Other events are kept.
    #[track_caller]
    pub fn event(&mut self, name: &str) -> Value {
        self.event_where(name, |_| true)
    }

    /// Waits for the next event of this name that `fits`. Other events are kept.
    #[track_caller]
    pub fn event_where(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self.events.iter().position(|event| event["event"] == name && fits(event));
            if let Some(event) = found.and_then(|at| self.events.remove(at)) {
                return event;
            }
            if !self.take(deadline, name) {
                self.fail(&format!("ended without an event {name}"));
            }
        }
    }

    /// Takes the events of this name that have arrived.
    pub fn events(&mut self, name: &str) -> Vec<Value> {
        while let Ok(output) = self.output.try_recv() {
            self.sort(output);
        }
        let (found, kept) = self.events.drain(..).partition(|event| event["event"] == name);
        self.events = kept;
        Vec::from_iter::<VecDeque<Value>>(found)
    }

    /// Sends the request `die` and waits until the process has ended.
    #[track_caller]
    pub fn die(mut self, args: Value) {
        let pending = self.start("die", args);
        let deadline = Instant::now() + LIMIT;
        while self.take(deadline, &pending.request) {
            if let Some(answer) = self.answers.remove(&pending.number) {
                panic!("{} lives: {}", self.script, answer["error"]);
            }
        }
    }

    /// Closes the input of the process and waits until it has ended.
    #[track_caller]
    pub fn end(mut self) -> ExitStatus {
        self.stdin = None;
        let deadline = Instant::now() + LIMIT;
        while self.take(deadline, "the end of its input") {}
        self.child.wait().expect("the process was started")
    }

    fn spawn(script: &'static str) -> Option<Js> {
        installed()?;
        let mut child = Command::new("node")
            .arg(folder().join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node could be started before");

        let (lines, output) = mpsc::channel();
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let complaints = lines.clone();
        thread::spawn(move || pump(stdout, &lines, Output::Line));
        thread::spawn(move || pump(stderr, &complaints, Output::Complaint));

        let stdin = child.stdin.take();
        Some(Js {
            script,
            child,
            stdin,
            output,
            answers: HashMap::new(),
            events: VecDeque::new(),
            complaints: Vec::new(),
            requests: 0,
        })
    }

    /// Reads one line of output; false at the end of the output.
    #[track_caller]
    fn take(&mut self, deadline: Instant, what: &str) -> bool {
        match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(output) => {
                self.sort(output);
                true
            }
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => {
                self.fail(&format!("did not come to {} within {LIMIT:?}", shortened(what)))
            }
        }
    }

    fn sort(&mut self, output: Output) {
        let line = match output {
            Output::Line(line) => line,
            Output::Complaint(line) => return self.complaints.push(line),
        };
        match serde_json::from_str::<Value>(&line) {
            Ok(event) if event["event"] == "unhandled" => self.complaints.push(line),
            Ok(event) if event["event"].is_string() => self.events.push_back(event),
            Ok(answer) => match answer["n"].as_u64() {
                Some(number) => drop(self.answers.insert(number, answer)),
                None => self.complaints.push(line),
            },
            Err(_) => self.complaints.push(line),
        }
    }

    #[track_caller]
    fn fail(&mut self, what: &str) -> ! {
        let _ = self.child.kill();
        panic!("{} {what}\n{}", self.script, self.complaints.join("\n"))
    }
}

impl Drop for Js {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes of a field in hexadecimal.
#[track_caller]
pub fn bytes(answer: &Value, field: &str) -> Vec<u8> {
    let Some(text) = answer[field].as_str() else { panic!("no {field} in {answer}") };
    unhex(text)
}

/// The folder `tests/interop`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

fn accepted(answer: Value) -> Result<Value, Refusal> {
    if answer["ok"] == true {
        return Ok(answer);
    }
    Err(Refusal {
        code: answer["code"].as_str().map(str::to_owned),
        message: answer["stack"].as_str().or(answer["error"].as_str()).unwrap_or_default().to_owned(),
    })
}

fn pump(stream: impl io::Read, to: &Sender<Output>, wrap: fn(String) -> Output) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if to.send(wrap(line)).is_err() {
            return;
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// `Some` if Node.js and the packages are present; the first call installs them.
fn installed() -> Option<()> {
    static INSTALLED: OnceLock<Option<()>> = OnceLock::new();
    *INSTALLED.get_or_init(|| match install() {
        Ok(()) => Some(()),
        Err(reason) if required() => panic!("Node.js is required here: {reason}"),
        Err(reason) => {
            // `eprintln` would be captured with the test's output.
            let _ = writeln!(io::stderr(), "\nSKIPPED: the tests against real JavaScript did not run: {reason}\n");
            None
        }
    })
}

fn required() -> bool {
    ["CI", "HYPERCORE_REQUIRE_NODE"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0"))
}

/// Installs the packages of `package-lock.json` into `node_modules` unless they are there. It installs into another
/// folder and renames that, so that another process never sees half of them.
fn install() -> Result<(), String> {
    let folder = folder();
    run("node", &["--version"], &folder)?;

    let lock = fs::read_to_string(folder.join("package-lock.json")).map_err(|err| err.to_string())?;
    let modules = folder.join("node_modules");
    if is_of(&modules, &lock) {
        return Ok(());
    }

    let aside = folder.join(format!(".install-{}", std::process::id()));
    let result = install_into(&aside, &folder, &modules, &lock);
    let _ = fs::remove_dir_all(&aside);
    result
}

fn install_into(aside: &Path, folder: &Path, modules: &Path, lock: &str) -> Result<(), String> {
    fs::create_dir_all(aside).map_err(|err| err.to_string())?;
    for name in ["package.json", "package-lock.json", ".npmrc"] {
        fs::copy(folder.join(name), aside.join(name)).map_err(|err| format!("{name}: {err}"))?;
    }
    // The packages contain their native parts, so their scripts need not run.
    run(if cfg!(windows) { "npm.cmd" } else { "npm" }, &["ci", "--ignore-scripts", "--loglevel=error"], aside)?;
    fs::write(aside.join("node_modules/.made-from"), lock).map_err(|err| err.to_string())?;

    let _ = fs::rename(modules, aside.join("old"));
    match fs::rename(aside.join("node_modules"), modules) {
        Err(_) if is_of(modules, lock) => Ok(()), // another process was faster
        result => result.map_err(|err| format!("{}: {err}", modules.display())),
    }
}

fn is_of(modules: &Path, lock: &str) -> bool {
    fs::read_to_string(modules.join(".made-from")).is_ok_and(|made_from| made_from == lock)
}

fn run(program: &str, args: &[&str], folder: &Path) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|err| format!("{program} cannot be started: {err}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
