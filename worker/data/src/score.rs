//! The official SQuAD metric: exact match and F1, for versions 1.1 and 2.0 alike.
//!
//! Figures and JSON keys are those of the official version 2.0 script; all scores are percent.

mod files;

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::Serialize;

use crate::normalise::normalise;
use crate::squad::{Dataset, Question};

pub use files::{read_na_prob, read_predictions};

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
}

/// What one question earned, between 0 and 1.
#[derive(Debug, Clone, Copy)]
struct Earned {
    answerable: bool,
    /// The prediction is there and not empty.
    attempted: bool,
    exact: f64,
    f1: f64,
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
    // Of questions with one id the last counts, at the first one's place.
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut questions: Vec<&Question> = Vec::new();
    for question in &dataset.questions {
        let at = *place.entry(&question.id).or_insert(questions.len());
        if at == questions.len() {
            questions.push(question);
        } else {
            questions[at] = question;
        }
    }
    let earned: Vec<Earned> =
        questions.par_iter().map(|q| earn(q, predictions.get(&q.id).map_or("", String::as_str))).collect();

    let odds: HashMap<&str, f64> = na_prob.unwrap_or(&[]).iter().map(|(id, p)| (id.as_str(), *p)).collect();
    let final_scores: Vec<Earned> = questions
        .iter()
        .zip(&earned)
        .map(|(q, e)| {
            let abstains = odds.get(q.id.as_str()).copied().unwrap_or(0.0) > na_prob_thresh;
            let score = f64::from(u8::from(!e.answerable));
            if abstains { Earned { exact: score, f1: score, ..*e } } else { *e }
        })
        .collect();

    let all = means(&final_scores, |_| true);
    let has = means(&final_scores, |e| e.answerable);
    let no = means(&final_scores, |e| !e.answerable);
    let search =
        |score: fn(&Earned) -> f64| na_prob.map(|na_prob| best_threshold(na_prob, &place, &earned, score));
    let (best_exact, best_f1) = (search(|e| e.exact), search(|e| e.f1));
    Metrics {
        exact: all.map_or(0.0, |m| m.0),
        f1: all.map_or(0.0, |m| m.1),
        total: questions.len(),
        has_ans_exact: has.map(|m| m.0),
        has_ans_f1: has.map(|m| m.1),
        has_ans_total: has.map(|m| m.2),
        no_ans_exact: no.map(|m| m.0),
        no_ans_f1: no.map(|m| m.1),
        no_ans_total: no.map(|m| m.2),
        best_exact: best_exact.map(|b| b.0),
        best_exact_thresh: best_exact.map(|b| b.1),
        best_f1: best_f1.map(|b| b.0),
        best_f1_thresh: best_f1.map(|b| b.1),
        missing: questions
            .iter()
            .filter(|q| !predictions.contains_key(&q.id))
            .map(|q| q.id.clone())
            .collect(),
    }
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

/// Exact match and F1 (0 to 1) of one text against a question's accepted answers.
#[must_use]
pub fn compare(question: &Question, guess: &str) -> (f64, f64) {
    against(&accepted(question), guess)
}

/// The accepted answers in normalised form; the empty text where none remains.
pub(crate) fn accepted(question: &Question) -> Vec<String> {
    let texts = question.answers.iter().map(|a| normalise(&a.text));
    let golds: Vec<String> = texts.filter(|t| !t.is_empty()).collect();
    if golds.is_empty() { vec![String::new()] } else { golds }
}

/// Exact match and F1 of one text against normalised answers, the best of each.
pub(crate) fn against(golds: &[String], guess: &str) -> (f64, f64) {
    let guess = normalise(guess);
    let exact = golds.contains(&guess);
    let f1 = golds.iter().map(|gold| overlap(gold, &guess)).fold(0.0, f64::max);
    (f64::from(u8::from(exact)), f1)
}

fn earn(question: &Question, prediction: &str) -> Earned {
    let (exact, f1) = compare(question, prediction);
    Earned { answerable: question.has_answer(), attempted: !prediction.is_empty(), exact, f1 }
}

/// F1 of two normalised texts as bags of words.
fn overlap(gold: &str, guess: &str) -> f64 {
    let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).count();
    let (golds, guesses) = (words(gold), words(guess));
    if golds == 0 || guesses == 0 {
        return f64::from(u8::from(golds == guesses));
    }
    let mut bag: HashMap<&str, usize> = HashMap::new();
    for word in gold.split(' ') {
        *bag.entry(word).or_default() += 1;
    }
    let mut same = 0u32;
    for word in guess.split(' ') {
        if let Some(left) = bag.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let (precision, recall) = (f64::from(same) / guesses as f64, f64::from(same) / golds as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Percent exact, percent F1 and number of the questions that `keep` takes; `None` for none.
fn means(earned: &[Earned], keep: impl Fn(&Earned) -> bool) -> Option<(f64, f64, usize)> {
    let kept: Vec<&Earned> = earned.iter().filter(|e| keep(e)).collect();
    let mean =
        |score: fn(&Earned) -> f64| 100.0 * kept.iter().map(|e| score(e)).sum::<f64>() / kept.len() as f64;
    (!kept.is_empty()).then(|| (mean(|e| e.exact), mean(|e| e.f1), kept.len()))
}

/// The best percentage that abstaining above some null odds reaches, and those odds.
///
/// Starts from abstaining always; questions are then answered in the order of their
/// null odds: an answerable one earns its score, an unanswerable one that was
/// attempted loses the point it had for abstaining.
fn best_threshold(
    na_prob: &[(String, f64)],
    place: &HashMap<&str, usize>,
    earned: &[Earned],
    score: fn(&Earned) -> f64,
) -> (f64, f64) {
    let mut order: Vec<(f64, &Earned)> =
        na_prob.iter().filter_map(|(id, odds)| Some((*odds, &earned[*place.get(id.as_str())?]))).collect();
    // Adding zero makes -0.0 equal to 0.0, as Python compares; a stable sort keeps the given order of equals.
    order.sort_by(|a, b| (a.0 + 0.0).total_cmp(&(b.0 + 0.0)));
    let mut current = earned.iter().filter(|e| !e.answerable).count() as f64;
    let (mut top, mut threshold) = (current, 0.0);
    for (odds, e) in order {
        current += match (e.answerable, e.attempted) {
            (true, _) => score(e),
            (false, true) => -1.0,
            (false, false) => 0.0,
        };
        if current > top {
            (top, threshold) = (current, odds);
        }
    }
    (100.0 * top / (earned.len().max(1) as f64), threshold)
}
