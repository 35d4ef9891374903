//! Workers that something else places: attendants started by hand, by Open MPI, and as pods would be. Tiny random
//! weights, real processes, real kills.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use squad_tests::faults::{signal, wait_for_step};
use squad_tests::{Daemon, Finished, Job, program, wait_for};

const STEPS: u64 = 80;

/// Exact match, F1 and the weights of a run that the coordinator launches itself.
fn launched(job: &Job) -> [Value; 3] {
    job.squadctl(&["run", "job.yaml", "-np", "2", "--set", "output_dir=whole"]).success();
    job.outcome("whole")
}

/// A process that a launcher would start, with its variables. It has one thread, as two on two cores have under `squadctl run`.
fn rank(job: &Job, rank: u32, arguments: &[&str]) -> Child {
    Command::new(program("squad-worker"))
        .arg("join")
        .args(arguments)
        .current_dir(job.path(""))
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", "2")
        .env("OMP_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn submit(job: &Job, daemon: &Daemon, further: &[&str]) -> String {
    let arguments = ["submit", "job.yaml", "--external", "--ticket-file", "ticket", "--server", &daemon.url];
    job.squadctl(&[&arguments[..], further].concat()).success().stdout().trim().to_owned()
}

fn state(job: &Job, daemon: &Daemon, id: &str) -> Value {
    job.squadctl(&["get", id, "--server", &daemon.url, "--output", "json"]).success().json()
}

/// Waits until a life of the job has begun to train.
fn wait_for_life(job: &Job, id: &str, life: usize) {
    let log = job.path("out/logs").join(id).join("rank-0.log");
    wait_for(&format!("life {life}"), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.matches("training:").count() >= life
    });
}

