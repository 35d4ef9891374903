//! Who runs when.

use squad_proto::{JobState, pb};

use crate::harness::{Service, folder, spec, states};

#[tokio::test]
async fn jobs_run_in_their_order_and_none_overtakes() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let first = service.submit(&spec("hold-a", 1, 10.0)).await;
    let wide = service.submit(&spec("succeed-b", 2, 10.0)).await;
    let narrow = service.submit(&spec("succeed-c", 1, 10.0)).await;
    service.at_work(&first).await;
    // One slot is free, which is enough for the third job; but the second is before it.
    for waiting in [&wide, &narrow] {
        assert_eq!(service.get(waiting).await.state(), pb::JobState::Queued, "{waiting}");
    }
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
async fn small_jobs_run_side_by_side() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let a = service.submit(&spec("hold-a", 1, 10.0)).await;
    let b = service.submit(&spec("hold-b", 1, 10.0)).await;
    service.at_work(&a).await;
    service.at_work(&b).await;
    assert_eq!(service.get(&a).await.state(), pb::JobState::Running);
    let listed = service.grpc.list(pb::ListRequest {}).await.unwrap().into_inner().jobs;
    assert_eq!(listed.iter().map(|j| &j.id).collect::<Vec<_>>(), [&a, &b]);
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
