//! The conditional head: start candidates, ends given each start, and an answerability score.

use super::{AnswerSettings, Asked, Prediction, Scored, WindowScores, best_of, each_question};
use crate::DataError;
use crate::features::Features;
use crate::squad::Dataset;
use crate::windows::{self, Span};

/// The conditional head's scores of one window, all of them log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionalScores {
    /// Index of the feature.
    pub feature: usize,
    /// The best start positions in the sequence, with their log-probabilities.
    pub starts: Vec<(usize, f32)>,
    /// For every start, in the same order, the best ends given that start.
    pub ends: Vec<Vec<(usize, f32)>>,
    /// Log-probability that the window does not answer the question.
    pub no_answer: f32,
}

impl WindowScores for ConditionalScores {
    fn feature(&self) -> usize {
        self.feature
    }

    fn numbers(&self) -> impl Iterator<Item = f32> {
        let pairs = self.starts.iter().chain(self.ends.iter().flatten());
        pairs.map(|(_, score)| *score).chain([self.no_answer])
    }
}

/// Answers one question from the scores of **all** its windows.
///
/// A candidate scores log p(start) + log p(end | start) and counts only in the
/// window that gives its start most context ([`windows::owners`]).
/// "No answer" never competes with the spans: [`Prediction::null_odds`] is the
/// smallest probability over the windows that there is none.
///
/// # Errors
/// [`DataError::Scores`] when a window is another question's, its lists do not match, or it holds NaN.
pub fn assemble_conditional(
    dataset: &Dataset,
    features: &Features,
    settings: &AnswerSettings,
    question: usize,
    windows: &[ConditionalScores],
) -> Result<Prediction, DataError> {
    let asked = Asked::new(dataset, features, settings, question)?;
    let scored = asked.windows(windows)?;
    let spans: Vec<Span> =
        scored.iter().map(|(w, _)| Span { start: w.chunk_start, length: w.chunk_length }).collect();
    let owners = windows::owners(&spans);

    let mut candidates: Vec<Scored> = Vec::new();
    let mut none = f64::INFINITY;
    for (number, (window, scores)) in scored.iter().enumerate() {
        if scores.starts.len() != scores.ends.len() {
            let (starts, ends) = (scores.starts.len(), scores.ends.len());
            return Err(asked.error(format!("{starts} starts, but ends for {ends} of them")));
        }
        none = none.min(f64::from(scores.no_answer));
        for ((start, start_score), ends) in scores.starts.iter().zip(&scores.ends) {
            let token = start.checked_sub(window.context_offset).map(|inside| inside + window.chunk_start);
            if token.and_then(|t| owners.get(t)) != Some(&number) {
                continue;
            }
            for (end, end_score) in ends {
                let score = f64::from(*start_score) + f64::from(*end_score);
                candidates.extend(asked.candidate(window, *start, *end, score));
            }
        }
    }
    let best = best_of(&candidates);
    let n_best = asked.ranked(candidates, None);
    Ok(asked.prediction(best, n_best, none.exp().min(1.0)))
}

/// Answers every question that has scores; windows may come in any order, but must be complete.
///
/// # Errors
/// As [`assemble_conditional`], for the first question in order.
pub fn predict_conditional(
    dataset: &Dataset,
    features: &Features,
    settings: &AnswerSettings,
    scores: Vec<ConditionalScores>,
) -> Result<Vec<Prediction>, DataError> {
    each_question(features, scores, |question, windows| {
        assemble_conditional(dataset, features, settings, question, windows)
    })
}
