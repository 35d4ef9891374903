//! How jobs end, and who is blamed.

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use squad_proto::{EventBody, FailureCode, JobState, Phase};

use crate::harness::{LIMIT, Service, config, eventually, failure, folder, lives, spec, states};

#[tokio::test]
async fn success_ends_with_results() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("succeed", 2, 10.0)).await;
    assert_eq!(job.len(), "succeed-".len() + 6, "{job}");
    let events = service.end(&job).await;
    let expected = [JobState::Queued, JobState::Starting, JobState::Running, JobState::Succeeded];
    assert_eq!(states(&events), expected, "{events:#?}");
    let sequences: Vec<u64> = events.iter().map(|e| e.sequence).collect();
    assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
    let steps: Vec<u64> = events
        .iter()
        .filter_map(|e| if let EventBody::Progress(p) = &e.body { Some(p) } else { None })
        .filter(|p| p.phase == Phase::Train)
        .map(|p| p.done)
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5], "every step, told once");
    let [.., results, _] = &events[..] else { panic!("{events:#?}") };
    assert_eq!(results.body, EventBody::Results { results: serde_json::json!({"exact": 50.0, "f1": 62.5}) });

    let got = service.get(&job).await;
    assert_eq!((got.state(), got.workers), (squad_proto::pb::JobState::Succeeded, 2));
    assert!(got.results.unwrap().json.contains("62.5"));
    assert!(got.created_unix_ms <= got.started_unix_ms.unwrap());
    assert!(got.started_unix_ms <= got.finished_unix_ms);
    let spec: serde_json::Value = serde_json::from_str(&got.spec_json).unwrap();
    assert_eq!(
        spec["data"]["train"].as_str(),
        folder.path().join("train.json").to_str(),
        "paths are resolved"
    );
    assert_eq!(service.said(&job, "threads").await, ["1", "1"]);
    service.stop().await;
}

#[tokio::test]
async fn a_killed_rank_is_the_root_cause() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("hold", 2, 10.0)).await;
    service.at_work(&job).await;
    let all = service.processes(&job).await;
    assert!(all.len() == 4 && all.iter().all(|p| lives(*p)), "{all:?}");

    let struck = Instant::now();
    kill(Pid::from_raw(all[1]), Signal::SIGKILL).unwrap();
    let events = service.end(&job).await;
    assert!(struck.elapsed() < LIMIT / 2, "{:?}", struck.elapsed());
    let report = failure(&events);
    assert_eq!((report.code, report.rank), (FailureCode::WorkerDied, Some(1)), "{report:?}");
    assert!(report.summary.contains("signal 9"), "{report}");
    assert_eq!(report.phase, Some(Phase::Train));
    assert!(report.step.is_some_and(|s| s >= 1), "{report:?}");
    assert!(report.stderr_tail.iter().any(|l| l == "slot 1 complains"), "{report:?}");
    assert!(!report.secondary && !report.remedy.is_empty());
    eventually("all processes end", || all.iter().all(|p| !lives(*p))).await;
    let got = service.get(&job).await;
    assert_eq!(got.failure.unwrap().rank, Some(1));
    service.stop().await;
}

#[tokio::test]
async fn a_lost_worker_costs_a_restart_and_not_the_job() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let mut spec = spec("frail", 2, 10.0);
    spec["fault"]["max_restarts"] = 1.into();
    let job = service.submit(&spec).await;
    let events = service.end(&job).await;
    use JobState::{Queued, Restarting, Running, Starting, Succeeded};
    let expected = [Queued, Starting, Running, Restarting, Starting, Running, Succeeded];
    assert_eq!(states(&events), expected, "{events:#?}");
    let reason = |wanted| {
        events.iter().rev().find_map(|e| match &e.body {
            EventBody::State { state, reason } if *state == wanted => Some(reason.clone()),
            _ => None,
        })
    };
    let cause = reason(Restarting).unwrap();
    assert!(cause.starts_with("SQ-004 rank 1 in train at step") && cause.contains("signal 9"), "{cause}");
    assert_eq!(reason(Starting).unwrap(), "restart 1 of 1, from the newest checkpoint");
    let tasks = service.said(&job, "task").await;
    // What a later life goes on with is what is marked as the job's own, which its workers see.
    assert_eq!(tasks, [r#"{"task":"train","resume":false}"#; 4], "each rank's log holds both lives");
    let got = service.get(&job).await;
    assert!(got.failure.is_none() && got.results.is_some(), "{got:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_neighbour_that_flees_without_a_word_is_not_blamed() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("flee", 2, 10.0)).await;
    service.at_work(&job).await;
    let all = service.processes(&job).await;
    kill(Pid::from_raw(all[1]), Signal::SIGKILL).unwrap();
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!(report.rank, Some(1), "rank 0 ended because rank 1 was killed: {report:?}");
    assert!(report.summary.contains("signal 9"), "{report}");
    service.stop().await;
}

#[tokio::test]
async fn a_ranks_own_report_is_kept() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("crash", 2, 10.0)).await;
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!((report.code, report.rank), (FailureCode::NotFinite, Some(1)), "{report:?}");
    assert_eq!(report.summary, "the loss is not finite");
    assert!(
        report.stderr_tail.iter().any(|l| l.contains("SQ-007")),
        "its standard error is added: {report:?}"
    );
    service.stop().await;
}

#[tokio::test]
async fn ranks_that_disagree_do_not_begin() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("disagree", 2, 10.0)).await;
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!(report.code, FailureCode::Disagreement, "{report:?}");
    assert!(report.summary.contains("rank 1") && report.summary.contains("features"), "{report}");
    assert!(!states(&events).contains(&JobState::Running), "{events:#?}");
    service.stop().await;
}

#[tokio::test]
async fn an_end_before_hello_shows_the_last_lines() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("broken", 2, 10.0)).await;
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!(report.rank, Some(1), "{report:?}");
    assert!(report.summary.contains("exit code 3"), "{report}");
    let expected: Vec<String> = (11..=30).map(|k| format!("last words {k}")).collect();
    assert_eq!(report.stderr_tail, expected, "the last 20 lines");
    service.stop().await;
}

#[tokio::test]
async fn leaving_early_is_a_failure_even_with_code_0() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("leave", 2, 10.0)).await;
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!((report.code, report.rank), (FailureCode::WorkerDied, Some(1)), "{report:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_rank_that_never_says_hello_is_missed() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("mute", 2, 2.0)).await;
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!(report.rank, Some(1), "{report:?}");
    assert!(matches!(report.code, FailureCode::WorkerStalled | FailureCode::Launch), "{report:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_stopped_process_is_stalled_and_killed() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("hold", 2, 4.0)).await;
    service.at_work(&job).await;
    let all = service.processes(&job).await;
    kill(Pid::from_raw(all[1]), Signal::SIGSTOP).unwrap();
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!((report.code, report.rank), (FailureCode::WorkerStalled, Some(1)), "{report:?}");
    eventually("a stopped process is killed too", || all.iter().all(|p| !lives(*p))).await;
    service.stop().await;
}

#[tokio::test]
async fn a_worker_program_that_cannot_start_is_named() {
    let folder = folder();
    let mut config = config(folder.path(), 1);
    config.worker_program = Some(folder.path().join("train.json"));
    let mut service = Service::with(config).await;
    let job = service.submit(&spec("succeed", 1, 10.0)).await;
    let events = service.end(&job).await;
    let report = failure(&events);
    assert_eq!(report.code, FailureCode::Launch, "{report:?}");
    assert!(report.summary.contains("train.json"), "{report}");
    service.stop().await;
}
