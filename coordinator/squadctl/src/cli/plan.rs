//! The arguments of `plan`.

use clap::Args;

use super::SourceArgs;

/// What is to be planned.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The job.
    #[command(flatten)]
    pub(crate) job: SourceArgs,
    /// Take no steps: nothing is told of times.
    #[arg(long)]
    pub(crate) no_probe: bool,
}
