//! The design's rule of who may import whom, read off the sources.
//!
//! The rooms of `src/` stand in one order, and each may use what stands above it. The rest of the rules are exceptions to
//! that, and where `unsafe` may stand. Clippy refuses printing and sleeping.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top down: the file `src/NAME.rs` or the folder `src/NAME/`.
const ORDER: [&str; 18] = [
    "error",
    "sync",
    "codec",
    "index",
    "flat_tree",
    "download",
    "crypto",
    "node",
    "manifest",
    "merkle",
    "storage",
    "oplog",
    "core",
    "wire",
    "replication",
    "net",
    "cli",
    // Words alone.
    "guide",
];

/// Rooms that stand in the order, but do not use all that is above them.
const CLOSED: [(&str, &[&str]); 2] = [
    ("wire", &["storage", "oplog", "core"]),
    // The staircases meet in `net` alone.
    ("replication", &["storage", "oplog", "core", "wire"]),
];

/// All that the files of a core know of the tree.
const STORAGE_TAKES_OF_MERKLE: [&str; 3] = ["Node", "NodeSource", "Offsets"];

/// No file, socket, thread, lock or clock in these.
const PURE: [&str; 13] = [
    "codec",
    "index",
    "flat_tree",
    "download",
    "crypto",
    "node",
    "manifest",
    "merkle",
    "wire",
    "replication",
    "oplog/frame",
    "oplog/header",
    "oplog/entry",
];

const IMPURE: [&str; 14] = [
    "crate::sync",
    "crate::storage",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "crossbeam_channel",
    "libc",
    "memmap2",
];

/// The handle that a user holds: who passes it on knows nothing of the log.
const HANDLES: [&str; 2] = ["crate::Hypercore", "crate::core::Hypercore"];

const LOG: [&str; 3] = ["storage", "oplog", "core"];
const CONVERSATION: [&str; 2] = ["wire", "replication"];

#[test]
fn every_room_has_its_place() {
    for source in sources() {
        let room = source.room();
        assert!(
            ["lib", "main"].contains(&room) || ORDER.contains(&room),
            "{} is in no room that the design knows: give `{room}` its place in the order",
            source.name
        );
    }
}

