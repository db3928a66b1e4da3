//! `tests/README.md` holds the reference's tests beside ours: each test that it names is there, and no row is empty.

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

/// What the reference documents: each is found in our documentation by that name, as an item's own or as its alias.
const NAMES: &str = "new ready random-access-memory storage key createIfMissing overwrite sparse valueEncoding encodeBatch keyPair \
    encryptionKey onwait timeout writable manifest compat userData \
    readable id discoveryKey length byteLength contiguousLength fork padding peers \
    append get wait decrypt has update force seek createReadStream start end live snapshot createByteStream byteOffset prefetch \
    createWriteStream clear diff truncate forkId purge treeHash download blocks linear ifAvailable done destroy session info \
    close replicate isInitiator keepAlive createProtocolStream findingPeers setUserData getUserData registerExtension audit \
    remotePublicKey MAX_SUGGESTED_BLOCK_SIZE peer-add peer-remove upload conflict verification-error";

#[test]
fn every_name_of_the_reference_is_found_in_the_documentation() {
    let mut sources = String::new();
    for folder in ["core", "crypto", "net", "store", "wire"] {
        for file in fs::read_dir(root().join("src").join(folder)).unwrap() {
            sources += &fs::read_to_string(file.unwrap().path()).unwrap();
        }
    }
    let is_found = |name: &str| {
        let declared = [format!("pub fn {name}("), format!("pub fn {name}<"), format!("#[doc(alias = \"{name}\")]")];
        declared.iter().any(|text| sources.contains(text))
    };
    let missing: Vec<_> = NAMES.split_whitespace().filter(|name| !is_found(name)).collect();
    assert_eq!(missing, [""; 0]);
    assert!(!is_found("createReadStrea"));
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
    assert!(!is_there("log::support::watchdog"));
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
    let text = fs::read_to_string(root().join("tests/README.md")).unwrap();
    let mut rows = Vec::new();
    let mut file = String::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            file = heading.split(".js").next().unwrap().to_owned();
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        // What the reference calls its tests has no such bar.
        let (name, ours) = cells.split_once(" | ").unwrap_or_else(|| panic!("a row has two cells: {line}"));
        if (name, ours) == ("there", "here") {
            continue;
        }
        let row = |ours, reason| Row { file: file.clone(), name: name.to_owned(), ours, reason };
        rows.push(match ours.strip_prefix("— ") {
            Some(reason) => row(Vec::new(), reason.trim().to_owned()),
            None => row(ours.split(", ").map(|name| name.trim_matches('`').to_owned()).collect(), String::new()),
        });
    }
    rows
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
