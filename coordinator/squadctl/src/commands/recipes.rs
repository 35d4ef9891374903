//! The recipes that are part of this program.

use anyhow::Context;
use comfy_table::Table;
use serde_json::{Value, json};
use squad_proto::JobSpec;
use squad_proto::recipes::{self, Figures, Recipe};

use crate::cli::RecipesCommand;
use crate::fault::Verdict;
use crate::output::Output;
use crate::report;

/// Lists the recipes, or prints one.
pub(super) fn perform(command: &RecipesCommand, output: Output) -> anyhow::Result<Verdict> {
    match command {
        RecipesCommand::List => list(output)?,
        RecipesCommand::Show { recipe } => show(recipe, output)?,
    }
    Ok(Verdict::Done)
}

fn list(output: Output) -> anyhow::Result<()> {
    let specs = recipes::ALL.iter().map(spec).collect::<anyhow::Result<Vec<JobSpec>>>()?;
    let all = || recipes::ALL.iter().zip(&specs);
    let documents: Vec<Value> = all().map(|(recipe, spec)| document(recipe, spec)).collect();
    output.answer(&documents, || {
        let mut table = Table::new();
        table.set_header([
            "RECIPE",
            "MODEL",
            "BATCH",
            "EPOCHS",
            "RATE",
            "LENGTH",
            "EM/F1 FLOAT32",
            "EM/F1 FLOAT16",
        ]);
        for (recipe, spec) in all() {
            table.add_row(row(recipe, spec));
        }
        report::plain(table)
    })
}

/// Prints the YAML as it is, comment and all; as JSON, with what is in it.
fn show(recipe: &Recipe, output: Output) -> anyhow::Result<()> {
    let spec = spec(recipe)?;
    let mut document = document(recipe, &spec);
    document["spec"] = serde_json::to_value(&spec).context("cannot write the spec as JSON")?;
    document["yaml"] = recipe.yaml.into();
    output.answer(&document, || recipe.yaml.to_owned())
}

fn spec(recipe: &Recipe) -> anyhow::Result<JobSpec> {
    Ok(recipe.spec()?.into_inner())
}

fn document(recipe: &Recipe, spec: &JobSpec) -> Value {
    json!({
        "name": recipe.name,
        "summary": recipe.summary(),
        "model": spec.model,
        "global_batch": spec.global_batch(),
        "epochs": spec.train.epochs,
        "learning_rate": spec.train.learning_rate,
        "max_seq_length": spec.data.max_seq_length,
        "published": recipe.published,
    })
}

fn row(recipe: &Recipe, spec: &JobSpec) -> [String; 8] {
    let figures = |of: Option<Figures>| of.map_or("-".into(), |f| format!("{:.2}/{:.2}", f.exact, f.f1));
    [
        recipe.name.into(),
        spec.model.clone(),
        spec.global_batch().to_string(),
        spec.train.epochs.to_string(),
        format!("{:e}", spec.train.learning_rate),
        spec.data.max_seq_length.to_string(),
        figures(recipe.published.float32),
        figures(recipe.published.float16),
    ]
}
