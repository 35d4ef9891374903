//! Where time goes and who sums: timelines of real processes, which rank is late, and the central server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use squad_tests::{Daemon, Finished, Job, repository, wait_for, workers_in};

/// A job of quick steps.
fn job(steps: u64, patience: u64) -> Job {
    let job = Job::new();
    let mut spec = job.spec();
    spec["model"] = repository().join("tests/data/zoo/electra").to_string_lossy().into();
    spec["train"] = json!({"steps": steps, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1});
    spec["fault"] = json!({"patience_s": patience, "max_restarts": 0});
    job.write_spec(&spec);
    job
}

/// Ranks of the timeline's steps.
fn ranks_in(job: &Job, name: &str, steps: u64) -> Vec<u64> {
    let timeline = job.json(name);
    let events = timeline["traceEvents"].as_array().expect("events");
    let mut ranks: Vec<u64> = events
        .iter()
        .filter(|event| event["name"] == "step" && event["args"]["step"] == steps)
        .map(|event| event["pid"].as_u64().expect("a rank"))
        .collect();
    ranks.sort_unstable();
    ranks
}

#[test]
fn run_and_submit_write_a_timeline_of_all_ranks() {
    let job = job(6, 40);
    let run = job.squadctl(&["run", "job.yaml", "--timeline", "here/run.json"]).success();
    assert!(run.stderr().contains("timeline: "), "{}", run.stderr());
    assert_eq!(ranks_in(&job, "here/run.json", 6), [0, 1]);
    let line = std::fs::read_to_string(job.path("out/metrics.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert!(line["bytes_reduced"].as_u64().unwrap() > 0, "{line}");
    let share = line["allreduce_hidden_share"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&share), "{line}");

    let daemon = Daemon::start(&job);
    let submit = ["submit", "job.yaml", "--wait", "--timeline", "submitted.json", "--server", &daemon.url];
    job.squadctl(&submit).success();
    assert_eq!(ranks_in(&job, "submitted.json", 6), [0, 1]);
}

#[test]
fn a_rank_that_stands_still_is_named_with_what_it_was_doing() {
    let job = job(100_000, 12);
    let run = job.start(&["run", "job.yaml"]);
    let metrics = job.path("out/metrics.jsonl");
    wait_for("a step", || std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3));
    // Some beats, the first of which says what is done, come every second.
    std::thread::sleep(std::time::Duration::from_secs(4));
    // Workers are launched in the order of ranks.
    let workers = workers_in(&job.path(""));
    assert_eq!(workers.len(), 2);
    kill(Pid::from_raw(workers[1]), Signal::SIGSTOP).unwrap();
    let finished = Finished(run.wait_with_output().unwrap());
    assert_eq!(finished.code(), 1, "{}", finished.stderr());
    let said = finished.stderr();
    // Once as a warning while the job runs, once as a part of the failure.
    let named: Vec<&str> = said.lines().filter(|line| line.contains("rank 1 is late: ")).collect();
    assert!(named.len() >= 2, "{said}");
    assert!(!named[0].contains("SQ-"), "the first is a warning: {said}");
    assert!(named.iter().any(|line| line.contains("SQ-005")), "{said}");
    assert!(
        named.iter().all(|line| line.contains(" of step ") && line.contains("rank 0 has waited ")),
        "{said}"
    );
    assert!(workers_in(&job.path("")).is_empty());
}

#[test]
fn a_central_server_sums_the_same() {
    let job = job(6, 40);
    job.squadctl(&["run", "job.yaml"]).success();
    let served = ["run", "job.yaml", "--set", "comm.backend=server", "--set", "output_dir=served"];
    let run = job.squadctl(&served).success();
    assert!(run.stderr().contains("2 ranks over server"), "{}", run.stderr());
    // Two values have one sum, whichever comes first.
    assert_eq!(job.losses("served"), job.losses("out"));
}
