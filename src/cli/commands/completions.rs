//! `hypercore completions`: prints the completion script of a shell.

use clap::builder::PossibleValuesParser;
use clap_complete::aot::{Shell, generate};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, positional};
use crate::cli::arguments::parser::parser;
use crate::cli::failure::Result;
use crate::cli::output::Output;

const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

pub const COMPLETIONS: Command = Command {
    name: "completions",
    usage: "bash|zsh|fish",
    about: "Print a completion script for a shell",
    details: "`source <(hypercore completions bash)` loads it into the running shell.",
    arguments: || {
        let names = PossibleValuesParser::new(SHELLS.map(|(name, _)| name));
        vec![positional("SHELL", names, "bash, zsh or fish").hide_possible_values(true)]
    },
    shared: &[],
    example: "hypercore completions fish > ~/.config/fish/completions/hypercore.fish",
    action: Action::Describe(print),
};

fn print(args: &Args, commands: &'static [&'static Command]) -> Result<()> {
    let name: String = args.required("SHELL")?;
    let shell = SHELLS.into_iter().find(|(shell, _)| *shell == name).map_or(Shell::Bash, |(_, shell)| shell);
    let mut script = Vec::new();
    generate(shell, &mut parser(commands), "hypercore", &mut script);
    let mut out = Output::stdout();
    out.bytes(&script)?;
    out.finish()
}
