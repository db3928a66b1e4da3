//! `hypercore info`: prints the properties of a core as text or JSON, and a map of the held blocks.

use hypercore::{Encrypted, Hypercore, Info, InfoOptions, StorageInfo};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, flag};
use crate::cli::failure::{Result, about};
use crate::cli::open::{OPENING, READING, open};
use crate::cli::output::Output;
use crate::cli::terminal::held_map::print_map;
use crate::cli::terminal::units::bytes;

pub const INFO: Command = Command {
    name: "info",
    usage: "DIR [--json] [--map]",
    about: "Print key, id, length, disk use and other properties",
    details: "Disk use counts allocated blocks of the file system, so holes take none. For a core that another program \
              wrote, `encrypted` is unknown until the core has been opened with its encryption key once.",
    arguments: || {
        vec![
            core_dir(),
            flag("json", "Print one JSON object").conflicts_with("map"),
            flag("map", "Draw which blocks DIR holds, as wide as the terminal or the variable COLUMNS"),
        ]
    },
    shared: &[OPENING, READING],
    example: "hypercore info log --map",
    action: Action::Run(info),
};

fn info(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let core = open(args, &dir)?;
    let info = core.info(InfoOptions::new().storage(true)).map_err(|e| about(&dir, e))?;
    let tree_hash = hex(&core.tree_hash().map_err(|e| about(&dir, e))?);
    let storage = info.storage.unwrap_or_default();
    let mut out = Output::stdout();
    if args.has("json") {
        print_json(&mut out, &core, &info, &tree_hash, &storage)?;
    } else {
        print_text(&mut out, &core, &info, &tree_hash, &storage)?;
    }
    if args.has("map") {
        out.line(format_args!(""))?;
        print_map(&mut out, &core, &dir)?;
    }
    out.finish()
}

/// One line. Its strings consist of letters and digits, so they need no escapes.
fn print_json(out: &mut Output, core: &Hypercore, info: &Info, tree_hash: &str, storage: &StorageInfo) -> Result<()> {
    let lost = core.recovery().map_or("null".into(), |lost| {
        format!("{{\"from\":{},\"to\":{},\"blocks\":{}}}", lost.from, lost.to, lost.blocks)
    });
    out.line(format_args!(
        "{{\"key\":\"{}\",\"id\":\"{}\",\"discoveryKey\":\"{}\",\"length\":{},\"byteLength\":{},\"contiguousLength\":{},\
         \"fork\":{},\"padding\":{},\"encrypted\":{},\"writable\":{},\"treeHash\":\"{tree_hash}\",\
         \"lost\":{lost},\"storage\":{{\"oplog\":{},\"tree\":{},\"blocks\":{},\"bitfield\":{}}}}}",
        info.key.to_hex(),
        info.key.id(),
        info.discovery_key.to_hex(),
        info.length,
        info.byte_length,
        info.contiguous_length,
        info.fork,
        info.padding,
        match info.encrypted {
            Encrypted::Yes => "true",
            Encrypted::No => "false",
            _ => "null",
        },
        core.writable(),
        storage.oplog,
        storage.tree,
        storage.blocks,
        storage.bitfield,
    ))
}

fn print_text(out: &mut Output, core: &Hypercore, info: &Info, tree_hash: &str, storage: &StorageInfo) -> Result<()> {
    let used = [storage.oplog, storage.tree, storage.blocks, storage.bitfield];
    let total = used.into_iter().fold(0, u64::saturating_add);
    out.line(format_args!("key            {}", info.key.to_hex()))?;
    out.line(format_args!("id             {}", info.key.id()))?;
    out.line(format_args!("discovery key  {}", info.discovery_key.to_hex()))?;
    out.line(format_args!("tree hash      {tree_hash}"))?;
    out.line(format_args!("length         {}", info.length))?;
    out.line(format_args!("contiguous     {}", info.contiguous_length))?;
    match info.byte_length {
        few @ ..1024 => out.line(format_args!("byte length    {few}"))?,
        many => out.line(format_args!("byte length    {many} ({})", bytes(many)))?,
    }
    out.line(format_args!("fork           {}", info.fork))?;
    out.line(format_args!("padding        {}", info.padding))?;
    let encrypted = match info.encrypted {
        Encrypted::Yes => "yes",
        Encrypted::No => "no",
        _ => "unknown",
    };
    out.line(format_args!("encrypted      {encrypted}"))?;
    out.line(format_args!("writable       {}", if core.writable() { "yes" } else { "no" }))?;
    if let Some(lost) = core.recovery() {
        out.line(format_args!("lost           {} blocks, when the log was {} long", lost.blocks, lost.from))?;
    }
    out.line(format_args!(
        "disk use       {}: oplog {}, tree {}, blocks {}, bitfield {}",
        bytes(total),
        bytes(used[0]),
        bytes(used[1]),
        bytes(used[2]),
        bytes(used[3]),
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
