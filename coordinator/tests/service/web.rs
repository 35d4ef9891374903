//! The web side: what browsers, Prometheus and probes ask over HTTP.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::harness::{Service, folder, spec, within};

/// An answer: status, headers in lower case, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends a request with these header lines, and reads to the end of the connection.
pub(crate) async fn request(at: SocketAddr, line: &str, headers: &str, body: &str) -> Answer {
    within(line, async {
        let mut connection = TcpStream::connect(at).await.unwrap();
        let length = body.len();
        let text = format!(
            "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        connection.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    })
    .await
}

pub(crate) async fn get(at: SocketAddr, path: &str) -> Answer {
    request(at, &format!("GET {path}"), &format!("Host: {at}\r\n"), "").await
}

/// Posts as the page does.
async fn post(at: SocketAddr, path: &str, body: &str) -> Answer {
    let headers = format!("Host: {at}\r\nOrigin: http://{at}\r\nContent-Type: application/json\r\n");
    request(at, &format!("POST {path}"), &headers, body).await
}

/// The server-sent events of a path, as (name, data), up to the first that `enough` accepts.
async fn live(
    at: SocketAddr,
    path: &str,
    after: u64,
    enough: impl Fn(&str, &Value) -> bool,
) -> Vec<(String, Value)> {
    within(path, async {
        let mut connection = TcpStream::connect(at).await.unwrap();
        let text = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nLast-Event-ID: {after}\r\n\r\n");
        connection.write_all(text.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(connection).lines();
        let (mut name, mut events) = (String::new(), Vec::new());
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(text) = line.strip_prefix("event: ") {
                name = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data:") {
                let data = serde_json::from_str(text.trim()).unwrap_or(Value::Null);
                let last = enough(&name, &data);
                events.push((name.clone(), data));
                if last {
                    break;
                }
            }
        }
        events
    })
    .await
}

#[tokio::test]
async fn jobs_are_shown_as_squadctl_shows_them() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let empty = get(service.web, "/api/jobs").await;
    let room = json!({"slots": 2, "slots_held": 0, "gpus": null, "gpus_held": 0});
    assert_eq!((empty.status, empty.json()), (200, json!({"total": 0, "jobs": [], "room": room})));
    let good = service.submit(&spec("succeed", 2, 10.0)).await;
    service.end(&good).await;
    let bad = service.submit(&spec("crash", 2, 10.0)).await;
    service.end(&bad).await;

    let list = get(service.web, "/api/jobs").await.json();
    let ids: Vec<&Value> = list["jobs"].as_array().unwrap().iter().map(|job| &job["id"]).collect();
    assert_eq!(ids, [&json!(bad), &json!(good)], "the newest is first");
    assert_eq!(list["jobs"][1]["f1"], 62.5);
    assert_eq!(list["jobs"][0]["failure"], "SQ-007");
    let newest = get(service.web, "/api/jobs?limit=1").await.json();
    assert_eq!((newest["total"].as_u64(), newest["jobs"].as_array().unwrap().len()), (Some(2), 1));

    let job = get(service.web, &format!("/api/jobs/{bad}")).await.json();
    assert_eq!(job["state"], "failed");
    assert_eq!(job["failure"]["rank"], 1);
    assert!(job["failure"]["remedy"].as_str().unwrap().contains("learning_rate"), "{job}");
    assert_eq!(job["spec"]["name"], "crash");
    assert_eq!(job["ranks"][1]["rank"], 1);

    let logs = get(service.web, &format!("/api/jobs/{good}/logs?rank=1&tail=3")).await.json();
    let lines = logs["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["rank"] == 1 && line["text"].is_string()), "{logs}");
    let code = get(service.web, "/api/codes/SQ-007").await.json();
    assert!(code["page"].as_str().unwrap().starts_with("# SQ-007"), "{code}");
    service.stop().await;
}

#[tokio::test]
async fn a_running_job_is_followed_and_cancelled() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let job = service.submit(&spec("hold", 2, 10.0)).await;
    service.at_work(&job).await;
    let path = format!("/api/jobs/{job}/live");
    let at_work = |name: &str, data: &Value| name == "job" && data["ranks"][1]["phase"] == "train";
    let seen = live(service.web, &path, 0, at_work).await;
    let (_, history) = seen.iter().find(|(name, _)| name == "history").unwrap();
    assert_eq!(history[0]["sequence"], 1);
    let snapshot = &seen.last().unwrap().1;
    assert_eq!((&snapshot["state"], &snapshot["ranks"][1]["stage"]), (&json!("running"), &json!("ready")));
    let jobs = live(service.web, "/api/live", 0, |name, _| name == "jobs").await;
    assert_eq!(jobs.last().unwrap().1["jobs"][0]["id"], json!(job));

    let cancelled = post(service.web, &format!("/api/jobs/{job}/cancel"), "").await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    let rest = live(service.web, &path, 4, |name, _| name == "end").await;
    let (_, history) = rest.iter().find(|(name, _)| name == "history").unwrap();
    assert_eq!(history[0]["sequence"], 5, "a reader that comes back goes on where it was");
    let job = rest.iter().rfind(|(name, _)| name == "job").unwrap();
    assert_eq!(job.1["state"], "cancelled");
    service.stop().await;
}

#[tokio::test]
async fn metrics_are_in_the_form_that_prometheus_reads() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let good = service.submit(&spec("succeed", 2, 10.0)).await;
    service.end(&good).await;
    let held = service.submit(&spec("hold", 2, 10.0)).await;
    service.at_work(&held).await;
    let metrics = get(service.web, "/metrics").await;
    assert!(
        metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        metrics.head
    );
    for line in [
        "squadron_jobs{state=\"succeeded\"} 1",
        "squadron_jobs{state=\"running\"} 1",
        "squadron_failures_total{code=\"SQ-004\"} 0",
        "squadron_train_steps_total 6",
        &format!("squadron_job_loss{{job_id=\"{held}\"}} 1.0"),
        &format!("squadron_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(metrics.body.lines().any(|l| l == line), "{line} is missing in {}", metrics.body);
    }
    assert!(!metrics.body.contains(&good), "a job that ended has no series of its own");
    assert!(metrics.body.ends_with("# EOF\n"));
    for host in ["", "Host: 10.0.0.7:7312\r\n"] {
        let health = request(service.web, "GET /healthz", host, "").await;
        assert_eq!((health.status, health.body.as_str()), (200, "ok\n"), "a probe with {host:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_comes_from_elsewhere_is_refused() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let job = service.submit(&spec("hold", 1, 10.0)).await;
    service.at_work(&job).await;
    let at = service.web;
    for foreign in ["evil.example", &format!("evil.example:{}", at.port())] {
        let answer = request(at, "GET /api/jobs", &format!("Host: {foreign}\r\n"), "").await;
        assert_eq!(answer.status, 421, "{}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().contains("evil.example"), "{}", answer.body);
    }
    let cancel = format!("POST /api/jobs/{job}/cancel");
    for origin in
        ["", "Origin: null\r\n", "Origin: http://evil.example\r\n", "Origin: http://localhost:1\r\n"]
    {
        let answer = request(at, &cancel, &format!("Host: {at}\r\n{origin}"), "").await;
        assert_eq!(answer.status, 403, "{origin}: {}", answer.body);
    }
    assert_eq!(get(at, &format!("/api/jobs/{job}/cancel")).await.status, 403, "a link cancels nothing");
    assert_eq!(get(at, &format!("/api/jobs/{job}")).await.json()["state"], "running");

    let page = get(at, "/").await;
    for header in
        ["content-security-policy: default-src 'none'; script-src 'self';", "x-content-type-options: nosniff"]
    {
        assert!(page.head.contains(header), "{}", page.head);
    }
    assert!(!page.head.contains("access-control"), "no other site may read: {}", page.head);
    service.stop().await;
}

#[tokio::test]
async fn a_finished_model_is_asked() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let job = service.submit(&spec("succeed", 1, 10.0)).await;
    service.end(&job).await;
    std::fs::create_dir_all(folder.path().join("out/succeed/model")).unwrap();
    let path = format!("/api/jobs/{job}/ask");
    let ask = |context: &str| json!({"question": "--help", "context": context}).to_string();
    let answer = post(service.web, &path, &ask("Ada wrote it.")).await;
    assert_eq!((answer.status, &answer.json()["answer"]), (200, &json!("Ada")), "{}", answer.body);
    let failed = post(service.web, &path, &ask("Nothing is here.")).await;
    assert_eq!(failed.status, 502, "{}", failed.body);
    assert_eq!(failed.json()["error"], "squad-worker could not answer: the fake model knows nothing");
    for (context, wrong) in [(" ", "the text is empty"), ("\0", "the text holds a zero byte")] {
        let refused = post(service.web, &path, &ask(context)).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!(wrong)));
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_so() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let job = service.submit(&spec("succeed", 1, 10.0)).await;
    service.end(&job).await;
    for path in [
        "/api/jobs/none",
        "/api/jobs/none/logs",
        "/api/jobs/none/live",
        "/api/codes/SQ-500",
        "/assets/x.js",
        "/x",
    ] {
        let answer = get(service.web, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["error"].is_string(), "{path}: {}", answer.body);
    }
    assert_eq!(post(service.web, "/api/jobs/none/cancel", "").await.status, 404);
    assert_eq!(get(service.web, &format!("/api/jobs/{job}/logs?rank=1")).await.status, 400);
    let question = json!({"question": "Who?", "context": "A text."}).to_string();
    let answer = post(service.web, &format!("/api/jobs/{job}/ask"), &question).await;
    assert_eq!(answer.status, 409, "the fake worker leaves no model: {}", answer.body);
    service.stop().await;
}
