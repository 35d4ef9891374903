//! What is planned, held against what runs report; steps that are taken to be timed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use serde_json::{Value, json};
use squad_tests::{Job, minilm, repository};

/// How far the planned memory may be from the measured peak, either way (docs/measurements.md has what was measured).
const MEMORY_FACTOR: f64 = 1.5;

/// Bytes of all tensors of a safetensors file, by its header.
fn tensor_bytes(path: &std::path::Path) -> u64 {
    let file = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    tensors
        .map(|(_, about)| {
            about["data_offsets"][1].as_u64().unwrap() - about["data_offsets"][0].as_u64().unwrap()
        })
        .sum()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Plans a job and runs it with these changes, and compares what must be equal; gives the plan, and what the run reports.
fn planned_and_run(job: &Job, out: &str, changes: &[&str]) -> (Value, Value) {
    let out_is = format!("output_dir={out}");
    let mut set = vec!["--set", out_is.as_str()];
    changes.iter().for_each(|change| set.extend(["--set", change]));
    let plan = [&["plan", "job.yaml", "--no-probe", "--output", "json"], &set[..]].concat();
    let plan = job.squadctl(&plan).success().json();
    job.squadctl(&[&["run", "job.yaml"], &set[..]].concat()).success();
    let train = job.json(&format!("{out}/results.json"))["train"].clone();

    let weights = tensor_bytes(&job.path(out).join("model/model.safetensors"));
    assert_eq!(plan["parameters"]["total"].as_u64().unwrap() * 4, weights);
    let work = &plan["work"];
    assert_eq!((&work["steps"], &work["examples"]), (&train["steps"], &train["examples"]), "{out}");
    assert!((number(&work["padding"]) - number(&train["padding"])).abs() < 1e-9, "{work} {train}");
    let tokens = number(&train["tokens_per_second"]) * number(&train["seconds"]);
    assert!((number(&work["tokens"]) - tokens).abs() < 1e-6 * tokens, "{work} {train}");
    assert_eq!(plan["exchange"]["run_bytes"], train["bytes_reduced"], "{out}");
    let lines = std::fs::read_to_string(job.path(out).join("metrics.jsonl")).unwrap();
    let of_line =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["bytes_reduced"].as_u64().unwrap();
    assert_eq!(plan["exchange"]["run_bytes"], lines.lines().map(of_line).sum::<u64>(), "{out}");
    (plan, train)
}

#[test]
fn what_is_planned_is_what_a_run_reports() {
    let job = Job::new();
    let changes = ["data.dev=null", "train.batch_size=8", "train.steps=2"];
    let (plan, train) = planned_and_run(&job, "out", &changes);
    let (planned, measured) = (number(&plan["memory"]["first_worker"]), number(&train["peak_rss_bytes"]));
    let mib = |bytes: f64| (bytes / 1048576.0).round();
    println!("planned {} MiB, measured {} MiB", mib(planned), mib(measured));
    let factor = planned / measured;
    assert!(
        (1.0 / MEMORY_FACTOR..=MEMORY_FACTOR).contains(&factor),
        "planned {planned}, measured {measured}"
    );

    let quick = Job::of_quick_steps(1);
    let epochs = ["data.dev=null", "train.steps=null", "train.epochs=1.5"];
    let more = ["comm.embedding_gradients=dense", "data.tokens_per_batch=400", "train.accumulate=2"];
    planned_and_run(&quick, "tokens", &[&epochs[..], &more].concat());
    planned_and_run(&quick, "frozen", &[&epochs[..], &["train.freeze_layers=1"]].concat());
}

#[test]
fn a_plan_needs_no_files_and_a_probe_takes_real_steps() {
    let job = Job::of_quick_steps(40);
    let plan = job.squadctl(&["plan", "job.yaml", "--output", "json"]).success();
    let (time, work) = (&plan.json()["time"], &plan.json()["work"]);
    let steps = time["probed"].as_array().unwrap();
    assert!(steps.len() >= 2 && steps.iter().all(|step| number(step) > 0.0), "{time}");
    let step = number(&time["step_seconds"]);
    assert!((number(&time["run_seconds"]) - 40.0 * step).abs() < 1e-9 * step.max(1.0) * 40.0, "{time}");
    let rate = number(&work["examples"]) / 40.0 / step;
    assert!((number(&time["examples_per_second"]) - rate).abs() < 1e-6 * rate, "{time}");
    assert!(number(&time["peak_rss_bytes"]) > 1e7);
    assert!(plan.stderr().contains("taken by one worker"), "{}", plan.stderr());
    assert!(!job.path("out").exists(), "a plan leaves nothing");

    // A model that is only a name, and no questions.
    let recipe = ["plan", "--recipe", "bert-large-uncased-squad2", "-np", "4", "--no-probe"];
    let text = job.squadctl(&recipe).success();
    assert!(text.stdout().contains("layer 0 and 23 more, each 12596224"), "{}", text.stdout());
    assert!(
        text.stderr().contains("is not here: steps, tokens and padding are not known"),
        "{}",
        text.stderr()
    );
    let nothing = job.squadctl(&["plan", "job.yaml", "--set", "model=nowhere", "--no-probe"]);
    assert_eq!(nothing.code(), 1);
    assert!(nothing.stderr().starts_with("error: nowhere is no folder"), "{}", nothing.stderr());
}

#[test]
fn steps_are_measured_over_full_windows_and_over_a_files_lengths() {
    let job = Job::new();
    let model = repository().join("tests/data/zoo/electra");
    let bench = |batch: &str, more: &[&str]| {
        let model = model.to_str().unwrap();
        let common =
            ["bench", "step", "--model", model, "--seconds", "0.01", "--output", "json", "--batch", batch];
        job.squadctl(&[&common, more].concat()).success().json()
    };
    for more in
        [&["--seq", "64"][..], &["--seq", "64", "--no-prefetch", "--dtype", "bfloat16", "--recompute"]]
    {
        let found = bench("4", more);
        assert!(found["steps"].as_u64().unwrap() >= 3, "{found}");
        let [examples, tokens, real] = ["examples_per_second", "tokens_per_second", "real_tokens_per_second"]
            .map(|key| number(&found[key]));
        assert!((tokens - 64.0 * examples).abs() < 1e-6 * tokens && real == tokens, "{found}");
        let share = number(&found["flops_per_second"]) / number(&found["matrix_flops_per_second"]);
        assert!((number(&found["share_of_matrix_rate"]) - share).abs() < 1e-9, "{found}");
        let phases: f64 = found["phases"].as_object().unwrap().values().map(number).sum();
        let step = number(&found["seconds"]) / number(&found["steps"]);
        assert!(phases > 0.0 && phases <= step * 1.001, "{found}");
        assert_eq!(found["prefetch"], json!(more.len() == 2));
    }
    let (train, tokenizer) = (job.path("train.json"), minilm());
    let lengths =
        ["--seq", "96", "--lengths", train.to_str().unwrap(), "--tokenizer", tokenizer.to_str().unwrap()];
    // A step has all windows of the file, of which some are short.
    let found = bench("4096", &[&lengths[..], &["--plot", "step.svg"]].concat());
    assert!(number(&found["padding"]) > 0.0, "{found}");
    let real = number(&found["tokens_per_second"]) * (1.0 - number(&found["padding"]));
    assert!((number(&found["real_tokens_per_second"]) - real).abs() < 1e-6 * real, "{found}");
    assert!(std::fs::read_to_string(job.path("step.svg")).unwrap().contains("backward"));

    let long = job.squadctl(&["bench", "step", "--model", model.to_str().unwrap(), "--seq", "8192"]);
    assert_eq!(long.code(), 1);
    assert!(long.stderr().contains("the model knows only"), "{}", long.stderr());
}
