//! `plan`: what the worker is told, and what is made of its end. tests/tests/plan.rs has real plans.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{program, squadctl, squadctl_in};

/// Plans a job with a worker program of these lines; gives exit code, stdout and stderr.
fn plan(folder: &Path, lines: &str, arguments: &[&str]) -> (i32, String, String) {
    let worker = folder.join("worker.sh");
    std::fs::write(&worker, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let spec = "{name: a, model: m, data: {train: t.json}, output_dir: out, resources: {workers: 3}}";
    std::fs::write(folder.join("job.yaml"), spec).unwrap();
    let mut command = program(&[&["plan", "job.yaml"], arguments].concat());
    let output = command.current_dir(folder).env("SQUAD_WORKER", &worker).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_worker_gets_the_job_with_absolute_paths_and_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let lines = r#"echo "$@" > told; cat > job.json; echo '{}'"#;
    let told = |arguments: &[&str]| {
        let (code, _, stderr) = plan(folder.path(), lines, arguments);
        assert_eq!(code, 1, "no plan is in {{}}: {stderr}");
        assert!(stderr.contains("gave no answer"), "{stderr}");
        std::fs::read_to_string(folder.path().join("told")).unwrap().trim().to_owned()
    };
    assert_eq!(told(&["--set", "train.epochs=7"]), "plan --workers 3");
    let job = std::fs::read_to_string(folder.path().join("job.json")).unwrap();
    let job: serde_json::Value = serde_json::from_str(&job).unwrap();
    assert_eq!(job["train"]["epochs"], 7.0);
    assert_eq!(job["data"]["train"], folder.path().join("t.json").to_str().unwrap());
    assert_eq!(job["model"], "m", "what is no folder may be a name");
    assert_eq!(told(&["-np", "8", "--no-probe"]), "plan --workers 8 --no-probe");
}

#[test]
fn what_the_worker_says_is_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "echo '2026-01-01T00:00:00Z ERROR m is no folder: there' >&2; exit 1";
    let (code, stdout, stderr) = plan(folder.path(), lines, &[]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "", "error: m is no folder: there\n"));
    let (code, stdout, _) = plan(folder.path(), "kill -9 $$", &["--output", "json"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("signal: 9"), "{stdout}");
}

#[test]
fn a_spec_that_is_wrong_is_refused() {
    assert_eq!(squadctl(&["plan"]).code, 2);
    let folder = tempfile::tempdir().unwrap();
    let call = squadctl_in(folder.path(), &["plan", "none.yaml"]);
    assert_eq!((call.code, call.stdout.as_str()), (2, ""));
    assert!(call.stderr.contains("cannot read none.yaml"), "{}", call.stderr);
}
