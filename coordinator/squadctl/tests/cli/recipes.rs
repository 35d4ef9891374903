//! Recipes: shown, run, submitted.

use std::path::Path;

use serde_json::{Value, json};

use crate::scripted::Daemon;
use crate::{Call, squadctl, squadctl_in};

/// Calls squadctl in an empty folder; gives the folder's path, too.
fn in_empty_folder(arguments: &[&str]) -> (Call, String) {
    let folder = tempfile::tempdir().unwrap();
    let call = squadctl_in(folder.path(), arguments);
    (call, folder.path().display().to_string())
}

#[test]
fn the_list_has_settings_and_figures() {
    let list = squadctl(&["recipes", "list"]);
    assert_eq!((list.code, list.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = list.stdout.lines().collect();
    assert_eq!(lines.len(), 14, "{}", list.stdout);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        words(lines[1]),
        [
            "albert-base-squad2",
            "google_albert_base_v2",
            "48",
            "3",
            "2e-5",
            "512",
            "79.49/82.38",
            "79.50/82.40"
        ]
    );
    assert_eq!(words(lines[12])[6..], ["-", "82.21/84.88"]);

    let documents = squadctl(&["recipes", "list", "--output", "json"]).json();
    let found = documents.as_array().unwrap().iter().find(|d| d["name"] == "mobilebert-squad2").unwrap();
    assert_eq!((&found["global_batch"], &found["epochs"]), (&json!(32), &json!(5.0)));
    assert_eq!(found["published"], json!({"float32": {"exact": 77.76, "f1": 80.33}, "float16": null}));
}

#[test]
fn what_is_shown_is_a_spec_that_runs() {
    let show = squadctl(&["recipes", "show", "roberta-large-squad2"]);
    assert_eq!((show.code, show.stderr.as_str()), (0, ""));
    assert!(show.stdout.starts_with("# RoBERTa large on SQuAD 2.0"), "{}", show.stdout);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("job.yaml"), &show.stdout).unwrap();
    let call = squadctl_in(folder.path(), &["run", "job.yaml"]);
    // All that it lacks is the data.
    assert_eq!(call.code, 2);
    assert!(call.stderr.starts_with("error: job.yaml: 2 problems in the spec\n"), "{}", call.stderr);

    let document = squadctl(&["recipes", "show", "roberta-large-squad2", "--output", "json"]).json();
    assert_eq!(document["yaml"].as_str(), Some(show.stdout.as_str()));
    assert_eq!(document["spec"]["data"]["separators"], "single");
}

#[test]
fn an_unknown_recipe_is_answered_with_the_nearest() {
    let sentence = "there is no recipe elektra-base-squad2; did you mean electra-base-squad2? squadctl recipes list shows all";
    for command in
        [&["recipes", "show", "elektra-base-squad2"][..], &["run", "--recipe", "elektra-base-squad2"]]
    {
        let call = squadctl(command);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""));
        assert!(call.stderr.starts_with(&format!("error: {sentence}\n")), "{}", call.stderr);
        let document = squadctl(&[command, &["--output", "json"]].concat()).json();
        assert_eq!(document, json!({"error": sentence, "exit_code": 2}));
    }
}

#[test]
fn a_recipe_runs_in_the_current_folder() {
    let (call, folder) = in_empty_folder(&["run", "--recipe", "albert-base-squad2"]);
    assert_eq!(call.code, 2);
    assert!(
        call.stderr.starts_with("error: recipe albert-base-squad2: 2 problems in the spec\n"),
        "{}",
        call.stderr
    );
    for file in ["train-v2.0.json", "dev-v2.0.json"] {
        assert!(
            call.stderr.contains(&format!("found {folder}/squad/{file}, which does not exist")),
            "{}",
            call.stderr
        );
    }
    let (call, _) = in_empty_folder(&["run", "--recipe", "albert-base-squad2", "--set", "train.epochs=-1"]);
    assert!(call.stderr.contains("train.epochs: found -1"), "{}", call.stderr);
    let version = ["--set", "data.version=1.1", "--set", "data.train=train-v1.1.json"];
    let (call, folder) =
        in_empty_folder(&[&["run", "--recipe", "albert-base-squad2"], &version[..]].concat());
    assert!(
        call.stderr.contains(&format!("{folder}/train-v1.1.json, which does not exist")),
        "{}",
        call.stderr
    );
}

#[test]
fn a_job_is_a_spec_or_a_recipe_not_both() {
    for command in ["run", "submit"] {
        let (both, _) = in_empty_folder(&[command, "job.yaml", "--recipe", "albert-base-squad2"]);
        assert_eq!(both.code, 2);
        assert!(both.stderr.contains("cannot be used with"), "{}", both.stderr);
        assert_eq!(squadctl(&[command]).code, 2);
    }
}

#[test]
fn a_submitted_recipe_has_the_current_folders_paths() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let submit = |more: &[&str]| -> Value {
        let line = ["submit", "--recipe", "electra-base-squad2", "--server", &daemon.url];
        let call = squadctl_in(folder.path(), &[&line[..], more].concat());
        assert_eq!(call.code, 0, "{}", call.stderr);
        let request = daemon.submitted.lock().unwrap().take().unwrap();
        serde_json::from_str(&request.spec_json).unwrap()
    };
    let at = |name: &str| Path::join(folder.path(), name).display().to_string();
    let spec = submit(&["--set", "train.epochs=1"]);
    assert_eq!(spec["data"]["train"], at("squad/train-v2.0.json"));
    assert_eq!(spec["output_dir"], at("out/electra-base-squad2"));
    assert_eq!((&spec["train"]["epochs"], &spec["model"]), (&json!(1.0), &json!("google_electra_base")));
    std::fs::create_dir(folder.path().join("own")).unwrap();
    assert_eq!(submit(&["--set", "model=own"])["model"], at("own"));
}
