//! What every question earned: the sheet that all figures and curves are computed from.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::Metrics;
use super::compare::compare;
use super::curves::{Curve, Curves};
use super::histogram::OddsHistogram;
use super::threshold::best_threshold;
use crate::squad::{Dataset, Question};

/// What one question earned, between 0 and 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earned {
    pub(super) answerable: bool,
    /// The prediction is there and not empty.
    pub(super) attempted: bool,
    pub(super) exact: f64,
    pub(super) f1: f64,
}

/// The predictions for a data set, scored question by question.
///
/// Wherever null odds (question id to number) are taken, their order decides between equal ones, and ids that
/// are not in the data set count for nothing.
#[derive(Debug)]
pub struct Scores<'a> {
    questions: Vec<&'a Question>,
    /// Where in `questions` an id stands.
    place: HashMap<&'a str, usize>,
    /// Beside `questions`.
    earned: Vec<Earned>,
    missing: Vec<String>,
}

impl<'a> Scores<'a> {
    /// Scores predictions (question id to text). Of questions with one id the last counts, at the first one's place.
    #[must_use]
    pub fn of(dataset: &'a Dataset, predictions: &BTreeMap<String, String>) -> Self {
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
        let earn = |question: &&Question| {
            let prediction = predictions.get(&question.id).map_or("", String::as_str);
            let (exact, f1) = compare(question, prediction);
            Earned { answerable: question.has_answer(), attempted: !prediction.is_empty(), exact, f1 }
        };
        let earned = questions.par_iter().map(earn).collect();
        let without = questions.iter().filter(|q| !predictions.contains_key(&q.id));
        let missing = without.map(|q| q.id.clone()).collect();
        Self { questions, place, earned, missing }
    }

    /// The metric's figures, without those of the curves ([`Metrics::add`] adds them).
    ///
    /// With null odds a question above `na_prob_thresh` counts as abstained, and the best thresholds are searched.
    #[must_use]
    pub fn metrics(&self, na_prob: Option<&[(String, f64)]>, na_prob_thresh: f64) -> Metrics {
        let odds: HashMap<&str, f64> =
            na_prob.unwrap_or(&[]).iter().map(|(id, p)| (id.as_str(), *p)).collect();
        let final_scores: Vec<Earned> = self
            .questions
            .iter()
            .zip(&self.earned)
            .map(|(q, e)| {
                let abstains = odds.get(q.id.as_str()).copied().unwrap_or(0.0) > na_prob_thresh;
                let score = f64::from(u8::from(!e.answerable));
                if abstains { Earned { exact: score, f1: score, ..*e } } else { *e }
            })
            .collect();
        let all = means(&final_scores, |_| true);
        let has = means(&final_scores, |e| e.answerable);
        let no = means(&final_scores, |e| !e.answerable);
        let order = na_prob.map(|na_prob| self.by_null_odds(na_prob));
        let search = |score: fn(&Earned) -> f64| Some(best_threshold(order.as_deref()?, &self.earned, score));
        let (best_exact, best_f1) = (search(|e| e.exact), search(|e| e.f1));
        Metrics {
            exact: all.map_or(0.0, |m| m.0),
            f1: all.map_or(0.0, |m| m.1),
            total: self.questions.len(),
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
            missing: self.missing.clone(),
            ..Metrics::default()
        }
    }

    /// The precision-recall curves; `None` where no question is answerable, since recall then means nothing.
    #[must_use]
    pub fn curves(&self, na_prob: &[(String, f64)]) -> Option<Curves> {
        let answerable = self.earned.iter().filter(|e| e.answerable).count();
        let order = self.by_null_odds(na_prob);
        (answerable > 0).then(|| Curves {
            exact: Curve::draw(&order, answerable, |e| e.exact),
            f1: Curve::draw(&order, answerable, |e| e.f1),
            oracle: Curve::draw(&order, answerable, |_| 1.0),
        })
    }

    /// How the null odds of the answerable questions, or of the others, are spread; `None` where no such question
    /// has null odds.
    #[must_use]
    pub fn odds_histogram(&self, na_prob: &[(String, f64)], answerable: bool) -> Option<OddsHistogram> {
        let order = self.by_null_odds(na_prob);
        let odds = order.iter().filter(|(_, e)| e.answerable == answerable).map(|(odds, _)| *odds);
        OddsHistogram::of(odds)
    }

    /// What the questions earned, in the order of their null odds.
    fn by_null_odds(&self, na_prob: &[(String, f64)]) -> Vec<(f64, &Earned)> {
        let known = |(id, odds): &(String, f64)| Some((*odds, &self.earned[*self.place.get(id.as_str())?]));
        let mut order: Vec<(f64, &Earned)> = na_prob.iter().filter_map(known).collect();
        // Adding zero makes -0.0 equal to 0.0, as Python compares; a stable sort keeps the given order of equals.
        order.sort_by(|a, b| (a.0 + 0.0).total_cmp(&(b.0 + 0.0)));
        order
    }
}

/// Percent exact, percent F1 and number of the questions that `keep` takes; `None` for none.
fn means(earned: &[Earned], keep: impl Fn(&Earned) -> bool) -> Option<(f64, f64, usize)> {
    let kept: Vec<&Earned> = earned.iter().filter(|e| keep(e)).collect();
    let mean =
        |score: fn(&Earned) -> f64| 100.0 * kept.iter().map(|e| score(e)).sum::<f64>() / kept.len() as f64;
    (!kept.is_empty()).then(|| (mean(|e| e.exact), mean(|e| e.f1), kept.len()))
}
