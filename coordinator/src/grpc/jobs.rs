//! What users ask.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use squad_proto::task::Checkpoint;
use squad_proto::{Event, JobId, JobSpec, Pace, Task, pb, spec};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::access::{Role, User};
use crate::confine::confine;
use crate::driver::log_folder;
use crate::job;
use crate::logs::Follower;
use crate::metrics::Reason;
use crate::placement::Wait;
use crate::registry::{Gang, Registry, SubmitError};
use crate::store::{Elsewhere, Record};

/// How often a followed log is looked at. Fixed: it only paces looks.
const FOLLOW: Duration = Duration::from_millis(200);

/// The service of users.
pub(crate) struct JobsService {
    pub(crate) registry: Registry,
}

impl JobsService {
    fn job(&self, id: &str) -> Result<Record, Status> {
        let id = JobId(id.to_owned());
        self.registry
            .get(&id)
            .ok_or_else(|| Status::not_found(format!("there is no job {id}; squadctl list shows all")))
    }

    /// A job with all that is known of it.
    fn whole(&self, record: Record) -> pb::Job {
        let id = &record.id;
        let waits = self.registry.waits().remove(id);
        let beside = Beside { waits, pace: self.registry.pace(id), gang: self.registry.gang(id) };
        job_of(record, beside)
    }

    /// A refusal that is counted.
    fn refuse(&self, reason: Reason, status: Status) -> Status {
        self.registry.metrics().refusals().count(reason);
        status
    }

    /// The spec of a request, validated and with absolute paths, and whether its task can be done here; that of an
    /// `external` job is done elsewhere.
    fn spec(&self, text: &str, task: &mut Task, external: bool) -> Result<JobSpec, Status> {
        let invalid = |e: spec::SpecError| Status::invalid_argument(e.to_string());
        let most = self.registry.config().limits.spec_bytes;
        if text.len() > most {
            let sentence = format!("the spec has {} bytes, and {most} are taken (--max-spec)", text.len());
            return Err(self.refuse(Reason::Spec, Status::invalid_argument(sentence)));
        }
        let value = spec::parse(text, "the submitted spec").map_err(invalid)?;
        let mut spec = spec::validate(&value, "the submitted spec").map_err(invalid)?.into_inner();
        let root = &self.registry.config().root;
        spec.resolve_paths(root);
        // A folder, where it is one or is written as one; else a name.
        if Path::new(&spec.model).is_absolute()
            || spec.model.starts_with('.')
            || root.join(&spec.model).is_dir()
        {
            spec.model = root.join(&spec.model).to_string_lossy().into_owned();
        }
        if let Task::Evaluate { checkpoint: Checkpoint::Path(path) } = task {
            *path = root.join(&*path).to_string_lossy().into_owned();
        }
        if let Some(allowed) = &self.registry.config().allowed {
            confine_all(&mut spec, task, allowed)
                .map_err(|sentences| self.refuse(Reason::Path, Status::invalid_argument(sentences)))?;
        }
        // Workers on other machines read their own files there, and say themselves what is missing.
        let problems = if external { Vec::new() } else { missing(&spec, task) };
        if problems.is_empty() { Ok(spec) } else { Err(Status::invalid_argument(problems.join("\n"))) }
    }
}

