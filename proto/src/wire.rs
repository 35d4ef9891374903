//! Domain types to protobuf messages and back; nothing else in the project does this.

use thiserror::Error;

use crate::event::{Event, EventBody, JobState, Phase, Progress};
use crate::failure::{FailureCode, FailureReport};
use crate::ids::{Fence, Generation, JobId};
use crate::pb;

/// A message that says nothing this version understands.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed message: {0}")]
pub struct WireError(pub String);

fn missing(what: &str) -> WireError {
    WireError(format!("{what} is missing or unknown"))
}

impl From<&Fence> for pb::Fence {
    fn from(fence: &Fence) -> Self {
        Self { job: fence.job.0.clone(), generation: fence.generation.0 }
    }
}

impl From<pb::Fence> for Fence {
    fn from(fence: pb::Fence) -> Self {
        Self { job: JobId(fence.job), generation: Generation(fence.generation) }
    }
}

impl From<JobState> for pb::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Queued => Self::Queued,
            JobState::Starting => Self::Starting,
            JobState::Running => Self::Running,
            JobState::Restarting => Self::Restarting,
            JobState::Stopping => Self::Stopping,
            JobState::Succeeded => Self::Succeeded,
            JobState::Failed => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl TryFrom<pb::JobState> for JobState {
    type Error = WireError;

    fn try_from(state: pb::JobState) -> Result<Self, WireError> {
        Ok(match state {
            pb::JobState::Unspecified => return Err(missing("job state")),
            pb::JobState::Queued => Self::Queued,
            pb::JobState::Starting => Self::Starting,
            pb::JobState::Running => Self::Running,
            pb::JobState::Restarting => Self::Restarting,
            pb::JobState::Stopping => Self::Stopping,
            pb::JobState::Succeeded => Self::Succeeded,
            pb::JobState::Failed => Self::Failed,
            pb::JobState::Cancelled => Self::Cancelled,
        })
    }
}

impl From<Phase> for pb::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Prepare => Self::Prepare,
            Phase::Train => Self::Train,
            Phase::Evaluate => Self::Evaluate,
        }
    }
}

impl TryFrom<pb::Phase> for Phase {
    type Error = WireError;

    fn try_from(phase: pb::Phase) -> Result<Self, WireError> {
        Ok(match phase {
            pb::Phase::Unspecified => return Err(missing("phase")),
            pb::Phase::Prepare => Self::Prepare,
            pb::Phase::Train => Self::Train,
            pb::Phase::Evaluate => Self::Evaluate,
        })
    }
}

impl From<&Progress> for pb::Progress {
    fn from(p: &Progress) -> Self {
        Self {
            phase: pb::Phase::from(p.phase).into(),
            done: p.done,
            total: p.total,
            loss: p.loss,
            learning_rate: p.learning_rate,
            grad_norm: p.grad_norm,
            examples_per_second: p.examples_per_second,
            tokens_per_second: p.tokens_per_second,
            allreduce_share: p.allreduce_share,
            loss_scale: p.loss_scale,
            label: p.label.clone(),
        }
    }
}

impl TryFrom<pb::Progress> for Progress {
    type Error = WireError;

    fn try_from(p: pb::Progress) -> Result<Self, WireError> {
        Ok(Self {
            phase: p.phase().try_into()?,
            done: p.done,
            total: p.total,
            loss: p.loss,
            learning_rate: p.learning_rate,
            grad_norm: p.grad_norm,
            examples_per_second: p.examples_per_second,
            tokens_per_second: p.tokens_per_second,
            allreduce_share: p.allreduce_share,
            loss_scale: p.loss_scale,
            label: p.label,
        })
    }
}

impl From<&FailureReport> for pb::FailureReport {
    fn from(r: &FailureReport) -> Self {
        Self {
            code: r.code.as_str().into(),
            summary: r.summary.clone(),
            rank: r.rank,
            phase: r.phase.map(|p| pb::Phase::from(p).into()),
            step: r.step,
            remedy: r.remedy.clone(),
            stderr_tail: r.stderr_tail.clone(),
            secondary: r.secondary,
        }
    }
}

impl From<pb::FailureReport> for FailureReport {
    /// A code of a newer version becomes [`FailureCode::Internal`] with its text kept.
    fn from(r: pb::FailureReport) -> Self {
        let phase = r.phase.is_some().then(|| r.phase().try_into().ok()).flatten();
        let (code, summary) = match r.code.parse::<FailureCode>() {
            Ok(code) => (code, r.summary),
            Err(_) => (FailureCode::Internal, format!("{} {}", r.code, r.summary)),
        };
        Self {
            code,
            summary,
            rank: r.rank,
            phase,
            step: r.step,
            remedy: r.remedy,
            stderr_tail: r.stderr_tail,
            secondary: r.secondary,
        }
    }
}

impl From<&Event> for pb::Event {
    fn from(event: &Event) -> Self {
        use pb::event::Body;
        let body = match &event.body {
            EventBody::State { state, reason } => Body::State(pb::StateChange {
                state: pb::JobState::from(*state).into(),
                reason: reason.clone(),
            }),
            EventBody::Progress(progress) => Body::Progress(progress.into()),
            EventBody::Note { rank, text } => {
                Body::Note(pb::Note { rank: *rank, text: text.clone(), alone: false })
            }
            EventBody::Failure(report) => Body::Failure(report.into()),
            EventBody::Results { results } => Body::Results(pb::Results { json: results.to_string() }),
        };
        Self { sequence: event.sequence, unix_ms: event.unix_ms, body: Some(body) }
    }
}

impl TryFrom<pb::Event> for Event {
    type Error = WireError;

    fn try_from(event: pb::Event) -> Result<Self, WireError> {
        use pb::event::Body;
        let body = match event.body.ok_or_else(|| missing("event body"))? {
            Body::State(s) => EventBody::State { state: s.state().try_into()?, reason: s.reason },
            Body::Progress(p) => EventBody::Progress(p.try_into()?),
            Body::Note(n) => EventBody::Note { rank: n.rank, text: n.text },
            Body::Failure(f) => EventBody::Failure(f.into()),
            Body::Results(r) => EventBody::Results {
                results: serde_json::from_str(&r.json).map_err(|e| WireError(format!("results: {e}")))?,
            },
        };
        Ok(Self { sequence: event.sequence, unix_ms: event.unix_ms, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_wire() {
        let mut progress = Progress::new(Phase::Train, 3, 10);
        progress.loss = Some(1.5);
        (progress.allreduce_share, progress.loss_scale) = (Some(0.25), Some(1024.0));
        let mut failure =
            FailureReport::new(FailureCode::WorkerDied, "rank 1 was killed by signal 9").of_rank(1);
        failure.phase = Some(Phase::Train);
        failure.stderr_tail = vec!["last words".into()];
        let bodies = [
            EventBody::State { state: JobState::Running, reason: "all ranks joined".into() },
            EventBody::Progress(progress),
            EventBody::Note { rank: Some(0), text: "hello".into() },
            EventBody::Failure(failure),
            EventBody::Results { results: serde_json::json!({"f1": 81.25}) },
        ];
        for (sequence, body) in (1..).zip(bodies) {
            let event = Event { sequence, unix_ms: 12, body };
            assert_eq!(Event::try_from(pb::Event::from(&event)), Ok(event));
        }
    }

    #[test]
    fn empty_messages_are_refused() {
        assert!(Event::try_from(pb::Event::default()).is_err());
        assert!(Progress::try_from(pb::Progress::default()).is_err());
    }
}
