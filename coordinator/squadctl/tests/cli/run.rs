//! `run` with the coordinator inside it, and `predict`, with workers that do no work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{interrupted, program};

/// A job whose files are all there; what is in them is a matter for workers.
fn job() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("m")).unwrap();
    fs::write(folder.path().join("t.json"), "{}").unwrap();
    let spec = "name: a\nmodel: m\ndata: {train: t.json}\noutput_dir: out\nfault: {patience_s: 1}\n";
    fs::write(folder.path().join("job.yaml"), spec).unwrap();
    folder
}

/// squadctl with a shell script as the worker.
pub(crate) fn with_worker(folder: &TempDir, worker: &str, arguments: &[&str]) -> Command {
    let path = folder.path().join("worker");
    fs::write(&path, format!("#!/bin/sh\n{worker}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = program(arguments);
    command.current_dir(folder.path()).env("SQUAD_WORKER", path);
    command
}

fn run(folder: &TempDir, worker: &str, more: &[&str]) -> Command {
    with_worker(folder, worker, &[&["run", "job.yaml", "-np", "2"], more].concat())
}

#[test]
fn a_worker_that_dies_is_named_with_its_last_words() {
    let folder = job();
    let output = run(&folder, "echo last words >&2; exit 3", &[]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
    for part in
        ["SQ-004 rank ", "exit code 3", "  | last words\n", "squadctl explain SQ-004\n", "/out/logs/a-"]
    {
        assert!(stderr.contains(part), "{part:?} not in {stderr}");
    }
    let output = run(&folder, "exit 3", &["--output", "json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["state"], &document["failure"]["code"]), (&"failed".into(), &"SQ-004".into()));
    assert_eq!(document["workers"], 2, "-np counts, not the spec");
}

#[test]
fn ctrl_c_stops_the_workers() {
    let folder = job();
    let pids = folder.path().join("pids");
    let worker = format!("echo $$ >> {}; exec sleep 60", pids.display());
    let call = interrupted(run(&folder, &worker, &[]), "starting");
    assert_eq!((call.code, call.stdout.as_str()), (130, ""), "{}", call.stderr);
    assert!(call.stderr.contains("asking the workers to stop; press Ctrl-C again"), "{}", call.stderr);
    for pid in fs::read_to_string(pids).unwrap_or_default().lines() {
        let alive = Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap();
        assert!(!alive.success(), "worker {pid} is still there");
    }
}

#[test]
fn without_a_worker_program_nothing_is_begun() {
    let folder = job();
    let output = run(&folder, "", &[]).env("SQUAD_WORKER", "/no/such/program").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("/no/such/program"), "{stderr}");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_question_is_handed_on_and_the_answer_back() {
    let folder = job();
    let ask = ["predict", "--model", "m", "--question", "-who?", "--context", "a b", "--output", "json"];
    let output = with_worker(&folder, "printf '<%s>' \"$@\"; exit 7", &ask).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let seen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(seen, "<predict><--model><m><--question=-who?><--context=a b><--output><json>");
}
