//! Commands about jobs, against a daemon that plays them.

use std::fs;

use serde_json::{Value, json};

use crate::scripted::Daemon;
use crate::{interrupted, program, squadctl_in};

#[test]
fn list_and_get_show_jobs() {
    let daemon = Daemon::start();
    let list = daemon.call(&["list"]);
    assert_eq!(list.code, 0, "{}", list.stderr);
    let lines: Vec<&str> = list.stdout.lines().collect();
    assert!(lines[0].starts_with("JOB"), "{}", list.stdout);
    assert!(lines[1].starts_with("good-1a") && lines[1].ends_with("EM 41.25  F1 55.50"), "{}", list.stdout);
    assert!(lines[2].contains("failed") && lines[2].ends_with("SQ-004"), "{}", list.stdout);
    assert!(
        lines[4].contains("  3  ") && lines[4].ends_with("waits for 2 slots, 0 are free"),
        "{}",
        list.stdout
    );
    let waiting = daemon.call(&["get", "long-4d"]).stdout;
    assert!(waiting.contains("waiting   waits for 2 slots, 0 are free\n"), "{waiting}");
    let ids: Vec<Value> = daemon
        .call(&["list", "--output", "json"])
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|j| j["id"].clone())
        .collect();
    assert_eq!(ids, ["good-1a", "bad-2b", "long-3c", "long-4d"]);

    let get = daemon.call(&["get", "good"]);
    assert!(
        get.stdout.contains("state     succeeded") && get.stdout.contains("exact (EM)"),
        "{}",
        get.stdout
    );
    let document = daemon.call(&["get", "good", "--output", "json"]).json();
    assert_eq!((&document["results"]["f1"], &document["spec"]["name"]), (&json!(55.5), &json!("scripted")));
}

#[test]
fn a_beginning_must_mean_one_job() {
    let daemon = Daemon::start();
    let call = daemon.call(&["get", "long"]);
    assert_eq!(
        (call.code, call.stderr.as_str()),
        (2, "error: long may be any of long-3c, long-4d; write more of it\n")
    );
    let call = daemon.call(&["watch", "nothing"]);
    assert_eq!(
        (call.code, call.stderr.as_str()),
        (2, "error: there is no job nothing; squadctl list shows all\n")
    );
}

