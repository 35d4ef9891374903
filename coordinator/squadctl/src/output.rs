//! The only place that writes, but for `top`, which draws: data to stdout, talk to stderr.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use squad_proto::spec::SpecError;

use crate::cli::Format;
use crate::fault;

/// Where a command's words go, and in which shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    /// Stderr is a terminal that can redraw lines.
    live: bool,
    colour: bool,
    /// Stdout may be coloured.
    colour_data: bool,
}

/// A colour of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Yellow,
    Red,
}

impl Output {
    /// Looks at the terminal and at NO_COLOR (<https://no-color.org>: set and not empty).
    pub(crate) fn new(format: Format) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let able = set("TERM").is_some_and(|term| term != "dumb");
        let live = io::stderr().is_terminal() && able;
        let plain = set("NO_COLOR").is_some();
        let colour_data = io::stdout().is_terminal() && able && !plain;
        Self { format, live, colour: live && !plain, colour_data }
    }

    /// Whether stdout is to be one JSON document.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Whether progress bars can be drawn on stderr.
    pub(crate) fn is_live(self) -> bool {
        self.live
    }

    /// Whether stderr may be coloured.
    pub(crate) fn is_coloured(self) -> bool {
        self.colour
    }

    /// Whether stdout may be coloured.
    pub(crate) fn colours_data(self) -> bool {
        self.colour_data
    }

    /// Text on stdout. A reader that has gone away (`squadctl list | head -1`) is no error.
    pub(crate) fn data(self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to stdout")
            }
            _ => Ok(()),
        }
    }

    /// One JSON document on stdout.
    pub(crate) fn document(self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        self.data(&serde_json::to_string_pretty(value).context("cannot write the answer as JSON")?)
    }

    /// The answer as JSON or as text, as the user asked.
    pub(crate) fn answer(
        self,
        value: &impl serde::Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if self.is_json() { self.document(value) } else { self.data(&text()) }
    }

    /// A line on stderr. Nobody is left to tell when stderr is closed.
    pub(crate) fn talk(self, text: &str) {
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// `text` in red where stderr has colours.
    pub(crate) fn red(self, text: &str) -> String {
        if self.colour { format!("\u{1b}[1;31m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// `text` in a colour where stdout has colours.
    pub(crate) fn painted(self, text: &str, colour: Colour) -> String {
        let number = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
        };
        if self.colour_data { format!("\u{1b}[1;{number}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Says why a command could not be done, and gives its exit code.
    pub(crate) fn error(self, error: &anyhow::Error) -> ExitCode {
        let (sentence, code) = (fault::sentence(error), fault::exit_code(error));
        self.talk(&format!("{} {sentence}", self.red("error:")));
        if self.is_json() {
            let mut document = json!({"error": sentence, "exit_code": code});
            if let Some(problems) =
                error.chain().find_map(|e| e.downcast_ref::<SpecError>()).and_then(problems)
            {
                document["problems"] = problems;
            }
            // The exit code tells already that something failed; a closed stdout adds nothing.
            drop(self.document(&document));
        }
        ExitCode::from(code)
    }

    /// Passes on what clap says about the arguments: help and version are answers, the rest is bad usage.
    pub(crate) fn refusal(self, refusal: &clap::Error) -> ExitCode {
        drop(refusal.print());
        if !refusal.use_stderr() {
            return ExitCode::SUCCESS;
        }
        if self.is_json() {
            let text = refusal.to_string();
            let sentence = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            drop(self.document(&json!({"error": sentence, "exit_code": 2})));
        }
        ExitCode::from(2)
    }
}

/// The problems of a spec as JSON, for editors and scripts.
fn problems(error: &SpecError) -> Option<Value> {
    let SpecError::Invalid { problems, .. } = error else { return None };
    let one =
        |p: &squad_proto::spec::Problem| json!({"path": p.path, "found": p.found, "allowed": p.allowed});
    Some(problems.iter().map(one).collect())
}
