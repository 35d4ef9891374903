//! Figures that the official metric gave for random sets (scripts/golden_data.py makes the file).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use squad_data::Dataset;
use squad_data::score::Scores;

use crate::fixture::{dataset, document, golden, list};

/// A set whose questions have the given accepted answers, in the file's order.
fn questions(accepted: &Map<String, Value>) -> Dataset {
    let (mut context, mut length, mut qas) = (String::new(), 0, Vec::new());
    for (id, texts) in accepted {
        let mut answers = Vec::new();
        for text in list::<Vec<String>>(texts) {
            answers.push(json!({"text": text, "answer_start": length}));
            context += &format!("{text} ");
            length += text.chars().count() + 1;
        }
        qas.push(json!({"id": id, "question": "?", "answers": answers}));
    }
    dataset(&document(&[json!({"context": context + ".", "qas": qas})]))
}

/// The questions' figures and histograms, as the golden file has them.
fn figures(case: &Value) -> (Value, Value) {
    let data = questions(case["questions"].as_object().unwrap());
    let predictions: BTreeMap<String, String> = list(&case["predictions"]);
    let na_prob: Option<Vec<(String, f64)>> = case["na_prob"]
        .as_object()
        .map(|odds| odds.iter().map(|(id, p)| (id.clone(), p.as_f64().unwrap())).collect());
    let scores = Scores::of(&data, &predictions);
    let mut metrics = scores.metrics(na_prob.as_deref(), case["threshold"].as_f64().unwrap());
    let mut histograms = Value::Null;
    if let Some(na_prob) = &na_prob {
        if let Some(curves) = scores.curves(na_prob) {
            metrics.add(&curves);
        }
        let bars = |answerable| scores.odds_histogram(na_prob, answerable).map_or([0; 20], |h| h.bars);
        histograms = json!({"HasAns": bars(true), "NoAns": bars(false)});
    }
    (serde_json::to_value(&metrics).unwrap(), histograms)
}

/// Holds every set against its golden figures; gives how many of them have each key.
fn keys_that_agree(sets: &Value) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for case in sets.as_array().unwrap() {
        let (found, histograms) = figures(case);
        let (found, expected) = (found.as_object().unwrap(), case["expected"].as_object().unwrap());
        // The order of keys is the official one, too.
        assert!(found.keys().eq(expected.keys()), "{found:?}\n{expected:?}");
        for (key, value) in expected {
            let (a, b) = (found[key].as_f64().unwrap(), value.as_f64().unwrap());
            assert!((a - b).abs() < 1e-9, "{key}: {a} instead of {b} in {case}");
            *seen.entry(key.clone()).or_default() += 1;
        }
        assert_eq!(histograms, case["histograms"], "{case}");
    }
    seen
}

#[test]
fn figures_of_sets_are_the_official_metrics() {
    let golden = golden("metric.json");
    let seen = keys_that_agree(&golden["sets"]);
    assert!(
        seen["exact"] >= 40 && seen["pr_f1_ap"] >= 25 && seen["NoAns_f1"] >= 20,
        "the golden file lost its cases: {seen:?}"
    );
    let sets = golden["sets"].as_array().unwrap();
    let have = |what: &str, is: &dyn Fn(&Value) -> bool| {
        assert!(sets.iter().filter(|case| is(case)).count() >= 3, "the golden file has no sets with {what}");
    };
    let size = |value: &Value| value.as_object().map_or(0, Map::len);
    have("unknown ids", &|case| case["na_prob"].get("x").is_some());
    have("missing predictions", &|case| size(&case["predictions"]) < size(&case["questions"]));
    have("empty predictions", &|case| case["predictions"].as_object().unwrap().values().any(|p| p == ""));
    have("answerable questions only", &|case| case["expected"].get("NoAns_total").is_none());
}

#[test]
fn figures_of_hundreds_of_tiny_sets_are_the_official_metrics() {
    let seen = keys_that_agree(&golden("metric.json")["tiny"]);
    assert!(
        seen["exact"] >= 400 && seen["pr_exact_ap"] >= 200 && seen["best_f1_thresh"] > seen["pr_exact_ap"],
        "the golden file lost its cases: {seen:?}"
    );
}
