//! The threshold between an answer and none: what it was tuned on, and what becomes of the answers.

use std::collections::BTreeMap;

use serde::Serialize;
use squad_data::{Dataset, score};

use crate::evaluate::Evaluation;

/// Whose answers a threshold was searched on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum TunedOn {
    /// Those to the dev file, whose figures the threshold then flatters.
    Dev,
    /// Those to training questions that were held out of training.
    Train {
        /// Their share of the training file.
        share: f64,
    },
}

/// The null odds above which a revised answer is empty; the `threshold` section of results.json.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Threshold {
    /// Whose answers it was searched on.
    #[serde(flatten)]
    pub tuned_on: TunedOn,
    /// How many questions those were.
    pub questions: usize,
    /// The mean of the thresholds that are best for exact match and for F1.
    pub value: f64,
}

impl Threshold {
    /// The threshold that an evaluation suggests; `None` for version 1.1, where every question has an answer.
    pub fn suggested_by(evaluation: &Evaluation, tuned_on: TunedOn) -> Option<Self> {
        let value = evaluation.metrics.revision_threshold()?;
        Some(Self { tuned_on, questions: evaluation.metrics.total, value })
    }
}

/// The answers at a threshold.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The threshold.
    pub threshold: Threshold,
    /// Question id to text; empty above the threshold.
    pub answers: BTreeMap<String, String>,
    /// Exact match of these answers, in percent.
    pub exact: f64,
    /// F1 of these answers, in percent.
    pub f1: f64,
}

impl Revision {
    /// The answers of an evaluation of `dataset`, at a threshold that may come from another set.
    pub fn new(evaluation: &Evaluation, dataset: &Dataset, threshold: Threshold) -> Self {
        let predictions = evaluation.answers.iter().map(|a| (a.id.clone(), a.text.clone())).collect();
        let null_odds = evaluation.answers.iter().map(|a| (a.id.clone(), a.null_odds)).collect();
        let answers = score::revised(&predictions, &null_odds, threshold.value);
        let metrics = score::evaluate(dataset, &answers, None, 1.0);
        Self { threshold, answers, exact: metrics.exact, f1: metrics.f1 }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_say_what_the_threshold_was_tuned_on() {
        let written =
            |tuned_on| serde_json::to_value(Threshold { tuned_on, questions: 9, value: 0.25 }).unwrap();
        assert_eq!(written(TunedOn::Dev), json!({"from": "dev", "questions": 9, "value": 0.25}));
        assert_eq!(
            written(TunedOn::Train { share: 0.05 }),
            json!({"from": "train", "share": 0.05, "questions": 9, "value": 0.25})
        );
    }
}
