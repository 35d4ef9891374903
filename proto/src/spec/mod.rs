//! The job spec: what a user writes, with every default.
//!
//! [`JobSpec`] is the text's shape and the source of the JSON Schema; [`ValidSpec`] is the proof that
//! [`validate`](fn@validate) found nothing wrong. Defaults are the replaced program's.

mod overrides;
mod schema_errors;
mod sections;
mod validate;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use overrides::{OverrideError, apply_override};
pub use sections::{
    Backend, Comm, Compression, Data, DataType, DeviceKind, EmbeddingGradients, Eval, Fault, Optimizer,
    Resources, Separators, ThresholdSource, Train, Window,
};
pub use validate::{Problem, SpecError, ValidSpec, parse, validate};

/// A fine-tuning job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Version of this format.
    #[serde(rename = "apiVersion", default = "api_version")]
    #[schemars(extend("const" = "squad/v1"))]
    pub api_version: String,
    /// Kind of document.
    #[serde(default = "kind")]
    #[schemars(extend("const" = "FineTune"))]
    pub kind: String,
    /// Name of the job: lower-case letters, digits and hyphens.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// A folder in Hugging Face layout, a Hugging Face repository, or a zoo name.
    #[schemars(length(min = 1))]
    pub model: String,
    /// The question-answering head.
    #[serde(default)]
    pub head: Head,
    /// What to train and evaluate on, and how text becomes windows.
    pub data: Data,
    /// How to train.
    #[serde(default)]
    pub train: Train,
    /// How to evaluate.
    #[serde(default)]
    pub eval: Eval,
    /// What to run on.
    #[serde(default)]
    pub resources: Resources,
    /// How workers exchange gradients.
    #[serde(default)]
    pub comm: Comm,
    /// What to do about failures.
    #[serde(default)]
    pub fault: Fault,
    /// Of the jobs that wait at a daemon the one with the greatest priority is first, of equal ones the oldest. Jobs at
    /// work are not disturbed.
    #[serde(default)]
    #[schemars(range(min = -100, max = 100))]
    pub priority: i32,
    /// Folder for everything that the job writes. Relative paths start at the spec's folder under
    /// `run`, at the daemon's root under `submit`, at the current folder with `--recipe`.
    #[schemars(length(min = 1))]
    pub output_dir: String,
}

/// The question-answering head on top of the encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Start, end given start, and answerability: the replaced program's.
    #[default]
    Conditional,
    /// Start and end scores from one linear layer: Hugging Face's `*ForQuestionAnswering`.
    Span,
}

fn api_version() -> String {
    "squad/v1".into()
}

fn kind() -> String {
    "FineTune".into()
}

impl JobSpec {
    /// Makes the paths of data and output absolute, relative to `base`. The model stays as it is: it may
    /// be a name.
    pub fn resolve_paths(&mut self, base: &Path) {
        let absolute = |path: &mut String| *path = base.join(&*path).to_string_lossy().into_owned();
        absolute(&mut self.output_dir);
        self.data.train.iter_mut().for_each(absolute);
        self.data.dev.iter_mut().for_each(absolute);
        if let Some(path) = &mut self.train.init_from {
            absolute(path);
        }
    }

    /// Micro-batches in one optimizer step over all workers of the spec, however many ranks there are.
    pub fn micro_batches_per_step(&self) -> usize {
        self.train.accumulate as usize * self.resources.workers as usize
    }

    /// Examples in one optimizer step; under `data.tokens_per_batch` their number varies and is not this.
    pub fn global_batch(&self) -> usize {
        self.train.batch_size as usize * self.micro_batches_per_step()
    }

    /// The spec as YAML, every default written out.
    pub fn to_yaml(&self) -> String {
        serde_norway::to_string(self).unwrap_or_default()
    }
}

/// The JSON Schema of [`JobSpec`].
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(JobSpec).to_value()
}