/// The worker that an attendant runs at the moment.
fn worker_of(attendant: &Child) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", attendant.id());
    let mut found = None;
    wait_for("the attendant's worker", || {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        found = text.split_whitespace().next().map(|pid| pid.parse().unwrap());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn attendants_go_through_lives_until_the_job_has_ended() {
    let job = Job::of_quick_steps(STEPS);
    let whole = launched(&job);
    let daemon = Daemon::start(&job);
    let id = submit(&job, &daemon, &["-np", "2"]);
    let join = ["--ticket", "ticket"];
    let (first, second) = (rank(&job, 0, &join), rank(&job, 1, &join));
    wait_for_step(&job, "out", 15);

    // Only the worker: its attendant starts the next life's.
    signal(worker_of(&second), Signal::SIGKILL);
    wait_for_life(&job, &id, 2);
    wait_for_step(&job, "out", 35);
    // The whole machine: what the launcher started is gone with its worker, and something starts it again.
    signal(worker_of(&second), Signal::SIGKILL);
    signal(second.id() as i32, Signal::SIGKILL);
    Finished::wait(second);
    let second = rank(&job, 1, &join);

    let (first, second) = (Finished::wait(first), Finished::wait(second));
    assert_eq!((first.code(), second.code()), (0, 0), "{}\n{}", first.stderr(), second.stderr());
    let ended = state(&job, &daemon, &id);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(job.json("out/results.json")["train"]["restarts"], 2);
    assert_eq!(job.outcome("out"), whole);
    // A rank that comes late, as a pod that is started once more, hears how the job ended.
    assert_eq!(Finished::wait(rank(&job, 1, &join)).code(), 0);
}

#[test]
fn a_worker_that_is_asked_to_leave_leaves_a_checkpoint_and_its_place() {
    let job = Job::of_quick_steps(STEPS);
    let daemon = Daemon::start(&job);
    let id = submit(&job, &daemon, &[]);
    let join = ["--ticket", "ticket"];
    let (first, second) = (rank(&job, 0, &join), rank(&job, 1, &join));
    wait_for_step(&job, "out", 15);
    signal(second.id() as i32, Signal::SIGTERM);
    let second = Finished::wait(second);
    assert_eq!(second.code(), 130, "{}", second.stderr());
    let second = rank(&job, 1, &join);
    assert_eq!((Finished::wait(first).code(), Finished::wait(second).code()), (0, 0));
    let ended = state(&job, &daemon, &id);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let losses = job.losses("out");
    assert_eq!(losses.len() as u64, STEPS, "it went on where all had stopped");
}

#[test]
fn workers_train_on_without_their_coordinator_and_go_on_with_the_next() {
    let job = Job::of_quick_steps(STEPS);
    let whole = launched(&job);
    let mut daemon = Daemon::start(&job);
    let id = submit(&job, &daemon, &[]);
    let join = ["--ticket", "ticket"];
    let (first, second) = (rank(&job, 0, &join), rank(&job, 1, &join));
    wait_for_step(&job, "out", 15);
    daemon.kill();
    let at = job.losses("out").len() as u64;
    wait_for_step(&job, "out", at + 5);
    daemon.start_again(&job);
    let (first, second) = (Finished::wait(first), Finished::wait(second));
    assert_eq!((first.code(), second.code()), (0, 0), "{}\n{}", first.stderr(), second.stderr());
    assert_eq!(state(&job, &daemon, &id)["state"], "succeeded");
    assert_eq!(job.outcome("out"), whole);
}

#[test]
fn strangers_and_mistakes_are_refused_in_a_sentence() {
    let job = Job::of_quick_steps(STEPS);
    let daemon = Daemon::start(&job);
    let id = submit(&job, &daemon, &[]);
    let refusal = |process: Child, words: &str| {
        let ended = Finished::wait(process);
        assert_eq!(ended.code(), 1, "{}", ended.stderr());
        assert!(ended.stderr().contains(words), "{words} not in\n{}", ended.stderr());
    };
    refusal(rank(&job, 1, &["--ticket", "none"]), "cannot read the ticket none");
    refusal(
        rank(&job, 1, &["--ticket", "ticket", "--world", "3"]),
        "the ticket is for 2 workers, but the launcher started 3",
    );
    let text = std::fs::read_to_string(job.path("ticket")).unwrap();
    let mut forged: Value = serde_json::from_str(&text).unwrap();
    forged["token"] = "0".repeat(32).into();
    std::fs::write(job.path("forged"), forged.to_string()).unwrap();
    refusal(rank(&job, 1, &["--ticket", "forged"]), "others can read the ticket forged");
    std::fs::set_permissions(job.path("forged"), std::fs::Permissions::from_mode(0o600)).unwrap();
    refusal(rank(&job, 1, &["--ticket", "forged"]), "another token");
    assert_eq!(state(&job, &daemon, &id)["state"], "starting");
}

#[test]
fn mpirun_alone_gives_the_same_as_squadctl_run() {
    if !Command::new("mpirun").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: mpirun is not installed (Debian: openmpi-bin)");
        return;
    }
    let job = Job::of_quick_steps(STEPS);
    let whole = launched(&job);
    let mpirun = |further: &[&str]| {
        let mut command = Command::new("mpirun");
        command.args(["-np", "2", "--oversubscribe"]).arg(program("squad-worker"));
        command.args(["join", "--spec", "job.yaml", "--rendezvous", "meet"]).args(further);
        command.current_dir(job.path("")).stdin(Stdio::null());
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        Finished(command.env("OMP_NUM_THREADS", "1").output().unwrap())
    };
    let run = mpirun(&[]).success();
    assert!(run.stdout().contains("exact"), "rank 0 prints the results: {}", run.stdout());
    assert_eq!(job.outcome("out"), whole);
    assert_eq!(std::fs::read_dir(job.path("meet")).unwrap().count(), 0, "no ticket stays");
    // What squadctl refuses, it refuses here too.
    let refused = mpirun(&["--", "--set", "train.batch_size=0"]);
    assert_eq!(refused.code(), 2, "{}", refused.stderr());
    assert!(refused.stderr().contains("train.batch_size"), "{}", refused.stderr());

    let hosts = ["run", "job.yaml", "-np", "2", "-H", "localhost:2", "--set", "output_dir=hosts"];
    job.squadctl(&hosts).success();
    assert_eq!(job.outcome("hosts"), whole);
    let elsewhere = job.squadctl(&["run", "job.yaml", "-H", "a:1,b:1"]);
    assert_eq!(elsewhere.code(), 2, "{}", elsewhere.stderr());
}
