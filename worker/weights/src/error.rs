//! Why weights cannot be read, converted or written.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why weights cannot be read, converted or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A folder holds no weights.
    #[error("{folder}: there are no weights; looked for {names}", folder = folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// The files that would have been read.
        names: String,
    },
    /// The first bytes are of no format known here.
    #[error(
        "{path}: not a weights file known here; these are: safetensors, PyTorch's files, an index of either, \
         and .params", path = path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// A file contradicts itself or ends early.
    #[error("{path}: not a whole weights file: {message}; fetch it again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A pickle asks for something that weights have no need of.
    #[error(
        "{path}: refused to run {global}, which this file asks for and weights have no need of; if you trust \
         where it comes from, load it with PyTorch and save its state_dict() as safetensors",
        path = path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it would have run, with its module.
        global: String,
    },
    /// A file is whole, as far as can be seen, but has something that is not read here.
    #[error("{path}: {message}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What, and what to do about it.
        message: String,
    },
    /// An index and the files beside it do not belong together.
    #[error("{path}: {message}", path = path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Which file or tensor, and how.
        message: String,
    },
    /// A configuration lacks something or asks for something unknown.
    #[error("{path}: {message}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the field's name.
        message: String,
    },
    /// Names or shapes are not those of a known architecture, or not those of the configuration.
    #[error("{path}: {message}", path = path.display())]
    Mismatch {
        /// The weights.
        path: PathBuf,
        /// Which tensors, and how.
        message: String,
    },
    /// A file that was not to be replaced is there.
    #[error("{path}: the file exists; choose another folder, or ask for it to be replaced", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

impl WeightsError {
    /// An [`Self::Io`] about `path`, for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.into(), source }
    }
}

/// What a reader found wrong with some bytes, before it is known which file they are from.
#[derive(Debug)]
pub(crate) enum Fault {
    Unknown,
    Damaged(String),
    Refused(String),
    Unsupported(String),
}

impl Fault {
    pub(crate) fn damaged<T>(message: impl Into<String>) -> Result<T, Self> {
        Err(Self::Damaged(message.into()))
    }

    pub(crate) fn unsupported<T>(message: impl Into<String>) -> Result<T, Self> {
        Err(Self::Unsupported(message.into()))
    }

    /// The error about `path`, for `map_err`.
    pub(crate) fn of(path: &Path) -> impl Fn(Self) -> WeightsError + '_ {
        move |fault| {
            let path = path.into();
            match fault {
                Self::Unknown => WeightsError::Unknown { path },
                Self::Damaged(message) => WeightsError::Damaged { path, message },
                Self::Refused(global) => WeightsError::Refused { path, global },
                Self::Unsupported(message) => WeightsError::Unsupported { path, message },
            }
        }
    }
}
