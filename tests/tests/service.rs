//! The daemon and its users: submit, watch, logs, cancel, failure, restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::path::Path;

use squad_tests::{Daemon, Job, minilm, repository, wait_for, workers_in};

/// Submits a job that would run for hours, and waits for its first step. Gives its id.
fn endless(job: &Job, daemon: &Daemon) -> String {
    endless_in(job, daemon, &minilm())
}

fn endless_in(job: &Job, daemon: &Daemon, model: &Path) -> String {
    let mut spec = job.spec();
    spec["model"] = model.to_string_lossy().into();
    spec["train"]["steps"] = 100_000.into();
    spec["fault"]["max_restarts"] = 0.into();
    job.write_spec(&spec);
    let submitted =
        job.squadctl(&["submit", "job.yaml", "--server", &daemon.url, "--output", "json"]).success();
    let id = submitted.json()["id"].as_str().unwrap_or_else(|| panic!("{}", submitted.stdout())).to_owned();
    wait_for("the first step", || {
        std::fs::metadata(job.path("out/metrics.jsonl")).is_ok_and(|m| m.len() > 0)
    });
    id
}

fn state(job: &Job, daemon: &Daemon, id: &str) -> serde_json::Value {
    job.squadctl(&["get", id, "--server", &daemon.url, "--output", "json"]).success().json()
}

#[test]
fn submit_and_wait_then_read_everything_back() {
    let job = Job::new();
    let mut daemon = Daemon::start(&job);
    job.squadctl(&["submit", "job.yaml", "--wait", "--server", &daemon.url]).success();
    let list = job.squadctl(&["list", "--server", &daemon.url, "--output", "json"]).success().json();
    let id = list[0]["id"].as_str().unwrap_or_else(|| panic!("{list}")).to_owned();
    let document = state(&job, &daemon, &id);
    assert_eq!(document["state"], "succeeded", "{document}");
    assert!(document["results"]["f1"].is_number(), "{document}");
    let logs = job.squadctl(&["logs", &id, "--server", &daemon.url]).success();
    assert!(logs.stdout().contains("parameters in 8 stages"), "{}", logs.stdout());
    let watched = job.squadctl(&["watch", &id, "--server", &daemon.url]).success();
    assert!(watched.stderr().contains("succeeded") || watched.stdout().contains("succeeded"));

    // A restarted daemon remembers.
    daemon.terminate();
    let daemon = Daemon::start(&job);
    assert_eq!(state(&job, &daemon, &id)["results"], document["results"]);
}

#[test]
fn cancel_in_the_middle_leaves_no_worker() {
    let job = Job::new();
    let daemon = Daemon::start(&job);
    let id = endless(&job, &daemon);
    // Meanwhile another one waits, and says for what.
    let submit = ["submit", "job.yaml", "-np", "4", "--priority", "3", "--set", "output_dir=out-2"];
    let waiting = job.squadctl(&[&submit[..], &["--server", &daemon.url]].concat()).success().stdout();
    let sentence = "waits for 4 slots, 2 are free";
    assert_eq!(state(&job, &daemon, waiting.trim())["waits"], sentence);
    let picture = || job.squadctl(&["top", "--once", "--server", &daemon.url]).success().stdout();
    // The worker writes its first step down before it tells of it.
    wait_for("a picture of a job that trains", || picture().contains(" train "));
    let picture = picture();
    let line =
        |id: &str| picture.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{picture}"));
    assert!(picture.contains("2 of 4 slots in use   1 at work, 1 waiting, 0 ended"), "{picture}");
    assert!(line(&id).contains("running") && line(&id).contains(" train "), "{picture}");
    let words: Vec<&str> = line(waiting.trim()).split_whitespace().collect();
    assert_eq!(
        (&words[1..4], words[4..].join(" ").as_str()),
        (&["queued", "3", "4"][..], sentence),
        "{picture}"
    );
    job.squadctl(&["cancel", waiting.trim(), "--wait", "--server", &daemon.url]).success();
    job.squadctl(&["cancel", &id, "--wait", "--server", &daemon.url]).success();
    assert_eq!(state(&job, &daemon, &id)["state"], "cancelled");
    let left: Vec<i32> = squad_workers_of(&job);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_killed_worker_fails_the_job_with_rank_and_cause() {
    let job = Job::new();
    let daemon = Daemon::start(&job);
    let id = endless(&job, &daemon);
    let workers = squad_workers_of(&job);
    assert_eq!(workers.len(), 2);
    let begun = std::time::Instant::now();
    // Workers are launched in the order of ranks.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(workers[1]), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    wait_for("the failure", || state(&job, &daemon, &id)["state"] == "failed");
    assert!(begun.elapsed().as_secs() < 15, "it took {:?}", begun.elapsed());
    let failure = state(&job, &daemon, &id)["failure"].clone();
    assert_eq!((&failure["code"], &failure["rank"]), (&"SQ-004".into(), &1.into()), "{failure}");
    assert!(failure["summary"].as_str().unwrap().contains("signal 9"), "{failure}");
    assert!(squad_workers_of(&job).is_empty(), "the survivor ends too");
    let watch = job.squadctl(&["watch", &id, "--server", &daemon.url]);
    assert_eq!(watch.code(), 1);
    assert!(watch.stderr().contains("SQ-004"), "{}", watch.stderr());
}

#[test]
fn a_stopped_daemon_stops_its_workers_and_the_next_one_goes_on() {
    let job = Job::new();
    let mut daemon = Daemon::start(&job);
    let id = endless_in(&job, &daemon, &repository().join("tests/data/zoo/electra"));
    daemon.terminate();
    assert!(squad_workers_of(&job).is_empty(), "no worker outlives its daemon");
    let stopped = job.losses("out").len();
    let daemon = Daemon::start(&job);
    wait_for("a step of the second life", || job.losses("out").len() > stopped);
    let document = state(&job, &daemon, &id);
    assert_eq!(document["state"], "running", "{document}");
    let log = std::fs::read_to_string(job.path("out/train.log")).unwrap();
    assert!(log.contains(&format!("training: from step {stopped} on")), "{stopped}: {log}");
    assert!(!job.path("out/earlier").exists());
    job.squadctl(&["cancel", &id, "--wait", "--server", &daemon.url]).success();
}

/// Workers inherit the daemon's working folder, which is that of this test.
fn squad_workers_of(_: &Job) -> Vec<i32> {
    workers_in(&std::env::current_dir().unwrap())
}
