//! The daemon as a program, and the end of a server under its jobs.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use squad_proto::{Event, EventBody, JobState, pb};

use crate::harness::{Service, User, eventually, fake_worker, folder, lives, spec, states, within};

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

/// The steps that a state tells of, in the order of the history.
fn reasons(events: &[Event], wanted: JobState) -> Vec<&str> {
    let of_state = events.iter().filter_map(|e| match &e.body {
        EventBody::State { state, reason } if *state == wanted => Some(reason.as_str()),
        _ => None,
    });
    of_state.collect()
}

/// The numbers of a history have no gaps.
fn gapless(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "{events:#?}");
}

#[tokio::test]
async fn a_killed_daemon_takes_up_its_jobs_when_it_is_back() {
    let folder = folder();
    let (mut daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    let job = user.submit(&spec("revive", 2, 10.0)).await;
    let queued = user.submit(&spec("succeed", 2, 10.0)).await;
    user.at_work(&job).await;
    let all = user.processes(&job).await;
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();

    // At once: its workers may still be there.
    let (_daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    let events = user.end(&job).await;
    gapless(&events);
    use JobState::{Queued, Restarting, Running, Starting, Succeeded};
    let expected = [Queued, Starting, Running, Restarting, Starting, Running, Succeeded];
    assert_eq!(states(&events), expected, "{events:#?}");
    let [cause] = reasons(&events, Restarting)[..] else { panic!("{events:#?}") };
    assert!(cause.starts_with("SQ-010: the coordinator ended while the job was at work"), "{cause}");
    let again = reasons(&events, Starting)[1];
    assert_eq!(again, "taken up again by the coordinator, from the newest checkpoint");
    assert!(all[..2].iter().all(|p| !lives(*p)), "the new life began when the old one was gone");
    let generations = user.said(&job, "generation").await;
    assert_eq!(generations, ["1", "2", "1", "2"], "each rank's log holds both lives");

    let events = user.end(&queued).await;
    gapless(&events);
    assert_eq!(states(&events), [Queued, Starting, Running, Succeeded], "it was never at work: {events:#?}");
    // Nobody was left who could end what the first workers had started.
    for child in &all[2..] {
        kill(Pid::from_raw(*child), Signal::SIGKILL).ok();
    }
}

#[tokio::test]
async fn workers_that_outlive_their_daemon_are_waited_for_and_then_killed() {
    let folder = folder();
    let (mut daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    // It does not look at its lifeline.
    let job = user.submit(&spec("deaf", 1, 2.0)).await;
    user.at_work(&job).await;
    let all = user.processes(&job).await;
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    let (_daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    let restarting = |e: &Event| matches!(&e.body, EventBody::State { state: JobState::Restarting, .. });
    user.events(&job, 0, restarting).await;
    let again = |e: &Event| matches!(&e.body, EventBody::State { reason, .. } if reason.contains("taken up"));
    user.events(&job, 0, again).await;
    assert!(!lives(all[0]), "a life begins when the one before is gone");
    user.cancel(&job).await;
    let events = user.end(&job).await;
    assert_eq!(states(&events).last(), Some(&JobState::Cancelled), "{events:#?}");
}

#[tokio::test]
async fn a_cancel_that_its_daemon_did_not_live_to_end_is_a_cancel() {
    let folder = folder();
    let (mut daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    let job = user.submit(&spec("stubborn", 1, 20.0)).await;
    user.at_work(&job).await;
    let all = user.processes(&job).await;
    user.cancel(&job).await;
    let stopping = |e: &Event| matches!(e.body, EventBody::State { state: JobState::Stopping, .. });
    user.events(&job, 0, stopping).await;
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    eventually("the worker sees the end of its lifeline", || !lives(all[0])).await;
    let (_daemon, address) = start(folder.path()).await;
    let mut user = User::of(&address).await;
    let events = user.end(&job).await;
    gapless(&events);
    assert_eq!(states(&events).last(), Some(&JobState::Cancelled), "{events:#?}");
    kill(Pid::from_raw(all[1]), Signal::SIGKILL).ok();
}

#[tokio::test]
async fn a_server_that_ends_takes_its_workers_with_it_and_the_next_one_goes_on() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("revive", 2, 20.0)).await;
    service.at_work(&job).await;
    let all = service.processes(&job).await;
    let queued = service.submit(&spec("succeed", 2, 10.0)).await;
    service.stop().await;
    assert!(all[..2].iter().all(|p| !lives(*p)), "workers are gone when run() returns");
    eventually("what the workers started ends too", || all.iter().all(|p| !lives(*p))).await;

    let mut service = Service::start(folder.path(), 2).await;
    let events = service.end(&job).await;
    gapless(&events);
    use JobState::{Queued, Running, Starting, Stopping, Succeeded};
    let expected = [Queued, Starting, Running, Stopping, Queued, Starting, Running, Succeeded];
    assert_eq!(states(&events), expected, "{events:#?}");
    let queue = reasons(&events, Queued)[1];
    assert!(queue.starts_with("stopped after step") && queue.contains("goes on from there"), "{queue}");
    assert_eq!(reasons(&events, Starting)[1], "launching 2 workers again, from the newest checkpoint");
    assert_eq!(service.said(&job, "generation").await, ["1", "2", "1", "2"]);
    let events = service.end(&queued).await;
    assert_eq!(states(&events), [Queued, Starting, Running, Succeeded], "{events:#?}");
    service.stop().await;
}

#[tokio::test]
async fn a_job_that_the_next_coordinator_has_no_slots_for_waits_and_holds_up_nobody() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("revive", 2, 10.0)).await;
    service.at_work(&job).await;
    service.stop().await;
    let mut service = Service::start(folder.path(), 1).await;
    let small = service.submit(&spec("succeed", 1, 10.0)).await;
    let events = service.end(&small).await;
    assert_eq!(states(&events).last(), Some(&JobState::Succeeded), "{events:#?}");
    let note = |e: &Event| matches!(&e.body, EventBody::Note { text, .. } if text.contains("--slots 2"));
    assert!(service.events(&job, 0, note).await.iter().any(note));
    assert_eq!(JobState::try_from(service.get(&job).await.state()), Ok(JobState::Queued));
    service.stop().await;
    let mut service = Service::start(folder.path(), 2).await;
    assert_eq!(states(&service.end(&job).await).last(), Some(&JobState::Succeeded));
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
    let listed = user.grpc.list(pb::ListRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(listed.iter().map(|j| &j.id).collect::<Vec<_>>(), [&job]);
    drop(user);
    within("the end of the server", ended).await.unwrap().unwrap();
    let mut service = Service::start(folder.path(), 2).await;
    let listed = service.grpc.list(pb::ListRequest::default()).await.unwrap().into_inner().jobs;
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
