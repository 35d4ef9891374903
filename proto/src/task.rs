//! What is to be done with a spec.

use std::path::Path;

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
        /// A file for a timeline of all ranks; relative to where those of the spec start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeline: Option<String>,
    },
    /// Only evaluate.
    Evaluate {
        /// Which weights.
        checkpoint: Checkpoint,
    },
}

impl Default for Task {
    fn default() -> Self {
        Self::Train { resume: false, timeline: None }
    }
}

impl Task {
    /// Whether the task trains.
    pub fn trains(&self) -> bool {
        matches!(self, Self::Train { .. })
    }

    /// Makes the paths that are relative start at `base`.
    pub fn resolve_paths(&mut self, base: &Path) {
        if let Self::Train { timeline: Some(file), .. } = self {
            *file = base.join(&*file).to_string_lossy().into_owned();
        }
    }

    /// The file for a timeline, if one is wished for.
    pub fn timeline(&self) -> Option<&Path> {
        match self {
            Self::Train { timeline, .. } => timeline.as_deref().map(Path::new),
            Self::Evaluate { .. } => None,
        }
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
