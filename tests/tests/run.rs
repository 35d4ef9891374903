//! `squadctl run`, with real workers on real weights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use squad_tests::{Job, minilm, wait_for, workers_in};

#[test]
fn two_workers_train_evaluate_and_leave_everything() {
    let job = Job::new();
    let run = job.squadctl(&["run", "job.yaml", "--output", "json"]).success();
    let results = job.json("out/results.json");
    assert_eq!(results["train"]["world_size"], 2);
    assert_eq!(results["train"]["steps"], 6);
    assert!(results["f1"].as_f64().unwrap() >= results["exact"].as_f64().unwrap());
    assert!(
        run.json().to_string().contains(results["weights_sha256"].as_str().unwrap()),
        "stdout is one document with the results"
    );
    for file in [
        "spec.yaml",
        "train.log",
        "metrics.jsonl",
        "model/model.safetensors",
        "model/tokenizer.json",
        "eval/predictions.json",
    ] {
        assert!(job.path("out").join(file).is_file(), "{file}");
    }
    assert_eq!(job.losses("out").len(), 6);
    let events = std::fs::read_dir(job.path("out/tensorboard")).unwrap();
    // One of the training, one of the figures at its end.
    assert_eq!(events.count(), 2);

    // The official metric gives the same figures for the predictions that were left.
    let again = job
        .squadctl(&["evaluate", "--data", "dev.json", "--predictions", "out/eval/predictions.json"])
        .success();
    assert_eq!(again.json()["f1"], results["f1"]);

    // The second command: the kept checkpoint scores the same.
    job.squadctl(&["run", "job.yaml", "--eval-only", "--checkpoint", "all"]).success();
    assert_eq!(job.json("out/eval/results.json")["exact"], results["exact"]);

    let asked = [
        "predict",
        "--model",
        "out/model",
        "--question",
        "What is measured?",
        "--context",
        "The height is measured.",
    ];
    let answer = job.squadctl(&asked).success();
    assert!(
        "The height is measured.".contains(answer.stdout().lines().next().unwrap().trim()),
        "{}",
        answer.stdout()
    );
}

#[test]
fn the_number_of_processes_changes_no_loss() {
    let job = Job::new();
    for (processes, out) in [("1", "one"), ("2", "two"), ("4", "four")] {
        let set = format!("output_dir={out}");
        job.squadctl(&["run", "-np", processes, "job.yaml", "--set", &set, "--set", "resources.workers=4"])
            .success();
    }
    let one = job.losses("one");
    for out in ["two", "four"] {
        for (a, b) in job.losses(out).iter().zip(&one) {
            assert!((a - b).abs() < 1e-4 * b, "{out}: {:?} against {one:?}", job.losses(out));
        }
    }
}

#[test]
fn an_interrupt_stops_all_and_exits_130() {
    let job = Job::new();
    let mut spec = job.spec();
    spec["train"]["steps"] = 100_000.into();
    job.write_spec(&spec);
    let mut run = job.start(&["run", "job.yaml"]);
    wait_for("the first step", || {
        std::fs::metadata(job.path("out/metrics.jsonl")).is_ok_and(|m| m.len() > 0)
    });
    assert_eq!(workers_in(&job.path("")).len(), 2);
    let pid = nix::unistd::Pid::from_raw(run.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = run.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{}", squad_tests::read_all(run.stderr.take()));
    assert!(workers_in(&job.path("")).is_empty());
    assert!(job.path("out/checkpoints").is_dir(), "a stop leaves a checkpoint");
}

#[test]
fn a_killed_launcher_leaves_no_worker() {
    let job = Job::new();
    let mut spec = job.spec();
    spec["train"]["steps"] = 100_000.into();
    job.write_spec(&spec);
    let mut run = job.start(&["run", "job.yaml"]);
    wait_for("the first step", || {
        std::fs::metadata(job.path("out/metrics.jsonl")).is_ok_and(|m| m.len() > 0)
    });
    run.kill().unwrap();
    run.wait().unwrap();
    wait_for("the workers' end", || workers_in(&job.path("")).is_empty());
}

#[test]
fn the_conditional_head_on_version_2() {
    let job = Job::new();
    let mut spec = job.spec();
    spec["head"] = "conditional".into();
    spec["data"]["version"] = "2.0".into();
    let examples = squad_tests::repository().join("examples/quickstart");
    spec["data"]["dev"] = examples.join("dev-v2.0.json").to_string_lossy().into();
    spec["model"] = minilm().to_string_lossy().into();
    job.write_spec(&spec);
    job.squadctl(&["run", "job.yaml"]).success();
    let results = job.json("out/results.json");
    for key in [
        "exact",
        "f1",
        "total",
        "HasAns_exact",
        "NoAns_f1",
        "best_exact",
        "best_exact_thresh",
        "best_f1",
        "best_f1_thresh",
    ] {
        assert!(results.get(key).is_some(), "{key}");
    }
    // What squadctl computes from the files is what the worker wrote.
    let dev = examples.join("dev-v2.0.json");
    let files = [
        "--predictions",
        "out/eval/predictions.json",
        "--na-prob",
        "out/eval/na_prob.json",
        "--curves",
        "plots",
    ];
    let official =
        job.squadctl(&[&["evaluate", "--data", dev.to_str().unwrap()], &files[..]].concat()).success().json();
    let curves = &results["precision_recall"];
    for (ours, key) in [("exact_ap", "pr_exact_ap"), ("f1_ap", "pr_f1_ap"), ("oracle_ap", "pr_oracle_ap")] {
        let (ours, theirs) = (curves[ours].as_f64().unwrap(), official[key].as_f64().unwrap());
        assert!((ours - theirs).abs() < 1e-9, "{key}: {ours} instead of {theirs}");
    }
    assert!(curves["f1"].as_array().is_some_and(|points| (2..=200).contains(&points.len())), "{curves}");
}
