use std::collections::BTreeMap;

use serde_json::json;
use squad_data::score::{compare, evaluate, evaluate_ordered, read_na_prob, read_predictions, revised};
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
