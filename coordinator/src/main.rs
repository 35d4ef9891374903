//! `squad-coordinator`: the daemon.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    cli::start_log(args.log_format());
    cli::perform(args)
}
