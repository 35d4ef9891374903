//! Who runs when.

use serde_json::{Value, json};
use squad_coordinator::Config;
use squad_proto::{JobState, pb};

use crate::harness::{Service, config, folder, spec, states};

/// A spec of one worker with a priority.
fn of_priority(name: &str, priority: i32) -> Value {
    let mut spec = spec(name, 1, 10.0);
    spec["priority"] = priority.into();
    spec
}

#[tokio::test]
async fn jobs_run_in_their_order_and_none_overtakes() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let first = service.submit(&spec("hold-a", 1, 10.0)).await;
    let wide = service.submit(&spec("succeed-b", 2, 10.0)).await;
    let narrow = service.submit(&spec("succeed-c", 1, 10.0)).await;
    service.at_work(&first).await;
    // One slot is free, which is enough for the third job; but the second is before it.
    let sentences = [
        (&wide, "waits for 2 slots, 1 is free".to_owned()),
        (&narrow, format!("behind {wide}, which waits for 2 slots, 1 is free")),
    ];
    for (waiting, sentence) in &sentences {
        let job = service.get(waiting).await;
        assert_eq!((job.state(), &job.waits), (pb::JobState::Queued, sentence), "{waiting}");
    }
    let listed = service.grpc.list(pb::ListRequest { brief: true }).await.unwrap().into_inner();
    let waits: Vec<&String> = listed.jobs.iter().map(|job| &job.waits).collect();
    assert_eq!(waits, [&String::new(), &sentences[0].1, &sentences[1].1]);
    assert_eq!(listed.room, Some(pb::Room { slots: 2, slots_held: 1, gpus: None, gpus_held: 0 }));
    assert!(listed.jobs.iter().all(|job| job.spec_json.is_empty()), "a brief list has no specs");
    service.cancel(&first).await;
    for job in [&wide, &narrow] {
        let events = service.end(job).await;
        assert_eq!(states(&events).last(), Some(&JobState::Succeeded), "{events:#?}");
    }
    let (wide, narrow) = (service.get(&wide).await, service.get(&narrow).await);
    assert!(narrow.started_unix_ms >= wide.finished_unix_ms, "the wide job needs every slot");
    service.stop().await;
}

#[tokio::test]
async fn a_greater_priority_is_first_and_a_restart_forgets_neither_it_nor_the_order() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let at_work = service.submit(&of_priority("revive", -5)).await;
    service.at_work(&at_work).await;
    let mut waiting = Vec::new();
    for (name, priority) in [("succeed-a", 0), ("succeed-b", 7), ("succeed-c", 0), ("succeed-d", 7)] {
        waiting.push(service.submit(&of_priority(name, priority)).await);
    }
    let [a, b, c, d] = &waiting[..] else { panic!("{waiting:?}") };
    let lack = "waits for 1 slot, 0 are free";
    let behind = |before| match before {
        1 => format!("behind {b}, which {lack}"),
        before => format!("behind {b}, which {lack}; {before} jobs are before it"),
    };
    for (job, sentence) in [(b, lack.to_owned()), (d, behind(1)), (a, behind(2)), (c, behind(3))] {
        let job = service.get(job).await;
        assert_eq!((job.state(), job.waits), (pb::JobState::Queued, sentence), "{}", job.id);
    }
    assert_eq!((service.get(b).await.priority, service.get(&at_work).await.priority), (7, -5));
    service.stop().await;

    let mut service = Service::start(folder.path(), 1).await;
    let mut ends = Vec::new();
    // What had begun goes on first, whatever its priority.
    for job in [&at_work, b, d, a, c] {
        let events = service.end(job).await;
        assert_eq!(states(&events).last(), Some(&JobState::Succeeded), "{events:#?}");
        let job = service.get(job).await;
        ends.push((job.finished_unix_ms.unwrap(), job.id));
    }
    assert!(ends.is_sorted_by(|a, b| a.0 <= b.0), "there is one slot, so they end in their order: {ends:?}");
    service.stop().await;
}

