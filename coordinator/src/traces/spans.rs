//! From what happens to a job to spans: one for the job, one for each of its lives, one for each phase of a life, and one for each
//! time that it waited for slots.
//!
//! No clock and no randomness: identifiers follow from the job and from what the span is of, so that a coordinator that
//! takes a job up goes on with its trace.

use sha2::{Digest, Sha256};
use squad_proto::{Event, EventBody, FailureCode, JobId, JobState, Phase};

use crate::store::Record;

/// Most events of a span; OpenTelemetry's usual limit.
const MOST_EVENTS: usize = 128;

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Real(f64),
}

/// What is said of a span or an event.
pub(super) type Attributes = Vec<(&'static str, Value)>;

/// Something that happened within a span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Happening {
    pub(super) name: &'static str,
    pub(super) unix_ms: u64,
    pub(super) attributes: Attributes,
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) trace: [u8; 16],
    pub(super) id: [u8; 8],
    /// None for the job's own.
    pub(super) parent: Option<[u8; 8]>,
    pub(super) name: String,
    /// Milliseconds since 1970.
    pub(super) begun: u64,
    pub(super) ended: u64,
    pub(super) attributes: Attributes,
    pub(super) events: Vec<Happening>,
    pub(super) dropped_events: u32,
    /// Why it is one of a failure.
    pub(super) error: Option<String>,
}

/// The course of a job as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Since when it waits for slots.
    waits: Option<u64>,
    /// How often it has waited.
    waited: u64,
    life: Option<Life>,
    lives: u64,
    /// The code of the failure that ended it.
    code: Option<FailureCode>,
    /// Exact match and F1.
    figures: Option<(f64, f64)>,
}

/// One life of the job's workers.
#[derive(Debug)]
struct Life {
    begun: u64,
    /// Why it began.
    reason: String,
    phase: Option<PhaseOfLife>,
    events: Vec<Happening>,
    dropped_events: u32,
}

#[derive(Debug)]
struct PhaseOfLife {
    phase: Phase,
    begun: u64,
    /// Finished units, and all of them.
    done: (u64, u64),
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn number(value: impl TryInto<i64>) -> Value {
    Value::Number(value.try_into().unwrap_or(i64::MAX))
}

/// The first bytes of a hash over a job and the name of something in its course.
fn identifier<const N: usize>(record: &Record, of: &str) -> [u8; N] {
    let mut hash = Sha256::new();
    // Two coordinators may give the same name to a job.
    hash.update(format!("{}\0{}\0{of}", record.id, record.created_unix_ms));
    let mut out = [0; N];
    out.iter_mut().zip(hash.finalize()).for_each(|(out, byte)| *out = byte);
    out
}

impl Course {
    /// Takes an event in; `before` is the job's record as it was without it. Gives the spans that end with it.
    pub(super) fn observe(&mut self, before: &Record, event: &Event) -> Vec<Span> {
        let now = event.unix_ms;
        match &event.body {
            EventBody::State { state, reason } => return self.enter(before, *state, reason, now),
            EventBody::Progress(progress) => {
                let Some(life) = &mut self.life else { return Vec::new() };
                let done = (progress.done, progress.total);
                match &mut life.phase {
                    Some(at) if at.phase == progress.phase => at.done = done,
                    other => {
                        let ended = other.replace(PhaseOfLife { phase: progress.phase, begun: now, done });
                        return ended.map(|phase| phase.span(before, self.lives, now)).into_iter().collect();
                    }
                }
            }
            EventBody::Note { rank, text: note } => {
                let mut attributes = vec![("squadron.text", text(note.as_str()))];
                attributes.extend(rank.map(|rank| ("squadron.rank", number(rank))));
                self.happened("note", now, attributes);
            }
            EventBody::Failure(report) => {
                self.code = Some(report.code);
                let mut attributes = vec![
                    ("squadron.failure.code", text(report.code.as_str())),
                    ("squadron.text", text(report.summary.as_str())),
                ];
                attributes.extend(report.rank.map(|rank| ("squadron.rank", number(rank))));
                self.happened("failure", now, attributes);
            }
            EventBody::Results { results } => {
                self.figures = results["exact"].as_f64().zip(results["f1"].as_f64());
            }
        }
        Vec::new()
    }

    fn happened(&mut self, name: &'static str, unix_ms: u64, attributes: Attributes) {
        let Some(life) = &mut self.life else { return };
        if life.events.len() < MOST_EVENTS {
            life.events.push(Happening { name, unix_ms, attributes });
        } else {
            life.dropped_events += 1;
        }
    }

