//! `tests/README.md` holds the reference's tests beside ours, `tests/API.md` what it documents beside ours: what they name is there,
//! and no row is empty.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How many tests each file of the reference has, as of version 10.38.2.
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
fn every_test_of_the_reference_has_its_row() {
    let rows = rows();
    // What runs as `test(…)`, and two more: one that is skipped, one in a loop.
    assert_eq!(rows.len(), 318 + 2);
    for (file, count) in FILES {
        let names: HashSet<_> = rows.iter().filter(|row| row.file == file).map(|row| &row.name).collect();
        assert_eq!(names.len(), count, "{file}.js");
    }
    for row in &rows {
        assert_ne!(row.ours.is_empty(), row.reason.is_empty(), "{}.js: {}", row.file, row.name);
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let missing: Vec<_> = rows().into_iter().flat_map(|row| row.ours).filter(|name| !is_there(name)).collect();
    assert_eq!(missing, [""; 0]);
}

/// How many rows of `tests/API.md` each part of the reference's documentation has: none gets lost.
const DOCUMENTED: [(&str, usize); 4] = [("Opening", 18), ("Properties", 8), ("Methods", 33), ("Events", 8)];

#[test]
fn everything_that_the_reference_documents_is_found_by_its_name_and_shown() {
    let items = items();
    let mut counts = Vec::new();
    for row in table("API.md") {
        let [names, here, tests] = &row.cells[..] else { panic!("a row has three cells: {row:?}") };
        match counts.last_mut() {
            Some((part, count)) if *part == row.heading => *count += 1,
            _ => counts.push((row.heading.clone(), 1)),
        }
        let mut found: Vec<&str> = Vec::new();
        for name in quoted(here) {
            let item = items.iter().find(|item| item.name == name).unwrap_or_else(|| panic!("there is no {name}"));
            assert!(item.is_documented, "{name} is not documented");
            found.push(name.rsplit("::").next().unwrap());
            found.extend(item.aliases.iter().map(String::as_str));
        }
        for name in quoted(names) {
            assert!(found.contains(&name), "{name} does not lead to {here}");
        }
        assert!(quoted(tests).count() > 0, "nothing shows {names}");
        let missing: Vec<_> = quoted(tests).filter(|name| !is_there(name)).collect();
        assert_eq!(missing, [""; 0], "what is to show {names}");
    }
    assert_eq!(counts, DOCUMENTED.map(|(part, count)| (part.to_owned(), count)));
}

#[test]
fn items_are_told_apart() {
    let items = items();
    let of = |name: &str| items.iter().find(|item| item.name == name);
    assert_eq!(of("Hypercore::open").unwrap().aliases, ["new", "ready"]);
    assert!(of("Hypercore::open").unwrap().is_documented);
    for name in ["Hypercore::nothing", "GetOptions::force", "Session::get", "Hypercore::new"] {
        assert!(of(name).is_none(), "{name}");
    }
}

#[test]
fn what_is_not_there_is_found_missing() {
    assert!(is_there("walk::what_is_not_there_is_found_missing"));
    assert!(is_there("lib::sync::tests::a_signal_keeps_its_first_value"));
    assert!(is_there("log::basics::properties"));
    for name in ["log::basics::nothing", "log::nothing::properties", "log::basics::propertie", "lib::nothing::x", "x"] {
        assert!(!is_there(name), "{name}");
    }
    // A function that is no test.
    assert!(!is_there("log::reopen::killed"));
}

struct Row {
    file: String,
    name: String,
    ours: Vec<String>,
    reason: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let rows = table("README.md").into_iter().map(|row| {
        let [name, ours] = &row.cells[..] else { panic!("a row has two cells: {row:?}") };
        let file = row.heading.split(".js").next().unwrap().to_owned();
        let reason = ours.strip_prefix("—").map_or(String::new(), |reason| reason.trim().to_owned());
        let ours = if reason.is_empty() { quoted(ours).map(str::to_owned).collect() } else { Vec::new() };
        Row { file, name: name.clone(), ours, reason }
    });
    rows.collect()
}

/// A row of a table: the heading it stands under, and its cells.
#[derive(Debug)]
struct Cells {
    heading: String,
    cells: Vec<String>,
}

/// The rows of all tables in a document of `tests`.
fn table(name: &str) -> Vec<Cells> {
    let text = fs::read_to_string(root().join("tests").join(name)).unwrap();
    let mut rows = Vec::new();
    let (mut heading, mut before) = (String::new(), "");
    for line in text.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
        }
        if let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) {
            // The first row names the columns.
            if before.starts_with('|') {
                // No cell has such a bar in it.
                rows.push(Cells { heading: heading.clone(), cells: cells.split(" | ").map(str::to_owned).collect() });
            }
        }
        before = line;
    }
    rows
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Something public, as the documentation has it.
struct Item {
    /// With its type, where it belongs to one.
    name: String,
    aliases: Vec<String>,
    is_documented: bool,
}

/// What the library exports, as far as it is declared at the beginning of a line or in an `impl`.
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

/// Where a module of a test binary, or of the library, may stand.
fn files_of(modules: &[&str]) -> Vec<PathBuf> {
    let Some((binary, modules)) = modules.split_first() else { return Vec::new() };
    let base = match *binary {
        "lib" => root().join("src"),
        binary => root().join("tests").join(binary),
    };
    let file =
        |modules: &[&str]| modules.iter().fold(base.clone(), |path, module| path.join(module)).with_extension("rs");
    match modules {
        // The tests at the end of a file, or beside it.
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

/// Properties are declared without the attribute, which the macro around them adds.
fn in_quickcheck(text: &str, function: &str) -> bool {
    text.split("quickcheck! {").skip(1).any(|rest| {
        let declared = rest.lines().find(|line| !line.trim().is_empty() && !line.trim().starts_with("//"));
        declared
            .is_some_and(|line| line.trim().strip_prefix("fn ").is_some_and(|l| l.split('(').next() == Some(function)))
    })
}
