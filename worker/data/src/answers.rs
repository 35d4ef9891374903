//! From the model's scores to answer texts.
//!
//! A question's context may have been cut into several windows; all their
//! candidates compete. The two heads follow the program that each of them comes
//! from: the span head Hugging Face's, the conditional head the replaced one.

mod conditional;
mod span;

use std::collections::HashSet;

use rayon::prelude::*;
use serde::Serialize;

use crate::DataError;
use crate::features::{Feature, Features};
use crate::squad::Dataset;
use crate::text::CodePoints;

pub use conditional::{ConditionalScores, assemble_conditional, predict_conditional};
pub use span::{SpanScores, assemble_span, predict_span};

/// How answers are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerSettings {
    /// Length of the n-best list; for the span head also the number of start and of
    /// end positions that are paired in every window. 0 counts as 1.
    pub n_best: usize,
    /// Longest answer in tokens.
    pub max_answer_length: usize,
    /// The probability of "no answer" ([`Prediction::null_odds`]) above which the
    /// text is empty; 0.5 is Hugging Face's `null_score_diff_threshold` of 0.
    /// `None`: never abstain, as for version 1.1 and before a threshold is searched.
    pub null_threshold: Option<f64>,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The question's id.
    pub id: String,
    /// The chosen text, a slice of the context; empty where the model abstains or
    /// no window offered a valid span.
    pub text: String,
    /// The best candidates with distinct texts, best first; never empty. The span
    /// head's list holds "no answer" (an empty text) when a threshold is set.
    pub n_best: Vec<Candidate>,
    /// Probability between 0 and 1 that the question has no answer.
    pub null_odds: f64,
}

/// One entry of the n-best list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// A slice of the context, or empty for "no answer".
    pub text: String,
    /// Softmax of the candidates' scores within the list.
    pub probability: f64,
    /// What it was ranked by: the span head's sum of both logits, the conditional head's log-probability.
    pub score: f64,
    /// Where the text starts in the context, in code points; 0 for "no answer".
    pub start: usize,
    /// Where it ends, exclusive.
    pub end: usize,
}

/// A candidate before ranking; the code points `start..end` of the context.
#[derive(Debug, Clone, Copy)]
struct Scored {
    score: f64,
    start: usize,
    end: usize,
}

/// "No answer" as a candidate.
fn null(score: f64) -> Scored {
    Scored { score, start: 0, end: 0 }
}

/// A head's scores of one window.
trait WindowScores: Send + Sync {
    fn feature(&self) -> usize;
    /// All numbers that the model computed, for the check against NaN.
    fn numbers(&self) -> impl Iterator<Item = f32>;
}

/// What both heads need to know about the question at hand.
struct Asked<'a> {
    features: &'a Features,
    settings: &'a AnswerSettings,
    question: usize,
    id: &'a str,
    context: CodePoints<'a>,
}

impl<'a> Asked<'a> {
    fn new(
        dataset: &'a Dataset,
        features: &'a Features,
        settings: &'a AnswerSettings,
        question: usize,
    ) -> Result<Self, DataError> {
        let Some(asked) = dataset.questions.get(question).filter(|_| question < features.questions()) else {
            let reason = "the data set has no such question".to_owned();
            return Err(DataError::Scores { id: format!("number {question}"), reason });
        };
        let context = CodePoints::new(&asked.context);
        Ok(Self { features, settings, question, id: &asked.id, context })
    }

    fn error(&self, reason: String) -> DataError {
        DataError::Scores { id: self.id.to_owned(), reason }
    }

