//! The official metric on a set small enough for a sheet of paper.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Call, squadctl_in};

/// Three questions about one sentence: two with an answer, one without.
fn data() -> Value {
    let context = "Ada Lovelace wrote the first program in 1843.";
    json!({"version": "v2.0", "data": [{"title": "Ada", "paragraphs": [{"context": context, "qas": [
        {"id": "who", "question": "Who wrote it?", "is_impossible": false,
         "answers": [{"text": "Ada Lovelace", "answer_start": 0}]},
        {"id": "when", "question": "When?", "is_impossible": false,
         "answers": [{"text": "in 1843", "answer_start": 37}]},
        {"id": "where", "question": "Where?", "is_impossible": true, "answers": []},
    ]}]}]})
}

fn evaluate(folder: &Path, predictions: &Value, more: &[&str]) -> Call {
    fs::write(folder.join("dev.json"), data().to_string()).unwrap();
    fs::write(folder.join("p.json"), predictions.to_string()).unwrap();
    squadctl_in(folder, &[&["evaluate", "--data", "dev.json", "--predictions", "p.json"], more].concat())
}

fn close(document: &Value, key: &str, expected: f64) {
    let found = document[key].as_f64().unwrap_or_else(|| panic!("no {key} in {document}"));
    assert!((found - expected).abs() < 1e-9, "{key}: {found}, expected {expected}");
}

#[test]
fn figures_are_those_of_the_sheet_of_paper() {
    let folder = tempfile::tempdir().unwrap();
    // "the Ada Lovelace!" normalises to the answer: exact 1, F1 1. "1843" has precision 1 and recall 1/2: exact
    // 0, F1 2/3. "London" where there is no answer: 0, 0.
    let predictions = json!({"who": "the Ada Lovelace!", "when": "1843", "where": "London"});
    let call = evaluate(folder.path(), &predictions, &[]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    let document = call.json();
    close(&document, "exact", 100.0 / 3.0);
    close(&document, "f1", 100.0 * (1.0 + 2.0 / 3.0) / 3.0);
    close(&document, "HasAns_exact", 50.0);
    close(&document, "HasAns_f1", 100.0 * (1.0 + 2.0 / 3.0) / 2.0);
    close(&document, "NoAns_f1", 0.0);
    let keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    let official = [
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
    assert_eq!(keys, official);
}

#[test]
fn null_odds_let_a_question_abstain_and_search_the_best_threshold() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("n.json"), r#"{"who": 0.1, "when": 0.3, "where": 0.9}"#).unwrap();
    let predictions = json!({"who": "Ada Lovelace", "when": "1843", "where": "London"});
    let call = evaluate(folder.path(), &predictions, &["--na-prob", "n.json", "--na-prob-thresh", "0.5"]);
    let document = call.json();
    // Above 0.5 "where" counts as abstained, which is right.
    close(&document, "NoAns_exact", 100.0);
    close(&document, "exact", 200.0 / 3.0);
    // Best: answer up to 0.1 for exact (1 abstained right + 1), up to 0.3 for F1 (+ 2/3).
    close(&document, "best_exact", 200.0 / 3.0);
    close(&document, "best_exact_thresh", 0.1);
    close(&document, "best_f1", 100.0 * (2.0 + 2.0 / 3.0) / 3.0);
    close(&document, "best_f1_thresh", 0.3);
}

#[test]
fn questions_and_predictions_that_do_not_match_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let call = evaluate(folder.path(), &json!({"who": "Ada Lovelace", "why": "fun"}), &[]);
    assert_eq!(call.code, 0);
    assert!(call.stderr.contains("no prediction, counted as an empty answer: when"), "{}", call.stderr);
    assert!(call.stderr.contains("not in the data: why"), "{}", call.stderr);
    close(&call.json(), "exact", 200.0 / 3.0);
}

#[test]
fn files_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let call = squadctl_in(folder.path(), &["evaluate", "--data", "dev.json", "--predictions", "p.json"]);
    assert_eq!((call.code, call.stdout.as_str()), (2, ""));
    assert_eq!(call.stderr, "error: cannot read dev.json: No such file or directory (os error 2)\n");

    let call = evaluate(folder.path(), &json!(["who"]), &[]);
    assert_eq!(call.code, 1);
    assert!(call.stderr.starts_with("error: p.json: it must hold one JSON object"), "{}", call.stderr);

    fs::write(folder.path().join("broken.json"), "{\"data\": [").unwrap();
    let broken = ["evaluate", "--data", "broken.json", "--predictions", "p.json", "--output", "json"];
    let call = squadctl_in(folder.path(), &broken);
    assert_eq!(call.code, 1);
    assert!(call.stderr.starts_with("error: broken.json, line 1, column 10"), "{}", call.stderr);
    assert_eq!(call.json()["exit_code"], 1);
}

#[test]
fn an_offset_that_does_not_match_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut data = data();
    data["data"][0]["paragraphs"][0]["qas"][1]["answers"][0] = json!({"text": "in 1844", "answer_start": 37});
    fs::write(folder.path().join("moved.json"), data.to_string()).unwrap();
    fs::write(folder.path().join("p.json"), "{}").unwrap();
    let call = squadctl_in(folder.path(), &["evaluate", "--data", "moved.json", "--predictions", "p.json"]);
    assert_eq!(call.code, 1);
    assert!(call.stderr.starts_with("error: moved.json: question when: answer_start 37"), "{}", call.stderr);
    assert_eq!(call.stderr.lines().count(), 1, "{}", call.stderr);
}

