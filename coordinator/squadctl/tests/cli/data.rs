//! `data`: official files verified, question files in figures.

use std::fs;

use serde_json::{Value, json};

use crate::{Call, program, squadctl_in};

fn prepare(folder: &tempfile::TempDir, offline: bool, more: &[&str]) -> Call {
    let mut command = program(&[&["data", "prepare", "--version", "2.0", "--dir", "squad"], more].concat());
    command.current_dir(folder.path()).env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Call { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn files_are_asked_for_at_the_mirror() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let call = prepare(&folder, false, &["--mirror", "http://127.0.0.1:1/s/"]);
    assert_eq!((call.code, call.stdout.as_str()), (1, ""));
    assert!(call.stderr.contains("cannot fetch http://127.0.0.1:1/s/train-v2.0.json"), "{}", call.stderr);
    assert!(call.stderr.contains("--mirror") && !call.stderr.contains("HF_ENDPOINT"), "{}", call.stderr);
    let call = prepare(&folder, false, &["--mirror", "files.example/s"]);
    assert_eq!(call.code, 2, "{}", call.stderr);
}

#[test]
fn what_is_missing_or_another_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let call = prepare(&folder, true, &[]);
    assert_eq!(call.code, 1);
    assert!(call.stderr.contains("train-v2.0.json, dev-v2.0.json") && call.stderr.contains("HF_HUB_OFFLINE"));
    fs::create_dir(folder.path().join("squad")).unwrap();
    fs::write(folder.path().join("squad/dev-v2.0.json"), "half").unwrap();
    let call = prepare(&folder, false, &["--mirror", "http://127.0.0.1:1"]);
    assert_eq!(call.code, 1);
    let words = "squad/dev-v2.0.json is not the official file (its size is 4 bytes, expected 4370528)";
    assert!(call.stderr.contains(words) && call.stderr.contains("--force"), "{}", call.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("squad/dev-v2.0.json")).unwrap(), "half");
}

/// One paragraph; the second question's answer is nowhere, the third has none.
fn questions() -> Value {
    let context = "Ada Lovelace wrote the first program in 1843.";
    json!({"version": "v2.0", "data": [{"title": "Ada", "paragraphs": [{"context": context, "qas": [
        {"id": "who", "question": "Who wrote it?", "answers": [{"text": "Ada Lovelace", "answer_start": 0}]},
        {"id": "when", "question": "When?", "answers": [{"text": "in 1844", "answer_start": 37}]},
        {"id": "where", "question": "Where?", "is_impossible": true, "answers": []},
        {"id": "where", "question": "Where?", "is_impossible": true, "answers": []},
    ]}]}]})
}

#[test]
fn a_file_is_a_table_a_document_or_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a&b.json"), questions().to_string()).unwrap();
    fs::create_dir(folder.path().join("m")).unwrap();
    fs::write(folder.path().join("m/vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\nada\nin").unwrap();
    let stats = ["data", "stats", "--data", "a&b.json"];
    let text = squadctl_in(folder.path(), &stats);
    assert_eq!(text.code, 0, "{}", text.stderr);
    assert!(text.stderr.contains("question where: the id occurs more than once"), "{}", text.stderr);
    assert!(text.stderr.contains("question when: the answer is neither at"), "{}", text.stderr);
    let lines: Vec<String> =
        text.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "questions 4",
        "unanswerable 2 50.0 %",
        "contexts code points 45 45.0 45.0 45 45",
        "questions words 1 1.0 1.5 3 3",
        "wrong in the file: duplicate_id 1, answer_nowhere 1",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line:?} not in\n{}", text.stdout);
    }

    let more = ["--model", "m", "--plot", "p.svg", "--output", "json"];
    let call = squadctl_in(folder.path(), &[&stats[..], &more].concat());
    let document = call.json();
    assert_eq!(document["windows"]["one"], json!({"count": 4, "share": 1.0}));
    assert_eq!(document["questions_by_answers"]["1"]["count"], 2);
    let tokens = document["lengths"].as_array().unwrap().iter().find(|m| m["unit"] == "tokens").unwrap();
    assert_eq!((&tokens["of"], &tokens["max"]), (&"contexts".into(), &9.into()));
    let nowhere = document["oddities"].as_array().unwrap().iter().find(|o| o["kind"] == "answer_nowhere");
    assert_eq!(nowhere.unwrap()["questions"], json!(["when"]));
    let picture = fs::read_to_string(folder.path().join("p.svg")).unwrap();
    assert!(
        picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && picture.contains("a&amp;b.json")
    );
    // Nine lengths and the places of answers.
    assert_eq!(picture.matches("<g ").count(), 10);
    assert_eq!(picture.matches("<rect").count(), picture.matches("</rect>").count() + 1);
}

