//! What can be read afterwards.

use squad_proto::{EventBody, JobState, pb};

use crate::harness::{Service, folder, spec, states};

#[tokio::test]
async fn watch_replays_from_where_one_was() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let job = service.submit(&spec("succeed", 1, 10.0)).await;
    let live = service.end(&job).await;
    let lasting = |events: &[squad_proto::Event]| -> Vec<squad_proto::Event> {
        events.iter().filter(|e| !matches!(e.body, EventBody::Progress(_))).cloned().collect()
    };
    // Progress may be thinned in what is kept; all else is there, as it was.
    let again = service.end(&job).await;
    assert_eq!(lasting(&again), lasting(&live));
    let middle = live[live.len() / 2].sequence;
    let rest = service.events(&job, middle, |_| false).await;
    assert!(rest.iter().all(|e| e.sequence > middle), "{rest:#?}");
    assert_eq!(lasting(&rest), lasting(&live[live.len() / 2 + 1..]));
    let last = live.last().unwrap().sequence;
    assert!(service.events(&job, last, |_| false).await.is_empty(), "after the end there is nothing");
    service.stop().await;
}

#[tokio::test]
async fn two_who_watch_see_the_same() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let job = service.submit(&spec("succeed", 1, 10.0)).await;
    let mut second = crate::harness::User::of(&service.address.to_string()).await;
    let (a, b) = tokio::join!(service.end(&job), second.end(&job));
    assert_eq!(a, b);
    service.stop().await;
}

#[tokio::test]
async fn history_outlives_the_coordinator() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let good = service.submit(&spec("succeed", 2, 10.0)).await;
    let before = service.end(&good).await;
    let bad = service.submit(&spec("crash", 2, 10.0)).await;
    service.end(&bad).await;
    let (mut good_job, mut bad_job) = (service.get(&good).await, service.get(&bad).await);
    assert_eq!((good_job.ranks.len(), bad_job.ranks.len()), (2, 2));
    // What each rank said last is not kept.
    good_job.ranks.clear();
    bad_job.ranks.clear();
    let lines = service.logs(pb::LogsRequest { job: good.clone(), ..Default::default() }).await;
    service.stop().await;

    let mut service = Service::start(folder.path(), 2).await;
    assert_eq!((service.get(&good).await, service.get(&bad).await), (good_job, bad_job));
    let listed = service.grpc.list(pb::ListRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(listed.iter().map(|j| &j.id).collect::<Vec<_>>(), [&good, &bad]);
    let after = service.end(&good).await;
    assert_eq!(states(&after), states(&before));
    assert_eq!(after.last(), before.last());
    assert_eq!(service.logs(pb::LogsRequest { job: good.clone(), ..Default::default() }).await, lines);
    // And it goes on: a new job has a place after the old ones.
    let next = service.submit(&spec("succeed", 1, 10.0)).await;
    assert_eq!(states(&service.end(&next).await).last(), Some(&JobState::Succeeded));
    service.stop().await;
}

#[tokio::test]
async fn logs_by_rank_and_tail_and_followed_to_the_end() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("hold", 2, 10.0)).await;
    service.at_work(&job).await;
    let all = pb::LogsRequest { job: job.clone(), ..Default::default() };
    let one = service.logs(pb::LogsRequest { rank: Some(1), ..all.clone() }).await;
    assert!(one.iter().all(|(rank, _)| *rank == 1) && one.contains(&(1, "rank 1 of 2".into())), "{one:?}");
    assert!(one.contains(&(1, "slot 1 complains".into())), "standard error is there too: {one:?}");
    let tail = service.logs(pb::LogsRequest { tail: 2, ..all.clone() }).await;
    assert_eq!(tail.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), [0, 0, 1, 1], "two of each: {tail:?}");
    assert_eq!(tail.last().map(|(_, text)| text.as_str()), Some("rank 1 of 2"));

    let mut follower = service.grpc.clone();
    let follow = pb::LogsRequest { follow: true, ..all };
    let mut stream = follower.logs(follow).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some(), "what is there comes at once");
    service.cancel(&job).await;
    let mut lines = Vec::new();
    crate::harness::within("the followed log's end", async {
        while let Some(line) = stream.message().await.unwrap() {
            lines.push((line.rank, line.text));
        }
    })
    .await;
    for rank in 0..2 {
        assert!(lines.iter().any(|(r, text)| *r == rank && text.starts_with("stopped at step")), "{lines:?}");
    }
    service.stop().await;
}
