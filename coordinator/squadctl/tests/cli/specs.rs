//! Specs that cannot be run: one clear answer, exit code 2, nothing left behind.

use std::fs;
use std::path::Path;

use crate::{Call, squadctl_in};

const GOOD: &str = "name: a\nmodel: m\ndata: {train: t.json}\noutput_dir: out\n";

fn run(spec: &str, more: &[&str]) -> Call {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.yaml"), spec).unwrap();
    let call = squadctl_in(folder.path(), &[&["run", "job.yaml"], more].concat());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["job.yaml"], "nothing is left behind");
    call
}

#[test]
fn three_mistakes_are_named_at_once() {
    let spec = "name: a\nmodel: m\ndata: {train: t.json}\noutput_dir: out\ntrain: {epoch: 2, batch_size: 0, optimizer: sgd}\n";
    let call = run(spec, &[]);
    assert_eq!((call.code, call.stdout.as_str()), (2, ""));
    assert!(call.stderr.starts_with("error: job.yaml: 3 problems in the spec\n"), "{}", call.stderr);
    for part in [
        "train.epoch: found a field that does not exist; allowed: did you mean epochs?",
        "train.batch_size: found 0; allowed: at least 1",
        "train.optimizer: found \"sgd\"; allowed: \"adamw\"",
    ] {
        assert!(call.stderr.contains(part), "{part} not in {}", call.stderr);
    }
    let document = run(spec, &["--output", "json"]).json();
    assert_eq!(document["exit_code"], 2);
    assert_eq!(document["problems"].as_array().map(Vec::len), Some(3));
    assert_eq!(document["problems"][0].as_object().map(serde_json::Map::len), Some(3));
}

#[test]
fn a_spec_that_is_not_there() {
    for command in ["run", "submit"] {
        let call = squadctl_in(Path::new("."), &[command, "no/such/job.yaml"]);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""));
        assert!(
            call.stderr.starts_with("error: cannot read no/such/job.yaml: No such file"),
            "{}",
            call.stderr
        );
        assert_eq!(call.stderr.lines().count(), 1, "{}", call.stderr);
    }
}

#[test]
fn broken_yaml_and_broken_json() {
    for spec in ["name: a\n  model: [", "{\"name\": \"a\", \"model\": "] {
        let call = run(spec, &[]);
        assert_eq!(call.code, 2);
        assert!(call.stderr.starts_with("error: job.yaml: not readable as YAML"), "{}", call.stderr);
        assert!(call.stderr.contains("line"), "{}", call.stderr);
    }
}

#[test]
fn files_of_the_spec_that_are_not_there() {
    let call = run(GOOD, &[]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.starts_with("error: job.yaml: 2 problems in the spec\n"), "{}", call.stderr);
    for part in
        ["model: found ", "data.train: found ", "/t.json, which does not exist; allowed: a question file"]
    {
        assert!(call.stderr.contains(part), "{part} not in {}", call.stderr);
    }
}

#[test]
fn overrides_reach_the_spec() {
    let call = run(GOOD, &["--set", "train.batch_size=0", "--set", "data.train=other.json"]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.contains("train.batch_size: found 0"), "{}", call.stderr);
    let call = run(GOOD, &["--set", "data.train=other.json"]);
    assert!(call.stderr.contains("/other.json, which does not exist"), "{}", call.stderr);
    let call = run(GOOD, &["--set", "epochs"]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.contains("write it as section.field=value"), "{}", call.stderr);
}

#[test]
fn evaluation_needs_a_dev_file() {
    let call = run(GOOD, &["--eval-only"]);
    assert_eq!(call.code, 2);
    assert!(
        call.stderr.contains("data.dev: found nothing; allowed: a file to evaluate on"),
        "{}",
        call.stderr
    );
}

#[test]
fn every_spelling_of_the_number_of_processes_is_read() {
    for flags in [&["-np", "2"][..], &["--np", "2"], &["-n", "2"], &["-np=2"], &["--np=2"], &["-n2"]] {
        let call = run(GOOD, flags);
        // The flag is understood: what is refused is the spec's missing files.
        assert!(call.stderr.contains("data.train: found "), "{flags:?}: {}", call.stderr);
    }
}
