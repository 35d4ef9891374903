//! The official SQuAD metric: exact match and F1, for versions 1.1 and 2.0 alike.
//!
//! Figures and JSON keys are those of the official version 2.0 script; all scores are percent.

mod compare;
mod curves;
mod files;
mod histogram;
mod questions;
mod threshold;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::squad::Dataset;

pub use compare::compare;
pub(crate) use compare::{accepted, against};
pub use curves::{Curve, Curves, Point};
pub use files::{read_na_prob, read_predictions};
pub use histogram::OddsHistogram;
pub use questions::Scores;

/// The metric's figures; serialises to the official script's JSON, leaving out what it leaves out.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Metrics {
    /// Percent of questions whose normalised answer equals an accepted one.
    pub exact: f64,
    /// Mean word-overlap F1 with the best accepted answer, in percent.
    pub f1: f64,
    /// Number of questions.
    pub total: usize,
    /// `exact` over answerable questions; absent where there are none.
    #[serde(rename = "HasAns_exact", skip_serializing_if = "Option::is_none")]
    pub has_ans_exact: Option<f64>,
    /// `f1` over answerable questions.
    #[serde(rename = "HasAns_f1", skip_serializing_if = "Option::is_none")]
    pub has_ans_f1: Option<f64>,
    /// Number of answerable questions.
    #[serde(rename = "HasAns_total", skip_serializing_if = "Option::is_none")]
    pub has_ans_total: Option<usize>,
    /// `exact` over unanswerable questions; absent where there are none.
    #[serde(rename = "NoAns_exact", skip_serializing_if = "Option::is_none")]
    pub no_ans_exact: Option<f64>,
    /// `f1` over unanswerable questions.
    #[serde(rename = "NoAns_f1", skip_serializing_if = "Option::is_none")]
    pub no_ans_f1: Option<f64>,
    /// Number of unanswerable questions.
    #[serde(rename = "NoAns_total", skip_serializing_if = "Option::is_none")]
    pub no_ans_total: Option<usize>,
    /// Best `exact` that abstaining above some null odds could reach; absent without null odds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_exact: Option<f64>,
    /// The null odds above which to abstain for `best_exact`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_exact_thresh: Option<f64>,
    /// Best `f1` that abstaining above some null odds could reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_f1: Option<f64>,
    /// The null odds above which to abstain for `best_f1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_f1_thresh: Option<f64>,
    /// Average precision, in percent, of the exact match curve; absent without curves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pr_exact_ap: Option<f64>,
    /// Average precision of the F1 curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pr_f1_ap: Option<f64>,
    /// Average precision of the oracle's curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pr_oracle_ap: Option<f64>,
    /// Ids of questions without a prediction, in file order. Each is scored as an
    /// empty answer, so 0 unless it is unanswerable. Not serialised.
    #[serde(skip)]
    pub missing: Vec<String>,
}

impl Metrics {
    /// The null odds above which revised predictions are empty: the mean of both best
    /// thresholds. `None` where no threshold was searched.
    #[must_use]
    pub fn revision_threshold(&self) -> Option<f64> {
        Some(f64::midpoint(self.best_exact_thresh?, self.best_f1_thresh?))
    }

    /// Adds the average precision of the three curves.
    pub fn add(&mut self, curves: &Curves) {
        self.pr_exact_ap = Some(curves.exact.ap);
        self.pr_f1_ap = Some(curves.f1.ap);
        self.pr_oracle_ap = Some(curves.oracle.ap);
    }
}

/// Scores predictions (question id to text) against a data set.
///
/// `na_prob` holds each question's null odds; with it a question above
/// `na_prob_thresh` counts as abstained, and the best thresholds are searched.
/// Questions with equal null odds are visited in the order of their ids; use
/// [`evaluate_ordered`] to visit them in a file's order, as the official script does.
#[must_use]
pub fn evaluate(
    dataset: &Dataset,
    predictions: &BTreeMap<String, String>,
    na_prob: Option<&BTreeMap<String, f64>>,
    na_prob_thresh: f64,
) -> Metrics {
    let ordered: Option<Vec<(String, f64)>> =
        na_prob.map(|odds| odds.iter().map(|(id, p)| (id.clone(), *p)).collect());
    evaluate_ordered(dataset, predictions, ordered.as_deref(), na_prob_thresh)
}

/// [`evaluate`] with null odds in a given order, which decides the threshold search
/// where odds are equal.
#[must_use]
pub fn evaluate_ordered(
    dataset: &Dataset,
    predictions: &BTreeMap<String, String>,
    na_prob: Option<&[(String, f64)]>,
    na_prob_thresh: f64,
) -> Metrics {
    Scores::of(dataset, predictions).metrics(na_prob, na_prob_thresh)
}

/// The predictions with those above a threshold of null odds made empty.
#[must_use]
pub fn revised(
    predictions: &BTreeMap<String, String>,
    na_prob: &BTreeMap<String, f64>,
    thresh: f64,
) -> BTreeMap<String, String> {
    let abstains = |id: &str| na_prob.get(id).is_some_and(|odds| *odds > thresh);
    let text = |id: &str, text: &String| if abstains(id) { String::new() } else { text.clone() };
    predictions.iter().map(|(id, t)| (id.clone(), text(id, t))).collect()
}
