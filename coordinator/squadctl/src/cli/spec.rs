//! The job of `run` and `submit`: a spec's file, or a recipe.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Subcommand};
use squad_proto::recipes::{self, Recipe};

/// Where a job spec comes from, and what is changed in it.
#[derive(Debug, Default, Args)]
pub(crate) struct SourceArgs {
    /// The job spec, YAML or JSON (its fields: squadctl schema).
    #[arg(value_name = "SPEC", required_unless_present = "recipe", conflicts_with = "recipe")]
    pub(crate) spec: Option<PathBuf>,
    /// A recipe in place of SPEC (their names: squadctl recipes list); relative paths start at the current folder.
    #[arg(long, value_name = "NAME", value_parser = RecipeParser, hide_possible_values = true)]
    pub(crate) recipe: Option<&'static Recipe>,
    /// Worker processes that share the work; -np works too [default: resources.workers of the spec].
    #[arg(short = 'n', long = "np", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) processes: Option<u32>,
    /// Change a field of the spec, as in train.epochs=1; may be repeated.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// A job spec and how it is to be run.
#[derive(Debug, Default, Args)]
pub(crate) struct SpecArgs {
    /// The spec.
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Go on from the newest valid checkpoint of the output folder, also with another -np; without one, start afresh.
    #[arg(long, conflicts_with = "eval_only")]
    pub(crate) resume: bool,
    /// Write when and how long each rank computed, reduced and waited: a trace for Perfetto or chrome://tracing; with submit,
    /// a relative path starts at the daemon's root.
    #[arg(long, value_name = "FILE", conflicts_with = "eval_only")]
    pub(crate) timeline: Option<PathBuf>,
    /// Train nothing: evaluate checkpoints of the output folder.
    #[arg(long)]
    pub(crate) eval_only: bool,
    /// What --eval-only evaluates: latest, all, or a checkpoint or model folder [default: latest].
    #[arg(long, value_name = "latest|all|PATH", requires = "eval_only")]
    pub(crate) checkpoint: Option<String>,
}

impl SpecArgs {
    /// A spec's file, as it is.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self {
            source: SourceArgs { spec: Some(path.to_owned()), ..Default::default() },
            ..Default::default()
        }
    }
}

/// The commands about recipes.
#[derive(Debug, Subcommand)]
pub(crate) enum RecipesCommand {
    /// List the recipes, with their settings and the figures that were published for them
    #[command(after_help = "\
Examples:
  squadctl recipes list
  squadctl recipes list --output json | jq -r '.[].name'")]
    List,
    /// Print a recipe as a job spec, with a comment about where it comes from
    #[command(after_help = "\
Examples:
  squadctl recipes show albert-base-squad2 > job.yaml
  squadctl recipes show albert-base-squad2 --output json | jq .spec.train")]
    Show {
        /// Its name.
        #[arg(value_name = "NAME", value_parser = RecipeParser, hide_possible_values = true)]
        recipe: &'static Recipe,
    },
}

/// Reads a recipe's name. Shells complete it, and a slip is answered with the nearest name.
#[derive(Clone)]
pub(super) struct RecipeParser;

impl TypedValueParser for RecipeParser {
    type Value = &'static Recipe;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let name = StringValueParser::new().parse_ref(command, argument, value)?;
        recipes::find(&name).map_err(|unknown| {
            clap::Error::raw(ErrorKind::InvalidValue, format!("{unknown}\n")).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(recipes::ALL.iter().map(|recipe| PossibleValue::new(recipe.name))))
    }
}