/// Probabilities of no answer for the three questions.
fn odds(folder: &Path) {
    fs::write(folder.join("n.json"), r#"{"who": 0.1, "when": 0.3, "where": 0.9}"#).unwrap();
}

/// The files in a folder, sorted, hidden ones too.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn curves_are_drawn_and_their_average_precision_told() {
    let folder = tempfile::tempdir().unwrap();
    odds(folder.path());
    let predictions = json!({"who": "Ada Lovelace", "when": "1843", "where": "London"});
    let arguments = ["--na-prob", "n.json", "--curves", "new/plots"];
    let call = evaluate(folder.path(), &predictions, &arguments);
    assert_eq!(call.code, 0, "{}", call.stderr);
    // Answered in the order who (right), when (F1 2/3), where (no answer to find).
    let document = call.json();
    close(&document, "pr_exact_ap", 50.0);
    close(&document, "pr_f1_ap", 100.0 * (0.5 + 1.0 / 3.0 * (5.0 / 6.0)));
    close(&document, "pr_oracle_ap", 100.0);
    let keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys[12..], ["best_f1_thresh", "pr_exact_ap", "pr_f1_ap", "pr_oracle_ap"]);

    let plots = folder.path().join("new/plots");
    let names =
        ["pr_exact.svg", "pr_f1.svg", "pr_oracle.svg", "na_prob_hist_HasAns.svg", "na_prob_hist_NoAns.svg"];
    assert_eq!(call.stderr, format!("drawn in new/plots: {}\n", names.join(", ")));
    assert_eq!(listing(&plots).len(), names.len(), "{:?}", listing(&plots));
    let ours = fs::metadata(folder.path().join("n.json")).unwrap().permissions();
    for (name, title) in names.into_iter().zip([
        "Exact match: average precision 50.00 %",
        "F1: average precision 77.78 %",
        "Oracle: answerable or not: average precision 100.00 %",
        "Answerable questions: probability of no answer (2)",
        "Unanswerable questions: probability of no answer (1)",
    ]) {
        let picture = fs::read_to_string(plots.join(name)).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{name}: {picture}");
        assert!(picture.contains(title), "{name}: {picture}");
        assert_eq!(fs::metadata(plots.join(name)).unwrap().permissions(), ours, "{name}");
    }

    // Drawn again, the files are replaced; for programs there is nothing on stderr.
    fs::write(plots.join("pr_f1.svg"), "old").unwrap();
    let call = evaluate(folder.path(), &predictions, &[&arguments[..], &["--output", "json"]].concat());
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    assert!(fs::read_to_string(plots.join("pr_f1.svg")).unwrap().contains("77.78 %"));
    assert_eq!(listing(&plots).len(), names.len());
}

#[test]
fn curves_need_the_probabilities_of_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let call = evaluate(folder.path(), &json!({}), &["--curves", "plots"]);
    assert_eq!((call.code, call.stdout.as_str()), (2, ""));
    assert!(call.stderr.contains("--na-prob <FILE>"), "{}", call.stderr);
    assert!(!folder.path().join("plots").exists());
}

#[test]
fn nothing_answerable_leaves_the_curves_out_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    odds(folder.path());
    let data = json!({"data": [{"title": "Ada", "paragraphs": [{"context": "Ada wrote.", "qas": [
        {"id": "where", "question": "Where?", "is_impossible": true, "answers": []}]}]}]});
    fs::write(folder.path().join("none.json"), data.to_string()).unwrap();
    fs::write(folder.path().join("p.json"), r#"{"where": ""}"#).unwrap();
    let call = squadctl_in(
        folder.path(),
        &[
            "evaluate",
            "--data",
            "none.json",
            "--predictions",
            "p.json",
            "--na-prob",
            "n.json",
            "--curves",
            ".",
        ],
    );
    assert_eq!(call.code, 0, "{}", call.stderr);
    assert!(call.stderr.contains("no question of the data is answerable"), "{}", call.stderr);
    assert!(call.stderr.ends_with("drawn in .: na_prob_hist_NoAns.svg\n"), "{}", call.stderr);
    assert!(!call.stdout.contains("pr_") && call.stdout.contains("best_f1"), "{}", call.stdout);
    assert_eq!(listing(folder.path()), ["n.json", "na_prob_hist_NoAns.svg", "none.json", "p.json"]);
}

#[test]
fn plots_that_cannot_be_written_are_named_and_leave_no_rest() {
    let folder = tempfile::tempdir().unwrap();
    odds(folder.path());
    let call = evaluate(folder.path(), &json!({}), &["--na-prob", "n.json", "--curves", "n.json"]);
    assert_eq!((call.code, call.stdout.as_str()), (1, ""));
    let said = call.stderr.lines().last().unwrap();
    assert!(said.starts_with("error: cannot create --curves n.json: "), "{said}");

    fs::create_dir_all(folder.path().join("plots/pr_f1.svg")).unwrap();
    let call = evaluate(folder.path(), &json!({}), &["--na-prob", "n.json", "--curves", "plots"]);
    assert_eq!((call.code, call.stdout.as_str()), (1, ""));
    let said = call.stderr.lines().last().unwrap();
    assert!(said.starts_with("error: cannot write plots/pr_f1.svg: "), "{said}");
    assert_eq!(listing(&folder.path().join("plots")), ["pr_exact.svg", "pr_f1.svg"]);
}
