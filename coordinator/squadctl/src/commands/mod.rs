//! What each command does.

mod bench;
mod daemon;
mod data;
mod doctor;
mod evaluate;
mod models;
mod mpirun;
mod offline;
mod plan;
mod predict;
mod recipes;
mod render;
mod run;
mod teller;
mod worker;

use std::time::Duration;

use anyhow::Context;

use crate::cli::Command;
use crate::fault::Verdict;
use crate::output::Output;
use crate::top;

/// Does what the user asked for.
pub(crate) fn perform(command: Command, output: &Output) -> anyhow::Result<Verdict> {
    let output = *output;
    match command {
        Command::Run(arguments) => with_runtime(run::run(*arguments, output)),
        Command::Submit { spec, external, priority, wait, server } => {
            with_runtime(daemon::submit((spec, external), (priority, wait), server, output))
        }
        Command::List { server } => with_runtime(daemon::list(server, output)),
        Command::Top(arguments) => with_runtime(top::top(arguments, output)),
        Command::Get { job } => with_runtime(daemon::get(job, output)),
        Command::Watch { job } => with_runtime(daemon::watch(job, output)),
        Command::Logs { job, rank, follow, tail } => {
            with_runtime(daemon::logs(job, (rank, follow, tail.unwrap_or(0)), output))
        }
        Command::Cancel { job, wait } => with_runtime(daemon::cancel(job, wait, output)),
        Command::Explain { code } => offline::explain(&code, output),
        Command::Evaluate(files) => evaluate::evaluate(&files, output),
        Command::Bench { command } => bench::perform(&command, output),
        Command::Data { command } => data::perform(&command, output),
        Command::Predict(question) => predict::predict(&question, output),
        Command::Models { command } => models::perform(&command, output),
        Command::Recipes { command } => recipes::perform(&command, output),
        Command::Render { command } => render::perform(&command, output),
        Command::Plan(arguments) => plan::plan(&arguments, output),
        Command::Doctor(arguments) => doctor::doctor(&arguments, output),
        Command::Schema { markdown } => offline::schema(markdown, output),
        Command::Man { folder } => offline::man(&folder, output),
        Command::Completions { shell } => offline::completions(shell, output),
    }
}

/// Runs a command that talks over gRPC.
fn with_runtime(command: impl Future<Output = anyhow::Result<Verdict>>) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let verdict = runtime.block_on(Box::pin(command));
    // A file operation that hangs must not keep the prompt from coming back. Fixed: the command is done.
    runtime.shutdown_timeout(Duration::from_secs(2));
    verdict
}
