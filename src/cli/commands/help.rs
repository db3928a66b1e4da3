//! `hypercore help`: prints the list of commands, or the help of one.

use clap::Arg;

use crate::cli::arguments::command::{Action, Command, SHARED, positional};
use crate::cli::arguments::parser::{find, parser};
use crate::cli::failure::Result;
use crate::cli::output::Output;

pub const HELP: Command = Command {
    name: "help",
    usage: "[COMMAND]",
    about: "Print the help of a command, or the list of commands",
    details: "`hypercore COMMAND --help` prints the same.",
    // The parser of the command line limits the names to those of the table.
    arguments: || vec![positional("COMMAND", clap::value_parser!(String), "Name of a command").required(false)],
    shared: &[],
    example: "hypercore help append",
    action: Action::Describe(|args, commands| {
        let topic: Option<String> = args.get("COMMAND");
        print(topic.and_then(|topic| find(commands, &topic)), commands)
    }),
};

/// The width of the text.
const COLUMNS: usize = 80;
/// The spaces before and after the name of an argument.
const MARGIN: usize = 2;
/// The columns that `clap` reserves for a short name, as in `-h, `.
const SHORT_NAME: usize = 4;

/// Prints the help of `command`, or the list of commands.
pub fn print(command: Option<&Command>, commands: &[&'static Command]) -> Result<()> {
    let mut out = Output::stdout();
    out.line(format_args!("{}", command.map_or_else(|| of_all(commands), of_command)))?;
    out.finish()
}

fn of_command(command: &Command) -> String {
    let details = wrap(&format!("{}. {}", command.about, command.details), COLUMNS);
    let usage = wrap_usage(&format!("Usage: {}", command.synopsis()));
    let example: String = command.example.lines().map(|line| format!("\n  {line}")).collect();
    let mut parser = command
        .parser()
        .help_template("{before-help}{all-args}{after-help}")
        .long_about(None::<&str>)
        .before_help(format!("{usage}\n\n{details}"))
        .after_help(format!("Example:{example}"));
    for section in [Section::Positionals, Section::Options, Section::Shared] {
        let widest = parser.get_arguments().filter(|arg| section.has(arg)).map(name_width).max().unwrap_or(0);
        let columns = COLUMNS - (MARGIN + widest + MARGIN);
        parser = parser.mut_args(|arg| match section.has(&arg) {
            true => {
                let help = wrap(&arg.get_help().map(ToString::to_string).unwrap_or_default(), columns);
                arg.help(help)
            }
            false => arg,
        });
    }
    parser.render_help().to_string().trim_end().to_owned()
}

fn of_all(commands: &[&'static Command]) -> String {
    let mut parser = parser(commands).help_template("{about}\n\nUsage: {usage}\n\n{all-args}{after-help}").after_help(
        "A core is a directory with one signed log. Its public key identifies it.\n\
             `hypercore help COMMAND` explains a command and its options, with an example.\n\
             Results go to standard output, messages to standard error.\n\
             Exit codes: 0 done, 1 failed, 2 wrong usage.\n\n\
             Example:\n  \
             hypercore create log\n  \
             echo hello | hypercore append log --lines\n  \
             hypercore cat log --lines",
    );
    parser.render_help().to_string().trim_end().to_owned()
}

/// A group of arguments. Its help texts start in the same column.
#[derive(Clone, Copy, PartialEq)]
enum Section {
    Positionals,
    Options,
    Shared,
}

impl Section {
    fn has(self, arg: &Arg) -> bool {
        let section = match (arg.is_positional(), arg.get_help_heading()) {
            (true, _) => Section::Positionals,
            (false, Some(SHARED)) => Section::Shared,
            (false, _) => Section::Options,
        };
        self == section
    }
}

/// The columns of the name of `arg` and the name of its value, as `clap` prints them.
fn name_width(arg: &Arg) -> usize {
    let value = match arg.get_value_names() {
        Some([value]) => "<>".len() + value.chars().count(),
        _ => 0,
    };
    match arg.get_long() {
        Some(long) if value > 0 => SHORT_NAME + "--".len() + long.len() + " ".len() + value,
        Some(long) => SHORT_NAME + "--".len() + long.len(),
        None if arg.get_num_args().is_some_and(|n| n.max_values() > 1) => value + "...".len(),
        None => value,
    }
}

/// Breaks `text` at spaces into lines of at most `columns`.
fn wrap(text: &str, columns: usize) -> String {
    let mut wrapped = String::new();
    let mut line = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if line > 0 && line + 1 + width > columns {
            wrapped.push('\n');
            line = 0;
        } else if line > 0 {
            wrapped.push(' ');
            line += 1;
        }
        wrapped.push_str(word);
        line += width;
    }
    wrapped
}

/// Breaks a usage line before an option if it is too long.
fn wrap_usage(usage: &str) -> String {
    match usage.rmatch_indices(" [").map(|(at, _)| at).find(|&at| at <= COLUMNS) {
        Some(at) if usage.len() > COLUMNS => format!("{}\n         {}", &usage[..at], &usage[at + 1..]),
        _ => usage.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrap_of_text_fills_lines_and_keeps_every_word() {
        assert_eq!(wrap("one two three", 7), "one two\nthree");
        assert_eq!(wrap("one two three", 13), "one two three");
        assert_eq!(wrap("incomprehensible", 3), "incomprehensible");
        assert_eq!(wrap("", 3), "");
    }
}
