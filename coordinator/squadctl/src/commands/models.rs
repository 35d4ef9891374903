//! Model folders.

mod convert;

use std::ffi::OsString;
use std::sync::Mutex;

use anyhow::anyhow;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use squad_fetch::zoo::{self, Entry};
use squad_fetch::{Event, FetchError, FetchOptions, FetchReport, FileState, Progress, fetch_repository};

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

/// Shows a download: a bar where one can be drawn, else a line for each file and for what goes wrong.
fn teller(output: Output) -> impl Fn(&Event<'_>) + Send + Sync {
    let target = if output.is_live() { ProgressDrawTarget::stderr } else { ProgressDrawTarget::hidden };
    let style =
        ProgressStyle::with_template("{prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let current: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    move |event| {
        // Nothing panics while the lock is held; a poisoned bar could still be drawn.
        let mut current = current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let say = |text: &str| match &*current {
            Some((_, bar)) if output.is_live() => bar.println(text),
            _ => output.talk(text),
        };
        match event {
            Event::Bytes { file, done, total } => {
                if current.as_ref().is_none_or(|(name, _)| name != file) {
                    let bar = ProgressBar::with_draw_target(*total, target()).with_style(style.clone());
                    bar.set_prefix((*file).to_owned());
                    *current = Some(((*file).to_owned(), bar));
                }
                if let Some((_, bar)) = &*current {
                    bar.set_position(*done);
                }
            }
            Event::Retry { file, reason, pause } => {
                say(&format!("{file}: {reason}; trying again in {:.0} s", pause.as_secs_f64()));
            }
            Event::Waiting { file } => {
                say(&format!("{file}: another process is fetching it; waiting for that"))
            }
            Event::Done { file, bytes } => {
                if let Some((_, bar)) = current.take() {
                    bar.finish_and_clear();
                }
                output.talk(&format!("{file}: {bytes} bytes, complete"));
            }
            _ => {}
        }
    }
}
