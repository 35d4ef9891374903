//! Measuring.

mod all_reduce;
mod links;
mod plot;
mod step;

use crate::cli::BenchCommand;
use crate::fault::Verdict;
use crate::output::Output;

/// Measures what the user asked for.
pub(super) fn perform(command: &BenchCommand, output: Output) -> anyhow::Result<Verdict> {
    match command {
        BenchCommand::AllReduce(arguments) => all_reduce::measure(arguments, output),
        BenchCommand::Step(arguments) => step::measure(arguments, output),
        BenchCommand::Rank => Ok(squad_collective::bench::live(Vec::new()).map(|()| Verdict::Done)?),
    }
}
