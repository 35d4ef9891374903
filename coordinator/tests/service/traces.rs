//! Traces, as a collector gets them.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use squad_coordinator::{Server, TraceTarget};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use crate::harness::{Service, User, config, eventually, fake_worker, folder, spec, within};

/// What takes traces.
struct Collector {
    url: String,
    received: UnboundedReceiver<(Option<String>, ExportTraceServiceRequest)>,
}

struct Taker(UnboundedSender<(Option<String>, ExportTraceServiceRequest)>);

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = request.metadata().get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        self.0.send((header, request.into_inner())).ok();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, received) = unbounded_channel();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Taker(sender)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { url, received }
    }

    /// All spans up to a job's own, which is the last of its trace.
    async fn trace(&mut self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        while !spans.iter().any(|span| span.parent_span_id.is_empty()) {
            let (_, message) = within("a message to the collector", self.received.recv()).await.unwrap();
            for part in message.resource_spans {
                assert_eq!(text(&part.resource.unwrap().attributes, "service.name"), "squadron");
                spans.extend(part.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        other => panic!("{key} is {other:?}"),
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {:?}", names(spans)))
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

/// A coordinator that sends its traces to `url`.
async fn tracing(root: &Path, url: &str) -> Service {
    let server = Server::bind(config(root, 2), "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let server = server.with_web("127.0.0.1:0".parse().unwrap(), Vec::new()).await.unwrap();
    let target = TraceTarget::new(url, |_| None).unwrap().unwrap();
    let server = server.with_traces(target).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", server.local_addr())).unwrap();
    Service::of(server, endpoint).await
}

/// A daemon that is killed when the test ends.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn a_daemon_sends_a_trace_of_each_job() {
    let folder = folder();
    let mut collector = Collector::start().await;
    let port = folder.path().join("port");
    let child = Command::new(env!("CARGO_BIN_EXE_squad-coordinator"))
        .args(["serve", "--listen", "127.0.0.1:0", "--web", "off", "--slots", "2", "--root"])
        .arg(folder.path())
        .arg("--state")
        .arg(folder.path().join("state"))
        .arg("--worker")
        .arg(fake_worker())
        .arg("--port-file")
        .arg(&port)
        .args(["--otlp-endpoint", &collector.url])
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=lab")
        .env_remove("OTEL_SERVICE_NAME")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _daemon = Daemon(child.unwrap());
    eventually("the port file", || port.exists()).await;
    let mut user = User::of(std::fs::read_to_string(&port).unwrap().trim()).await;
    let job = user.submit(&spec("succeed", 2, 10.0)).await;
    let (header, first) = within("the first message", collector.received.recv()).await.unwrap();
    assert_eq!(header.as_deref(), Some("lab"));
    let mut spans: Vec<Span> = first
        .resource_spans
        .into_iter()
        .flat_map(|part| part.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect();
    if !spans.iter().any(|span| span.parent_span_id.is_empty()) {
        spans.extend(collector.trace().await);
    }
    let all = names(&spans);
    assert_eq!(
        (all[0], all[all.len() - 2], all[all.len() - 1]),
        ("queued", "generation 1", "job succeed"),
        "{all:?}"
    );
    assert!(all.contains(&"train"), "{all:?}");
    let whole = named(&spans, "job succeed");
    assert_eq!(text(&whole.attributes, "squadron.job.id"), job);
    assert_eq!(text(&whole.attributes, "squadron.job.state"), "succeeded");
    let life = named(&spans, "generation 1");
    assert_eq!(
        (&life.parent_span_id, &named(&spans, "train").parent_span_id),
        (&whole.span_id, &life.span_id)
    );
    for span in &spans {
        assert!(span.trace_id == whole.trace_id && !failed(span), "{span:?}");
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano && span.start_time_unix_nano > 0,
            "{span:?}"
        );
    }
}

#[tokio::test]
async fn lost_workers_and_failures_are_marked() {
    let folder = folder();
    let mut collector = Collector::start().await;
    let mut service = tracing(folder.path(), &collector.url).await;
    let mut frail = spec("frail", 2, 10.0);
    frail["fault"]["max_restarts"] = 1.into();
    service.submit(&frail).await;
    let spans = collector.trace().await;
    assert!(failed(named(&spans, "generation 1")), "{spans:#?}");
    assert!(!failed(named(&spans, "generation 2")) && !failed(named(&spans, "job frail")), "{spans:#?}");
    let message = &named(&spans, "generation 1").status.as_ref().unwrap().message;
    assert!(message.starts_with("SQ-004 rank 1"), "{message}");

    service.submit(&spec("crash", 2, 10.0)).await;
    let spans = collector.trace().await;
    let whole = named(&spans, "job crash");
    assert!(failed(whole));
    assert_eq!(text(&whole.attributes, "squadron.failure.code"), "SQ-007");
    let events = &named(&spans, "generation 1").events;
    assert!(events.iter().any(|event| event.name == "failure"), "{events:#?}");
    service.stop().await;
}

#[tokio::test]
async fn the_next_coordinator_goes_on_with_the_trace() {
    let folder = folder();
    let mut collector = Collector::start().await;
    let mut service = tracing(folder.path(), &collector.url).await;
    let job = service.submit(&spec("revive", 1, 10.0)).await;
    service.at_work(&job).await;
    service.stop().await;
    let service = tracing(folder.path(), &collector.url).await;
    let spans = collector.trace().await;
    let whole = named(&spans, "job revive");
    assert!(!failed(whole) && spans.iter().all(|span| span.trace_id == whole.trace_id), "{spans:#?}");
    for name in ["generation 1", "generation 2"] {
        assert_eq!(named(&spans, name).parent_span_id, whole.span_id);
    }
    let mut ids: Vec<&[u8]> = spans.iter().map(|span| &span.span_id[..]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "each span is sent once: {:?}", names(&spans));
    service.stop().await;
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_up_nothing() {
    let folder = folder();
    // A port that was free a moment ago, and where nobody listens.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut service = tracing(folder.path(), &format!("http://127.0.0.1:{port}")).await;
    let job = service.submit(&spec("succeed", 1, 10.0)).await;
    let events = service.end(&job).await;
    assert_eq!(crate::harness::states(&events).last(), Some(&squad_proto::JobState::Succeeded));
    service.stop().await;
}
