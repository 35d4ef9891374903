//! What may happen to a job, in the past tense.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::FailureReport;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted, waiting for slots.
    Queued,
    /// Workers are launched, load weights and build features.
    Starting,
    /// All ranks are joined and at work.
    Running,
    /// A worker was lost: the others are ending, and all are started again from the newest checkpoint.
    Restarting,
    /// Asked to stop; workers are ending.
    Stopping,
    /// Done: results are there.
    Succeeded,
    /// Ended by a failure; the job has a [`FailureReport`].
    Failed,
    /// Ended at a user's wish.
    Cancelled,
}

impl JobState {
    /// True when nothing more will happen to the job.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name as users read and write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a running job is doing, in the order in which it does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading data, building features, loading weights.
    Prepare,
    /// Taking optimizer steps.
    Train,
    /// Scoring the dev file.
    Evaluate,
}

impl Phase {
    /// The name as users read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a phase is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The phase.
    pub phase: Phase,
    /// Finished units: optimizer steps in training, windows in evaluation.
    pub done: u64,
    /// All units of the phase.
    pub total: u64,
    /// Mean loss of the examples since the last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Norm of the averaged gradient before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Examples a second over all ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples_per_second: Option<f64>,
    /// Unpadded tokens a second over all ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Share of the time that rank 0 spent inside all-reduces, hidden behind computing or not: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allreduce_share: Option<f64>,
    /// What the loss of the last step was multiplied with before it was differentiated; 1 without half precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// What is evaluated, when there are several checkpoints; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
}

impl Progress {
    /// Progress without figures.
    pub fn new(phase: Phase, done: u64, total: u64) -> Self {
        Self {
            phase,
            done,
            total,
            loss: None,
            learning_rate: None,
            grad_norm: None,
            examples_per_second: None,
            tokens_per_second: None,
            allreduce_share: None,
            loss_scale: None,
            label: String::new(),
        }
    }
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number in the job's history, from 1, without gaps.
    pub sequence: u64,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub body: EventBody,
}

/// The kinds of [`Event`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// The job entered a state.
    State {
        /// The new state.
        state: JobState,
        /// Why, for people.
        reason: String,
    },
    /// A phase went on.
    Progress(Progress),
    /// Something worth a line.
    Note {
        /// The rank that says it, if one does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rank: Option<u32>,
        /// One line.
        text: String,
    },
    /// The job failed; comes before the state changes.
    Failure(FailureReport),
    /// The job's results.json.
    Results {
        /// Its content.
        results: serde_json::Value,
    },
}
