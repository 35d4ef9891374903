//! `squad-worker plan`: what a job will need.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use squad_proto::{JobSpec, Phase, Progress, threads_per_worker};
use squad_train::Report;
use squad_train::plan::{Subject, plan};

use crate::{device, join, shape};

/// What to plan. The job is read from standard input, as JSON with absolute paths and all defaults.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Processes that are to share the work.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    workers: u32,
    /// Take no steps, and tell no times.
    #[arg(long)]
    no_probe: bool,
}

/// Prints the plan as one line of JSON.
///
/// # Errors
/// What the job would fail of.
pub(crate) fn tell(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read the job")?;
    let spec: JobSpec = serde_json::from_str(&text).context("a job that makes no sense")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    join::set_threads(threads_per_worker(cores, args.workers));
    // Before libtorch is asked for anything: it looks for its CUDA half once.
    let (device, note) = device::choose(&spec.resources, 0)?;
    note.into_iter().for_each(|note| tracing::info!("{note}"));
    let subject = Subject { spec: &spec, workers: args.workers, model: shape::shape(&spec.model)?, device };
    let found = plan(&subject, !args.no_probe, &Told)?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&found)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what is noted on the way to whoever reads the log.
struct Told;

impl Report for Told {
    fn tick(&self, _: Phase, _: u64, _: u64) {}
    fn progress(&self, _: Progress) {}
    fn note(&self, text: String) {
        tracing::info!("{text}");
    }
}
