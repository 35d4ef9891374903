//! Strangers and ghosts: sessions that must change nothing.

use std::net::SocketAddr;

use squad_proto::connect::as_worker;
use squad_proto::pb::{self, from_worker::Body, workers_client::WorkersClient};
use squad_proto::{FailureCode, FailureReport, JobId, JobState};
use tokio_stream::StreamExt;
use tonic::Status;

use crate::harness::{Service, folder, spec, states, within};

/// Opens a session in the name of a job that says Hello for a job and then reports a failure; gives how it ended.
async fn intrude(
    address: SocketAddr,
    (named, job): (&str, &str),
    generation: u32,
    token: &str,
) -> Result<(), Status> {
    let fence = pb::Fence { job: job.into(), generation };
    let hello = pb::Hello {
        slot: 0,
        pid: 1,
        host: "elsewhere".into(),
        ring_address: "127.0.0.1:1".into(),
        rejoins: false,
    };
    let lie = FailureReport::new(FailureCode::NotFinite, "a lie");
    let messages = [Body::Hello(hello), Body::Failure((&lie).into())]
        .map(|body| pb::FromWorker { fence: Some(fence.clone()), body: Some(body) });
    // Stays open after its words: a stream that ended at once would hide what an open one can do.
    let stream = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let mut client = WorkersClient::connect(format!("http://{address}")).await.unwrap();
    let mut orders =
        client.session(as_worker(stream, &JobId(named.into()), token).unwrap()).await?.into_inner();
    while orders.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn strangers_and_older_generations_change_nothing() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 3).await;
    let job = service.submit(&spec("hold", 2, 10.0)).await;
    service.at_work(&job).await;
    let token = service.said(&job, "token").await.remove(0);
    // Another job has its own token, which opens nothing of this one.
    let second = service.submit(&spec("hold-other", 1, 10.0)).await;
    service.at_work(&second).await;
    let second_token = service.said(&second, "token").await.remove(0);
    let before = service.get(&job).await;

    let address = service.address;
    let other = format!("{}x", &token[1..]);
    let intruders = [
        (("hold-000000", "hold-000000"), 1, token.as_str()),
        ((&job, &job), 1, ""),
        ((&job, &job), 1, &other),
        ((&job, &job), 1, &second_token),
        ((&second, &job), 1, &second_token),
        ((&job, &job), 2, &token),
        ((&job, &job), 1, &token),
    ];
    for (names, generation, token) in intruders {
        let ended = within("a refusal", intrude(address, names, generation, token)).await;
        assert!(ended.is_err(), "{names:?} of generation {generation} was let in");
    }
    let after = service.get(&job).await;
    assert_eq!((before.state(), &before.failure), (after.state(), &after.failure));

    // The true workers still hear: both obey the Stop.
    service.cancel(&job).await;
    assert_eq!(states(&service.end(&job).await).last(), Some(&JobState::Cancelled));
    assert_eq!(service.said(&job, "stopped").await.len(), 2, "a stranger took a worker's place");
    service.stop().await;
}
