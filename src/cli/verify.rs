//! Checking a core against its signature.

use hypercore::{Fault, Recovery, Repair};

use super::args::{Args, Opt};
use super::output::Output;
use super::progress::{Progress, Unit};
use super::{Command, Failure, OPENING, READING, Result, WRITING, about, open, say};

pub const VERIFY: Command = Command {
    name: "verify",
    usage: "DIR [--repair]",
    about: "rehash every block and node that is held, up to the signature",
    details: "Prints how many blocks are held and how many faults were found, and tells each fault on standard error.\n\
              Fails if anything is wrong. With --repair it counts the faults that it found, and fails if any is left.",
    own_options: &[Opt::flag(
        "--repair",
        "compute nodes anew where that is possible, and drop blocks that are not proven, to be downloaded again",
    )],
    shared_options: &[OPENING, READING, WRITING],
    example: "hypercore verify log --repair",
    run: verify,
};

fn verify(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    args.finish()?;
    let repair = args.has("--repair");
    if repair && args.has("--read-only") {
        return Err(args.usage("--repair and --read-only exclude each other".into()));
    }
    let core = open(args, &dir)?;
    let lost = core.recovery();
    let mut progress = Progress::new("verifying", Unit::Blocks, Some(core.len()));
    let mode = if repair { Repair::Yes } else { Repair::No };
    let audit = core.verify_with_progress(mode, |blocks| progress.at(blocks)).map_err(|e| about(&dir, e))?;
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

/// What to say of blocks that a crash took: they count as a fault until they are held again, or their loss is accepted.
fn loss_line(lost: &Recovery, dir: &str, repaired: bool) -> String {
    let line = match (repaired, lost.missing.is_empty()) {
        (true, _) => format!("accepted: {dir}: {lost}"),
        (false, true) => format!("error: {dir}: {lost}; `hypercore verify --repair` accepts the loss"),
        (false, false) => format!(
            "error: {dir}: {lost}; `hypercore clone` or a peer can bring them again, `hypercore truncate` cuts the log, and \
             `hypercore verify --repair` accepts the loss"
        ),
    };
    super::one_line(&line)
}

fn fault_line(fault: &Fault, dir: &str, repaired: bool) -> String {
    let line = match (repaired, fault.is_repairable()) {
        (true, true) => format!("repaired: {dir}: {fault}"),
        (false, true) => format!("error: {dir}: {fault}; `hypercore verify --repair` puts it right"),
        (_, false) => format!("error: {dir}: {fault}; `hypercore clone` into another directory brings the log anew"),
    };
    super::one_line(&line)
}
