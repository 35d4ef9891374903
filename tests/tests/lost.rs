//! Workers that are lost: how soon a user knows which one and why, what happens to the others, and how a run goes on
//! without a slot that is gone for good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use squad_tests::faults::{SmallMemory, Told, lives, signal, wait_for_step};
use squad_tests::{Daemon, Finished, Job, program, repository, wait_for, workers_in};

/// A job of three workers and many quick steps.
fn job(steps: u64, patience_s: f64) -> Job {
    let job = Job::new();
    let mut spec = job.spec();
    spec["model"] = repository().join("tests/data/zoo/electra").to_string_lossy().into();
    spec["train"] = json!({
        "steps": steps, "checkpoint_every": 10, "batch_size": 2, "learning_rate": 1e-3, "log_every": 1, "dropout": 0.1,
    });
    spec["resources"]["workers"] = 3.into();
    spec["fault"]["patience_s"] = patience_s.into();
    job.write_spec(&spec);
    job
}

/// A line with every number, and every share of one, as N.
fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('N') => {}
            true => text.push('N'),
            false => text.push(c),
        }
    }
    text
}

/// Fails unless the README shows a line that begins so, but for its numbers.
fn in_the_readme(line: &str) {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let shown = readme.lines().any(|shown| without_numbers(shown).starts_with(&without_numbers(line)));
    assert!(shown, "README.md does not show: {line}");
}

/// Loses rank 1 of a run by a signal; gives the line that names it, and how long it and the end of the others took.
fn lose(job: &Job, by: Signal, code: &str) -> (String, Duration, Duration) {
    let mut run = job.start(&["run", "job.yaml"]);
    let told = Told::listen(run.stderr.take().unwrap());
    wait_for_step(job, "out", 15);
    let workers = workers_in(&job.path(""));
    assert_eq!(workers.len(), 3, "{}", told.all());
    let lost = Instant::now();
    // Workers are launched in the order of ranks.
    signal(workers[1], by);
    wait_for("the end of the others", || {
        std::thread::sleep(Duration::from_millis(10));
        !lives(workers[0]) && !lives(workers[2])
    });
    let gone = lost.elapsed();
    let (at, line) = told.wait(&format!("{code} rank 1"));
    let (_, again) = told.wait("starting: restart 1 of 3");
    in_the_readme(&again);
    // The next life works.
    let steps = job.losses("out").len() as u64;
    wait_for_step(job, "out", steps + 1);
    signal(run.id() as i32, Signal::SIGTERM);
    assert_eq!(run.wait().unwrap().code(), Some(130), "{}", told.all());
    (line, at - lost, gone)
}

#[test]
fn a_killed_rank_is_named_and_the_others_are_gone_within_five_seconds() {
    let job = job(100_000, 60.0);
    let (line, named, gone) = lose(&job, Signal::SIGKILL, "SQ-004");
    eprintln!("named after {named:.1?}, the others gone after {gone:.1?}");
    let promised = Duration::from_secs(5);
    assert!(named < promised && gone < promised, "named after {named:?}, the others gone after {gone:?}");
    in_the_readme(&line);
}

#[test]
fn a_stopped_rank_is_named_within_patience() {
    let job = job(100_000, 12.0);
    let (line, named, gone) = lose(&job, Signal::SIGSTOP, "SQ-005");
    eprintln!("named after {named:.1?}, the others gone after {gone:.1?}: {line}");
    assert!(named < Duration::from_secs(12), "named after {named:?}");
    assert!(gone < Duration::from_secs(12) + Duration::from_secs(5), "the others gone after {gone:?}");
    // What it did last depends on the moment.
    let (stall, rest) = line.split_once(", last ").unwrap_or((line.as_str(), ""));
    in_the_readme(stall);
    assert!(rest.contains("; rank "), "who waits for it is said: {line}");
}

