//! The arguments of `plan`.

use std::path::PathBuf;

use clap::Args;
use squad_proto::recipes::Recipe;

use super::SpecArgs;
use super::spec::RecipeParser;

/// What is to be planned.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The job spec, YAML or JSON.
    #[arg(value_name = "SPEC", required_unless_present = "recipe", conflicts_with = "recipe")]
    spec: Option<PathBuf>,
    /// A recipe in place of SPEC.
    #[arg(long, value_name = "NAME", value_parser = RecipeParser, hide_possible_values = true)]
    recipe: Option<&'static Recipe>,
    /// Worker processes that share the work; -np works too [default: resources.workers of the spec].
    #[arg(short = 'n', long = "np", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) processes: Option<u32>,
    /// Change a field of the spec, as in train.epochs=1; may be repeated.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    overrides: Vec<String>,
    /// Take no steps: nothing is told of times.
    #[arg(long)]
    pub(crate) no_probe: bool,
}

impl PlanArgs {
    /// The job, as `run` takes it.
    pub(crate) fn job(&self) -> SpecArgs {
        SpecArgs {
            spec: self.spec.clone(),
            recipe: self.recipe,
            processes: self.processes,
            overrides: self.overrides.clone(),
            resume: false,
            timeline: None,
            eval_only: false,
            checkpoint: None,
        }
    }
}
