//! Why training failed.

use std::path::{Path, PathBuf};

use squad_collective::CollectiveError;
use squad_data::DataError;
use squad_model::ModelError;
use squad_proto::FailureCode;
use thiserror::Error;

/// Why a run ended without results.
#[derive(Debug, Error)]
pub enum TrainError {
    /// About the data files.
    #[error(transparent)]
    Data(#[from] DataError),
    /// About the model's files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The spec asks the model or the data for something that they cannot give.
    #[error("{0}")]
    Unfit(String),
    /// A file of the output folder.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Output {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is nothing to evaluate.
    #[error("there is no checkpoint in {folder}; train first, or name one with --checkpoint", folder = .0.display())]
    NoCheckpoint(PathBuf),
    /// The run in the output folder cannot be gone on with.
    #[error("{0}")]
    Resume(String),
    /// A connection between ranks.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The numbers broke down.
    #[error("the {what} is {value} at step {step}")]
    NotFinite {
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step, counted from 1.
        step: u64,
    },
    /// What ranks compute on.
    #[error("{0}")]
    Device(String),
    /// Should not be possible.
    #[error("internal error: {0}")]
    Internal(String),
}

impl TrainError {
    /// An [`Self::Output`] about `path`, for `map_err`.
    pub fn output<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Output { action, path: path.into(), source }
    }

    /// The stable code of this kind of failure.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Data(_) => FailureCode::Data,
            Self::Model(_) | Self::Unfit(_) | Self::NoCheckpoint(_) => FailureCode::Model,
            Self::Resume(_) => FailureCode::Checkpoint,
            Self::Output { .. } => FailureCode::Output,
            // These would come again, however often the gang is started.
            Self::Collective(CollectiveError::Disagreement { .. }) => FailureCode::Disagreement,
            Self::Collective(CollectiveError::Panicked { .. }) => FailureCode::Internal,
            Self::Collective(CollectiveError::NcclMissing { .. }) | Self::Device(_) => FailureCode::Device,
            Self::Collective(_) => FailureCode::Collective,
            Self::NotFinite { .. } => FailureCode::NotFinite,
            Self::Internal(_) => FailureCode::Internal,
        }
    }
}
