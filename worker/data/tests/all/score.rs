use std::collections::BTreeMap;

use serde_json::json;
use squad_data::score::{
    Curve, Scores, compare, evaluate, evaluate_ordered, read_na_prob, read_predictions, revised,
};
use squad_data::{Dataset, Metrics};

use crate::fixture::{dataset, document, paragraph};

fn data() -> Dataset {
    dataset(&document(&[paragraph(
        "the Blue snow fell",
        &[("a", "?", Some(("the Blue snow", 0))), ("b", "?", Some(("fell", 14))), ("n", "?", None)],
    )]))
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
}

fn odds(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(id, p)| ((*id).to_owned(), *p)).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn figures_of_a_small_set() {
    let m = evaluate(&data(), &texts(&[("a", "blue"), ("b", "Fell!"), ("n", "x")]), None, 1.0);
    assert!(close(m.exact, 100.0 / 3.0) && close(m.f1, (200.0 / 3.0 + 100.0) / 3.0), "{m:?}");
    assert_eq!((m.total, m.has_ans_total, m.no_ans_total), (3, Some(2), Some(1)));
    assert_eq!((m.no_ans_exact, m.best_f1, m.revision_threshold()), (Some(0.0), None, None));
    assert!(m.missing.is_empty());
    let keys = serde_json::to_value(&m).unwrap();
    let keys: Vec<&str> = keys.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "exact",
        "f1",
        "total",
        "HasAns_exact",
        "HasAns_f1",
        "HasAns_total",
        "NoAns_exact",
        "NoAns_f1",
        "NoAns_total",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn thresholds_are_searched() {
    let predictions = texts(&[("a", "the blue snow"), ("b", "wrong"), ("n", "x")]);
    let m = evaluate(&data(), &predictions, Some(&odds(&[("a", 0.1), ("b", 0.9), ("n", 0.5)])), 1.0);
    assert!(close(m.best_exact.unwrap(), 200.0 / 3.0) && close(m.best_exact_thresh.unwrap(), 0.1));
    assert!(close(m.revision_threshold().unwrap(), 0.1));
    // Applying the threshold gives the figure that the search promised.
    let m = evaluate(&data(), &predictions, Some(&odds(&[("a", 0.1), ("b", 0.9), ("n", 0.5)])), 0.1);
    assert!(close(m.exact, 200.0 / 3.0));
}

#[test]
fn equal_odds_are_visited_in_the_given_order() {
    let predictions = texts(&[("a", "the blue snow"), ("n", "x")]);
    let visit = |ids: [&str; 2]| {
        let order: Vec<_> =
            ids.iter().map(|id| ((*id).to_owned(), if *id == "a" { 0.0 } else { -0.0 })).collect();
        evaluate_ordered(&data(), &predictions, Some(&order), 1.0).best_exact.unwrap()
    };
    assert!(close(visit(["a", "n"]), 200.0 / 3.0));
    assert!(close(visit(["n", "a"]), 100.0 / 3.0));
}

#[test]
fn missing_predictions_are_listed_and_earn_nothing_on_answerable_questions() {
    let m = evaluate(&data(), &texts(&[("b", "fell"), ("foreign", "x")]), None, 1.0);
    assert_eq!(m.missing, ["a", "n"]);
    assert_eq!(m.has_ans_exact, Some(50.0));
    assert!(!serde_json::to_string(&m).unwrap().contains("missing"));
}

#[test]
fn one_kind_of_question_leaves_the_other_keys_out() {
    let answerable = dataset(&document(&[paragraph("blue", &[("a", "?", Some(("blue", 0)))])]));
    let m = evaluate(&answerable, &texts(&[("a", "blue")]), None, 1.0);
    assert_eq!((m.exact, m.has_ans_total, m.no_ans_total), (100.0, Some(1), None));
    let empty = Dataset { version: None, questions: Vec::new(), warnings: Vec::new() };
    assert_eq!(evaluate(&empty, &BTreeMap::new(), None, 1.0), Metrics::default());
}

#[test]
fn answers_of_articles_alone_count_as_empty() {
    let set = dataset(&document(&[paragraph("a the b", &[("a", "?", Some(("the", 2)))])]));
    assert_eq!(compare(&set.questions[0], ""), (1.0, 1.0));
    assert_eq!(compare(&set.questions[0], "b"), (0.0, 0.0));
}

#[test]
fn revised_predictions_are_empty_above_the_threshold() {
    let predictions = texts(&[("a", "x"), ("b", "y"), ("c", "z")]);
    let revised = revised(&predictions, &odds(&[("a", 0.5), ("b", 0.6)]), 0.5);
    assert_eq!(revised, texts(&[("a", "x"), ("b", ""), ("c", "z")]));
}

#[test]
fn prediction_files_are_read_or_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("p.json");
        std::fs::write(&path, text).unwrap();
        path
    };
    assert_eq!(read_predictions(&file(r#"{"b": "x", "a": ""}"#)).unwrap(), texts(&[("a", ""), ("b", "x")]));
    let ordered = read_na_prob(&file(r#"{"b": 0.25, "a": 1}"#)).unwrap();
    assert_eq!(ordered, [("b".to_owned(), 0.25), ("a".to_owned(), 1.0)]);
    let message = |text: &str| read_predictions(&file(text)).unwrap_err().to_string();
    assert!(message(r#"{"a": 5}"#).ends_with("p.json: the prediction of question a must be a text, found 5"));
    assert!(message("[]").contains("must hold one JSON object"));
    assert!(message("{").contains("line 1, column 1"), "{}", message("{"));
    let error = read_na_prob(&file(&json!({"a": "x"}).to_string())).unwrap_err().to_string();
    assert!(error.contains("the null odds of question a must be a number"), "{error}");
    let error = read_na_prob(&dir.path().join("none.json")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
}

#[test]
fn curves_of_a_sheet_of_paper() {
    let data = data();
    let predictions = texts(&[("a", "the blue snow"), ("b", "fell down"), ("n", "x")]);
    let scores = Scores::of(&data, &predictions);
    let points = |curve: &Curve| -> Vec<(f64, f64)> {
        curve.points.iter().map(|point| (point.recall, point.precision)).collect()
    };
    let order = |pairs: &[(&str, f64)]| -> Vec<(String, f64)> {
        pairs.iter().map(|(id, p)| ((*id).to_owned(), *p)).collect()
    };
    // First a (right), then n (no answer to find), then b (half of its two words: F1 2/3).
    let curves = scores.curves(&order(&[("b", 0.9), ("n", 0.5), ("a", 0.1)])).unwrap();
    assert_eq!(points(&curves.exact), [(0.0, 1.0), (0.5, 1.0), (0.5, 0.5), (0.5, 1.0 / 3.0)]);
    assert_eq!(points(&curves.oracle), [(0.0, 1.0), (0.5, 1.0), (0.5, 0.5), (1.0, 2.0 / 3.0)]);
    assert!(close(curves.exact.ap, 50.0) && close(curves.oracle.ap, 100.0 * (0.5 + 0.5 * 2.0 / 3.0)));
    assert!(close(curves.f1.ap, 100.0 * (0.5 + (1.0 / 3.0) * (5.0 / 9.0))), "{}", curves.f1.ap);
    let mut metrics = scores.metrics(None, 1.0);
    metrics.add(&curves);
    let keys = serde_json::to_value(&metrics).unwrap();
    assert_eq!(
        keys.as_object().unwrap().keys().skip(9).collect::<Vec<_>>(),
        ["pr_exact_ap", "pr_f1_ap", "pr_oracle_ap"]
    );
    // Equal odds, one step; a question without odds is never answered.
    let curves = scores.curves(&order(&[("n", 0.0), ("a", -0.0)])).unwrap();
    assert_eq!(points(&curves.exact), [(0.0, 1.0), (0.5, 0.5)]);
    let curves = scores.curves(&[]).unwrap();
    assert_eq!((points(&curves.f1), curves.f1.ap), (vec![(0.0, 1.0)], 0.0));
}

#[test]
fn nothing_answerable_has_no_curves() {
    let data = dataset(&document(&[paragraph("blue", &[("n", "?", None)])]));
    let scores = Scores::of(&data, &texts(&[("n", "")])).curves(&[("n".to_owned(), 0.5)]);
    assert_eq!(scores, None);
}

#[test]
fn null_odds_are_counted_in_twenty_bars() {
    let data = data();
    let none = BTreeMap::new();
    let scores = Scores::of(&data, &none);
    let odds: Vec<(String, f64)> =
        [("a", 1.0), ("b", 0.35), ("n", 1.5), ("foreign", 0.0)].map(|(id, p)| (id.to_owned(), p)).into();
    let has = scores.odds_histogram(&odds, true).unwrap();
    // 7 * 0.05 is a little above 0.35, so that NumPy counts 0.35 below it.
    assert_eq!((has.bars[6], has.bars[19], has.outside, has.questions()), (1, 1, 0, 2));
    let no = scores.odds_histogram(&odds, false).unwrap();
    assert_eq!((no.bars, no.outside, no.questions()), ([0; 20], 1, 1));
    assert_eq!(scores.odds_histogram(&odds[..2], false), None);
}