#[tokio::test]
async fn gpus_are_given_out_one_to_a_worker_beside_the_slots() {
    let folder = folder();
    let gpus = Some(vec!["3".to_owned(), "GPU-ab".to_owned()]);
    let mut service = Service::with(Config { gpus, ..config(folder.path(), 1) }).await;
    let on = |name: &str, resources: Value| {
        let mut spec = spec(name, 1, 10.0);
        spec["resources"] = resources;
        spec
    };
    let a = service.submit(&on("hold-a", json!({}))).await;
    let b = service.submit(&on("hold-b", json!({"device": "cuda"}))).await;
    let cpu = service.submit(&on("hold-c", json!({"device": "cpu"}))).await;
    for job in [&a, &b, &cpu] {
        service.at_work(job).await;
    }
    let wide = service.submit(&on("succeed-d", json!({"workers": 2, "device": "cuda"}))).await;
    let named = service.submit(&on("succeed-e", json!({"device": "cuda", "gpus": [1]}))).await;
    for (job, given, seen) in [(&a, &[0][..], "3"), (&b, &[1], "GPU-ab"), (&cpu, &[], "")] {
        assert_eq!(
            (service.get(job).await.gpus, service.said(job, "gpus").await),
            (given.to_vec(), vec![seen.to_owned()])
        );
    }
    assert_eq!(service.get(&wide).await.waits, "waits for 2 GPUs, 0 are free");
    assert_eq!(service.get(&named).await.waits, format!("behind {wide}, which waits for 2 GPUs, 0 are free"));
    let room = service.grpc.list(pb::ListRequest::default()).await.unwrap().into_inner().room;
    assert_eq!(room, Some(pb::Room { slots: 1, slots_held: 1, gpus: Some(2), gpus_held: 2 }));
    let refused = service.try_submit(&on("hold-f", json!({"workers": 3}))).await.unwrap_err();
    assert!(refused.message().contains("wants 3 GPUs, but the coordinator has 2;"), "{refused}");

    // One is free, which is not enough: a gang has all or nothing.
    service.cancel(&a).await;
    service.end(&a).await;
    assert_eq!(service.get(&wide).await.waits, "waits for 2 GPUs, 1 is free");
    service.cancel(&b).await;
    for job in [&wide, &named] {
        let events = service.end(job).await;
        assert_eq!(states(&events).last(), Some(&JobState::Succeeded), "{events:#?}");
    }
    assert_eq!(service.said(&wide, "gpus").await, ["3,GPU-ab"; 2], "each worker takes its own of its gang's");
    assert_eq!(service.said(&named, "gpus").await, ["as they are"], "the spec's numbers are the driver's");
    service.cancel(&cpu).await;
    service.end(&cpu).await;
    service.stop().await;
}

#[tokio::test]
async fn small_jobs_run_side_by_side() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let a = service.submit(&spec("hold-a", 1, 10.0)).await;
    let b = service.submit(&spec("hold-b", 1, 10.0)).await;
    service.at_work(&a).await;
    service.at_work(&b).await;
    assert_eq!(service.get(&a).await.state(), pb::JobState::Running);
    let listed = service.grpc.list(pb::ListRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(listed.iter().map(|j| &j.id).collect::<Vec<_>>(), [&a, &b]);
    assert!(listed.iter().all(|job| job.waits.is_empty() && !job.spec_json.is_empty()), "{listed:?}");
    service.cancel(&a).await;
    service.cancel(&b).await;
    service.end(&a).await;
    service.end(&b).await;
    service.stop().await;
}

#[tokio::test]
async fn a_job_that_can_never_fit_is_refused() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let status = service.try_submit(&spec("succeed", 3, 10.0)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains('3') && status.message().contains("2 slots"), "{status}");
    // Fewer processes share the same work.
    let request = pb::SubmitRequest {
        spec_json: spec("succeed", 3, 10.0).to_string(),
        processes: 2,
        ..Default::default()
    };
    let job = service.grpc.submit(request).await.unwrap().into_inner().job;
    assert_eq!(states(&service.end(&job).await).last(), Some(&JobState::Succeeded));
    assert_eq!(service.get(&job).await.workers, 2);
    service.stop().await;
}
