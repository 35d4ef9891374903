//! Nothing is lost: workers killed, checkpoints damaged, disks full, machines wanted back. Tiny random weights, real
//! processes.
//!
//! `SQUAD_KILL_ROUNDS=30` makes more rounds of the random kills than a usual test run does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use squad_tests::faults::{signal, wait_for_step};
use squad_tests::{Daemon, Finished, Job, wait_for, workers_in};

const STEPS: u64 = 120;

/// The weights of a run that nothing disturbs.
fn undisturbed(job: &Job) -> Value {
    job.squadctl(&["run", "job.yaml", "--set", "output_dir=whole"]).success();
    job.json("whole/results.json")["weights_sha256"].clone()
}

fn weights(job: &Job, output: &str) -> Value {
    job.json(&format!("{output}/results.json"))["weights_sha256"].clone()
}

/// A number below `bound`, another one each time.
fn random(bound: u64) -> u64 {
    std::hash::RandomState::new().build_hasher().finish() % bound
}

/// Checkpoints that are whole or say that they are, by name.
fn checkpoints(job: &Job, output: &str) -> Vec<String> {
    let folder = job.path(output).join("checkpoints");
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("step-"));
    names.sort();
    names
}

#[test]
fn killed_workers_cost_restarts_and_nothing_else() {
    let rounds = std::env::var("SQUAD_KILL_ROUNDS").map_or(4, |rounds| rounds.parse().expect("a number"));
    let job = Job::of_quick_steps(STEPS);
    let begun = Instant::now();
    let whole = undisturbed(&job);
    let usual = begun.elapsed();
    for round in 0..rounds {
        let output = format!("out-{round}");
        let begun = Instant::now();
        let run = job.start(&["run", "job.yaml", "--set", &format!("output_dir={output}")]);
        let step = 1 + random(STEPS - 20);
        wait_for_step(&job, &output, step);
        let workers = workers_in(&job.path(""));
        assert_eq!(workers.len(), 2);
        let writes = round % 2 == 1;
        // Workers are launched in the order of ranks; rank 0 writes checkpoints.
        let victim = if writes { 0 } else { random(2) as usize };
        if writes {
            wait_for_writing(&job, &output);
        }
        signal(workers[victim], Signal::SIGKILL);
        let finished = Finished::wait(run).success();
        let lost = begun.elapsed().as_secs_f64() - usual.as_secs_f64();
        let what = format!(
            "round {round}: rank {victim} killed after step {step}, while writing: {writes}, {lost:.1} s longer than undisturbed"
        );
        println!("{what}");
        let said = finished.stderr();
        let cause = format!("restarting: SQ-004 rank {victim} in ");
        assert!(said.contains(&cause) && said.contains("signal 9"), "{what}\n{said}");
        assert!(said.contains("starting: restart 1 of 3, from the newest checkpoint"), "{what}\n{said}");
        assert_eq!(weights(&job, &output), whole, "{what}\n{said}");
        assert_eq!(job.json(&format!("{output}/results.json"))["train"]["restarts"], 1, "{what}");
        assert_eq!(job.losses(&output), job.losses("whole"), "{what}");
        assert!(!job.path(&output).join("earlier").exists(), "{what}\n{said}");
    }
}

