//! Bad input: one clear sentence, the designed exit code, nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use serde_json::json;
use squad_tests::{Job, minilm};

/// Runs the job and checks exit code and words; nothing may be left in the output folder but logs.
fn refused(job: &Job, code: i32, words: &[&str]) {
    let run = job.squadctl(&["run", "job.yaml"]);
    let text = run.stderr();
    assert_eq!(run.code(), code, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    for left in ["results.json", "model", "checkpoints", "metrics.jsonl", "eval"] {
        assert!(!job.path("out").join(left).exists(), "{left} was left behind");
    }
}

#[test]
fn three_mistakes_are_named_at_once() {
    let job = Job::new();
    let mut spec = job.spec();
    spec["train"]["epoch"] = json!(3);
    spec["train"]["batch_size"] = json!(0);
    spec["head"] = json!("spam");
    job.write_spec(&spec);
    refused(
        &job,
        2,
        &["train.epoch", "did you mean epochs", "train.batch_size", "at least 1", "head", "conditional"],
    );
}

#[test]
fn a_missing_file() {
    let job = Job::new();
    std::fs::remove_file(job.path("train.json")).unwrap();
    refused(&job, 2, &["data.train", "train.json"]);
}

#[test]
fn broken_json() {
    let job = Job::new();
    std::fs::write(job.path("train.json"), "{\"data\": [\n  {\"paragraphs\": [}").unwrap();
    refused(&job, 1, &["train.json", "line 2"]);
}

#[test]
fn an_answer_that_is_not_there() {
    let job = Job::new();
    let mut data = job.json("train.json");
    data["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["text"] = json!("nowhere to be found");
    let id = data["data"][0]["paragraphs"][0]["qas"][0]["id"].as_str().unwrap().to_owned();
    std::fs::write(job.path("train.json"), data.to_string()).unwrap();
    refused(&job, 1, &["train.json", &id, "nowhere to be found"]);
}

#[test]
fn a_model_folder_without_weights() {
    let job = Job::new();
    let model = job.path("model");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(minilm().join(file), model.join(file)).unwrap();
    }
    let mut spec = job.spec();
    spec["model"] = json!("model");
    job.write_spec(&spec);
    refused(&job, 1, &["there are no weights", "model.safetensors"]);

    // Half a download.
    let whole = std::fs::read(minilm().join("model.safetensors")).unwrap();
    std::fs::write(model.join("model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    refused(&job, 1, &["model.safetensors", "not a whole weights file"]);
}

#[test]
fn a_spec_that_is_no_yaml() {
    let job = Job::new();
    std::fs::write(job.path("job.yaml"), "name: [").unwrap();
    refused(&job, 2, &["job.yaml", "YAML"]);
    std::fs::remove_file(job.path("job.yaml")).unwrap();
    refused(&job, 2, &["job.yaml"]);
}

#[test]
fn an_output_folder_that_is_a_file() {
    let job = Job::new();
    std::fs::write(job.path("out"), "in the way").unwrap();
    let run = job.squadctl(&["run", "job.yaml"]);
    assert!([1, 2].contains(&run.code()), "{}", run.stderr());
    assert!(run.stderr().contains("out"), "{}", run.stderr());
    assert_eq!(std::fs::read_to_string(job.path("out")).unwrap(), "in the way");
}

#[test]
fn sums_on_gpus_that_are_not_there() {
    let job = Job::new();
    let bench =
        job.squadctl(&["bench", "allreduce", "--transport", "nccl", "--sizes", "4KiB", "--seconds", "0.01"]);
    let text = bench.stderr();
    if bench.code() == 0 {
        eprintln!("SKIPPED: this machine has two GPUs and NCCL");
        return;
    }
    // Both ranks say it, and none waits for the other.
    assert_eq!(bench.code(), 1, "{text}");
    assert!(text.contains("NVIDIA driver") || text.contains("NCCL"), "{text}");
    assert!(text.contains("rank 0 failed") && !text.contains("panicked"), "{text}");
}