/// Puts in the place of each path of a job where it leads. Names every one that leads out of the allowed folders.
fn confine_all(spec: &mut JobSpec, task: &mut Task, allowed: &[PathBuf]) -> Result<(), String> {
    let model = Path::new(&spec.model).is_absolute().then_some(("model", &mut spec.model));
    let of_task = match task {
        Task::Evaluate { checkpoint: Checkpoint::Path(path) } => Some(("the checkpoint", path)),
        Task::Train { timeline: Some(path), .. } => Some(("the timeline", path)),
        _ => None,
    };
    let mut paths = vec![("output_dir", &mut spec.output_dir)];
    paths.extend(model);
    paths.extend(spec.data.train.as_mut().map(|path| ("data.train", path)));
    paths.extend(spec.data.dev.as_mut().map(|path| ("data.dev", path)));
    paths.extend(spec.train.init_from.as_mut().map(|path| ("train.init_from", path)));
    paths.extend(of_task);
    let mut problems = Vec::new();
    for (field, path) in paths {
        match confine(field, Path::new(&*path), allowed) {
            Ok(led) => *path = led.to_string_lossy().into_owned(),
            Err(escape) => problems.push(escape.to_string()),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// The files that a task needs and that are not there, each with its field.
fn missing(spec: &JobSpec, task: &Task) -> Vec<String> {
    let trains = task.trains();
    let mut problems = Vec::new();
    for (field, path, wanted, needed) in
        [("data.train", &spec.data.train, trains, trains), ("data.dev", &spec.data.dev, true, !trains)]
    {
        match path {
            Some(path) if wanted && !Path::new(path).is_file() => {
                problems.push(format!("{field}: there is no file {path}"));
            }
            None if needed => problems.push(format!("{field}: the task needs a file, the spec names none")),
            _ => {}
        }
    }
    problems
}

/// Who asks: whoever let the request in put that there. A request that nobody let in may do nothing.
fn asker<T>(request: &Request<T>) -> User {
    let nobody = User { name: None, role: Role::Read };
    request.extensions().get::<User>().cloned().unwrap_or(nobody)
}

/// What else is known of a job, by who keeps it.
#[derive(Default)]
struct Beside {
    waits: Option<Wait>,
    pace: Pace,
    gang: Gang,
}

/// A record as users see it.
fn job_of(record: Record, beside: Beside) -> pb::Job {
    let rest = beside.pace.rest().filter(|_| !record.state.is_final());
    pb::Job {
        priority: record.priority,
        waits: beside.waits.map(|wait| wait.to_string()).unwrap_or_default(),
        gpus: record.gpus,
        units_per_second: beside.pace.per_second().filter(|_| !record.state.is_final()),
        remaining_ms: rest.map(|rest| rest.as_millis() as u64),
        ranks: ranks_of(beside.gang),
        id: record.id.0,
        name: record.name,
        state: pb::JobState::from(record.state).into(),
        reason: record.reason,
        created_unix_ms: record.created_unix_ms,
        started_unix_ms: record.started_unix_ms,
        finished_unix_ms: record.finished_unix_ms,
        workers: record.processes,
        output_dir: record.output_dir,
        submitter: record.submitter.unwrap_or_default(),
        progress: record.progress.as_ref().map(Into::into),
        failure: record.failure.as_ref().map(Into::into),
        results: record.results.map(|r| pb::Results { json: r.to_string() }),
        spec_json: if record.spec.is_null() { String::new() } else { record.spec.to_string() },
        elsewhere: record.elsewhere.map(|Elsewhere { host, brought }| pb::Elsewhere { host, brought }),
    }
}

/// The workers of a gang, by rank.
fn ranks_of(gang: Gang) -> Vec<pb::RankStatus> {
    let status = |status: job::RankStatus| pb::RankStatus {
        stage: status.stage.as_str().into(),
        phase: status.position.map(|(phase, _)| pb::Phase::from(phase).into()),
        done: status.position.map(|(_, done)| done),
        heard_unix_ms: gang.unix_ms.saturating_sub(status.silent.as_millis() as u64),
    };
    gang.ranks.into_iter().map(status).collect()
}

#[tonic::async_trait]
impl pb::jobs_server::Jobs for JobsService {
    async fn submit(&self, request: Request<pb::SubmitRequest>) -> Result<Response<pb::SubmitReply>, Status> {
        let user = asker(&request);
        let request = request.into_inner();
        let mut task: Task = match request.task_json.as_str() {
            "" => Task::default(),
            text => {
                serde_json::from_str(text).map_err(|e| Status::invalid_argument(format!("the task: {e}")))?
            }
        };
        task.resolve_paths(&self.registry.config().root);
        let spec = self.spec(&request.spec_json, &mut task, request.external)?;
        let processes = if request.processes == 0 { spec.resources.workers } else { request.processes };
        let submitted = self.registry.submit(spec, task, (processes, request.external), user.name);
        let (id, token) = submitted.map_err(|error| match error {
            SubmitError::Ending => Status::unavailable(error.to_string()),
            SubmitError::TooLarge(_) => Status::invalid_argument(error.to_string()),
            SubmitError::NoWorker => Status::failed_precondition(error.to_string()),
            SubmitError::Full(_) => self.refuse(Reason::Queue, Status::resource_exhausted(error.to_string())),
            SubmitError::Store(_) => Status::internal(error.to_string()),
        })?;
        // Whoever may submit may run the workers; nobody else is told.
        let worker_token = if request.external { token } else { String::new() };
        let reach = self.registry.config().reach.clone().filter(|_| request.external);
        let (worker_server, certificates) = reach.map(|reach| (reach.url, reach.certificates)).unzip();
        Ok(Response::new(pb::SubmitReply {
            job: id.0,
            worker_token,
            worker_server: worker_server.unwrap_or_default(),
            worker_certificates: certificates.flatten().unwrap_or_default(),
        }))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::Job>, Status> {
        Ok(Response::new(self.whole(self.job(&request.into_inner().job)?)))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListReply>, Status> {
        let brief = request.into_inner().brief;
        let mut waits = self.registry.waits();
        let one = |mut record: Record| {
            if brief {
                record.shorten();
            }
            let (waits, pace) = (waits.remove(&record.id), self.registry.pace(&record.id));
            job_of(record, Beside { waits, pace, gang: Gang::default() })
        };
        let jobs = self.registry.list().into_iter().map(one).collect();
        let offer = self.registry.config().offer();
        let (slots_held, gpus_held) = self.registry.held();
        let room = pb::Room { slots: offer.slots, slots_held, gpus: offer.gpus, gpus_held };
        Ok(Response::new(pb::ListReply { jobs, room: Some(room) }))
    }

    async fn cancel(&self, request: Request<pb::CancelRequest>) -> Result<Response<pb::Job>, Status> {
        let user = asker(&request);
        let record = self.job(&request.into_inner().job)?;
        if !user.may_change(record.submitter.as_deref()) {
            let sentence =
                format!("{} is another's: only that token, or one of the role admin, cancels it", record.id);
            return Err(self.refuse(Reason::Role, Status::permission_denied(sentence)));
        }
        self.registry.cancel(&record.id);
        Ok(Response::new(self.whole(self.job(record.id.as_str())?)))
    }

    type WatchStream = ReceiverStream<Result<pb::Event, Status>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let id = self.job(&request.job)?.id;
        let (to_user, stream) = channel(64);
        tokio::spawn(send_events(self.registry.clone(), id, request.after_sequence, to_user));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type LogsStream = ReceiverStream<Result<pb::LogLine, Status>>;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let record = self.job(&request.job)?;
        if let Some(rank) = request.rank
            && rank >= record.processes
        {
            return Err(Status::invalid_argument(format!(
                "{} has ranks 0 to {}",
                record.id,
                record.processes - 1
            )));
        }
        let (to_user, stream) = channel(256);
        tokio::spawn(send_lines(self.registry.clone(), record, request, to_user));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Sends history, then whatever comes, up to the final state.
async fn send_events(
    registry: Registry,
    id: JobId,
    mut after: u64,
    to_user: Sender<Result<pb::Event, Status>>,
) {
    let Some(mut newest) = registry.watch(&id) else { return };
    loop {
        // Seen before it is read: what comes in between is read in the next turn.
        newest.borrow_and_update();
        // Asked before reading: nothing comes after the final state, so nothing may be waited for.
        let ended = registry.get(&id).is_none_or(|r| r.state.is_final());
        let events: Vec<Event> = match registry.events(&id, after) {
            Ok(events) => events,
            Err(error) => {
                // The user sees the end of the stream either way.
                to_user.send(Err(Status::internal(error.to_string()))).await.ok();
                return;
            }
        };
        let more = !events.is_empty();
        for event in events {
            after = event.sequence;
            let last = matches!(&event.body, squad_proto::EventBody::State { state, .. } if state.is_final());
            if to_user.send(Ok((&event).into())).await.is_err() || last {
                return;
            }
        }
        if !more && (ended || newest.changed().await.is_err()) {
            return;
        }
    }
}

async fn send_lines(
    registry: Registry,
    record: Record,
    request: pb::LogsRequest,
    to_user: Sender<Result<pb::LogLine, Status>>,
) {
    let folder = log_folder(&record.output_dir, &record.id);
    let mut followers = Follower::all(&folder, record.processes, request.rank);
    let (mut first, tail) = (true, request.tail as usize);
    loop {
        // Asked before reading: nothing is written after the end.
        let ended = registry.get(&record.id).is_none_or(|r| r.state.is_final());
        for follower in &mut followers {
            let mut last = VecDeque::new();
            loop {
                let lines = follower.lines();
                if lines.is_empty() {
                    break;
                }
                last.extend(lines);
                if first && tail > 0 {
                    last.drain(..last.len().saturating_sub(tail));
                    continue;
                }
                if !send_all(&to_user, follower.rank, &mut last).await {
                    return;
                }
            }
            if !send_all(&to_user, follower.rank, &mut last).await {
                return;
            }
        }
        first = false;
        if ended || !request.follow {
            return;
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// Sends lines of a rank; false when the user is gone.
async fn send_all(
    to_user: &Sender<Result<pb::LogLine, Status>>,
    rank: u32,
    lines: &mut VecDeque<String>,
) -> bool {
    for text in lines.drain(..) {
        if to_user.send(Ok(pb::LogLine { rank, text })).await.is_err() {
            return false;
        }
    }
    true
}
