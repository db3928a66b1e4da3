//! `tests/PARITY.md` lists every test of the reference, and what it names exists; our documentation finds every name
//! that the reference's documentation uses.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The number of tests in each file of the reference, as of version 10.38.2.
const FILES: [(&str, usize); 26] = [
    ("basic", 30),
    ("batch", 29),
    ("bitfield", 13),
    ("cache", 10),
    ("clear", 6),
    ("compat", 1),
    ("conflicts", 1),
    ("core", 15),
    ("encodings", 3),
    ("encryption", 13),
    ("extension", 2),
    ("manifest", 27),
    ("merkle-tree", 31),
    ("mutex", 6),
    ("oplog", 11),
    ("preload", 4),
    ("purge", 2),
    ("remote-bitfield", 4),
    ("remote-length", 4),
    ("replicate", 70),
    ("sessions", 11),
    ("snapshots", 3),
    ("storage", 2),
    ("streams", 8),
    ("timeouts", 10),
    ("user-data", 4),
];

#[test]
fn parity_page_lists_every_test_of_reference_once() {
    let rows = rows();
    // The tests that run as `test(…)`, and two more: one that is skipped, one in a loop.
    assert_eq!(rows.len(), 318 + 2);
    for (file, count) in FILES {
        let names: HashSet<_> = rows.iter().filter(|row| row.file == file).map(|row| &row.name).collect();
        assert_eq!(names.len(), count, "{file}.js");
    }
    let known: HashSet<_> = FILES.iter().map(|(file, _)| *file).collect();
    let unknown = rows.iter().find(|row| !known.contains(row.file.as_str()));
    assert!(unknown.is_none(), "{}.js", unknown.unwrap().file);
}

#[test]
fn parity_page_names_existing_tests_only() {
    let mut missing = Vec::new();
    for row in rows() {
        match row.cover {
            Cover::Tests(tests) => {
                assert!(!tests.is_empty(), "{}.js: {} has no test", row.file, row.name);
                missing.extend(tests.into_iter().filter(|name| !is_there(name)));
            }
            Cover::Reason(reason) => {
                assert!(!reason.is_empty(), "{}.js: {} has no reason", row.file, row.name);
                let tests = quoted(&reason).filter(|name| name.contains("::tests::"));
                missing.extend(tests.filter(|name| !is_there(name)).map(str::to_owned));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn documentation_finds_every_documented_name_of_reference() {
    let items = items();
    let list = fs::read_to_string(root().join("tests/vectors/documented-names.txt")).unwrap();
    let mut count = 0;
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, found) = line.split_once(": ").unwrap_or_else(|| panic!("not `name: item`: {line}"));
        for path in found.split(' ') {
            let item = items.iter().find(|item| item.name == path).unwrap_or_else(|| panic!("there is no {path}"));
            assert!(item.is_documented, "{path} is not documented");
            let is_found = path.rsplit("::").next() == Some(name) || item.aliases.iter().any(|alias| alias == name);
            assert!(is_found, "{path} is not found by the name {name}: it has no such alias");
        }
        count += 1;
    }
    // No line gets lost.
    assert_eq!(count, 96);
}

#[test]
fn doc_alias_of_item_is_found_on_that_item_only() {
    let items = items();
    let of = |name: &str| items.iter().find(|item| item.name == name);
    assert_eq!(of("Hypercore::open").unwrap().aliases, ["new", "ready"]);
    assert!(of("Hypercore::open").unwrap().is_documented);
    for name in ["Hypercore::nothing", "GetOptions::force", "Session::get", "Hypercore::new"] {
        assert!(of(name).is_none(), "{name}");
    }
}

#[test]
fn test_lookup_finds_only_existing_tests() {
    assert!(is_there("walk::test_lookup_finds_only_existing_tests"));
    assert!(is_there("lib::sync::tests::signal_set_twice_keeps_first_value"));
    assert!(is_there("log::basics::new_core_shows_its_keys_and_no_blocks"));
    for name in ["log::basics::nothing", "log::nothing::new_core", "log::basics::new_core", "lib::nothing::x", "x"] {
        assert!(!is_there(name), "{name}");
    }
    // A function that is not a test.
    assert!(!is_there("log::open_after_kill::killed"));
}

/// A test of the reference.
struct Row {
    /// Without its extension.
    file: String,
    name: String,
    cover: Cover,
}

enum Cover {
    /// The tests here that show the same.
    Tests(Vec<String>),
    /// Why the test does not apply.
    Reason(String),
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The heading of the table that lists tests by the reason why they do not apply.
const NOT_APPLICABLE: &str = "Tests that do not apply";

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for row in tables("PARITY.md") {
        let [first, second] = &row.cells[..] else { panic!("a row has two cells: {row:?}") };
        if row.heading == NOT_APPLICABLE {
            rows.extend(not_applicable(first, second));
        } else {
            let file = row.heading.split(".js").next().unwrap().to_owned();
            let tests = quoted(second).map(str::to_owned).collect();
            rows.push(Row { file, name: first.clone(), cover: Cover::Tests(tests) });
        }
    }
    rows
}

/// The tests of a row such as "reason | a.js: `one`, `two`; b.js: `three`".
fn not_applicable(reason: &str, tests: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut file = String::new();
    for (i, part) in tests.split('`').enumerate() {
        if i % 2 == 1 {
            rows.push(Row { file: file.clone(), name: part.to_owned(), cover: Cover::Reason(reason.to_owned()) });
        } else if let Some(name) = part.strip_suffix(".js: ") {
            file = name.trim_start_matches("; ").to_owned();
        }
    }
    rows
}

/// A row of a table: the heading it stands under, and its cells.
#[derive(Debug)]
struct Cells {
    heading: String,
    cells: Vec<String>,
}

/// The rows of all tables in a document of `tests/`.
fn tables(name: &str) -> Vec<Cells> {
    let text = fs::read_to_string(root().join("tests").join(name)).unwrap();
    let mut rows = Vec::new();
    let (mut heading, mut before) = (String::new(), "");
    for line in text.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
        }
        if let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) {
            // The first row names the columns. No cell contains " | ".
            if before.starts_with('|') {
                rows.push(Cells { heading: heading.clone(), cells: cells.split(" | ").map(str::to_owned).collect() });
            }
        }
        before = line;
    }
    rows
}