#[test]
fn only_a_file_that_cannot_be_read_fails() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("broken.json"), "{\"data\": [").unwrap();
    fs::write(folder.path().join("good.json"), questions().to_string()).unwrap();
    for (more, code, words) in [
        (&["--data", "none.json"][..], 2, "cannot read none.json"),
        (&["--data", "broken.json"], 1, "broken.json, line 1"),
        (&["--data", "good.json", "--model", "m"], 2, "--model m: there is no such folder"),
        (&["--data", "good.json", "--plot", "no/p.svg"], 1, "cannot write --plot no/p.svg"),
    ] {
        let call = squadctl_in(folder.path(), &[&["data", "stats"], more].concat());
        assert_eq!((call.code, call.stdout.as_str()), (code, ""), "{more:?}: {}", call.stderr);
        assert!(call.stderr.contains(words), "{}", call.stderr);
    }
}

/// A folder with a model's vocabulary and a file of many questions.
fn to_cut() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("m")).unwrap();
    fs::write(folder.path().join("m/vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\nada\nin\nprogram\nwrote")
        .unwrap();
    let context = "Ada Lovelace wrote the first program in 1843. ".repeat(20);
    let qas: Vec<Value> = (0..500)
        .map(|i| {
            json!({"id": i.to_string(), "question": "Who wrote it?",
                        "answers": [{"text": "Ada", "answer_start": 0}]})
        })
        .collect();
    let data = json!({"data": [{"title": "Ada", "paragraphs": [{"context": context, "qas": qas}]}]});
    fs::write(folder.path().join("q.json"), data.to_string()).unwrap();
    folder
}

const CUT: [&str; 10] =
    ["data", "featurize", "--model", "m", "--data", "q.json", "--max-seq-length", "96", "--doc-stride", "32"];

#[test]
fn features_are_cut_once_and_found_by_whoever_asks_for_the_same() {
    let folder = to_cut();
    let call = |more: &[&str]| {
        let mut command = program(&[&CUT[..], more].concat());
        command.current_dir(folder.path()).env("SQUAD_FEATURE_CACHE", folder.path().join("cache"));
        command.stdout(std::process::Stdio::piped());
        command
    };
    let json = ["--output", "json"];
    let together: Vec<_> = (0..4).map(|_| call(&json).spawn().unwrap()).collect();
    let found: Vec<Value> = together
        .into_iter()
        .map(|child| serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    assert_eq!(found.iter().filter(|report| report["cached"] == false).count(), 1, "{found:?}");
    assert!(found.iter().all(|report| report["digest"] == found[0]["digest"]));
    assert_eq!(found[0]["questions"], 500);
    assert_eq!(found[0]["features"], 2000);

    let anew: Value = serde_json::from_slice(
        &call(&["--no-cache", "--threads", "1", "--output", "json"]).output().unwrap().stdout,
    )
    .unwrap();
    assert_eq!((&anew["cached"], &anew["threads"]), (&json!(false), &json!(1)));
    assert_eq!(anew["digest"], found[0]["digest"]);
    assert!(anew["questions_per_second"].as_f64().unwrap() > 0.0);

    let text = call(&[]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with("500 questions: 500 kept, 0 mismatched") && text.contains("from the cache"),
        "{text}"
    );
}

#[test]
fn windows_that_cannot_be_cut_say_what_to_change() {
    let folder = to_cut();
    for (more, words) in [
        (["4", "2"], "max_seq_length = 4 cannot be used"),
        (["96", "0"], "doc_stride = 0 cannot be used"),
        (["96", "91"], "lower doc_stride"),
    ] {
        let settings = ["--max-seq-length", more[0], "--doc-stride", more[1], "--no-cache"];
        let call = squadctl_in(folder.path(), &[&CUT[..6], &settings].concat());
        assert_eq!((call.code, call.stdout.as_str()), (1, ""), "{more:?}");
        assert!(call.stderr.contains(words), "{}", call.stderr);
    }
}
