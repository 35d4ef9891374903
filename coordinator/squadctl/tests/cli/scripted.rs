//! A daemon whose jobs are written down beforehand: what squadctl says can be held against them.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use squad_proto::pb::jobs_server::{Jobs, JobsServer};
use squad_proto::{Event, EventBody, FailureCode, FailureReport, JobState, Phase, Progress, pb};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// A daemon that answers until it is dropped.
pub(crate) struct Daemon {
    pub(crate) url: String,
    /// What was submitted last.
    pub(crate) submitted: Arc<Mutex<Option<pb::SubmitRequest>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let submitted = Arc::default();
        let script = Script { submitted: Arc::clone(&submitted), cancelled: watch::Sender::new(false) };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let server = tonic::transport::Server::builder().add_service(JobsServer::new(script));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self { url, submitted, _runtime: runtime }
    }

    /// Calls squadctl with this daemon.
    pub(crate) fn call(&self, arguments: &[&str]) -> crate::Call {
        crate::squadctl(&[arguments, &["--server", &self.url]].concat())
    }
}

/// One job that succeeds, one that fails, one that goes on until it is cancelled.
struct Script {
    submitted: Arc<Mutex<Option<pb::SubmitRequest>>>,
    cancelled: watch::Sender<bool>,
}

fn job(id: &str, state: JobState) -> pb::Job {
    pb::Job {
        id: id.into(),
        name: id.split('-').next().unwrap().into(),
        state: pb::JobState::from(state).into(),
        created_unix_ms: 1_000,
        started_unix_ms: Some(2_000),
        finished_unix_ms: state.is_final().then_some(64_000),
        workers: 2,
        output_dir: "/out".into(),
        spec_json: r#"{"name": "scripted"}"#.into(),
        ..Default::default()
    }
}

fn failure() -> FailureReport {
    let mut failure = FailureReport::new(FailureCode::WorkerDied, "killed by signal 9").of_rank(1);
    (failure.phase, failure.step) = (Some(Phase::Train), Some(7));
    failure.stderr_tail = vec!["its last words".into()];
    failure
}

const RESULTS: &str =
    r#"{"exact": 41.25, "f1": 55.5, "total": 80, "train": {"steps": 10, "examples_per_second": 31.5}}"#;

impl Script {
    fn jobs(&self) -> Vec<pb::Job> {
        let mut good = job("good-1a", JobState::Succeeded);
        good.results = Some(pb::Results { json: RESULTS.into() });
        let mut bad = job("bad-2b", JobState::Failed);
        bad.failure = Some((&failure()).into());
        let cancelled = *self.cancelled.borrow();
        let long = job("long-3c", if cancelled { JobState::Cancelled } else { JobState::Running });
        let mut queued = job("long-4d", JobState::Queued);
        (queued.waits, queued.priority) = ("waits for 2 slots, 0 are free".into(), 3);
        vec![good, bad, long, queued]
    }

    fn find(&self, id: &str) -> Result<pb::Job, Status> {
        let found = self.jobs().into_iter().find(|job| job.id == id);
        found.ok_or_else(|| Status::not_found(format!("there is no job {id}")))
    }
}

fn events(job: &str) -> Vec<pb::Event> {
    let state = |state| EventBody::State { state, reason: "as written".into() };
    let train = |done| {
        let mut progress = Progress::new(Phase::Train, done, 10);
        (progress.loss, progress.learning_rate, progress.examples_per_second) =
            (Some(1.5), Some(2e-4), Some(31.5));
        EventBody::Progress(progress)
    };
    let mut bodies = vec![state(JobState::Starting), state(JobState::Running), train(5)];
    bodies.extend(match job {
        "good-1a" => vec![
            train(10),
            EventBody::Progress(Progress::new(Phase::Evaluate, 8, 8)),
            EventBody::Results { results: serde_json::from_str(RESULTS).unwrap() },
            state(JobState::Succeeded),
        ],
        "bad-2b" => vec![EventBody::Failure(failure()), state(JobState::Failed)],
        _ => Vec::new(),
    });
    let numbered =
        (1..).zip(bodies).map(|(sequence, body)| Event { sequence, unix_ms: sequence * 1000, body });
    numbered.map(|event| pb::Event::from(&event)).collect()
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Jobs for Script {
    async fn submit(&self, request: Request<pb::SubmitRequest>) -> Result<Response<pb::SubmitReply>, Status> {
        let request = request.into_inner();
        if request.spec_json.contains("refuse-me") {
            return Err(Status::invalid_argument("the spec is not to the daemon's taste"));
        }
        if request.spec_json.contains("too-late") {
            return Err(Status::unavailable("the coordinator is ending"));
        }
        *self.submitted.lock().unwrap() = Some(request);
        Ok(Response::new(pb::SubmitReply { job: "good-1a".into(), ..Default::default() }))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::Job>, Status> {
        self.find(&request.into_inner().job).map(Response::new)
    }

    async fn list(&self, _: Request<pb::ListRequest>) -> Result<Response<pb::ListReply>, Status> {
        let room = pb::Room { slots: 2, slots_held: 2, gpus: None, gpus_held: 0 };
        Ok(Response::new(pb::ListReply { jobs: self.jobs(), room: Some(room) }))
    }

    async fn cancel(&self, request: Request<pb::CancelRequest>) -> Result<Response<pb::Job>, Status> {
        let before = self.find(&request.into_inner().job)?;
        self.cancelled.send_replace(true);
        Ok(Response::new(before))
    }

    type WatchStream = Answers<pb::Event>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = request.into_inner().job;
        self.find(&id)?;
        let told = tokio_stream::iter(events(&id).into_iter().map(Ok));
        if !id.starts_with("long") {
            return Ok(Response::new(Box::pin(told)));
        }
        // Ends when somebody cancels.
        let mut cancelled = self.cancelled.subscribe();
        let (open, until) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            cancelled.wait_for(|yes| *yes).await.unwrap();
            drop(open);
        });
        Ok(Response::new(Box::pin(told.chain(tokio_stream::wrappers::ReceiverStream::new(until)))))
    }

    type LogsStream = Answers<pb::LogLine>;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let pb::LogsRequest { job, rank, tail, .. } = request.into_inner();
        self.find(&job)?;
        let first = if tail == 0 { 0 } else { 3 - tail };
        let lines = (0..2).flat_map(move |rank| (first..3).map(move |n| (rank, format!("line {n}"))));
        let lines = lines.filter(move |(of, _)| rank.is_none_or(|rank| rank == *of));
        let lines: Vec<_> = lines.map(|(rank, text)| Ok(pb::LogLine { rank, text })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(lines))))
    }
}
