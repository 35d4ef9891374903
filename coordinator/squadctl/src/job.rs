//! A job as `get`, `list` and the end of a run show it.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use squad_proto::{FailureReport, JobState, Progress, pb};

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