/// A worker program that writes down its process id and goes on as the true one, but for slot 1 in later lives: there
/// it is killed before it says anything, as on a machine that is broken.
fn breaking(job: &Job) -> std::path::PathBuf {
    let path = job.path("worker.sh");
    let text = format!(
        "#!/bin/bash\n\
         IFS= read -r ticket\n\
         slot=${{ticket#*'\"slot\":'}}; slot=${{slot%%,*}}\n\
         life=${{ticket#*'\"generation\":'}}; life=${{life%%,*}}\n\
         if [ \"$slot\" = 1 ] && [ \"$life\" != 1 ]; then kill -9 $$; fi\n\
         echo $$ > '{folder}'/pid-$slot-$life\n\
         exec 3<&0\n\
         exec '{worker}' \"$@\" < <(printf '%s\\n' \"$ticket\"; exec cat <&3)\n",
        folder = job.path("").display(),
        worker = program("squad-worker").display(),
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_slot_that_is_gone_for_good_is_left_out_and_the_run_ends_well() {
    let job = job(60, 60.0);
    job.squadctl(&["run", "job.yaml", "--set", "output_dir=whole"]).success();
    let arguments = ["--listen", "127.0.0.1:0", "--web", "off"];
    let daemon = Daemon::start_with(&job, &breaking(&job), &arguments);
    let set = "resources.min_workers=2";
    let mut submitted = job.start(&["submit", "job.yaml", "--set", set, "--wait", "--server", &daemon.url]);
    let told = Told::listen(submitted.stderr.take().unwrap());
    wait_for_step(&job, "out", 15);
    let pid = std::fs::read_to_string(job.path("pid-1-1")).unwrap();
    signal(pid.trim().parse().unwrap(), Signal::SIGKILL);
    let said = || told.all();
    assert_eq!(submitted.wait().unwrap().code(), Some(0), "{}", said());
    assert!(said().contains("starting: slot 1 is gone for good: with 2 of 3 workers"), "{}", said());
    let results = job.json("out/results.json");
    assert_eq!(results["train"]["world_size"], 2, "{results}");
    assert_eq!(results["train"]["steps"], 60, "{results}");
    // Each step is the same work, shared among fewer.
    let (losses, whole) = (job.losses("out"), job.losses("whole"));
    assert_eq!(losses.len(), whole.len());
    for (step, (ours, theirs)) in losses.iter().zip(&whole).enumerate() {
        assert!((ours - theirs).abs() < 1e-3 * theirs.abs(), "step {step}: {ours} and {theirs}");
    }
}

#[test]
fn a_worker_that_the_kernel_killed_for_its_memory_is_said_to_be_one() {
    let limit = 600 << 20;
    let Some(group) = SmallMemory::make(limit) else {
        eprintln!("SKIPPED: this user may not make a control group with a limit of memory");
        return;
    };
    let job = Job::new();
    let mut spec = job.spec();
    // Hundreds of MiB of activations in its first step.
    spec["train"] = json!({"steps": 2, "batch_size": 128, "dropout": 0.1});
    spec["data"]["max_seq_length"] = 256.into();
    spec["resources"]["workers"] = 1.into();
    job.write_spec(&spec);
    let words = format!("{} && exec \"$@\"", group.enter());
    let run = Command::new("bash")
        .args(["-c", &words, "--"])
        .arg(program("squadctl"))
        .args(["run", "job.yaml"])
        .current_dir(job.path(""))
        .env("SQUAD_WORKER", program("squad-worker"))
        .stdin(Stdio::null())
        .output();
    let run = Finished(run.unwrap());
    assert_eq!(run.code(), 1, "{}", run.stderr());
    for words in [
        "SQ-013 rank 0",
        "the worker process was killed by the kernel because memory ran out: its control group may have 600 MiB",
        "give the workers more memory",
    ] {
        assert!(run.stderr().contains(words), "{words} not in\n{}", run.stderr());
    }
}