#[test]
fn rooms_use_what_stands_above_them() {
    let exported = exported();
    let mut faults = Vec::new();

    for source in sources() {
        if ["lib", "main", "cli"].contains(&source.room()) {
            continue;
        }
        for path in source.paths() {
            if let Some(fault) = misplaced(source.room(), &path, &exported) {
                faults.push(format!("{}: {path}: {fault}", source.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_the_session_knows_both_sides() {
    let exported = exported();
    for source in sources() {
        if source.name.starts_with("net/driver/") || source.room() == "lib" {
            continue;
        }
        let paths = source.paths();
        let known = paths.iter().filter(|path| !HANDLES.contains(&path.as_str()));
        let used: BTreeSet<_> = known.filter_map(|path| used_room(path, &exported)).collect();
        let knows = |side: &[&str]| side.iter().any(|room| used.contains(*room) || source.room() == *room);
        assert!(
            !(knows(&LOG) && knows(&CONVERSATION)),
            "{} knows the log and the conversation; that is for net/driver alone",
            source.name
        );
    }
}

#[test]
fn the_command_uses_what_the_crate_exports() {
    for source in sources() {
        if !["main", "cli"].contains(&source.room()) {
            continue;
        }
        for path in source.paths() {
            let inside = path.starts_with("crate::") && !path.starts_with("crate::cli");
            assert!(!inside && !path.starts_with("hypercore::lowlevel"), "{}: {path}", source.name);
        }
    }
}

#[test]
fn pure_rooms_touch_nothing_outside() {
    for source in sources() {
        if !PURE.iter().any(|pure| source.name == *pure || source.name.starts_with(&format!("{pure}/"))) {
            continue;
        }
        for path in source.paths() {
            let found = IMPURE.iter().find(|impure| is_within(&path, impure));
            let clock = path.ends_with("Instant::now") || path.contains("SystemTime");
            assert!(found.is_none() && !clock, "{} is pure, and uses {path}", source.name);
        }
    }
}

#[test]
fn unsafe_has_two_addresses() {
    for source in sources() {
        if ["storage/mmap", "storage/os"].contains(&source.name.as_str()) {
            continue;
        }
        assert!(!source.tokens.iter().any(|token| token.text == "unsafe"), "unsafe in {}", source.name);
    }
}

/// The reading itself: what these tests rest on.
#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = r##"
        use crate::{codec::{self, Reader as R, nested::{A, b::*}}, Error};
        pub(crate) use std::sync::Mutex; // use crate::net::Comment;
        /* use crate::net::Block; /* nested */ use crate::net::Still; */
        use super::sibling;
        /// [`crate::net::Doc`]
        fn f<'a>(x: &'a str) -> char {
            let text = "use crate::net::Text;\" crate::net";
            let raw = r#"crate::net::Raw " "#;
            let byte = b'\''; let quote = '"'; let life: &'static str = "";
            let made = crate::merkle::Head::new::<crate::node::Node>();
            let lock = std::thread::spawn(|| ());
            '}'
        }
        #[cfg(test)]
        mod tests {
            use super::*;
            use crate::net::OnlyInTests;
        }
        mod after { use crate::storage::Storage; }
    "##;
    let expected = [
        "crate::Error",
        "crate::codec",
        "crate::codec::Reader",
        "crate::codec::nested::A",
        "crate::codec::nested::b::*",
        "crate::merkle::Head::new",
        "crate::node::Node",
        "crate::sibling",
        "crate::storage::Storage",
        "std::sync::Mutex",
        "std::thread::spawn",
    ];
    let source = Source { name: "storage/mod".into(), tokens: tokens(text) };
    let found: Vec<_> = source.paths().into_iter().filter(|path| path.contains("::")).collect();
    assert_eq!(found, expected);

    // One folder further down, `super` is the room itself.
    let source =
        Source { name: "storage/deep".into(), tokens: tokens("use super::super::net::X; use super::map::Map;") };
    assert_eq!(source.paths(), ["crate::net::X", "crate::storage::map::Map"]);
}

#[test]
fn faults_are_found() {
    let exported = BTreeMap::from([("Error".to_owned(), "error".to_owned())]);
    let fault = |room: &str, path: &str| misplaced(room, path, &exported).is_some();
    assert!(!fault("codec", "crate::Error") && !fault("core", "crate::storage::Storage"));
    assert!(!fault("storage", "crate::merkle::NodeSource") && fault("storage", "crate::merkle::verify::Verified"));
    assert!(fault("merkle", "crate::storage::Storage") && fault("core", "crate::net::Role"));
    assert!(fault("replication", "crate::wire::mux::Mux") && fault("wire", "crate::core::Hypercore"));
    assert!(fault("codec", "crate::lowlevel::wire") && fault("codec", "crate::Unheard"));
    assert!(!fault("net", "crate::wire::Mux") && !fault("net", "std::net::TcpStream"));
}

/// Why a room may not use this path, if it may not.
fn misplaced(room: &str, path: &str, exported: &BTreeMap<String, String>) -> Option<String> {
    let inner = path.strip_prefix("crate::")?;
    let Some(used) = used_room(path, exported) else {
        return Some(format!("`{inner}` is neither a room nor exported by one"));
    };
    if used == room {
        return None;
    }
    let place = |room: &str| ORDER.iter().position(|name| *name == room).unwrap_or(ORDER.len());
    if place(&used) > place(room) {
        return Some(format!("{used} stands below {room}"));
    }
    if CLOSED.iter().any(|(closed, to)| *closed == room && to.contains(&used.as_str())) {
        return Some(format!("{room} does not know {used}"));
    }
    let taken = inner.rsplit("::").next().unwrap_or_default();
    if room == "storage" && used == "merkle" && !STORAGE_TAKES_OF_MERKLE.contains(&taken) {
        return Some(format!("storage takes only {STORAGE_TAKES_OF_MERKLE:?} of merkle"));
    }
    None
}

/// The room that a `crate::` path leads into, also by way of what `lib.rs` exports.
fn used_room(path: &str, exported: &BTreeMap<String, String>) -> Option<String> {
    let first = path.strip_prefix("crate::")?.split("::").next()?;
    if ORDER.contains(&first) { Some(first.to_owned()) } else { exported.get(first).cloned() }
}

/// What `lib.rs` exports at the crate's root, and from which room.
fn exported() -> BTreeMap<String, String> {
    let lib = sources().into_iter().find(|source| source.name == "lib").expect("src/lib.rs");
    let mut exported = BTreeMap::new();
    for path in lib.paths() {
        let path = path.strip_prefix("crate::").unwrap_or(&path);
        let room = path.split("::").next().unwrap_or_default();
        let name = path.rsplit("::").next().unwrap_or_default();
        if ORDER.contains(&room) {
            exported.insert(name.to_owned(), room.to_owned());
        }
    }
    exported
}

struct Source {
    /// The path below `src/`, without `.rs`.
    name: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    /// How many braces it stands in.
    depth: usize,
}

impl Source {
    fn room(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The tokens that are there outside of tests.
    fn code(&self) -> Vec<Token> {
        if self.name.ends_with("/tests") { Vec::new() } else { without_tests(&self.tokens) }
    }

    /// Every path of two names or more, and every name that is imported: sorted, each once. `super` and `self` are put in
    /// terms of `crate`.
    fn paths(&self) -> Vec<String> {
        let tokens = self.code();
        let mut paths = BTreeSet::new();
        let mut at = 0;
        while at < tokens.len() {
            let depth = tokens[at].depth;
            let captures = tokens.get(at + 1).is_some_and(|next| next.text == "<");
            if tokens[at].text == "use" && !captures {
                let end = (at..tokens.len()).find(|i| tokens[*i].text == ";").unwrap_or(tokens.len());
                expand("", &tokens[at + 1..end], &mut |path| {
                    paths.insert(self.absolute(path, depth));
                });
                at = end;
            } else if is_name(&tokens[at].text) && !(at > 0 && tokens[at - 1].text == "::") {
                let start = at;
                while at + 2 < tokens.len() && tokens[at + 1].text == "::" && is_name(&tokens[at + 2].text) {
                    at += 2;
                }
                if at > start {
                    let path: String = tokens[start..=at].iter().map(|token| token.text.as_str()).collect();
                    paths.insert(self.absolute(&path, depth));
                }
            }
            at += 1;
        }
        paths.into_iter().collect()
    }

    fn absolute(&self, path: &str, depth: usize) -> String {
        // Inside an inline module or a function `super` and `self` lead no further than to this file.
        if depth > 0 && (path.starts_with("super::") || path.starts_with("self::")) {
            return format!("crate::{}", self.room());
        }
        let mut module: Vec<_> = self.name.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).collect();
        let mut rest = path;
        if let Some(inner) = rest.strip_prefix("self::") {
            rest = inner;
        } else if !rest.starts_with("super::") {
            return path.to_owned();
        }
        while let Some(outer) = rest.strip_prefix("super::") {
            module.pop();
            rest = outer;
        }
        module.insert(0, "crate");
        format!("{}::{rest}", module.join("::"))
    }
}

/// The paths of a `use` tree.
fn expand(prefix: &str, tree: &[Token], found: &mut dyn FnMut(&str)) {
    let mut path = prefix.to_owned();
    for (at, token) in tree.iter().enumerate() {
        match token.text.as_str() {
            "{" => {
                let inner = &tree[at + 1..tree.len() - 1];
                let outside = token.depth;
                let mut start = 0;
                for end in 0..=inner.len() {
                    if end == inner.len() || (inner[end].text == "," && inner[end].depth == outside + 1) {
                        if end > start {
                            expand(&path, &inner[start..end], found);
                        }
                        start = end + 1;
                    }
                }
                return;
            }
            "as" => break,
            "self" if !prefix.is_empty() => path.truncate(path.trim_end_matches("::").len()),
            text => path.push_str(text),
        }
    }
    found(&path);
}

fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && !["as", "use", "where", "in", "return"].contains(&text)
}

/// The tokens without those of modules that are there for tests only.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let marker = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let marked = tokens[at..].iter().zip(marker).filter(|(token, text)| token.text == *text).count();
        if marked < marker.len() {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let depth = tokens[at].depth;
        at += marker.len();
        while at < tokens.len() && !(tokens[at].depth == depth && ["}", ";"].contains(&tokens[at].text.as_str())) {
            at += 1;
        }
        at += 1;
    }
    kept
}

/// Names, numbers, `::` and single signs; comments and the insides of literals are left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let mut tokens = Vec::new();
    let (mut at, mut depth) = (0, 0usize);

    while at < chars.len() {
        let c = chars[at];
        if c.is_whitespace() {
            at += 1;
        } else if starts(at, "//") {
            at = (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len());
        } else if starts(at, "/*") {
            let mut open = 0;
            loop {
                if starts(at, "/*") {
                    (open, at) = (open + 1, at + 2);
                } else if starts(at, "*/") {
                    (open, at) = (open - 1, at + 2);
                } else {
                    at += 1;
                }
                if open == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if let Some(end) = raw_string(&chars, at).or_else(|| quoted(&chars, at)) {
            at = end;
        } else if c.is_alphanumeric() || c == '_' {
            let end = (at..chars.len()).find(|i| !(chars[*i].is_alphanumeric() || chars[*i] == '_'));
            let end = end.unwrap_or(chars.len());
            tokens.push(Token { text: chars[at..end].iter().collect(), depth });
            at = end;
        } else if starts(at, "::") {
            tokens.push(Token { text: "::".into(), depth });
            at += 2;
        } else {
            if c == '}' {
                depth = depth.saturating_sub(1);
            }
            tokens.push(Token { text: c.into(), depth });
            if c == '{' {
                depth += 1;
            }
            at += 1;
        }
    }
    tokens
}

/// The end of a raw string that begins here.
fn raw_string(chars: &[char], start: usize) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        prefix.chars().enumerate().all(|(i, c)| chars.get(start + i) == Some(&c))
            && matches!(chars.get(start + prefix.len()), Some('#' | '"'))
    })?;
    let mut at = start + prefix.len();
    let mut hashes = 0;
    while chars.get(at) == Some(&'#') {
        (hashes, at) = (hashes + 1, at + 1);
    }
    if chars.get(at) != Some(&'"') {
        return None; // a raw name
    }
    at += 1;
    while at < chars.len() {
        if chars[at] == '"' && (1..=hashes).all(|i| chars.get(at + i) == Some(&'#')) {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

/// The end of a string, a character or a lifetime that begins here.
fn quoted(chars: &[char], start: usize) -> Option<usize> {
    let quote = chars[start];
    let lifetime = || !(chars.get(start + 1) == Some(&'\\') || chars.get(start + 2) == Some(&'\''));
    match quote {
        '\'' if lifetime() => return Some(start + 1),
        '\'' | '"' => (),
        _ => return None,
    }
    let mut at = start + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    Some(at + 1)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources: Vec<_> = rust_files(&root)
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(&root).unwrap().with_extension("");
            let name = name.to_str().unwrap().replace(std::path::MAIN_SEPARATOR, "/");
            Source { name, tokens: tokens(&fs::read_to_string(&file).unwrap()) }
        })
        .collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sources.len() > 5, "no sources found in {}", root.display());
    sources
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
