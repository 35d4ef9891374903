//! Model folders.

mod convert;

use std::ffi::OsString;

use anyhow::anyhow;
use comfy_table::{CellAlignment, Table};
use squad_fetch::zoo::{self, Entry};
use squad_fetch::{FetchError, FetchOptions, FetchReport, FileState, Progress, fetch_repository};

use super::teller::teller;
use super::worker;
use crate::cli::{FetchArgs, ModelsCommand, VerifyArgs};
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;
use crate::report;

/// Does what the user asked for.
pub(super) fn perform(command: &ModelsCommand, output: Output) -> anyhow::Result<Verdict> {
    match command {
        ModelsCommand::List => list(output),
        ModelsCommand::Fetch(arguments) => fetch(arguments, output),
        ModelsCommand::Convert(arguments) => convert::convert(arguments, output),
        ModelsCommand::Verify(arguments) => verify(arguments, output),
    }
}

/// Prints the zoo.
fn list(output: Output) -> anyhow::Result<Verdict> {
    output.answer(&zoo::entries(), || {
        let mut table = Table::new();
        table.set_header([
            "NAME",
            "FAMILY",
            "LAYERS",
            "HIDDEN",
            "HEADS",
            "VOCABULARY",
            "CASE",
            "PARAMETERS",
            "DOWNLOAD",
            "REPOSITORY",
        ]);
        table.add_rows(zoo::entries().iter().map(row));
        for index in [2, 3, 4, 5, 7, 8] {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        report::plain(table)
    })?;
    Ok(Verdict::Done)
}

fn row(entry: &Entry) -> [String; 10] {
    let (shape, words) = (entry.shape, entry.words);
    [
        entry.name.into(),
        entry.family.into(),
        shape.layers.to_string(),
        shape.hidden.to_string(),
        shape.heads.to_string(),
        words.vocabulary.to_string(),
        if words.cased { "cased" } else { "uncased" }.into(),
        format!("{:.1} M", entry.parameters as f64 / 1e6),
        format!("{:.0} MB", entry.download_bytes as f64 / 1e6),
        entry.repository.unwrap_or("none: squadctl models convert").into(),
    ]
}

/// Runs `squad-worker verify`.
fn verify(arguments: &VerifyArgs, output: Output) -> anyhow::Result<Verdict> {
    worker::folder("--model", &arguments.model, "squadctl models fetch brings one")?;
    worker::folder("--reference", &arguments.reference, "it holds what the other program computed")?;
    let mut words: Vec<OsString> = vec!["verify".into()];
    words.extend(["--model".into(), (&arguments.model).into()]);
    words.extend(["--reference".into(), (&arguments.reference).into()]);
    let tolerances =
        [("--tolerance", arguments.tolerance), ("--gradient-tolerance", arguments.gradient_tolerance)];
    for (flag, value) in tolerances {
        words.extend(value.map(|value| format!("{flag}={value:e}").into()));
    }
    worker::pass_on(&words, output)
}

/// Brings a repository of the model hub into a folder.
fn fetch(arguments: &FetchArgs, output: Output) -> anyhow::Result<Verdict> {
    let options = FetchOptions {
        revision: arguments.revision.clone(),
        weights_sha256: arguments.sha256.clone(),
        progress: Progress::new(teller(output)),
        ..FetchOptions::from_env()
    };
    let report =
        fetch_repository(&arguments.name, &arguments.dir, &options).map_err(|error| match error {
            FetchError::BadName { .. }
            | FetchError::NotOnHub { .. }
            | FetchError::BadChecksum { .. }
            | FetchError::ShardedChecksum { .. } => BadUsage(error.to_string()).into(),
            _ => anyhow!(error),
        })?;
    output.answer(&report, || text(&report))?;
    Ok(Verdict::Done)
}

/// The folder, which is what scripts go on with; what became of the files is for people. Repositories have one
/// of many sets of files: those that this one does not have are nobody's concern.
fn text(report: &FetchReport) -> String {
    let mut text = format!("{}\n", report.folder.display());
    for file in &report.files {
        let state = match file.state {
            FileState::Present => "was there already",
            FileState::Fetched => "fetched",
            FileState::Absent => continue,
        };
        text += &format!("  {}: {state}\n", file.name);
    }
    text
}