#[test]
fn a_watched_job_ends_with_its_results() {
    let daemon = Daemon::start();
    let call = daemon.call(&["watch", "good"]);
    assert_eq!(call.code, 0, "{}", call.stderr);
    for part in [
        "exact (EM)  41.25\n",
        "f1          55.50\n",
        "total          80\n",
        "model        /out/model\n",
        "predictions  /out/eval/predictions.json\n",
        "wall time    1 min 3 s\n",
        "10 steps, 31.5 examples/s",
    ] {
        assert!(call.stdout.contains(part), "{part:?} not in {}", call.stdout);
    }
    for part in [
        "starting: as written\n",
        "train 5/10  loss 1.5000  lr 2.00e-4  31.5 examples/s\n",
        "evaluate 8/8\n",
        "good-1a succeeded in 1 min 3 s\n",
    ] {
        assert!(call.stderr.contains(part), "{part:?} not in {}", call.stderr);
    }
    assert!(!call.stderr.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn a_failed_job_says_why_and_what_to_do() {
    let daemon = Daemon::start();
    let call = daemon.call(&["watch", "bad"]);
    assert_eq!((call.code, call.stdout.as_str()), (1, ""));
    for part in [
        "failed: bad-2b failed after 1 min 3 s\n",
        "SQ-004 rank 1 in train at step 7: killed by signal 9\n",
        "  | its last words\n",
        "what to do: read the worker's last lines",
        "squadctl explain SQ-004\n",
    ] {
        assert!(call.stderr.contains(part), "{part:?} not in {}", call.stderr);
    }
}

#[test]
fn json_is_one_document_and_events_are_lines() {
    let daemon = Daemon::start();
    for (job, code, field) in [("good", 0, "results"), ("bad", 1, "failure")] {
        let call = daemon.call(&["watch", job, "--output", "json"]);
        assert_eq!(call.code, code);
        assert!(call.json()[field].is_object(), "{}", call.stdout);
        let events: Vec<Value> =
            call.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events[0]["event"], "state");
        assert_eq!(
            (&events[2]["event"], &events[2]["phase"], &events[2]["done"]),
            (&json!("progress"), &json!("train"), &json!(5))
        );
        assert!(events.iter().map(|e| e["sequence"].as_u64()).eq((1..=events.len() as u64).map(Some)));
    }
}

#[test]
fn a_submitted_spec_arrives_as_it_was_meant() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.yaml"), "name: a\nmodel: m\ndata: {dev: d.json}\noutput_dir: out\n")
        .unwrap();
    let submit = |more: &[&str]| {
        squadctl_in(folder.path(), &[&["submit", "job.yaml", "--server", &daemon.url], more].concat())
    };

    let call = submit(&["--eval-only", "--checkpoint", "all", "-np", "3", "--set", "eval.batch_size=4"]);
    assert_eq!((call.code, call.stdout.as_str()), (0, "good-1a\n"));
    let seen = daemon.submitted.lock().unwrap().take().unwrap();
    let spec: Value = serde_json::from_str(&seen.spec_json).unwrap();
    assert_eq!((&spec["data"]["dev"], &spec["eval"]["batch_size"]), (&json!("d.json"), &json!(4)));
    assert_eq!(
        serde_json::from_str::<Value>(&seen.task_json).unwrap(),
        json!({"task": "evaluate", "checkpoint": "all"})
    );
    assert_eq!(seen.processes, 3);

    for (flags, priority) in [(&["--priority", "-7"][..], -7), (&["--set", "priority=2", "--priority=9"], 9)]
    {
        assert_eq!(submit(&[&["--eval-only"], flags].concat()).code, 0);
        let seen = daemon.submitted.lock().unwrap().take().unwrap();
        let spec: Value = serde_json::from_str(&seen.spec_json).unwrap();
        assert_eq!(spec["priority"], priority);
    }
    let refused = submit(&["--eval-only", "--priority", "101"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("priority: found 101; allowed: at most 100"), "{}", refused.stderr);

    assert_eq!(submit(&["--eval-only", "--output", "json"]).json(), json!({"id": "good-1a"}));
    assert_eq!(daemon.submitted.lock().unwrap().take().unwrap().processes, 0, "as the spec says");

    let waited = submit(&["--eval-only", "--wait"]);
    assert_eq!(waited.code, 0);
    assert!(
        waited.stdout.contains("exact (EM)") && waited.stderr.starts_with("submitted good-1a\n"),
        "{}",
        waited.stderr
    );

    let refused = submit(&["--eval-only", "--set", "name=refuse-me"]);
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (2, "error: the spec is not to the daemon's taste\n")
    );
    let late = submit(&["--eval-only", "--set", "name=too-late"]);
    let sentence = format!("error: the daemon at {} refused: the coordinator is ending\n", daemon.url);
    assert_eq!((late.code, late.stderr), (1, sentence), "no connection broke, so nothing is said of one");
}

#[test]
fn logs_come_by_rank_and_by_number() {
    let daemon = Daemon::start();
    assert_eq!(daemon.call(&["logs", "good", "--tail", "1"]).stdout, "[0] line 2\n[1] line 2\n");
    assert_eq!(daemon.call(&["logs", "good", "--rank", "1", "--tail", "2"]).stdout, "line 1\nline 2\n");
    assert_eq!(daemon.call(&["logs", "good", "--output", "json"]).json().as_array().unwrap().len(), 6);
    assert_eq!(daemon.call(&["logs", "good", "--tail", "0"]).code, 2);
}

#[test]
fn cancel_waits_until_the_workers_are_gone() {
    let daemon = Daemon::start();
    let call = daemon.call(&["cancel", "long-3c"]);
    assert_eq!((call.code, call.stdout.as_str()), (0, "long-3c is running\n"));
    let daemon = Daemon::start();
    let call = daemon.call(&["cancel", "long-3c", "--wait"]);
    assert_eq!((call.code, call.stdout.as_str()), (0, "long-3c is cancelled\n"));
    assert_eq!(daemon.call(&["watch", "long-3c"]).code, 1, "somebody else cancelled it");
}

#[test]
fn ctrl_c_ends_the_watching_not_the_job() {
    let daemon = Daemon::start();
    let watch = ["watch", "long-3c", "--server", &daemon.url];
    let call = interrupted(program(&watch), "running");
    assert_eq!((call.code, call.stdout.as_str()), (130, ""), "{}", call.stderr);
    assert!(call.stderr.contains("long-3c goes on; squadctl watch long-3c follows it"), "{}", call.stderr);
    assert!(daemon.call(&["get", "long-3c"]).stdout.contains("running"));

    let call = interrupted(program(&[&watch[..], &["--output", "json"]].concat()), "running");
    assert_eq!((call.code, &call.json()["exit_code"]), (130, &json!(130)), "{}", call.stderr);
}
