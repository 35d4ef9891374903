//! The span head: independent start and end logits, as Hugging Face's `*ForQuestionAnswering`.

use super::{AnswerSettings, Asked, Prediction, Scored, WindowScores, best_of, each_question, null};
use crate::DataError;
use crate::features::Features;
use crate::squad::Dataset;

/// The span head's logits of one window, padding left out.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanScores {
    /// Index of the feature.
    pub feature: usize,
    /// Start logit of every real position, the classifier token first.
    pub start: Vec<f32>,
    /// End logit of every real position.
    pub end: Vec<f32>,
}

impl WindowScores for SpanScores {
    fn feature(&self) -> usize {
        self.feature
    }

    fn numbers(&self) -> impl Iterator<Item = f32> {
        self.start.iter().chain(&self.end).copied()
    }
}

/// Answers one question from the logits of all its windows.
///
/// In every window the `n_best` starts are paired with the `n_best` ends; a
/// candidate scores the sum of its two logits. "No answer" scores the sum at the
/// classifier token, the smallest one over the windows (one window that sees an
/// answer suffices), and [`Prediction::null_odds`] is the logistic function of its
/// lead over the best span.
///
/// # Errors
/// [`DataError::Scores`] when a window is another question's, has another length, or holds NaN.
pub fn assemble_span(
    dataset: &Dataset,
    features: &Features,
    settings: &AnswerSettings,
    question: usize,
    windows: &[SpanScores],
) -> Result<Prediction, DataError> {
    let asked = Asked::new(dataset, features, settings, question)?;
    let mut candidates: Vec<Scored> = Vec::new();
    let mut none = f64::INFINITY;
    for (window, scores) in asked.windows(windows)? {
        let length = window.input_ids.len();
        if scores.start.len() != length || scores.end.len() != length {
            let (start, end) = (scores.start.len(), scores.end.len());
            return Err(
                asked.error(format!("{start} start and {end} end logits for a window of {length} tokens"))
            );
        }
        // Sums in single precision, as the logits come: ties and order are then those of the program we equal.
        none = none.min(f64::from(scores.start[0] + scores.end[0]));
        let ends = top(&scores.end, settings.n_best);
        for start in top(&scores.start, settings.n_best) {
            for &end in &ends {
                let score = f64::from(scores.start[start] + scores.end[end]);
                candidates.extend(asked.candidate(&window, start, end, score));
            }
        }
    }
    let best = best_of(&candidates);
    let null_odds = best.map_or(1.0, |best| 1.0 / (1.0 + (best.score - none).exp()));
    let competing = settings.null_threshold.and(Some(null(none)));
    let n_best = asked.ranked(candidates, competing.filter(|n| n.score > f64::NEG_INFINITY));
    Ok(asked.prediction(best, n_best, null_odds))
}

/// Answers every question that has scores; windows may come in any order.
///
/// # Errors
/// As [`assemble_span`], for the first question in order.
pub fn predict_span(
    dataset: &Dataset,
    features: &Features,
    settings: &AnswerSettings,
    scores: Vec<SpanScores>,
) -> Result<Vec<Prediction>, DataError> {
    each_question(features, scores, |question, windows| {
        assemble_span(dataset, features, settings, question, windows)
    })
}

/// The positions of the `n` highest scores, best first; the earlier one of equals.
fn top(scores: &[f32], n: usize) -> Vec<usize> {
    let better = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let n = n.max(1);
    if n < order.len() {
        order.select_nth_unstable_by(n, better);
        order.truncate(n);
    }
    order.sort_unstable_by(better);
    order
}

#[cfg(test)]
mod tests {
    use super::top;

    #[test]
    fn the_highest_come_first() {
        assert_eq!(top(&[0.5, 2.0, -1.0, 2.0, 1.0], 3), [1, 3, 4]);
        assert_eq!(top(&[1.0, 2.0], 9), [1, 0]);
        assert_eq!(top(&[1.0, 2.0], 0), [1]);
    }
}
