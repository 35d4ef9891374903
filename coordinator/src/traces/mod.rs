//! Traces of jobs for OpenTelemetry, where somebody asks for them. They never hold up a job: what cannot be sent is dropped
//! with a line in the log.

mod export;
mod spans;
mod target;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use squad_proto::{Event, JobId};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use crate::store::Record;
use spans::{Course, Span};
pub use target::{TraceError, TraceTarget};

/// Spans that wait to be sent while the receiver cannot be reached: those of some hundred jobs.
const WAITING: usize = 4096;
/// How long a coordinator that ends waits for its last spans to be taken. Fixed: no job is left whose patience it could be.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where what happens to jobs becomes spans.
pub(crate) struct Traces {
    courses: Mutex<BTreeMap<JobId, Course>>,
    out: Mutex<Option<(Sender<Span>, JoinHandle<()>)>>,
}

impl Traces {
    /// Sends spans to `target`, from now on. Needs a runtime.
    pub(crate) fn to(target: TraceTarget) -> Self {
        let (sender, waiting) = tokio::sync::mpsc::channel(WAITING);
        let sending = tokio::spawn(export::run(target, waiting));
        Self { courses: Mutex::default(), out: Mutex::new(Some((sender, sending))) }
    }

    /// Takes in what happened to a job under an earlier coordinator, which has sent its spans.
    pub(crate) fn recall(&self, record: &Record, events: &[Event]) {
        let mut courses = self.courses.lock().unwrap_or_else(PoisonError::into_inner);
        let course = courses.entry(record.id.clone()).or_default();
        for event in events {
            drop(course.observe(record, event));
        }
    }

    /// Takes an event in; `before` is the job's record as it was without it.
    pub(crate) fn observe(&self, before: &Record, event: &Event) {
        let ended = {
            let mut courses = self.courses.lock().unwrap_or_else(PoisonError::into_inner);
            let spans = courses.entry(before.id.clone()).or_default().observe(before, event);
            if matches!(event.body, squad_proto::EventBody::State { state, .. } if state.is_final()) {
                courses.remove(&before.id);
            }
            spans
        };
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((sender, _)) = out.as_ref() else { return };
        for span in ended {
            match sender.try_send(span) {
                Ok(()) => {}
                Err(TrySendError::Full(span)) => {
                    tracing::warn!("too many spans wait; one of {} is lost", span.name)
                }
                // It has said why it ended.
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }

    /// Sends what waits, for a moment at most.
    pub(crate) async fn finish(&self) {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((sender, sending)) = out else { return };
        drop(sender);
        if tokio::time::timeout(FAREWELL, sending).await.is_err() {
            tracing::warn!("the last spans could not be sent within {} s", FAREWELL.as_secs());
        }
    }
}
