//! Precision against recall, as results.json has it.

use serde::Serialize;
use squad_data::score::{Curve, Curves};

/// The `precision_recall` section of results.json: what answering gives when questions are answered in the order of their
/// null odds, up to every possible threshold. The official version 2.0 script draws the same curves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrecisionRecall {
    /// Average precision, in percent, where an answer counts by its exact match; the official `pr_exact_ap`.
    pub exact_ap: f64,
    /// Where it counts by its F1; the official `pr_f1_ap`.
    pub f1_ap: f64,
    /// Where it counts 1 if the question has an answer: how well null odds tell the two kinds apart; the official
    /// `pr_oracle_ap`.
    pub oracle_ap: f64,
    /// Points of the curve by exact match, at most [`Curve::THINNED`].
    pub exact: Vec<Point>,
    /// Points of the curve by F1, at most as many.
    pub f1: Vec<Point>,
}

/// The null odds up to which questions are answered (none where nothing is answered), recall, and precision. All are
/// between 0 and 1, with six decimals.
pub type Point = (Option<f64>, f64, f64);

impl From<&Curves> for PrecisionRecall {
    fn from(curves: &Curves) -> Self {
        let points = |curve: &Curve| {
            let point = |point: squad_data::score::Point| {
                (point.null_odds.map(rounded), rounded(point.recall), rounded(point.precision))
            };
            curve.thinned().into_iter().map(point).collect()
        };
        Self {
            exact_ap: curves.exact.ap,
            f1_ap: curves.f1.ap,
            oracle_ap: curves.oracle.ap,
            exact: points(&curves.exact),
            f1: points(&curves.f1),
        }
    }
}

/// Six decimals: more than any picture shows, and a third of the text.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use squad_data::score::Scores;
    use squad_data::squad;

    use super::*;

    /// The section for questions with these answers (none for unanswerable ones), predictions and null odds.
    fn section(questions: &[(Option<&str>, &str, f64)]) -> Value {
        let context = "blue snow fell";
        let asked = |(number, (answer, ..)): (usize, &(Option<&str>, &str, f64))| {
            let answers: Vec<Value> = answer
                .iter()
                .map(|text| json!({"text": text, "answer_start": context.find(text).unwrap()}))
                .collect();
            json!({"id": number.to_string(), "question": "?", "answers": answers})
        };
        let asked: Vec<Value> = questions.iter().enumerate().map(asked).collect();
        let file = json!({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": asked}]}]});
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let data = squad::read(&path).unwrap();
        let ids = || (0..).map(|number: usize| number.to_string());
        let predictions: BTreeMap<String, String> =
            ids().zip(questions.iter().map(|q| q.1.to_owned())).collect();
        let odds: Vec<(String, f64)> = ids().zip(questions.iter().map(|q| q.2)).collect();
        let curves = Scores::of(&data, &predictions).curves(&odds).unwrap();
        serde_json::to_value(PrecisionRecall::from(&curves)).unwrap()
    }

    #[test]
    fn a_curve_is_that_which_one_computes_by_hand() {
        // In the order of their odds: right; half right (one of two words: precision 1, recall 1/2, F1 2/3); a wrong answer to
        // an unanswerable one; right, with the same odds as the one after it, which is unanswerable and left empty.
        let found = section(&[
            (Some("blue snow"), "blue snow", 0.1),
            (Some("blue snow"), "snow", 0.2),
            (None, "fell", 0.4),
            (Some("fell"), "fell", 0.7),
            (None, "", 0.7),
        ]);
        // Exact: earned 1, 1, 1, 2 of 3 answerable ones, after 1, 2, 3 and 5 answered ones.
        let exact = json!([
            [null, 0.0, 1.0],
            [0.1, 0.333333, 1.0],
            [0.2, 0.333333, 0.5],
            [0.4, 0.333333, 0.333333],
            [0.7, 0.666667, 0.4],
        ]);
        assert_eq!(found["exact"], exact);
        // F1: earned 1, 5/3, 5/3, 8/3.
        let f1 = json!([
            [null, 0.0, 1.0],
            [0.1, 0.333333, 1.0],
            [0.2, 0.555556, 0.833333],
            [0.4, 0.555556, 0.555556],
            [0.7, 0.888889, 0.533333],
        ]);
        assert_eq!(found["f1"], f1);
        let near = |key: &str, value: f64| (found[key].as_f64().unwrap() - value).abs() < 1e-9;
        // Each step of recall with the precision at its end.
        assert!(near("exact_ap", 100.0 * (1.0 / 3.0 + 0.4 / 3.0)), "{found}");
        let area = 1.0 / 3.0 + 5.0 / 6.0 * (5.0 / 9.0 - 1.0 / 3.0) + 8.0 / 15.0 * (8.0 / 9.0 - 5.0 / 9.0);
        assert!(near("f1_ap", 100.0 * area), "{found}");
        // Oracle: earned 1, 2, 2, 3.
        assert!(near("oracle_ap", 100.0 * (1.0 / 3.0 + 1.0 / 3.0 + 0.6 / 3.0)), "{found}");
    }

    #[test]
    fn many_questions_make_few_points_and_they_are_the_curves_own() {
        let questions: Vec<(Option<&str>, &str, f64)> = (0..5000)
            .map(|n| {
                let right = n % 7 < 4;
                (
                    Some("fell").filter(|_| n % 3 > 0),
                    if right { "fell" } else { "snow" },
                    f64::from(n) / 5000.0,
                )
            })
            .collect();
        let found = section(&questions);
        for name in ["exact", "f1"] {
            let points = found[name].as_array().unwrap();
            assert!((100..=Curve::THINNED).contains(&points.len()), "{}", points.len());
            assert_eq!(points[0], json!([null, 0.0, 1.0]));
            assert_eq!(points.last().unwrap()[0], 0.9998, "the last threshold answers everything");
            let recall = |at: usize| points[at][1].as_f64().unwrap();
            assert!((1..points.len()).all(|at| recall(at - 1) <= recall(at)));
        }
        assert!(found.to_string().len() < 16 << 10, "{} bytes", found.to_string().len());
    }
}
