//! The JSON API: what squadctl shows.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use squad_proto::{FailureCode, FailureReport, JobId, JobState, Phase, Progress};

use super::Shared;
use crate::access::{Role, User};
use crate::driver::log_folder;
use crate::job::Stage;
use crate::logs;
use crate::metrics::Reason;
use crate::placement::Wait;
use crate::registry::{Gang, Registry};
use crate::store::Record;

/// Jobs in a list, unless another number is asked for.
pub(super) const LISTED: usize = 200;
/// Lines of each rank, unless another number is asked for; and the most that can be.
const LINES: usize = 200;
const MOST_LINES: usize = 5000;

/// A request that is refused: the status, and one sentence.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

/// What is shown of a job wherever it is shown.
#[derive(Serialize)]
pub(super) struct Head {
    id: JobId,
    name: String,
    pub(super) state: JobState,
    reason: String,
    created_unix_ms: u64,
    started_unix_ms: Option<u64>,
    finished_unix_ms: Option<u64>,
    workers: u32,
    priority: i32,
    /// What it waits for in the queue, for people.
    waits: Option<String>,
    /// GPUs that it was given, by number.
    gpus: Vec<u32>,
    progress: Option<Progress>,
}

/// A job as a list shows it.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    head: Head,
    /// Code of the failure, where there was one.
    failure: Option<FailureCode>,
    /// EM and F1, in percent, where there are results.
    exact: Option<Value>,
    f1: Option<Value>,
}

impl Head {
    fn of(record: &Record, waits: Option<&Wait>) -> Self {
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            state: record.state,
            reason: record.reason.clone(),
            created_unix_ms: record.created_unix_ms,
            started_unix_ms: record.started_unix_ms,
            finished_unix_ms: record.finished_unix_ms,
            workers: record.processes,
            priority: record.priority,
            waits: waits.map(ToString::to_string),
            gpus: record.gpus.clone(),
            progress: record.progress.clone(),
        }
    }
}

impl Row {
    fn of(record: Record, waits: Option<&Wait>) -> Self {
        let figure = |key: &str| record.results.as_ref().and_then(|results| results.get(key)).cloned();
        Self {
            exact: figure("exact"),
            f1: figure("f1"),
            head: Head::of(&record, waits),
            failure: record.failure.map(|report| report.code),
        }
    }
}

/// A job with all that is known of it.
#[derive(Serialize)]
pub(super) struct Job {
    #[serde(flatten)]
    pub(super) head: Head,
    output_dir: String,
    submitter: Option<String>,
    failure: Option<FailureReport>,
    results: Option<Value>,
    spec: Value,
    /// By rank; empty before the workers are launched, and for jobs of an earlier life of the coordinator.
    ranks: Vec<Rank>,
}

/// A worker as it was last heard of.
#[derive(Serialize)]
struct Rank {
    rank: usize,
    stage: Stage,
    phase: Option<Phase>,
    done: Option<u64>,
    heard_unix_ms: u64,
}

/// The workers of a gang, by rank.
fn ranks_of(gang: Gang) -> Vec<Rank> {
    let row = |(rank, status): (usize, crate::job::RankStatus)| Rank {
        rank,
        stage: status.stage,
        phase: status.position.map(|(phase, _)| phase),
        done: status.position.map(|(_, done)| done),
        heard_unix_ms: gang.unix_ms.saturating_sub(status.silent.as_millis() as u64),
    };
    gang.ranks.into_iter().enumerate().map(row).collect()
}

impl Job {
    /// The job as it is now.
    pub(super) fn of(registry: &Registry, id: &JobId) -> Option<Self> {
        let record = registry.get(id)?;
        Some(Self {
            ranks: ranks_of(registry.gang(id)),
            head: Head::of(&record, registry.waits().get(id)),
            output_dir: record.output_dir,
            submitter: record.submitter,
            failure: record.failure,
            results: record.results,
            spec: record.spec,
        })
    }
}

/// That there is no such job.
pub(super) fn unknown(id: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("there is no job {id}; the list shows all"))
}

