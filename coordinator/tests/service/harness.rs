//! A coordinator for one test, and questions to it.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squad_coordinator::{Config, Limits, ServeError, Server, StoreLocation};
use squad_proto::pb::jobs_client::JobsClient;
use squad_proto::{Event, EventBody, FailureReport, JobState, pb};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// No wait of a test is longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The program that plays the worker.
pub(crate) fn fake_worker() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/fake_worker");
    assert!(path.is_file(), "{} is missing: cargo build -p squad-coordinator --examples", path.display());
    path
}

/// What the future gives, or a failed test: nothing may hang.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

/// Looks again and again until something holds that no event tells of.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there and not merely waiting for its parent to take note of its end.
pub(crate) fn lives(pid: i32) -> bool {
    // The state follows the name, which is in parentheses.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()))
        .is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// A running coordinator, and somebody who asks it.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// Where its page is.
    pub(crate) web: SocketAddr,
    user: User,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServeError>>,
}

/// Somebody who asks a coordinator.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) grpc: JobsClient<Channel>,
}

impl Deref for Service {
    type Target = User;

    fn deref(&self) -> &User {
        &self.user
    }
}

impl DerefMut for Service {
    fn deref_mut(&mut self) -> &mut User {
        &mut self.user
    }
}

/// A folder with what specs point at.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.json"), "{}").unwrap();
    folder
}

/// A configuration of the fake worker.
pub(crate) fn config(root: &Path, slots: u32) -> Config {
    Config {
        root: root.to_owned(),
        store: StoreLocation::File(root.join("state/jobs.sqlite")),
        worker_program: Some(fake_worker()),
        slots,
        gpus: None,
        threads: Some(1),
        allowed: Some(vec![root.to_owned()]),
        limits: Limits::default(),
        reach: None,
    }
}

/// A spec; `name` says what the workers do.
pub(crate) fn spec(name: &str, workers: u32, patience_s: f64) -> Value {
    json!({
        "name": name,
        "model": "some/model",
        "data": {"train": "train.json"},
        "resources": {"workers": workers},
        "fault": {"patience_s": patience_s, "max_restarts": 0},
        "output_dir": format!("out/{name}"),
    })
}

impl Service {
    pub(crate) async fn start(root: &Path, slots: u32) -> Self {
        Self::with(config(root, slots)).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::with_web(config, "127.0.0.1:0", Vec::new()).await
    }

    /// A service whose page is at another address, and has other names.
    pub(crate) async fn with_web(config: Config, web: &str, names: Vec<String>) -> Self {
        let server = Server::bind(config, "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let server = server.with_web(web.parse().unwrap(), names).await.unwrap();
        let address = server.local_addr();
        Self::of(server, Endpoint::from_shared(format!("http://{address}")).unwrap()).await
    }

    /// A service of a server with a page, and a user who reaches it so.
    pub(crate) async fn of(server: Server, endpoint: Endpoint) -> Self {
        let (address, web) = (server.local_addr(), server.web_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.run(async {
            stopped.await.ok();
        }));
        let user = User { grpc: JobsClient::new(within("a connection", endpoint.connect()).await.unwrap()) };
        Self { address, web, user, stop, server }
    }

    /// Ends the coordinator and waits for it.
    pub(crate) async fn stop(self) {
        let (user, server) = self.stopping();
        drop(user);
        within("the end of the server", server).await.unwrap().unwrap();
    }

    /// Tells the coordinator to end; gives who may still ask it, and its end.
    pub(crate) fn stopping(self) -> (User, JoinHandle<Result<(), ServeError>>) {
        let Self { stop, server, user, .. } = self;
        stop.send(()).unwrap();
        (user, server)
    }
}

impl User {
    pub(crate) async fn of(address: &str) -> Self {
        Self { grpc: JobsClient::connect(format!("http://{address}")).await.unwrap() }
    }

    pub(crate) async fn submit(&mut self, spec: &Value) -> String {
        self.try_submit(spec).await.unwrap()
    }

