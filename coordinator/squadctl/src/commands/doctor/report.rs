//! What was found, for people.

use comfy_table::{CellAlignment, Table, presets};

use super::{Check, Document, Finding};
use crate::output::{Colour, Output};

/// Width of the names of checks.
const NAME: usize = 15;

pub(super) fn text(document: &Document, output: Output) -> String {
    let mut text = String::new();
    for check in &document.checks {
        text += &one(check, output);
    }
    let mut waits = Table::new();
    waits.load_preset(presets::NOTHING);
    for wait in &document.deadlines {
        waits.add_row([wait.name.to_owned(), format!("{:.2} s", wait.seconds), wait.meaning.to_owned()]);
    }
    if let Some(column) = waits.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let count = |finding| document.checks.iter().filter(|check| check.finding == finding).count();
    let (warnings, bad) = (count(Finding::Warning), count(Finding::Bad));
    let sum = match (bad, warnings) {
        (0, 0) => "nothing stands in the way of a run".to_owned(),
        (0, warnings) => format!("a run works; {warnings} to look at"),
        (bad, warnings) => format!("a run does not work: {bad} bad, {warnings} to look at"),
    };
    text += &format!(
        "\n{sum}\n\nHow long each party waits for another, with a patience of {} s:\n{waits}\n",
        document.patience_s
    );
    text
}

fn one(check: &Check, output: Output) -> String {
    let (sign, colour) = match check.finding {
        Finding::Ok => ("ok     ", Colour::Green),
        Finding::Warning => ("warning", Colour::Yellow),
        Finding::Bad => ("BAD    ", Colour::Red),
    };
    let mut text = format!("{} {:NAME$} {}\n", output.painted(sign, colour), check.name, check.text);
    if let Some(remedy) = &check.remedy {
        text += &format!("{:7} {:NAME$} -> {remedy}\n", "", "");
    }
    text
}