/// The newest jobs, newest first, and how many there are in all.
pub(super) fn listing(registry: &Registry, limit: usize) -> Value {
    let (records, total) = registry.newest(limit);
    let waits = registry.waits();
    let row = |record: Record| {
        let wait = waits.get(&record.id);
        Row::of(record, wait)
    };
    let jobs: Vec<Row> = records.into_iter().map(row).collect();
    let (offer, (slots_held, gpus_held)) = (registry.config().offer(), registry.held());
    let room =
        json!({"slots": offer.slots, "slots_held": slots_held, "gpus": offer.gpus, "gpus_held": gpus_held});
    json!({"total": total, "room": room, "jobs": jobs})
}

/// What the page must know of the coordinator, and of who looks at it.
pub(super) async fn about(State(shared): State<Shared>, Extension(user): Extension<User>) -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    let slots = shared.registry.config().slots;
    let may_change = user.role >= Role::Submit;
    Json(json!({"version": version, "slots": slots, "may_change": may_change, "user": user.name}))
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    limit: Option<usize>,
}

/// `GET /api/jobs`.
pub(super) async fn list(State(shared): State<Shared>, Query(query): Query<ListQuery>) -> Json<Value> {
    Json(listing(&shared.registry, query.limit.unwrap_or(LISTED)))
}

/// `GET /api/jobs/ID`.
pub(super) async fn job(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Job>, Refusal> {
    Job::of(&shared.registry, &JobId(id.clone())).map(Json).ok_or_else(|| unknown(&id))
}

/// `POST /api/jobs/ID/cancel`: answers at once; the job ends when its workers have.
pub(super) async fn cancel(
    State(shared): State<Shared>,
    Extension(user): Extension<User>,
    Path(id): Path<String>,
) -> Result<Json<Job>, Refusal> {
    let job = JobId(id.clone());
    let record = shared.registry.get(&job).ok_or_else(|| unknown(&id))?;
    if !user.may_change(record.submitter.as_deref()) {
        shared.access.refusals().count(Reason::Role);
        let sentence = format!("{id} is another's: only that token, or one of the role admin, cancels it");
        return Err(Refusal(StatusCode::FORBIDDEN, sentence));
    }
    shared.registry.cancel(&job);
    Job::of(&shared.registry, &job).map(Json).ok_or_else(|| unknown(&id))
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    rank: Option<u32>,
    tail: Option<usize>,
}

/// `GET /api/jobs/ID/logs`: the last lines of each rank, or of one.
pub(super) async fn logs(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Json<Value>, Refusal> {
    let record = shared.registry.get(&JobId(id.clone())).ok_or_else(|| unknown(&id))?;
    let ranks = match query.rank {
        Some(rank) if rank >= record.processes => {
            let sentence = format!("{id} has ranks 0 to {}", record.processes - 1);
            return Err(Refusal(StatusCode::BAD_REQUEST, sentence));
        }
        Some(rank) => rank..rank + 1,
        None => 0..record.processes,
    };
    let folder = log_folder(&record.output_dir, &record.id);
    let lines = query.tail.unwrap_or(LINES).min(MOST_LINES);
    let read = move || -> Vec<Value> {
        let of_rank = |rank| {
            let tail = logs::tail(&folder, rank, lines);
            tail.into_iter().map(move |text| json!({"rank": rank, "text": text}))
        };
        ranks.flat_map(of_rank).collect()
    };
    let lines = tokio::task::spawn_blocking(read).await.map_err(|error| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("the logs cannot be read: {error}"))
    })?;
    Ok(Json(json!({"lines": lines})))
}

/// `GET /api/codes/CODE`: the page that explains a failure code.
pub(super) async fn code(Path(code): Path<String>) -> Result<Json<Value>, Refusal> {
    let known: FailureCode = code.parse().map_err(|sentence| Refusal(StatusCode::NOT_FOUND, sentence))?;
    Ok(Json(json!({"code": known, "page": known.page()})))
}

/// Whatever is not there.
pub(super) async fn nothing() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "there is nothing at this address; the page is at /".into())
}
