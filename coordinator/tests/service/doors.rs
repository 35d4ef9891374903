//! Limits: what is too much, too slow or too far is refused, and a running job does not notice.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use squad_coordinator::{Config, Limits};
use squad_proto::pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::harness::{Service, config, folder, spec, states, within};
use crate::web::get;

/// The count of a kind of refusal.
async fn refused(service: &Service, reason: &str) -> u64 {
    let text = get(service.web, "/metrics").await.body;
    let name = format!("squadron_refused_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

fn limited(root: &std::path::Path, limits: Limits) -> Config {
    Config { limits, ..config(root, 1) }
}

/// Whether the other side has hung up.
async fn hung_up(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_few_and_short() {
    let folder = folder();
    let limits = Limits {
        connections_per_address: 10,
        first_request: Duration::from_millis(700),
        ..Limits::default()
    };
    let mut service = Service::with(limited(folder.path(), limits)).await;
    let job = service.submit(&spec("hold", 1, 10.0)).await;
    service.at_work(&job).await;

    let address = service.address;
    let mut idle = Vec::new();
    for _ in 0..30 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Some begin to speak, each a little.
    for (beginning, stream) in
        ["PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET"].iter().zip(&mut idle)
    {
        stream.write_all(beginning.as_bytes()).await.unwrap();
    }
    service.get(&job).await;
    for stream in &mut idle {
        assert!(within("the end of an idle connection", hung_up(stream)).await);
    }
    assert!(refused(&service, "connections_per_address").await >= 20, "two are the user's and the worker's");
    assert!(refused(&service, "slow").await >= 5);
    // The job's own session outlasts them, and its user's connection.
    service.cancel(&job).await;
    assert_eq!(states(&service.end(&job).await).last(), Some(&squad_proto::JobState::Cancelled));
    service.stop().await;
}

#[tokio::test]
async fn dripping_does_not_keep_a_connection() {
    let folder = folder();
    let limits = Limits { first_request: Duration::from_millis(500), ..Limits::default() };
    let service = Service::with(limited(folder.path(), limits)).await;
    let drip = async |at: SocketAddr, text: &str| {
        let mut stream = TcpStream::connect(at).await.unwrap();
        within("a slow client's end", async {
            for byte in text.bytes().cycle() {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    drip(service.web, "GET / HTTP/1.1\r\nx-a: b\r\nx-c: d\r\n").await;
    drip(service.address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(refused(&service, "slow").await >= 1);
    service.stop().await;
}

#[tokio::test]
async fn a_connection_that_rests_is_closed_and_one_that_waits_is_not() {
    let folder = folder();
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    let mut service = Service::with(limited(folder.path(), limits)).await;
    let job = service.submit(&spec("hold", 1, 10.0)).await;
    service.at_work(&job).await;
    let mut page = TcpStream::connect(service.web).await.unwrap();
    let text = format!("GET /api/jobs HTTP/1.1\r\nHost: {}\r\n\r\n", service.web);
    page.write_all(text.as_bytes()).await.unwrap();
    assert!(within("the end of a quiet connection", hung_up(&mut page)).await);
    assert!(refused(&service, "idle").await >= 1);
    // The worker's session is one request that goes on; the user's connection is made anew without a word.
    assert_eq!(service.get(&job).await.state(), pb::JobState::Running);
    service.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_counted() {
    let folder = folder();
    let limits = Limits { message_bytes: 100_000, spec_bytes: 50_000, queued_jobs: 1, ..Limits::default() };
    let mut service = Service::with(limited(folder.path(), limits)).await;
    let submit = |bytes: usize| pb::SubmitRequest { spec_json: " ".repeat(bytes), ..Default::default() };
    let spec_too_large = service.grpc.submit(submit(60_000)).await.unwrap_err();
    assert_eq!(spec_too_large.code(), Code::InvalidArgument);
    assert!(spec_too_large.message().contains("50000 are taken (--max-spec)"), "{spec_too_large}");
    let message = service.grpc.submit(submit(200_000)).await.unwrap_err();
    assert_eq!(message.code(), Code::OutOfRange, "{message}");

    service.submit(&spec("hold", 1, 10.0)).await;
    service.submit(&spec("hold", 1, 10.0)).await;
    let full = service.try_submit(&spec("hold", 1, 10.0)).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("--max-queued"), "{full}");
    for reason in ["spec", "message", "queue"] {
        assert_eq!(refused(&service, reason).await, 1, "{reason}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_job_stays_in_the_folders_that_are_allowed() {
    let folder = folder();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
    std::fs::write(outside.path().join("train.json"), "{}").unwrap();
    let mut service = Service::start(folder.path(), 1).await;
    let mut bad = spec("succeed", 1, 10.0);
    bad["output_dir"] = json!("../elsewhere");
    bad["model"] = json!("/etc");
    bad["data"] = json!({"train": "link/train.json", "dev": "/etc/passwd"});
    let status = service.try_submit(&bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let root = folder.path().display().to_string();
    for field in ["output_dir: ", "model: ", "data.train: ", "data.dev: "] {
        let line = status.message().lines().find(|line| line.starts_with(field));
        let line = line.unwrap_or_else(|| panic!("{field} is missing in {status}"));
        assert!(line.contains(&root), "{line}");
    }
    for (task, says) in [
        (json!({"task": "evaluate", "checkpoint": {"path": "/etc"}}), "the checkpoint: /etc is outside of"),
        (
            json!({"task": "train", "timeline": "/etc/timeline.json"}),
            "the timeline: /etc/timeline.json is outside of",
        ),
    ] {
        let mut request = pb::SubmitRequest { task_json: task.to_string(), ..Default::default() };
        request.spec_json = spec("succeed", 1, 10.0).to_string();
        let status = service.grpc.submit(request).await.unwrap_err();
        assert!(status.message().starts_with(says), "{status}");
    }
    assert_eq!(refused(&service, "path").await, 3);
    service.stop().await;

    let mut wider = config(folder.path(), 1);
    wider.allowed = Some(vec![folder.path().to_owned(), outside.path().to_owned()]);
    let mut service = Service::with(wider).await;
    let mut good = spec("succeed", 1, 10.0);
    good["data"]["train"] = json!("link/train.json");
    let job = service.submit(&good).await;
    assert_eq!(states(&service.end(&job).await).last(), Some(&squad_proto::JobState::Succeeded));
    service.stop().await;
}
