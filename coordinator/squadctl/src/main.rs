//! Squadron's command line.
//!
//! | module | what it does |
//! |---|---|
//! | `argv` | the habits of `mpirun`, before clap reads the arguments |
//! | `cli` | every command, flag and example |
//! | `commands` | what each command does |
//! | `job_file` | from a spec's file to a job that can be submitted |
//! | `keys` | the token and the certificates that a user has |
//! | `client` | the daemon's gRPC service, its errors in a user's words |
//! | `kubernetes` | the objects by which a cluster runs a job's workers |
//! | `ticket_file` | what lets workers join that something else places |
//! | `follow` | watching a job to its end, and what Ctrl-C means there |
//! | `top` | all jobs, live on a terminal |
//! | `view` | events as bars, as lines, or as JSON |
//! | `job`, `report`, `figures` | a job as a document, as text, and the numbers in it |
//! | `reference` | job specs and failure codes as pages |
//! | `fault`, `output` | how a command ends: exit codes, stdout and stderr |
#![forbid(unsafe_code)]

mod argv;
mod cli;
mod client;
mod commands;
mod fault;
mod figures;
mod follow;
mod job;
mod job_file;
mod keys;
mod kubernetes;
mod output;
mod reference;
mod report;
mod sizes;
mod ticket_file;
mod top;
mod view;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Format};
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = argv::translate(std::env::args_os());
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(refusal) => {
            let format = if argv::asks_for_json(&arguments) { Format::Json } else { Format::Text };
            return Output::new(format).refusal(&refusal);
        }
    };
    // Logs of the coordinator inside `run` are for those who look for them: what users need comes as events.
    let filter = EnvFilter::try_from_env("SQUAD_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Whoever reads may be gone: a line that nobody reads must not end the job.
    log.log_internal_errors(false).init();

    let output = Output::new(cli.output);
    match commands::perform(cli.command, &output) {
        Ok(verdict) => verdict.into(),
        Err(error) => output.error(&error),
    }
}
