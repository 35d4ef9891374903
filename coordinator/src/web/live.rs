//! What changes, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use serde::{Deserialize, Serialize};
use squad_proto::JobId;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use super::api::{Job, Refusal, listing, unknown};
use super::{Shared, api};
use crate::registry::Registry;

/// Least time between two snapshots: more often nobody can read them. Fixed: it is no wait.
const PACE: Duration = Duration::from_secs(1);

type Stream = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

fn stream(events: tokio::sync::mpsc::Receiver<Result<Event, Infallible>>) -> Stream {
    Sse::new(ReceiverStream::new(events)).keep_alive(KeepAlive::default())
}

/// A reader, and what it was told last.
struct Reader {
    to: Sender<Result<Event, Infallible>>,
    last: String,
}

impl Reader {
    fn new(to: Sender<Result<Event, Infallible>>) -> Self {
        Self { to, last: String::new() }
    }

    /// Sends a message; false when the reader is gone.
    async fn send(&self, event: Event) -> bool {
        self.to.send(Ok(event)).await.is_ok()
    }

    /// Sends a snapshot, unless it is the same as the last; false when the reader is gone.
    async fn snapshot(&mut self, name: &str, content: &impl Serialize) -> bool {
        // What is sent has a JSON form; were there one without, the reader keeps the last.
        let text = serde_json::to_string(content).unwrap_or_default();
        if text == self.last {
            return true;
        }
        let sent = self.send(Event::default().event(name).data(&text)).await;
        self.last = text;
        sent
    }
}

/// `GET /api/live`: `jobs` events, each the list as `GET /api/jobs` gives it.
pub(super) async fn list(State(shared): State<Shared>) -> Stream {
    let (to, events) = channel(1);
    tokio::spawn(send_list(shared.registry, Reader::new(to)));
    stream(events)
}

async fn send_list(registry: Registry, mut reader: Reader) {
    let mut changes = registry.changes();
    loop {
        changes.borrow_and_update();
        if !reader.snapshot("jobs", &listing(&registry, api::LISTED)).await {
            return;
        }
        tokio::time::sleep(PACE).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = reader.to.closed() => return,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct LiveQuery {
    /// Events up to this one are known to the reader; a browser that comes back by itself names a later one.
    after: Option<u64>,
}

/// `GET /api/jobs/ID/live`: `history` events, each an array of the job's events; `job` events, each the job as
/// `GET /api/jobs/ID` gives it; and `end` when nothing more will come. A reader that comes back goes on where it was.
pub(super) async fn job(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<LiveQuery>,
    headers: HeaderMap,
) -> Result<Stream, Refusal> {
    let job = JobId(id.clone());
    if shared.registry.get(&job).is_none() {
        return Err(unknown(&id));
    }
    let named = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let seen = named.or(query.after).unwrap_or(0);
    let (to, events) = channel(4);
    tokio::spawn(send_job(shared.registry, job, seen, Reader::new(to)));
    Ok(stream(events))
}

async fn send_job(registry: Registry, id: JobId, mut seen: u64, mut reader: Reader) {
    let mut pace = tokio::time::interval(PACE);
    loop {
        pace.tick().await;
        if reader.to.is_closed() {
            return;
        }
        // Asked before reading: nothing comes after the final state.
        let Some(job) = Job::of(&registry, &id) else { return };
        let Some(sequence) = send_history(&registry, &id, seen, &reader).await else { return };
        seen = sequence;
        if !reader.snapshot("job", &job).await {
            return;
        }
        if job.head.state.is_final() {
            // Browsers pass on no event without data.
            reader.send(Event::default().event("end").data("{}")).await;
            return;
        }
    }
}

/// Sends all events after `seen`; gives the last one's number, or nothing when the reader is gone.
async fn send_history(registry: &Registry, id: &JobId, mut seen: u64, reader: &Reader) -> Option<u64> {
    loop {
        let events = registry.events(id, seen).unwrap_or_else(|error| {
            tracing::error!("{id}: {error}");
            Vec::new()
        });
        let Some(last) = events.last() else { return Some(seen) };
        seen = last.sequence;
        let text = serde_json::to_string(&events).unwrap_or_default();
        let sent = reader.send(Event::default().event("history").id(seen.to_string()).data(text)).await;
        if !sent {
            return None;
        }
    }
}
