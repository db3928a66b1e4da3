//! `hypercore man`: prints the manual page.

use std::io;

use clap::Arg;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::cli::arguments::command::{Action, Command, SHARED};
use crate::cli::arguments::parser::parser;
use crate::cli::failure::Failure;
use crate::cli::output::Output;

pub const MAN: Command = Command {
    name: "man",
    usage: "",
    about: "Print the manual page",
    details: "The page is in the roff format, for section 1 of the manual.",
    arguments: Vec::new,
    shared: &[],
    example: "hypercore man | man -l -",
    action: Action::Describe(|_, commands| {
        let page = page(commands).map_err(|e| Failure::Failed(format!("cannot render the manual page: {e}")))?;
        let mut out = Output::stdout();
        out.bytes(&page)?;
        out.finish()
    }),
};

const DESCRIPTION: &str = "A core is a directory with a signed, append-only log in the format of Hypercore 10. \
                           Results go to standard output, messages to standard error. Options may stand \
                           anywhere among the arguments of a command; after -- no argument is an option.";

const ENVIRONMENT: [&str; 3] = [
    "HYPERCORE_ENCRYPTION_KEY: the encryption key as 64 hex digits; an option overrides it.",
    "COLUMNS: the width of the terminal, from 20 to 1000.",
    "NO_COLOR: if it is not empty, progress lines have no colour.",
];

/// One page for all commands, which explains the shared options once.
fn page(commands: &[&'static Command]) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // `roff` prints an empty date without quotes, which would shift the arguments behind it.
    let all = Man::new(parser(commands)).date(" ");
    all.render_title(&mut page)?;
    append(&mut page, |text| all.render_name_section(text))?;
    append(&mut page, |text| all.render_synopsis_section(text))?;
    append_section(&mut page, "DESCRIPTION", &[DESCRIPTION])?;

    append_section(&mut page, "COMMANDS", &[])?;
    for command in commands {
        let own = command.parser().disable_help_flag(true).mut_args(|arg| {
            let is_shared = arg.get_help_heading() == Some(SHARED);
            arg.hide(is_shared)
        });
        let man = Man::new(own);
        page.extend(format!(".SS {}\n", command.name).into_bytes());
        append_contents(&mut page, |text| man.render_synopsis_section(text))?;
        append_contents(&mut page, |text| man.render_description_section(text))?;
        append_contents(&mut page, |text| man.render_options_section(text))?;
    }

    append_section(&mut page, "OPTIONS OF SEVERAL COMMANDS", &[])?;
    let shared = clap::Command::new("hypercore").disable_help_flag(true).args(shared_options(commands));
    let man = Man::new(shared);
    append_contents(&mut page, |text| man.render_options_section(text))?;

    append_section(&mut page, "ENVIRONMENT", &ENVIRONMENT)?;
    append_section(&mut page, "EXIT STATUS", &["0 done, 1 failed, 2 wrong usage."])?;
    append_examples(&mut page, commands)?;
    Ok(page)
}

/// The shared options of all commands, each once.
fn shared_options(commands: &[&'static Command]) -> Vec<Arg> {
    let mut shared: Vec<Arg> = Vec::new();
    for option in commands.iter().flat_map(|command| command.shared).flat_map(|group| group()) {
        if shared.iter().all(|known| known.get_id() != option.get_id()) {
            shared.push(option);
        }
    }
    shared
}

fn append_section(page: &mut Vec<u8>, heading: &str, paragraphs: &[&str]) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    for paragraph in paragraphs {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
    append(page, |text| roff.to_writer(text))
}

fn append_examples(page: &mut Vec<u8>, commands: &[&'static Command]) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in commands.iter().flat_map(|command| command.example.lines()) {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    append(page, |text| roff.to_writer(text))
}

/// Appends the output of `render` without the macro definitions, which the title has already.
fn append(page: &mut Vec<u8>, render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
    let mut text = Vec::new();
    render(&mut text)?;
    let lines = text.split_inclusive(|&b| b == b'\n');
    page.extend(lines.filter(|line| !line.starts_with(b".ie ") && !line.starts_with(b".el ")).flatten());
    Ok(())
}

/// Appends the section that `render` writes as paragraphs of the section before it.
fn append_contents(page: &mut Vec<u8>, render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
    let mut section = Vec::new();
    append(&mut section, render)?;
    let lines = section.split_inclusive(|&b| b == b'\n');
    page.extend(lines.flat_map(|line| if line.starts_with(b".SH") { b".PP\n" } else { line }));
    Ok(())
}