#[test]
fn a_stopped_run_goes_on_past_a_damaged_checkpoint_with_any_number_of_processes() {
    let job = Job::of_quick_steps(STEPS);
    let whole = undisturbed(&job);
    let run = job.start(&["run", "job.yaml"]);
    wait_for_step(&job, "out", 35);
    signal(run.id() as i32, Signal::SIGTERM);
    let stopped = Finished::wait(run);
    assert_eq!(stopped.code(), 130, "{}", stopped.stderr());
    assert!(stopped.stderr().contains("--resume goes on from there"), "{}", stopped.stderr());
    assert!(workers_in(&job.path("")).is_empty());
    let newest = checkpoints(&job, "out").pop().unwrap();
    assert!(
        stopped.stderr().contains(&format!("stopped after step {}", newest[5..].trim_start_matches('0')))
    );
    for (processes, output) in [("1", "one"), ("4", "four")] {
        copy(&job.path("out"), &job.path(output));
        let set = format!("output_dir={output}");
        let arguments = ["run", "job.yaml", "--resume", "-np", processes, "--set", &set];
        let resumed = job.squadctl(&arguments).success();
        assert!(resumed.stderr().contains("not bit for bit"), "{}", resumed.stderr());
        for (a, b) in job.losses(output).iter().zip(&job.losses("whole")) {
            assert!((a - b).abs() < 1e-4 * b, "{processes} processes: {a} against {b}");
        }
    }

    let damaged = job.path("out/checkpoints").join(&newest).join("optimizer.safetensors");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let resumed = job.squadctl(&["run", "job.yaml", "--resume"]).success();
    let said = format!("{newest} was passed over: optimizer.safetensors is not as it was written");
    assert!(resumed.stderr().contains(&said), "{}", resumed.stderr());
    assert_eq!(weights(&job, "out"), whole);

    let again = job.squadctl(&["run", "job.yaml", "--resume"]).success();
    assert!(again.stderr().contains("the run is complete"), "{}", again.stderr());
    let other = job.squadctl(&["run", "job.yaml", "--resume", "--set", "train.seed=7"]);
    assert_eq!(other.code(), 1);
    assert!(other.stderr().contains("train.seed was 100 and is now 7"), "{}", other.stderr());
    assert!(other.stderr().contains("SQ-011"), "{}", other.stderr());
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_worker_whose_machine_is_wanted_back_stops_all_with_a_checkpoint() {
    let job = Job::of_quick_steps(STEPS);
    let whole = undisturbed(&job);
    let run = job.start(&["run", "job.yaml"]);
    wait_for_step(&job, "out", 15);
    signal(workers_in(&job.path(""))[1], Signal::SIGTERM);
    let stopped = Finished::wait(run);
    assert_eq!(stopped.code(), 1);
    assert!(stopped.stderr().contains("rank 1 was asked to end by SIGTERM"), "{}", stopped.stderr());
    assert!(stopped.stderr().contains("--resume goes on from there"), "{}", stopped.stderr());
    job.squadctl(&["run", "job.yaml", "--resume"]).success();
    assert_eq!(weights(&job, "out"), whole);
}

#[test]
fn a_killed_launcher_leaves_a_run_that_goes_on() {
    let job = Job::of_quick_steps(STEPS);
    let whole = undisturbed(&job);
    let mut run = job.start(&["run", "job.yaml"]);
    wait_for_step(&job, "out", 25);
    run.kill().unwrap();
    run.wait().unwrap();
    wait_for("the workers' end", || workers_in(&job.path("")).is_empty());
    // Nobody was left to kill them: they stopped by themselves, with a checkpoint of the step that they agreed on.
    let newest = checkpoints(&job, "out").pop().unwrap();
    assert!(newest.as_str() >= "step-00000025", "{newest}");
    let resumed = job.squadctl(&["run", "job.yaml", "--resume"]).success();
    let from = format!("training: from step {} on", newest[5..].trim_start_matches('0'));
    assert!(resumed.stderr().contains(&from), "{from}: {}", resumed.stderr());
    assert_eq!(weights(&job, "out"), whole);
}

/// Waits until a checkpoint of a run is being written. Without a pause: that takes a few milliseconds.
fn wait_for_writing(job: &Job, output: &str) {
    let folder = job.path(output).join("checkpoints");
    let temporary = |name: &str| name.starts_with(".step-") && name.ends_with(".tmp");
    let begun = std::time::Instant::now();
    while !std::fs::read_dir(&folder)
        .is_ok_and(|all| all.flatten().any(|e| e.file_name().to_str().is_some_and(temporary)))
    {
        assert!(begun.elapsed().as_secs() < 60, "no checkpoint is written");
    }
}

#[test]
fn a_killed_coordinator_takes_its_jobs_up_again() {
    let rounds = std::env::var("SQUAD_KILL_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"));
    let job = Job::of_quick_steps(STEPS);
    let begun = Instant::now();
    let whole = undisturbed(&job);
    let usual = begun.elapsed();
    for round in 0..rounds {
        let output = format!("out-{round}");
        let begun = Instant::now();
        let mut daemon = Daemon::start(&job);
        let set = format!("output_dir={output}");
        let to_daemon = ["--set", &set, "--server", &daemon.url, "--output", "json"];
        let submitted = job.squadctl(&[&["submit", "job.yaml"], &to_daemon[..]].concat()).success();
        let id = submitted.json()["id"].as_str().unwrap().to_owned();
        let watch = job.start(&["watch", &id, "--server", &daemon.url]);
        let step = 1 + random(STEPS - 20);
        wait_for_step(&job, &output, step);
        let writes = round % 2 == 1;
        if writes {
            wait_for_writing(&job, &output);
        }
        daemon.kill();
        let what = format!("round {round}: killed after step {step}, while writing: {writes}");
        // At once: the workers of the life before may still be there.
        daemon.start_again(&job);
        let watched = Finished::wait(watch);
        let lasted = begun.elapsed();
        let said = watched.stderr();
        assert_eq!(watched.code(), 0, "{what}\n{said}");
        for words in ["the daemon is back", "SQ-010", "taken up again by the coordinator, from the newest"] {
            assert!(said.contains(words), "{what}: no {words} in\n{said}");
        }
        assert_eq!(weights(&job, &output), whole, "{what}\n{said}");
        assert_eq!(job.losses(&output), job.losses("whole"), "{what}");
        assert!(!job.path(&output).join("earlier").exists(), "{what}\n{said}");
        // It went on from the step that the workers agreed on when they saw the end of their lifeline.
        let log = std::fs::read_to_string(job.path(&output).join("train.log")).unwrap();
        let from = log.lines().filter_map(|line| line.split("training: from step ").nth(1)).next_back();
        let from: u64 = from.and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a second life");
        assert!(from >= step, "{what}: went on from {from}\n{log}");
        println!("{what}, {:.1} s longer than undisturbed", lasted.as_secs_f64() - usual.as_secs_f64());
    }
}

