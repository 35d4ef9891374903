//! What is to be done with a spec.

use serde::{Deserialize, Serialize};

/// What a job does with its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// Train, then evaluate the final model where the spec names a dev file.
    Train {
        /// Go on from the newest checkpoint of the output folder, rather than start afresh.
        #[serde(default)]
        resume: bool,
    },
    /// Only evaluate.
    Evaluate {
        /// Which weights.
        checkpoint: Checkpoint,
    },
}

impl Default for Task {
    fn default() -> Self {
        Self::Train { resume: false }
    }
}

impl Task {
    /// Whether the task trains.
    pub fn trains(&self) -> bool {
        matches!(self, Self::Train { .. })
    }
}

/// Which weights an evaluation takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkpoint {
    /// The newest in the output folder.
    Latest,
    /// Every one in the output folder; the best is named in the results.
    All,
    /// A checkpoint folder or a model folder in Hugging Face layout.
    Path(String),
}
