//! Handles inputs of the targets without libFuzzer: see README.md.

use std::process::ExitCode;
use std::{env, fs};

use hypercore_fuzz::TARGETS;

const USAGE: &str = "usage: inputs seeds | replay TARGET FILE... | lines TARGET FILE...";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (what, target, files) = match args[..] {
        ["seeds"] => {
            for target in &TARGETS {
                let folder = format!("{}/corpus/{}", env!("CARGO_MANIFEST_DIR"), target.name);
                fs::create_dir_all(&folder).expect("make a folder for seeds");
                for (number, seed) in (target.seeds)().iter().enumerate() {
                    fs::write(format!("{folder}/seed-{number}"), seed).expect("write a seed");
                }
            }
            return ExitCode::SUCCESS;
        }
        [what @ ("replay" | "lines"), name, ref files @ ..] => {
            match TARGETS.iter().find(|target| target.name == name) {
                Some(target) => (what, target, files),
                None => {
                    eprintln!("no target is called {name}");
                    return ExitCode::FAILURE;
                }
            }
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    for file in files {
        let bytes = fs::read(file).expect("read an input");
        if what == "replay" {
            println!("{file}");
            (target.run)(&bytes);
        } else if let Some((name, bytes)) = (target.line)(&bytes) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{name}|{hex}");
        } else {
            eprintln!("{file}: no target of tests/talk/fuzz.rs reads such an input; write a test of its own");
        }
    }
    ExitCode::SUCCESS
}
