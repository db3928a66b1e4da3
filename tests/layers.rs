//! Reads the imports off the sources of `src/` and checks the layering that the design promises.
//!
//! The modules directly below `src/` stand in one order, and each may import those before it, with the exceptions listed
//! here. Pure modules use no file, socket, thread, lock or clock, and `unsafe` stands in two files. Clippy checks two more
//! habits (`.clippy.toml` and `[lints.clippy]` in `Cargo.toml`): the library prints nothing, and no code sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules below `src/` in their order: the file `src/NAME.rs` or the folder `src/NAME/`.
const ORDER: [&str; 20] = [
    "error",
    "sync",
    "logging",
    "codec",
    "bits",
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
    // Documentation and no code.
    "guide",
];

/// Modules that may not import all that stands before them, and what each may not import.
const CLOSED: [(&str, &[&str]); 2] = [
    ("wire", &["storage", "oplog", "core"]),
    // Only `net/driver` knows both the log and the protocol.
    ("replication", &["storage", "oplog", "core", "wire"]),
];

/// The only names that `storage` imports from `merkle`.
const STORAGE_TAKES_OF_MERKLE: [&str; 3] = ["Node", "NodeSource", "Offsets"];

/// Modules and files without file, socket, thread, lock or clock.
const PURE: [&str; 14] = [
    "codec",
    "bits",
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

/// Paths that pure modules do not use. `Instant::now` and `SystemTime` are checked as tokens.
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

/// The handle that users hold. A module that only passes it on counts as not knowing the log.
const HANDLES: [&str; 2] = ["crate::Hypercore", "crate::core::Hypercore"];

const LOG: [&str; 3] = ["storage", "oplog", "core"];
const PROTOCOL: [&str; 2] = ["wire", "replication"];

/// The only files that may contain `unsafe`.
const UNSAFE: [&str; 2] = ["storage/mmap", "storage/os"];

#[test]
fn every_module_has_place_in_layer_order() {
    for source in sources() {
        let module = source.top();
        assert!(
            ["lib", "main"].contains(&module) || ORDER.contains(&module),
            "{}: the module `{module}` has no place in ORDER; add it after the last module that it imports",
            source.name
        );
    }
}

#[test]
fn modules_import_only_earlier_modules() {
    let exported = exported();
    let mut faults = Vec::new();

    for source in sources() {
        if ["lib", "main", "cli"].contains(&source.top()) {
            continue;
        }
        for path in source.paths() {
            if let Some(fault) = misplaced(source.top(), &path, &exported) {
                faults.push(format!("{}: {path}: {fault}", source.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_driver_imports_log_and_protocol() {
    let exported = exported();
    for source in sources() {
        if source.name.starts_with("net/driver/") || source.top() == "lib" {
            continue;
        }
        let paths = source.paths();
        let known = paths.iter().filter(|path| !HANDLES.contains(&path.as_str()));
        let used: BTreeSet<_> = known.filter_map(|path| imported_module(path, &exported)).collect();
        let knows = |side: &[&str]| side.iter().any(|module| used.contains(*module) || source.top() == *module);
        assert!(
            !(knows(&LOG) && knows(&PROTOCOL)),
            "{} imports both the log and the protocol; only net/driver may",
            source.name
        );
    }
}

#[test]
fn command_imports_only_public_api() {
    for source in sources() {
        if !["main", "cli"].contains(&source.top()) {
            continue;
        }
        for path in source.paths() {
            let inside = path.starts_with("crate::") && !path.starts_with("crate::cli");
            assert!(!inside && !path.starts_with("hypercore::lowlevel"), "{}: {path}", source.name);
        }
    }
}

#[test]
fn pure_modules_use_no_file_socket_thread_lock_or_clock() {
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
fn unsafe_code_is_only_in_mmap_and_os() {
    for source in sources() {
        if UNSAFE.contains(&source.name.as_str()) {
            continue;
        }
        assert!(!source.tokens.iter().any(|token| token.text == "unsafe"), "unsafe in {}", source.name);
    }
}

#[test]
fn files_import_without_circles() {
    let circle = shortest_circle(&imports(&sources()));
    assert!(circle.is_none(), "files import each other in a circle:\n{}", circle.unwrap_or_default());
}

#[test]
fn import_parser_finds_paths_as_compiler_does() {
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
        #[cfg(test)]
        pub(crate) use crate::net::{AlsoOnly, InTests};
        fn g() { super::outer(); }
        mod after { use crate::storage::Storage; use super::Inner; use super::super::Outer; }
    "##;
    let expected = [
        "crate::Error",
        "crate::Outer",
        "crate::codec",
        "crate::codec::Reader",
        "crate::codec::nested::A",
        "crate::codec::nested::b::*",
        "crate::merkle::Head::new",
        "crate::node::Node",
        "crate::outer",
        "crate::sibling",
        "crate::storage::Inner",
        "crate::storage::Storage",
        "std::sync::Mutex",
        "std::thread::spawn",
    ];
    let source = Source::new("storage/mod", text);
    assert_eq!(source.paths(), expected);

    // In a file of the folder, `super` is the folder's `mod.rs`.
    let source = Source::new("storage/deep", "use super::super::net::X; use super::map::Map;");
    assert_eq!(source.paths(), ["crate::net::X", "crate::storage::map::Map"]);
}

#[test]
fn import_against_layer_order_is_found() {
    let exported = BTreeMap::from([("Error".to_owned(), "error".to_owned())]);
    let fault = |module: &str, path: &str| misplaced(module, path, &exported).is_some();
    assert!(!fault("codec", "crate::Error") && !fault("core", "crate::storage::Storage"));
    assert!(!fault("storage", "crate::merkle::NodeSource") && fault("storage", "crate::merkle::verify::Verified"));
    assert!(fault("merkle", "crate::storage::Storage") && fault("core", "crate::net::Role"));
    assert!(fault("replication", "crate::wire::mux::Mux") && fault("wire", "crate::core::Hypercore"));
    assert!(fault("codec", "crate::lowlevel::wire") && fault("codec", "crate::Unheard"));
    assert!(!fault("net", "crate::wire::Mux") && !fault("net", "std::net::TcpStream"));
}

#[test]
fn circle_of_three_files_is_found_with_its_names() {
    let circle = shortest_circle(&imports(&[
        Source::new("lib", "pub use core::Core;"),
        Source::new("core/mod", "mod read; mod state; mod wait; pub struct Core; use read::read_all;"),
        Source::new("core/read", "use super::state::State; pub fn read_all() {}"),
        Source::new("core/state", "pub struct State; fn f() { super::wait::wake(); }"),
        Source::new("core/wait", "use super::read; pub fn wake() { read::read_all() }"),
    ]));
    let expected = "core/read imports core/state (State)\n\
                    core/state imports core/wait (wake)\n\
                    core/wait imports core/read (read, read_all)";
    assert_eq!(circle.unwrap(), expected);
}

#[test]
fn shortest_of_two_circles_is_reported() {
    let circle = shortest_circle(&imports(&[
        Source::new("a", "use crate::b::B; pub struct A;"),
        Source::new("b", "use crate::c::C; pub struct B;"),
        Source::new("c", "use crate::a::A; use crate::d::{D, e}; pub struct C;"),
        Source::new("d", "use crate::c::C as Renamed; pub struct D; pub fn e() {}"),
    ]));
    assert_eq!(circle.unwrap(), "c imports d (D, e)\nd imports c (C)");
}

#[test]
fn diamond_is_no_circle() {
    let graph = imports(&[
        Source::new("top", "use crate::left::L; use crate::right::R;"),
        Source::new("left", "use crate::bottom::B; pub struct L;"),
        Source::new("right", "use crate::bottom::B; pub struct R;"),
        Source::new("bottom", "pub struct B;"),
    ]);
    assert_eq!(graph.values().map(BTreeMap::len).sum::<usize>(), 4);
    assert_eq!(shortest_circle(&graph), None);
}

#[test]
fn reexport_leads_to_file_that_defines_name() {
    let graph = imports(&[
        Source::new("lib", "mod core; mod error; pub use core::{Handle, State}; pub use error::Error;"),
        Source::new("error", "pub struct Error;"),
        // A `mod.rs` that declares and re-exports its children does not import them.
        Source::new(
            "core/mod",
            "mod deep; mod read; mod state; pub use state::{Inner as State, *}; pub struct Handle(State);
             fn f() { State::new() }",
        ),
        Source::new("core/state", "use crate::Error; pub struct Inner; pub struct Other;"),
        Source::new(
            "core/read",
            "use crate::{Handle, State}; use super::{Other, deep::Deepest}; type E = crate::Error;",
        ),
        Source::new("core/deep/mod", "mod low; pub(crate) use low::Deepest; impl crate::core::Handle {}"),
        Source::new("core/deep/low", "pub struct Deepest; fn f() { super::super::state::Other::new() }"),
        Source::new("core/tests", "use super::read;"),
    ]);
    let imported = |file: &str| -> Vec<String> {
        let names = |(used, names): (&String, &BTreeSet<String>)| {
            format!("{used}: {}", names.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
        };
        graph.get(file).into_iter().flatten().map(names).collect()
    };
    assert_eq!(imported("core/mod"), [""; 0]);
    assert_eq!(imported("core/state"), ["error: Error"]);
    assert_eq!(
        imported("core/read"),
        ["core/deep/low: Deepest", "core/mod: Handle", "core/state: Inner Other", "error: Error"]
    );
    assert_eq!(imported("core/deep/mod"), ["core/mod: Handle"]);
    assert_eq!(imported("core/deep/low"), ["core/state: Other"]);
    assert_eq!(imported("core/tests"), [""; 0]);
}

/// Why `module` may not use this path, if it may not.
fn misplaced(module: &str, path: &str, exported: &BTreeMap<String, String>) -> Option<String> {
    let inner = path.strip_prefix("crate::")?;
    let Some(used) = imported_module(path, exported) else {
        return Some(format!("`{inner}` is neither in a module of ORDER nor exported by lib.rs"));
    };
    if used == module {
        return None;
    }
    let place = |module: &str| ORDER.iter().position(|name| *name == module).unwrap_or(ORDER.len());
    if place(&used) > place(module) {
        return Some(format!("{used} comes after {module} in the order"));
    }
    if CLOSED.iter().any(|(closed, to)| *closed == module && to.contains(&used.as_str())) {
        return Some(format!("{module} may not import {used}"));
    }
    let taken = inner.rsplit("::").next().unwrap_or_default();
    if module == "storage" && used == "merkle" && !STORAGE_TAKES_OF_MERKLE.contains(&taken) {
        return Some(format!("storage imports only {STORAGE_TAKES_OF_MERKLE:?} from merkle"));
    }
    None
}

/// The module below `src/` that a `crate::` path leads into, also through the names that `lib.rs` exports.
fn imported_module(path: &str, exported: &BTreeMap<String, String>) -> Option<String> {
    let first = path.strip_prefix("crate::")?.split("::").next()?;
    if ORDER.contains(&first) { Some(first.to_owned()) } else { exported.get(first).cloned() }
}

/// The names that `lib.rs` exports at the crate's root, each with the module it comes from.
fn exported() -> BTreeMap<String, String> {
    let lib = sources().into_iter().find(|source| source.name == "lib").expect("src/lib.rs");
    let mut exported = BTreeMap::new();
    for import in lib.imports() {
        let path = import.path.strip_prefix("crate::").unwrap_or(&import.path);
        let module = path.split("::").next().unwrap_or_default();
        if ORDER.contains(&module) {
            exported.insert(import.name, module.to_owned());
        }
    }
    exported
}

/// Of each file the files that it imports, and by which names.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Which file imports which. A name counts for the file that defines it, also where it is reached through a `use` of a
/// folder's `mod.rs`; a path that ends in a `mod.rs` counts for the `mod.rs`. A `mod.rs` that declares its children and
/// re-exports their names does not import them. `lib.rs`, `main.rs` and tests are left out.
fn imports(sources: &[Source]) -> Graph {
    let resolver = Resolver::new(sources);
    let mut graph = Graph::new();
    for source in sources.iter().filter(|source| !["lib", "main"].contains(&source.name.as_str())) {
        let imports = source.imports();
        // `GetOptions::new()` goes by the import of `GetOptions`.
        let import_of = |path: &str| {
            let first = path.split("::").next().unwrap_or_default();
            imports.iter().find(|import| import.name == first)
        };
        let reexports_child =
            |import: &Import, file: &str| import.public && source.folder().is_some_and(|folder| is_below(file, folder));
        let used = imports.iter().map(|import| (import.path.as_str(), Some(import)));
        let paths = source.qualified_paths();
        for (path, import) in used.chain(paths.iter().map(|path| (path.as_str(), import_of(path)))) {
            let Some((file, name)) = resolver.resolve(&source.name, path, 0) else { continue };
            if file != source.name && !import.is_some_and(|import| reexports_child(import, &file)) {
                graph.entry(source.name.clone()).or_default().entry(file).or_default().insert(name);
            }
        }
    }
    graph
}

/// The shortest circle of imports, a line for each step, beginning at the first of its files by the alphabet.
fn shortest_circle(graph: &Graph) -> Option<String> {
    let mut shortest: Option<Vec<&str>> = None;
    for start in graph.keys() {
        // Breadth first from `start` until an import leads back to it.
        let mut paths = vec![vec![start.as_str()]];
        let mut seen = BTreeSet::new();
        let mut at = 0;
        while let Some(path) = paths.get(at).cloned() {
            at += 1;
            if shortest.as_ref().is_some_and(|shortest| shortest.len() <= path.len()) {
                break;
            }
            let used = graph.get(path[path.len() - 1]);
            if used.is_some_and(|used| used.contains_key(start)) {
                shortest = Some(path);
                break;
            }
            for next in used.into_iter().flat_map(BTreeMap::keys).filter(|next| seen.insert(next.as_str())) {
                paths.push([&path[..], &[next.as_str()]].concat());
            }
        }
    }
    let circle = shortest?;
    let steps = circle.iter().zip(circle.iter().cycle().skip(1)).map(|(file, used)| {
        let names: Vec<_> = graph[*file][*used].iter().map(String::as_str).collect();
        format!("{file} imports {used} ({})", names.join(", "))
    });
    Some(steps.collect::<Vec<_>>().join("\n"))
}

/// Finds the file that defines what a path names.
struct Resolver {
    /// Of each file the names that it imports, with the paths they stand for.
    imports: BTreeMap<String, Vec<Import>>,
    /// Of each file the names that it defines outside of functions and inline modules.
    defined: BTreeMap<String, BTreeSet<String>>,
}

impl Resolver {
    fn new(sources: &[Source]) -> Self {
        let outermost = |source: &Source| source.imports().into_iter().filter(|import| import.outermost).collect();
        Resolver {
            imports: sources.iter().map(|source| (source.name.clone(), outermost(source))).collect(),
            defined: sources.iter().map(|source| (source.name.clone(), source.defined())).collect(),
        }
    }

    /// The file that a path leads to, as `file` writes it, and the name in it; none for a path into another crate.
    fn resolve(&self, file: &str, path: &str, depth: usize) -> Option<(String, String)> {
        let mut parts = path.split("::");
        let mut at = file.to_owned();
        let mut last = String::new();
        if path.starts_with("crate::") {
            (at, last) = ("lib".to_owned(), parts.next()?.to_owned());
        }
        let mut crossed = path.starts_with("crate::");
        while let Some(part) = parts.next() {
            // A file of the same name as an import wins: `use append::append` names the function of the file `append`.
            if part == "*" {
                return Some((at, part.to_owned()));
            } else if let Some(child) = self.child(&at, part) {
                at = child;
            } else if let Some(target) = self.imported(&at, part, depth) {
                let rest: String = parts.map(|part| format!("::{part}")).collect();
                return self.resolve(&at, &format!("{target}{rest}"), depth + 1);
            } else {
                // The rest is an associated item, a variant, or in an inline module.
                return crossed.then(|| (at, part.to_owned()));
            }
            crossed = true;
            last = part.to_owned();
        }
        crossed.then_some((at, last))
    }

    /// The file of a module that `file` declares.
    fn child(&self, file: &str, name: &str) -> Option<String> {
        let folder = match file.strip_suffix("/mod") {
            Some(folder) => format!("{folder}/"),
            None if file == "lib" => String::new(),
            None => return None,
        };
        [format!("{folder}{name}"), format!("{folder}{name}/mod")]
            .into_iter()
            .find(|file| self.defined.contains_key(file))
    }

    /// The path that a name stands for in `file` because a `use` there says so.
    fn imported(&self, file: &str, name: &str, depth: usize) -> Option<String> {
        if depth > 8 {
            return None; // two files that import all names of each other
        }
        let imports = &self.imports[file];
        if let Some(import) = imports.iter().find(|import| import.name == name) {
            return (import.path != name).then(|| import.path.clone());
        }
        imports.iter().filter_map(|import| import.path.strip_suffix("::*")).find_map(|module| {
            let (target, _) = self.resolve(file, module, depth + 1)?;
            self.defined[&target].contains(name).then(|| format!("{module}::{name}"))
        })
    }
}

/// A name that a `use` brings into its file.
#[derive(Debug)]
struct Import {
    name: String,
    /// The full path, with `super` and `self` put in terms of `crate`. It ends in `*` where all names are imported.
    path: String,
    /// Whether it stands outside of functions and inline modules, where other files can reach the name.
    outermost: bool,
    /// Whether it is a `pub use` or a `pub(crate) use`.
    public: bool,
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
    /// How many inline modules (`mod x { ... }`) it stands in.
    modules: usize,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        Source { name: name.to_owned(), tokens: tokens(text) }
    }

    /// The module directly below `src/` that this file belongs to.
    fn top(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The folder whose `mod.rs` this is.
    fn folder(&self) -> Option<&str> {
        self.name.strip_suffix("/mod")
    }

    /// The tokens outside of tests.
    fn code(&self) -> Vec<Token> {
        if self.name.ends_with("/tests") { Vec::new() } else { without_tests(&self.tokens) }
    }

    /// Every path of two names or more, imported or written out, sorted, each once. `super` and `self` are put in terms of
    /// `crate`.
    fn paths(&self) -> Vec<String> {
        let imported = self.imports().into_iter().map(|import| import.path);
        let paths: BTreeSet<_> = imported.chain(self.qualified_paths()).collect();
        paths.into_iter().filter(|path| path.contains("::")).collect()
    }

    /// The names that the `use` declarations bring in.
    fn imports(&self) -> Vec<Import> {
        let tokens = self.code();
        let mut imports = Vec::new();
        for at in 0..tokens.len() {
            let captures = tokens.get(at + 1).is_some_and(|next| next.text == "<");
            if tokens[at].text == "use" && !captures {
                let public = at > 0 && ["pub", ")"].contains(&tokens[at - 1].text.as_str());
                let end = (at..tokens.len()).find(|i| tokens[*i].text == ";").unwrap_or(tokens.len());
                expand("", &tokens[at + 1..end], &mut |path, name| {
                    imports.push(Import {
                        name: name.to_owned(),
                        path: self.absolute(path, tokens[at].modules),
                        outermost: tokens[at].depth == 0,
                        public,
                    });
                });
            }
        }
        imports
    }

    /// The paths of two names or more outside of `use` declarations.
    fn qualified_paths(&self) -> Vec<String> {
        let tokens = self.code();
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at].text == "use" && tokens.get(at + 1).is_some_and(|next| next.text != "<") {
                at = (at..tokens.len()).find(|i| tokens[*i].text == ";").unwrap_or(tokens.len());
            } else if is_name(&tokens[at].text) && !(at > 0 && tokens[at - 1].text == "::") {
                let start = at;
                while at + 2 < tokens.len() && tokens[at + 1].text == "::" && is_name(&tokens[at + 2].text) {
                    at += 2;
                }
                if at > start {
                    let path: String = tokens[start..=at].iter().map(|token| token.text.as_str()).collect();
                    paths.push(self.absolute(&path, tokens[start].modules));
                }
            }
            at += 1;
        }
        paths
    }

    /// The names that the file itself defines.
    fn defined(&self) -> BTreeSet<String> {
        const KEYWORDS: [&str; 9] = ["struct", "enum", "union", "trait", "fn", "type", "const", "static", "mod"];
        let tokens = self.code();
        let outside = tokens.windows(2).filter(|pair| pair[0].depth == 0 && KEYWORDS.contains(&pair[0].text.as_str()));
        outside.map(|pair| pair[1].text.clone()).collect()
    }

    /// Puts a path that begins with `super` or `self`, in so many inline modules, in terms of `crate`.
    fn absolute(&self, path: &str, mut inline: usize) -> String {
        let mut module: Vec<_> = self.name.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).collect();
        let mut rest = path;
        if let Some(inner) = rest.strip_prefix("self::") {
            rest = inner;
        } else if !rest.starts_with("super::") {
            return path.to_owned();
        }
        while let Some(outer) = rest.strip_prefix("super::") {
            if inline > 0 {
                inline -= 1;
            } else {
                module.pop();
            }
            rest = outer;
        }
        module.insert(0, "crate");
        format!("{}::{rest}", module.join("::"))
    }
}

/// The paths of a `use` tree, each with the name under which it is imported.
fn expand(prefix: &str, tree: &[Token], found: &mut dyn FnMut(&str, &str)) {
    let mut path = prefix.to_owned();
    let mut name = None;
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
            "as" => {
                name = tree.get(at + 1).map(|token| token.text.clone());
                break;
            }
            "self" if !prefix.is_empty() => path.truncate(path.trim_end_matches("::").len()),
            text => path.push_str(text),
        }
    }
    let last = path.rsplit("::").next().unwrap_or_default();
    found(&path, name.as_deref().unwrap_or(last));
}

fn is_below(file: &str, folder: &str) -> bool {
    file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') && rest != "/mod")
}

fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && !["as", "use", "where", "in", "return"].contains(&text)
}

/// The tokens without the items that `#[cfg(test)]` marks.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    const ITEMS: [&str; 10] = ["mod", "use", "fn", "impl", "struct", "enum", "trait", "type", "const", "static"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let depth = tokens[at].depth;
        let Some(after) = test_marker(tokens, at) else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        at = after;
        // Other attributes and the visibility come before the item's keyword.
        let item = (at..tokens.len()).find(|i| tokens[*i].depth == depth && ITEMS.contains(&tokens[*i].text.as_str()));
        let Some(item) = item else { continue };
        let is_use = tokens[item].text == "use";
        let ends = |token: &Token| token.text == ";" || (token.text == "}" && !is_use);
        let end = (item..tokens.len()).find(|i| tokens[*i].depth == depth && ends(&tokens[*i]));
        at = end.map_or(tokens.len(), |end| end + 1);
    }
    kept
}

/// The place after `#[cfg(test)]` or `#[cfg(all(test, ...))]` if one begins at `at`.
fn test_marker(tokens: &[Token], at: usize) -> Option<usize> {
    let begins = |marker: &[&str]| {
        tokens[at..].len() >= marker.len() && tokens[at..].iter().zip(marker).all(|(token, text)| token.text == *text)
    };
    if begins(&["#", "[", "cfg", "(", "test", ")", "]"]) || begins(&["#", "[", "cfg", "(", "all", "(", "test"]) {
        return (at..tokens.len()).find(|i| tokens[*i].text == "]").map(|end| end + 1);
    }
    None
}

/// Names, numbers, `::` and single signs. Comments and literals are left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let mut tokens = Vec::new();
    let (mut at, mut depth) = (0, 0usize);
    // The depths at which inline modules were opened.
    let mut modules: Vec<usize> = Vec::new();

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
            tokens.push(Token { text: chars[at..end].iter().collect(), depth, modules: modules.len() });
            at = end;
        } else if starts(at, "::") {
            tokens.push(Token { text: "::".into(), depth, modules: modules.len() });
            at += 2;
        } else {
            if c == '}' {
                depth = depth.saturating_sub(1);
                if modules.last() == Some(&depth) {
                    modules.pop();
                }
            }
            if c == '{' && tokens.len() >= 2 && tokens[tokens.len() - 2].text == "mod" {
                modules.push(depth);
            }
            tokens.push(Token { text: c.into(), depth, modules: modules.len() });
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
        return None; // a raw identifier
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
            Source::new(&name, &fs::read_to_string(&file).unwrap())
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
