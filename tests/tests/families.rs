//! Every family but BERT from tokenizer to answer, with tiny random models (scripts/golden_zoo.py). Their weights are
//! in all forms that repositories have, their tokenizers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use serde_json::{Value, json};
use squad_tests::{Job, repository};

/// A job on one of the tiny models.
fn job(family: &str, head: &str) -> (Job, Value) {
    let job = Job::new();
    let mut spec = job.spec();
    spec["model"] = repository().join("tests/data/zoo").join(family).to_string_lossy().into();
    spec["head"] = head.into();
    spec["train"]["steps"] = 4.into();
    job.write_spec(&spec);
    (job, spec)
}

fn ask(job: &Job) -> Value {
    let context = "The lamp was lit in 1902. It burnt oil.";
    let asked = ["predict", "--model", "out/model", "--question", "When was it lit?", "--context", context];
    let answer = job.squadctl(&[&asked[..], &["--output", "json"]].concat()).success().json();
    for candidate in answer["n_best"].as_array().unwrap() {
        let (start, end) = (candidate["start"].as_u64().unwrap(), candidate["end"].as_u64().unwrap());
        let text: String = context.chars().skip(start as usize).take((end - start) as usize).collect();
        assert_eq!(candidate["text"], text.as_str(), "{answer}");
        assert!(candidate["probability"].as_f64().unwrap() <= 1.0 && candidate["score"].is_f64(), "{answer}");
    }
    assert!((0.0..=1.0).contains(&answer["no_answer_probability"].as_f64().unwrap()), "{answer}");
    answer
}

#[test]
fn all_train_are_saved_and_answer() {
    for (family, head, class) in [
        ("roberta", "span", "RobertaForQuestionAnswering"),
        ("xlm-roberta", "conditional", "SquadronForConditionalQuestionAnswering"),
        ("electra", "span", "ElectraForQuestionAnswering"),
        ("albert", "conditional", "SquadronForConditionalQuestionAnswering"),
        ("mobilebert", "span", "MobileBertForQuestionAnswering"),
    ] {
        let (job, _) = job(family, head);
        job.squadctl(&["run", "job.yaml"]).success();
        let losses = job.losses("out");
        assert!(losses.len() == 4 && losses.iter().all(|l| l.is_finite()), "{family}: {losses:?}");
        let config = job.json("out/model/config.json");
        assert_eq!(config["model_type"], family);
        assert_eq!(config["architectures"], json!([class]), "{family}");
        ask(&job);
    }
}

#[test]
fn the_number_of_processes_changes_no_loss_of_shared_layers() {
    let (job, _) = job("albert", "conditional");
    for (processes, out) in [("1", "one"), ("2", "two")] {
        let set = format!("output_dir={out}");
        job.squadctl(&["run", "-np", processes, "job.yaml", "--set", &set]).success();
    }
    for (a, b) in job.losses("one").iter().zip(&job.losses("two")) {
        assert!((a - b).abs() < 1e-4 * b, "{a} against {b}");
    }
}

#[test]
fn one_separator_makes_other_windows_and_is_remembered() {
    let (job, mut spec) = job("roberta", "span");
    job.squadctl(&["run", "job.yaml"]).success();
    let two = job.losses("out");
    assert!(job.json("out/model/config.json").get("squadron").is_none());
    spec["data"]["separators"] = "single".into();
    job.write_spec(&spec);
    job.squadctl(&["run", "job.yaml"]).success();
    assert_ne!(job.losses("out"), two);
    assert_eq!(job.json("out/model/config.json")["squadron"]["separators"], "single");
    ask(&job);
    // Going on from that model, `auto` means what it was trained with.
    spec["model"] = job.path("out/model").to_string_lossy().into();
    for (separators, out) in [("auto", "second"), ("single", "third")] {
        spec["data"]["separators"] = separators.into();
        spec["output_dir"] = out.into();
        job.write_spec(&spec);
        job.squadctl(&["run", "job.yaml"]).success();
    }
    assert_eq!(job.losses("second"), job.losses("third"));
}

#[test]
fn layers_that_share_weights_cannot_be_treated_one_by_one() {
    let (job, _) = job("albert", "span");
    let refused = job.squadctl(&["run", "job.yaml", "--set", "train.layerwise_decay=0.8"]);
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("ALBERT's layers share their weights"), "{}", refused.stderr());
    assert!(!job.path("out/model").exists() && !job.path("out/metrics.jsonl").exists());
}

#[test]
fn a_recipe_runs_on_files_of_ones_own() {
    let (job, spec) = job("albert", "conditional");
    let sets = [
        format!("model={}", spec["model"].as_str().unwrap()),
        "data.train=train.json".into(),
        "data.dev=dev.json".into(),
        "data.version=1.1".into(),
        "data.max_seq_length=96".into(),
        "data.doc_stride=32".into(),
        "train.steps=2".into(),
        "resources.workers=2".into(),
        "output_dir=out".into(),
    ];
    let mut arguments = vec!["run", "--recipe", "albert-base-squad2"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    job.squadctl(&arguments).success();
    assert_eq!(job.json("out/results.json")["train"]["steps"], 2);
}
