//! The daemon as a program, and the end of a server under its jobs.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use squad_proto::{Event, EventBody, FailureCode, JobState, pb};

use crate::harness::{Service, User, eventually, failure, fake_worker, folder, lives, spec, states, within};

/// A daemon that is killed when the test ends.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended, as the test wished.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn daemon(root: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squad-coordinator"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--slots", "2", "--root"]).arg(root);
    command.arg("--state").arg(root.join("state")).arg("--worker").arg(fake_worker()).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A daemon that listens, and its address.
async fn start(root: &Path) -> (Daemon, String) {
    let port = root.join("port");
    std::fs::remove_file(&port).ok();
    let child = daemon(root, &["--port-file", port.to_str().unwrap()]).spawn().unwrap();
    let daemon = Daemon(child);
    eventually("the port file", || port.exists()).await;
    // It is there whole or not at all, so it can be read at once.
    let address = std::fs::read_to_string(&port).unwrap().trim().to_owned();
    (daemon, address)
}

#[tokio::test]
async fn a_signal_ends_it_well_and_its_jobs_with_it() {
    let folder = folder();
    let (mut daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    let job = user.submit(&spec("hold", 2, 20.0)).await;
    user.at_work(&job).await;
    let all = user.processes(&job).await;
    kill(Pid::from_raw(daemon.0.id() as i32), Signal::SIGTERM).unwrap();
    let mut code = None;
    eventually("the daemon's end", || {
        code = daemon.0.try_wait().unwrap();
        code.is_some()
    })
    .await;
    assert_eq!(code.and_then(|c| c.code()), Some(0));
    assert!(all[..2].iter().all(|p| !lives(*p)), "workers are gone before the daemon is");
    eventually("what the workers started ends too", || all.iter().all(|p| !lives(*p))).await;
}

#[tokio::test]
async fn a_killed_daemon_leaves_no_worker_and_marks_its_jobs_when_it_is_back() {
    let folder = folder();
    let (mut daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    let job = user.submit(&spec("hold", 2, 10.0)).await;
    let queued = user.submit(&spec("succeed", 2, 10.0)).await;
    user.at_work(&job).await;
    let all = user.processes(&job).await;
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    eventually("workers see the end of their lifeline", || all[..2].iter().all(|p| !lives(*p))).await;
    // Nobody is left who could end what the workers had started.
    all[2..].iter().for_each(|child| kill(Pid::from_raw(*child), Signal::SIGKILL).unwrap());

    let (_daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    for lost in [&job, &queued] {
        let events = user.end(lost).await;
        let report = failure(&events);
        assert_eq!(report.code, FailureCode::CoordinatorLost, "{report:?}");
        let sequences: Vec<u64> = events.iter().map(|e| e.sequence).collect();
        assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    }
    let next = user.submit(&spec("succeed", 2, 10.0)).await;
    assert_eq!(states(&user.end(&next).await).last(), Some(&JobState::Succeeded), "lost jobs hold no slots");
}

#[tokio::test]
async fn a_server_that_ends_takes_its_workers_with_it() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("hold", 2, 20.0)).await;
    service.at_work(&job).await;
    let all = service.processes(&job).await;
    let queued = service.submit(&spec("succeed", 2, 10.0)).await;
    service.stop().await;
    assert!(all[..2].iter().all(|p| !lives(*p)), "workers are gone when run() returns");
    eventually("what the workers started ends too", || all.iter().all(|p| !lives(*p))).await;
    let mut service = Service::start(folder.path(), 2).await;
    for ended in [&job, &queued] {
        let state = service.get(ended).await.state();
        assert!(JobState::try_from(state).unwrap().is_final(), "{ended}: {state:?}");
    }
    service.stop().await;
}

#[test]
fn wrong_usage_and_wrong_addresses_are_told_apart() {
    let folder = folder();
    let code = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (usage, text) = code(&mut daemon(folder.path(), &["--nonsense"]));
    assert_eq!(usage, Some(2), "{text}");
    let mut open = Command::new(env!("CARGO_BIN_EXE_squad-coordinator"));
    open.args(["serve", "--listen", "0.0.0.0:0", "--worker"])
        .arg(fake_worker())
        .arg("--state")
        .arg(folder.path());
    let (status, text) = code(&mut open);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("0.0.0.0:0 is not a loopback address"), "{text}");
    for flag in ["--root", "--worker"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_squad-coordinator"));
        command.current_dir(folder.path()).args(["serve", "--listen", "127.0.0.1:0", flag, "no/such/place"]);
        let (status, text) = code(&mut command);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(flag) && text.contains("no/such/place: there is no such"), "{text}");
    }
}

#[tokio::test]
async fn a_state_folder_belongs_to_one_daemon() {
    let folder = folder();
    let (mut first, address) = start(folder.path()).await;
    let second = daemon(folder.path(), &[]).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{text}");
    let state = folder.path().join("state").display().to_string();
    assert!(text.contains(&format!("the state folder {state} belongs to another coordinator")), "{text}");

    // The first one is not troubled, and what it leaves is free.
    let mut user = User::of(&address).await;
    let job = user.submit(&spec("succeed", 2, 10.0)).await;
    assert_eq!(states(&user.end(&job).await).last(), Some(&JobState::Succeeded));
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    start(folder.path()).await;
}

#[tokio::test]
async fn a_job_that_comes_while_the_server_ends_is_refused_and_not_remembered() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    // It obeys nothing: the server ends when the grace is over, seconds from now.
    let job = service.submit(&spec("stubborn", 1, 8.0)).await;
    service.at_work(&job).await;
    let (mut user, ended) = service.stopping();
    let stopping = |e: &Event| matches!(e.body, EventBody::State { state: JobState::Stopping, .. });
    user.events(&job, 0, stopping).await;
    let refused = user.try_submit(&spec("succeed", 1, 10.0)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(refused.message().contains("is ending and takes no more jobs"), "{refused}");
    let listed = user.grpc.list(pb::ListRequest {}).await.unwrap().into_inner().jobs;
    assert_eq!(listed.iter().map(|j| &j.id).collect::<Vec<_>>(), [&job]);
    drop(user);
    within("the end of the server", ended).await.unwrap().unwrap();
    let mut service = Service::start(folder.path(), 2).await;
    let listed = service.grpc.list(pb::ListRequest {}).await.unwrap().into_inner().jobs;
    assert_eq!(listed.len(), 1, "{listed:?}");
    service.stop().await;
}

#[test]
fn an_address_of_the_page_that_is_taken_is_named_with_its_flag() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = daemon(folder.path(), &["--web", &address]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("cannot serve the web page on {address}")), "{text}");
    assert!(text.contains("--web off"), "{text}");
    let nonsense = daemon(folder.path(), &["--web", "on"]).output().unwrap();
    assert_eq!(nonsense.status.code(), Some(2));
}