    /// The windows in context order, after checking that they are this question's and hold numbers.
    fn windows<'s, T: WindowScores>(&self, scores: &'s [T]) -> Result<Vec<(Feature<'a>, &'s T)>, DataError> {
        let mut ordered: Vec<&T> = scores.iter().collect();
        ordered.sort_by_key(|s| s.feature());
        let mut windows = Vec::with_capacity(ordered.len());
        for scores in ordered {
            let index = scores.feature();
            if index >= self.features.len() || self.features.get(index).question != self.question {
                return Err(self.error(format!("feature {index} is not a window of it")));
            }
            if scores.numbers().any(|n| n.is_nan() || n == f32::INFINITY) {
                return Err(self.error(format!(
                    "feature {index} has scores that are not finite; the model has diverged or its weights are damaged"
                )));
            }
            windows.push((self.features.get(index), scores));
        }
        if windows.is_empty() {
            return Err(self.error("none of its windows was scored".to_owned()));
        }
        Ok(windows)
    }

    /// The candidate between two sequence positions of a window; `None` unless both
    /// are context tokens, in order, and not further apart than allowed.
    fn candidate(&self, window: &Feature<'_>, start: usize, end: usize, score: f64) -> Option<Scored> {
        let context = window.context_offset..window.context_offset + window.chunk_length;
        let valid = context.contains(&start)
            && context.contains(&end)
            && start <= end
            && end - start < self.settings.max_answer_length
            && score > f64::NEG_INFINITY;
        if !valid {
            return None;
        }
        let token = |position: usize| {
            self.features.offset(self.question, position - window.context_offset + window.chunk_start)
        };
        let (start, end) = (token(start).0 as usize, token(end).1 as usize);
        // A token of dropped characters covers nothing: an empty text would read as "no answer".
        (start < end).then_some(Scored { score, start, end })
    }

    /// Ranks the candidates into an n-best list of distinct texts. `null`, where
    /// given, competes and is listed even when it does not come among the best.
    fn ranked(&self, mut candidates: Vec<Scored>, none: Option<Scored>) -> Vec<Candidate> {
        candidates.extend(none);
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut seen = HashSet::new();
        let mut best: Vec<(Scored, &str)> = Vec::new();
        for candidate in candidates {
            let text = self.context.slice(candidate.start, candidate.end);
            if best.len() < self.settings.n_best.max(1) && seen.insert(text) {
                best.push((candidate, text));
            }
        }
        if let Some(none) = none.filter(|_| !seen.contains("")) {
            best.push((none, ""));
        }
        // No valid span and no null candidate: a certain "no answer" keeps the list free of NaN.
        if best.is_empty() {
            best.push((null(0.0), ""));
        }
        let top = best[0].0.score;
        let weights: Vec<f64> = best.iter().map(|(c, _)| (c.score - top).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let listed = best.iter().zip(weights);
        let candidate = |((scored, text), weight): (&(Scored, &str), f64)| Candidate {
            text: (*text).to_owned(),
            probability: weight / sum,
            score: scored.score,
            start: scored.start,
            end: scored.end,
        };
        listed.map(candidate).collect()
    }

    /// The prediction, with the text left empty where the model abstains.
    fn prediction(&self, best: Option<Scored>, n_best: Vec<Candidate>, null_odds: f64) -> Prediction {
        let abstains = self.settings.null_threshold.is_some_and(|threshold| null_odds > threshold);
        let text = best.filter(|_| !abstains).map_or("", |b| self.context.slice(b.start, b.end));
        Prediction { id: self.id.to_owned(), text: text.to_owned(), n_best, null_odds }
    }
}

/// The first of the best-scored candidates.
fn best_of(candidates: &[Scored]) -> Option<Scored> {
    // `max_by` would take the last of equals; the list's order is by window, then by rank.
    candidates.iter().copied().reduce(|best, next| if next.score > best.score { next } else { best })
}

/// Groups window scores by question and assembles every question, in parallel and in question order.
fn each_question<T: WindowScores>(
    features: &Features,
    mut scores: Vec<T>,
    assemble: impl Fn(usize, &[T]) -> Result<Prediction, DataError> + Sync,
) -> Result<Vec<Prediction>, DataError> {
    if let Some(wrong) = scores.iter().map(WindowScores::feature).find(|f| *f >= features.len()) {
        let reason = format!("there are only {} features", features.len());
        return Err(DataError::Scores { id: format!("of feature {wrong}"), reason });
    }
    scores.sort_by_key(WindowScores::feature);
    let question = |s: &T| features.get(s.feature()).question;
    let groups: Vec<&[T]> = scores.chunk_by(|a, b| question(a) == question(b)).collect();
    let mut results = Vec::new();
    groups.par_iter().map(|windows| assemble(question(&windows[0]), windows)).collect_into_vec(&mut results);
    results.into_iter().collect()
}
