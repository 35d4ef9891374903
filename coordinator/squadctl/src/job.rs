//! A job as `get`, `list` and the end of a run show it.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use squad_proto::{FailureReport, JobState, Phase, Progress, pb};

/// A job; serialises to the document that `--output json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Job {
    /// Its identifier.
    pub(crate) id: String,
    /// The spec's name.
    pub(crate) name: String,
    /// Where it is in its life.
    pub(crate) state: JobState,
    /// Why it is there.
    pub(crate) reason: String,
    /// When it was submitted.
    pub(crate) created_unix_ms: u64,
    /// When its workers were started.
    pub(crate) started_unix_ms: Option<u64>,
    /// When it ended.
    pub(crate) finished_unix_ms: Option<u64>,
    /// Worker processes.
    pub(crate) workers: u32,
    /// Of jobs that wait the greater is first.
    pub(crate) priority: i32,
    /// What it waits for in the queue, for people.
    pub(crate) waits: Option<String>,
    /// GPUs of the daemon's machine that it was given, by number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) gpus: Vec<u32>,
    /// Units of its phase a second, over the last reports.
    pub(crate) units_per_second: Option<f64>,
    /// Milliseconds until its phase ends at that speed.
    pub(crate) remaining_ms: Option<u64>,
    /// Its workers by rank, where one job was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ranks: Vec<Rank>,
    /// Where it writes.
    pub(crate) output_dir: String,
    /// Where it writes is on another machine, and what was brought from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Name of the token that it was submitted with, where tokens are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) submitter: Option<String>,
    /// Its last progress report.
    pub(crate) progress: Option<Progress>,
    /// Why it failed.
    pub(crate) failure: Option<FailureReport>,
    /// The content of its results.json.
    pub(crate) results: Option<Value>,
    /// Its spec with resolved paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spec: Option<Value>,
}

/// Results on a machine whose output folder the coordinator does not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Elsewhere {
    /// Its name.
    pub(crate) host: String,
    /// What is in the coordinator's output folder too.
    pub(crate) brought: Vec<String>,
}

/// A worker as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rank {
    /// How far it is in its life.
    pub(crate) stage: String,
    /// What it does.
    pub(crate) phase: Option<Phase>,
    /// How far it is with that.
    pub(crate) done: Option<u64>,
    /// When it was last heard of.
    pub(crate) heard_unix_ms: u64,
}

impl From<pb::RankStatus> for Rank {
    fn from(status: pb::RankStatus) -> Self {
        // A phase of a newer daemon is none of ours.
        let phase = status.phase.is_some().then(|| status.phase().try_into().ok()).flatten();
        Self { stage: status.stage, phase, done: status.done, heard_unix_ms: status.heard_unix_ms }
    }
}

impl Job {
    /// Where a file or folder of the output folder is: on which machine, if not the coordinator's, and under which path.
    pub(crate) fn place(&self, name: &str) -> String {
        let path = Path::new(&self.output_dir).join(name).display().to_string();
        let part = name.split('/').next().unwrap_or(name);
        match &self.elsewhere {
            Some(there) if !there.brought.iter().any(|brought| brought == part) => {
                format!("{}:{path}", there.host)
            }
            _ => path,
        }
    }
}

impl TryFrom<pb::Job> for Job {
    type Error = anyhow::Error;

    fn try_from(job: pb::Job) -> anyhow::Result<Self> {
        let json = |text: &str, what: &str| -> anyhow::Result<Option<Value>> {
            if text.is_empty() {
                return Ok(None);
            }
            serde_json::from_str(text)
                .with_context(|| format!("the daemon's answer about {}: {what}", job.id))
                .map(Some)
        };
        Ok(Self {
            state: job.state().try_into().with_context(|| format!("the daemon's answer about {}", job.id))?,
            results: json(job.results.as_ref().map_or("", |r| r.json.as_str()), "results")?,
            spec: json(&job.spec_json, "spec")?,
            progress: job
                .progress
                .map(Progress::try_from)
                .transpose()
                .context("the daemon's answer: progress")?,
            failure: job.failure.map(FailureReport::from),
            id: job.id,
            name: job.name,
            reason: job.reason,
            created_unix_ms: job.created_unix_ms,
            started_unix_ms: job.started_unix_ms,
            finished_unix_ms: job.finished_unix_ms,
            workers: job.workers,
            priority: job.priority,
            waits: Some(job.waits).filter(|text| !text.is_empty()),
            gpus: job.gpus,
            units_per_second: job.units_per_second,
            remaining_ms: job.remaining_ms,
            ranks: job.ranks.into_iter().map(Rank::from).collect(),
            output_dir: job.output_dir,
            elsewhere: job.elsewhere.map(|pb::Elsewhere { host, brought }| Elsewhere { host, brought }),
            submitter: Some(job.submitter).filter(|name| !name.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_results_as_json() {
        let message = pb::Job {
            id: "a-1".into(),
            state: pb::JobState::Succeeded.into(),
            results: Some(pb::Results { json: r#"{"f1": 81.5}"#.into() }),
            ..Default::default()
        };
        let document = serde_json::to_value(Job::try_from(message).unwrap()).unwrap();
        assert_eq!(document["results"]["f1"], 81.5);
        assert_eq!(document["state"], "succeeded");
        assert!(document["failure"].is_null() && document.get("spec").is_none());
    }

    #[test]
    fn an_answer_without_a_state_is_refused() {
        assert!(Job::try_from(pb::Job::default()).is_err());
    }
}
