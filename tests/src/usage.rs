//! Whether a program understands the commands that pages, and its own help, show. The tests of each program include
//! this file.

use std::path::Path;

use clap::error::ErrorKind;

#[path = "written.rs"]
mod written;

use written::Written;

/// How many commands of `program` were looked at, and what it says to those that it does not understand.
/// `translate` is what the program does with its arguments before clap sees them.
pub(crate) fn misunderstood(
    repository: &Path,
    definition: &clap::Command,
    translate: impl Fn(Vec<String>) -> Vec<String>,
) -> (usize, Vec<String>) {
    let program = definition.get_name();
    let mut commands = written::commands(repository);
    examples(definition, &mut commands);
    let (mut seen, mut wrong) = (0, Vec::new());
    for command in &commands {
        let Some((_, arguments)) = command.ours().filter(|(name, _)| *name == program) else { continue };
        seen += 1;
        let words =
            std::iter::once(program.to_owned()).chain(arguments.iter().filter_map(|word| filled(word)));
        let refusal = definition.clone().try_get_matches_from(translate(words.collect())).err();
        if let Some(refusal) = refusal.filter(|refusal| !allowed(refusal.kind(), command.whole)) {
            let text = refusal.to_string();
            let why = text.lines().next().unwrap_or_default();
            wrong.push(format!(
                "{}:{}: {}: {why}",
                command.page.display(),
                command.line,
                command.words.join(" ")
            ));
        }
    }
    (seen, wrong)
}

/// A word with its placeholder filled in: `N` is a number, `...` stands for nothing, `[--flag]` may be left out.
fn filled(word: &str) -> Option<String> {
    let word = word.trim_start_matches('[').trim_end_matches(']');
    match word {
        "..." => None,
        letter if letter.len() == 1 && letter.chars().all(|c| c.is_ascii_uppercase()) => Some("1".into()),
        word => Some(word.to_owned()),
    }
}

/// What is asked for is help; or, where a command is only mentioned, the rest of it is left out, or a letter stands for a
/// word.
fn allowed(kind: ErrorKind, whole: bool) -> bool {
    let help = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&kind);
    let parts = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::InvalidValue,
    ];
    help || (!whole && parts.contains(&kind))
}

/// The examples under the help of a command and those below it. Two spaces end a command, for a remark.
fn examples(command: &clap::Command, found: &mut Vec<Written>) {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for (number, line) in (1..).zip(help.lines()) {
        let shown = line.trim_start().split("  ").next().unwrap_or_default();
        for (_, words) in written::split(shown) {
            let page = format!("{} --help", command.get_name()).into();
            found.push(Written { page, line: number, words, whole: true });
        }
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        examples(below, found);
    }
}
