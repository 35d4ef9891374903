//! Why a model cannot be used.

use std::path::PathBuf;

use thiserror::Error;

/// Why a model cannot be loaded, run or saved.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A folder lacks a file that every model has.
    #[error("{folder}: there is no {file}; a model folder holds config.json, weights and a tokenizer's files", folder = folder.display())]
    NoFile {
        /// The folder.
        folder: PathBuf,
        /// What it lacks.
        file: &'static str,
    },
    /// config.json is not JSON, or a field is missing or has no meaning here.
    #[error("{path}: {message}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the field's name.
        message: String,
    },
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] squad_weights::WeightsError),
    /// A file of whole numbers is damaged.
    #[error("{path}: not a whole safetensors file ({message}); fetch it again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        message: String,
    },
    /// A weights file lacks tensors of the encoder, or holds them in another shape.
    #[error("{path}: {message}", path = path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Which tensors, and how.
        message: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl ModelError {
    /// An [`Self::Io`] about `path`, for `map_err`.
    pub fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.into(), source }
    }
}