/// The parts between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A public item with its documentation.
struct Item {
    /// `Type::name` if the item belongs to a type.
    name: String,
    aliases: Vec<String>,
    is_documented: bool,
}

/// The items that the library exports, of those declared at the beginning of a line or in an `impl`.
fn items() -> Vec<Item> {
    let exported = fs::read_to_string(root().join("src/lib.rs")).unwrap()
        + &fs::read_to_string(root().join("src/net/mod.rs")).unwrap();
    let exports: HashSet<&str> = exported.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut items = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() && !path.ends_with("cli") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read_items(&fs::read_to_string(path).unwrap(), &exports, &mut items);
            }
        }
    }
    items
}

fn read_items(text: &str, exports: &HashSet<&str>, items: &mut Vec<Item>) {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut of = String::new();
    let (mut aliases, mut is_documented) = (Vec::new(), false);
    for line in text.lines() {
        if line.starts_with("impl") {
            // `impl<E: Encoding> Encoded<E> {`, but not `impl Clone for …`: traits have documentation of their own.
            let head = line.strip_suffix(" {").unwrap_or(line);
            let name = head.rsplit_once("> ").map_or(head.trim_start_matches("impl "), |(_, name)| name);
            of = if line.contains(" for ") { String::new() } else { word(name) };
        }
        let code = line.trim_start();
        let is_inside = code.len() < line.len();
        if let Some(alias) = code.strip_prefix("#[doc(alias = \"").and_then(|rest| rest.strip_suffix("\")]")) {
            aliases.push(alias.to_owned());
        } else if code.starts_with("///") {
            is_documented = true;
        } else if !code.starts_with("#[") {
            let kinds = ["pub fn ", "pub struct ", "pub enum ", "pub trait ", "pub const "];
            if let Some(rest) = kinds.iter().find_map(|kind| code.strip_prefix(kind)) {
                let name = if is_inside { format!("{of}::{}", word(rest)) } else { word(rest) };
                if exports.contains(word(&name).as_str()) {
                    items.push(Item { name, aliases: std::mem::take(&mut aliases), is_documented });
                }
            }
            aliases.clear();
            is_documented = false;
        }
    }
}

/// Whether `binary::module::function` is a test.
fn is_there(name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let Some((function, modules)) = parts.split_last() else { return false };
    files_of(modules).iter().filter_map(|file| fs::read_to_string(file).ok()).any(|text| has_test(&text, function))
}

/// The files that may hold a module of a test binary or of the library.
fn files_of(modules: &[&str]) -> Vec<PathBuf> {
    let Some((binary, modules)) = modules.split_first() else { return Vec::new() };
    let base = match *binary {
        "lib" => root().join("src"),
        binary => root().join("tests").join(binary),
    };
    let file =
        |modules: &[&str]| modules.iter().fold(base.clone(), |path, module| path.join(module)).with_extension("rs");
    match modules {
        // Unit tests stand at the end of their file or in a file beside it.
        [above @ .., "tests"] if !above.is_empty() => {
            let beside = above.iter().fold(base.clone(), |path, module| path.join(module));
            vec![file(above), beside.join("mod.rs"), file(modules)]
        }
        _ => vec![file(modules)],
    }
}

/// Whether `text` declares the test `function`.
fn has_test(text: &str, function: &str) -> bool {
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("fn ") {
            Some(rest) if rest.split('(').next() == Some(function) && rest.contains('(') => {
                if is_test {
                    return true;
                }
            }
            _ if line == "#[test]" => is_test = true,
            // Other attributes may stand between.
            _ if line.starts_with("#[") => {}
            _ => is_test = false,
        }
        if line.starts_with("fn ") {
            is_test = false;
        }
    }
    in_quickcheck(text, function)
}

/// Whether `text` declares the property `function`. Properties have no `#[test]`: the macro around them adds it.
fn in_quickcheck(text: &str, function: &str) -> bool {
    text.split("quickcheck! {").skip(1).any(|rest| {
        let declared = rest.lines().find(|line| !line.trim().is_empty() && !line.trim().starts_with("//"));
        declared
            .is_some_and(|line| line.trim().strip_prefix("fn ").is_some_and(|l| l.split('(').next() == Some(function)))
    })
}
