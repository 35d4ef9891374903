//! SQuAD's official metric, and the yardstick below it.

mod plot;

use std::collections::HashSet;
use std::path::Path;

use anyhow::anyhow;
use serde_json::json;
use squad_data::baseline::constant_baseline;
use squad_data::score::{self, Scores};
use squad_data::{DataError, Dataset, squad};

use crate::cli::EvaluateArgs;
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// Oddities that are named before the rest are only counted.
const NAMED: usize = 5;

/// Scores a file of predictions; prints the official script's JSON.
pub(super) fn evaluate(files: &EvaluateArgs, output: Output) -> anyhow::Result<Verdict> {
    let dataset = squad::read(&files.data).map_err(fault)?;
    let predictions = score::read_predictions(&files.predictions).map_err(fault)?;
    let na_prob = files.na_prob.as_deref().map(score::read_na_prob).transpose().map_err(fault)?;
    let scores = Scores::of(&dataset, &predictions);
    let mut metrics = scores.metrics(na_prob.as_deref(), files.na_prob_thresh);
    let warnings: Vec<String> = dataset.warnings.iter().map(ToString::to_string).collect();
    name(&warnings, "", output);
    name(&metrics.missing, "no prediction, counted as an empty answer: ", output);
    name(
        &strangers(&dataset, predictions.keys()),
        "a prediction for a question that is not in the data: ",
        output,
    );
    if let (Some(folder), Some(na_prob)) = (&files.curves, &na_prob) {
        let curves = scores.curves(na_prob);
        match &curves {
            Some(curves) => metrics.add(curves),
            None => output.talk("no precision-recall curves: no question of the data is answerable"),
        }
        let drawn = plot::draw(folder, &scores, na_prob, curves.as_ref())?;
        if !output.is_json() {
            output.talk(&format!("drawn in {}: {}", folder.display(), drawn.join(", ")));
        }
    }
    output.document(&metrics)?;
    Ok(Verdict::Done)
}

/// Prints the best figures of rules that never read the question.
pub(super) fn baseline(data: &Path, output: Output) -> anyhow::Result<Verdict> {
    let best = constant_baseline(&squad::read(data).map_err(fault)?);
    let document = json!({"rule": best.rule.to_string(), "f1": best.f1, "exact": best.exact});
    output.answer(&document, || format!("F1 {:.2}, EM {:.2}: {}", best.f1, best.exact, best.rule))?;
    Ok(Verdict::Done)
}

/// A file that is not there is a slip in the arguments; one with the wrong content is a failed check.
pub(super) fn fault(error: DataError) -> anyhow::Error {
    match error {
        DataError::Read { .. } => BadUsage(error.to_string()).into(),
        _ => anyhow!(error),
    }
}

/// Predictions whose question is not in the data: most likely the two files do not belong together.
fn strangers<'a>(dataset: &Dataset, ids: impl Iterator<Item = &'a String>) -> Vec<String> {
    let known: HashSet<&str> = dataset.questions.iter().map(|q| q.id.as_str()).collect();
    ids.filter(|id| !known.contains(id.as_str())).cloned().collect()
}

pub(super) fn name(items: &[String], what: &str, output: Output) {
    for item in items.iter().take(NAMED) {
        output.talk(&format!("{what}{item}"));
    }
    if items.len() > NAMED {
        output.talk(&format!("{what}{} more", items.len() - NAMED));
    }
}
