//! Turns an error of `clap` into one line: what is wrong, and the nearest name for a mistyped one.

use std::error::Error;

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub fn message(error: &clap::Error) -> String {
    let given = text(error, ContextKind::InvalidArg);
    let argument = name(&given);
    let value = text(error, ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::MissingSubcommand => "a command is missing".into(),
        ErrorKind::InvalidSubcommand => {
            let given = text(error, ContextKind::InvalidSubcommand);
            format!("unknown command {given:?}{}", suggestion(error, ContextKind::SuggestedSubcommand))
        }
        ErrorKind::UnknownArgument => match given.starts_with('-') {
            true => format!("unknown option {given}{}", suggestion(error, ContextKind::SuggestedArg)),
            false => format!("unexpected argument {given:?}"),
        },
        ErrorKind::MissingRequiredArgument => {
            let missing = texts(error, ContextKind::InvalidArg);
            match missing.iter().map(|argument| name(argument)).collect::<Vec<_>>()[..] {
                [ref others @ .., one, last] => {
                    format!("{} and {last} are missing", [others, &[one]].concat().join(", "))
                }
                [one] => format!("{one} is missing"),
                [] => "an argument is missing".into(),
            }
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{argument} needs a value"),
        ErrorKind::InvalidValue => {
            let valid = texts(error, ContextKind::ValidValue).join(", ");
            let nearest = suggestion(error, ContextKind::SuggestedValue);
            format!("{argument}: {value:?} is not one of {valid}{nearest}")
        }
        ErrorKind::ValueValidation => {
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{argument}: {why}")
        }
        ErrorKind::TooManyValues => format!("{argument} takes no value"),
        ErrorKind::ArgumentConflict => match text(error, ContextKind::PriorArg) {
            other if other.is_empty() || name(&other) == argument => format!("{argument} is given twice"),
            other => format!("{argument} and {} exclude each other", name(&other)),
        },
        ErrorKind::InvalidUtf8 => "an argument is not valid Unicode".into(),
        kind => kind.to_string(),
    }
}

/// `; did you mean NAME?`, or nothing if no name is near.
fn suggestion(error: &clap::Error, kind: ContextKind) -> String {
    // `clap` sorts the names by rising similarity.
    texts(error, kind).pop().map_or(String::new(), |nearest| format!("; did you mean {nearest}?"))
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    texts(error, kind).into_iter().next().unwrap_or_default()
}

fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

/// The name in `clap`'s notation: `--start` for `--start <N>`, `FILE` for `[FILE]...`.
fn name(argument: &str) -> &str {
    let name = argument.split(' ').next().unwrap_or_default();
    if name.starts_with('-') { name } else { name.trim_matches(['<', '>', '[', ']', '.']) }
}
