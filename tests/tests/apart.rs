//! Machines that share no storage: mount namespaces in which the output folder is another one stand in for them. Takes
//! root, and `unshare` of util-linux; without them the tests say that they are skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use squad_tests::{Daemon, Finished, Job, program, wait_for};

/// What a machine runs: it sees `$1` as the output folder and, where there is one, `$2` as the training file; `$3` is its
/// name, `$4` the worker program.
const MACHINE: &str = r#"
set -e
echo "$3" > /proc/sys/kernel/hostname
mount --bind "$1" out
[ -z "$2" ] || mount --bind "$2" train.json
exec "$4" join --ticket ticket
"#;

/// Names and processes of its own too: else all would find that they are on one host.
const APART: [&str; 8] =
    ["--mount", "--propagation", "private", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn can_be_apart() -> bool {
    let tried = Command::new("unshare").args(APART).args(["sh", "-c", "mount --bind /tmp /mnt"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// A job of many quick steps, whose output folder is there to be mounted over.
fn job() -> Job {
    let job = Job::of_quick_steps(80);
    std::fs::create_dir(job.path("out")).unwrap();
    job
}

/// Starts a rank on a machine with this name, which keeps its output folder under it.
fn machine(job: &Job, rank: u32, name: &str, train: &str) -> Child {
    use std::os::unix::process::CommandExt;
    std::fs::create_dir_all(job.path(name)).unwrap();
    Command::new("unshare")
        .args(APART)
        .args(["sh", "-c", MACHINE, "sh"])
        .arg(job.path(name))
        .args([train, name])
        .arg(program("squad-worker"))
        .current_dir(job.path(""))
        .envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".into()), ("OMP_NUM_THREADS", "1".into())])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A machine is gone at once, with all that runs on it and all that it kept.
fn lose(job: &Job, name: &str, machine: Child) {
    killpg(Pid::from_raw(machine.id() as i32), Signal::SIGKILL).unwrap();
    Finished::wait(machine);
    std::fs::remove_dir_all(job.path(name)).unwrap();
}

fn submit(job: &Job, daemon: &Daemon) -> String {
    let arguments = ["submit", "job.yaml", "--external", "--ticket-file", "ticket", "--server", &daemon.url];
    job.squadctl(&arguments).success().stdout().trim().to_owned()
}

fn state(job: &Job, daemon: &Daemon, id: &str) -> Value {
    job.squadctl(&["get", id, "--server", &daemon.url, "--output", "json"]).success().json()
}

fn steps(job: &Job, name: &str) -> u64 {
    let text = std::fs::read_to_string(job.path(name).join("metrics.jsonl")).unwrap_or_default();
    text.lines().count() as u64
}

#[test]
fn a_run_outlives_the_machine_of_rank_0_and_its_results_come_to_the_coordinator() {
    if !can_be_apart() {
        eprintln!("SKIPPED: no mount namespaces can be made here (it takes root, and unshare of util-linux)");
        return;
    }
    let job = job();
    job.squadctl(&["run", "job.yaml", "-np", "2", "--set", "output_dir=whole"]).success();
    let daemon = Daemon::start(&job);
    let id = submit(&job, &daemon);
    let (first, second) = (machine(&job, 0, "ant", ""), machine(&job, 1, "bee", ""));
    wait_for("checkpoints on both", || {
        ["ant", "bee"].iter().all(|name| job.path(name).join("checkpoints/step-00000020").exists())
    });
    lose(&job, "ant", first);
    let first = machine(&job, 0, "cow", "");
    let (first, second) = (Finished::wait(first), Finished::wait(second));
    assert_eq!((first.code(), second.code()), (0, 0), "{}\n{}", first.stderr(), second.stderr());

    let ended = state(&job, &daemon, &id);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["results"]["train"]["restarts"], 1);
    assert_eq!(job.outcome("out"), job.outcome("whole"));
    for file in ["eval/predictions.json", "eval/nbest_predictions.json", "model/model.safetensors"] {
        let read = |output: &str| std::fs::read(job.path(output).join(file)).unwrap();
        assert!(read("out") == read("whole"), "{file}");
    }
    assert_eq!((steps(&job, "cow"), steps(&job, "out")), (80, 80), "no line of the log is lost");
    assert_eq!(ended["elsewhere"]["host"], "cow", "{ended}");
    let shown = job.squadctl(&["get", &id, "--server", &daemon.url]).success().stdout();
    assert!(shown.contains("cow:") && shown.contains("/out/checkpoints"), "{shown}");
    assert!(!job.path("out/checkpoints").exists(), "these are not brought");
    let kept = |name: &str| std::fs::read_dir(job.path(name).join("checkpoints")).unwrap().count();
    assert_eq!((kept("cow"), kept("bee")), (5, 5));
    let left = std::fs::read_dir(job.path("out")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.starts_with(".delivery") || name.starts_with(".mark")), "{left:?}");

    let events = job.squadctl(&["watch", &id, "--server", &daemon.url]).success().stderr();
    for words in [
        "a second copy of every checkpoint is kept in",
        "which rank 1 sends to rank 0",
        "brought to the coordinator",
    ] {
        assert!(events.contains(words), "{words} not in\n{events}");
    }
}

#[test]
fn a_machine_with_another_training_file_is_refused_by_name() {
    if !can_be_apart() {
        eprintln!("SKIPPED: no mount namespaces can be made here (it takes root, and unshare of util-linux)");
        return;
    }
    let job = job();
    let mut other = job.json("train.json");
    other["data"].as_array_mut().unwrap().truncate(3);
    std::fs::write(job.path("other.json"), other.to_string()).unwrap();
    let daemon = Daemon::start(&job);
    let id = submit(&job, &daemon);
    let (first, second) = (machine(&job, 0, "ant", ""), machine(&job, 1, "bee", "other.json"));
    let (first, second) = (Finished::wait(first), Finished::wait(second));
    assert_eq!((first.code(), second.code()), (1, 1), "{}\n{}", first.stderr(), second.stderr());
    let ended = state(&job, &daemon, &id);
    let summary = ended["failure"]["summary"].as_str().unwrap_or_default();
    assert_eq!(ended["failure"]["code"], "SQ-008", "{ended}");
    let file = job.path("train.json");
    let sentence = format!(
        "rank 1 differs from rank 0 in the features; another file on its machine: data.train ({})",
        file.display()
    );
    assert!(summary.contains(&sentence), "{summary}");
}
