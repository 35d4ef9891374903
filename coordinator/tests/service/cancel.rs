//! A user's wish to end a job.

use std::time::Instant;

use squad_proto::{JobState, pb};

use crate::harness::{Service, eventually, folder, lives, spec, states};

#[tokio::test]
async fn cancel_in_the_middle_leaves_no_process() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    // The grace is 10 s: workers that obey must not make anybody wait for it.
    let job = service.submit(&spec("hold", 2, 20.0)).await;
    service.at_work(&job).await;
    let all = service.processes(&job).await;
    assert!(all.len() == 4 && all.iter().all(|p| lives(*p)), "{all:?}");
    let asked = Instant::now();
    service.cancel(&job).await;
    let events = service.end(&job).await;
    assert!(asked.elapsed().as_secs_f64() < 4.0, "{:?}", asked.elapsed());
    let expected =
        [JobState::Queued, JobState::Starting, JobState::Running, JobState::Stopping, JobState::Cancelled];
    assert_eq!(states(&events), expected, "{events:#?}");
    assert!(all[..2].iter().all(|p| !lives(*p)), "workers are gone before the job is cancelled");
    eventually("what the workers started ends too", || all.iter().all(|p| !lives(*p))).await;
    let stops = service.said(&job, "stopped").await;
    assert_eq!(stops.len(), 2, "both obeyed Stop and needed no signal: {stops:?}");
    assert_eq!(service.cancel(&job).await.state(), pb::JobState::Cancelled, "a final state stays");
    service.stop().await;
}

#[tokio::test]
async fn a_gang_that_does_not_obey_is_killed_after_the_grace() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("stubborn", 2, 4.0)).await;
    service.at_work(&job).await;
    let all = service.processes(&job).await;
    let asked = Instant::now();
    service.cancel(&job).await;
    let events = service.end(&job).await;
    assert!(asked.elapsed().as_secs_f64() >= 2.0, "the grace of 2 s was given: {:?}", asked.elapsed());
    assert_eq!(states(&events).last(), Some(&JobState::Cancelled), "{events:#?}");
    eventually("all processes end", || all.iter().all(|p| !lives(*p))).await;
    service.stop().await;
}

#[tokio::test]
async fn a_queued_job_is_cancelled_without_a_start() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let first = service.submit(&spec("hold", 1, 10.0)).await;
    let second = service.submit(&spec("succeed", 1, 10.0)).await;
    service.at_work(&first).await;
    service.cancel(&second).await;
    let events = service.end(&second).await;
    assert_eq!(states(&events), [JobState::Queued, JobState::Cancelled], "{events:#?}");
    // Its place in the queue is free for the next one.
    let third = service.submit(&spec("succeed", 1, 10.0)).await;
    service.cancel(&first).await;
    assert_eq!(states(&service.end(&third).await).last(), Some(&JobState::Succeeded));
    service.stop().await;
}
