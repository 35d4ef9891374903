//! Question files.

mod featurize;
mod plot;
mod stats;

use anyhow::anyhow;
use squad_fetch::squad::{self, SquadOptions, SquadReport};
use squad_fetch::{FileState, Hub, Progress};

use super::evaluate;
use super::teller::teller;
use crate::cli::{DataCommand, PrepareArgs, Release};
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// Does what the user asked for.
pub(super) fn perform(command: &DataCommand, output: Output) -> anyhow::Result<Verdict> {
    match command {
        DataCommand::Prepare(arguments) => prepare(arguments, output),
        DataCommand::Stats(arguments) => stats::stats(arguments, output),
        DataCommand::Featurize(arguments) => featurize::featurize(arguments, output),
        DataCommand::Baseline { data } => evaluate::baseline(data, output),
    }
}

/// Brings the official files.
fn prepare(arguments: &PrepareArgs, output: Output) -> anyhow::Result<Verdict> {
    let release = match arguments.version {
        Release::V1_1 => squad::V1_1,
        Release::V2_0 => squad::V2_0,
    };
    let mut options = SquadOptions {
        force: arguments.force,
        offline: Hub::from_env().offline,
        progress: Progress::new(teller(output)),
        ..SquadOptions::default()
    };
    if let Some(mirror) = &arguments.mirror {
        if !["http://", "https://"].iter().any(|scheme| mirror.starts_with(scheme)) {
            let text = format!("--mirror {mirror}: an address starts with http:// or https://");
            return Err(BadUsage(text).into());
        }
        options.base.clone_from(mirror);
    }
    let report = squad::prepare(&release, &arguments.dir, &options).map_err(|error| anyhow!(error))?;
    output.answer(&report, || text(&report))?;
    Ok(Verdict::Done)
}

/// The folder, which is what scripts go on with; what became of the files is for people.
fn text(report: &SquadReport) -> String {
    let mut text = format!("{}\n", report.folder.display());
    for file in &report.files {
        let state = if file.state == FileState::Present { "was there already" } else { "fetched" };
        text += &format!("  {}: {state}, {} bytes, verified\n", file.file.name, file.file.bytes);
    }
    text
}