    fn enter(&mut self, before: &Record, state: JobState, reason: &str, now: u64) -> Vec<Span> {
        let mut spans = Vec::new();
        match state {
            JobState::Queued => {
                spans.extend(self.end_life(before, now, None));
                self.waits.get_or_insert(now);
            }
            JobState::Starting => {
                spans.extend(self.end_life(before, now, None));
                spans.extend(self.end_wait(before, now));
                self.lives += 1;
                let reason = reason.to_owned();
                self.life =
                    Some(Life { begun: now, reason, phase: None, events: Vec::new(), dropped_events: 0 });
            }
            JobState::Running => self.happened("running", now, Vec::new()),
            JobState::Stopping => self.happened("stopping", now, vec![("squadron.text", text(reason))]),
            JobState::Restarting => spans.extend(self.end_life(before, now, Some(reason))),
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
                let error = (state == JobState::Failed).then_some(reason);
                spans.extend(self.end_life(before, now, error));
                spans.extend(self.end_wait(before, now));
                spans.push(self.whole(before, (state, error), now));
            }
        }
        spans
    }

    fn end_wait(&mut self, record: &Record, now: u64) -> Option<Span> {
        let begun = self.waits.take()?;
        self.waited += 1;
        let of = format!("queued {}", self.waited);
        Some(Span { name: "queued".into(), ..below_job(record, &of, (begun, now)) })
    }

    /// The span of the life that is there, behind that of its phase.
    fn end_life(&mut self, record: &Record, now: u64, error: Option<&str>) -> Vec<Span> {
        let Some(life) = self.life.take() else { return Vec::new() };
        let phase = life.phase.map(|phase| phase.span(record, self.lives, now));
        let mut attributes = of_job(record);
        attributes.push(("squadron.generation", number(self.lives)));
        attributes.push(("squadron.reason", text(life.reason)));
        let of = life_of(self.lives);
        let span = Span {
            name: of.clone(),
            attributes,
            events: life.events,
            dropped_events: life.dropped_events,
            error: error.map(str::to_owned),
            ..below_job(record, &of, (life.begun, now))
        };
        phase.into_iter().chain([span]).collect()
    }

    /// The job's own span.
    fn whole(&self, record: &Record, (state, error): (JobState, Option<&str>), now: u64) -> Span {
        let mut attributes = of_job(record);
        attributes.push(("squadron.job.state", text(state.as_str())));
        attributes.push(("squadron.workers", number(record.processes)));
        attributes.push(("squadron.generations", number(self.lives)));
        attributes.extend(self.code.map(|code| ("squadron.failure.code", text(code.as_str()))));
        if let Some((exact, f1)) = self.figures {
            attributes.push(("squadron.exact", Value::Real(exact)));
            attributes.push(("squadron.f1", Value::Real(f1)));
        }
        Span {
            id: identifier(record, "job"),
            parent: None,
            name: format!("job {}", record.name),
            attributes,
            error: error.map(str::to_owned),
            ..below_job(record, "", (record.created_unix_ms, now))
        }
    }
}

impl PhaseOfLife {
    fn span(self, record: &Record, life: u64, now: u64) -> Span {
        let mut attributes = of_job(record);
        attributes.push(("squadron.done", number(self.done.0)));
        attributes.push(("squadron.total", number(self.done.1)));
        let of = format!("{} {}", life_of(life), self.phase);
        let parent = Some(identifier(record, &life_of(life)));
        let name = self.phase.as_str().to_owned();
        Span { name, parent, attributes, ..below_job(record, &of, (self.begun, now)) }
    }
}

fn life_of(number: u64) -> String {
    format!("generation {number}")
}

fn of_job(record: &Record) -> Attributes {
    let JobId(id) = &record.id;
    vec![("squadron.job.id", text(id.as_str())), ("squadron.job.name", text(record.name.as_str()))]
}

/// A span below the job's own, without a name.
fn below_job(record: &Record, of: &str, (begun, ended): (u64, u64)) -> Span {
    Span {
        trace: identifier(record, "trace"),
        id: identifier(record, of),
        parent: Some(identifier(record, "job")),
        name: String::new(),
        begun,
        // Clocks are set back now and then.
        ended: ended.max(begun),
        attributes: of_job(record),
        events: Vec::new(),
        dropped_events: 0,
        error: None,
    }
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