    pub(crate) async fn try_submit(&mut self, spec: &Value) -> Result<String, tonic::Status> {
        let request = pb::SubmitRequest { spec_json: spec.to_string(), ..Default::default() };
        Ok(self.grpc.submit(request).await?.into_inner().job)
    }

    pub(crate) async fn get(&mut self, job: &str) -> pb::Job {
        self.grpc.get(pb::GetRequest { job: job.into() }).await.unwrap().into_inner()
    }

    pub(crate) async fn cancel(&mut self, job: &str) -> pb::Job {
        self.grpc.cancel(pb::CancelRequest { job: job.into() }).await.unwrap().into_inner()
    }

    /// The events after `after` up to the first that `enough` accepts, or to the stream's end.
    pub(crate) async fn events(
        &mut self,
        job: &str,
        after: u64,
        enough: impl Fn(&Event) -> bool,
    ) -> Vec<Event> {
        let request = pb::WatchRequest { job: job.into(), after_sequence: after };
        let mut stream = self.grpc.watch(request).await.unwrap().into_inner();
        within(&format!("events of {job}"), async {
            let mut events = Vec::new();
            while let Some(event) = stream.message().await.unwrap() {
                let event = Event::try_from(event).unwrap();
                events.push(event);
                if events.last().is_some_and(&enough) {
                    break;
                }
            }
            events
        })
        .await
    }

    /// Every event; returns when the job has ended.
    pub(crate) async fn end(&mut self, job: &str) -> Vec<Event> {
        self.events(job, 0, |_| false).await
    }

    /// Waits until the job has trained a step.
    pub(crate) async fn at_work(&mut self, job: &str) {
        let events = self.events(job, 0, |e| matches!(e.body, EventBody::Progress(_))).await;
        let seen = events.last().is_some_and(|e| matches!(e.body, EventBody::Progress(_)));
        assert!(seen, "{job} ended before it trained: {events:#?}");
    }

    /// Log lines as (rank, text).
    pub(crate) async fn logs(&mut self, request: pb::LogsRequest) -> Vec<(u32, String)> {
        let mut stream = self.grpc.logs(request).await.unwrap().into_inner();
        within("logs", async {
            let mut lines = Vec::new();
            while let Some(line) = stream.message().await.unwrap() {
                lines.push((line.rank, line.text));
            }
            lines
        })
        .await
    }

    /// What the workers say of themselves in their logs, such as `pid`, by rank.
    pub(crate) async fn said(&mut self, job: &str, word: &str) -> Vec<String> {
        let request = pb::LogsRequest { job: job.into(), ..Default::default() };
        let lines = self.logs(request).await;
        let value =
            |text: &str| text.strip_prefix(word).and_then(|rest| rest.strip_prefix(' ')).map(str::to_owned);
        lines.iter().filter_map(|(_, text)| value(text)).collect()
    }

    /// Every process of a job: its workers first, by rank, then what these started.
    pub(crate) async fn processes(&mut self, job: &str) -> Vec<i32> {
        let mut all = self.said(job, "pid").await;
        all.extend(self.said(job, "child").await);
        all.iter().map(|pid| pid.parse().unwrap()).collect()
    }
}

/// The states that a history goes through.
pub(crate) fn states(events: &[Event]) -> Vec<JobState> {
    let state = |e: &Event| if let EventBody::State { state, .. } = &e.body { Some(*state) } else { None };
    events.iter().filter_map(state).collect()
}

/// The one failure of a history, which the final state follows.
pub(crate) fn failure(events: &[Event]) -> &FailureReport {
    let reports: Vec<(usize, &FailureReport)> = events
        .iter()
        .enumerate()
        .filter_map(
            |(at, e)| if let EventBody::Failure(report) = &e.body { Some((at, report)) } else { None },
        )
        .collect();
    let [(at, report)] = reports[..] else { panic!("not exactly one failure: {events:#?}") };
    assert_eq!(at + 2, events.len(), "the failure comes right before the final state: {events:#?}");
    assert_eq!(states(events).last(), Some(&JobState::Failed), "{events:#?}");
    report
}
