//! The `hypercore` command. A failure becomes an error line and an exit code here.

#![deny(unsafe_code)]

mod cli;

use std::process::ExitCode;

use cli::Failure;

fn main() -> ExitCode {
    match cli::run(std::env::args_os().skip(1)) {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::from(1),
        Err(Failure::Failed(message)) => {
            cli::say(format_args!("error: {}", cli::one_line(&message)));
            ExitCode::from(1)
        }
        Err(Failure::Usage { message, usage }) => {
            cli::say(format_args!("error: {}\n{usage}", cli::one_line(&message)));
            ExitCode::from(2)
        }
    }
}