#[test]
fn a_cancelled_job_of_a_daemon_goes_on() {
    let job = Job::of_quick_steps(STEPS);
    let whole = undisturbed(&job);
    let daemon = Daemon::start(&job);
    let to_daemon = ["--server", &daemon.url];
    let submitted =
        job.squadctl(&[&["submit", "job.yaml", "--output", "json"], &to_daemon[..]].concat()).success();
    let id = submitted.json()["id"].as_str().unwrap().to_owned();
    wait_for_step(&job, "out", 25);
    job.squadctl(&[&["cancel", &id, "--wait"], &to_daemon[..]].concat()).success();
    let cancelled = job.squadctl(&[&["get", &id], &to_daemon[..]].concat()).success();
    assert!(cancelled.stdout().contains("--resume goes on from there"), "{}", cancelled.stdout());
    job.squadctl(&[&["submit", "job.yaml", "--resume", "--wait"], &to_daemon[..]].concat()).success();
    assert_eq!(weights(&job, "out"), whole);
}

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &at).then_some(Self(at))
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    std::process::Command::new("mount").args(arguments).arg(at).status().is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

#[test]
fn a_full_disk_leaves_old_checkpoints_whole_and_more_room_is_enough_to_go_on() {
    let job = Job::of_quick_steps(STEPS);
    let whole = undisturbed(&job);
    let Some(disk) = SmallDisk::mount(job.path("out/checkpoints"), "512k") else {
        eprintln!("SKIPPED: this user may not mount a small file system");
        return;
    };
    let keep = ["--set", "train.keep_checkpoints=100"];
    let full = job.squadctl(&[&["run", "job.yaml", "--resume"], &keep[..]].concat());
    assert_eq!(full.code(), 1, "{}", full.stderr());
    for words in ["could not be written", "No space left on device", "training goes on", "SQ-003"] {
        assert!(full.stderr().contains(words), "{words} not in\n{}", full.stderr());
    }
    assert!(job.losses("out").len() as u64 == STEPS, "training went on to its end");
    assert!(!job.path("out/results.json").exists());
    assert!(checkpoints(&job, "out").len() >= 2);

    assert!(mount(&["-o", "remount,size=8m"], &disk.0));
    let resumed = job.squadctl(&[&["run", "job.yaml", "--resume"], &keep[..]].concat()).success();
    assert!(!resumed.stderr().contains("passed over"), "{}", resumed.stderr());
    assert!(resumed.stderr().contains("training: from step"), "{}", resumed.stderr());
    assert_eq!(weights(&job, "out"), whole);
}
