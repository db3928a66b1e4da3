//! `hypercore verify`: checks a core against its signature.

use clap::Arg;
use hypercore::{Fault, Recovery};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, flag};
use crate::cli::failure::{Failure, Result, about};
use crate::cli::open::{OPENING, READING, WRITING, open};
use crate::cli::output::Output;
use crate::cli::stderr::{one_line, say};
use crate::cli::terminal::progress::{Progress, Unit};

pub const VERIFY: Command = Command {
    name: "verify",
    usage: "DIR [--repair]",
    about: "Check every stored block and tree node against the signature",
    details: "Prints the number of stored blocks and of faults, and each fault on standard error. Exits with 1 if it \
              finds faults; with --repair, only if faults remain.",
    arguments,
    shared: &[OPENING, READING, WRITING],
    example: "hypercore verify log --repair",
    action: Action::Run(verify),
};

fn arguments() -> Vec<Arg> {
    let repair = "Recompute wrong nodes where possible, and drop wrong blocks so that they can be downloaded again";
    vec![core_dir(), flag("repair", repair).conflicts_with("read-only")]
}

fn verify(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let repair = args.has("repair");
    let core = open(args, &dir)?;
    let lost = core.recovery();
    let mut progress = Progress::new("verifying", Unit::Blocks, Some(core.len()));
    let report = |blocks| progress.at(blocks);
    let audit = if repair { core.repair_with_progress(report) } else { core.verify_with_progress(report) };
    let audit = audit.map_err(|e| about(&dir, e))?;
    drop(progress);
    core.close().map_err(|e| about(&dir, e))?;

    for fault in &audit.faults {
        say(format_args!("{}", fault_line(fault, &dir.display().to_string(), audit.repaired)));
    }
    if let Some(lost) = &lost {
        say(format_args!("{}", loss_line(lost, &dir.display().to_string(), audit.repaired)));
    }
    let mut out = Output::stdout();
    out.line(format_args!("blocks {}", audit.blocks))?;
    out.line(format_args!("faults {}", audit.faults.len() + usize::from(lost.is_some())))?;
    out.finish()?;
    if audit.is_sound() && (lost.is_none() || audit.repaired) { Ok(()) } else { Err(Failure::Reported) }
}

/// The line for blocks that a crash destroyed. They are a fault until they are held again or their loss is accepted.
fn loss_line(lost: &Recovery, dir: &str, repaired: bool) -> String {
    let line = match (repaired, lost.missing.is_empty()) {
        (true, _) => format!("accepted: {dir}: {lost}"),
        (false, true) => format!("error: {dir}: {lost}; `hypercore verify --repair` accepts the loss"),
        (false, false) => format!(
            "error: {dir}: {lost}; `hypercore clone` or a peer brings them back, `hypercore truncate` cuts the log, and \
             `hypercore verify --repair` accepts the loss"
        ),
    };
    one_line(&line)
}

fn fault_line(fault: &Fault, dir: &str, repaired: bool) -> String {
    let line = match (repaired, fault.is_repairable()) {
        (true, true) => format!("repaired: {dir}: {fault}"),
        (false, true) => format!("error: {dir}: {fault}; `hypercore verify --repair` repairs it"),
        (_, false) => {
            format!("error: {dir}: {fault}; `hypercore clone` into another directory downloads the log again")
        }
    };
    one_line(&line)
}
